//! A member that serves the API from a real ledger, in this process and at a time that tests set.
//!
//! Nothing triggers, submits or monitors: tests record what they need themselves.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use flowkeeper::airflow::{Airflow, Auth, Settings};
use flowkeeper::app::connect;
use flowkeeper::clock::Clock;
use flowkeeper::config::{self, Config, Environment};
use flowkeeper::definitions::desk::Desk;
use flowkeeper::definitions::reloads::{self, Reloads};
use flowkeeper::definitions::{Provenance, Source};
use flowkeeper::domain::occurrence::Occurrence;
use flowkeeper::domain::run::{AirflowState, RunId, RunState};
use flowkeeper::domain::schedule::{Overlap, ScheduleName, TriggerKind};
use flowkeeper::domain::team::Teams;
use flowkeeper::health::{Inspector, Latest};
use flowkeeper::http::{self, Access, Api, Peers};
use flowkeeper::members::Sight;
use flowkeeper::metrics;
use flowkeeper::operations::{Operations, OperationsParts};
use flowkeeper::secret::{Credential, Secret};
use flowkeeper::status::Status;
use flowkeeper::store::model::{Covered, CursorMove, NewRun, Recording, Sighting};
use flowkeeper::store::{Leadership, Ledger, TriggerIdentity};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::PATIENCE;

/// When it is, for members under test.
pub(crate) const NOW: &str = "2026-11-22T12:00:00Z";

/// What the Airflow of a member under test accepts.
pub(crate) const AIRFLOW_TOKEN: &str = "airflow-secret";

/// Two schedules by the clock and one by a znode; `{…}` is filled in by [`Member::start`].
const CONFIGURATION: &str = r#"
[server]
listen = "{listen}"
{server}

[store]
url = "sqlite://flowkeeper.db"

[zookeeper]
connect = "127.0.0.1:1"

[airflow.main]
url = "{airflow}"
auth = { token = { env = "AIRFLOW_TOKEN" } }

[[schedule]]
name = "hourly-load"
cron = "0 * * * *"
timezone = "Europe/Berlin"
dag = "load"
owner = "payments"
conf = { hour = "{{ nominal_time | strftime('%H') }}" }
overlap = "allow"

[[schedule]]
name = "nightly"
cron = "30 2 * * *"
timezone = "Europe/Berlin"
dag = "nightly"
paused = true

[[schedule]]
name = "on-flag"
znode = { path = "/data/ready" }
dag = "reload"
conf = { text = "{{ znode.text }}" }
"#;

/// Definitions that stay as they are, and cannot be read again.
fn reloads(config: &Config, now: Timestamp) -> Reloads {
    let state = reloads::State {
        in_force: Provenance {
            source: Source::File,
            version: config.version.clone(),
            zookeeper_version: None,
            author: None,
            message: None,
            at: now,
        },
        since: now,
        schedules: config.schedules.len(),
        airflows: config.airflows.len(),
        ensembles: config.ensembles.len(),
        warnings: Vec::new(),
        restart: Vec::new(),
        refused: None,
        applying: None,
    };
    Reloads { state: watch::Sender::new(Arc::new(state)).subscribe(), looks: mpsc::channel(1).0 }
}

/// A serving member.
pub(crate) struct Member {
    pub(crate) directory: TempDir,
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) leadership: Leadership,
    pub(crate) lead: watch::Sender<Option<Leadership>>,
    /// Its teams.
    pub(crate) teams: watch::Sender<Teams>,
    /// What it knows of other members.
    pub(crate) sight: watch::Sender<Sight>,
    pub(crate) clock: Clock,
    pub(crate) status: Status,
    base: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text))
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(crate) fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).expect("a legal name")
}

impl Member {
    /// Serves without tokens, on loopback, and with an Airflow that nobody answers for.
    pub(crate) async fn start() -> Self {
        Self::start_with("", "http://127.0.0.1:1").await
    }

    /// Serves with these lines in `[server]` and the Airflow at this address.
    pub(crate) async fn start_with(server: &str, airflow: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let directory = tempfile::tempdir().expect("a directory");
        let text = CONFIGURATION
            .replace("{listen}", &address.to_string())
            .replace("{server}", server)
            .replace("{airflow}", airflow);
        std::fs::write(directory.path().join("flowkeeper.toml"), text).expect("a written configuration");
        let environment: Environment = [
            ("READ", "r-secret"),
            ("OPERATE", "o-secret"),
            ("ADMIN", "a-secret"),
            ("TEAM", "t-secret"),
            ("AIRFLOW_TOKEN", AIRFLOW_TOKEN),
        ]
        .into_iter()
        .collect();
        let (config, _) = config::check(&directory.path().join("flowkeeper.toml"), &environment)
            .unwrap_or_else(|faults| panic!("{:?}", faults.faults));
        let clock = Clock::manual(at(NOW));
        let ledger = Ledger::open(&config.store.url, clock.clone()).await.expect("a ledger");
        let leadership = ledger.take_lead("test").await.expect("the lead");
        let identities: Vec<_> = config
            .schedules
            .iter()
            .map(|schedule| TriggerIdentity {
                name: schedule.name.clone(),
                was: Vec::new(),
                key: schedule.trigger.identity(),
            })
            .collect();
        ledger.adopt_schedules(&leadership, &identities, clock.now()).await.expect("cursors");

        let schedules = watch::Sender::new(Arc::new(config.schedules.clone()));
        let teams = watch::Sender::new(Arc::clone(&config.teams));
        let lead = watch::Sender::new(Some(leadership.clone()));
        let airflow = Airflow::new(airflow_settings(airflow), clock.clone()).expect("a client");
        let operations = Operations::new(OperationsParts {
            lineages: watch::Sender::new(Arc::new(HashMap::default())).subscribe(),
            ledger: ledger.clone(),
            leadership: lead.subscribe(),
            schedules: schedules.subscribe(),
            teams: teams.subscribe(),
            airflows: watch::Sender::new(Arc::new(BTreeMap::from([(Arc::from("main"), airflow)]))).subscribe(),
            desks: flowkeeper::sync::Desks::default(),
            clock: clock.clone(),
        });
        let status = Status::new();
        status.set_started();
        status.set_leading(true);
        let watched = connect::watched(&config, &Arc::new(environment.clone())).expect("settings");
        let inspector = Inspector::new(watched.into_iter().map(|watched| watched.target));
        let shutdown = CancellationToken::new();
        let sight = watch::Sender::new(Sight::default());
        let api = Api {
            ledger: ledger.clone(),
            operations,
            definitions: Desk::new(None, Arc::new(config.clone())),
            schedules: schedules.subscribe(),
            clock: clock.clone(),
            status: status.clone(),
            access: Access::from_config(&config.server, &environment).expect("tokens"),
            home: None,
            config: watch::Sender::new(Arc::new(config.clone())).subscribe(),
            reloads: reloads(&config, clock.now()),
            inspector: watch::Sender::new(Arc::new(inspector)).subscribe(),
            peers: Peers::new(sight.subscribe()).expect("a client"),
            inspections: Latest::default().subscribe(),
            metrics: prometheus(),
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(http::serve(listener, api));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let base = format!("http://{address}");
        Self { directory, config, ledger, leadership, lead, teams, sight, clock, status, base, http, shutdown, task }
    }

    /// Where its configuration is, for commands.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory.path().join("flowkeeper.toml")
    }

    /// A request to a path, to be adorned and sent.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = header.unwrap_or_default().to_owned();
        Answer { status: response.status(), content_type, text: response.text().await.expect("a body") }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// What the audit holds, oldest first: `action target`.
    pub(crate) async fn actions(&self) -> Vec<String> {
        let audit = self.ledger.audit(1000, None).await.expect("an audit");
        audit.items.iter().rev().map(|entry| format!("{} {}", entry.action, entry.target)).collect()
    }

    /// Records a run of `hourly-load` for a nominal time, in a state that a policy decided or pending.
    pub(crate) async fn record(&self, time: &str, state: RunState) -> RunId {
        self.record_run(NewRun { state, ..nominal_run(time) }).await
    }

    /// Records a row that covers the hours from `from` to `to`.
    pub(crate) async fn record_missed(&self, from: &str, to: &str, count: i64) -> RunId {
        let covers = Some(Covered { from: at(from), to: at(to), count });
        let reason = Some("outside the catch-up window".to_owned());
        self.record_run(NewRun { state: RunState::Missed, covers, reason, ..nominal_run(to) }).await
    }

    /// Moves the cursor of `hourly-load`.
    pub(crate) async fn move_cursor(&self, to: &str) {
        let cursors = vec![CursorMove::Cron { schedule: name("hourly-load"), to: at(to) }];
        let recording = Recording { cursors, ..Recording::default() };
        self.ledger.record(&self.leadership, recording).await.expect("a commit");
    }

    pub(crate) async fn record_run(&self, run: NewRun) -> RunId {
        let recording = Recording { runs: vec![run], ..Recording::default() };
        let recorded = self.ledger.record(&self.leadership, recording).await.expect("a commit");
        recorded[0].id
    }

    /// Lets the ledger see the DAG run of a nominal time in Airflow.
    pub(crate) async fn see(&self, dag_run_id: &str, state: AirflowState) {
        let sighting = Sighting {
            dag_id: "load".into(),
            dag_run_id: dag_run_id.to_owned(),
            state,
            run_type: Some("manual".into()),
            logical_date: None,
            queued_at: None,
            started_at: Some(at("2026-11-22T11:00:02Z")),
            ended_at: matches!(state, AirflowState::Success | AirflowState::Failed).then(|| at("2026-11-22T11:03:07Z")),
            note: Some(format!("flowkeeper store {}", self.ledger.store_id())),
            conf: None,
            keep: true,
        };
        self.ledger.record_sightings(&self.leadership, "main", vec![sighting], None).await.expect("a commit");
    }

    /// Stops serving; fails when the server does not end by itself.
    pub(crate) async fn stop(self) {
        self.stop_serving().await;
    }

    /// The same, and keeps the configuration and the ledger.
    pub(crate) async fn stop_serving(self) -> TempDir {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the server ends").expect("no panic").expect("no error");
        self.directory
    }
}

/// The run of `hourly-load` for a nominal time.
pub(crate) fn nominal_run(time: &str) -> NewRun {
    NewRun {
        schedule: name("hourly-load"),
        owner: Some("payments".into()),
        airflow: "main".into(),
        dag_id: "load".into(),
        dag_run_id: dag_run_id(time),
        trigger: TriggerKind::Cron,
        nominal_time: Some(at(time)),
        due_at: at(time),
        covers: None,
        state: RunState::Pending,
        reason: None,
        coalesced: 0,
        conf: RawValue::from_string(r#"{"hour":"12"}"#.into()).expect("JSON"),
        logical_date: Some(at(time)),
        data_interval: None,
        overlap: Overlap::Allow,
        consume: None,
        lock: None,
    }
}

pub(crate) fn dag_run_id(time: &str) -> String {
    Occurrence::Nominal(at(time)).dag_run_id(&name("hourly-load"))
}

fn airflow_settings(url: &str) -> Settings {
    Settings {
        name: Arc::from("main"),
        url: url.parse().expect("a URL"),
        auth: Auth::Token(Credential::Fixed(Secret::new(AIRFLOW_TOKEN))),
        headers: Vec::new(),
        ca: None,
        timeout: std::time::Duration::from_secs(30),
    }
}

/// There is one recorder in a process.
fn prometheus() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| metrics::install().expect("no other recorder")).clone()
}

//! Puts the parts together: configuration → clients → ledger → triggers, dispatcher, monitor → API.
//!
//! One straight function from a checked configuration to a running member. It holds no state of its
//! own and decides nothing but the order in which parts start and end.

pub mod connect;
pub mod logging;
pub mod preflight;
mod witness;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};

use crate::airflow::Airflow;
use crate::airflow::dags;
use crate::airflow::pace::Pace;
use crate::chores::Chores;
use crate::clock::Clock;
use crate::config::model::InFlight;
use crate::config::{Config, Environment};
use crate::dispatcher::{self, Target};
use crate::domain::schedule::{Schedule, Trigger, TriggerKind};
use crate::http::{self, Access, Api};
use crate::lifecycle::Lifecycle;
use crate::metrics;
use crate::monitor;
use crate::operations::{Operations, OperationsParts};
use crate::status::Status;
use crate::store::{Leadership, Ledger, StoreError, TriggerIdentity};
use crate::triggers::cron::{Cron, settle_edited};
use crate::triggers::gate::Gates;
use crate::triggers::znode::ZnodeTriggerParts;
use crate::triggers::{consume, gatekeeper, znode};
use crate::zookeeper::Ensemble;
use connect::ConnectError;
use witness::AirflowClocks;

/// How long the start waits for an Airflow to tell which DAGs are paused.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(3);

/// How a member serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeOptions {
    /// Record everything, submit nothing.
    pub shadow: bool,
}

/// Why a member could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A client cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address is taken or not ours.
    #[error("listen on {address}: {source}")]
    Listen {
        /// `[server] listen`.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The metrics registry is there already, or cannot be made.
    #[error("set up metrics: {0}")]
    Metrics(#[from] BuildError),
    /// A token of `[[server.token]]` cannot be read.
    #[error("read the token of the API: {0}")]
    Token(String),
    /// The process cannot hear signals.
    #[error("listen for signals: {0}")]
    Signals(io::Error),
    /// A task failed.
    #[error("go on serving: {0}")]
    Task(String),
}

impl ServeError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Listen { .. } => Some("is another member serving there? change `[server] listen`".into()),
            Self::Connect(_) | Self::Token(_) => {
                Some("set the variable or create the file that the configuration names".into())
            }
            Self::Metrics(_) | Self::Signals(_) | Self::Task(_) => None,
        }
    }
}

/// Runs a member until a signal asks it to end.
pub async fn serve(config: Config, environment: Environment, options: ServeOptions) -> Result<(), ServeError> {
    let clock = Clock::system();
    let lifecycle = Lifecycle::new();
    let environment = Arc::new(environment);
    let address = config.server.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let prometheus = metrics::install()?;
    let access =
        Access::from_config(&config.server, &environment).map_err(|error| ServeError::Token(error.to_string()))?;
    let airflows = airflows(&config, &environment, &clock)?;

    let url = &config.store.url;
    let ledger = if options.shadow {
        Ledger::open_shadow(url, clock.clone()).await?
    } else {
        Ledger::open(url, clock.clone()).await?
    };
    let leadership = ledger.take_lead(&member_name(address)).await?;
    let member = Member {
        shadow: options.shadow,
        schedules: Arc::new(config.schedules.clone()),
        status: Status::new(),
        config,
        environment,
        clock,
        lifecycle: lifecycle.clone(),
        ledger,
        leadership,
        airflows,
    };
    member.start(listener, prometheus, access).await?;
    tracing::info!(
        address = %address,
        epoch = member.leadership.epoch(),
        schedules = member.schedules.len(),
        shadow = options.shadow,
        "flowkeeper serves"
    );
    lifecycle.ended().await.map_err(ServeError::Signals)?;
    member.status.set_leading(false);
    member.leadership.give_up();
    lifecycle.finish().await.map_err(ServeError::Task)
}

fn airflows(
    config: &Config,
    environment: &Environment,
    clock: &Clock,
) -> Result<HashMap<Arc<str>, Airflow>, ConnectError> {
    let airflows = config.airflows.iter();
    airflows
        .map(|(name, settings)| Ok((Arc::clone(name), connect::airflow(settings, environment, clock.clone())?)))
        .collect()
}

/// What the ledger calls this process.
fn member_name(address: SocketAddr) -> String {
    format!("{address} (process {})", std::process::id())
}

/// A member with everything that its parts share.
struct Member {
    /// Nothing is submitted to Airflow and nothing deleted in ZooKeeper, also not what was recorded
    /// before by a member that was no shadow.
    shadow: bool,
    config: Config,
    environment: Arc<Environment>,
    clock: Clock,
    lifecycle: Lifecycle,
    ledger: Ledger,
    leadership: Leadership,
    schedules: Arc<Vec<Arc<Schedule>>>,
    airflows: HashMap<Arc<str>, Airflow>,
    status: Status,
}

impl Member {
    async fn start(
        &self,
        listener: TcpListener,
        prometheus: PrometheusHandle,
        access: Access,
    ) -> Result<(), ServeError> {
        self.status.set_leading(true);
        metrics::leader(true);
        // Before anything starts, the gates must be where they belong: what is paused must not fire.
        let mut directories = self.start_directories().await;
        let states = self.ledger.schedule_states().await?;
        let now = self.clock.now();
        let first = gatekeeper::first(&self.schedules, &states, &mut directories, now);
        settle_edited(&self.ledger, &self.leadership, &self.schedules, &states, &first, now).await?;
        self.adopt_schedules(now).await?;
        let (gates_sender, gates) = watch::channel(first);
        self.spawn_gatekeeper(directories, gates_sender);
        if !self.shadow {
            self.spawn_dispatcher(gates.clone());
        }
        let reconcile = self.spawn_monitors();
        self.spawn_cron(gates.clone()).await?;
        self.spawn_znode_triggers(&gates)?;
        self.spawn_chores(reconcile);
        self.spawn_api(listener, prometheus, access);
        self.end_when_replaced();
        for kind in [TriggerKind::Cron, TriggerKind::Znode] {
            let count = self.schedules.iter().filter(|schedule| schedule.trigger.kind() == kind).count();
            metrics::schedules(kind, count);
        }
        metrics::ledger_writable(true);
        self.status.set_started();
        Ok(())
    }

    /// Brings the cursors in the ledger into line with the configuration.
    async fn adopt_schedules(&self, now: Timestamp) -> Result<(), StoreError> {
        let identity = |schedule: &Arc<Schedule>| TriggerIdentity {
            name: schedule.name.clone(),
            was: schedule.was.clone(),
            key: schedule.trigger.identity(),
        };
        let identities: Vec<_> = self.schedules.iter().map(identity).collect();
        self.ledger.adopt_schedules(&self.leadership, &identities, now).await
    }

    /// What each Airflow knows of the DAGs that schedules use.
    async fn start_directories(&self) -> gatekeeper::Directories {
        let mut directories = gatekeeper::Directories::new();
        for (name, airflow) in &self.airflows {
            let used = self.schedules.iter().filter(|schedule| schedule.airflow == *name);
            let dags: BTreeSet<String> = used.map(|schedule| schedule.dag_id.to_string()).collect();
            let dags: Vec<String> = dags.into_iter().collect();
            let (sender, directory) = watch::channel(dags::first(airflow, &dags, DIRECTORY_PATIENCE).await);
            let refresher = dags::refresh(airflow.clone(), dags, sender);
            let ending = self.lifecycle.ending().clone();
            self.lifecycle.spawn("DAG directory", async move {
                let () = ending.run_until_cancelled(refresher).await.unwrap_or_default();
                Ok::<(), StoreError>(())
            });
            directories.insert(Arc::clone(name), directory);
        }
        directories
    }

    fn spawn_gatekeeper(&self, directories: gatekeeper::Directories, gates: watch::Sender<Gates>) {
        self.lifecycle.spawn(
            "gatekeeper",
            gatekeeper::run(
                self.ledger.clone(),
                self.leadership.clone(),
                Arc::clone(&self.schedules),
                directories,
                gates,
                self.clock.clone(),
            ),
        );
    }

    /// Where runs can be read, for the notes of DAG runs; `None` where nobody could follow a link.
    fn link(&self) -> Option<String> {
        let server = &self.config.server;
        let listens = (!server.listen.ip().is_unspecified()).then(|| format!("http://{}", server.listen));
        server.advertise.clone().or(listens)
    }

    fn spawn_dispatcher(&self, gates: watch::Receiver<Gates>) {
        let targets = self
            .airflows
            .iter()
            .map(|(name, airflow)| {
                let in_flight = self.config.airflows.get(name).map_or(InFlight::Auto, |airflow| airflow.in_flight);
                let pace = match in_flight {
                    InFlight::Auto => Pace::auto(),
                    InFlight::Fixed(limit) => Pace::fixed(limit),
                };
                (Arc::clone(name), Target { airflow: airflow.clone(), pace })
            })
            .collect();
        self.lifecycle.spawn(
            "dispatcher",
            dispatcher::run(dispatcher::Parts {
                ledger: self.ledger.clone(),
                leadership: self.leadership.clone(),
                targets,
                schedules: self
                    .schedules
                    .iter()
                    .map(|schedule| (schedule.name.clone(), Arc::clone(schedule)))
                    .collect(),
                gates,
                clock: self.clock.clone(),
                link: self.link(),
            }),
        );
    }
}

impl Member {
    /// Starts a monitor for each Airflow; what wakes each of them for a full comparison.
    fn spawn_monitors(&self) -> Vec<Arc<Notify>> {
        let mut wakers = Vec::new();
        for (name, airflow) in &self.airflows {
            let Some(settings) = self.config.airflows.get(name) else { continue };
            let reconcile = Arc::new(Notify::new());
            wakers.push(Arc::clone(&reconcile));
            self.lifecycle.spawn(
                "monitor",
                monitor::run(monitor::Parts {
                    airflow: airflow.clone(),
                    ledger: self.ledger.clone(),
                    leadership: self.leadership.clone(),
                    keep: settings.monitor.clone(),
                    clock: self.clock.clone(),
                    reconcile,
                }),
            );
        }
        wakers
    }

    async fn spawn_cron(&self, gates: watch::Receiver<Gates>) -> Result<(), StoreError> {
        let states = self.ledger.schedule_states().await?;
        // The configuration is read once, so nothing is ever sent.
        let (edits_sender, edits) = mpsc::channel(1);
        let cron = Cron {
            ledger: self.ledger.clone(),
            leadership: self.leadership.clone(),
            clock: self.clock.clone(),
            witness: AirflowClocks::new(self.airflows.values().cloned().collect()),
            gates,
            edits,
            status: self.status.clone(),
            shutdown: self.lifecycle.ending().clone(),
        };
        let schedules = Arc::clone(&self.schedules);
        self.lifecycle.spawn("cron trigger", async move {
            let ended = cron.run(schedules.iter().cloned(), &states).await;
            drop(edits_sender);
            ended
        });
        Ok(())
    }

    /// Connects to every ensemble that a schedule watches, and starts its triggers.
    fn spawn_znode_triggers(&self, gates: &watch::Receiver<Gates>) -> Result<(), ConnectError> {
        let mut ensembles: HashMap<Option<Arc<str>>, Ensemble> = HashMap::new();
        for schedule in self.schedules.iter() {
            let Trigger::Znode(trigger) = &schedule.trigger else { continue };
            let ensemble = if let Some(ensemble) = ensembles.get(&trigger.ensemble) {
                ensemble.clone()
            } else {
                let Some(ensemble) = self.connect(trigger.ensemble.as_ref())? else { continue };
                ensembles.insert(trigger.ensemble.clone(), ensemble.clone());
                ensemble
            };
            let parts = ZnodeTriggerParts {
                schedule: Arc::clone(schedule),
                ensemble,
                ledger: self.ledger.clone(),
                leadership: self.leadership.clone(),
                gates: gates.clone(),
                clock: self.clock.clone(),
                status: self.status.clone(),
                generation: 0,
            };
            let trigger = znode::run(parts, self.lifecycle.ending().clone());
            self.lifecycle.spawn("znode trigger", async move {
                trigger.await;
                Ok::<(), StoreError>(())
            });
        }
        for ensemble in ensembles.into_values().filter(|_| !self.shadow) {
            let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
            let consumer = consume::run(ensemble, ledger, leadership, self.lifecycle.ending().clone());
            self.lifecycle.spawn("consumer of znodes", async move {
                consumer.await;
                Ok::<(), StoreError>(())
            });
        }
        Ok(())
    }

    /// A session to an ensemble of the configuration, by name; `None` is the home ensemble.
    fn connect(&self, name: Option<&Arc<str>>) -> Result<Option<Ensemble>, ConnectError> {
        // The configuration was checked: a schedule names only ensembles that there are.
        let Some(connection) = self.config.connection(name.map(|name| &**name)) else { return Ok(None) };
        let key = name.map_or_else(|| "zookeeper".to_owned(), |name| format!("ensemble.{name}"));
        let settings = connect::zookeeper(connection.clone(), Arc::clone(&self.environment), key)?;
        let ending = self.lifecycle.ending().clone();
        Ok(Some(Ensemble::start(name.cloned(), settings, self.clock.clone(), ending)))
    }

    fn spawn_chores(&self, reconcile: Vec<Arc<Notify>>) {
        let chores = Chores {
            ledger: self.ledger.clone(),
            leadership: self.leadership.clone(),
            retention: self.config.store.retention,
            reconcile,
        };
        self.lifecycle.spawn("chores", chores.run());
    }

    fn spawn_api(&self, listener: TcpListener, metrics: PrometheusHandle, access: Access) {
        let (leadership_sender, leadership) = watch::channel(Some(self.leadership.clone()));
        let (schedules_sender, schedules) = watch::channel(Arc::clone(&self.schedules));
        let operations = Operations::new(OperationsParts {
            ledger: self.ledger.clone(),
            leadership,
            schedules: schedules.clone(),
            airflows: self.airflows.clone(),
            clock: self.clock.clone(),
        });
        let api = Api {
            ledger: self.ledger.clone(),
            operations,
            schedules,
            clock: self.clock.clone(),
            status: self.status.clone(),
            access,
            metrics,
            shutdown: self.lifecycle.ending().clone(),
        };
        self.lifecycle.spawn("HTTP API", async move {
            let served = http::serve(listener, api).await;
            drop((leadership_sender, schedules_sender));
            served
        });
    }

    /// A member whose epoch was refused has nothing left to do.
    fn end_when_replaced(&self) {
        let (leadership, ending) = (self.leadership.clone(), self.lifecycle.ending().clone());
        self.lifecycle.spawn("leadership", async move {
            tokio::select! {
                () = ending.cancelled() => Ok(()),
                () = leadership.lost().cancelled() => if ending.is_cancelled() { Ok(()) } else { Err("a newer member has taken the lead on this store") },
            }
        });
    }
}

//! Airflow's own parts: what is seen of them, what is remembered, and what an Airflow that answers badly or
//! not at all does to it.

use std::sync::Arc;
use std::time::Duration;

use flowkeeper::airflow::{Airflow, Auth, Settings};
use flowkeeper::clock::Clock;
use flowkeeper::components::overview::{self, AirflowOverview, ComponentOverview};
use flowkeeper::components::{self, Parts};
use flowkeeper::domain::component::{ComponentKind, ComponentState, Reach};
use flowkeeper::publisher::Publisher;
use flowkeeper::secret::{Credential, Secret};
use flowkeeper::store::{Leadership, Ledger};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, Fault, Version, World};
use crate::support::process::Member;
use crate::support::world::{PATIENCE, wait_for};
use crate::support::zookeeper::ZooKeeperServer;

/// How long an answer is waited for where none comes; ample for one that does.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A leader that looks at one Airflow, often.
struct Watched {
    fake: FakeAirflow,
    ledger: Ledger,
    leadership: Leadership,
    _directory: tempfile::TempDir,
}

impl Watched {
    async fn start(world: World) -> Self {
        let fake = FakeAirflow::start(world).await;
        let directory = tempfile::tempdir().expect("a directory for the ledger");
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, Clock::system()).await.expect("the ledger opens");
        let leadership = ledger.take_lead("test").await.expect("the lead is free");
        let watched = Self { fake, ledger, leadership, _directory: directory };
        watched.watch();
        watched
    }

    /// Looks until the lead is given up.
    fn watch(&self) -> tokio::task::JoinHandle<()> {
        let watching = components::run(self.parts());
        tokio::spawn(async move { watching.await.expect("it ends with the lead") })
    }

    fn parts(&self) -> Parts {
        Parts {
            airflow: client(&self.fake.url(), TIMEOUT),
            interval: Duration::from_millis(20),
            heartbeat_threshold: Duration::from_secs(30),
            ledger: self.ledger.clone(),
            leadership: self.leadership.clone(),
            publisher: Publisher::default(),
            clock: Clock::system(),
        }
    }

    async fn overview(&self) -> AirflowOverview {
        let named = [("main".to_owned(), self.fake.url())];
        overview::read(&self.ledger, named).await.expect("the ledger is read").remove(0)
    }

    /// Waits until what is remembered is like this.
    async fn comes(&self, what: &str, good: impl Fn(&AirflowOverview) -> bool) -> AirflowOverview {
        let look = || async { Some(self.overview().await).filter(|overview| good(overview)) };
        // The last overview is worth more than a time-out without words.
        let waited = tokio::time::timeout(PATIENCE / 2, wait_for(look, String::new)).await;
        let Ok(overview) = waited else { panic!("{what}: {:#?}", self.overview().await) };
        overview
    }
}

fn client(url: &str, timeout: Duration) -> Airflow {
    let settings = Settings {
        name: "main".into(),
        url: url.parse().expect("an address"),
        auth: Auth::Password { username: "admin".into(), password: Credential::Fixed(Secret::new("admin")) },
        headers: Vec::new(),
        ca: None,
        timeout,
    };
    Airflow::new(settings, Clock::system()).expect("good settings")
}

fn states(overview: &AirflowOverview) -> Vec<(ComponentKind, Option<i64>, ComponentState)> {
    overview.components.iter().map(|part| (part.kind, part.job, part.state)).collect()
}

fn part(overview: &AirflowOverview, job: i64) -> &ComponentOverview {
    overview.components.iter().find(|part| part.job == Some(job)).expect("a part of this number")
}

const WELL: [(ComponentKind, Option<i64>, ComponentState); 2] = [
    (ComponentKind::Scheduler, Some(1), ComponentState::Healthy),
    (ComponentKind::DagProcessor, Some(2), ComponentState::Healthy),
];

#[tokio::test]
async fn a_part_is_followed_from_its_first_heartbeat_to_its_end() {
    let watched = Watched::start(World::new(Version::Three)).await;
    let first = watched.comes("two parts", |overview| states(overview) == WELL).await;
    assert_eq!((first.state, first.version.as_deref()), (Reach::Up, Some("3.3.2")));
    assert_eq!((first.warnings.len(), first.jobs_reason.as_deref()), (0, None));
    assert_eq!(part(&first, 1).hostname.as_deref(), Some("host-1"));

    // Stopped, and not replaced.
    let late = SignedDuration::from_secs(45);
    watched.fake.world().process(1).stopped_at = Some(Clock::system().now() - late);
    let stale = watched.comes("a late scheduler", |now| part(now, 1).state == ComponentState::Stale).await;
    assert!(stale.warnings[0].starts_with("the scheduler on host-1 (job 1) has not beaten since"), "{stale:?}");
    assert!(part(&stale, 1).heartbeat_age_ms.is_some_and(|age| age >= 44_000), "{stale:?}");

    // Another one comes, and the late one is given up by Airflow.
    watched.fake.world().start("SchedulerJob");
    watched.fake.world().process(1).state = "failed";
    let gone = watched.comes("the late one is gone", |now| part(now, 1).state == ComponentState::Gone).await;
    assert_eq!((gone.warnings.len(), part(&gone, 3).state), (0, ComponentState::Healthy));
    assert_eq!(part(&gone, 1).first_seen_at, part(&first, 1).first_seen_at);
    assert!(part(&gone, 1).gone_at.is_some() && part(&gone, 1).last_seen_at >= part(&first, 1).last_seen_at);
    assert_eq!(gone.components.last().and_then(|part| part.job), Some(1), "what is gone comes last");

    // The next leader knows it all.
    watched.leadership.give_up();
    let leadership = watched.ledger.take_lead("another").await.expect("the lead is free");
    let watched = Watched { leadership, ..watched };
    watched.fake.world().processes.retain(|process| process.id != 2);
    watched.watch();
    let after = watched.comes("a row that was cleaned away", |now| part(now, 2).state == ComponentState::Gone).await;
    assert_eq!(part(&after, 3).first_seen_at, part(&gone, 3).first_seen_at);
    assert_eq!(part(&after, 2).reason.as_deref(), Some("Airflow no longer lists it"));
}

#[tokio::test]
async fn an_airflow_2_tells_of_each_kind() {
    let watched = Watched::start(World::new(Version::Two)).await;
    let scheduler = |state| [(ComponentKind::Scheduler, None, state)];
    let overview = watched.comes("the scheduler", |now| states(now) == scheduler(ComponentState::Healthy)).await;
    assert_eq!((overview.version.as_deref(), overview.jobs_reason), (Some("2.11.2"), None));
    watched.fake.world().process(1).stopped_at = Some(Clock::system().now() - SignedDuration::from_secs(31));
    let stale = watched.comes("it is late", |now| states(now) == scheduler(ComponentState::Stale)).await;
    assert_eq!(stale.warnings.len(), 1, "{stale:?}");
    assert_eq!(watched.fake.count("jobs"), 0, "the stable API of Airflow 2 has none");
}

#[tokio::test]
async fn whatever_comes_in_place_of_an_answer_makes_it_unreachable_until_it_answers() {
    let watched = Watched::start(World::new(Version::Three)).await;
    watched.comes("two parts", |overview| states(overview) == WELL).await;
    let cases = [
        ("refused", Fault::Forbidden, "Forbidden"),
        ("broken off", Fault::ResetBefore, "failed to read the health of Airflow main at http://127.0.0.1:"),
        ("silent", Fault::HangBefore, "no answer in time"),
        ("failing", Fault::ErrorBefore, "500"),
        ("a web page", Fault::Html, "failed to read the health of Airflow main: "),
        ("half an answer", Fault::Truncated, "failed to read the health of Airflow main"),
    ];
    for (case, fault, words) in cases {
        let before = watched.comes(case, |now| now.state == Reach::Up).await;
        watched.fake.world().faults_at.insert("health", fault);
        // A look that a busy machine has made too slow may come before.
        let is_told = |now: &AirflowOverview| now.reason.as_ref().is_some_and(|reason| reason.contains(words));
        let away = watched.comes(case, |now| now.state == Reach::Unreachable && is_told(now)).await;
        let reason = away.reason.clone().unwrap_or_default();
        assert!(!reason.contains("admin"), "{case}: {reason}");
        assert!(away.since > before.since && away.answered_at >= before.answered_at, "{case}: {away:?}");
        let unknown = WELL.map(|(kind, job, _)| (kind, job, ComponentState::Unknown));
        assert_eq!(states(&away), unknown, "{case}: nobody knows how they are");
        assert_eq!(away.warnings.len(), 1, "{case}: {away:?}");
        watched.fake.world().faults_at.clear();
        let back = watched.comes(case, |now| now.state == Reach::Up).await;
        assert_eq!((states(&back), back.reason), (WELL.to_vec(), None), "{case}: it is as it was");
    }
}

#[tokio::test]
async fn one_that_takes_too_long_is_not_waited_for_though_its_time_out_is_long() {
    let watched = Watched::start(World::new(Version::Three)).await;
    watched.comes("two parts", |overview| states(overview) == WELL).await;
    watched.leadership.give_up();
    let leadership = watched.ledger.take_lead("another").await.expect("the lead is free");
    let watched = Watched { leadership, ..watched };
    watched.fake.world().faults_at.insert("health", Fault::HangBefore);
    let airflow = client(&watched.fake.url(), Duration::from_mins(5));
    let watching = tokio::spawn(components::run(Parts { airflow, ..watched.parts() }));
    let away = watched.comes("it is given up", |now| now.state == Reach::Unreachable).await;
    let reason = away.reason.unwrap_or_default();
    assert!(reason.ends_with("no answer within 10 s"), "{reason}");
    watched.leadership.give_up();
    watching.await.expect("no panic").expect("it ends with the lead, in the midst of a question too");
}

#[tokio::test]
async fn jobs_that_cannot_be_read_make_nobody_gone() {
    let watched = Watched::start(World::new(Version::Three)).await;
    watched.comes("two parts", |overview| states(overview) == WELL).await;
    for fault in [Fault::Forbidden, Fault::ErrorBefore, Fault::ResetBefore, Fault::HangBefore, Fault::Html] {
        watched.fake.world().faults_at.insert("jobs", fault);
        let untold = |now: &AirflowOverview| now.state == Reach::Up && now.jobs_reason.is_some();
        let untold = watched.comes("no jobs", untold).await;
        assert_eq!(states(&untold), WELL, "{fault:?}");
        watched.fake.world().faults_at.clear();
        watched.comes("the jobs again", |now| now.state == Reach::Up && now.jobs_reason.is_none()).await;
    }
    // Who may never read them knows the kinds.
    let mut world = World::new(Version::Three);
    world.faults_at.insert("jobs", Fault::Forbidden);
    let fresh = Watched::start(world).await;
    let kinds = WELL.map(|(kind, _, state)| (kind, None, state));
    fresh.comes("the kinds", |now| states(now) == kinds).await;
}

#[tokio::test]
async fn a_lost_lead_ends_it_and_a_newer_leader_is_not_overwritten() {
    let watched = Watched::start(World::new(Version::Three)).await;
    watched.comes("two parts", |overview| states(overview) == WELL).await;
    let again = watched.watch();
    watched.leadership.give_up();
    again.await.expect("no panic");
    // One that does not know yet that it was replaced.
    let newer = watched.ledger.take_lead("another").await.expect("the lead is free");
    let replaced = watched.ledger.take_lead("a third").await.expect("the lead is free");
    let outdated = Watched { leadership: newer, ..watched };
    assert!(components::run(outdated.parts()).await.is_err(), "the ledger refuses it");
    assert!(!replaced.lost().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_tells_of_them_in_the_command_the_api_metrics_and_zookeeper() {
    let server = ZooKeeperServer::shared().await;
    let fake = FakeAirflow::start(World::new(Version::Three)).await;
    let root = format!("/components-{}", uuid::Uuid::new_v4().simple());
    let mut member = Member::new(&format!(
        "[zookeeper]\nconnect = \"{}\"\nroot = \"{root}\"\n[airflow.main]\nurl = \"{}\"\nhealth_interval = \"1s\"\n\
         auth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n\
         [airflow.away]\nurl = \"http://127.0.0.1:1\"\nhealth_interval = \"1s\"\n\
         [defaults]\nairflow = \"main\"\n\
         [[schedule]]\nname = \"by-hand\"\ncron = \"0 0 1 1 *\"\ndag = \"load\"\n",
        server.connect(),
        fake.url()
    ));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    let never = member.json(&["airflow"]).await;
    assert_eq!((&never[0]["state"], &never[1]["state"]), (&json!("unknown"), &json!("unknown")));
    member.start();

    let member = Arc::new(member);
    let listed = wait_for(
        || async {
            let items = member.get("airflow").await?["items"].clone();
            (items[0]["state"] == "unreachable" && items[1]["components"].as_array()?.len() == 2).then_some(items)
        },
        || format!("two Airflows\n{}", member.logged()),
    )
    .await;
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&json!("away"), &json!("main")));
    assert_eq!(listed[1]["health"]["triggerer"], Value::Null);
    let scheduler = &listed[1]["components"][0];
    assert_eq!((&scheduler["kind"], &scheduler["state"]), (&json!("scheduler"), &json!("healthy")));

    // The command reads the ledger; its table has a line for each part.
    let told = member.json(&["airflow"]).await;
    assert_eq!(told[1]["components"][0]["hostname"], json!("host-1"));
    let table = String::from_utf8(member.run(&["airflow"]).await.stdout).expect("UTF-8");
    let line = |words: &[&str]| table.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["main", "up", "3.3.2", "http://127.0.0.1"]), "{table}");
    assert!(line(&["away", "unreachable", "refused"]), "{table}");
    assert!(line(&["main", "dag_processor", "host-2", "healthy", "ago"]), "{table}");

    let zk = server.client().await;
    let path = format!("{root}/airflow/main");
    let published = wait_for(
        || async {
            let (data, _) = zk.get_data(&path).await.ok()?;
            serde_json::from_slice::<Value>(&data).ok()
        },
        || format!("no {path}"),
    )
    .await;
    assert_eq!((&published["name"], &published["components"][1]["job"]), (&json!("main"), &json!(2)));

    fake.world().process(1).stopped_at = Some(Clock::system().now() - SignedDuration::from_mins(1));
    let late = r#"flowkeeper_airflow_components{airflow="main",component="scheduler",state="stale"} 1"#;
    let metrics = wait_for(
        || async { member.text("metrics").await.filter(|text| text.contains(late)) },
        || "no metric of a late scheduler".to_owned(),
    )
    .await;
    assert!(metrics.contains(r#"flowkeeper_airflow_warnings{airflow="main"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"flowkeeper_airflow_warnings{airflow="away"} 1"#), "{metrics}");
    assert!(member.logged().contains("has not beaten since"), "{}", member.logged());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_looks_and_tells_nobody() {
    let server = ZooKeeperServer::shared().await;
    let fake = FakeAirflow::start(World::new(Version::Three)).await;
    let root = format!("/components-{}", uuid::Uuid::new_v4().simple());
    let mut member = Member::new(&format!(
        "[zookeeper]\nconnect = \"{}\"\nroot = \"{root}\"\n[airflow.main]\nurl = \"{}\"\nhealth_interval = \"1s\"\n\
         auth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n",
        server.connect(),
        fake.url()
    ));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member.start_with(&["serve", "--shadow"]);
    let looks = || async { (fake.count("health") > 2).then_some(()) };
    wait_for(looks, || format!("it does not look\n{}", member.logged())).await;
    assert_eq!(member.json(&["airflow"]).await[0]["state"], json!("up"), "its own ledger knows");
    let zk = server.client().await;
    assert!(zk.get_data(&format!("{root}/airflow/main")).await.is_err(), "others read that znode");
}

//! Several members: one leads, the others stand by; whoever leads next goes on where the last one was.

use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::zookeeper::ZooKeeperServer;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Members that share an ensemble, a store and an Airflow.
struct Team {
    _zookeeper: ZooKeeperServer,
    airflow: FakeAirflow,
    _directory: tempfile::TempDir,
    members: Vec<Member>,
}

impl Team {
    async fn start(count: usize, schedules: &str) -> Self {
        let mut team = Self::prepare(count, schedules).await;
        for member in &mut team.members {
            member.start();
            team_is_ready(member).await;
        }
        team.leader().await;
        team
    }

    async fn prepare(count: usize, schedules: &str) -> Self {
        let zookeeper = ZooKeeperServer::start().await;
        let airflow = FakeAirflow::start(World::default().with_dags(["tick", "flag"])).await;
        let directory = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let config = format!(
            r#"
[zookeeper]
connect = "{}"
session_timeout = "4s"

[airflow.main]
url = "{}"
auth = {{ token = {{ file = "token" }} }}
timeout = "2s"

{schedules}
"#,
            zookeeper.connect(),
            airflow.url()
        );
        airflow.world().tokens.insert("let-me-in".to_owned());
        let member = |_| {
            let member = Member::sharing(&store, &config);
            std::fs::write(member.path().join("token"), "let-me-in").expect("write the token");
            member
        };
        let members = (0..count).map(member).collect();
        Self { _zookeeper: zookeeper, airflow, _directory: directory, members }
    }

    /// Waits until one member says that it leads; which.
    async fn leader(&mut self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter_mut().enumerate() {
                if is_leading(member).await {
                    return index;
                }
            }
            let logs: Vec<_> = self.members.iter().map(Member::logged).collect();
            assert!(Instant::now() < end, "nobody leads\n{}", logs.join("\n----\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn team_is_ready(member: &Member) {
    let end = Instant::now() + PATIENCE;
    while member.text("readyz").await.is_none() {
        assert!(Instant::now() < end, "not ready\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_leading(member: &Member) -> bool {
    let Some(ready) = member.text("readyz").await else { return false };
    serde_json::from_str::<Value>(&ready).is_ok_and(|ready| ready["leader"] == true)
}

const TICK: &str = r#"
[[schedule]]
name = "tick"
cron = "* * * * * *"
dag = "tick"
catchup = "all"
overlap = "allow"
retry = { initial = "100ms", max = "300ms" }
"#;

/// Every second from the first to the last that is covered is covered by exactly one row, every
/// accepted row is one DAG run, and there are no others.
fn nothing_lost_nothing_twice(team: &Team, runs: &[Run]) {
    let mut rows: Vec<(Timestamp, Timestamp)> = runs
        .iter()
        .filter(|run| run.schedule == "tick")
        .map(|run| {
            let nominal = run.nominal_time.expect("a nominal time");
            (run.from.unwrap_or(nominal), run.to.unwrap_or(nominal))
        })
        .collect();
    rows.sort_unstable();
    for pair in rows.windows(2) {
        assert_eq!(pair[1].0, pair[0].1 + SignedDuration::from_secs(1), "no second is missing or covered twice");
    }
    let world = team.airflow.world();
    for run in runs.iter().filter(|run| run.state.was_accepted()) {
        assert!(world.run(&run.dag_id, &run.dag_run_id).is_some(), "no DAG run {}", run.dag_run_id);
    }
    for dag_run in world.runs() {
        let known = runs.iter().any(|run| run.dag_run_id == dag_run.dag_run_id && run.state.was_accepted());
        assert!(known, "{} is in Airflow and not in the ledger", dag_run.dag_run_id);
    }
}

/// Waits until every run of before `until` is accepted; all runs.
async fn all_accepted(member: &Member, until: Timestamp) -> Vec<Run> {
    member
        .wait_for_runs("all are accepted", |runs| {
            runs.last().is_some_and(|run| run.due_at >= until)
                && runs.iter().filter(|run| run.due_at < until).all(|run| run.state != RunState::Pending)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_goes_on() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    team.members[first].kill();
    let second = team.leader().await;
    assert_ne!(first, second);
    let runs = all_accepted(&team.members[second], Clock::system().now()).await;
    assert_eq!(team.members[second].stop().await, Some(0), "{}", team.members[second].logged());
    let runs_at_the_end = team.members[second].runs().await;
    assert!(runs_at_the_end.len() >= runs.len());
    nothing_lost_nothing_twice(&team, &runs_at_the_end);
    assert!(runs.iter().all(|run| run.count == 1), "nothing is missed within ten seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    team.members[first].signal("TERM");
    let second = team.leader().await;
    let took = began.elapsed();
    assert_ne!(first, second);
    assert!(took < Duration::from_secs(1), "the hand-over took {took:?}\n{}", team.members[second].logged());
    assert_eq!(team.members[first].stop().await, Some(0), "{}", team.members[first].logged());
    all_accepted(&team.members[second], Clock::system().now()).await;
    assert_eq!(team.members[second].stop().await, Some(0));
    let runs = team.members[second].runs().await;
    nothing_lost_nothing_twice(&team, &runs);
    let latest = runs.iter().filter_map(|run| run.accepted_at.map(|at| at.duration_since(run.due_at))).max();
    assert!(latest.is_some_and(|latest| latest < SignedDuration::from_secs(1)), "due to accepted took {latest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_sleeps_beyond_its_session_stands_by_when_it_wakes() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    team.members[first].signal("STOP");
    let second = 1 - first;
    let end = Instant::now() + PATIENCE;
    while !is_leading(&team.members[second]).await {
        assert!(Instant::now() < end, "nobody takes over\n{}", team.members[second].logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    team.members[first].signal("CONT");
    let end = Instant::now() + Duration::from_secs(10);
    while is_leading(&team.members[first]).await {
        assert!(Instant::now() < end, "the old leader does not notice\n{}", team.members[first].logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    team_is_ready(&team.members[first]).await;
    assert_eq!(team.members[first].ended(), None, "it stands by");
    // And takes its turn when the other one ends.
    assert_eq!(team.members[second].stop().await, Some(0));
    assert_eq!(team.leader().await, first);
    all_accepted(&team.members[first], Clock::system().now()).await;
    assert_eq!(team.members[first].stop().await, Some(0));
    nothing_lost_nothing_twice(&team, &team.members[first].runs().await);
}

//! Members that share an ensemble, a store and an Airflow.

use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::fake_airflow::{FakeAirflow, World};
use super::postgres::PostgresServer;
use super::process::Member;
use super::zookeeper::ZooKeeperServer;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// A schedule that comes due every second.
pub(crate) const TICK: &str = r#"
[[schedule]]
name = "tick"
cron = "* * * * * *"
dag = "tick"
catchup = "all"
overlap = "allow"
retry = { initial = "100ms", max = "300ms" }
"#;

/// The token that the Airflow takes.
const TOKEN: &str = "let-me-in";

/// Members, and what they share.
pub(crate) struct Team {
    pub(crate) zookeeper: ZooKeeperServer,
    pub(crate) airflow: FakeAirflow,
    pub(crate) members: Vec<Member>,
    /// The URL of their store.
    pub(crate) store: String,
    schedules: String,
    _directory: Option<tempfile::TempDir>,
}

impl Team {
    /// Starts members on one SQLite file, one after the other.
    pub(crate) async fn start(count: usize, schedules: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite://{}", directory.path().join("ledger.db").display());
        Self::start_on(store, Some(directory), count, schedules).await
    }

    /// The same on a PostgreSQL.
    pub(crate) async fn start_on_postgres(count: usize, schedules: &str) -> Self {
        let store = PostgresServer::shared().await.create_database().await;
        Self::start_on(store, None, count, schedules).await
    }

    async fn start_on(store: String, directory: Option<tempfile::TempDir>, count: usize, schedules: &str) -> Self {
        let mut world = World::default().with_dags(["tick", "flag", "load"]);
        world.tokens.insert(TOKEN.to_owned());
        let mut team = Self {
            zookeeper: ZooKeeperServer::start().await,
            airflow: FakeAirflow::start(world).await,
            members: Vec::new(),
            store,
            schedules: schedules.to_owned(),
            _directory: directory,
        };
        for _ in 0..count {
            let mut member = team.member(&team.store, &team.zookeeper.connect());
            member.start();
            is_ready(&member).await;
            team.members.push(member);
        }
        if count > 0 {
            // What is there when a trigger first looks is no change.
            let leader = team.leader().await;
            team.members[leader].armed().await;
            all_know_the_leader(&team.members).await;
        }
        team
    }

    /// A member of this team, not started, with a way of its own to a store and to ZooKeeper.
    pub(crate) fn member(&self, store: &str, zookeeper: &str) -> Member {
        let config = format!(
            r#"
[zookeeper]
connect = "{zookeeper}"
session_timeout = "6s"

[airflow.main]
url = "{}"
auth = {{ token = {{ file = "token" }} }}
timeout = "2s"
in_flight = 1

{}
"#,
            self.airflow.url(),
            self.schedules
        );
        let member = Member::sharing(store, &config);
        std::fs::write(member.path().join("token"), TOKEN).expect("write the token");
        member
    }

    /// Waits until one member says that it leads; which.
    pub(crate) async fn leader(&mut self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if is_leading(member).await {
                    return index;
                }
            }
            let logs: Vec<_> = self.members.iter().map(Member::logged).collect();
            assert!(Instant::now() < end, "nobody leads\n{}", logs.join("\n----\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// No second is missing, every accepted row is one DAG run, and there are no others.
    pub(crate) fn nothing_lost_nothing_twice(&self, runs: &[Run]) {
        no_second_is_missing(runs);
        let world = self.airflow.world();
        for run in runs.iter().filter(|run| run.state.was_accepted()) {
            assert!(world.run(&run.dag_id, &run.dag_run_id).is_some(), "no DAG run {}", run.dag_run_id);
        }
        for dag_run in world.runs() {
            let known = runs.iter().any(|run| run.dag_run_id == dag_run.dag_run_id && run.state.was_accepted());
            assert!(known, "{} is in Airflow and not in the ledger", dag_run.dag_run_id);
        }
    }
}

/// Every second from the first to the last that [`TICK`] covers is covered by exactly one row; how many
/// rows there are.
pub(crate) fn no_second_is_missing(runs: &[Run]) -> usize {
    let covered = |run: &Run| {
        let nominal = run.nominal_time?;
        Some((run.from.unwrap_or(nominal), run.to.unwrap_or(nominal), run.count))
    };
    let mut rows: Vec<(Timestamp, Timestamp, i64)> =
        runs.iter().filter(|run| run.schedule == "tick").filter_map(covered).collect();
    rows.sort_unstable();
    for (from, to, count) in &rows {
        assert_eq!(to.duration_since(*from).as_secs() + 1, *count, "a row covers what it says");
    }
    for pair in rows.windows(2) {
        assert_eq!(pair[1].0, pair[0].1 + SignedDuration::from_secs(1), "no second is missing or covered twice");
    }
    rows.len()
}

/// Waits until a member is ready, leading or not.
pub(crate) async fn is_ready(member: &Member) {
    let end = Instant::now() + PATIENCE;
    while member.text("readyz").await.is_none() {
        assert!(Instant::now() < end, "not ready\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until one of the members leads and each of them knows which, so that it passes on what only that one
/// can do.
pub(crate) async fn all_know_the_leader(members: &[Member]) {
    let end = Instant::now() + PATIENCE;
    for member in members {
        loop {
            let list = member.get("members").await.unwrap_or_default();
            let first = &list["items"][0];
            let known = members.iter().find(|one| first["url"] == one.url());
            if first["role"] == "leader"
                && first["session"] == "connected"
                && let Some(leader) = known
                && is_leading(leader).await
            {
                break;
            }
            assert!(Instant::now() < end, "it knows no leader: {list:#}\n{}", member.logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether a member says that it leads.
pub(crate) async fn is_leading(member: &Member) -> bool {
    let Some(ready) = member.text("readyz").await else { return false };
    serde_json::from_str::<Value>(&ready).is_ok_and(|ready| ready["leader"] == true)
}

/// Waits until a member leads, or does not any more.
pub(crate) async fn leads(member: &Member, leading: bool) {
    let end = Instant::now() + PATIENCE;
    while is_leading(member).await != leading {
        assert!(Instant::now() < end, "leading should become {leading}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every run that came due by now is accepted; all runs.
pub(crate) async fn all_accepted(member: &Member) -> Vec<Run> {
    let until = Clock::system().now();
    member
        .wait_for_runs("all are accepted", |runs| {
            runs.last().is_some_and(|run| run.due_at >= until)
                && runs.iter().filter(|run| run.due_at < until).all(|run| run.state != RunState::Pending)
        })
        .await
}

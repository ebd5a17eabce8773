//! The promise under fire: flowkeeper, ZooKeeper and the way to Airflow fail at random moments, and
//! at the end every change and every nominal time is covered by one row, and every row is one DAG run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use zookeeper_client::Client;

use crate::support::fake_airflow::{FakeAirflow, Fault, World};
use crate::support::postgres::{PostgresServer, Stop};
use crate::support::process::Member;
use crate::support::random::Random;
use crate::support::team::{TICK, no_second_is_missing};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// How often flowkeeper is killed.
const KILLS: u32 = 50;

/// A store of the member's own.
const SQLITE: &str = "sqlite://ledger.db";

fn config(zookeeper: &str, airflow: &str) -> String {
    format!(
        r#"
[zookeeper]
connect = "{zookeeper}"
session_timeout = "4s"

[airflow.main]
url = "{airflow}"
auth = {{ username = "admin", password = {{ file = "password" }} }}
timeout = "1s"
in_flight = 8
{TICK}
[[schedule]]
name = "flag"
znode = {{ path = "/flag", on = ["created", "changed"] }}
dag = "flag"
retry = {{ initial = "100ms", max = "300ms" }}

[[schedule]]
name = "inbox"
znode = {{ path = "/inbox", watch = "children", consume = "accepted" }}
dag = "inbox"
retry = {{ initial = "100ms", max = "300ms" }}

[[schedule]]
name = "tree"
znode = {{ path = "/tree", watch = "subtree", on = ["created", "changed"] }}
dag = "tree"
retry = {{ initial = "100ms", max = "300ms" }}
"#
    )
}

/// What was done to the znodes that flowkeeper watches.
#[derive(Default)]
struct Done {
    flags: i64,
    children: i64,
    /// Writes by path, the creation included.
    tree: BTreeMap<String, i64>,
}

/// Changes of znodes under way.
struct Changing {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Done>,
}

impl Changing {
    /// Begins, or goes on where earlier changes ended.
    fn start(client: Client, done: Done) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { task: tokio::spawn(change_znodes(client, Arc::clone(&stop), done)), stop }
    }

    /// What was done by now.
    async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the changes")
    }
}

/// Changes znodes until told to stop, going on where earlier changes ended; a change counts when
/// ZooKeeper has acknowledged it.
async fn change_znodes(client: Client, stop: Arc<AtomicBool>, mut done: Done) -> Done {
    let mut random = Random::new(11);
    while !stop.load(Ordering::Relaxed) {
        set(&client, "/flag", done.flags.to_string().as_bytes()).await;
        done.flags += 1;
        create(&client, &format!("/inbox/child-{:05}", done.children), b"work").await;
        done.children += 1;
        let path = format!("/tree/{}", random.below(60));
        match done.tree.get(&path) {
            None => create(&client, &path, b"0").await,
            Some(writes) => set(&client, &path, writes.to_string().as_bytes()).await,
        };
        *done.tree.entry(path).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(20 + random.below(60))).await;
    }
    done
}

/// Lets DAG runs go on by themselves until dropped.
fn advance(fake: &Arc<FakeAirflow>) -> tokio::task::JoinHandle<()> {
    let fake = Arc::clone(fake);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            fake.world().advance();
        }
    })
}

async fn faulty_airflow() -> Arc<FakeAirflow> {
    let mut world = World::default().with_dags(["tick", "flag", "inbox", "tree"]);
    let faults = vec![
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HangAfter,
        Fault::TooMany(0),
        Fault::TokensExpire,
        Fault::Html,
        Fault::Truncated,
    ];
    world.chaos = Some((5, faults));
    Arc::new(FakeAirflow::start(world).await)
}

async fn prepare(server: &ZooKeeperServer, fake: &FakeAirflow, store: &str) -> (Client, Member) {
    let client = server.client().await;
    create(&client, "/flag", b"").await;
    create(&client, "/inbox", b"").await;
    create(&client, "/tree", b"").await;
    let mut member = Member::sharing(store, &config(&server.connect(), &fake.url()));
    std::fs::write(member.path().join("password"), "admin").expect("write the password");
    member.start();
    member.armed().await;
    (client, member)
}

/// Waits for calm, and compares what was done with the ledger and with Airflow.
async fn nothing_lost_nothing_twice(member: &mut Member, fake: &FakeAirflow, client: &Client, done: &Done) {
    let covered = |runs: &[Run], schedule: &str| -> i64 {
        runs.iter().filter(|run| run.schedule == schedule).map(|run| run.count + run.coalesced).sum()
    };
    let writes: i64 = done.tree.values().sum();
    let runs = member
        .wait_for_runs("every change is covered and every run but the latest ticks is over", |runs| {
            covered(runs, "flag") >= done.flags
                && covered(runs, "inbox") >= done.children
                && covered(runs, "tree") >= writes
                && runs.iter().filter(|run| run.schedule != "tick").all(|run| run.state == RunState::Success)
        })
        .await;
    assert_eq!(covered(&runs, "flag"), done.flags, "each set of the flag is covered once");
    assert_eq!(covered(&runs, "tree"), writes, "each write below the tree is covered once");
    let mut by_path: BTreeMap<String, i64> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.schedule == "tree") {
        let path = run.conf["znode"]["path"].as_str().expect("a path in the conf");
        *by_path.entry(path.to_owned()).or_default() += run.count + run.coalesced;
    }
    assert_eq!(by_path, done.tree, "and that path by path");
    let mut children: Vec<_> =
        runs.iter().filter(|run| run.schedule == "inbox").map(|run| run.conf["znode"]["name"].clone()).collect();
    children.sort_by_key(ToString::to_string);
    let expected: Vec<_> =
        (0..done.children).map(|number| serde_json::Value::from(format!("child-{number:05}"))).collect();
    assert_eq!(children, expected, "each child is one run");

    assert_eq!(member.stop().await, Some(0), "asked to end, it ends well\n{}", member.logged());
    let runs = member.runs().await;
    assert!(no_second_is_missing(&runs) > 10, "seconds passed");
    airflow_and_ledger_agree(fake, &runs);
    let left = client.list_children("/inbox").await.expect("list the inbox");
    assert!(left.is_empty(), "not consumed: {left:?}");
}

/// Every accepted row is one DAG run with its conf, and there are no others.
fn airflow_and_ledger_agree(fake: &FakeAirflow, runs: &[Run]) {
    let world = fake.world();
    for run in runs.iter().filter(|run| run.state.was_accepted()) {
        let dag_run =
            world.run(&run.dag_id, &run.dag_run_id).unwrap_or_else(|| panic!("no DAG run {}", run.dag_run_id));
        let conf: serde_json::Value = serde_json::from_str(&dag_run.conf).expect("a conf in JSON");
        assert_eq!(conf, run.conf, "Airflow has the conf of {}", run.dag_run_id);
    }
    for dag_run in world.runs() {
        assert!(
            runs.iter().any(|run| run.dag_run_id == dag_run.dag_run_id),
            "{} is in Airflow and not in the ledger",
            dag_run.dag_run_id
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_nothing_is_lost_and_nothing_runs_twice() {
    let server = ZooKeeperServer::start().await;
    let fake = faulty_airflow().await;
    let (client, mut member) = prepare(&server, &fake, SQLITE).await;
    let moving = advance(&fake);
    let changing = Changing::start(client.clone(), Done::default());

    let mut random = Random::new(5);
    for _ in 0..KILLS {
        // Short lives die while they start, long ones at work.
        let life = if random.below(3) == 0 { random.below(150) } else { 200 + random.below(900) };
        tokio::time::sleep(Duration::from_millis(life)).await;
        member.kill();
        tokio::time::sleep(Duration::from_millis(random.below(120))).await;
        member.start();
    }
    let done = changing.stop().await;
    nothing_lost_nothing_twice(&mut member, &fake, &client, &done).await;
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_its_postgresql_at_random_moments_nothing_is_lost_and_nothing_runs_twice() {
    let server = ZooKeeperServer::start().await;
    let database = PostgresServer::start().await;
    let fake = faulty_airflow().await;
    let (client, mut member) = prepare(&server, &fake, &database.create_database().await).await;
    let moving = advance(&fake);
    let changing = Changing::start(client.clone(), Done::default());

    let mut random = Random::new(5);
    for number in 0..KILLS / 2 {
        tokio::time::sleep(Duration::from_millis(200 + random.below(900))).await;
        match number % 4 {
            0 => database.restart(Stop::Kill).await,
            1 => database.restart(Stop::Immediate).await,
            _ => {
                member.kill();
                tokio::time::sleep(Duration::from_millis(random.below(120))).await;
                member.start();
            }
        }
        // One that found no database at its start has ended; whoever runs it starts it again.
        if member.ended().is_some() {
            member.start();
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    if member.ended().is_some() {
        member.start();
    }
    let done = changing.stop().await;
    nothing_lost_nothing_twice(&mut member, &fake, &client, &done).await;
    moving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_killed_and_sessions_expired_nothing_is_lost_and_nothing_runs_twice() {
    let server = ZooKeeperServer::start().await;
    let fake = faulty_airflow().await;
    let (client, mut member) = prepare(&server, &fake, SQLITE).await;
    let moving = advance(&fake);
    let mut total = Done::default();
    // Down shorter than the session lives, longer, and silent with the connection open.
    for outage in [Duration::from_millis(300), Duration::from_secs(7), Duration::from_secs(8)] {
        let changing = Changing::start(server.client().await, total);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        total = changing.stop().await;
        if outage == Duration::from_secs(8) {
            server.freeze(true);
            tokio::time::sleep(outage).await;
            server.freeze(false);
        } else {
            server.kill();
            tokio::time::sleep(outage).await;
            server.restart().await;
        }
    }
    let changing = Changing::start(server.client().await, total);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let total = changing.stop().await;
    drop(client);
    let client = server.client().await;
    nothing_lost_nothing_twice(&mut member, &fake, &client, &total).await;
    moving.abort();
}

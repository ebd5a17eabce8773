//! ZooKeeper rebuilt or put back, the ledger restored, lost or copied: what the real binary notices, what
//! it leaves alone until somebody decides, and what comes of the decision.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::Value;
use zookeeper_client::Client;

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::process::Member;
use crate::support::world::{children, wait_for, wait_for_children};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// The schedules of every story, in the ensemble and the root that the story says.
fn config(zookeeper: &str, root: &str, airflow: &str) -> String {
    format!(
        r#"
[zookeeper]
connect = "{zookeeper}"
root = "{root}"
session_timeout = "4s"

[airflow.main]
url = "{airflow}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[defaults]
retry = {{ initial = "100ms", max = "300ms" }}

[[schedule]]
name = "flag"
znode = {{ path = "/flag", on = ["created", "changed"] }}
conf = {{ text = "{{{{ znode.text }}}}", before = "{{{{ previous.text if previous else 'nothing' }}}}" }}
dag = "flag"

[[schedule]]
name = "inbox"
znode = {{ path = "/inbox", watch = "children", consume = "accepted" }}
dag = "inbox"

[[schedule]]
name = "slow"
znode = {{ path = "/slow", watch = "children", consume = "success" }}
dag = "slow"

[[schedule]]
name = "tree"
znode = {{ path = "/tree", watch = "subtree", on = ["created", "changed"], settle = "300ms" }}
dag = "tree"

[[schedule]]
name = "tick"
cron = "* * * * * *"
catchup = "all"
overlap = "allow"
dag = "tick"
"#
    )
}

fn member(config: &str) -> Member {
    let member = Member::new(config);
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member
}

async fn airflow() -> FakeAirflow {
    FakeAirflow::start(World::default().with_dags(["flag", "inbox", "slow", "tree", "tick"])).await
}

/// The znodes that the schedules watch, as somebody sets them up.
async fn prepare(zk: &Client) {
    for path in ["/flag", "/inbox", "/slow", "/tree"] {
        create(zk, path, b"0").await;
    }
}

fn of<'r>(runs: &'r [Run], schedule: &str) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.schedule == schedule).collect()
}

/// The part of each run id of a schedule that tells its occurrence.
fn occurrences(runs: &[Run], schedule: &str) -> Vec<String> {
    let part = |run: &&Run| run.dag_run_id.rsplit("__").next().unwrap_or_default().to_owned();
    of(runs, schedule).iter().map(part).collect()
}

/// Waits until this many runs of a schedule are accepted; all its rows.
async fn accepted(member: &Member, schedule: &str, count: usize) -> Vec<Run> {
    let runs = member
        .wait_for_runs(&format!("{count} runs of {schedule}"), |runs| {
            of(runs, schedule).iter().filter(|run| run.accepted_at.is_some()).count() >= count
        })
        .await;
    assert_eq!(of(&runs, schedule).len(), count, "{:#?}", of(&runs, schedule));
    runs
}

/// Waits until the member has found two histories in an ensemble; what it says of them.
async fn stopped(member: &Member, ensemble: Option<&str>) -> Value {
    let found = || async {
        let listed = member.get("adopt").await?;
        let items = listed["items"].as_array()?.clone();
        items.into_iter().find(|item| item["ensemble"].as_str() == ensemble && item["histories"] == "two")
    };
    wait_for(found, || format!("nothing is found\n{}", member.logged())).await
}

async fn armed(member: &Member, schedule: &str) -> bool {
    member.get(&format!("schedules/{schedule}")).await.is_some_and(|shown| shown["armed"] == true)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_ensemble_whose_zxids_have_overtaken_the_old_ones_fires_nothing_by_itself() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let mut member = member(&config(&server.connect(), "/flowkeeper", &fake.url()));
    member.start();
    member.armed().await;
    let handled = set(&zk, "/flag", b"1").await;
    create(&zk, "/inbox/a", b"").await;
    accepted(&member, "flag", 1).await;
    accepted(&member, "inbox", 1).await;
    wait_for_children(&zk, "/inbox", &[]).await;
    member.kill();
    drop(zk);

    server.wipe().await;
    let zk = server.client().await;
    create(&zk, "/filler", b"").await;
    for _ in 0..300 {
        set(&zk, "/filler", b"").await;
    }
    prepare(&zk).await;
    create(&zk, "/inbox/b", b"").await;
    let overtaken = set(&zk, "/flag", b"rebuilt").await;
    assert!(overtaken > handled, "0x{overtaken:x} is beyond 0x{handled:x}: no zxid tells that this is another history");

    member.start();
    let found = stopped(&member, None).await;
    assert_eq!(found["cause"], "missing");
    let reason = found["reason"].as_str().expect("a reason");
    assert!(reason.contains("/flowkeeper/store") && reason.contains("generation 0"), "{reason}");
    assert!(found["hint"].as_str().expect("a hint").contains("flowkeeper adopt --ignore"));
    let shown = member.get("schedules/flag").await.expect("the schedule");
    assert_eq!(shown["armed"], false);
    assert!(shown["trouble"].as_str().expect("trouble").contains("flowkeeper adopt --fire"), "{shown}");
    let table = member.run(&["schedules"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("in trouble"));
    assert!(member.logged().contains("failed to go on with the znode triggers of this ensemble"));
    let metrics = member.text("metrics").await.expect("metrics");
    assert!(metrics.contains("flowkeeper_adoption_needed{ensemble=\"home\"} 1"), "{metrics}");
    assert!(member.text("readyz").await.is_some(), "the member works");

    // Cron goes on, and nothing else happens.
    let ticks = of(&member.runs().await, "tick").len();
    member.wait_for_runs("cron goes on", |runs| of(runs, "tick").len() > ticks + 1).await;
    let runs = member.runs().await;
    assert_eq!((of(&runs, "flag").len(), of(&runs, "inbox").len(), of(&runs, "tree").len()), (1, 1, 0));

    let both = member.run(&["adopt", "--fire", "--ignore"]).await;
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let adopted = member.json(&["adopt", "--ignore", "--reason", "rebuilt on purpose"]).await;
    assert_eq!((&adopted["cause"], &adopted["generation"]), (&"missing".into(), &1.into()), "{adopted}");
    assert_eq!(adopted["left"], serde_json::json!(["inbox", "slow"]));
    member.armed().await;
    let again = member.run(&["adopt", "--ignore"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(
        said(&again).contains("it has the ledger's history") && said(&again).contains("hint: "),
        "{}",
        said(&again)
    );

    // What was there is handled; what changes from now on runs, under the new generation.
    let changed = set(&zk, "/flag", b"after").await;
    create(&zk, "/inbox/c", b"").await;
    create(&zk, "/tree/x", b"").await;
    let runs = accepted(&member, "flag", 2).await;
    assert!(
        occurrences(&runs, "flag")[1].starts_with(&format!("g1.z{changed:x}-")),
        "{:?}",
        occurrences(&runs, "flag")
    );
    assert_eq!(of(&runs, "flag")[1].conf, serde_json::json!({ "text": "after", "before": "rebuilt" }));
    let runs = accepted(&member, "inbox", 2).await;
    assert!(occurrences(&runs, "inbox")[1].starts_with("g1.z"));
    wait_for_children(&zk, "/inbox", &["b"]).await;
    let runs = accepted(&member, "tree", 1).await;
    assert!(occurrences(&runs, "tree")[0].starts_with("g1.b"));
    let audit = member.json(&["audit"]).await;
    let entry = audit.as_array().expect("a list").iter().find(|entry| entry["action"] == "adopt").expect("an entry");
    assert_eq!(entry["reason"], "rebuilt on purpose");
    assert!(entry["detail"].as_str().expect("a detail").contains("generation 1"));

    // A decision outlives the process.
    member.kill();
    member.start();
    member.armed().await;
    set(&zk, "/flag", b"later").await;
    let runs = accepted(&member, "flag", 3).await;
    assert!(occurrences(&runs, "flag")[2].starts_with("g1.z"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_ensemble_may_run_what_it_has_once() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    create(&zk, "/slow/old", b"").await;
    let mut member = member(&config(&server.connect(), "/flowkeeper", &fake.url()));
    member.start();
    member.armed().await;
    accepted(&member, "slow", 1).await;
    drop(zk);

    // Under its feet.
    server.wipe().await;
    let zk = server.client().await;
    stopped(&member, None).await;
    prepare(&zk).await;
    for path in ["/inbox/a", "/inbox/b", "/tree/x", "/tree/y", "/slow/old"] {
        create(&zk, path, b"").await;
    }
    // The old child's run succeeds now; the child that has its name is another one.
    let old = member.runs().await.into_iter().find(|run| run.schedule == "slow").expect("a run");
    fake.world().set_state("slow", &old.dag_run_id, State::Success);
    member.wait_for_run("the success is seen", &old.dag_run_id, |run| run.state == RunState::Success).await;

    let adopted = member.json(&["adopt", "--fire"]).await;
    assert_eq!((&adopted["generation"], &adopted["cursors_kept"]), (&1.into(), &false.into()), "{adopted}");
    let runs = accepted(&member, "flag", 1).await;
    assert!(occurrences(&runs, "flag")[0].starts_with("g1.z"));
    assert_eq!(of(&runs, "flag")[0].conf, serde_json::json!({ "text": "0", "before": "nothing" }));
    accepted(&member, "inbox", 2).await;
    wait_for_children(&zk, "/inbox", &[]).await;
    let runs = accepted(&member, "tree", 1).await;
    assert!(occurrences(&runs, "tree")[0].starts_with("g1.b"));
    let runs = accepted(&member, "slow", 2).await;
    assert!(occurrences(&runs, "slow")[1].starts_with("g1.z"));
    member.armed().await;
    assert_eq!(children(&zk, "/slow").await, ["old"], "it waits for its own run's success");
    let again = of(&runs, "slow")[1].dag_run_id.clone();
    fake.world().set_state("slow", &again, State::Success);
    wait_for_children(&zk, "/slow", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_was_put_back_waits_until_it_is_right_again_or_adopted() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let mut member = member(&config(&server.connect(), "/flowkeeper", &fake.url()));
    member.start();
    member.armed().await;
    set(&zk, "/flag", b"1").await;
    accepted(&member, "flag", 1).await;
    drop(zk);

    let copied = mark(&member).await;
    let older = server.copy().await;
    // Raised in each new session, and each minute.
    wait_for(|| async { (mark(&member).await > copied).then_some(()) }, || "the mark is not raised".to_owned()).await;
    member.armed().await;
    let zk = server.client().await;
    set(&zk, "/flag", b"2").await;
    accepted(&member, "flag", 2).await;
    drop(zk);
    member.kill();
    let newest = server.copy().await;

    server.put_back(&older).await;
    member.start();
    let found = stopped(&member, None).await;
    assert_eq!(found["cause"], "older");
    assert!(found["reason"].as_str().expect("a reason").contains("put back to an earlier state"));
    member.kill();

    // It was the wrong copy: with the right one nobody has to decide.
    server.put_back(&newest).await;
    member.start();
    member.armed().await;
    assert_eq!(occurrences(&member.runs().await, "flag").len(), 2);
    member.kill();

    server.put_back(&older).await;
    member.start();
    stopped(&member, None).await;
    let adopted = member.json(&["adopt", "--ignore"]).await;
    assert_eq!((&adopted["cause"], &adopted["generation"]), (&"older".into(), &1.into()));
    member.armed().await;
    let zk = server.client().await;
    set(&zk, "/flag", b"3").await;
    let runs = accepted(&member, "flag", 3).await;
    assert!(occurrences(&runs, "flag")[2].starts_with("g1.z"));
}

/// The mark that the ledger knows the znode to hold.
async fn mark(member: &Member) -> i64 {
    member.ledger().await.lineage(None).await.expect("memory").confirmed.map_or(0, |held| held.mark)
}

/// Copies a ledger that nobody has open.
fn copy_ledger(from: &Path, to: &Path) {
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        std::fs::remove_file(to.join(name)).ok();
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("the ledger is copied");
        }
    }
}

/// The DAG runs of a DAG, by id.
fn dag_runs(fake: &FakeAirflow, dag: &str) -> Vec<String> {
    fake.world().runs().iter().filter(|run| run.dag_id == dag).map(|run| run.dag_run_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_restored_from_before_doubles_and_loses_nothing() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let mut member = member(&config(&server.connect(), "/flowkeeper", &fake.url()));
    member.start();
    member.armed().await;
    set(&zk, "/flag", b"1").await;
    create(&zk, "/inbox/a", b"").await;
    create(&zk, "/slow/before", b"").await;
    accepted(&member, "flag", 1).await;
    accepted(&member, "inbox", 1).await;
    accepted(&member, "slow", 1).await;
    wait_for_children(&zk, "/inbox", &[]).await;
    assert_eq!(member.stop().await, Some(0));
    let copy = tempfile::tempdir().expect("a directory for the copy");
    copy_ledger(member.path(), copy.path());

    // What the copy does not know.
    member.start();
    member.armed().await;
    let second = set(&zk, "/flag", b"2").await;
    create(&zk, "/inbox/b", b"").await;
    create(&zk, "/slow/since", b"").await;
    accepted(&member, "flag", 2).await;
    accepted(&member, "inbox", 2).await;
    accepted(&member, "slow", 2).await;
    wait_for_children(&zk, "/inbox", &[]).await;
    member.wait_for_runs("seconds pass", |runs| of(runs, "tick").len() > 5).await;
    assert_eq!(member.stop().await, Some(0));
    // While nobody works.
    let third = set(&zk, "/flag", b"3").await;
    let before: Vec<_> = ["flag", "inbox", "slow", "tick"].map(|dag| dag_runs(&fake, dag)).into();

    copy_ledger(copy.path(), member.path());
    member.start();
    let found = stopped(&member, None).await;
    assert_eq!(found["cause"], "ledger_restored");
    assert!(found["reason"].as_str().expect("a reason").contains("the ledger was restored from a copy"));
    // Their rows come back by Airflow's list, also while the triggers stand still.
    accepted(&member, "flag", 2).await;
    accepted(&member, "slow", 2).await;
    assert_eq!(children(&zk, "/slow").await, ["before", "since"]);

    let adopted = member.json(&["adopt", "--fire"]).await;
    assert_eq!((&adopted["generation"], &adopted["cursors_kept"]), (&0.into(), &true.into()), "{adopted}");
    assert_eq!(adopted["regrouped"], serde_json::json!(["tree"]));
    member.armed().await;
    let runs = accepted(&member, "flag", 3).await;
    assert!(occurrences(&runs, "flag")[1].starts_with(&format!("z{second:x}-")));
    assert!(occurrences(&runs, "flag")[2].starts_with(&format!("z{third:x}-")), "{:?}", occurrences(&runs, "flag"));
    // A row that came back owes its child again.
    let ids: Vec<_> = of(&runs, "slow").iter().map(|run| run.dag_run_id.clone()).collect();
    for id in &ids {
        fake.world().set_state("slow", id, State::Success);
    }
    wait_for_children(&zk, "/slow", &[]).await;

    // Nothing twice: every DAG run of before is there once, and has its one row.
    assert_eq!(dag_runs(&fake, "inbox"), before[1]);
    assert_eq!(dag_runs(&fake, "slow"), before[2]);
    assert_eq!(dag_runs(&fake, "flag").len(), 3);
    let runs = member.runs().await;
    assert!(runs.iter().all(|run| run.state != RunState::Rejected), "{:#?}", of(&runs, "flag"));
    for id in before.iter().flatten() {
        assert_eq!(runs.iter().filter(|run| run.dag_run_id == *id).count(), 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_flowkeepers_with_the_same_schedules_on_one_airflow_keep_apart() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let mut first = member(&config(&server.connect(), "/first", &fake.url()));
    let mut second = member(&config(&server.connect(), "/second", &fake.url()));
    first.start();
    first.armed().await;
    set(&zk, "/flag", b"1").await;
    let runs = accepted(&first, "flag", 1).await;
    let id = of(&runs, "flag")[0].dag_run_id.clone();
    second.start();
    second.armed().await;
    let change = set(&zk, "/flag", b"2").await;
    create(&zk, "/inbox/a", b"").await;
    let stores = [&first, &second].map(async |member: &Member| member.ledger().await.store_id().to_owned());
    let [first_store, second_store] = stores;
    let (first_store, second_store) = (first_store.await, second_store.await);
    assert_ne!(first_store, second_store);

    let decided = |runs: &[Run]| {
        let newest = of(runs, "flag").last().copied().cloned();
        newest.filter(|run| run.dag_run_id.contains(&format!("z{change:x}-")) && run.state != RunState::Pending)
    };
    let mut outcomes = Vec::new();
    for (member, other) in [(&first, &second_store), (&second, &first_store)] {
        let runs = member.wait_for_runs("the change is decided", |runs| decided(runs).is_some()).await;
        let run = decided(&runs).expect("it is");
        if run.state == RunState::Rejected {
            let reason = run.reason.clone().unwrap_or_default();
            assert!(reason.contains(other.as_str()), "the other store is named: {reason}");
        }
        outcomes.push((run.state == RunState::Rejected, run.dag_run_id));
    }
    assert_eq!(outcomes[0].1, outcomes[1].1, "they contend for one id");
    assert_ne!(outcomes[0].0, outcomes[1].0, "one has it: {outcomes:?}");
    wait_for_children(&zk, "/inbox", &[]).await;
    assert_eq!(dag_runs(&fake, "inbox").len(), 1);

    // Whatever becomes of it, it is never the loser's.
    fake.world().advance();
    fake.world().advance();
    let (winner, loser) = if outcomes[0].0 { (&second, &first) } else { (&first, &second) };
    let (won, id_of_both) = (|run: &Run| run.state == RunState::Success, &outcomes[0].1);
    winner.wait_for_run("the winner sees the end", id_of_both, won).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(loser.history(id_of_both).await.state, RunState::Rejected);
    assert!(second.runs().await.iter().all(|run| run.dag_run_id != id), "a row of another store is not entered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_ledger_that_is_behind_stands_still() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let configuration = config(&server.connect(), "/flowkeeper", &fake.url());
    let (mut original, mut copy) = (member(&configuration), member(&configuration));
    original.start();
    original.armed().await;
    assert_eq!(original.stop().await, Some(0));
    copy_ledger(original.path(), copy.path());
    original.start();
    original.armed().await;
    set(&zk, "/flag", b"1").await;
    accepted(&original, "flag", 1).await;
    assert_eq!(original.stop().await, Some(0));

    copy.start();
    assert_eq!(stopped(&copy, None).await["cause"], "ledger_restored");
    assert!(!armed(&copy, "flag").await);
    assert_eq!(copy.ledger().await.store_id(), original.ledger().await.store_id(), "the same store, twice");
    copy.json(&["adopt", "--fire"]).await;
    copy.armed().await;
    accepted(&copy, "flag", 1).await;
    assert_eq!(dag_runs(&fake, "flag").len(), 1, "it has met its DAG run by the id, and the note is its own");
    set(&zk, "/flag", b"2").await;
    accepted(&copy, "flag", 2).await;
    assert_eq!(copy.stop().await, Some(0));

    // Now the original is the one that is behind.
    original.start();
    assert_eq!(stopped(&original, None).await["cause"], "ledger_restored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ledger_on_the_root_of_another_waits_for_a_decision() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let configuration = config(&server.connect(), "/flowkeeper", &fake.url());
    let (mut old, mut new) = (member(&configuration), member(&configuration));
    old.start();
    old.armed().await;
    set(&zk, "/flag", b"1").await;
    accepted(&old, "flag", 1).await;
    assert_eq!(old.stop().await, Some(0));
    let old_store = old.ledger().await.store_id().to_owned();

    new.start();
    let found = stopped(&new, None).await;
    assert_eq!(found["cause"], "foreign");
    assert!(found["reason"].as_str().expect("a reason").contains(&old_store), "{found}");
    set(&zk, "/flag", b"2").await;
    let adopted = new.json(&["adopt", "--fire"]).await;
    assert_eq!(adopted["generation"], 1, "ids of the old store's generation are taken in Airflow");
    let runs = accepted(&new, "flag", 1).await;
    assert!(occurrences(&runs, "flag")[0].starts_with("g1.z"));
    assert_eq!(new.stop().await, Some(0));

    // The old ledger turns up again, and does not take over what is another's now.
    old.start();
    let found = stopped(&old, None).await;
    assert_eq!((&found["cause"], &found["generation"]), (&"foreign".into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_leads_goes_when_a_member_of_the_roots_own_store_comes_back() {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    let configuration = config(&server.connect(), "/flowkeeper", &fake.url());
    let (mut right, mut stranger) = (member(&configuration), member(&configuration));
    right.start();
    right.armed().await;
    assert_eq!(right.stop().await, Some(0));

    // Somebody has started a member on a store of its own: alone it leads, with cron and without znodes.
    stranger.start();
    assert_eq!(stopped(&stranger, None).await["cause"], "foreign");
    stranger.wait_for_runs("cron goes on", |runs| of(runs, "tick").len() > 1).await;

    right.start();
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    let status = loop {
        if let Some(status) = stranger.ended() {
            break status;
        }
        assert!(std::time::Instant::now() < deadline, "the stranger stays\n{}", stranger.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(status.code(), Some(2), "{}", stranger.logged());
    for store in [right.ledger().await.store_id(), stranger.ledger().await.store_id()] {
        assert!(stranger.logged().contains(store), "both stores are named:\n{}", stranger.logged());
    }
    right.armed().await;
    set(&zk, "/flag", b"1").await;
    let runs = accepted(&right, "flag", 1).await;
    assert!(occurrences(&runs, "flag")[0].starts_with('z'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ensemble_that_was_rebuilt_stops_its_own_triggers_alone() {
    let (home, other, fake) = (ZooKeeperServer::start().await, ZooKeeperServer::start().await, airflow().await);
    let zk = home.client().await;
    prepare(&zk).await;
    let solr = other.client().await;
    create(&solr, "/filler", b"").await;
    for _ in 0..20 {
        set(&solr, "/filler", b"").await;
    }
    create(&solr, "/config", b"0").await;
    let more = format!(
        r#"{}
[ensemble.solr]
connect = "{}"
session_timeout = "4s"

[[schedule]]
name = "solr"
znode = {{ path = "/config", ensemble = "solr" }}
dag = "flag"
"#,
        config(&home.connect(), "/flowkeeper", &fake.url()),
        other.connect()
    );
    let mut member = member(&more);
    member.start();
    member.armed().await;
    set(&solr, "/config", b"1").await;
    accepted(&member, "solr", 1).await;
    drop(solr);

    other.wipe().await;
    let solr = other.client().await;
    create(&solr, "/config", b"rebuilt").await;
    let found = stopped(&member, Some("solr")).await;
    assert_eq!(found["cause"], "contradicted");
    assert!(found["hint"].as_str().expect("a hint").contains("adopt --ensemble solr"));
    set(&zk, "/flag", b"1").await;
    accepted(&member, "flag", 1).await;
    // A later session proves nothing: other triggers may have no way to notice.
    other.restart().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stopped(&member, Some("solr")).await;
    assert!(!armed(&member, "solr").await);

    let home = member.run(&["adopt", "--fire"]).await;
    assert_eq!(home.status.code(), Some(1), "the home ensemble is in order");
    let unknown = member.run(&["adopt", "--fire", "--ensemble", "sorl"]).await;
    assert!(said(&unknown).contains("`sorl`"), "{}", said(&unknown));

    let adopted = member.json(&["adopt", "--fire", "--ensemble", "solr"]).await;
    assert_eq!((&adopted["ensemble"], &adopted["generation"]), (&"solr".into(), &1.into()));
    assert_eq!(adopted["schedules"], serde_json::json!(["solr"]));
    let runs = accepted(&member, "solr", 2).await;
    assert!(occurrences(&runs, "solr")[1].starts_with("g1.z"));
    member.armed().await;
    set(&zk, "/flag", b"2").await;
    let runs = accepted(&member, "flag", 2).await;
    assert!(occurrences(&runs, "flag")[1].starts_with('z'), "each ensemble has its own generation");
}

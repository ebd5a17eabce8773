//! The ledger restored, lost or copied.

use std::path::Path;
use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;

use super::{accepted, armed, armed_member, assert_begins, config, member, of, scene, stopped};
use crate::support::fake_airflow::{FakeAirflow, State};
use crate::support::process::Member;
use crate::support::world::{children, wait_for_children};
use crate::support::zookeeper::{create, set};

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
    let (server, fake, zk) = scene().await;
    let mut member = armed_member(&config(&server.connect(), "/flowkeeper", &fake.url())).await;
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
    assert_begins(&runs, "flag", 1, &format!("z{second:x}-"));
    assert_begins(&runs, "flag", 2, &format!("z{third:x}-"));
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
    let (server, fake, zk) = scene().await;
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
    let (server, fake, zk) = scene().await;
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
    let (server, fake, zk) = scene().await;
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
    assert_begins(&runs, "flag", 0, "g1.z");
    assert_eq!(new.stop().await, Some(0));

    // The old ledger turns up again, and does not take over what is another's now.
    old.start();
    let found = stopped(&old, None).await;
    assert_eq!((&found["cause"], &found["generation"]), (&"foreign".into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_leads_goes_when_a_member_of_the_roots_own_store_comes_back() {
    let (server, fake, zk) = scene().await;
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
    let deadline = std::time::Instant::now() + Duration::from_mins(3);
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
    assert_begins(&runs, "flag", 0, "z");
}

//! Syncs whose Airflow or ZooKeeper falls silent: other definitions come into force all the same, and what
//! was under way is found out afterwards.

use std::time::{Duration, Instant};

use flowkeeper::domain::sync::entry::EntryKind;
use flowkeeper::domain::sync::plan::Hold;

use crate::support::fake_airflow::{FakeAirflow, Fault, World};
use crate::support::sync_story::{PATIENCE, Story, VARIABLES, steps};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// How long a reload may take: Airflow is waited for ten seconds, and an ensemble for longer.
const SOON: Duration = Duration::from_secs(9);

/// Waits until Airflow has left a request without an answer.
async fn hangs(fake: &FakeAirflow) {
    let end = Instant::now() + PATIENCE;
    while fake.world().hung == 0 {
        assert!(Instant::now() < end, "no request hangs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_request_that_hangs_holds_no_reload_up() {
    let server = ZooKeeperServer::shared().await;
    for (at, fault, under_way, done) in [
        ("GET variables", Fault::HangBefore, false, false),
        ("PATCH variables", Fault::HangBefore, true, false),
        ("PATCH variables", Fault::HangAfter, true, true),
    ] {
        let fake = FakeAirflow::start(World::default()).await;
        let mut story = Story::with_one_variable(server, &fake).await;
        fake.world().entries_mut("variables").push(super::sync::entry("theirs", "by hand"));
        fake.world().faults_at.insert(at, fault);
        story.set("variables/a", "2").await;
        story.create("variables/b", "new").await;
        hangs(&fake).await;
        // Of what hangs nobody knows whether it was done, and the ledger says so.
        let row = story.owned(EntryKind::Variables).await;
        let creating = row.get("b").is_some_and(|row| row.hold == Hold::Creating && row.digest.is_none());
        assert_eq!(creating, under_way, "{at} {fault:?}: {row:?}");

        let took = story.reload("interval = \"10s\"", "interval = \"11s\"").await;
        println!("a reload while {at} hangs ({fault:?}): {took:?}");
        assert!(took < SOON, "{at} {fault:?}: {took:?}\n{}", story.member.logged());
        let is_there = fake.world().entry("variables", "key", "b").is_some();
        assert_eq!(is_there, done, "{at} {fault:?}");

        // What begins anew finds out what became of it.
        fake.world().faults_at.clear();
        story.in_step("variables", 2).await;
        assert_eq!(story.variable("a").await.as_deref(), Some("2"), "{at} {fault:?}");
        assert_eq!(story.variable("b").await.as_deref(), Some("new"), "{at} {fault:?}");
        assert_eq!(story.variable("theirs").await.as_deref(), Some("by hand"), "{at} {fault:?}");
        let rows = story.owned(EntryKind::Variables).await;
        let settled = rows.values().all(|row| row.hold == Hold::Owned && row.digest.is_some());
        assert!(settled && rows.keys().eq(["a", "b"]), "{at} {fault:?}: {rows:?}");
    }
}

#[tokio::test]
async fn an_order_that_waits_for_a_hung_request_goes_to_the_loop_that_follows() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let story = Story::with_one_variable(server, &fake).await;
    fake.world().faults_at.insert("GET variables", Fault::HangBefore);
    let apply = story.member.run(&["sync", "apply", "variables"]);
    let reload = async {
        hangs(&fake).await;
        let took = story.reload("interval = \"10s\"", "interval = \"11s\"").await;
        fake.world().faults_at.clear();
        took
    };
    let (applied, took) = tokio::join!(apply, reload);
    assert!(took < SOON, "{took:?}\n{}", story.member.logged());
    let told = String::from_utf8_lossy(&applied.stderr).into_owned();
    // Unless the new loop asked while Airflow was still silent.
    let is_told = applied.status.success() || told.contains("no answer in time");
    assert!(is_told && (applied.status.success() == told.contains("everything is in step")), "{told}");
}

#[tokio::test]
async fn an_ensemble_that_falls_silent_holds_no_reload_up_and_nothing_is_deleted() {
    let (home, far) = (ZooKeeperServer::shared().await, ZooKeeperServer::start().await);
    let fake = FakeAirflow::start(World::default()).await;
    let syncs = VARIABLES.replace("variables\" }", "variables\", ensemble = \"far\" }");
    let syncs = format!("[ensemble.far]\nconnect = \"{}\"\n{syncs}", far.connect());
    let mut story = Story::with_fake(home, &fake, &syncs).await;
    let zookeeper = far.client().await;
    for path in ["", "/variables", "/variables/a", "/variables/b"] {
        create(&zookeeper, &format!("{}{path}", story.root), b"1").await;
    }
    story.member.start();
    story.in_step("variables", 2).await;
    far.freeze(true);
    let took = story.reload("interval = \"10s\"", "interval = \"11s\"").await;
    assert!(took < SOON, "{took:?}\n{}", story.member.logged());
    // The new loop waits for a session that does not answer, and is ended like the one before.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let took = story.reload("interval = \"11s\"", "interval = \"12s\"").await;
    assert!(took < SOON, "{took:?}\n{}", story.member.logged());
    let state = story.until("variables", "failing", |state| state["state"] == "failing").await;
    assert_eq!(steps(&state), []);
    assert_eq!(fake.world().entries("variables").len(), 2);
    far.freeze(false);
    story.in_step("variables", 2).await;
    drop(zookeeper);
    let zookeeper = far.client().await;
    set(&zookeeper, &format!("{}/variables/a", story.root), b"2").await;
    story.until_variable("a", Some("2")).await;
}

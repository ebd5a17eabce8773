//! ZooKeeper rebuilt, or put back to an earlier state.

use std::time::Duration;

use flowkeeper::domain::run::RunState;

use super::{
    accepted, airflow, armed, armed_member, assert_begins, config, occurrences, of, prepare, said, scene, stopped,
};
use crate::support::fake_airflow::State;
use crate::support::process::Member;
use crate::support::world::{children, wait_for, wait_for_children};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// The mark that the ledger knows the znode to hold.
async fn mark(member: &Member) -> i64 {
    member.ledger().await.lineage(None).await.expect("memory").confirmed.map_or(0, |held| held.mark)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_ensemble_whose_zxids_have_overtaken_the_old_ones_fires_nothing_by_itself() {
    let (server, fake, zk) = scene().await;
    let mut member = armed_member(&config(&server.connect(), "/flowkeeper", &fake.url())).await;
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
    assert_begins(&runs, "flag", 1, &format!("g1.z{changed:x}-"));
    assert_eq!(of(&runs, "flag")[1].conf, serde_json::json!({ "text": "after", "before": "rebuilt" }));
    let runs = accepted(&member, "inbox", 2).await;
    assert_begins(&runs, "inbox", 1, "g1.z");
    wait_for_children(&zk, "/inbox", &["b"]).await;
    let runs = accepted(&member, "tree", 1).await;
    assert_begins(&runs, "tree", 0, "g1.b");
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
    assert_begins(&runs, "flag", 2, "g1.z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_ensemble_may_run_what_it_has_once() {
    let (server, fake, zk) = scene().await;
    create(&zk, "/slow/old", b"").await;
    let mut member = armed_member(&config(&server.connect(), "/flowkeeper", &fake.url())).await;
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
    assert_begins(&runs, "flag", 0, "g1.z");
    assert_eq!(of(&runs, "flag")[0].conf, serde_json::json!({ "text": "0", "before": "nothing" }));
    accepted(&member, "inbox", 2).await;
    wait_for_children(&zk, "/inbox", &[]).await;
    let runs = accepted(&member, "tree", 1).await;
    assert_begins(&runs, "tree", 0, "g1.b");
    let runs = accepted(&member, "slow", 2).await;
    assert_begins(&runs, "slow", 1, "g1.z");
    member.armed().await;
    assert_eq!(children(&zk, "/slow").await, ["old"], "it waits for its own run's success");
    let again = of(&runs, "slow")[1].dag_run_id.clone();
    fake.world().set_state("slow", &again, State::Success);
    wait_for_children(&zk, "/slow", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_was_put_back_waits_until_it_is_right_again_or_adopted() {
    let (server, fake, zk) = scene().await;
    let mut member = armed_member(&config(&server.connect(), "/flowkeeper", &fake.url())).await;
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
    assert_begins(&runs, "flag", 2, "g1.z");
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
    let mut member = armed_member(&more).await;
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
    assert_begins(&runs, "solr", 1, "g1.z");
    member.armed().await;
    set(&zk, "/flag", b"2").await;
    let runs = accepted(&member, "flag", 2).await;
    assert!(occurrences(&runs, "flag")[1].starts_with('z'), "each ensemble has its own generation");
}

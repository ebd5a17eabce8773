//! The lead changes hands: the next leader goes on where the last one was, whatever became of that.

use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use serde_json::json;

use crate::support::fake_airflow::Fault;
use crate::support::proxy::Proxy;
use crate::support::team::{PATIENCE, TICK, Team, all_accepted, is_leading, is_ready, leads};
use crate::support::zookeeper::{create, set};

/// A clean hand-over, from the signal to the next leader's first answer, in a debug build; a release build
/// takes a fraction of it.
const HAND_OVER: Duration = Duration::from_secs(1);

/// How many hand-overs a busy machine may need until one takes no longer.
const HAND_OVERS: usize = 8;

/// Runs by hand, and on a znode.
const LOAD_AND_FLAG: &str = r#"
[[schedule]]
name = "load"
cron = "0 0 1 1 *"
dag = "load"
overlap = "allow"

[[schedule]]
name = "flag"
znode = { path = "/flag", on = ["created", "changed"] }
dag = "flag"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_goes_on() {
    let mut team = Team::start_on_postgres(3, &[TICK, LOAD_AND_FLAG].concat()).await;
    let client = team.zookeeper.client().await;
    create(&client, "/flag", b"0").await;
    let first = team.leader().await;
    team.members[first].wait_for_runs("the flag was seen", |runs| runs.iter().any(|run| run.schedule == "flag")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    team.members[first].kill();
    // What changes while nobody leads is found as well.
    for value in 1..=3 {
        set(&client, "/flag", value.to_string().as_bytes()).await;
    }
    let second = team.leader().await;
    assert_ne!(first, second);
    let runs = all_accepted(&team.members[second]).await;
    assert!(runs.iter().all(|run| run.count == 1), "nothing is missed within ten seconds");
    let flags: i64 = runs.iter().filter(|run| run.schedule == "flag").map(|run| run.count + run.coalesced).sum();
    assert_eq!(flags, 4, "one creation and three changes, some of them merged by ZooKeeper");
    for index in (0..3).filter(|index| *index != first && *index != second).chain([second]) {
        assert_eq!(team.members[index].stop().await, Some(0), "{}", team.members[index].logged());
    }
    team.nothing_lost_nothing_twice(&team.members[second].runs().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let mut team = Team::start(2, TICK).await;
    let mut first = team.leader().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took >= HAND_OVER) {
        assert!(took.len() < HAND_OVERS, "each hand-over took long: {took:?}\n{}", team.members[first].logged());
        let second = 1 - first;
        is_ready(&team.members[second]).await;
        let began = Instant::now();
        team.members[first].signal("TERM");
        leads(&team.members[second], true).await;
        took.push(began.elapsed());
        assert_eq!(team.members[first].stop().await, Some(0), "{}", team.members[first].logged());
        team.members[first].start();
        first = second;
    }
    println!("the hand-over took {took:?}");
    all_accepted(&team.members[first]).await;
    for index in [1 - first, first] {
        is_ready(&team.members[index]).await;
        assert_eq!(team.members[index].stop().await, Some(0), "{}", team.members[index].logged());
    }
    let runs = team.members[first].runs().await;
    team.nothing_lost_nothing_twice(&runs);
    let latest = runs.iter().filter_map(|run| run.accepted_at.map(|at| at.duration_since(run.due_at))).max();
    println!("due to accepted took {latest:?} at most");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_sleeps_beyond_its_session_stands_by_when_it_wakes() {
    // Nothing comes due, so it has nothing to write that could be refused.
    let mut team = Team::start_on_postgres(2, LOAD_AND_FLAG).await;
    let first = team.leader().await;
    let second = 1 - first;
    team.members[first].signal("STOP");
    leads(&team.members[second], true).await;
    team.members[first].signal("CONT");
    let woke = Instant::now();
    while is_leading(&team.members[first]).await {
        assert!(woke.elapsed() < PATIENCE, "it does not notice\n{}", team.members[first].logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    is_ready(&team.members[first]).await;
    assert_eq!(team.members[first].ended(), None, "it stands by");
    let metrics = team.members[first].text("metrics").await.expect("metrics");
    for line in ["flowkeeper_leader 0", "flowkeeper_epoch 2", "flowkeeper_terms_total 1"] {
        assert!(metrics.contains(line), "no `{line}` in\n{metrics}");
    }
    // And takes its turn when the other one ends.
    assert_eq!(team.members[second].stop().await, Some(0));
    assert_eq!(team.leader().await, first);
    let run = team.members[first].post("schedules/load/trigger", &json!({ "key": "k" })).await;
    let id = run["dag_run_id"].as_str().expect("an id");
    team.members[first].wait_for_run("it acts again", id, |run| run.state.was_accepted()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_asks_airflow_what_became_of_open_runs() {
    let mut team = Team::start(2, LOAD_AND_FLAG).await;
    let first = team.leader().await;
    let second = 1 - first;
    // The first is in Airflow and its answer is not recorded; the second waits for its turn.
    team.airflow.world().faults.push_back(Fault::HangAfter);
    let sent = team.members[first].post("schedules/load/trigger", &json!({ "key": "sent" })).await;
    let sent = sent["dag_run_id"].as_str().expect("an id");
    let waiting = team.members[first].post("schedules/load/trigger", &json!({ "key": "waiting" })).await;
    let waiting = waiting["dag_run_id"].as_str().expect("an id");
    let end = Instant::now() + PATIENCE;
    while team.airflow.world().run("load", sent).is_none() {
        assert!(Instant::now() < end, "the request does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    team.members[first].kill();
    for id in [sent, waiting] {
        assert_eq!(team.members[second].history(id).await.state, RunState::Pending, "{id}");
    }
    assert!(team.airflow.world().run("load", waiting).is_none(), "it was not asked for");
    leads(&team.members[second], true).await;
    for id in [sent, waiting] {
        team.members[second].wait_for_run("it is accepted", id, |run| run.state.was_accepted()).await;
    }
    assert_eq!(team.airflow.world().runs().len(), 2, "each is one DAG run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_reach_the_store_lets_another_one_try() {
    let mut team = Team::start_on_postgres(0, TICK).await;
    let (server, database) = team.store.rsplit_once('/').expect("a database in the URL");
    let address = server.rsplit('@').next().expect("an address");
    let proxy = Proxy::start_plain(address).await;
    let store = format!("{}/{database}", server.replace(address, &proxy.connect()));
    let direct = team.store.clone();
    for store in [store, direct] {
        let mut member = team.member(&store, &team.zookeeper.connect());
        member.start();
        is_ready(&member).await;
        team.members.push(member);
    }
    assert_eq!(team.leader().await, 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    proxy.freeze(true);
    leads(&team.members[1], true).await;
    proxy.freeze(false);
    leads(&team.members[0], false).await;
    is_ready(&team.members[0]).await;
    assert_eq!(team.members[0].ended(), None, "it stands by");
    all_accepted(&team.members[1]).await;
    assert_eq!(team.members[0].stop().await, Some(0));
    assert_eq!(team.members[1].stop().await, Some(0));
    let runs = team.members[1].runs().await;
    team.nothing_lost_nothing_twice(&runs);
}

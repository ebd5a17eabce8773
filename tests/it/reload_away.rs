//! Definitions that change while something is away that the change needs: `ZooKeeper`, or the store.

use std::time::Duration;

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::reload::{airflow, another, cron, fake, names, of, reload, save, until, version, without_a_gap};
use crate::support::ensemble::{SERVERS, ZooKeeperEnsemble};
use crate::support::fake_airflow::FakeAirflow;
use crate::support::postgres::{PostgresServer, Stop};
use crate::support::process::Member;
use crate::support::team::is_leading;
use crate::support::zookeeper::{create, delete, set};

/// Two rules that have no second in common.
const EVEN: &str = "*/2 * * * * *";
const ODD: &str = "1-59/2 * * * * *";

/// A schedule that makes a run of each change of `path`, and says by which rule.
fn znode(name: &str, path: &str, on: &str, rule: u32) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\nznode = {{ path = \"{path}\", on = [{on}] }}\ndag = \"load\"\n\
         conf = {{ rule = {rule}, event = \"{{{{ znode.event }}}}\", version = \"{{{{ znode.version }}}}\" }}\n"
    )
}

/// The rule, the event and the version of each run of a schedule, in the order in which they were recorded.
fn told(runs: &[Run], schedule: &str) -> Vec<(i64, String, i64)> {
    let number = |value: &Value| value.as_i64().expect("a number");
    let event = |run: &Run| run.conf["event"].as_str().expect("an event").to_owned();
    of(runs, schedule).iter().map(|run| (number(&run.conf["rule"]), event(run), number(&run.conf["version"]))).collect()
}

/// The versions of a znode that the runs of a schedule cover, in order.
fn covered(runs: &[Run], schedule: &str) -> Vec<i64> {
    let run = |run: &&Run| {
        let version = run.conf["version"].as_i64().expect("a version");
        version - run.coalesced..=version
    };
    of(runs, schedule).iter().filter(|run| run.conf["event"] != "deleted").flat_map(run).collect()
}

/// Accepted rows and DAG runs are the same.
fn nothing_twice(runs: &[Run], fake: &FakeAirflow) {
    let mut accepted: Vec<_> =
        runs.iter().filter(|run| run.state.was_accepted()).map(|run| run.dag_run_id.clone()).collect();
    let mut there: Vec<_> = fake.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
    accepted.sort_unstable();
    there.sort_unstable();
    assert_eq!(accepted, there);
}

async fn accepted(member: &Member) -> Vec<Run> {
    let until = Clock::system().now();
    member
        .wait_for_runs("all are accepted", |runs| {
            runs.iter().filter(|run| run.due_at < until).all(|run| run.state != RunState::Pending)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_changed_files_are_in_force_and_znode_triggers_wait_for_it() {
    let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
    let client = ensemble.client().await;
    for path in ["/flag", "/other"] {
        create(&client, path, b"").await;
    }
    let fake = fake().await;
    let home = format!("[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n", ensemble.connect());
    let mut member = Member::new(&format!("{home}{}", airflow(&fake)));
    save(&member.path().join("password"), "admin");
    member.include_schedules();
    let file = member.path().join("schedules/a.toml");
    let beside = cron("beside", "* * * * * *", "");
    let changed = "\"created\", \"changed\"";
    save(&file, &(beside.clone() + &cron("job", EVEN, "") + &znode("flag", "/flag", changed, 1)));
    member.start();
    member.armed().await;
    set(&client, "/flag", b"1").await;
    member.wait_for_runs("a row of its own", |runs| covered(runs, "flag") == [1]).await;
    set(&client, "/flag", b"2").await;
    member
        .wait_for_runs("the rules before", |runs| covered(runs, "flag") == [1, 2] && of(runs, "job").len() >= 2)
        .await;

    let leader = ensemble.leader().expect("a leader");
    for server in (0..SERVERS).filter(|server| *server != leader) {
        ensemble.kill(server);
    }
    let disconnected = |list: &Value| list["zookeeper"]["state"] == "disconnected";
    let away = || async { member.get("members").await.as_ref().is_some_and(disconnected) };
    while !away().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = version(&member).await;
    let all = "\"created\", \"changed\", \"deleted\"";
    let after = beside.clone()
        + &cron("job", ODD, "")
        + &cron("new", "* * * * * *", "")
        + &znode("flag", "/flag", all, 2)
        + &znode("other", "/other", changed, 1);
    save(&file, &after);
    let (_, took) = another(&member, &before).await;
    println!("without a quorum in force after {took:?}");
    assert!(is_leading(&member).await, "it leads on");
    let edited: Timestamp = member.get("config").await.expect("an answer")["since"]
        .as_str()
        .and_then(|since| since.parse().ok())
        .expect("a time");
    member
        .wait_for_runs("cron goes by what is new", |runs| {
            of(runs, "new").len() >= 3 && of(runs, "job").iter().filter(|run| run.due_at > edited).count() >= 2
        })
        .await;
    assert!(disconnected(&member.get("members").await.expect("members")), "it still is");
    for schedule in ["flag", "other"] {
        let shown = member.get(&format!("schedules/{schedule}")).await.expect("a schedule");
        assert_eq!(shown["armed"], false, "{shown}");
    }
    assert_eq!(told(&member.runs().await, "flag").len(), 2, "nothing is known of znodes");

    // What is changed before flowkeeper is back belongs to the new rule.
    ensemble.restart_all().await;
    let client = ensemble.client().await;
    set(&client, "/flag", b"3").await;
    member.armed().await;
    for data in [b"4", b"5"] {
        set(&client, "/flag", data).await;
    }
    // A znode that is gone before it was read tells nothing of its last changes.
    member.wait_for_runs("each change", |runs| covered(runs, "flag") == [1, 2, 3, 4, 5]).await;
    set(&client, "/other", b"1").await;
    delete(&client, "/flag").await;
    let runs = member
        .wait_for_runs("the new rule", |runs| {
            told(runs, "flag").last().is_some_and(|last| last.1 == "deleted") && of(runs, "other").len() == 1
        })
        .await;
    let told = told(&runs, "flag");
    assert_eq!((&told[0], &told[1]), (&(1, "changed".into(), 1), &(1, "changed".into(), 2)), "{told:?}");
    assert!(told[2..].iter().all(|(rule, ..)| *rule == 2), "{told:?}");
    assert_eq!(covered(&runs, "flag"), [1, 2, 3, 4, 5]);
    let runs = accepted(&member).await;
    for schedule in ["beside", "new"] {
        without_a_gap(&of(&runs, schedule), 1);
    }
    one_rule_at_a_time(&runs, edited);
    nothing_twice(&runs, &fake);
}

/// `job` is due at even seconds up to the edit and at odd ones from then on; none is missing.
fn one_rule_at_a_time(runs: &[Run], edited: Timestamp) {
    let mut seconds: Vec<i64> = of(runs, "job").iter().map(|run| run.due_at.as_second()).collect();
    seconds.sort_unstable();
    let (before, after): (Vec<i64>, Vec<i64>) = seconds.iter().partition(|second| **second % 2 == 0);
    assert!(!before.is_empty() && !after.is_empty(), "{seconds:?}");
    assert!(before.last() < after.first(), "by one rule at a time: {seconds:?}");
    for seconds in [&before, &after] {
        assert!(
            seconds.windows(2).all(|pair| pair[1] - pair[0] == 2),
            "none is missing and none is twice: {seconds:?}"
        );
    }
    let (last, first) = (before[before.len() - 1], after[0]);
    assert!(first - last <= 3, "nothing is lost in between: {seconds:?}");
    let edited = edited.as_second();
    assert!(last <= edited && first >= edited - 2, "{seconds:?}, edited at {edited}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_the_set_before_stays_and_then_the_last_one_is_in_force_as_one() {
    let server = PostgresServer::start().await;
    let fake = fake().await;
    let mut member = Member::sharing(&server.create_database().await, &airflow(&fake));
    save(&member.path().join("password"), "admin");
    member.include_schedules();
    let file = member.path().join("schedules/a.toml");
    let beside = cron("beside", "* * * * * *", "");
    let named = |name: &str, more: &str| cron(name, "* * * * * *", more);
    save(&file, &(beside.clone() + &cron("job", EVEN, "") + &named("gone", "") + &named("old", "")));
    member.start();
    member.armed().await;
    member.wait_for_runs("runs", |runs| of(runs, "job").len() >= 2).await;
    let before = version(&member).await;

    server.stop(Stop::Fast);
    let renamed = named("newer", "was = \"old\"");
    save(&file, &(beside.clone() + &cron("job", ODD, "") + &named("between", "") + &renamed));
    let waits = |config: &Value| config["applying"]["version"] != Value::Null;
    until(&member, "a set that waits for the ledger", waits).await;
    let (status, problem) = reload(&member).await;
    assert_eq!(status, reqwest::StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("since the ledger")), "{problem}");
    let between = member.get("config").await.expect("an answer")["applying"]["version"].clone();
    let renamed = named("newest", "was = \"newer\"");
    save(&file, &(beside.clone() + &cron("job", ODD, "") + &named("last", "") + &renamed));
    until(&member, "the set after it", |config| waits(config) && config["applying"]["version"] != between).await;
    let config = member.get("config").await.expect("an answer");
    assert_eq!((&config["in_force"]["version"], &config["refused"]), (&json!(before), &Value::Null), "{config}");
    assert_eq!(config["schedules"], 4);

    server.start_again().await;
    until(&member, "it is in force", |config| {
        config["in_force"]["version"] != before.as_str() && config["applying"].is_null()
    })
    .await;
    let config = member.get("config").await.expect("an answer");
    let edited: Timestamp = config["since"].as_str().and_then(|since| since.parse().ok()).expect("a time");
    member.wait_for_runs("runs by what is new", |runs| of(runs, "last").len() >= 4).await;
    assert_eq!(names(&member.get("schedules").await.expect("schedules")), ["beside", "job", "last", "newest"]);
    let runs = accepted(&member).await;
    // Renamed twice while the ledger did not answer, it is the same one all the time.
    assert_eq!((of(&runs, "old").len(), of(&runs, "newer").len()), (0, 0));
    assert!(of(&runs, "newest").iter().any(|run| run.due_at < edited), "{runs:#?}");
    for schedule in ["beside", "gone", "last", "newest"] {
        without_a_gap(&of(&runs, schedule), 1);
    }
    assert_eq!(of(&runs, "between").len(), 0, "several sets become the last of them");
    one_rule_at_a_time(&runs, edited);
    let settled = of(&runs, "gone").iter().map(|run| run.due_at).max().expect("runs");
    let begun = of(&runs, "last").iter().map(|run| run.due_at).min().expect("runs");
    assert!(begun.as_second() == settled.as_second() + 1, "what ends and what begins meet: {settled} {begun}");
    nothing_twice(&runs, &fake);
}

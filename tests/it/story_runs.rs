//! Stories of a day's work, told with the real binary, a real ZooKeeper and a real Airflow 3: what came
//! due becomes a DAG run, and what operators ask for happens.

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::airflow::{Airflow, DagKind, unique};
use crate::support::process::Member;
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// A member that may use `airflow`, serving `schedules`.
pub(crate) async fn serve(airflow: &Airflow, schedules: &str) -> Member {
    let mut member = Member::new(&format!("{}{schedules}", airflow.section()));
    std::fs::write(member.path().join("password"), airflow.password()).expect("write the password");
    member.start();
    member.armed().await;
    member
}

/// A schedule that runs by hand only: its next nominal time is years away.
pub(crate) fn by_hand(name: &str, dag_id: &str) -> String {
    format!(
        "\n[[schedule]]\nname = \"{name}\"\ncron = \"0 0 1 1 *\"\ndag = \"{dag_id}\"\ncatchup = \"none\"\n\
         overlap = \"allow\"\nretry = {{ initial = \"1s\", max = \"5s\" }}\n"
    )
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("not a time: {value}"))
}

fn words(run: &Run) -> Vec<&'static str> {
    run.timeline.iter().map(|entry| entry.state.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nominal_time_becomes_a_dag_run_with_its_dates_conf_and_note() {
    let airflow = Airflow::three().await;
    let dag = airflow.add_dag(DagKind::Empty).await;
    let name = format!("times-{}", unique());
    let schedule = format!(
        r#"
[[schedule]]
name = "{name}"
cron = "*/10 * * * * *"
dag = "{}"
data_interval = "previous"
overlap = "allow"
conf = {{ source = "story", at = "{{{{ nominal_time }}}}", second = "{{{{ nominal_time.second }}}}", list = [1, {{ deep = "é" }}] }}
"#,
        dag.dag_id
    );
    let member = serve(&airflow, &schedule).await;
    let ended = |runs: &[Run]| runs.iter().filter(|run| run.state == RunState::Success).count() >= 2;
    let runs = member.wait_for_runs("two times ran", ended).await;
    let store_id = member.ledger().await.store_id().to_owned();
    for run in runs.iter().filter(|run| run.state == RunState::Success) {
        let nominal = run.nominal_time.expect("a nominal time");
        assert_eq!(run.dag_run_id, format!("flowkeeper__{name}__{nominal}"));
        let second = nominal.to_zoned(jiff::tz::TimeZone::UTC).second();
        let conf = json!({"source": "story", "at": nominal.to_string(), "second": second, "list": [1, {"deep": "é"}]});
        let held = airflow.dag_run(&dag.dag_id, &run.dag_run_id).await.expect("the DAG run");
        assert_eq!(held["conf"], conf);
        assert_eq!(run.conf, conf, "the ledger shows what was sent");
        assert_eq!(time(&held["logical_date"]), nominal);
        assert_eq!(time(&held["data_interval_start"]), nominal - SignedDuration::from_secs(10));
        assert_eq!(time(&held["data_interval_end"]), nominal);
        let note = held["note"].as_str().expect("a note");
        assert!(note.contains(&store_id) && note.contains(&format!("schedule {name}, due {nominal}")), "{note}");
        let (started, ended) = (run.started_at.expect("a start"), run.ended_at.expect("an end"));
        assert_eq!((started, ended), (time(&held["start_date"]), time(&held["end_date"])), "Airflow's own times");
        assert!(nominal <= run.recorded_at && run.recorded_at <= ended, "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn znode_changes_become_dag_runs_and_consumed_children_are_gone() {
    let airflow = Airflow::three().await;
    let server = ZooKeeperServer::shared().await;
    let client = server.client().await;
    let (base, mark) = (format!("/story-{}", unique()), unique());
    create(&client, &base, b"").await;
    create(&client, &format!("{base}/flag"), b"not yet").await;
    create(&client, &format!("{base}/inbox"), b"").await;
    create(&client, &format!("{base}/inbox/waiting"), b"since before the start").await;
    let schedules = format!(
        r#"
[zookeeper]
connect = "{}"
root = "/flowkeeper/story-{mark}"

[[schedule]]
name = "flag-{mark}"
znode = {{ path = "{base}/flag", on = ["created", "changed"] }}
when = "znode.text == 'ready' and previous.text == 'not yet'"
dag = "fk_success"
conf = {{ path = "{{{{ znode.path }}}}", value = "{{{{ znode.text }}}}", version = "{{{{ znode.version }}}}" }}

[[schedule]]
name = "inbox-{mark}"
znode = {{ path = "{base}/inbox", watch = "children", consume = "success" }}
dag = "fk_empty"
"#,
        server.connect()
    );
    let member = serve(&airflow, &schedules).await;
    set(&client, &format!("{base}/flag"), b"ready").await;
    let flag = format!("flag-{mark}");
    member.wait_for_runs("the flag is seen", |runs| runs.iter().any(|run| run.schedule == flag)).await;
    set(&client, &format!("{base}/flag"), b"ready, but the story is over").await;
    let czxid = create(&client, &format!("{base}/inbox/order-1"), "päckchen".as_bytes()).await;

    let all_ended = |runs: &[Run]| runs.len() >= 3 && runs.iter().all(|run| run.state == RunState::Success);
    let runs = member.wait_for_runs("the flag and two children ran", all_ended).await;
    assert_eq!(runs.len(), 3, "a false `when` makes no run: {runs:#?}");
    for run in &runs {
        let held = airflow.dag_run(&run.dag_id, &run.dag_run_id).await.expect("the DAG run");
        assert_eq!(held["conf"], run.conf, "Airflow holds the conf of {}", run.dag_run_id);
        assert_eq!(held["logical_date"], Value::Null, "a change has no logical date");
    }
    let flag = runs.iter().find(|run| run.schedule == flag).expect("the flag's run");
    assert_eq!(flag.conf, json!({"path": format!("{base}/flag"), "value": "ready", "version": 1}));
    let order = runs.iter().find(|run| run.conf["znode"]["name"] == "order-1").expect("the order's run");
    assert_eq!(order.conf["znode"]["text"], "päckchen");
    assert!(order.dag_run_id.starts_with(&format!("flowkeeper__inbox-{mark}__z{czxid:x}-")), "{}", order.dag_run_id);

    let end = std::time::Instant::now() + std::time::Duration::from_mins(4);
    loop {
        let left = client.list_children(&format!("{base}/inbox")).await.expect("list the inbox");
        if left.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < end, "not consumed: {left:?}\n{}", member.logged());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_date_that_someone_else_holds_rejects_the_run_by_name_until_it_is_free() {
    let airflow = Airflow::three().await;
    let dag = airflow.add_dag(DagKind::Empty).await;
    let body = json!({"dag_run_id": "somebody_elses", "logical_date": "2024-01-01T00:00:00Z"});
    airflow.done(Method::POST, &format!("dags/{}/dagRuns", dag.dag_id), Some(&body)).await;
    let name = format!("dated-{}", unique());
    let member = serve(&airflow, &by_hand(&name, &dag.dag_id)).await;

    let (from, to) = ("2024-01-01T00:00:00Z", "2024-12-31T00:00:00Z");
    let done = member.json(&["backfill", &name, "--from", from, "--to", to]).await;
    assert_eq!((done[0]["action"].as_str(), done[1].as_object()), (Some("record"), None), "{done}");
    let id = format!("flowkeeper__{name}__{from}");
    let run = member.wait_for_run("the date is taken", &id, |run| run.state == RunState::Rejected).await;
    let reason = run.reason.expect("a reason");
    assert!(reason.contains("somebody_elses") && reason.contains("2024-01-01T00:00:00Z"), "{reason}");
    assert_eq!(run.attempts.last().and_then(|attempt| attempt.http_status), Some(409));

    airflow.delete(&format!("dags/{}/dagRuns/somebody_elses", dag.dag_id)).await;
    let retried = member.json(&["runs", "retry", &id, "--reason", "the date is free"]).await;
    assert_eq!(retried["state"], "pending", "{retried}");
    let run = member.wait_for_run("the date is free", &id, |run| run.state == RunState::Success).await;
    assert_eq!(words(&run)[..2], ["rejected", "pending"], "{:?}", run.timeline);
    let audit = member.json(&["audit"]).await;
    let mut actions: Vec<_> = audit.as_array().expect("entries").iter().map(|entry| entry["action"].clone()).collect();
    actions.reverse();
    assert_eq!(actions, ["backfill", "retry"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_by_hand_is_waited_for_and_the_same_key_is_the_same_run() {
    let airflow = Airflow::three().await;
    let (good, bad) = (format!("good-{}", unique()), format!("bad-{}", unique()));
    let schedules = by_hand(&good, "fk_success") + &by_hand(&bad, "fk_failing");
    let member = serve(&airflow, &schedules).await;

    let arguments = ["trigger", &good, "--wait", "--key", "monday", "--conf", r#"{"day": "Monday"}"#];
    let run = member.json(&arguments).await;
    assert_eq!((&run["state"], &run["conf"]), (&json!("success"), &json!({"day": "Monday"})), "{run}");
    let again = member.json(&arguments).await;
    assert_eq!(again["id"], run["id"], "the same key is the same run");
    let held = airflow.dag_run("fk_success", &format!("flowkeeper__{good}__mmonday")).await.expect("the DAG run");
    assert_eq!(held["conf"], json!({"day": "Monday"}));

    let failed = member.run(&["-o", "json", "trigger", &bad, "--wait"]).await;
    assert_eq!(failed.status.code(), Some(1), "a run that fails is a command that fails");
    let run: Value = serde_json::from_slice(&failed.stdout).expect("the run is printed all the same");
    assert_eq!(run["state"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_run_that_is_cancelled_fails_in_airflow() {
    let airflow = Airflow::three().await;
    let name = format!("slow-{}", unique());
    let member = serve(&airflow, &by_hand(&name, "fk_slow")).await;
    member.json(&["trigger", &name, "--key", "long", "--conf", r#"{"seconds": 600}"#]).await;
    let id = format!("flowkeeper__{name}__mlong");
    member.wait_for_run("it runs", &id, |run| run.state == RunState::Running).await;
    member.json(&["runs", "cancel", &id, "--reason", "not today"]).await;
    let run = member.wait_for_run("it has ended", &id, |run| run.state == RunState::Failed).await;
    let held = airflow.dag_run("fk_slow", &run.dag_run_id).await.expect("the DAG run");
    assert_eq!(held["state"], "failed");
    let audit = member.json(&["audit"]).await;
    let cancelled = &audit[0];
    assert_eq!((&cancelled["action"], &cancelled["reason"]), (&json!("cancel"), &json!("not today")), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_runs_past_times_and_clears_failed_ones_when_asked() {
    let airflow = Airflow::three().await;
    let dag = airflow.add_dag(DagKind::FailsOnce).await;
    let name = format!("past-{}", unique());
    let member = serve(&airflow, &by_hand(&name, &dag.dag_id)).await;
    let range = ["--from", "2022-01-01T00:00:00Z", "--to", "2023-01-01T00:00:00Z"];
    let backfill = |more: &[&'static str]| [&["backfill", name.as_str()][..], &range, more].concat();
    let actions = |items: &Value| -> Vec<Value> {
        items.as_array().expect("items").iter().map(|item| item["action"].clone()).collect()
    };

    assert_eq!(actions(&member.json(&backfill(&["--dry-run"])).await), ["record", "record"]);
    assert!(member.runs().await.is_empty(), "a dry run changes nothing");
    member.json(&backfill(&[])).await;
    let all = |state| move |runs: &[Run]| runs.len() == 2 && runs.iter().all(|run| run.state == state);
    member.wait_for_runs("both times fail", all(RunState::Failed)).await;

    assert_eq!(actions(&member.json(&backfill(&[])).await), ["leave", "leave"], "failed runs are left");
    assert_eq!(actions(&member.json(&backfill(&["--failed"])).await), ["clear", "clear"]);
    let runs = member.wait_for_runs("both times succeed", all(RunState::Success)).await;
    assert!(runs.iter().all(|run| run.reopened == 1), "{runs:#?}");
    let mut ids = airflow.dag_run_ids(&dag.dag_id).await;
    ids.sort();
    let expected = ["2022", "2023"].map(|year| format!("flowkeeper__{name}__{year}-01-01T00:00:00Z"));
    assert_eq!(ids, expected, "no time has a second DAG run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_that_is_cleared_in_airflow_ends_in_success() {
    let airflow = Airflow::three().await;
    let name = format!("cleared-{}", unique());
    let member = serve(&airflow, &by_hand(&name, "fk_fails_once")).await;
    member.json(&["trigger", &name, "--key", "one"]).await;
    let id = format!("flowkeeper__{name}__mone");
    let failed = member.wait_for_run("the first try fails", &id, |run| run.state == RunState::Failed).await;
    assert_eq!(failed.reopened, 0);
    airflow.clear("fk_fails_once", &id).await;
    let run = member.wait_for_run("the second succeeds", &id, |run| run.state == RunState::Success).await;
    assert_eq!(run.reopened, 1);
    let words = words(&run);
    assert_eq!(words.last(), Some(&"success"), "{words:?}");
    let failures = words.iter().filter(|word| **word == "failed").count();
    assert_eq!(failures, 1, "the first end stays in the timeline: {words:?}");
    assert!(run.ended_at > failed.ended_at, "the end is the new one's");
}

//! Stories of trouble in a real Airflow 3: DAGs that are paused or deleted, and a password that is wrong.

use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::{Value, json};

use crate::story_runs::{by_hand, serve};
use crate::support::airflow::{Airflow, DagKind, unique};
use crate::support::process::Member;
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// Waits until `schedules NAME` shows the schedule paused, or not.
async fn shown_as(member: &Member, name: &str, paused: bool) -> Value {
    let end = Instant::now() + Duration::from_mins(4);
    loop {
        let shown = member.json(&["schedules", name]).await;
        if shown["paused"] == paused {
            return shown;
        }
        assert!(Instant::now() < end, "{shown}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dag_that_is_paused_in_airflow_holds_its_schedules_until_it_is_not() {
    let airflow = Airflow::three().await;
    let dag = airflow.add_dag(DagKind::Empty).await;
    let server = ZooKeeperServer::shared().await;
    let client = server.client().await;
    let mark = unique();
    let flag = format!("/paused-{mark}");
    create(&client, &flag, b"before").await;
    let schedules = format!(
        r#"
[zookeeper]
connect = "{}"
root = "/flowkeeper/paused-{mark}"

[[schedule]]
name = "times-{mark}"
cron = "*/5 * * * * *"
dag = "{dag}"
catchup = "latest"
overlap = "allow"

[[schedule]]
name = "flag-{mark}"
znode = {{ path = "{flag}", on = ["changed"] }}
dag = "{dag}"
catchup = "latest"

[[schedule]]
name = "submit-{mark}"
cron = "0 0 1 1 *"
dag = "{dag}"
paused_dag = "submit"
"#,
        server.connect(),
        dag = dag.dag_id,
    );
    let member = serve(&airflow, &schedules).await;
    let (times, flags, submits) = (format!("times-{mark}"), format!("flag-{mark}"), format!("submit-{mark}"));
    airflow.pause(&dag.dag_id, true).await;
    let shown = shown_as(&member, &times, true).await;
    assert_eq!((&shown["pause"]["by"], &shown["next_time"]), (&json!("airflow"), &Value::Null), "{shown}");
    assert!(shown["pause"]["reason"].as_str().is_some_and(|reason| reason.contains(&dag.dag_id)), "{shown}");
    let why = member.run(&["why", &times]).await;
    let why = String::from_utf8_lossy(&why.stdout).replace('\n', " ");
    assert!(why.contains("is paused in Airflow"), "{why}");
    shown_as(&member, &submits, false).await;
    // What was on its way to Airflow has arrived.
    let arrived = |runs: &[Run]| runs.iter().all(|run| run.state != RunState::Pending);
    member.wait_for_runs("nothing is on its way", arrived).await;
    let mut submitted = airflow.dag_run_ids(&dag.dag_id).await;

    set(&client, &flag, b"meanwhile").await;
    member.json(&["trigger", &submits, "--key", "queued"]).await;
    let id = format!("flowkeeper__{submits}__mqueued");
    member.wait_for_run("it is submitted all the same", &id, |run| run.state == RunState::Queued).await;
    // Long enough for a nominal time to pass.
    tokio::time::sleep(Duration::from_secs(7)).await;
    submitted.push(id);
    assert_eq!(airflow.dag_run_ids(&dag.dag_id).await, submitted, "nothing else was submitted");

    airflow.pause(&dag.dag_id, false).await;
    let of = |runs: &[Run], schedule: &str, state: RunState| {
        runs.iter().filter(|run| run.schedule == schedule && run.state == state).count()
    };
    let all_ran = |runs: &[Run]| {
        [&times, &flags, &submits].iter().all(|schedule| of(runs, schedule, RunState::Success) >= 1)
            && of(runs, &times, RunState::Skipped) >= 1
    };
    let runs = member.wait_for_runs("what was held back runs", all_ran).await;
    let skipped = runs.iter().find(|run| run.state == RunState::Skipped).expect("a skipped row");
    let reason = skipped.reason.as_deref().expect("a reason");
    assert!(skipped.schedule == times && reason.contains(&dag.dag_id), "{reason}");
    let changed = runs.iter().find(|run| run.schedule == flags).expect("the flag's run");
    assert_eq!(changed.conf["znode"]["text"], "meanwhile");
    shown_as(&member, &times, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_its_correction_needs_no_restart() {
    let airflow = Airflow::three().await;
    let (name, wrong) = (format!("login-{}", unique()), format!("wrong-{}", unique()));
    let mut member = Member::new(&format!("{}{}", airflow.section(), by_hand(&name, "fk_empty")));
    std::fs::write(member.path().join("password"), &wrong).expect("write a password");
    member.start();
    member.armed().await;
    member.json(&["trigger", &name, "--key", "one"]).await;
    let id = format!("flowkeeper__{name}__mone");
    let run = member.wait_for_run("it is tried", &id, |run| !run.attempts.is_empty()).await;
    assert_eq!(run.state, RunState::Pending, "a login that is refused rejects no run");
    let detail = run.attempts[0].detail.clone().unwrap_or_default();
    let log = member.logged();
    for (told, place) in [(&detail, "the attempt"), (&log, "the log")] {
        assert!(told.contains("401: Invalid credentials"), "{place}: {told}");
        assert!(!told.contains(&wrong), "the password is in {place}: {told}");
    }
    let checked = member.run(&["check", "--online"]).await;
    let told = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && told.contains("Invalid credentials"), "{told}");

    std::fs::write(member.path().join("password"), airflow.password()).expect("correct the password");
    let run = member.wait_for_run("it goes through", &id, |run| run.state == RunState::Success).await;
    assert_eq!(run.attempts.last().and_then(|attempt| attempt.http_status), Some(200), "{:?}", run.attempts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_whose_dag_run_or_dag_is_deleted_while_they_are_open_are_removed() {
    let airflow = Airflow::three().await;
    // Their runs stay queued, for they are paused.
    let (kept, deleted) = (airflow.add_dag(DagKind::Paused).await, airflow.add_dag(DagKind::Paused).await);
    let (first, second) = (format!("run-{}", unique()), format!("dag-{}", unique()));
    let submit = "paused_dag = \"submit\"\n";
    let schedules = by_hand(&first, &kept.dag_id) + submit + &by_hand(&second, &deleted.dag_id) + submit;
    let member = serve(&airflow, &schedules).await;
    let ids = [(&first, "gone"), (&first, "stays"), (&second, "gone")];
    for (name, key) in ids {
        member.json(&["trigger", name, "--key", key]).await;
    }
    let id = |name: &str, key: &str| format!("flowkeeper__{name}__m{key}");
    let all_queued = |runs: &[Run]| runs.len() == 3 && runs.iter().all(|run| run.state == RunState::Queued);
    member.wait_for_runs("all are queued", all_queued).await;

    let path = format!("dags/{}/dagRuns/{}", kept.dag_id, id(&first, "gone"));
    airflow.delete(&path).await;
    airflow.delete_dag(&deleted).await;
    for gone in [id(&first, "gone"), id(&second, "gone")] {
        let run = member.wait_for_run("it is gone", &gone, |run| run.state == RunState::Removed).await;
        let reason = run.reason.unwrap_or_default();
        assert!(reason.contains("deleted in Airflow"), "{reason}");
    }
    assert_eq!(member.history(&id(&first, "stays")).await.state, RunState::Queued);
}

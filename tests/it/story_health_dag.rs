//! The DAGs that `init` installs, in a real Airflow 3 and a real Airflow 2: with a real ensemble one of
//! whose servers is dead, and a member that serves, exactly the right tasks fail, with the message.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flowkeeper::domain::health::Check;
use flowkeeper::domain::run::RunState;
use serde_json::{Value, json};

use crate::story_runs::by_hand;
use crate::support::airflow::{Airflow, unique};
use crate::support::airflow_tasks::TaskKey;
use crate::support::ensemble::{SERVERS, ZooKeeperEnsemble};
use crate::support::process::Member;

const TICK: Duration = Duration::from_millis(500);

/// What fails when a follower is dead; one more must not die.
const FAILED: [&str; 3] = ["serving", "quorum", "summary"];

/// What is as it should be, or a warning, although a server is dead.
const SUCCEEDED: [&str; 5] = ["leader", "synced_followers", "commands", "version_skew", "clock"];

/// Runs `flowkeeper init`; the files that it wrote.
fn init(directory: &Path) -> Vec<PathBuf> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
    let output = command.args(["-o", "json", "init"]).arg(directory).stdin(Stdio::null()).output();
    let files: Value = serde_json::from_slice(&output.expect("run flowkeeper").stdout).expect("JSON");
    let path = |file: &Value| PathBuf::from(file["path"].as_str().expect("a path"));
    files.as_array().expect("a list").iter().map(path).collect()
}

/// Checks the configuration of `init` against the real things.
async fn check_online(directory: &Path, airflow: &Airflow, zookeeper: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
    command.arg("-c").arg(directory.join("flowkeeper.toml")).args(["-o", "json", "check", "--online"]);
    command.env("FLOWKEEPER_AIRFLOW__MAIN__URL", airflow.url()).env("AIRFLOW_PASSWORD", airflow.password());
    command.env("FLOWKEEPER_ZOOKEEPER__CONNECT", zookeeper).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it is waited for");
    serde_json::from_slice(&output.expect("run flowkeeper").stdout).expect("JSON")
}

fn task(task_id: &str) -> TaskKey {
    TaskKey { task_id: task_id.to_owned(), map_index: -1 }
}

/// A value that Airflow may show as JSON in a text.
fn plain(value: Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(&text.replace('\'', "\"").replace("None", "null"))
            .unwrap_or_else(|error| panic!("{error}: {text}")),
        other => other,
    }
}

/// The story of `zookeeper_health`, and of the DAGs for these schedules beside it: `mapped`, `lonely`,
/// `maintenance`.
async fn tell(airflow: Airflow, beside: &[&str]) {
    let ensemble = ZooKeeperEnsemble::start(TICK).await;
    ensemble.is_whole().await;
    let directory = tempfile::tempdir().expect("a directory");
    let files = init(directory.path());
    let dags: Vec<&Path> =
        files.iter().map(PathBuf::as_path).filter(|path| path.extension() == Some("py".as_ref())).collect();
    airflow.install(&dags);

    // One DAG more, whose checks of servers are mapped, and one for which no flowkeeper answers.
    let (mapped, lonely) = (format!("fk_mapped_{}", unique()), format!("fk_lonely_{}", unique()));
    let import = "from flowkeeper_health import zookeeper_health_dag  # an Airflow DAG\n";
    let checks = "checks=[\"serving\", \"quorum\"], retries=0";
    airflow.write_dag(
        &mapped,
        &format!("{import}dag = zookeeper_health_dag(\"home\", dag_id=\"{mapped}\", per_server=True, {checks})\n"),
    );
    let nobody = format!("flowkeeper_conn_id=\"{lonely}\"");
    airflow.write_dag(
        &lonely,
        &format!("{import}dag = zookeeper_health_dag(\"home\", dag_id=\"{lonely}\", {nobody}, {checks})\n"),
    );

    let schedules = [
        by_hand("health", "zookeeper_health"),
        by_hand("maintenance", "zookeeper_maintenance"),
        by_hand("mapped", &mapped),
        by_hand("lonely", &lonely),
    ];
    let zookeeper = format!("[zookeeper]\nconnect = \"{}\"\n", ensemble.connect());
    let mut member = Member::new(&[airflow.section(), zookeeper, schedules.concat()].concat());
    std::fs::write(member.path().join("password"), airflow.password()).expect("write the password");
    airflow.connect("flowkeeper_default", &member.url()).await;
    airflow.connect(&lonely, "127.0.0.1:9").await;
    for dag_id in ["zookeeper_health", "zookeeper_maintenance", "flowkeeper_lock_run", "nightly_load", &mapped, &lonely]
    {
        airflow.knows(dag_id).await;
    }
    let checked = check_online(directory.path(), &airflow, &ensemble.connect()).await;
    assert_eq!(checked["ok"], true, "{checked:#}");
    member.start();
    member.armed().await;

    let leader = ensemble.leader().expect("a leader");
    let dead = (leader + 1) % ensemble.servers().len();
    ensemble.kill(dead);
    let key = unique();
    for schedule in ["health"].iter().chain(beside) {
        member.json(&["trigger", schedule, "--key", &key]).await;
    }
    let id = |schedule: &str| format!("flowkeeper__{schedule}__m{key}");

    let health = ("zookeeper_health", id("health"));
    assert_eq!(airflow.ended(health.0, &health.1).await, "failed");
    let states = airflow.task_states(health.0, &health.1).await;
    assert_eq!(states.len(), Check::all().count() + 1, "a task a check, and the summary");
    let with = |state: &str| -> BTreeSet<&str> {
        states.iter().filter(|(_, found)| *found == state).map(|(task, _)| task.task_id.as_str()).collect()
    };
    assert_eq!(with("failed"), BTreeSet::from(FAILED), "{states:#?}");
    assert!(with("success").is_superset(&BTreeSet::from(SUCCEEDED)), "{states:#?}");
    // What one server does not tell is not known, so these are neither good nor bad.
    assert!(
        with("skipped").is_superset(&BTreeSet::from(["latency", "file_descriptors", "certificate"])),
        "{states:#?}"
    );
    assert_eq!(with("failed").len() + with("success").len() + with("skipped").len(), states.len(), "{states:#?}");
    let log = airflow.task_log(health.0, &health.1, "quorum").await;
    assert!(log.contains("Bring the missing servers back before another one fails."), "{log}");
    let log = airflow.task_log(health.0, &health.1, "serving").await;
    assert!(log.contains(&format!("{}: The server cannot be reached", ensemble.servers()[dead])), "{log}");
    let left = airflow.xcom(health.0, &health.1, &task("quorum"), "result").await.expect("the numbers");
    let left = plain(left);
    assert_eq!((&left["verdict"], &left["values"]), (&json!("critical"), &json!({"ensemble": 2})), "{left}");
    let left = airflow.xcom(health.0, &health.1, &task("znode_count"), "result").await.expect("the numbers");
    assert_eq!(plain(left)["values"].as_object().expect("values").len(), 2, "of a task that was skipped");
    let summary = plain(airflow.xcom(health.0, &health.1, &task("summary"), "summary").await.expect("the sum"));
    assert_eq!((&summary["critical"], &summary["missing"]), (&json!(["serving", "quorum"]), &json!([])), "{summary}");
    let run = member.wait_for_run("flowkeeper saw it", &health.1, |run| run.state == RunState::Failed).await;
    assert_eq!(run.dag_id, "zookeeper_health");

    for schedule in beside {
        match *schedule {
            "mapped" => mapped_instances(&airflow, &mapped, &id("mapped"), dead).await,
            "lonely" => nobody_answers(&airflow, &lonely, &id("lonely")).await,
            _ => is_looked_after(&airflow, &id("maintenance")).await,
        }
    }
    airflow.remove_dag(&mapped);
    airflow.remove_dag(&lonely);
    assert_eq!(member.stop().await, Some(0));
}

/// A task instance a server: that of the dead one has failed.
async fn mapped_instances(airflow: &Airflow, dag_id: &str, dag_run_id: &str, dead: usize) {
    assert_eq!(airflow.ended(dag_id, dag_run_id).await, "failed");
    let states = airflow.task_states(dag_id, dag_run_id).await;
    for index in 0..SERVERS {
        let serving =
            TaskKey { task_id: "serving".to_owned(), map_index: i64::try_from(index).expect("a small number") };
        assert_eq!(states[&serving], if index == dead { "failed" } else { "success" }, "{states:#?}");
    }
    assert_eq!((&states[&task("quorum")], &states[&task("servers")]), (&"failed".into(), &"success".into()));
}

/// Without an answer tasks fail with what was tried, and so does the sum.
async fn nobody_answers(airflow: &Airflow, dag_id: &str, dag_run_id: &str) {
    assert_eq!(airflow.ended(dag_id, dag_run_id).await, "failed");
    let states = airflow.task_states(dag_id, dag_run_id).await;
    assert!(states.values().all(|state| state == "failed"), "{states:#?}");
    let log = airflow.task_log(dag_id, dag_run_id, "quorum").await;
    assert!(log.contains("http://127.0.0.1:9 cannot be reached: Connection refused"), "{log}");
    assert!(log.contains("is `flowkeeper serve` running there?"), "{log}");
}

/// Sizes of a dead server are not known; who owns ephemeral znodes is.
async fn is_looked_after(airflow: &Airflow, dag_run_id: &str) {
    let dag_id = "zookeeper_maintenance";
    assert_eq!(airflow.ended(dag_id, dag_run_id).await, "success");
    let states = airflow.task_states(dag_id, dag_run_id).await;
    assert_eq!(
        (&states[&task("directory_size")], &states[&task("ephemeral_owners")]),
        (&"skipped".into(), &"success".into())
    );
    let left = airflow.xcom(dag_id, dag_run_id, &task("ephemeral_owners"), "result").await;
    let left = plain(left.expect("the numbers"));
    assert!(left["values"]["ephemerals"].as_u64() >= Some(2), "the member's own: {left}");
    assert_eq!(left["values"]["stale"], 0, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_turns_its_checks_red_in_airflow_3() {
    tell(Airflow::three().await, &["mapped", "lonely", "maintenance"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_turns_its_checks_red_in_airflow_2() {
    // It runs one task at a time, each for seconds.
    tell(Airflow::two().await, &["mapped"]).await;
}

//! The same stories, shorter, with a real Airflow 2 and its API v1: trigger, conflict, list and monitor.

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use reqwest::Method;
use serde_json::json;

use crate::story_runs::{by_hand, serve};
use crate::support::airflow::{Airflow, DagKind, unique};
use crate::support::zookeeper::{ZooKeeperServer, create};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn airflow_2_runs_what_times_and_children_make_due() {
    let airflow = Airflow::two().await;
    let dag = airflow.add_dag(DagKind::Empty).await;
    let server = ZooKeeperServer::shared().await;
    let client = server.client().await;
    let (times, inbox) = (format!("times-{}", unique()), format!("inbox-{}", unique()));
    create(&client, &format!("/{inbox}"), b"").await;
    let schedules = format!(
        r#"
[zookeeper]
connect = "{}"
root = "/flowkeeper/{inbox}"

[[schedule]]
name = "{times}"
cron = "*/10 * * * * *"
dag = "{}"
data_interval = "previous"
overlap = "allow"
conf = {{ at = "{{{{ nominal_time }}}}" }}

[[schedule]]
name = "{inbox}"
znode = {{ path = "/{inbox}", watch = "children", consume = "success" }}
dag = "fk_success"
"#,
        server.connect(),
        dag.dag_id,
    );
    let member = serve(&airflow, &schedules).await;
    create(&client, &format!("/{inbox}/order"), b"one").await;
    let succeeded = |runs: &[Run], schedule: &str| {
        runs.iter().any(|run| run.schedule == schedule && run.state == RunState::Success)
    };
    let both = |runs: &[Run]| succeeded(runs, &times) && succeeded(runs, &inbox);
    let runs = member.wait_for_runs("both ran", both).await;
    for run in runs.iter().filter(|run| run.state == RunState::Success) {
        let held = airflow.dag_run(&run.dag_id, &run.dag_run_id).await.expect("the DAG run");
        assert_eq!(held["conf"], run.conf);
        assert!(held["note"].as_str().is_some_and(|note| note.contains(&run.schedule)), "{held}");
        if let Some(nominal) = run.nominal_time {
            let date = held["logical_date"].as_str().and_then(|date| date.parse::<jiff::Timestamp>().ok());
            assert_eq!(date, Some(nominal));
            assert_eq!(run.conf, json!({"at": nominal.to_string()}));
        }
    }
    crate::support::world::wait_for(
        || async { client.list_children(&format!("/{inbox}")).await.ok()?.is_empty().then_some(()) },
        || format!("the child is not consumed\n{}", member.logged()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn airflow_2_names_who_holds_a_logical_date_and_shows_a_cleared_run() {
    let airflow = Airflow::two().await;
    let dag = airflow.add_dag(DagKind::FailsOnce).await;
    let body = json!({"dag_run_id": "somebody_elses", "logical_date": "2024-01-01T00:00:00Z"});
    airflow.done(Method::POST, &format!("dags/{}/dagRuns", dag.dag_id), Some(&body)).await;
    let name = format!("dated-{}", unique());
    let member = serve(&airflow, &by_hand(&name, &dag.dag_id)).await;
    member.json(&["backfill", &name, "--from", "2023-01-01T00:00:00Z", "--to", "2024-01-01T00:00:00Z"]).await;

    let id = |year| format!("flowkeeper__{name}__{year}-01-01T00:00:00Z");
    let run = member.wait_for_run("the date is taken", &id(2024), |run| run.state == RunState::Rejected).await;
    let reason = run.reason.unwrap_or_default();
    assert!(reason.contains("somebody_elses"), "{reason}");

    member.wait_for_run("the first try fails", &id(2023), |run| run.state == RunState::Failed).await;
    airflow.clear(&dag.dag_id, &id(2023)).await;
    let run = member.wait_for_run("the second succeeds", &id(2023), |run| run.state == RunState::Success).await;
    assert_eq!(run.reopened, 1, "{:?}", run.timeline);
}

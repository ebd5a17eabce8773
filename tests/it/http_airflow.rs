//! What operators do to DAG runs that Airflow holds.

use flowkeeper::domain::run::{AirflowState, RunState};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, State, Version, World};
use crate::support::member::{AIRFLOW_TOKEN, Member, NOW, dag_run_id};

#[tokio::test]
async fn what_airflow_holds_is_ended_and_cleared_in_airflow() {
    let airflow = FakeAirflow::start(World::new(Version::Three).with_dags(["load"])).await;
    airflow.world().tokens.insert(AIRFLOW_TOKEN.to_owned());
    let member = Member::start_with("", &airflow.url()).await;
    let identity = dag_run_id("2026-11-22T11:00:00Z");
    let id = member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    airflow.world().create("load", &identity, None).expect("a DAG run");
    airflow.world().set_state("load", &identity, State::Running);
    member.see(&identity, AirflowState::Running).await;

    let cancelled = member.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{}", cancelled.text);
    assert_eq!(cancelled.json()["state"], "running", "the monitor closes it, nobody else");
    assert_eq!(airflow.world().run("load", &identity).map(|run| run.state), Some(State::Failed));

    member.see(&identity, AirflowState::Failed).await;
    let retried = member.post(&format!("/api/v1/runs/{id}/retry"), &json!({})).await;
    assert_eq!(retried.status, StatusCode::ACCEPTED, "{}", retried.text);
    assert_eq!(airflow.world().run("load", &identity).map(|run| run.state), Some(State::Queued));
    assert_eq!(member.actions().await, [format!("cancel {identity}"), format!("retry {identity}")]);

    member.move_cursor(NOW).await;
    airflow.world().set_state("load", &identity, State::Failed);
    let range = json!({"from": "2026-11-22T11:00:00Z", "to": "2026-11-22T11:00:00Z"});
    let left = member.post("/api/v1/schedules/hourly-load/backfill", &range).await.json();
    assert_eq!(left["counts"], json!({"leave": 1}), "failed runs are left unless asked for");
    let mut failed = range.clone();
    failed["failed"] = json!(true);
    let cleared = member.post("/api/v1/schedules/hourly-load/backfill", &failed).await;
    assert_eq!(cleared.json()["counts"], json!({"clear": 1}), "{}", cleared.text);
    assert_eq!(airflow.world().run("load", &identity).map(|run| run.state), Some(State::Queued));
    member.stop().await;
}

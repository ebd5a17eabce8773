//! Requests of API v1, which Airflow 2 speaks.
//!
//! `logical_date` is left out where there is none (null is an error), and then becomes the time of the
//! request. The note is written in the transaction that makes the DAG run, as in API v2, so there is
//! no moment in which a DAG run of ours cannot be told from a foreign one. Measured on Airflow 2.11.2.

use reqwest::Method;
use serde::Serialize;
use serde_json::json;

use super::client::Call;
use super::{RunQuery, Submission};
use crate::domain::run::AirflowState;

/// The path under which the API lives.
pub(super) const ROOT: [&str; 2] = ["api", "v1"];

/// The body that asks for a DAG run.
pub(super) fn trigger_body(submission: &Submission<'_>) -> Vec<u8> {
    run_body(submission, None)
}

/// The body that asks for a DAG run. The conf goes in as the bytes that it is; `no_date` is what
/// stands for a logical date that is missing.
pub(super) fn run_body(submission: &Submission<'_>, no_date: Option<&str>) -> Vec<u8> {
    let mut body = Vec::with_capacity(submission.conf.get().len() + submission.note.len() + 300);
    body.extend_from_slice(br#"{"dag_run_id":"#);
    write_json(&mut body, submission.dag_run_id);
    match (submission.logical_date, no_date) {
        (Some(date), _) => {
            body.extend_from_slice(br#","logical_date":"#);
            write_json(&mut body, &date);
        }
        (None, Some(missing)) => {
            body.extend_from_slice(br#","logical_date":"#);
            body.extend_from_slice(missing.as_bytes());
        }
        (None, None) => {}
    }
    if let Some((start, end)) = submission.data_interval {
        body.extend_from_slice(br#","data_interval_start":"#);
        write_json(&mut body, &start);
        body.extend_from_slice(br#","data_interval_end":"#);
        write_json(&mut body, &end);
    }
    body.extend_from_slice(br#","note":"#);
    write_json(&mut body, submission.note);
    body.extend_from_slice(br#","conf":"#);
    body.extend_from_slice(submission.conf.get().as_bytes());
    body.push(b'}');
    body
}

/// Appends `value`; text and times always have a JSON form, and a `Vec` takes all bytes.
fn write_json<T: Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(body, value);
    debug_assert!(written.is_ok(), "text and times always have a JSON form");
}

/// One page of DAG runs, in the order of their creation.
///
/// Only the `GET` knows `updated_at_gte`, only the `POST` knows several DAGs.
pub(super) fn list_runs(query: &RunQuery, limit: u32, offset: u64) -> Call {
    if query.dag_ids.len() > 1 && query.updated_since.is_none() {
        let mut body = json!({"page_limit": limit, "page_offset": offset, "order_by": "id", "dag_ids": query.dag_ids});
        if !query.states.is_empty() {
            body["states"] = query.states.iter().copied().map(state).collect();
        }
        if let Some(date) = query.logical_date {
            body["execution_date_gte"] = json!(date);
            body["execution_date_lte"] = json!(date);
        }
        return Call::new(Method::POST, ["dags", "~", "dagRuns", "list"]).json(&body);
    }
    let dag_id = match query.dag_ids.as_slice() {
        [dag_id] => dag_id,
        _ => "~",
    };
    let mut call = Call::new(Method::GET, ["dags", dag_id, "dagRuns"]).page(limit, offset).query("order_by", "id");
    for wanted in &query.states {
        call = call.query("state", state(*wanted));
    }
    if let Some(since) = query.updated_since {
        call = call.query("updated_at_gte", since);
    }
    if let Some(date) = query.logical_date {
        call = call.query("execution_date_gte", date).query("execution_date_lte", date);
    }
    call
}

/// One page of DAGs. There is no filter for several.
pub(super) fn list_dags(limit: u32, offset: u64) -> Call {
    Call::new(Method::GET, ["dags"]).page(limit, offset).query("order_by", "dag_id")
}

/// Writes a note on a DAG run.
pub(super) fn set_note(dag_id: &str, dag_run_id: &str) -> Call {
    Call::new(Method::PATCH, ["dags", dag_id, "dagRuns", dag_run_id, "setNote"])
}

/// Airflow's health.
pub(super) fn health() -> Call {
    Call::new(Method::GET, ["health"]).anonymous()
}

/// Airflow's word for a state.
pub(super) fn state(state: AirflowState) -> &'static str {
    state.as_run_state().as_str()
}

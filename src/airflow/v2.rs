//! Requests of API v2, which Airflow 3 speaks.
//!
//! Unknown keys in a body are refused (422), unknown parameters of a list are ignored. `logical_date`
//! must be in the body of a new DAG run, and null is a value for it. Measured on Airflow 3.3.2.

use reqwest::Method;

use super::client::Call;
use super::{RunQuery, Submission, v1};

/// The path under which the API lives.
pub(super) const ROOT: [&str; 2] = ["api", "v2"];

/// The body that asks for a DAG run.
pub(super) fn trigger_body(submission: &Submission<'_>) -> Vec<u8> {
    // Without a logical date, Airflow ignores the data interval.
    v1::run_body(submission, submission.logical_date.is_none().then_some("null"))
}

/// One page of DAG runs, in the order of their creation.
pub(super) fn list_runs(query: &RunQuery, limit: u32, offset: u64) -> Call {
    // There is no filter for several DAGs; the caller looks at what it gets.
    let dag_id = match query.dag_ids.as_slice() {
        [dag_id] => dag_id,
        _ => "~",
    };
    let mut call = Call::new(Method::GET, ["dags", dag_id, "dagRuns"]).page(limit, offset).query("order_by", "id");
    for state in &query.states {
        call = call.query("state", v1::state(*state));
    }
    if let Some(since) = query.updated_since {
        call = call.query("updated_at_gte", since);
    }
    if let Some(date) = query.logical_date {
        call = call.query("logical_date_gte", date).query("logical_date_lte", date);
    }
    if let Some(prefix) = &query.run_id_prefix {
        call = call.query("run_id_prefix_pattern", prefix);
    }
    call
}

/// One page of DAGs. `among` narrows it to ids that begin with one of these (Airflow 3.3).
pub(super) fn list_dags(among: &[String], limit: u32, offset: u64) -> Call {
    let call = Call::new(Method::GET, ["dags"]).page(limit, offset).query("order_by", "dag_id");
    if among.is_empty() { call } else { call.query("dag_id_prefix_pattern", among.join("|")) }
}

/// Writes a note on a DAG run.
pub(super) fn set_note(dag_id: &str, dag_run_id: &str) -> Call {
    Call::new(Method::PATCH, ["dags", dag_id, "dagRuns", dag_run_id])
}

/// Airflow's health; asks for no login.
pub(super) fn health() -> Call {
    Call::new(Method::GET, ["monitor", "health"]).anonymous()
}

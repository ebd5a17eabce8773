//! Every DAG run that `monitor` follows, whoever triggered it.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Parameters, page_limit, states, time};
use super::problem::Problem;
use crate::store::model::{DagRun, DagRunFilter, Page};

/// Which DAG runs a list shows. All conditions hold together.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DagRunsQuery {
    /// In this Airflow.
    airflow: Option<String>,
    /// Of this DAG.
    dag: Option<String>,
    /// In one of these states, separated by commas.
    state: Option<String>,
    /// First seen at this time or later (RFC 3339).
    since: Option<String>,
    /// First seen before this time (RFC 3339).
    until: Option<String>,
    /// Rows in a page, 1 to 1000 (default 100).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Monitored DAG runs, newest first by when they were first seen
#[utoipa::path(get, path = "/api/v1/dag-runs", tag = "dag-runs", params(DagRunsQuery), responses(
    (status = OK, body = Page<DagRun>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<DagRunsQuery>,
) -> Result<Json<Page<DagRun>>, Problem> {
    let filter = DagRunFilter {
        states: states(query.state.as_deref())?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        airflow: query.airflow,
        dag_id: query.dag,
    };
    let limit = page_limit(query.limit, 100)?;
    Ok(Json(api.ledger.dag_runs(&filter, limit, query.cursor.as_deref()).await?))
}

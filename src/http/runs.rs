//! Runs: history, one run in full, and what operators do with it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Name, Parameters, page_limit, states, time};
use super::problem::{Problem, ProblemKind};
use super::schedules::ReasonBody;
use crate::overview::told_of_its_airflow;
use crate::store::model::{Page, Run, RunFilter};

/// Which runs a list shows. All conditions hold together.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsQuery {
    /// Of this schedule.
    schedule: Option<String>,
    /// Of this DAG.
    dag: Option<String>,
    /// In one of these states, separated by commas.
    state: Option<String>,
    /// Of this owner.
    owner: Option<String>,
    /// Due at this time or later (RFC 3339).
    since: Option<String>,
    /// Due before this time (RFC 3339).
    until: Option<String>,
    /// Rows in a page, 1 to 1000 (default 100).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Runs, newest first; without their attempts and timeline
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(RunsQuery), responses(
    (status = OK, body = Page<Run>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<RunsQuery>,
) -> Result<Json<Page<Run>>, Problem> {
    let filter = RunFilter {
        states: states(query.state.as_deref())?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        schedule: query.schedule,
        dag_id: query.dag,
        owner: query.owner,
    };
    let limit = page_limit(query.limit, 100)?;
    let Page { items, next_cursor } = api.ledger.runs(&filter, limit, query.cursor.as_deref()).await?;
    let config = api.config.borrow().clone();
    let items = items.into_iter().map(|run| told_of_its_airflow(run, &config)).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// One run, by its number or its `dag_run_id`, with its attempts and timeline
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path)), responses(
    (status = OK, body = Run), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Api>, Name(id): Name) -> Result<Json<Run>, Problem> {
    match api.ledger.run(&id).await? {
        Some(run) => Ok(Json(told_of_its_airflow(run, &api.config.borrow()))),
        None => Err(Problem::new(ProblemKind::NotFound, format!("failed to find the run `{id}`: the ledger has none"))
            .hint("an id is a run's number or its `dag_run_id`; retention may have removed it")),
    }
}

/// Run it again: failed ones are cleared in Airflow, those that never ran become pending
#[utoipa::path(post, path = "/api/v1/runs/{id}/retry", tag = "runs", params(("id" = String, Path)),
    request_body = ReasonBody, responses(
    (status = ACCEPTED, body = Run), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Name(id): Name,
    Body(body): Body<ReasonBody>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(api.operations.retry(&id, caller.order(body.reason)).await?)))
}

/// End it: pending ones are skipped, queued and running ones are set failed in Airflow
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)),
    request_body = ReasonBody, responses(
    (status = ACCEPTED, body = Run), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Name(id): Name,
    Body(body): Body<ReasonBody>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(api.operations.cancel(&id, caller.order(body.reason)).await?)))
}

//! What adds up: statistics over runs, and what operators did.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Parameters, page_limit, time};
use super::problem::Problem;
use crate::store::model::{AuditEntry, Page, Stats, StatsBy};

/// What is counted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatsQuery {
    /// What to group by (default `schedule`).
    #[param(inline)]
    by: Option<StatsBy>,
    /// Runs due at this time or later (RFC 3339).
    since: Option<String>,
}

/// Counts, success rate and percentiles of each group
#[utoipa::path(get, path = "/api/v1/stats", tag = "history", params(StatsQuery), responses(
    (status = OK, body = Page<Stats>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn stats(
    State(api): State<Api>,
    Parameters(query): Parameters<StatsQuery>,
) -> Result<Json<Page<Stats>>, Problem> {
    let since = time("since", query.since.as_deref())?;
    let items = api.ledger.stats(query.by.unwrap_or(StatsBy::Schedule), since).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

/// Which part of the audit a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Rows in a page, 1 to 1000 (default 100).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Who did what, newest first
#[utoipa::path(get, path = "/api/v1/audit", tag = "history", params(AuditQuery), responses(
    (status = OK, body = Page<AuditEntry>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn audit(
    State(api): State<Api>,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let limit = page_limit(query.limit, 100)?;
    Ok(Json(api.ledger.audit(limit, query.cursor.as_deref()).await?))
}

//! What machines ask: is it alive, can it work, how is it doing.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::{Problem, ProblemKind};
use crate::metrics::ensembles;

/// The member is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `ok`.
    status: &'static str,
    /// The version of flowkeeper.
    version: &'static str,
}

/// The member can work.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always `ready`.
    status: &'static str,
    /// Whether this member schedules; a standby is ready as well.
    leader: bool,
}

/// Whether the process answers at all
#[utoipa::path(get, path = "/healthz", tag = "probes", responses((status = OK, body = Alive)))]
pub(super) async fn healthz() -> Json<Alive> {
    Json(Alive { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether the store is reachable and the member has started
#[utoipa::path(get, path = "/readyz", tag = "probes", responses(
    (status = OK, body = Ready),
    (status = SERVICE_UNAVAILABLE, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Json<Ready>, Problem> {
    if !api.status.is_started() {
        return Err(Problem::new(ProblemKind::Unavailable, "this member is still starting").hint("ask again"));
    }
    api.ledger.ping().await.map_err(|error| {
        Problem::new(ProblemKind::Unavailable, format!("failed to {error}")).hint("check the disk and `[store] url`")
    })?;
    Ok(Json(Ready { status: "ready", leader: api.status.is_leading() }))
}

/// Metrics in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", tag = "probes", responses(
    (status = OK, body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let inspections = api.inspections.borrow().clone();
    let reports: Vec<_> = inspections.values().map(|seen| (&seen.report, seen.began)).collect();
    let text = api.metrics.render() + &ensembles::render(&reports, api.clock.now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

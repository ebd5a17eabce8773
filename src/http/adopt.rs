//! Ensembles that were rebuilt and ledgers that were restored: what there is to decide, and deciding it.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::extract::Body;
use super::problem::Problem;
use crate::domain::lineage::Adopt;
use crate::operations::adopt::{AdoptionReport, LineageOverview};
use crate::store::model::Page;

/// How the ledger and each watched ensemble stand to each other; two histories wait for a decision
#[utoipa::path(get, path = "/api/v1/adopt", tag = "adopt", responses(
    (status = OK, body = Page<LineageOverview>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Api>) -> Json<Page<LineageOverview>> {
    Json(Page { items: api.operations.lineages(), next_cursor: None })
}

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptBody {
    /// Whether the znodes that exist come due, or are taken as handled.
    decision: Adopt,
    /// Name of the ensemble; none is the home ensemble.
    ensemble: Option<String>,
    /// Why, for the audit.
    reason: Option<String>,
}

/// Take up an ensemble that was rebuilt, or go on with a ledger that was restored
#[utoipa::path(post, path = "/api/v1/adopt", tag = "adopt", request_body = AdoptBody, responses(
    (status = OK, body = AdoptionReport),
    (status = CONFLICT, body = Problem, content_type = "application/problem+json", description = "There is nothing to adopt"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn adopt(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<AdoptBody>,
) -> Result<Json<AdoptionReport>, Problem> {
    let order = caller.order(body.reason);
    Ok(Json(api.operations.adopt(body.ensemble.as_deref(), body.decision, order).await?))
}

//! Syncs: how they stand, and having one compare now.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Name};
use super::problem::Problem;
use crate::store::model::Page;
use crate::sync::pass::Options;
use crate::sync::report::{PassReport, SyncOverview};

/// All syncs, by name, and how the last comparison of each ended
#[utoipa::path(get, path = "/api/v1/sync", tag = "sync", responses(
    (status = OK, body = Page<SyncOverview>), (status = "5XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Page<SyncOverview>>, Problem> {
    let config = api.config.borrow().clone();
    let passes = api.ledger.sync_passes().await?;
    let mut items: Vec<SyncOverview> = config
        .syncs
        .iter()
        .map(|sync| SyncOverview::of(sync, passes.iter().find(|pass| pass.sync == *sync.name)))
        .collect();
    items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Page { items, next_cursor: None }))
}

/// What a sync is to do now.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyBody {
    /// Change nothing, and tell what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Delete everything that vanished from ZooKeeper, also when nothing is left there.
    #[serde(default)]
    prune: bool,
    /// Undo changes that were made in Airflow.
    #[serde(default)]
    repair: bool,
    /// Why, for the audit.
    reason: Option<String>,
}

/// Compare a sync now, and bring Airflow into step
///
/// What could not be done is told by `error`; the rest of the answer is then what is known.
#[utoipa::path(post, path = "/api/v1/sync/{name}/apply", tag = "sync", params(("name" = String, Path)),
    request_body = ApplyBody, responses(
    (status = OK, body = PassReport), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn apply(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(body): Body<ApplyBody>,
) -> Result<Json<PassReport>, Problem> {
    let options = Options { dry_run: body.dry_run, prune: body.prune, repair: body.repair };
    let config = api.config.borrow().clone();
    Ok(Json(api.operations.apply_sync(&config, &name, options, caller.order(body.reason)).await?))
}

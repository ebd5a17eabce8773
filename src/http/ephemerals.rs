//! Who owns the ephemeral znodes of an ensemble.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Name;
use super::problem::{Problem, ProblemKind};
use crate::health::Owners;

/// The sessions that own ephemeral znodes, whether they live and who is connected, asked of the servers now
///
/// A session that is neither alive nor connected is gone, and its znodes are left over: unless it was
/// met while it began or ended, so look twice. `null` is what no server could tell.
#[utoipa::path(get, path = "/api/v1/ensembles/{name}/ephemerals", tag = "ensembles",
    params(("name" = String, Path, description = "A name of `GET /api/v1/ensembles`; the home ensemble is `home` as well")),
    responses((status = OK, body = Owners), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(State(api): State<Api>, Name(name): Name<String>) -> Result<Json<Owners>, Problem> {
    let ensemble = api
        .config
        .borrow()
        .ensemble_to_check(Some(&name))
        .map_err(|error| Problem::new(ProblemKind::NotFound, format!("failed to {error}")).hint(error.hint()))?;
    let refused = |reason: String| {
        Problem::new(ProblemKind::Unavailable, format!("failed to ask the servers of `{}`: {reason}", ensemble.name))
            .hint("correct it in the configuration of this member, or ask another one")
    };
    let inspector = Arc::clone(&api.inspector.borrow());
    match inspector.owners_of_ephemerals(&ensemble.name, &api.clock).await {
        Some(owners) => owners.map(Json).map_err(refused),
        None => Err(refused("this member has not been told of it yet".to_owned())),
    }
}

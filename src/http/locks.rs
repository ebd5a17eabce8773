//! Locks: who holds them, and who waits.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::problem::{Problem, ProblemKind};
use crate::locks::listing::{self, ListError, LockEntry};
use crate::store::model::Page;

/// Everybody in the queues for the locks under the root, by lock; the first in a queue holds the lock
#[utoipa::path(get, path = "/api/v1/locks", tag = "locks", responses(
    (status = OK, body = Page<LockEntry>), (status = "5XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Page<LockEntry>>, Problem> {
    let Some((ensemble, root)) = &api.home else { return Ok(Json(Page { items: Vec::new(), next_cursor: None })) };
    let away = |reason: String| {
        Problem::new(ProblemKind::Unavailable, format!("failed to read the locks in ZooKeeper: {reason}"))
            .hint("is ZooKeeper running, and can this member reach it?")
    };
    let session = ensemble.session().ok_or_else(|| away("there is no session".to_owned()))?;
    match listing::list(&session, root, Some(&api.ledger)).await {
        Ok(items) => Ok(Json(Page { items, next_cursor: None })),
        Err(ListError::ZooKeeper(error)) => Err(away(error.to_string())),
        Err(ListError::Store(error)) => Err(error.into()),
    }
}

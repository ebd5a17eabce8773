//! The definitions of this member: which are in force, which are refused, and reading them again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::access::Caller;
use super::extract::Body;
use super::problem::{Problem, ProblemKind};
use super::schedules::ReasonBody;
use crate::definitions::reloads::{Answer, Applied, State as Definitions};

/// The definitions of this member
#[utoipa::path(get, path = "/api/v1/config", tag = "config", responses(
    (status = OK, body = Definitions), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(api): State<Api>) -> Json<Definitions> {
    let state = Arc::clone(&api.reloads.state.borrow());
    Json((*state).clone())
}

/// Read the definitions of this member again, now
#[utoipa::path(post, path = "/api/v1/config/reload", tag = "config", request_body = ReasonBody, responses(
    (status = OK, body = Applied, description = "They are in force; nothing has changed where the version is the same"),
    (status = UNPROCESSABLE_ENTITY, body = Problem, content_type = "application/problem+json",
        description = "They are refused, with `faults`; those before stay in force"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reload(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<ReasonBody>,
) -> Result<Json<Applied>, Problem> {
    let order = caller.order(body.reason);
    let answer = api.reloads.reload().await;
    let outcome = match &answer {
        Answer::InForce(applied) => format!("from {} to {}", applied.version_before, applied.version),
        Answer::Refused(refusal) => format!("refused: {}", refusal.summary()),
        Answer::Waits(reason) => format!("waits, since {reason}"),
    };
    api.operations.audit_reload(order, outcome).await?;
    match answer {
        Answer::InForce(applied) => Ok(Json(applied)),
        Answer::Refused(refusal) => Err(Problem::new(
            ProblemKind::Unprocessable,
            format!("failed to take the definitions: {}; those before stay in force", refusal.summary()),
        )
        .hint("correct them, and reload again")
        .faults(refusal.faults.faults)),
        Answer::Waits(reason) => Err(Problem::new(
            ProblemKind::Unavailable,
            format!("failed to go over to the definitions yet, since {reason}; it is tried until it succeeds"),
        )
        .hint("`GET /api/v1/config` tells when they are in force")),
    }
}

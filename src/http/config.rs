//! The definitions of this member: which are in force, which are refused, and reading them again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::extract::Body;
use super::forward;
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
    headers: HeaderMap,
    Body(body): Body<ReasonBody>,
) -> Result<Json<Applied>, Problem> {
    let answer = api.reloads.reload().await;
    let outcome = match &answer {
        Answer::InForce(applied) => format!("from {} to {}", applied.version_before, applied.version),
        Answer::Refused(refusal) => format!("refused: {}", refusal.summary()),
        Answer::Waits(reason) => format!("waits, since {reason}"),
    };
    tracing::info!(actor = caller.actor, source = caller.source, outcome, "the definitions were read again on request");
    note_reload(&api, caller, &headers, ReloadNote { outcome, reason: body.reason }).await;
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

/// What a member tells the leader of a reload of its own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadNote {
    /// What became of it.
    outcome: String,
    /// Why it was asked for.
    reason: Option<String>,
}

/// Note in the audit that a member that stands by has read its definitions again
///
/// Members ask the leader for it, as the one who asked for the reload: only the leader writes the ledger.
#[utoipa::path(post, path = "/api/v1/config/reload/note", tag = "config", request_body = ReloadNote, responses(
    (status = OK, body = ReloadNote, description = "It is in the audit"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn note(
    State(api): State<Api>,
    caller: Caller,
    Body(note): Body<ReloadNote>,
) -> Result<Json<ReloadNote>, Problem> {
    api.operations.audit_reload(caller.order(note.reason.clone()), note.outcome.clone()).await?;
    Ok(Json(note))
}

/// Has a reload noted in the audit. It is done by then, so that a note which fails must not make it look
/// undone: the log has it in any case.
async fn note_reload(api: &Api, caller: Caller, headers: &HeaderMap, note: ReloadNote) {
    let noted = if api.operations.lead().is_some() {
        api.operations.audit_reload(caller.order(note.reason), note.outcome).await.map_err(Problem::from)
    } else {
        forward::tell_leader(api, "/api/v1/config/reload/note", caller, headers, &note).await
    };
    if let Err(problem) = noted {
        tracing::warn!(reason = problem.detail(), "the definitions were read again, and the audit has no line of it");
    }
}

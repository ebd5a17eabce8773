//! Who takes part, and who leads.

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::members::MemberList;

/// All members, the leader first; as they were last seen where the home ensemble cannot be reached
#[utoipa::path(get, path = "/api/v1/members", tag = "members", responses((status = OK, body = MemberList)))]
pub(super) async fn list(State(api): State<Api>) -> Json<MemberList> {
    Json(api.peers.sight().list(api.clock.now()))
}

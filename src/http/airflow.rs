//! Airflows and their parts.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::problem::Problem;
use crate::components::overview::{self, AirflowOverview};
use crate::store::model::Page;

/// Every Airflow of the configuration with its schedulers, triggerers and DAG processors, as it was when
/// the leader asked it last
#[utoipa::path(get, path = "/api/v1/airflow", tag = "airflow", responses(
    (status = OK, body = Page<AirflowOverview>), (status = "5XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Page<AirflowOverview>>, Problem> {
    let items = overview::read(&api.ledger, api.operations.airflows()).await?;
    Ok(Json(Page { items, next_cursor: None }))
}

//! The health of ensembles.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::Name;
use super::problem::{Problem, ProblemKind};
use crate::domain::health::{Check, Finding, Verdict};
use crate::store::model::microseconds;

/// The word that stands for every check.
const ALL: &str = "all";

/// What checks found that were run for this request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChecksRun {
    /// The ensemble's name in the configuration.
    ensemble: String,
    /// The worst of `checks`: critical before warning before unknown before ok.
    verdict: Verdict,
    /// When the inspection began, which was after the request came in.
    #[serde(serialize_with = "microseconds")]
    checked_at: Timestamp,
    /// How long the inspection took.
    took_ms: u64,
    /// What was found: one for each check and server, or one for the ensemble.
    checks: Vec<Finding>,
}

/// Runs a check now, on the member that is asked; `{check}` may be several, separated by commas, or `all`
///
/// It changes nothing, so the role `read` suffices. Requests that come while an ensemble is being
/// inspected share the next inspection: asking for each check by itself costs no more than for all.
#[utoipa::path(post, path = "/api/v1/ensembles/{name}/checks/{check}/run", tag = "ensembles",
    params(("name" = String, Path, description = "A name of `GET /api/v1/ensembles`; the home ensemble is `home` as well"),
        ("check" = String, Path, description = "A check, several separated by commas, or `all`")),
    responses((status = OK, body = ChecksRun), (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn run(
    State(api): State<Api>,
    Name((name, checks)): Name<(String, String)>,
) -> Result<Json<ChecksRun>, Problem> {
    let ensemble = api
        .config
        .borrow()
        .ensemble_to_check(Some(&name))
        .map_err(|error| Problem::new(ProblemKind::NotFound, format!("failed to {error}")).hint(error.hint()))?;
    let wanted = wanted(&checks)?;
    let refused = |reason: String| {
        Problem::new(ProblemKind::Unavailable, format!("failed to inspect the ensemble `{}`: {reason}", ensemble.name))
            .hint("correct it in the configuration of this member, or ask another one")
    };
    let inspector = Arc::clone(&api.inspector.borrow());
    let inspection = match inspector.inspect(&ensemble.name, &api.clock).await {
        Some(inspection) => inspection.map_err(refused)?,
        None => return Err(refused("this member has not been told of it yet".to_owned())),
    };
    let report = inspection.report.limited_to(&wanted);
    Ok(Json(ChecksRun {
        ensemble: report.ensemble,
        verdict: report.verdict,
        checked_at: inspection.began,
        took_ms: u64::try_from(inspection.took.as_millis()).unwrap_or(u64::MAX),
        checks: report.checks,
    }))
}

/// The checks that are meant; none stands for all.
fn wanted(text: &str) -> Result<Vec<Check>, Problem> {
    if text == ALL {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|name| {
            Check::parse(name.trim()).ok_or_else(|| {
                let known: Vec<_> = Check::all().map(Check::as_str).collect();
                Problem::new(
                    ProblemKind::NotFound,
                    format!("failed to find the check `{name}`: there is none of this name"),
                )
                .hint(format!("there are {}, and `{ALL}`", known.join(", ")))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_named_alone_together_or_all() {
        assert_eq!(wanted("quorum"), Ok(vec![Check::Quorum]));
        assert_eq!(wanted("quorum, canary"), Ok(vec![Check::Quorum, Check::Canary]));
        assert_eq!(wanted("all"), Ok(Vec::new()));
        for unknown in ["", "quorom", "quorum,", "quorum,all", "Quorum"] {
            assert!(wanted(unknown).is_err(), "{unknown}");
        }
    }
}

//! The health of ensembles: how they were when they were last looked at, and how they are now.
//!
//! What was found before is read from the ledger, so every member tells the same.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::extract::{Name, Parameters, page_limit, time};
use super::problem::{Problem, ProblemKind};
use crate::config::model::Ensemble;
use crate::domain::ensemble::Transition;
use crate::domain::health::{Check, Finding, Verdict};
use crate::ensembles::{CheckList, EnsembleDetail, EnsembleOverview};
use crate::store::model::{HealthChange, HealthFilter, Page, microseconds};

/// The word that stands for every check.
const ALL: &str = "all";

/// How many transitions an ensemble is shown with.
const RECENT_TRANSITIONS: u32 = 10;

/// How many rows a page has by itself.
const PAGE: u32 = 100;

/// Every ensemble of the configuration, with how it was when it was last looked at
#[utoipa::path(get, path = "/api/v1/ensembles", tag = "ensembles", responses(
    (status = OK, body = Page<EnsembleOverview>),
    (status = "5XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Page<EnsembleOverview>>, Problem> {
    let config = Arc::clone(&api.config.borrow());
    let states = api.ledger.ensemble_states().await?;
    let now = api.clock.now();
    let overview = |ensemble: &Ensemble| {
        let state = states.iter().find(|state| state.report.ensemble == *ensemble.name);
        EnsembleOverview::of(&config, ensemble, state, now)
    };
    let items = config.ensembles_to_check().iter().map(overview).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// An ensemble: what was found when it was last looked at, and what became of it lately
#[utoipa::path(get, path = "/api/v1/ensembles/{name}", tag = "ensembles",
    params(("name" = String, Path, description = "The name; the home ensemble is `home` as well")),
    responses((status = OK, body = EnsembleDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn one(State(api): State<Api>, Name(name): Name) -> Result<Json<EnsembleDetail>, Problem> {
    let ensemble = meant(&api, &name)?;
    let ledger = api.ledger.snapshot().await?;
    let state = ledger.ensemble_state(&ensemble.name).await?;
    let transitions = ledger.transitions(Some(&ensemble.name), RECENT_TRANSITIONS, None).await?.items;
    let overview = EnsembleOverview::of(&api.config.borrow(), &ensemble, state.as_ref(), api.clock.now());
    let checks = state.map(|state| state.report.checks).unwrap_or_default();
    Ok(Json(EnsembleDetail { overview, checks, transitions }))
}

/// Every check: what it asks, its limits for this ensemble, its remedy, and what it last found
#[utoipa::path(get, path = "/api/v1/ensembles/{name}/checks", tag = "ensembles",
    params(("name" = String, Path, description = "The name; the home ensemble is `home` as well")),
    responses((status = OK, body = CheckList), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn checks(State(api): State<Api>, Name(name): Name) -> Result<Json<CheckList>, Problem> {
    let ensemble = meant(&api, &name)?;
    let state = api.ledger.ensemble_state(&ensemble.name).await?;
    Ok(Json(CheckList::of(&ensemble, state.as_ref(), api.clock.now())))
}

/// Which changes a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// Of this check.
    check: Option<String>,
    /// On this server, `host:port` as the configuration names it.
    server: Option<String>,
    /// Seen at this time or later (RFC 3339).
    since: Option<String>,
    /// Seen before this time (RFC 3339).
    until: Option<String>,
    /// Rows in a page, 1 to 1000 (default 100).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How verdicts changed, newest first: what a check said of a server before, and from then on
#[utoipa::path(get, path = "/api/v1/ensembles/{name}/history", tag = "ensembles",
    params(("name" = String, Path, description = "The name; the home ensemble is `home` as well"), ChangesQuery),
    responses((status = OK, body = Page<HealthChange>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn history(
    State(api): State<Api>,
    Name(name): Name,
    Parameters(query): Parameters<ChangesQuery>,
) -> Result<Json<Page<HealthChange>>, Problem> {
    let ensemble = meant(&api, &name)?;
    let filter = HealthFilter {
        check: query.check.as_deref().map(one_check).transpose()?.map(|check| check.to_string()),
        server: query.server,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
    };
    let limit = page_limit(query.limit, PAGE)?;
    Ok(Json(api.ledger.health_changes(&ensemble.name, &filter, limit, query.cursor.as_deref()).await?))
}

/// Which part of a list is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Rows in a page, 1 to 1000 (default 100).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What became of an ensemble, newest first: what ensemble triggers are told
#[utoipa::path(get, path = "/api/v1/ensembles/{name}/transitions", tag = "ensembles",
    params(("name" = String, Path, description = "The name; the home ensemble is `home` as well"), PageQuery),
    responses((status = OK, body = Page<Transition>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn transitions(
    State(api): State<Api>,
    Name(name): Name,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Transition>>, Problem> {
    let ensemble = meant(&api, &name)?;
    let limit = page_limit(query.limit, PAGE)?;
    Ok(Json(api.ledger.transitions(Some(&ensemble.name), limit, query.cursor.as_deref()).await?))
}

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
    let ensemble = meant(&api, &name)?;
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

/// The ensemble of the configuration that a path names.
fn meant(api: &Api, name: &str) -> Result<Ensemble, Problem> {
    let found = api.config.borrow().ensemble_to_check(Some(name));
    found.map_err(|error| Problem::new(ProblemKind::NotFound, format!("failed to {error}")).hint(error.hint()))
}

/// The checks that are meant; none stands for all.
fn wanted(text: &str) -> Result<Vec<Check>, Problem> {
    if text == ALL { Ok(Vec::new()) } else { text.split(',').map(|name| one_check(name.trim())).collect() }
}

fn one_check(name: &str) -> Result<Check, Problem> {
    Check::parse(name).ok_or_else(|| {
        let known: Vec<_> = Check::all().map(Check::as_str).collect();
        Problem::new(ProblemKind::NotFound, format!("failed to find the check `{name}`: there is none of this name"))
            .hint(format!("there are {}", known.join(", ")))
    })
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

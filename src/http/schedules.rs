//! Schedules: how they stand, when they come due next, and what operators do with them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::Caller;
use super::extract::{Body, Name, Parameters, page_limit, time};
use super::problem::{Problem, ProblemKind};
use crate::domain::calendar::DstNote;
use crate::domain::schedule::{Schedule, Trigger};
use crate::operations::{BACKFILL_PAGE, BackfillRange, BackfillReport, find_schedule};
use crate::overview::{ScheduleOverview, overview};
use crate::store::model::{Page, Run, RunFilter, microseconds};

/// Which schedules a list shows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SchedulesQuery {
    /// Rows in a page, 1 to 1000 (default 1000).
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// All schedules, by name
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", params(SchedulesQuery), responses(
    (status = OK, body = Page<ScheduleOverview>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<SchedulesQuery>,
) -> Result<Json<Page<ScheduleOverview>>, Problem> {
    let limit = page_limit(query.limit, 1_000)? as usize;
    let mut schedules = api.schedules.borrow().to_vec();
    schedules.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let after = query.cursor.as_deref();
    let mut rest = schedules.into_iter().filter(|schedule| after.is_none_or(|after| schedule.name.as_str() > after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let next_cursor = rest.next().and(page.last()).map(|last| last.name.to_string());
    let names: Vec<_> = page.iter().map(|schedule| schedule.name.clone()).collect();
    let (states, last_runs) = {
        let ledger = api.ledger.snapshot().await?;
        (ledger.schedule_states_of(&names).await?, ledger.last_runs_of(&names).await?)
    };
    let now = api.clock.now();
    let items = page
        .iter()
        .map(|schedule| {
            let standing = api.status.standing(&schedule.name);
            overview(schedule, states.get(&schedule.name), last_runs.get(schedule.name.as_str()), standing, now)
        })
        .collect();
    Ok(Json(Page { items, next_cursor }))
}

/// One schedule
#[utoipa::path(get, path = "/api/v1/schedules/{name}", tag = "schedules", params(("name" = String, Path)), responses(
    (status = OK, body = ScheduleOverview), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Api>, Name(name): Name) -> Result<Json<ScheduleOverview>, Problem> {
    let schedule = find_schedule(&api.schedules.borrow(), &name)?;
    show(&api, &schedule).await
}

/// How many nominal times are asked for, and from where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NextQuery {
    /// How many, 1 to 1000 (default 10).
    limit: Option<u32>,
    /// Times after this one (RFC 3339; default now).
    from: Option<String>,
}

/// A nominal time to come.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NextTime {
    /// The instant.
    #[serde(serialize_with = "microseconds")]
    pub nominal_time: Timestamp,
    /// What a wall clock in the schedule's zone shows then.
    #[schema(value_type = String, example = "2026-11-22T02:30:00")]
    pub local: DateTime,
    /// `gap` or `fold`, where the zone's offset changes and that matters.
    #[schema(value_type = Option<String>)]
    pub dst: Option<DstNote>,
}

/// The next nominal times of a cron schedule
#[utoipa::path(get, path = "/api/v1/schedules/{name}/next", tag = "schedules",
    params(("name" = String, Path), NextQuery), responses(
    (status = OK, body = Page<NextTime>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn next(
    State(api): State<Api>,
    Name(name): Name,
    Parameters(query): Parameters<NextQuery>,
) -> Result<Json<Page<NextTime>>, Problem> {
    let limit = page_limit(query.limit, 10)?;
    let from = time("from", query.from.as_deref())?.unwrap_or_else(|| api.clock.now());
    let schedule = find_schedule(&api.schedules.borrow(), &name)?;
    let Trigger::Cron(cron) = &schedule.trigger else {
        return Err(Problem::new(
            ProblemKind::Unprocessable,
            format!("failed to tell the next times of `{name}`: its trigger is not cron"),
        )
        .hint(
            "a znode trigger comes due when the znode changes, an ensemble trigger when the ensemble's health does",
        ));
    };
    let items = cron
        .times_after(from)
        .take(limit as usize)
        .map(|time| NextTime { nominal_time: time.at, local: time.local, dst: time.dst })
        .collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// A run by hand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TriggerBody {
    /// The same key is the same run. Draw one before the first request, and repeat it in retries.
    key: String,
    /// The DAG run's conf, in place of the schedule's own.
    #[schema(value_type = Option<Object>)]
    conf: Option<serde_json::Map<String, serde_json::Value>>,
    /// Why, for the audit.
    reason: Option<String>,
}

/// Run the schedule's DAG now
#[utoipa::path(post, path = "/api/v1/schedules/{name}/trigger", tag = "schedules", params(("name" = String, Path)),
    request_body = TriggerBody, responses(
    (status = ACCEPTED, body = Run, description = "Recorded; repeated with the same key, the run that there is"),
    (status = CONFLICT, body = Problem, content_type = "application/problem+json", description = "The key has another conf"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn trigger(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(body): Body<TriggerBody>,
) -> Result<(StatusCode, Json<Run>), Problem> {
    let run = api.operations.trigger(&name, &body.key, body.conf, caller.order(body.reason)).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// A pause.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseBody {
    /// Why, for whoever looks at it later.
    reason: Option<String>,
    /// When it ends by itself.
    until: Option<Timestamp>,
}

/// Pause a schedule
#[utoipa::path(post, path = "/api/v1/schedules/{name}/pause", tag = "schedules", params(("name" = String, Path)),
    request_body = PauseBody, responses(
    (status = OK, body = ScheduleOverview), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(body): Body<PauseBody>,
) -> Result<Json<ScheduleOverview>, Problem> {
    let schedule = api.operations.pause(&name, body.until, caller.order(body.reason)).await?;
    show(&api, &schedule).await
}

/// Why something is done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    /// Why, for the audit.
    pub(super) reason: Option<String>,
}

/// End an operator's pause
#[utoipa::path(post, path = "/api/v1/schedules/{name}/resume", tag = "schedules", params(("name" = String, Path)),
    request_body = ReasonBody, responses(
    (status = OK, body = ScheduleOverview), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(body): Body<ReasonBody>,
) -> Result<Json<ScheduleOverview>, Problem> {
    let schedule = api.operations.resume(&name, caller.order(body.reason)).await?;
    show(&api, &schedule).await
}

/// A backfill, or the next part of one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackfillBody {
    /// The first nominal time, inclusive.
    from: Timestamp,
    /// The last, inclusive.
    to: Timestamp,
    /// Also clear failed runs in Airflow.
    #[serde(default)]
    failed: bool,
    /// Change nothing, and tell what would be done.
    #[serde(default)]
    dry_run: bool,
    /// How many nominal times to decide about in one request; the answer's `next_from` begins the rest.
    limit: Option<u32>,
    /// Why, for the audit.
    reason: Option<String>,
}

/// Run past nominal times that did not run
#[utoipa::path(post, path = "/api/v1/schedules/{name}/backfill", tag = "schedules", params(("name" = String, Path)),
    request_body = BackfillBody, responses(
    (status = OK, body = BackfillReport), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn backfill(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(body): Body<BackfillBody>,
) -> Result<Json<BackfillReport>, Problem> {
    let range = BackfillRange { from: body.from, to: body.to, failed: body.failed, dry_run: body.dry_run };
    let limit = body.limit.unwrap_or(BACKFILL_PAGE);
    Ok(Json(api.operations.backfill(&name, range, limit, caller.order(body.reason)).await?))
}

async fn show(api: &Api, schedule: &Schedule) -> Result<Json<ScheduleOverview>, Problem> {
    let own = RunFilter { schedule: Some(schedule.name.to_string()), ..RunFilter::default() };
    let ledger = api.ledger.snapshot().await?;
    let state = ledger.schedule_state(&schedule.name).await?;
    let last_run = ledger.runs(&own, 1, None).await?.items.into_iter().next();
    let standing = api.status.standing(&schedule.name);
    Ok(Json(overview(schedule, state.as_ref(), last_run.as_ref(), standing, api.clock.now())))
}

//! `schedules`, `pause`, `resume`: how schedules stand, and stopping and starting them.

use serde_json::json;

use super::arguments::{PauseArguments, ResumeArguments, SchedulesArguments};
use super::context::{Context, Zones, schedule_of};
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::show::tone;
use super::time::{Direction, show_time};
use crate::overview::{ScheduleOverview, overview};
use crate::store::model::RunFilter;

/// The fields of a schedule in CSV.
const FIELDS: [&str; 13] = [
    "name",
    "owner",
    "airflow",
    "dag_id",
    "trigger",
    "paused",
    "pause.by",
    "pause.reason",
    "pause.until",
    "armed",
    "trouble",
    "next_time",
    "last_run.state",
];

pub(super) async fn list(context: &Context, arguments: &SchedulesArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let now = context.now();
    let mut standings = context.standings(&config).await;
    let ledger = match context.ledger_if_any(&config).await? {
        Some(ledger) => Some(ledger.snapshot().await?),
        None => None,
    };
    let states = match &ledger {
        Some(ledger) => ledger.schedule_states().await?,
        None => std::collections::HashMap::new(),
    };
    if let Some(name) = &arguments.name {
        let schedule = schedule_of(&config, name.as_str())?;
        let own = RunFilter { schedule: Some(name.to_string()), ..RunFilter::default() };
        let last_run = match &ledger {
            Some(ledger) => ledger.runs(&own, 1, None).await?.items.into_iter().next(),
            None => None,
        };
        let shown = overview(
            &schedule,
            states.get(name),
            last_run.as_ref(),
            standings.remove(name.as_str()).unwrap_or_default(),
            now,
        );
        return show(context, &zones, &shown);
    }
    let last_runs = match &ledger {
        Some(ledger) => {
            let names: Vec<_> = config.schedules.iter().map(|schedule| schedule.name.clone()).collect();
            ledger.last_runs_of(&names).await?
        }
        None => std::collections::HashMap::new(),
    };
    let mut shown: Vec<_> = config
        .schedules
        .iter()
        .map(|schedule| {
            let last_run = last_runs.get(schedule.name.as_str());
            let standing = standings.remove(schedule.name.as_str()).unwrap_or_default();
            overview(schedule, states.get(&schedule.name), last_run, standing, now)
        })
        .collect();
    shown.sort_by(|a, b| a.name.cmp(&b.name));
    context.output.list(&shown, &FIELDS, || table(&shown, &zones), "the configuration has no schedules")
}

pub(super) async fn pause(context: &Context, arguments: &PauseArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let name = arguments.name.as_str();
    let until = arguments
        .until
        .as_ref()
        .map(|until| context.time("until", until, zones.of(name), Direction::Future))
        .transpose()?;
    let body = json!({ "reason": arguments.reason, "until": until });
    let shown = context
        .api(&config)?
        .post(&["schedules", name, "pause"], &body)
        .await
        .map_err(|error| error.into_error(&format!("pause `{name}`")))?;
    show(context, &zones, &shown)
}

pub(super) async fn resume(context: &Context, arguments: &ResumeArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let name = arguments.name.as_str();
    let body = json!({ "reason": arguments.reason });
    let shown = context
        .api(&config)?
        .post(&["schedules", name, "resume"], &body)
        .await
        .map_err(|error| error.into_error(&format!("resume `{name}`")))?;
    show(context, &context.zones(&config), &shown)
}

fn table(schedules: &[ScheduleOverview], zones: &Zones) -> Rows {
    let mut rows = Rows::new([
        ("NAME", Fit::Wrap),
        ("TRIGGER", Fit::Wrap),
        ("DAG", Fit::Optional),
        ("OWNER", Fit::Optional),
        ("NEXT", Fit::Whole),
        ("LAST", Fit::Wrap),
    ]);
    for schedule in schedules {
        let zone = zones.of(&schedule.name);
        let next = match (schedule.paused, schedule.next_time) {
            _ if schedule.trouble.is_some() => Cell::toned("in trouble", Tone::Bad),
            (true, None) => Cell::toned("paused", Tone::Warning),
            (true, Some(next)) => Cell::toned(format!("paused until {}", show_time(next, zone)), Tone::Warning),
            (false, Some(next)) => show_time(next, zone).into(),
            (false, None) => Cell::toned("on change", Tone::Muted),
        };
        let last = schedule.last_run.as_ref().map_or_else(Cell::default, |last| {
            Cell::toned(format!("{} {}", last.state, show_time(last.due_at, zone)), tone(last.state))
        });
        rows.push([
            schedule.name.clone().into(),
            schedule.trigger.summary().into(),
            schedule.dag_id.clone().into(),
            schedule.owner.clone().unwrap_or_default().into(),
            next,
            last,
        ]);
    }
    rows
}

fn show(context: &Context, zones: &Zones, schedule: &ScheduleOverview) -> Result<(), CommandError> {
    let zone = zones.of(&schedule.name);
    context.output.one(schedule, &FIELDS, || {
        let pause = schedule.pause.as_ref().map_or_else(Cell::default, |pause| {
            let reason = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let until = pause.until.map(|until| format!(", until {}", show_time(until, zone))).unwrap_or_default();
            Cell::toned(format!("by {}{until}{reason}", pause.by), Tone::Warning)
        });
        let last = schedule.last_run.as_ref().map_or_else(Cell::default, |last| {
            let reason = last.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let text = format!("run {}, due {}, {}{reason}", last.id, show_time(last.due_at, zone), last.state);
            Cell::toned(text, tone(last.state))
        });
        let armed = match schedule.armed {
            None => Cell::default(),
            Some(true) => Cell::toned("yes", Tone::Good),
            Some(false) => Cell::toned("no", Tone::Warning),
        };
        vec![
            ("schedule", schedule.name.clone().into()),
            ("owner", schedule.owner.clone().unwrap_or_default().into()),
            ("trigger", schedule.trigger.summary().into()),
            ("airflow", schedule.airflow.clone().into()),
            ("dag", schedule.dag_id.clone().into()),
            ("armed", armed),
            ("trouble", schedule.trouble.as_deref().map_or_else(Cell::default, |text| Cell::toned(text, Tone::Bad))),
            ("paused", pause),
            ("next", schedule.next_time.map(|next| show_time(next, zone)).unwrap_or_default().into()),
            ("last", last),
        ]
    })
}

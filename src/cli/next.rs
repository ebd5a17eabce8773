//! `next`: the nominal times to come.

use jiff::tz::TimeZone;

use super::arguments::NextArguments;
use super::context::{Context, schedule_of};
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::{Direction, show_time};
use crate::domain::calendar::{CronExpression, DstNote};
use crate::domain::schedule::{CronTrigger, Trigger};
use crate::http::schedules::NextTime;

pub(super) async fn run(context: &Context, arguments: &NextArguments) -> Result<(), CommandError> {
    let (what, trigger) = trigger(context, arguments).await?;
    let zone = context.global.timezone.clone().unwrap_or_else(|| trigger.timezone.clone());
    let from = match &arguments.from {
        None => context.now(),
        // `--from 2h` in a list of times to come can only mean that far ahead.
        Some(from) => context.time("from", from, &zone, Direction::Future)?,
    };
    let times: Vec<_> = trigger
        .times_after(from)
        .take(arguments.count as usize)
        .map(|time| NextTime { nominal_time: time.at, local: time.local, dst: time.dst })
        .collect();
    let rows = || {
        let mut rows = Rows::new([("TIME", Fit::Whole), ("UTC", Fit::Whole), ("CLOCK CHANGE", Fit::Wrap)]);
        for time in &times {
            let note = match time.dst {
                None => "",
                Some(DstNote::Gap) => "the wall time does not exist that day: moved past the gap",
                Some(DstNote::Fold) => "the wall time exists twice that day",
            };
            rows.push([
                show_time(time.nominal_time, &zone).into(),
                show_time(time.nominal_time, &TimeZone::UTC).into(),
                Cell::toned(note, Tone::Warning),
            ]);
        }
        rows
    };
    context.output.list(&times, &["nominal_time", "local", "dst"], rows, &format!("{what} never comes due"))
}

async fn trigger(context: &Context, arguments: &NextArguments) -> Result<(String, CronTrigger), CommandError> {
    if let Some(text) = &arguments.cron {
        let expression = CronExpression::parse(text).map_err(|error| {
            CommandError::usage(format!("failed to read the cron expression `{text}`: {error}")).hint(error.hint())
        })?;
        let zone = context.global.timezone.clone().unwrap_or(TimeZone::UTC);
        return Ok((format!("`{text}`"), CronTrigger::new(expression, zone)));
    }
    let config = context.config_in_force().await?;
    let name = arguments.name.as_ref().map_or("", |name| name.as_str());
    let schedule = schedule_of(&config, name)?;
    match &schedule.trigger {
        Trigger::Cron(cron) => Ok((format!("`{name}`"), cron.clone())),
        Trigger::Znode(znode) => {
            Err(CommandError::usage(format!("failed to tell the next times of `{name}`: its trigger is not cron"))
                .hint(format!("it comes due when {} changes in ZooKeeper", znode.path)))
        }
        Trigger::Ensemble(trigger) => {
            Err(CommandError::usage(format!("failed to tell the next times of `{name}`: its trigger is not cron"))
                .hint(format!("it comes due when the health of the ensemble `{}` changes", trigger.ensemble)))
        }
    }
}

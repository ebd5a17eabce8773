//! `backfill`: past nominal times, part by part, with a progress bar.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::arguments::{BackfillArguments, OutputFormat};
use super::context::Context;
use super::error::CommandError;
use super::output::{self, Cell, Fit, Rows, Tone};
use super::show::state_cell;
use super::time::{Direction, show_time};
use crate::operations::{BackfillAction, BackfillItem, BackfillReport};

pub(super) async fn run(context: &Context, arguments: &BackfillArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let name = arguments.name.as_str();
    let zone = zones.of(name);
    let mut from = context.time("from", &arguments.from, zone, Direction::Past)?;
    let asked_to = context.time("to", &arguments.to, zone, Direction::Past)?;
    let client = context.api(&config)?;
    // Draws on standard error, and only when that is a terminal.
    let progress = ProgressBar::new(0).with_style(style()).with_prefix(name.to_owned());
    let mut items: Vec<BackfillItem> = Vec::new();
    let mut counts = BTreeMap::<BackfillAction, u64>::new();
    let to = loop {
        let body = json!({
            "from": from, "to": asked_to, "failed": arguments.failed, "dry_run": arguments.dry_run,
            "reason": arguments.reason,
        });
        // Repeating a part is safe: what is done already is left.
        let part: BackfillReport =
            client.post_repeatable(&["schedules", name, "backfill"], &body).await.map_err(|error| {
                progress.abandon();
                let done = items.len();
                let error = error.into_error(&format!("backfill `{name}` from {from}"));
                if done > 0 { error.next(format!("the {done} nominal times before are done")) } else { error }
            })?;
        for item in &part.items {
            *counts.entry(item.action).or_default() += 1;
        }
        items.extend(part.items);
        progress.set_length(items.len() as u64 + part.remaining);
        progress.set_position(items.len() as u64);
        match part.next_from {
            Some(next) => from = next,
            None => break part.to,
        }
    };
    progress.finish_and_clear();
    if to < asked_to {
        eprintln!("times after {} still belong to the schedule itself and are left to it", show_time(to, zone));
    }
    if context.output.format() == OutputFormat::Table {
        if arguments.dry_run && !items.is_empty() {
            context.output.table(&table(&items, |time| show_time(time, zone)))?;
        }
        return output::line(&summary(&counts, arguments.dry_run));
    }
    context.output.list(&items, &["nominal_time", "action", "run", "state"], || Rows::new([]), "")
}

fn table(items: &[BackfillItem], show: impl Fn(jiff::Timestamp) -> String) -> Rows {
    let mut rows =
        Rows::new([("NOMINAL TIME", Fit::Whole), ("ACTION", Fit::Whole), ("RUN", Fit::Number), ("STATE", Fit::Whole)]);
    for item in items {
        let tone = if item.action == BackfillAction::Leave { Tone::Muted } else { Tone::Active };
        rows.push([
            show(item.nominal_time).into(),
            Cell::toned(item.action.as_str(), tone),
            item.run.map(|run| run.to_string()).unwrap_or_default().into(),
            item.state.map_or_else(Cell::default, |state| state_cell(state, 1)),
        ]);
    }
    rows
}

fn summary(counts: &BTreeMap<BackfillAction, u64>, dry_run: bool) -> String {
    let count = |action| counts.get(&action).copied().unwrap_or(0);
    let would = if dry_run { "would be " } else { "" };
    format!(
        "{} {would}recorded, {} {would}taken up again, {} {would}cleared in Airflow, {} {}left",
        count(BackfillAction::Record),
        count(BackfillAction::Reopen),
        count(BackfillAction::Clear),
        count(BackfillAction::Leave),
        would,
    )
}

fn style() -> ProgressStyle {
    // The template is a constant; the fallback is for the day that somebody breaks it.
    ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

//! `stats` and `audit`: what adds up, and who did what.

use super::arguments::{AuditArguments, GroupBy, StatsArguments};
use super::context::Context;
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::{show_milliseconds, show_time};
use crate::domain::run::RunState;
use crate::store::model::{Percentiles, Stats, StatsBy};

const STATS_FIELDS: [&str; 20] = [
    "group",
    "occurrences",
    "states.pending",
    "states.queued",
    "states.running",
    "states.success",
    "states.failed",
    "states.skipped",
    "states.missed",
    "states.rejected",
    "states.removed",
    "success_rate",
    "lateness_ms.p50",
    "lateness_ms.p95",
    "lateness_ms.p99",
    "lateness_ms.max",
    "duration_ms.p50",
    "duration_ms.p95",
    "duration_ms.p99",
    "duration_ms.max",
];

const AUDIT_FIELDS: [&str; 8] = ["id", "at", "actor", "source", "action", "target", "detail", "reason"];

/// How many audit rows are read at a time.
const PAGE: u32 = 500;

pub(super) async fn stats(context: &Context, arguments: &StatsArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let since = context.past("since", arguments.since.as_ref(), zones.common())?;
    let (by, heading) = match arguments.by {
        GroupBy::Schedule => (StatsBy::Schedule, "SCHEDULE"),
        GroupBy::Dag => (StatsBy::Dag, "DAG"),
        GroupBy::Owner => (StatsBy::Owner, "OWNER"),
    };
    let stats = context.ledger(&config).await?.stats(by, since).await?;
    context.output.list(&stats, &STATS_FIELDS, || table(&stats, heading), "no runs match")
}

fn table(stats: &[Stats], heading: &'static str) -> Rows {
    let mut rows = Rows::new([
        (heading, Fit::Wrap),
        ("DUE", Fit::Number),
        ("SUCCESS", Fit::Number),
        ("FAILED", Fit::Number),
        ("OPEN", Fit::Number),
        ("NOT RUN", Fit::Number),
        ("RATE", Fit::Number),
        ("LATE p50/p95/p99", Fit::Optional),
        ("TOOK p50/p95/p99", Fit::Optional),
    ]);
    for group in stats {
        let count = |states: &[RunState]| -> i64 {
            states.iter().map(|state| group.states.get(state.as_str()).copied().unwrap_or(0)).sum()
        };
        let failed = count(&[RunState::Failed]);
        let not_run = count(&[RunState::Skipped, RunState::Missed, RunState::Rejected, RunState::Removed]);
        let open = count(&[RunState::Pending, RunState::Queued, RunState::Running]);
        rows.push([
            if group.group.is_empty() { Cell::toned("(none)", Tone::Muted) } else { group.group.clone().into() },
            group.occurrences.to_string().into(),
            count(&[RunState::Success]).to_string().into(),
            Cell::toned(failed.to_string(), if failed > 0 { Tone::Bad } else { Tone::Plain }),
            open.to_string().into(),
            Cell::toned(not_run.to_string(), if not_run > 0 { Tone::Warning } else { Tone::Plain }),
            group.success_rate.map(|rate| format!("{:.1} %", rate * 100.0)).unwrap_or_default().into(),
            percentiles(&group.lateness_ms).into(),
            percentiles(&group.duration_ms).into(),
        ]);
    }
    rows
}

fn percentiles(values: &Percentiles) -> String {
    match (values.p50, values.p95, values.p99) {
        (Some(p50), Some(p95), Some(p99)) => [p50, p95, p99].map(show_milliseconds).join(" / "),
        _ => String::new(),
    }
}

pub(super) async fn audit(context: &Context, arguments: &AuditArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let ledger = context.ledger(&config).await?;
    let mut entries = Vec::new();
    let mut cursor = None;
    loop {
        let left = arguments.limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        let page = ledger.audit(left.min(PAGE), cursor.as_deref()).await?;
        entries.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() || entries.len() >= arguments.limit as usize {
            break;
        }
    }
    let rows = || {
        let mut rows = Rows::new([
            ("TIME", Fit::Whole),
            ("WHO", Fit::Wrap),
            ("FROM", Fit::Optional),
            ("ACTION", Fit::Whole),
            ("TARGET", Fit::Wrap),
            ("DETAIL", Fit::Wrap),
            ("REASON", Fit::Wrap),
        ]);
        for entry in &entries {
            rows.push([
                show_time(entry.at, zones.common()).into(),
                entry.actor.clone().into(),
                entry.source.clone().into(),
                entry.action.clone().into(),
                entry.target.clone().into(),
                entry.detail.clone().unwrap_or_default().into(),
                entry.reason.clone().unwrap_or_default().into(),
            ]);
        }
        rows
    };
    context.output.list(&entries, &AUDIT_FIELDS, rows, "nobody has done anything yet")
}

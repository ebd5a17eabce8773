//! `health --last` and `health --history`: what the leader found before, from the ledger. Asks no server,
//! so it works when nothing serves and when the ensemble is gone.

use crate::cli::arguments::HealthArguments;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::output::{Cell, Fit, Rows, Tone};
use crate::cli::time::show_time;
use crate::config::Config;
use crate::config::model::Ensemble;
use crate::domain::health::Verdict;
use crate::ensembles::KeptReport;
use crate::store::model::{HealthChange, HealthFilter};

/// The fields of a change in CSV.
const FIELDS: [&str; 9] = ["at", "ensemble", "check", "server", "before", "after", "value", "unit", "meaning"];

/// How many rows are read at a time.
const PAGE: u32 = 500;

/// The latest report of the ledger, limited to the checks that are asked for.
pub(super) async fn last(
    context: &Context,
    config: &Config,
    ensemble: &Ensemble,
    arguments: &HealthArguments,
) -> Result<KeptReport, CommandError> {
    let state = match context.ledger_if_any(config).await? {
        Some(ledger) => ledger.ensemble_state(&ensemble.name).await?,
        None => None,
    };
    let state = state.ok_or_else(|| {
        CommandError::failed(format!("failed to find a report on `{}`: no member has looked at it yet", ensemble.name))
            .hint("a member that leads looks by itself; leave `--last` out to look now")
    })?;
    let kept = KeptReport::of(ensemble, state, context.now());
    Ok(KeptReport { report: kept.report.limited_to(&arguments.checks), ..kept })
}

/// Prints how verdicts changed, the newest first.
pub(super) async fn history(
    context: &Context,
    config: &Config,
    ensemble: &Ensemble,
    arguments: &HealthArguments,
) -> Result<(), CommandError> {
    let zones = context.zones(config);
    let filter = HealthFilter {
        check: match arguments.checks.as_slice() {
            [only] => Some(only.to_string()),
            _ => None,
        },
        since: context.past("since", arguments.since.as_ref(), zones.common())?,
        ..HealthFilter::default()
    };
    let is_wanted = |change: &HealthChange| {
        arguments.checks.is_empty() || arguments.checks.iter().any(|check| check.as_str() == change.check)
    };
    let ledger = context.ledger(config).await?;
    let limit = arguments.limit as usize;
    let mut changes: Vec<HealthChange> = Vec::new();
    let mut cursor = None;
    loop {
        let page = ledger.health_changes(&ensemble.name, &filter, PAGE, cursor.as_deref()).await?;
        changes.extend(page.items.into_iter().filter(is_wanted));
        cursor = page.next_cursor;
        if cursor.is_none() || changes.len() >= limit {
            break;
        }
    }
    changes.truncate(limit);
    let rows = || {
        let mut rows = Rows::new([
            ("TIME", Fit::Whole),
            ("CHECK", Fit::Whole),
            ("SERVER", Fit::Wrap),
            ("WAS", Fit::Whole),
            ("IS", Fit::Whole),
            ("MEANING", Fit::Wrap),
        ]);
        for change in &changes {
            let verdict = |verdict: Verdict| Cell::toned(verdict.as_str(), super::tone(verdict));
            rows.push([
                show_time(change.at, zones.common()).into(),
                change.check.clone().into(),
                change.server.clone().unwrap_or_default().into(),
                change.before.map_or_else(|| Cell::toned("-", Tone::Muted), verdict),
                verdict(change.after),
                change.meaning.clone().into(),
            ]);
        }
        rows
    };
    context.output.list(&changes, &FIELDS, rows, "nothing has changed")
}

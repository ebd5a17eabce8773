//! `adopt`: going on after ZooKeeper was rebuilt or the ledger restored.

use serde_json::json;

use super::arguments::AdoptArguments;
use super::context::Context;
use super::error::CommandError;
use super::output::{Cell, Tone};
use crate::domain::lineage::Adopt;
use crate::operations::adopt::AdoptionReport;

/// The fields of an adoption in CSV.
const FIELDS: [&str; 5] = ["ensemble", "cause", "decision", "generation", "cursors_kept"];

pub(super) async fn run(context: &Context, arguments: &AdoptArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    let decision = if arguments.fire { Adopt::Fire } else { Adopt::Ignore };
    let body = json!({ "decision": decision, "ensemble": arguments.ensemble, "reason": arguments.reason });
    let report: AdoptionReport =
        context.api(&config)?.post(&["adopt"], &body).await.map_err(|error| error.into_error("adopt"))?;
    context.output.one(&report, &FIELDS, || properties(&report))?;
    if !report.left.is_empty() {
        eprintln!(
            "children that wait under {} were taken as handled: they stay where they are until somebody deletes them",
            report.left.join(", ")
        );
    }
    if !report.regrouped.is_empty() {
        eprintln!(
            "{}: batches are gathered anew, so changes that had run in another grouping may run again",
            report.regrouped.join(", ")
        );
    }
    Ok(())
}

fn properties(report: &AdoptionReport) -> Vec<(&'static str, Cell)> {
    let decision = match (report.decision, report.cursors_kept) {
        (Adopt::Fire, true) => "what changed since the ledger was copied comes due",
        (Adopt::Fire, false) => "the znodes that exist come due",
        (Adopt::Ignore, _) => "the znodes that exist are taken as handled",
    };
    vec![
        ("ensemble", report.ensemble.clone().unwrap_or_else(|| "home".to_owned()).into()),
        ("found", report.cause.clone().into()),
        ("decision", Cell::toned(decision, Tone::Good)),
        ("generation", report.generation.to_string().into()),
        ("schedules", report.schedules.join(", ").into()),
    ]
}

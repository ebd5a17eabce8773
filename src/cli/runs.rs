//! `runs`: history, one run in full, following what happens, and retrying or cancelling.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::arguments::{OutputFormat, RunActionArguments, RunsAction, RunsArguments, RunsFilterArguments};
use super::context::{Context, Zones};
use super::error::CommandError;
use super::output::{self, github_is_for_check, printable};
use super::show::{RUN_FIELDS, run_properties, run_rows};
use super::time::show_time;
use crate::domain::run::{RunId, RunState};
use crate::overview::told_of_its_airflow;
use crate::store::Ledger;
use crate::store::model::{Run, RunFilter};

/// How many runs are listed unless told otherwise.
const DEFAULT_LIMIT: u32 = 50;

/// How many rows are read at a time.
const PAGE: u32 = 500;

/// How often `--follow` looks.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// How many of the newest runs `--follow` compares, beside those that it knows to be open.
const FOLLOW_WINDOW: u32 = 200;

pub(super) async fn run(context: &Context, arguments: &RunsArguments) -> Result<(), CommandError> {
    match (&arguments.action, &arguments.id) {
        (Some(RunsAction::Retry(which)), _) => act(context, "retry", which).await,
        (Some(RunsAction::Cancel(which)), _) => act(context, "cancel", which).await,
        (None, Some(id)) => one(context, id).await,
        (None, None) => list(context, &arguments.filter).await,
    }
}

async fn one(context: &Context, id: &str) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let run = context.ledger(&config).await?.run(id).await?;
    let run = run.map(|run| told_of_its_airflow(run, &config)).ok_or_else(|| {
        CommandError::failed(format!("failed to find the run `{id}`: the ledger has none"))
            .hint("an id is a number or a `dag_run_id`; `flowkeeper runs` lists them")
    })?;
    context.output.one(&run, &RUN_FIELDS, || run_properties(&run, zones.of(&run.schedule)))
}

async fn act(context: &Context, action: &str, which: &RunActionArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let body = json!({ "reason": which.reason });
    let run: Run = context
        .api(&config)?
        .post(&["runs", &which.id, action], &body)
        .await
        .map_err(|error| error.into_error(&format!("{action} run `{}`", which.id)))?;
    context.output.one(&run, &RUN_FIELDS, || run_properties(&run, zones.of(&run.schedule)))?;
    if run.state == RunState::Failed || matches!(run.state, RunState::Queued | RunState::Running) && action == "cancel"
    {
        eprintln!("Airflow was told; the run follows as soon as Airflow shows it");
    }
    Ok(())
}

async fn list(context: &Context, arguments: &RunsFilterArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let zone = arguments.schedule.as_deref().map_or_else(|| zones.common(), |schedule| zones.of(schedule));
    let filter = RunFilter {
        schedule: arguments.schedule.clone(),
        dag_id: arguments.dag.clone(),
        states: arguments.state.clone(),
        owner: arguments.owner.clone(),
        since: context.past("since", arguments.since.as_ref(), zone)?,
        until: context.past("until", arguments.until.as_ref(), zone)?,
    };
    let ledger = context.ledger(&config).await?;
    if arguments.follow {
        return follow(context, &ledger, &filter, &zones, arguments.limit.unwrap_or(10)).await;
    }
    let runs = newest(&ledger, &filter, arguments.limit.unwrap_or(DEFAULT_LIMIT)).await?;
    let runs: Vec<Run> = runs.into_iter().map(|run| told_of_its_airflow(run, &config)).collect();
    context.output.list(&runs, &RUN_FIELDS, || run_rows(&runs, &zones), "no runs match")
}

/// The newest `limit` runs, page by page.
async fn newest(ledger: &Ledger, filter: &RunFilter, limit: u32) -> Result<Vec<Run>, CommandError> {
    let mut runs = Vec::new();
    let mut cursor = None;
    loop {
        let left = limit.saturating_sub(u32::try_from(runs.len()).unwrap_or(u32::MAX));
        let page = ledger.runs(filter, left.min(PAGE), cursor.as_deref()).await?;
        runs.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() || runs.len() >= limit as usize {
            return Ok(runs);
        }
    }
}

/// Prints the newest runs, then each change until interrupted. Reads the ledger, so it also works
/// beside a member that restarts.
async fn follow(
    context: &Context,
    ledger: &Ledger,
    filter: &RunFilter,
    zones: &Zones,
    first: u32,
) -> Result<(), CommandError> {
    if context.output.format() == OutputFormat::Github {
        return Err(github_is_for_check());
    }
    if context.output.format() == OutputFormat::Csv {
        output::csv_header(&RUN_FIELDS)?;
    }
    let mut shown: HashMap<RunId, (RunState, i64)> = HashMap::new();
    let begin = ledger.runs(filter, FOLLOW_WINDOW, None).await?.items;
    for (index, run) in begin.iter().enumerate().rev() {
        if index < first as usize {
            tell(context, run, zones)?;
        }
        shown.insert(run.id, (run.state, run.reopened));
    }
    // A run that moves out of the states asked for is still told once: that is its news.
    let watched = RunFilter { states: Vec::new(), ..filter.clone() };
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
        }
        let mut seen = ledger.runs(&watched, FOLLOW_WINDOW, None).await?.items;
        let known: Vec<RunId> = seen.iter().map(|run| run.id).collect();
        let open = shown.iter().filter(|(id, (state, _))| state.is_open() && !known.contains(id));
        let older: Vec<RunId> = open.map(|(id, _)| *id).collect();
        for id in older {
            seen.extend(ledger.run(&id.to_string()).await?);
        }
        for run in seen.iter().rev() {
            let asked_for = filter.states.is_empty() || filter.states.contains(&run.state);
            let before = shown.get(&run.id).copied();
            if before != Some((run.state, run.reopened)) && (asked_for || before.is_some()) {
                tell(context, run, zones)?;
                shown.insert(run.id, (run.state, run.reopened));
            }
        }
        // What has left the window and is over cannot change unseen for long: forget it.
        shown.retain(|id, (state, _)| state.is_open() || known.contains(id));
    }
}

fn tell(context: &Context, run: &Run, zones: &Zones) -> Result<(), CommandError> {
    match context.output.format() {
        OutputFormat::Json => output::json_line(run),
        OutputFormat::Csv => output::csv_line(run, &RUN_FIELDS),
        OutputFormat::Table | OutputFormat::Github => {
            let due = show_time(run.due_at, zones.of(&run.schedule));
            let state = context.output.paint(&format!("{:<8}", run.state.as_str()), super::show::tone(run.state));
            let reason = run.reason.as_ref().map(|reason| format!("  {}", printable(reason)));
            let reason = reason.unwrap_or_default();
            output::line(&format!("{:>8}  {due}  {state}  {}{reason}", run.id.0, run.schedule))
        }
    }
}

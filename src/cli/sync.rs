//! `sync`: how Airflow differs from what znodes want, and bringing it into step.
//!
//! `diff` looks by itself, so it works when nothing serves; `apply` asks the member that leads, so that
//! there is one place where Airflow is changed and audited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::arguments::{SyncApplyArguments, SyncCommand, SyncDiffArguments};
use super::context::Context;
use super::error::{CommandError, Exit};
use super::output::{Cell, Fit, Rows, Tone};
use crate::app::connect::{self, Visit};
use crate::config::Config;
use crate::domain::sync::definition::SyncDefinition;
use crate::store::Ledger;
use crate::sync::key;
use crate::sync::pass::{Options, Parties, PassError, look};
use crate::sync::report::{self, PassReport, SyncItem};

/// How long an ensemble may take to open a session.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Something differs. As with `diff`, that is no failure, and yet not nothing.
const DIFFERENT: Exit = Exit::Of(1);

const FIELDS: [&str; 6] = ["sync", "airflow", "to", "key", "step", "detail"];

/// A line of the answer.
#[derive(Debug, Serialize)]
struct Line<'a> {
    sync: &'a str,
    airflow: &'a str,
    to: &'static str,
    #[serde(flatten)]
    item: &'a SyncItem,
}

pub(super) async fn run(context: &Context, command: &SyncCommand) -> Result<(), CommandError> {
    match command {
        SyncCommand::Diff(arguments) => diff(context, arguments).await,
        SyncCommand::Apply(arguments) => apply(context, arguments).await,
    }
}

async fn diff(context: &Context, arguments: &SyncDiffArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let syncs = chosen(&config, arguments.name.as_deref())?;
    let ledger = context.ledger_if_any(&config).await?;
    let mut reports = Vec::new();
    for sync in syncs {
        reports.push((Arc::clone(&sync), compare(context, &config, &sync, ledger.as_ref()).await?));
    }
    show(context, &reports)?;
    let is_different = reports.iter().any(|(_, report)| report.differences() > 0 || report.guard.is_some());
    if is_different { Err(CommandError::shown(DIFFERENT)) } else { Ok(()) }
}

async fn compare(
    context: &Context,
    config: &Config,
    sync: &SyncDefinition,
    ledger: Option<&Ledger>,
) -> Result<PassReport, CommandError> {
    let home = visit(context, config, None).await?;
    let root = config.zookeeper.as_ref().map_or("", |home| home.root.as_str());
    let digests = match key::find(&home.session, root).await {
        Ok(digests) => digests.unwrap_or_else(key::throwaway),
        Err(error) => return Err(unreachable(&PassError::Key(error))),
    };
    let other = match &sync.ensemble {
        Some(_) => Some(visit(context, config, sync.ensemble.as_ref()).await?),
        None => None,
    };
    let settings = config.airflows.get(&sync.airflow).ok_or_else(|| {
        CommandError::usage(format!("failed to compare {}: there is no [airflow.{}]", sync.name, sync.airflow))
    })?;
    let airflow = connect::airflow(settings, &context.environment, context.clock.clone())
        .map_err(|error| CommandError::usage(format!("failed to {error}")))?;
    let configured = config.syncs_beside(sync);
    let last = match ledger {
        Some(ledger) => report::last(ledger, &sync.name).await?,
        None => None,
    };
    let parties = Parties {
        definition: sync,
        configured: &configured,
        session: &other.as_ref().unwrap_or(&home).session,
        digests: &digests,
        airflow: &airflow,
        ledger,
        incarnation: last.as_ref().and_then(|last| last.incarnation.as_deref()),
        // Whoever leads knows more, and says so in the report.
        is_proven: true,
        still_missing: &BTreeSet::new(),
        resting: &BTreeMap::new(),
    };
    let look = look(parties, Options { dry_run: true, ..Options::default() }).await;
    look.map(|look| look.report()).map_err(|error| unreachable(&error))
}

async fn visit(context: &Context, config: &Config, ensemble: Option<&Arc<str>>) -> Result<Visit, CommandError> {
    let label = ensemble.map_or("home", |name| name);
    let connection = config.connection(ensemble.map(|name| &**name)).ok_or_else(|| {
        CommandError::usage(format!("failed to compare a sync: the configuration has no ensemble {label}"))
    })?;
    let key = ensemble.map_or_else(|| "zookeeper".to_owned(), |name| format!("ensemble.{name}"));
    let settings = connect::zookeeper(connection.clone(), Arc::new(context.environment.clone()), key)
        .map_err(|error| CommandError::usage(format!("failed to {error}")))?;
    connect::visit(ensemble.cloned(), settings, context.clock.clone(), ZOOKEEPER_PATIENCE).await.map_err(|reason| {
        CommandError::unreachable(format!("failed to read the znodes of syncs in the ensemble {label}: {reason}"))
            .hint("is ZooKeeper running, and can this host reach it?")
    })
}

/// Nothing could be compared. With exit code 1 it would look like a difference.
fn unreachable(error: &PassError) -> CommandError {
    let told = CommandError::unreachable(format!("failed to {error}"));
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

async fn apply(context: &Context, arguments: &SyncApplyArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let api = context.api(&config)?;
    let body = json!({
        "dry_run": arguments.dry_run, "prune": arguments.prune, "repair": arguments.repair, "reason": arguments.reason,
    });
    let mut reports = Vec::new();
    for sync in chosen(&config, arguments.name.as_deref())? {
        // What was done is found in step when it is done again.
        let path = ["sync", &*sync.name, "apply"];
        let report: PassReport = api
            .post_repeatable(&path, &body)
            .await
            .map_err(|error| error.into_error(&format!("bring the sync {} into step", sync.name)))?;
        reports.push((sync, report));
    }
    show(context, &reports)?;
    for (sync, report) in &reports {
        let written: Vec<String> = report.written.iter().map(|(word, count)| format!("{count} {word}")).collect();
        if !written.is_empty() {
            eprintln!("{}: {}", sync.name, written.join(", "));
        }
    }
    let failed: Vec<_> =
        reports.iter().filter_map(|(sync, report)| Some((sync, report.error.as_ref()?, report))).collect();
    match failed.first() {
        None => Ok(()),
        Some((sync, error, report)) => {
            let told = CommandError::failed(format!("failed to bring the sync {} into step: {error}", sync.name))
                .next("what is not done is tried again by itself");
            Err(match &report.hint {
                Some(hint) => told.hint(hint.clone()),
                None => told,
            })
        }
    }
}

/// The sync of this name, or all of them.
fn chosen(config: &Config, name: Option<&str>) -> Result<Vec<Arc<SyncDefinition>>, CommandError> {
    let Some(name) = name else {
        if config.syncs.is_empty() {
            return Err(CommandError::usage("failed to compare syncs: the configuration has none")
                .hint("add a [[sync]]; docs/sync.md tells how"));
        }
        return Ok(config.syncs.clone());
    };
    let known: Vec<&str> = config.syncs.iter().map(|sync| &*sync.name).collect();
    config.sync(name).map(|sync| vec![Arc::clone(sync)]).ok_or_else(|| {
        CommandError::usage(format!("failed to find the sync `{name}`: the configuration has none of that name"))
            .hint(format!("there are {}", known.join(", ")))
    })
}

fn show(context: &Context, reports: &[(Arc<SyncDefinition>, PassReport)]) -> Result<(), CommandError> {
    let is_known = reports.iter().all(|(_, report)| report.error.is_none() && report.guard.is_none());
    let nothing = if is_known { "everything is in step" } else { "nothing is known to differ" };
    let lines: Vec<Line<'_>> = reports
        .iter()
        .flat_map(|(sync, report)| {
            report.items.iter().map(|item| Line {
                sync: &sync.name,
                airflow: &sync.airflow,
                to: sync.kind.as_str(),
                item,
            })
        })
        .collect();
    let rows = || {
        let mut rows = Rows::new([
            ("SYNC", Fit::Wrap),
            ("AIRFLOW", Fit::Optional),
            ("TO", Fit::Optional),
            ("KEY", Fit::Wrap),
            ("STEP", Fit::Whole),
            ("DETAIL", Fit::Wrap),
        ]);
        for line in &lines {
            let tone = match line.item.step.as_str() {
                "create" | "update" | "delete" => Tone::Active,
                "drift" | "conflict" | "fault" => Tone::Bad,
                _ => Tone::Muted,
            };
            rows.push([
                line.sync.into(),
                line.airflow.into(),
                line.to.into(),
                line.item.key.clone().into(),
                Cell::toned(line.item.step.clone(), tone),
                line.item.detail.clone().unwrap_or_default().into(),
            ]);
        }
        rows
    };
    context.output.list(&lines, &FIELDS, rows, nothing)?;
    for (sync, report) in reports {
        if let Some(guard) = &report.guard {
            eprintln!("{}: {guard}", sync.name);
        }
        if report.omitted > 0 {
            eprintln!("{}: and {} more keys", sync.name, report.omitted);
        }
    }
    Ok(())
}

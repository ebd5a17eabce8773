//! `why`: gathers what is known around a time, and prints the explanation.

use jiff::SignedDuration;

use super::arguments::{OutputFormat, WhyArguments};
use super::context::{Context, schedule_of};
use super::error::CommandError;
use super::output::{self, github_is_for_check, printable};
use super::time::show_time;
use crate::domain::schedule::Trigger;
use crate::overview::told_of_its_airflow;
use crate::store::model::RunFilter;
use crate::why::{Facts, around, explain};

/// How many runs are told before the time.
const RUNS_BEFORE: u32 = 5;

/// How many runs are told after it.
const RUNS_AFTER: usize = 5;

/// How far after the time runs are looked for.
const AFTER: SignedDuration = SignedDuration::from_hours(24);

/// How many decisions without a row are told.
const DECISIONS: usize = 5;

/// How many of them the ledger is asked for.
const DECISIONS_READ: u32 = 100;

/// How many transitions of an ensemble are told.
const TRANSITIONS: usize = 5;

/// How many of them the ledger is asked for.
const TRANSITIONS_READ: u32 = 100;

pub(super) async fn run(context: &Context, arguments: &WhyArguments) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let name = &arguments.name;
    let zone = zones.of(name.as_str());
    let schedule = schedule_of(&config, name.as_str())?;
    let now = context.now();
    let at = context.past("at", arguments.at.as_ref(), zone)?.unwrap_or(now);
    let ledger = context.ledger_if_any(&config).await?;

    let (mut state, mut nominal_rows, mut runs) = (None, Vec::new(), Vec::new());
    let (mut decisions, mut decision_counts) = (Vec::new(), Vec::new());
    let (mut ensemble, mut transitions) = (None, Vec::new());
    if let Some(ledger) = &ledger {
        let ledger = ledger.snapshot().await?;
        state = ledger.schedule_states().await?.remove(name);
        if let Trigger::Cron(cron) = &schedule.trigger {
            let (previous, next) = around(cron, at);
            nominal_rows = ledger.nominal_rows(name, previous.unwrap_or(at), next.unwrap_or(at)).await?;
        }
        if let Trigger::Ensemble(trigger) = &schedule.trigger {
            ensemble = ledger.ensemble_state(&trigger.ensemble).await?;
            transitions = ledger.transitions(Some(&trigger.ensemble), TRANSITIONS_READ, None).await?.items;
            transitions.sort_by_key(|transition| transition.at.duration_since(at).abs());
            transitions.truncate(TRANSITIONS);
            transitions.sort_by_key(|transition| transition.at);
        }
        let own = |since, until| RunFilter { schedule: Some(name.to_string()), since, until, ..RunFilter::default() };
        let later = ledger.runs(&own(Some(at), at.checked_add(AFTER).ok()), 500, None).await?.items;
        let earlier = ledger.runs(&own(None, Some(at)), RUNS_BEFORE, None).await?.items;
        let around = earlier.into_iter().rev().chain(later.into_iter().rev().take(RUNS_AFTER));
        runs = around.map(|run| told_of_its_airflow(run, &config)).collect();
        decisions = ledger.decisions(name, DECISIONS_READ).await?;
        decisions.sort_by_key(|decision| decision.at.duration_since(at).abs());
        decisions.truncate(DECISIONS);
        decisions.sort_by_key(|decision| std::cmp::Reverse(decision.at));
        decision_counts = ledger.decision_counts(name).await?;
    }
    let standing = context.standings(&config).await.remove(name.as_str()).unwrap_or_default();
    let facts = Facts {
        schedule: &schedule,
        trouble: standing.trouble.as_deref(),
        state: state.as_ref(),
        nominal_rows: &nominal_rows,
        runs: &runs,
        ensemble: ensemble.as_ref(),
        transitions: &transitions,
        decisions: &decisions,
        decision_counts: &decision_counts,
        at,
        now,
    };
    let explanation = explain(&facts, &|time| show_time(time, zone));
    match context.output.format() {
        OutputFormat::Json => output::json(&explanation),
        OutputFormat::Csv => Err(CommandError::usage("failed to print the explanation: it has no form as CSV")
            .hint("use `-o table` or `-o json`")),
        OutputFormat::Github => Err(github_is_for_check()),
        OutputFormat::Table => {
            explanation.sentences.iter().try_for_each(|sentence| context.output.paragraph(&printable(sentence)))
        }
    }
}

//! What was decided for a schedule around a time, in plain sentences.
//!
//! A pure function over what the configuration and the ledger say. It explains and never judges
//! again: policies may have been edited since, and what counts is what the ledger holds.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::ensemble::Transition;
use crate::domain::run::RunState;
use crate::domain::schedule::{CronTrigger, Schedule, Trigger};
use crate::overview::{PauseOverview, TriggerOverview, pause_in_force};
use crate::store::model::{
    DecisionEntry, EnsembleState, NominalRow, Run, ScheduleState, microseconds, optional_microseconds,
};

/// What an explanation is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The schedule, as configured now.
    pub schedule: &'a Schedule,
    /// What keeps its trigger from seeing everything, or has stopped it, as the member that serves says.
    pub trouble: Option<&'a str>,
    /// What the ledger knows of it; `None` when no member has ever served it.
    pub state: Option<&'a ScheduleState>,
    /// The rows that cover a nominal time around `at`.
    pub nominal_rows: &'a [NominalRow],
    /// Runs around `at`, oldest first.
    pub runs: &'a [Run],
    /// What is known of the ensemble that its trigger is about.
    pub ensemble: Option<&'a EnsembleState>,
    /// What became of that ensemble around `at`, oldest first.
    pub transitions: &'a [Transition],
    /// Decisions that made no row, newest first.
    pub decisions: &'a [DecisionEntry],
    /// How many decisions without a row there were in all, by kind.
    pub decision_counts: &'a [(String, i64)],
    /// The time that is asked about.
    pub at: Timestamp,
    /// The time now.
    pub now: Timestamp,
}

/// An explanation.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The schedule.
    pub schedule: String,
    /// The time that was asked about.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// The pause in force now.
    pub pause: Option<PauseOverview>,
    /// What keeps its trigger from seeing everything, or has stopped it.
    pub trouble: Option<String>,
    /// All nominal times up to here are decided.
    #[serde(serialize_with = "optional_microseconds")]
    pub cursor: Option<Timestamp>,
    /// The nominal time at or before `at`.
    #[serde(serialize_with = "optional_microseconds")]
    pub previous_time: Option<Timestamp>,
    /// The nominal time after `at`.
    #[serde(serialize_with = "optional_microseconds")]
    pub next_time: Option<Timestamp>,
    /// The same in words, one statement each.
    pub sentences: Vec<String>,
    /// Runs around `at`, oldest first.
    pub runs: Vec<Run>,
    /// Decisions that made no row, around `at`, newest first.
    pub decisions: Vec<DecisionEntry>,
}

/// Explains; `show` writes a time as the reader wants it.
pub fn explain(facts: &Facts<'_>, show: &dyn Fn(Timestamp) -> String) -> Explanation {
    let schedule = facts.schedule;
    let pause = pause_in_force(schedule, facts.state, facts.now);
    let mut sentences = vec![what_it_does(schedule)];
    sentences.push(pause_sentence(pause.as_ref(), show));
    if let Some(trouble) = facts.trouble {
        sentences.push(format!("Its trigger has stopped or does not see everything: {}.", end_trimmed(trouble)));
    }
    let (mut previous_time, mut next_time) = (None, None);
    match (&schedule.trigger, facts.state) {
        (_, None) => sentences.push("No member has served it yet, so nothing has been decided.".to_owned()),
        (Trigger::Cron(cron), Some(state)) => {
            sentences.push(format!("Nominal times up to {} have been decided.", show(state.cron_cursor)));
            (previous_time, next_time) = around(cron, facts.at);
            for time in [previous_time, next_time].into_iter().flatten() {
                sentences.push(nominal_sentence(facts, state, time, show));
            }
            if previous_time.is_none() && next_time.is_none() {
                sentences.push("It never comes due: no date matches the expression.".to_owned());
            }
        }
        (Trigger::Znode(_), Some(state)) => sentences.push(match state.znode_initialized {
            Some(zxid) => format!(
                "It watches since {}; its first look saw the znodes as of transaction 0x{zxid:x}.",
                show(state.since)
            ),
            None => "It has not looked at its znodes yet: is ZooKeeper reachable?".to_owned(),
        }),
        (Trigger::Ensemble(_), Some(state)) => {
            sentences
                .push(format!("It listens since {}; what happened before is of no concern to it.", show(state.since)));
            sentences.push(ensemble_sentence(facts, show));
            sentences
                .extend(facts.transitions.iter().map(|transition| transition_sentence(transition, state.since, show)));
        }
    }
    sentences.extend(facts.runs.iter().map(|run| run_sentence(run, show)));
    if facts.runs.is_empty() && facts.state.is_some() {
        sentences.push("The ledger has no run of it around that time.".to_owned());
    }
    for decision in facts.decisions {
        sentences.push(format!(
            "At {} it decided without a run: {}.",
            show(decision.at),
            end_trimmed(&decision.detail)
        ));
    }
    if !facts.decision_counts.is_empty() {
        let counts: Vec<_> =
            facts.decision_counts.iter().map(|(kind, count)| format!("{count} × {}", kind.replace('_', " "))).collect();
        sentences.push(format!("Decisions without a run so far: {}.", counts.join(", ")));
    }
    Explanation {
        schedule: schedule.name.to_string(),
        at: facts.at,
        pause,
        trouble: facts.trouble.map(str::to_owned),
        cursor: facts.state.filter(|_| matches!(schedule.trigger, Trigger::Cron(_))).map(|state| state.cron_cursor),
        previous_time,
        next_time,
        sentences,
        runs: facts.runs.to_vec(),
        decisions: facts.decisions.to_vec(),
    }
}

/// The nominal times on both sides of `at`; one exactly at it counts as before.
pub fn around(cron: &CronTrigger, at: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
    let just_after = at.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(at);
    (cron.previous_before(just_after).map(|time| time.at), cron.next_after(at).map(|time| time.at))
}

fn what_it_does(schedule: &Schedule) -> String {
    let when = match TriggerOverview::of(&schedule.trigger) {
        TriggerOverview::Cron { cron, timezone } => format!("at `{cron}` ({timezone})"),
        trigger @ TriggerOverview::Znode { .. } => format!("when {} changes", trigger.summary()),
        TriggerOverview::Ensemble { ensemble, on } => {
            format!("when the ensemble `{ensemble}` has one of {}", on.join(", "))
        }
    };
    format!("`{}` runs the DAG `{}` in Airflow `{}` {when}.", schedule.name, schedule.dag_id, schedule.airflow)
}

fn pause_sentence(pause: Option<&PauseOverview>, show: &dyn Fn(Timestamp) -> String) -> String {
    let Some(pause) = pause else { return "It is not paused.".to_owned() };
    let since = pause.at.map(|at| format!(" since {}", show(at))).unwrap_or_default();
    let until = pause.until.map(|until| format!(", until {}", show(until))).unwrap_or_default();
    let reason = pause.reason.as_ref().map(|reason| format!(": {}", end_trimmed(reason))).unwrap_or_default();
    format!("It is paused{since} by {}{until}{reason}.", pause.by)
}

fn nominal_sentence(
    facts: &Facts<'_>,
    state: &ScheduleState,
    time: Timestamp,
    show: &dyn Fn(Timestamp) -> String,
) -> String {
    let row = facts.nominal_rows.iter().find(|row| match row.covers {
        Some(covers) => covers.from <= time && time <= covers.to,
        None => row.nominal_time == time,
    });
    let shown = show(time);
    match row {
        Some(NominalRow { id, state, covers: Some(covers), .. }) => format!(
            "The nominal time {shown} is one of {} from {} to {} that run {id} covers: {state}.",
            covers.count,
            show(covers.from),
            show(covers.to)
        ),
        Some(NominalRow { id, state, .. }) => format!("The nominal time {shown} became run {id}: {state}."),
        None if time <= state.since => {
            format!("The nominal time {shown} is from before the schedule began to count, at {}.", show(state.since))
        }
        None if time > facts.now => format!("The nominal time {shown} is still to come."),
        None if time > state.cron_cursor => {
            format!("The nominal time {shown} has not been decided yet: the schedule is paused, or no member leads.")
        }
        None => format!("The nominal time {shown} has no row: it is older than what the ledger retains."),
    }
}

fn ensemble_sentence(facts: &Facts<'_>, show: &dyn Fn(Timestamp) -> String) -> String {
    let Some(ensemble) = facts.ensemble else {
        return "Its ensemble has not been looked at yet.".to_owned();
    };
    let condition = ensemble.standing.condition().as_str().replace('_', " ");
    let doubt = if ensemble.standing.is_in_doubt() { ", and about to be judged anew" } else { "" };
    let sight = if ensemble.report.in_sight { "" } else { "; nothing of it was in sight" };
    format!("The ensemble was last looked at {}: {condition}{doubt}{sight}.", show(ensemble.reported_at))
}

fn transition_sentence(transition: &Transition, since: Timestamp, show: &dyn Fn(Timestamp) -> String) -> String {
    let events: Vec<String> = transition
        .events
        .iter()
        .map(|happening| {
            let server = happening.server.as_ref().map(|server| format!(" of {server}")).unwrap_or_default();
            let count = if happening.count > 1 { format!(", {} times", happening.count) } else { String::new() };
            format!("{}{server}{count}", happening.event.as_str())
        })
        .collect();
    let before = if transition.at < since { ", before it listened" } else { "" };
    format!("At {} the ensemble had {}{before}.", show(transition.at), events.join("; "))
}

fn run_sentence(run: &Run, show: &dyn Fn(Timestamp) -> String) -> String {
    use std::fmt::Write as _;
    let mut text = format!("Run {}, due {}", run.id, show(run.due_at));
    // Writing to a String cannot fail.
    if run.count > 1 {
        let _ = write!(text, " (the last of {} occurrences)", run.count);
    }
    let _ = write!(text, ", {}", what_became(run.state));
    if let Some(reason) = &run.reason {
        let _ = write!(text, ": {}", end_trimmed(reason));
    }
    if let Some(hint) = &run.hint {
        let _ = write!(text, " (hint: {})", end_trimmed(hint));
    }
    if run.coalesced > 0 {
        let _ = write!(text, "; it stands for {} earlier changes as well, which ZooKeeper merged", run.coalesced);
    }
    if run.reopened > 0 {
        let _ = write!(text, "; it was reopened {} times", run.reopened);
    }
    text.push('.');
    text
}

fn what_became(state: RunState) -> &'static str {
    match state {
        RunState::Pending => "is recorded and not yet known to be accepted by Airflow",
        RunState::Queued => "is queued in Airflow",
        RunState::Running => "is running",
        RunState::Success => "succeeded",
        RunState::Failed => "failed",
        RunState::Skipped => "was skipped",
        RunState::Missed => "was missed",
        RunState::Rejected => "was rejected",
        RunState::Removed => "was deleted in Airflow",
    }
}

fn end_trimmed(text: &str) -> &str {
    text.trim_end_matches(['.', ' ', '\n'])
}

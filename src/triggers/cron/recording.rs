//! From what is due to the rows that the ledger takes.

use serde_json::value::RawValue;

use super::wheel::Due;
use crate::domain::calendar::Span;
use crate::domain::occurrence::Occurrence;
use crate::domain::policy::{RequestDates, request_dates};
use crate::domain::run::RunState;
use crate::domain::schedule::{Schedule, Trigger};
use crate::domain::template::RenderContext;
use crate::store::model::{Covered, CursorMove, Decision, NewRun, Recording};
use crate::triggers::gate::Gate;
use jiff::Timestamp;

/// One recording for all that is due, so that it shares one transaction.
pub(super) fn recording(due: &[Due], now: Timestamp) -> Recording {
    let mut recording = Recording::default();
    for due in due {
        add(due, now, &mut recording);
    }
    recording
}

fn add(due: &Due, now: Timestamp, recording: &mut Recording) {
    let schedule = &due.schedule;
    for closed in &due.plan.closed {
        let mut run = new_run(schedule, closed.span.last, closed.state, Some(closed.reason.clone()));
        run.covers = covered(closed.span);
        // Nothing is sent for it; the conf is there for whoever takes the run up by hand.
        run.conf = context(schedule, &run).conf().unwrap_or_else(|_| no_conf());
        recording.runs.push(run);
    }
    for nominal in &due.plan.runs {
        let mut run = new_run(schedule, nominal.at, RunState::Pending, None);
        match context(schedule, &run).conf() {
            Ok(conf) => run.conf = conf,
            Err(error) => refuse(&mut run, RunState::Rejected, format!("the conf could not be made: {error}")),
        }
        if let Gate::Skipping { reason } = &due.gate {
            refuse(&mut run, RunState::Skipped, reason.to_string());
        } else if let Some(condition) = &schedule.when {
            match condition.evaluate(&context(schedule, &run)) {
                Ok(true) => {}
                Ok(false) => {
                    recording.decisions.push(Decision {
                        schedule: schedule.name.clone(),
                        at: now,
                        kind: "when_false",
                        detail: format!("{} was due, and `when` was false", nominal.at),
                    });
                    continue;
                }
                Err(error) => refuse(&mut run, RunState::Rejected, format!("`when` could not be evaluated: {error}")),
            }
        }
        recording.runs.push(run);
    }
    if let Some(to) = due.plan.cursor {
        recording.cursors.push(CursorMove::Cron { schedule: schedule.name.clone(), to });
    }
}

fn new_run(schedule: &Schedule, nominal: Timestamp, state: RunState, reason: Option<String>) -> NewRun {
    let RequestDates { logical_date, data_interval } = match &schedule.trigger {
        Trigger::Cron(trigger) => request_dates(trigger, nominal, schedule.logical_date, schedule.data_interval),
        Trigger::Znode(_) | Trigger::Ensemble(_) => RequestDates::default(),
    };
    let dag_run_id = Occurrence::Nominal(nominal).dag_run_id(&schedule.name);
    NewRun {
        nominal_time: Some(nominal),
        state,
        reason,
        logical_date,
        data_interval,
        ..NewRun::of(schedule, dag_run_id, nominal, no_conf())
    }
}

fn refuse(run: &mut NewRun, state: RunState, reason: String) {
    run.state = state;
    run.reason = Some(reason);
}

fn context<'a>(schedule: &'a Schedule, run: &'a NewRun) -> RenderContext<'a> {
    RenderContext { nominal_time: run.nominal_time, ..RenderContext::of(schedule, &run.dag_run_id) }
}

fn no_conf() -> Box<RawValue> {
    serde_json::value::to_raw_value(&serde_json::Map::new()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A single occurrence needs no range.
fn covered(span: Span) -> Option<Covered> {
    let count = i64::try_from(span.count).unwrap_or(i64::MAX);
    (count > 1).then_some(Covered { from: span.first, to: span.last, count })
}

//! Ensemble triggers: what became of an ensemble, and the runs of all schedules that listen to it.
//!
//! A pure function. Who looks, and writes a transition with its runs in one transaction, is
//! [`crate::health`]; there is no cursor and nothing to catch up with, since a schedule has its row from
//! the moment that the transition is there. One that is paused then has a row as well, which says so.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::gate::{Gate, Gates};
use crate::domain::ensemble::Transition;
use crate::domain::occurrence::Occurrence;
use crate::domain::run::RunState;
use crate::domain::schedule::{EnsembleEvents, Schedule, Trigger};
use crate::domain::template::{EnsembleVariable, RenderContext};
use crate::store::model::{Decision, NewRun, Recording};

/// What a transition amounts to: a run, or a decision without one, for each schedule that listens to
/// something that happened. Several events of one moment are one run.
pub fn recording(transition: &Transition, schedules: &[Arc<Schedule>], gates: &Gates, now: Timestamp) -> Recording {
    let mut recording = Recording::default();
    for schedule in schedules {
        let Some(heard) = heard(transition, schedule) else { continue };
        let gate = gates.get(&schedule.name).cloned().unwrap_or_default();
        add(schedule, &heard, &gate, now, &mut recording);
    }
    recording
}

/// Whether a schedule is about this ensemble.
pub fn is_about(schedule: &Schedule, ensemble: &str) -> bool {
    listens_to(schedule, ensemble).is_some()
}

fn listens_to(schedule: &Schedule, ensemble: &str) -> Option<EnsembleEvents> {
    match &schedule.trigger {
        Trigger::Ensemble(trigger) if *trigger.ensemble == *ensemble => Some(trigger.on),
        Trigger::Ensemble(_) | Trigger::Cron(_) | Trigger::Znode(_) => None,
    }
}

/// The transition with what the schedule listens to; `None` where nothing is left of it.
fn heard(transition: &Transition, schedule: &Schedule) -> Option<Transition> {
    let on = listens_to(schedule, &transition.ensemble)?;
    let events: Vec<_> = transition.events.iter().filter(|happening| on.contains(happening.event)).cloned().collect();
    (!events.is_empty()).then(|| Transition { events, ..transition.clone() })
}

fn add(schedule: &Schedule, heard: &Transition, gate: &Gate, now: Timestamp, recording: &mut Recording) {
    let occurrence = Occurrence::Ensemble { at: heard.at, ensemble: heard.ensemble.clone() };
    let dag_run_id = occurrence.dag_run_id(&schedule.name);
    let context = RenderContext {
        ensemble: Some(EnsembleVariable::Transition(heard)),
        ..RenderContext::of(schedule, &dag_run_id)
    };
    let (mut state, mut reason) = (RunState::Pending, None);
    match schedule.when.as_ref().map_or(Ok(true), |condition| condition.evaluate(&context)) {
        Ok(true) => {}
        Ok(false) => {
            let events: Vec<&str> = heard.events.iter().map(|happening| happening.event.as_str()).collect();
            recording.decisions.push(Decision {
                schedule: schedule.name.clone(),
                at: now,
                kind: "when_false",
                detail: format!("{} had {}, and `when` was false", heard.ensemble, events.join(", ")),
            });
            return;
        }
        Err(error) => (state, reason) = (RunState::Rejected, Some(format!("`when` could not be evaluated: {error}"))),
    }
    let conf = context.conf().unwrap_or_else(|error| {
        if state == RunState::Pending {
            (state, reason) = (RunState::Rejected, Some(format!("the conf could not be rendered: {error}")));
        }
        RawValue::NULL.to_owned()
    });
    match gate {
        Gate::Paused { reason: why, .. } if state == RunState::Pending => {
            (state, reason) = (RunState::Skipped, Some(format!("came due while the schedule was paused: {why}")));
        }
        Gate::Skipping { reason: why } if state == RunState::Pending => {
            (state, reason) = (RunState::Skipped, Some(why.to_string()));
        }
        Gate::Open | Gate::Submitting | Gate::Paused { .. } | Gate::Skipping { .. } => {}
    }
    let coalesced = i64::from(heard.count()) - 1;
    let run = NewRun::of(schedule, dag_run_id, heard.at, conf);
    recording.runs.push(NewRun { state, reason, coalesced, ..run });
}

#[cfg(test)]
mod tests;

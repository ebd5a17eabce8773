//! Settling what an edited trigger had made due before it was edited.
//!
//! While nothing served, an edit may have changed when a schedule is due. What the old trigger made
//! due up to now belongs to the old one; the new one begins now.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::DUE_PER_RECORDING;
use super::recording::recording;
use super::wheel::{CronWheel, Due};
use crate::domain::policy::Blindness;
use crate::domain::schedule::{Schedule, Trigger};
use crate::store::model::{ScheduleState, ScheduleStates};
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::TOLD_ONE_BY_ONE;
use crate::triggers::gate::{Gate, Gates};

/// Records what the triggers of an earlier configuration had made due by `now`, for each schedule
/// whose trigger is another one today. Call it before the ledger adopts the schedules: `states` has what it
/// knows of them so far, by the names that they have now. What came due at most `on_time` before `now`, while
/// nobody led, is simply due.
pub async fn settle_edited(
    ledger: &Ledger,
    leadership: &Leadership,
    schedules: &[Arc<Schedule>],
    states: &ScheduleStates,
    gates: &Gates,
    on_time: SignedDuration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut wheel = CronWheel::after_a_gap(on_time);
    let mut due: Vec<Due> = Vec::new();
    let edited: Vec<_> = schedules
        .iter()
        .filter_map(|schedule| {
            let state = states.get(&schedule.name)?;
            Some((schedule, state, before_the_edit(schedule, state)?))
        })
        .collect();
    let triggers = edited.len();
    if triggers > TOLD_ONE_BY_ONE {
        tracing::info!(triggers, "triggers were edited; what the old ones made due is settled first");
    }
    for (schedule, state, before) in edited {
        // What a pause holds back is decided now, as at its end; whatever is to run waits for that end.
        let (gate, why) = match gates.get(&schedule.name) {
            Some(Gate::Paused { reason, .. }) => (Gate::Open, Blindness::Paused(reason.to_string())),
            Some(gate) => (gate.clone(), Blindness::Down),
            None => (Gate::Open, Blindness::Down),
        };
        if triggers <= TOLD_ONE_BY_ONE {
            tracing::info!(schedule = %schedule.name, "the trigger was edited; what the old one made due is settled first");
        }
        wheel.insert(Arc::new(before), state.cron_cursor, gate, why, now);
        due.extend(wheel.end(&schedule.name, now, None));
        while due.len() >= DUE_PER_RECORDING {
            let rest = due.split_off(DUE_PER_RECORDING);
            ledger.record(leadership, recording(&std::mem::replace(&mut due, rest), now)).await?;
        }
    }
    if !due.is_empty() {
        ledger.record(leadership, recording(&due, now)).await?;
    }
    Ok(())
}

/// The schedule with the cron trigger that its cursor belongs to, if that is another one by now.
fn before_the_edit(schedule: &Schedule, state: &ScheduleState) -> Option<Schedule> {
    let old = Trigger::cron_of_identity(&state.trigger_key)?;
    let edited = match &schedule.trigger {
        Trigger::Cron(new) => !new.same_times(&old),
        Trigger::Znode(_) | Trigger::Ensemble(_) => true,
    };
    edited.then(|| Schedule { trigger: Trigger::Cron(old), ..schedule.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{self, Environment};
    use crate::domain::edit::Fates;
    use crate::domain::policy::ON_TIME;
    use crate::domain::run::RunState;
    use crate::domain::schedule::ScheduleName;
    use crate::store::TriggerIdentity;
    use crate::store::model::RunFilter;

    fn schedules(directory: &tempfile::TempDir, cron: &str) -> Vec<Arc<Schedule>> {
        let file = directory.path().join("flowkeeper.toml");
        let text = format!(
            "[airflow.main]\nurl = \"http://127.0.0.1:1\"\nauth = {{ token = {{ env = \"T\" }} }}\n\
             [[schedule]]\nname = \"load\"\ncron = \"{cron}\"\ndag = \"d\"\n"
        );
        std::fs::write(&file, text).unwrap();
        config::check(&file, &Environment::default()).unwrap().0.schedules
    }

    #[tokio::test]
    async fn what_the_old_trigger_had_due_is_settled_and_the_new_one_begins_now() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-22T00:30:00Z".parse().unwrap());
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let adopt = async |schedules: &[Arc<Schedule>]| {
            let now = clock.now();
            let states = ledger.schedule_states().await.unwrap();
            settle_edited(&ledger, &leadership, schedules, &states, &Gates::default(), ON_TIME, now).await.unwrap();
            let identity = |schedule: &Arc<Schedule>| TriggerIdentity {
                name: schedule.name.clone(),
                was: Vec::new(),
                key: schedule.trigger.identity(),
            };
            let identities: Vec<_> = schedules.iter().map(identity).collect();
            ledger.adopt_schedules(&leadership, &identities, now).await.unwrap();
        };
        adopt(&schedules(&directory, "@hourly")).await;
        // Down for three nominal times, and edited meanwhile.
        clock.advance(SignedDuration::from_hours(3));
        adopt(&schedules(&directory, "15 * * * *")).await;

        let page = ledger.runs(&RunFilter::default(), 10, None).await.unwrap();
        let rows: Vec<_> = page.items.iter().map(|run| (run.state, run.count, run.nominal_time)).collect();
        let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(
            rows,
            [
                (RunState::Pending, 1, time("2026-11-22T03:00:00Z")),
                (RunState::Skipped, 2, time("2026-11-22T02:00:00Z")),
            ]
        );
        let states = ledger.schedule_states().await.unwrap();
        assert_eq!(states.values().next().unwrap().cron_cursor, clock.now());
    }

    #[tokio::test]
    async fn what_waits_for_its_jitter_is_settled_by_the_rule_of_its_nominal_time() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-22T01:50:00Z".parse().unwrap());
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let mut before = (*schedules(&directory, "0 2 * * *")[0]).clone();
        before.catchup = crate::domain::schedule::Catchup::None;
        if let Trigger::Cron(trigger) = &mut before.trigger {
            trigger.jitter = std::time::Duration::from_hours(10);
        }
        let identity = TriggerIdentity { name: before.name.clone(), was: Vec::new(), key: before.trigger.identity() };
        ledger.adopt_schedules(&leadership, &[identity], clock.now()).await.unwrap();
        // Edited while nothing serves, after the nominal time and long before its delay is over.
        clock.advance(SignedDuration::from_mins(20));
        let after = Schedule { trigger: schedules(&directory, "0 5 * * *")[0].trigger.clone(), ..before };
        let states = ledger.schedule_states().await.unwrap();
        let after = [Arc::new(after)];
        settle_edited(&ledger, &leadership, &after, &states, &Gates::default(), ON_TIME, clock.now()).await.unwrap();
        let page = ledger.runs(&RunFilter::default(), 10, None).await.unwrap();
        let rows: Vec<_> = page.items.iter().map(|run| (run.state, run.nominal_time)).collect();
        assert_eq!(rows, [(RunState::Pending, "2026-11-22T02:00:00Z".parse().ok())]);
    }

    #[tokio::test]
    async fn a_pause_and_a_new_name_take_part_in_the_settling() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-22T00:30:00Z".parse().unwrap());
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let before = schedules(&directory, "@hourly");
        let identity =
            TriggerIdentity { name: before[0].name.clone(), was: Vec::new(), key: before[0].trigger.identity() };
        ledger.adopt_schedules(&leadership, &[identity], clock.now()).await.unwrap();
        clock.advance(SignedDuration::from_hours(3));

        let mut renamed = (*schedules(&directory, "15 * * * *")[0]).clone();
        renamed.was = vec![renamed.name.clone()];
        renamed.name = ScheduleName::new("load-again").unwrap();
        let gate = Gate::Paused { reason: "the schedule was paused by ada".into(), dag: false };
        let gates = Gates::new(HashMap::from([(renamed.name.clone(), gate)]));
        let renamed = [Arc::new(renamed)];
        let states = ledger.schedule_states().await.unwrap();
        let states = Fates::between(&before, &renamed).carried(&states);
        settle_edited(&ledger, &leadership, &renamed, &states, &gates, ON_TIME, clock.now()).await.unwrap();

        let page = ledger.runs(&RunFilter::default(), 10, None).await.unwrap();
        let rows: Vec<_> = page.items.iter().map(|run| (run.schedule.as_str(), run.state, run.count)).collect();
        assert_eq!(rows, [("load-again", RunState::Pending, 1), ("load-again", RunState::Skipped, 2)]);
        assert!(page.items[1].reason.as_ref().is_some_and(|reason| reason.contains("paused by ada")));
    }
}

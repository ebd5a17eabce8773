//! Going over to other schedules: what ends, what begins and what goes on, as one step with the ledger.
//!
//! An edit is prepared, committed and made. Preparing hands out what the triggers that end had due by
//! then, and holds them; once that is in the ledger, and the ledger has adopted the schedules, what
//! begins takes its cursor from there. In between nothing that is edited fires, and what is not edited
//! goes on. If the process dies at any point, the ledger has the cursors of before or of after.
//!
//! All of this is done by the timer, which everybody else waits for meanwhile. So what takes long, the
//! search for the first nominal time of each trigger that begins, is done beside it while the ledger writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::wheel::{CronWheel, Due, cron};
use crate::domain::edit::Fates;
use crate::domain::policy::Blindness;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::store::model::ScheduleStates;
use crate::triggers::gate::Gates;

/// An edit that was prepared: what is held, and what is to become of it.
#[derive(Debug)]
pub struct Prepared {
    /// The moment of the edit.
    at: Timestamp,
    /// These end.
    remove: Vec<ScheduleName>,
    /// These begin, or begin anew, with the cursor that the ledger has. For those that begin at the moment
    /// of the edit, as nearly all do, their first nominal time after it, once that was looked up.
    begin: Vec<(Arc<Schedule>, Option<Timestamp>)>,
    /// Those of them that only have another name than before.
    renamed: HashSet<ScheduleName>,
    /// These go on with other policies.
    go_on: Vec<Arc<Schedule>>,
}

impl Prepared {
    /// Looks up when what begins is due first. That takes long for many schedules: not for the thread of
    /// the timer.
    pub(super) fn look_ahead(&mut self) {
        let at = self.at;
        for (schedule, next) in &mut self.begin {
            *next = cron(schedule).and_then(|trigger| trigger.next_after(at)).map(|nominal| nominal.at);
        }
    }
}

impl CronWheel {
    /// Prepares to go over to `schedules` at `now`, as `fates` says of each; what is to be settled first comes
    /// with it.
    ///
    /// A schedule that takes the name of another is settled before it does: what it had due belongs to the
    /// name that it had, since the other one may have had the same times due under the new one.
    pub fn prepare(&mut self, schedules: &[Arc<Schedule>], fates: &Fates, now: Timestamp) -> (Prepared, Vec<Due>) {
        let wanted: HashMap<&ScheduleName, &Arc<Schedule>> = schedules
            .iter()
            .filter(|schedule| cron(schedule).is_some())
            .map(|schedule| (&schedule.name, schedule))
            .collect();
        let mut prepared =
            Prepared { at: now, remove: Vec::new(), begin: Vec::new(), renamed: HashSet::new(), go_on: Vec::new() };
        let mut settled = Vec::new();
        let known: Vec<ScheduleName> = self.gates().map(|(name, _)| name.clone()).collect();
        for name in &known {
            let Some(before) = self.schedule(name).cloned() else { continue };
            let goes_on_as = fates.goes_on_as(name);
            let after = goes_on_as.and_then(|heir| wanted.get(heir).copied());
            if goes_on_as == Some(name)
                && let Some(after) = after
            {
                if Arc::ptr_eq(&before, after) {
                    continue;
                }
                if same_times(&before, after) {
                    prepared.go_on.push(Arc::clone(after));
                } else {
                    settled.extend(self.end(name, now, None));
                    prepared.begin.push((Arc::clone(after), None));
                }
                continue;
            }
            prepared.remove.push(name.clone());
            match (goes_on_as, after) {
                (None, _) => settled.extend(self.end(name, now, Some("was removed"))),
                // By another trigger.
                (Some(heir), None) if heir == name => settled.extend(self.end(name, now, None)),
                (Some(heir), _) if fates.is_taken(heir) => {
                    settled.extend(self.end(name, now, Some("took the name of another")));
                }
                (Some(heir), Some(after)) if same_times(&before, after) => {
                    self.hold(name);
                    prepared.renamed.insert(heir.clone());
                }
                (Some(_), _) => settled.extend(self.end(name, now, Some("was edited and renamed"))),
            }
        }
        let new = wanted
            .values()
            .filter(|schedule| self.schedule(&schedule.name).is_none() || fates.goes_on_as(&schedule.name).is_none());
        prepared.begin.extend(new.map(|schedule| (Arc::clone(schedule), None)));
        (prepared, settled)
    }

    /// Makes an edit that the ledger has committed; the names of the schedules that it is about.
    pub fn make(
        &mut self,
        prepared: Prepared,
        states: &ScheduleStates,
        gates: &Gates,
        now: Timestamp,
    ) -> Vec<ScheduleName> {
        let mut touched = prepared.remove;
        for name in &touched {
            self.remove(name);
        }
        for (schedule, next) in prepared.begin {
            let name = schedule.name.clone();
            let cursor = states.get(&name).map_or(prepared.at, |state| state.cron_cursor);
            let gate = gates.get(&name).cloned().unwrap_or_default();
            // An older cursor is that of a schedule which came back, as after a time without a leader.
            let held_up = cursor >= prepared.at || prepared.renamed.contains(&name);
            let why = if held_up { Blindness::HeldUp } else { Blindness::Down };
            self.insert_with_next(schedule, cursor, gate, why, now, next.filter(|_| cursor == prepared.at));
            touched.push(name);
        }
        for schedule in prepared.go_on {
            touched.push(schedule.name.clone());
            self.go_on_as(schedule);
        }
        touched
    }
}

fn same_times(one: &Schedule, other: &Schedule) -> bool {
    cron(one).zip(cron(other)).is_some_and(|(one, other)| one.same_times(other))
}

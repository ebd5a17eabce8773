//! What the dispatcher goes by: the definitions in force, and the gates that hold schedules back.
//!
//! Both change while runs are on their way. What an Airflow has taught about its pace is kept for as long
//! as it is the same Airflow, and runs keep their schedule when it gets another name. Who a gate is closed
//! for is decided elsewhere ([`crate::triggers::gate`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::compare::Compare;
use super::queue::{Hold, Queue, Turn};
use super::{Dispatcher, Lanes};
use crate::airflow::Airflow;
use crate::airflow::pace::Pace;
use crate::config::model::InFlight;
use crate::domain::schedule::{Overlap, Schedule, ScheduleName};
use crate::triggers::gate::Gate;

/// One Airflow that runs go to.
#[derive(Clone)]
pub struct Target {
    /// The client.
    pub airflow: Airflow,
    /// Tells it from others that had the same name.
    pub incarnation: u64,
    /// How many requests may be in flight.
    pub in_flight: InFlight,
}

/// What the dispatcher reads of the definitions in force.
#[derive(Clone, Default)]
pub struct Supply {
    /// By name.
    pub targets: BTreeMap<Arc<str>, Target>,
    /// By name.
    pub schedules: HashMap<ScheduleName, Arc<Schedule>>,
    /// Old and new names of schedules, of each edit of the term: one that reads only the latest supply still
    /// goes through all of them.
    pub renames: Arc<Vec<Renames>>,
}

/// Schedules that one edit has given another name, by the one before.
pub type Renames = Vec<(ScheduleName, ScheduleName)>;

impl Target {
    fn pace(&self) -> Pace {
        match self.in_flight {
            InFlight::Auto => Pace::auto(),
            InFlight::Fixed(limit) => Pace::fixed(limit),
        }
    }

    /// Whether what was learnt of its speed holds for `other`.
    fn is_as_fast_as(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation && self.in_flight == other.in_flight
    }
}

impl Dispatcher {
    /// Goes over to the definitions and the gates of now, in one step.
    ///
    /// Who edits tells the names first and the gates after them. Read in the other order, the gates are never those
    /// of a set whose names are not known here; and where they are still those of the set before, what they hold
    /// back is found under the names of now. So nothing that is paused is let go between two sets.
    pub(super) fn take_in_force(&mut self) {
        loop {
            let gates = Arc::clone(&self.gates.borrow_and_update());
            let supply = Arc::clone(&self.supply.borrow_and_update());
            if !self.gates.has_changed().unwrap_or(false) {
                if !Arc::ptr_eq(&supply, &self.in_force) {
                    self.take_supply(supply);
                }
                return self.apply_gates(&gates);
            }
        }
    }

    /// Goes over to other definitions. Runs of an Airflow that is gone stay where they are until it is back.
    fn take_supply(&mut self, supply: Arc<Supply>) {
        for (name, target) in &supply.targets {
            let lanes = self.airflows.entry(Arc::clone(name)).or_insert_with(|| Lanes {
                target: None,
                pace: target.pace(),
                queue: Queue::default(),
                in_flight: 0,
                cancelling: HashSet::new(),
            });
            match lanes.target.replace(target.clone()) {
                Some(before) if before.is_as_fast_as(target) => {}
                Some(_) => lanes.pace = target.pace(),
                None => {
                    lanes.pace = target.pace();
                    // There may be runs from when it was there before.
                    self.owes = Some(Compare::All);
                }
            }
        }
        let known = self.in_force.renames.len();
        for (old, new) in supply.renames.iter().skip(known).flatten() {
            for lanes in self.airflows.values_mut() {
                lanes.queue.rename(old, new);
            }
            if let Some(hold) = self.holds.remove(old) {
                self.holds.insert(new.clone(), hold);
            }
            self.renamed.values_mut().filter(|name| *name == old).for_each(|name| *name = new.clone());
            self.renamed.insert(old.clone(), new.clone());
        }
        self.renamed.retain(|old, _| !supply.schedules.contains_key(old));
        for (name, lanes) in &mut self.airflows {
            if !supply.targets.contains_key(name) {
                lanes.target = None;
            }
            let turn = |schedule: &ScheduleName| Some(supply.schedules.get(schedule)?.overlap.into());
            lanes.queue.set_turns(turn);
        }
        self.in_force = supply;
    }

    pub(super) fn turn(&self, schedule: &ScheduleName) -> Turn {
        self.in_force.schedules.get(schedule).map_or(Overlap::Allow, |schedule| schedule.overlap).into()
    }

    /// What a schedule is called now that had this name when it was recorded or sent.
    pub(super) fn name_now(&self, name: ScheduleName) -> ScheduleName {
        self.renamed.get(&name).cloned().unwrap_or(name)
    }

    fn apply_gates(&mut self, gates: &HashMap<ScheduleName, Gate>) {
        let now = |(schedule, gate)| (self.name_now(ScheduleName::clone(schedule)), gate);
        let (as_ever, renamed): (Vec<_>, Vec<_>) =
            gates.iter().partition(|(schedule, _)| !self.renamed.contains_key(*schedule));
        // Who has taken the name of another is meant by it from now on.
        let gates: HashMap<ScheduleName, &Gate> = as_ever.into_iter().chain(renamed).map(now).collect();
        let holds: HashMap<ScheduleName, Hold> =
            gates.iter().map(|(schedule, gate)| (schedule.clone(), hold_of(gate))).collect();
        self.skipping = gates
            .into_iter()
            .filter_map(|(schedule, gate)| match gate {
                Gate::Skipping { reason } => Some((schedule, Arc::clone(reason))),
                Gate::Open | Gate::Submitting | Gate::Paused { .. } => None,
            })
            .collect();
        for lanes in self.airflows.values_mut() {
            for schedule in self.holds.keys().filter(|schedule| !holds.contains_key(*schedule)) {
                lanes.queue.hold(schedule, Hold::default(), self.locks.earlier());
            }
            for (schedule, hold) in &holds {
                let given_back = lanes.queue.hold(schedule, *hold, self.locks.earlier());
                self.locks.give_back(given_back);
            }
        }
        self.holds = holds;
    }
}

/// What a gate holds back here.
fn hold_of(gate: &Gate) -> Hold {
    match gate {
        Gate::Open => Hold::default(),
        Gate::Paused { dag, .. } => Hold { triggered: true, locked: *dag, skipping: false },
        Gate::Submitting => Hold { locked: true, ..Hold::default() },
        Gate::Skipping { .. } => Hold { locked: true, skipping: true, ..Hold::default() },
    }
}

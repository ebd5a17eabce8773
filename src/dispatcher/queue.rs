//! Who goes next: the runs that wait for one Airflow, shared out fairly among their schedules.
//!
//! Each schedule has a lane, and lanes take turns, so a burst of one never delays another's cron.
//! Nothing here waits or sends: the loop asks for the next run and tells what became of the last.
//! What does not fit stays in the ledger and is read again when its lane has emptied.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::domain::run::RunId;
use crate::domain::schedule::{Overlap, ScheduleName, TriggerKind};
use crate::store::model::Ticket;

/// How many runs of one schedule are kept ready; the others wait in the ledger. Bounds memory when a
/// schedule falls hours behind.
pub(super) const LANE_LENGTH: usize = 1000;

/// When a try that a pause holds back is looked at again.
const HELD_PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// How the runs of a schedule stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Beside each other (`allow`, and `skip`, which is judged when the run is recorded).
    Together,
    /// One after the other.
    OneByOne,
    /// One after the other, and the one before is ended for the next.
    Replacing,
}

impl From<Overlap> for Turn {
    fn from(overlap: Overlap) -> Self {
        match overlap {
            Overlap::Allow | Overlap::Skip => Self::Together,
            Overlap::Queue | Overlap::QueueOne => Self::OneByOne,
            Overlap::CancelRunning => Self::Replacing,
        }
    }
}

/// The runs of one schedule.
#[derive(Debug)]
struct Lane {
    turn: Turn,
    /// Only runs by hand go while the schedule is held.
    held: bool,
    waiting: VecDeque<Ticket>,
    /// On their way: being submitted, or waiting for their next try.
    under_way: HashSet<RunId>,
    /// Those under way that ended meanwhile: given up by somebody, or seen to their end by the monitor.
    ended: HashSet<RunId>,
    /// Open in Airflow.
    active: HashSet<RunId>,
    /// More of them wait in the ledger.
    overflowed: bool,
    /// Whether the lane stands in the ring.
    in_ring: bool,
}

impl Lane {
    fn new(turn: Turn) -> Self {
        Self {
            turn,
            held: false,
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
            ended: HashSet::new(),
            active: HashSet::new(),
            overflowed: false,
            in_ring: false,
        }
    }

    fn knows(&self, run: RunId) -> bool {
        self.under_way.contains(&run) || self.waiting.iter().any(|ticket| ticket.id == run)
    }

    /// The position of the run that may go now.
    fn ready(&self) -> Option<usize> {
        let free = self.turn == Turn::Together || (self.under_way.is_empty() && self.active.is_empty());
        if !free {
            return None;
        }
        self.first()
    }

    /// The position of the run that goes next, once nothing is in its way.
    fn first(&self) -> Option<usize> {
        if self.held {
            return self.waiting.iter().position(|ticket| ticket.trigger == TriggerKind::Manual);
        }
        (!self.waiting.is_empty()).then_some(0)
    }
}

/// A try that is to be made at its time, earliest first.
#[derive(Debug)]
struct Delayed {
    at: Timestamp,
    ticket: Ticket,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.ticket.id) == (other.at, other.ticket.id)
    }
}
impl Eq for Delayed {}
impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.ticket.id).cmp(&(other.at, other.ticket.id))
    }
}

/// Everything that waits for one Airflow.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<ScheduleName, Lane>,
    /// Lanes with something ready, in the order of their turns.
    ring: VecDeque<ScheduleName>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// Tries whose time has come; they were in turn before, so they go first.
    again: VecDeque<Ticket>,
    /// The lanes that have overflowed, so that they need not be looked for.
    overflowed: HashSet<ScheduleName>,
    /// The lanes in which a newer run replaces an older one, likewise.
    replacing: HashSet<ScheduleName>,
}

impl Queue {
    /// How many runs wait here, not counting those left in the ledger.
    pub(super) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.waiting.len()).sum::<usize>() + self.delayed.len() + self.again.len()
    }

    /// Every run that waits here, for its turn or for its next try.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&ScheduleName, RunId)> {
        let delayed = self.delayed.iter().map(|Reverse(delayed)| &delayed.ticket);
        let in_lanes = self.lanes.values().flat_map(|lane| &lane.waiting);
        in_lanes.chain(delayed).chain(&self.again).map(|ticket| (&ticket.schedule, ticket.id))
    }

    /// Takes a run in, unless it is known already or its lane is full.
    pub(super) fn offer(&mut self, ticket: Ticket, turn: Turn, now: Timestamp) {
        if turn == Turn::Replacing {
            self.replacing.insert(ticket.schedule.clone());
        }
        let lane = self.lanes.entry(ticket.schedule.clone()).or_insert_with(|| Lane::new(turn));
        if lane.under_way.contains(&ticket.id) {
            // Given up and taken up again while its request is under way.
            lane.ended.remove(&ticket.id);
            return;
        }
        if ticket.first_attempt_at.is_some() || ticket.not_before.is_some_and(|at| at > now) {
            // It was tried before this process began, so it keeps its place.
            let at = ticket.not_before.unwrap_or(now);
            if lane.waiting.iter().all(|waiting| waiting.id != ticket.id) {
                lane.under_way.insert(ticket.id);
                self.delayed.push(Reverse(Delayed { at, ticket }));
            }
            return;
        }
        // Runs by hand are few, and must be at hand when the schedule is held.
        if ticket.trigger != TriggerKind::Manual && (lane.overflowed || lane.waiting.len() >= LANE_LENGTH) {
            lane.overflowed = true;
            self.overflowed.insert(ticket.schedule);
            return;
        }
        // Runs arrive in order but for those taken up again, which are older.
        match lane.waiting.back() {
            Some(last) if last.id >= ticket.id => {
                if !lane.knows(ticket.id) {
                    let position = lane.waiting.partition_point(|waiting| waiting.id < ticket.id);
                    lane.waiting.insert(position, ticket.clone());
                }
            }
            _ => lane.waiting.push_back(ticket.clone()),
        }
        self.enter_ring(&ticket.schedule);
    }

    fn enter_ring(&mut self, schedule: &ScheduleName) {
        if let Some(lane) = self.lanes.get_mut(schedule).filter(|lane| !lane.in_ring && lane.ready().is_some()) {
            lane.in_ring = true;
            self.ring.push_back(schedule.clone());
        }
    }

    /// The next run to submit at `now`, which is then under way.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Ticket> {
        while self.delayed.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(Delayed { ticket, .. })) = self.delayed.pop() else { break };
            self.again.push_back(ticket);
        }
        while let Some(ticket) = self.again.pop_front() {
            let held = self.lanes.get(&ticket.schedule).is_some_and(|lane| lane.held);
            if !held || ticket.trigger == TriggerKind::Manual || ticket.lookup_only {
                return Some(ticket);
            }
            // A pause comes before a retry; looking whether the run exists goes on.
            let at = now.saturating_add(HELD_PAUSE).unwrap_or(Timestamp::MAX);
            self.delayed.push(Reverse(Delayed { at, ticket }));
        }
        while let Some(schedule) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&schedule) else { continue };
            lane.in_ring = false;
            let Some(ticket) = lane.ready().and_then(|position| lane.waiting.remove(position)) else { continue };
            lane.under_way.insert(ticket.id);
            self.enter_ring(&schedule);
            return Some(ticket);
        }
        None
    }

    /// When the next try is due.
    pub(super) fn next_try(&self) -> Option<Timestamp> {
        self.delayed.peek().map(|Reverse(next)| next.at)
    }

    /// A run that is under way is to be tried again at `at`, unless it has ended meanwhile.
    pub(super) fn try_again(&mut self, ticket: Ticket, at: Timestamp) {
        let ended = self.lanes.get(&ticket.schedule).is_some_and(|lane| lane.ended.contains(&ticket.id));
        if ended {
            self.settled(&ticket.schedule, ticket.id, false);
            return;
        }
        self.delayed.push(Reverse(Delayed { at, ticket }));
    }

    /// A run is not under way any more; `active` when Airflow has it now.
    pub(super) fn settled(&mut self, schedule: &ScheduleName, run: RunId, active: bool) {
        let Some(lane) = self.lanes.get_mut(schedule) else { return };
        lane.under_way.remove(&run);
        lane.ended.remove(&run);
        if active {
            lane.active.insert(run);
        }
        self.enter_ring(schedule);
    }

    /// Airflow has this run open, as the ledger or the monitor says.
    pub(super) fn opened(&mut self, schedule: &ScheduleName, run: RunId, turn: Turn) {
        let lane = self.lanes.entry(schedule.clone()).or_insert_with(|| Lane::new(turn));
        lane.active.insert(run);
    }

    /// A run is over, or was given up: it leaves wherever it stands.
    pub(super) fn closed(&mut self, schedule: &ScheduleName, run: RunId) {
        let Some(lane) = self.lanes.get_mut(schedule) else { return };
        if lane.active.remove(&run) {
            self.enter_ring(schedule);
            return;
        }
        lane.waiting.retain(|ticket| ticket.id != run);
        let (delayed, again) = (self.delayed.len(), self.again.len());
        self.delayed.retain(|Reverse(delayed)| delayed.ticket.id != run);
        self.again.retain(|ticket| ticket.id != run);
        if self.delayed.len() < delayed || self.again.len() < again {
            lane.under_way.remove(&run);
        } else if lane.under_way.contains(&run) {
            // Its request is on its way; whatever comes of that, there is no next one.
            lane.ended.insert(run);
        }
        self.enter_ring(schedule);
    }

    /// Holds a schedule back, or lets it go on.
    pub(super) fn hold(&mut self, schedule: &ScheduleName, held: bool) {
        if let Some(lane) = self.lanes.get_mut(schedule) {
            lane.held = held;
            self.enter_ring(schedule);
        }
    }

    /// The runs that a newer one is waiting to replace.
    pub(super) fn to_cancel(&self) -> Vec<(ScheduleName, Vec<RunId>)> {
        self.replacing
            .iter()
            .filter_map(|schedule| Some((schedule, self.lanes.get(schedule)?)))
            .filter(|(_, lane)| lane.first().is_some() && !lane.active.is_empty())
            .map(|(schedule, lane)| (schedule.clone(), lane.active.iter().copied().collect()))
            .collect()
    }

    /// Lanes that have emptied while more of their runs wait in the ledger; they are asked for once.
    ///
    /// The ledger names the oldest first, also those under way. While those alone would fill the
    /// answer (Airflow is down), asking brings nothing new.
    pub(super) fn take_overflowed(&mut self) -> Vec<ScheduleName> {
        let lanes = &mut self.lanes;
        let empty = self.overflowed.extract_if(|schedule| {
            lanes.get_mut(schedule).is_none_or(|lane| {
                let empty = lane.waiting.is_empty() && lane.under_way.len() <= LANE_LENGTH / 2;
                lane.overflowed &= !empty;
                empty
            })
        });
        empty.collect()
    }

    /// Reading the ledger for a lane failed, or did not bring all: ask again.
    pub(super) fn refill_later(&mut self, schedule: &ScheduleName) {
        if let Some(lane) = self.lanes.get_mut(schedule) {
            lane.overflowed = true;
            self.overflowed.insert(schedule.clone());
        }
    }

    /// Forgets lanes that hold nothing.
    pub(super) fn tidy(&mut self) {
        self.replacing.retain(|schedule| self.lanes.contains_key(schedule));
        self.lanes.retain(|_, lane| {
            lane.in_ring
                || lane.overflowed
                || lane.held
                || !(lane.waiting.is_empty() && lane.under_way.is_empty() && lane.active.is_empty())
        });
    }
}

#[cfg(test)]
mod tests;

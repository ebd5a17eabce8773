//! Who goes next: the runs that wait for one Airflow, shared out fairly among their schedules.
//!
//! Each schedule has a lane, and lanes take turns, so a burst of one never delays another's cron.
//! A run that owns a lock waits for it before it takes a place among those that are ready.
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

/// Which runs of a schedule are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hold {
    /// Those that its trigger made: the schedule is paused.
    pub(super) triggered: bool,
    /// Those that own a lock: the DAG is paused in Airflow, so they would hold it for nothing.
    pub(super) locked: bool,
    /// What the trigger made is skipped, and need not be held.
    pub(super) skipping: bool,
}

impl Hold {
    fn holds(self, ticket: &Ticket) -> bool {
        let locked = self.locked && ticket.lock.is_some();
        if ticket.trigger == TriggerKind::Manual { locked } else { self.triggered || (locked && !self.skipping) }
    }
}

/// The runs of one schedule.
#[derive(Debug)]
struct Lane {
    turn: Turn,
    hold: Hold,
    waiting: VecDeque<Ticket>,
    /// On their way: waiting for their lock or for a place, being submitted, or waiting for their next try.
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
            hold: Hold::default(),
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

    /// Whether the run that may go now needs a lock first; `None` when none may go.
    fn ready_needs_lock(&self) -> Option<bool> {
        Some(self.waiting.get(self.ready()?)?.lock.is_some())
    }

    /// Takes a run in again, or one that is older than the last: in its place.
    fn insert(&mut self, ticket: Ticket) {
        let position = self.waiting.partition_point(|waiting| waiting.id < ticket.id);
        self.waiting.insert(position, ticket);
    }

    /// The position of the run that goes next, once nothing is in its way.
    fn first(&self) -> Option<usize> {
        self.waiting.iter().position(|ticket| !self.hold.holds(ticket))
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
    /// Lanes whose next run needs a lock first, likewise.
    lock_ring: VecDeque<ScheduleName>,
    /// Runs that wait for their lock.
    locking: HashMap<RunId, Ticket>,
    /// Runs that have it, in the order in which they got it.
    locked: VecDeque<Ticket>,
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
        self.lanes.values().map(|lane| lane.waiting.len()).sum::<usize>()
            + self.delayed.len()
            + self.again.len()
            + self.locking.len()
            + self.locked.len()
    }

    /// Every run that waits here, for its turn or for its next try.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&ScheduleName, RunId)> {
        let delayed = self.delayed.iter().map(|Reverse(delayed)| &delayed.ticket);
        let in_lanes = self.lanes.values().flat_map(|lane| &lane.waiting);
        let locks = self.locking.values().chain(&self.locked);
        in_lanes.chain(delayed).chain(&self.again).chain(locks).map(|ticket| (&ticket.schedule, ticket.id))
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
                    lane.insert(ticket.clone());
                }
            }
            _ => lane.waiting.push_back(ticket.clone()),
        }
        self.enter_ring(&ticket.schedule);
    }

    fn enter_ring(&mut self, schedule: &ScheduleName) {
        let Some(lane) = self.lanes.get_mut(schedule).filter(|lane| !lane.in_ring) else { return };
        let Some(needs_lock) = lane.ready_needs_lock() else { return };
        lane.in_ring = true;
        if needs_lock { &mut self.lock_ring } else { &mut self.ring }.push_back(schedule.clone());
    }

    /// The next run that is to ask for its lock, which is then under way; it waits for it, or is skipped.
    pub(super) fn next_to_lock(&mut self) -> Option<Ticket> {
        while let Some(schedule) = self.lock_ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&schedule) else { continue };
            lane.in_ring = false;
            let ticket = match lane.ready_needs_lock() {
                Some(true) => lane.ready().and_then(|position| lane.waiting.remove(position)),
                _ => None,
            };
            if let Some(ticket) = &ticket {
                lane.under_way.insert(ticket.id);
            }
            self.enter_ring(&schedule);
            if ticket.is_some() {
                return ticket;
            }
        }
        None
    }

    /// A run has asked for its lock.
    pub(super) fn wait_for_lock(&mut self, ticket: Ticket) {
        self.locking.insert(ticket.id, ticket);
    }

    /// A run has its lock; `false` when it does not wait for it any more.
    pub(super) fn has_lock(&mut self, run: RunId) -> bool {
        let Some(ticket) = self.locking.remove(&run) else { return false };
        self.locked.push_back(ticket);
        true
    }

    /// The next run to submit at `now`, which is then under way.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Ticket> {
        while self.delayed.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(Delayed { ticket, .. })) = self.delayed.pop() else { break };
            self.again.push_back(ticket);
        }
        while let Some(ticket) = self.again.pop_front() {
            if ticket.lookup_only || !self.holds(&ticket) {
                return Some(ticket);
            }
            // A pause comes before a retry; looking whether the run exists goes on.
            self.look_later(ticket, now);
        }
        while let Some(ticket) = self.locked.pop_front() {
            if !self.holds(&ticket) {
                return Some(ticket);
            }
            // It may have been submitted before, so it keeps its lock.
            self.look_later(ticket, now);
        }
        while let Some(schedule) = self.ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&schedule) else { continue };
            lane.in_ring = false;
            if lane.ready_needs_lock() != Some(false) {
                self.enter_ring(&schedule);
                continue;
            }
            let Some(ticket) = lane.ready().and_then(|position| lane.waiting.remove(position)) else { continue };
            lane.under_way.insert(ticket.id);
            self.enter_ring(&schedule);
            return Some(ticket);
        }
        None
    }

    fn holds(&self, ticket: &Ticket) -> bool {
        self.lanes.get(&ticket.schedule).is_some_and(|lane| lane.hold.holds(ticket))
    }

    fn look_later(&mut self, ticket: Ticket, now: Timestamp) {
        let at = now.saturating_add(HELD_PAUSE).unwrap_or(Timestamp::MAX);
        self.delayed.push(Reverse(Delayed { at, ticket }));
    }

    /// When the next try is due.
    pub(super) fn next_try(&self) -> Option<Timestamp> {
        self.delayed.peek().map(|Reverse(next)| next.at)
    }

    /// A run that is under way is to be tried again at `at`, unless it has ended meanwhile; whether it is.
    pub(super) fn try_again(&mut self, ticket: Ticket, at: Timestamp) -> bool {
        let ended = self.lanes.get(&ticket.schedule).is_some_and(|lane| lane.ended.contains(&ticket.id));
        if ended {
            self.settled(&ticket.schedule, ticket.id, false);
            return false;
        }
        self.delayed.push(Reverse(Delayed { at, ticket }));
        true
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

    /// Whether a run is on its way, in whichever lane.
    pub(super) fn has_under_way(&self, run: RunId) -> bool {
        self.lanes.values().any(|lane| lane.under_way.contains(&run))
    }

    /// Whether a run of this schedule is on its way.
    pub(super) fn is_under_way(&self, schedule: &ScheduleName, run: RunId) -> bool {
        self.lanes.get(schedule).is_some_and(|lane| lane.under_way.contains(&run))
    }

    /// A run is over, or was given up: it leaves wherever it stands. `true` when a request for it is on
    /// its way, so that the last word is still to come.
    pub(super) fn closed(&mut self, schedule: &ScheduleName, run: RunId) -> bool {
        let Some(lane) = self.lanes.get_mut(schedule) else { return false };
        if lane.active.remove(&run) {
            self.enter_ring(schedule);
            return false;
        }
        lane.waiting.retain(|ticket| ticket.id != run);
        let (delayed, again) = (self.delayed.len(), self.again.len());
        self.delayed.retain(|Reverse(delayed)| delayed.ticket.id != run);
        self.again.retain(|ticket| ticket.id != run);
        let locked = self.locked.len();
        self.locked.retain(|ticket| ticket.id != run);
        let waited = self.locking.remove(&run).is_some()
            || self.locked.len() < locked
            || self.delayed.len() < delayed
            || self.again.len() < again;
        let mut requesting = false;
        if waited {
            lane.under_way.remove(&run);
        } else if lane.under_way.contains(&run) {
            // Its request is on its way; whatever comes of that, there is no next one.
            lane.ended.insert(run);
            requesting = true;
        }
        self.enter_ring(schedule);
        requesting
    }

    /// Holds runs of a schedule back, or lets them go on. Those that are held now and have asked for
    /// their lock or got it, but were not submitted, stand in line again: they are to give it back.
    /// `keeps` names runs that may have been submitted before.
    pub(super) fn hold(&mut self, schedule: &ScheduleName, hold: Hold, keeps: &HashSet<RunId>) -> Vec<RunId> {
        let Some(lane) = self.lanes.get_mut(schedule).filter(|lane| lane.hold != hold) else { return Vec::new() };
        lane.hold = hold;
        let of_lane =
            |ticket: &Ticket| ticket.schedule == *schedule && hold.holds(ticket) && !keeps.contains(&ticket.id);
        let mut back = Vec::new();
        for ticket in std::mem::take(&mut self.locked) {
            if of_lane(&ticket) {
                back.push(ticket);
            } else {
                self.locked.push_back(ticket);
            }
        }
        back.extend(self.locking.extract_if(|_, ticket| of_lane(ticket)).map(|(_, ticket)| ticket));
        let runs = back.iter().map(|ticket| ticket.id).collect();
        for ticket in back {
            lane.under_way.remove(&ticket.id);
            lane.insert(ticket);
        }
        self.enter_ring(schedule);
        runs
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
                || lane.hold != Hold::default()
                || !(lane.waiting.is_empty() && lane.under_way.is_empty() && lane.active.is_empty())
        });
    }
}

#[cfg(test)]
mod tests;

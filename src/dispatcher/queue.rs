//! Who goes next: the runs that wait for one Airflow, shared out fairly among their schedules.
//!
//! Each schedule has a lane, and lanes take turns, so a burst of one never delays another's cron.
//! A run that owns a lock waits for it before it takes a place among those that are ready.
//! Nothing here waits or sends: the loop asks for the next run and tells what became of the last, and
//! `stage` says what follows from it. The stages are the one truth; the lines only give an order.
//! What does not fit stays in the ledger and is read again when its lane has emptied.

mod stage;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::domain::run::RunId;
use crate::domain::schedule::{Overlap, ScheduleName, TriggerKind};
use crate::store::ActiveRun;
use crate::store::model::Ticket;
use stage::News;
pub(super) use stage::{Answer, Stage, Word};

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
    /// Where each of them stands.
    stages: HashMap<RunId, Stage>,
    /// Those in line, in the order of their numbers.
    waiting: VecDeque<Ticket>,
    /// Those open in Airflow, so that they need not be looked for.
    open: BTreeSet<RunId>,
    /// More of them wait in the ledger.
    overflowed: bool,
    /// While more of them are being read: those that have left since, which the answer may still name.
    left: Option<HashSet<RunId>>,
    /// Whether the lane stands in the ring.
    in_ring: bool,
}

impl Lane {
    fn new(turn: Turn) -> Self {
        Self {
            turn,
            hold: Hold::default(),
            stages: HashMap::new(),
            waiting: VecDeque::new(),
            open: BTreeSet::new(),
            overflowed: false,
            left: None,
            in_ring: false,
        }
    }

    /// Notes where a run stands from now on; `None` when nothing is expected of it any more.
    fn put(&mut self, run: RunId, stage: Option<Stage>) {
        if matches!(stage, Some(Stage::Open(_))) {
            self.open.insert(run);
        } else {
            self.open.remove(&run);
        }
        if let Some(stage) = stage {
            self.stages.insert(run, stage);
        } else {
            self.stages.remove(&run);
            if let Some(left) = &mut self.left {
                left.insert(run);
            }
        }
    }

    /// How many are on their way or open in Airflow.
    fn busy(&self) -> usize {
        self.stages.len().saturating_sub(self.waiting.len())
    }

    /// The position of the run that may go now.
    fn ready(&self) -> Option<usize> {
        if self.turn == Turn::Together || self.busy() == 0 { self.first() } else { None }
    }

    /// Hands out the run at this position of the line.
    fn hand_out(&mut self, position: usize) -> Option<Ticket> {
        let ticket = self.waiting.remove(position)?;
        self.put(ticket.id, Some(Stage::Handed(Word::Nothing)));
        Some(ticket)
    }

    /// Whether the run that may go now needs a lock first; `None` when none may go.
    fn ready_needs_lock(&self) -> Option<bool> {
        Some(self.waiting.get(self.ready()?)?.lock.is_some())
    }

    /// Puts a run in line. They arrive in order but for those taken up again, which are older.
    fn insert(&mut self, ticket: Ticket) {
        self.put(ticket.id, Some(Stage::Waiting));
        let position = match self.waiting.back() {
            Some(last) if last.id >= ticket.id => self.waiting.partition_point(|waiting| waiting.id < ticket.id),
            _ => self.waiting.len(),
        };
        self.waiting.insert(position, ticket);
    }

    /// Takes a run out of the line.
    fn remove(&mut self, run: RunId) {
        if let Ok(position) = self.waiting.binary_search_by_key(&run, |ticket| ticket.id) {
            self.waiting.remove(position);
        }
    }

    /// Takes in the lane that had its new name: what was heard there of its own runs is the ledger's latest
    /// word, and the others are those of the schedule that had the name.
    fn take_in(&mut self, heard: Self) {
        let mut waiting: HashMap<RunId, Ticket> = heard.waiting.into_iter().map(|ticket| (ticket.id, ticket)).collect();
        for (run, stage) in heard.stages {
            match (self.stages.get(&run), waiting.remove(&run)) {
                (None, Some(ticket)) => self.insert(ticket),
                (None, None) => self.put(run, Some(stage)),
                (Some(known), _) if matches!(stage, Stage::Open(_)) => {
                    if *known == Stage::Waiting {
                        self.remove(run);
                    }
                    self.put(run, Some(stage));
                }
                (Some(_), _) => {}
            }
        }
        self.overflowed |= heard.overflowed;
        if let Some(left) = heard.left {
            self.left.get_or_insert_default().extend(left);
        }
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
    /// Whether something was heard that only the ledger can explain.
    doubtful: bool,
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

    /// Every run that is known, and where it stands.
    pub(super) fn stages(&self) -> impl Iterator<Item = (&ScheduleName, RunId, &Stage)> {
        self.lanes
            .iter()
            .flat_map(|(schedule, lane)| lane.stages.iter().map(move |(run, stage)| (schedule, *run, stage)))
    }

    /// Where a run of this schedule stands; `None` for one that is not known.
    pub(super) fn stage(&self, schedule: &ScheduleName, run: RunId) -> Option<&Stage> {
        self.lanes.get(schedule)?.stages.get(&run)
    }

    /// Whether a run is known, in whichever lane.
    pub(super) fn knows(&self, run: RunId) -> bool {
        self.lanes.values().any(|lane| lane.stages.contains_key(&run))
    }

    /// Whether what was heard since the last call contradicts itself: the ledger is to be read anew.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    /// Takes a run in that is pending, unless it is known already or its lane is full.
    pub(super) fn offer(&mut self, ticket: Ticket, turn: Turn, now: Timestamp) {
        if turn == Turn::Replacing {
            self.replacing.insert(ticket.schedule.clone());
        }
        let lane = self.lanes.entry(ticket.schedule.clone()).or_insert_with(|| Lane::new(turn));
        if let Some(stage) = lane.stages.get(&ticket.id) {
            match stage.offered() {
                Some(stage) => lane.put(ticket.id, Some(stage)),
                None => self.doubtful = true,
            }
            return;
        }
        let tried = ticket.first_attempt_at.is_some();
        if tried || (ticket.lock.is_none() && ticket.not_before.is_some_and(|at| at > now)) {
            // It was tried before this process began, so it keeps its place. One that owns a lock and was
            // never tried has to ask for it first, whatever the clock of whoever recorded it said.
            let at = ticket.not_before.unwrap_or(now);
            lane.put(ticket.id, Some(Stage::Delayed));
            self.delayed.push(Reverse(Delayed { at, ticket }));
            return;
        }
        // Runs by hand are few, and must be at hand when the schedule is held.
        if ticket.trigger != TriggerKind::Manual && (lane.overflowed || lane.waiting.len() >= LANE_LENGTH) {
            lane.overflowed = true;
            self.overflowed.insert(ticket.schedule);
            return;
        }
        let schedule = ticket.schedule.clone();
        lane.insert(ticket);
        self.enter_ring(&schedule);
    }

    fn enter_ring(&mut self, schedule: &ScheduleName) {
        let Some(lane) = self.lanes.get_mut(schedule).filter(|lane| !lane.in_ring) else { return };
        let Some(needs_lock) = lane.ready_needs_lock() else { return };
        lane.in_ring = true;
        if needs_lock { &mut self.lock_ring } else { &mut self.ring }.push_back(schedule.clone());
    }

    /// The next run that is to ask for its lock, which is then handed out; it waits for it, or is skipped.
    pub(super) fn next_to_lock(&mut self) -> Option<Ticket> {
        while let Some(schedule) = self.lock_ring.pop_front() {
            let Some(lane) = self.lanes.get_mut(&schedule) else { continue };
            lane.in_ring = false;
            let ticket = match lane.ready_needs_lock() {
                Some(true) => lane.ready().and_then(|position| lane.hand_out(position)),
                _ => None,
            };
            self.enter_ring(&schedule);
            if ticket.is_some() {
                return ticket;
            }
        }
        None
    }

    /// A run has asked for its lock.
    pub(super) fn wait_for_lock(&mut self, ticket: Ticket) {
        self.stand(&ticket, Stage::Locking);
        self.locking.insert(ticket.id, ticket);
    }

    /// A run has its lock; `false` when it does not wait for it any more.
    pub(super) fn has_lock(&mut self, run: RunId) -> bool {
        let Some(ticket) = self.locking.remove(&run) else { return false };
        self.stand(&ticket, Stage::Locked);
        self.locked.push_back(ticket);
        true
    }

    fn stand(&mut self, ticket: &Ticket, stage: Stage) {
        if let Some(lane) = self.lanes.get_mut(&ticket.schedule) {
            lane.put(ticket.id, Some(stage));
        }
    }

    /// The next run to submit at `now`, which is then handed out.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Ticket> {
        while self.delayed.peek().is_some_and(|Reverse(next)| next.at <= now) {
            let Some(Reverse(Delayed { ticket, .. })) = self.delayed.pop() else { break };
            self.again.push_back(ticket);
        }
        while let Some(ticket) = self.again.pop_front() {
            if ticket.lookup_only || !self.holds(&ticket) {
                self.stand(&ticket, Stage::Handed(Word::Nothing));
                return Some(ticket);
            }
            // A pause comes before a retry; looking whether the run exists goes on.
            self.look_later(ticket, now);
        }
        while let Some(ticket) = self.locked.pop_front() {
            if !self.holds(&ticket) {
                self.stand(&ticket, Stage::Handed(Word::Nothing));
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
            let Some(ticket) = lane.ready().and_then(|position| lane.hand_out(position)) else { continue };
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
        self.stand(&ticket, Stage::Delayed);
        self.delayed.push(Reverse(Delayed { at, ticket }));
    }

    /// When the next try is due.
    pub(super) fn next_try(&self) -> Option<Timestamp> {
        self.delayed.peek().map(|Reverse(next)| next.at)
    }

    /// A run that was handed out is to be tried again at `at`, unless it has ended or Airflow has it
    /// meanwhile; `false` when nothing is expected of it any more.
    pub(super) fn try_again(&mut self, ticket: Ticket, at: Timestamp) -> bool {
        let (schedule, run) = (ticket.schedule.clone(), ticket.id);
        let known = self.answered(&schedule, run, Answer::Again);
        if self.stage(&schedule, run) == Some(&Stage::Delayed) {
            self.delayed.push(Reverse(Delayed { at, ticket }));
        }
        known
    }

    /// What came of a run that was handed out; `false` when nothing is expected of it any more.
    pub(super) fn answered(&mut self, schedule: &ScheduleName, run: RunId, answer: Answer) -> bool {
        self.hear(schedule, run, News::Answered(answer))
    }

    /// Airflow has this run open, as the ledger or the monitor says.
    pub(super) fn opened(&mut self, active: ActiveRun, turn: Turn) {
        let (schedule, run) = (active.schedule.clone(), active.id);
        self.lanes.entry(schedule.clone()).or_insert_with(|| Lane::new(turn));
        self.hear(&schedule, run, News::Opened(active));
    }

    /// A run is over (`accepted`: Airflow had it), or was given up. It leaves wherever it waits; `false`
    /// when nothing is expected of it any more.
    pub(super) fn closed(&mut self, schedule: &ScheduleName, run: RunId, accepted: bool) -> bool {
        let waits =
            matches!(self.stage(schedule, run), Some(Stage::Waiting | Stage::Locking | Stage::Locked | Stage::Delayed));
        // It may have been taken up again, and that was heard of before its end.
        self.doubtful |= accepted && waits;
        self.hear(schedule, run, News::Closed { accepted })
    }

    /// Moves a run to the stage that follows; `false` when there is none.
    fn hear(&mut self, schedule: &ScheduleName, run: RunId, news: News) -> bool {
        let Some(lane) = self.lanes.get_mut(schedule) else { return false };
        let before = lane.stages.get(&run).cloned();
        let after = Stage::after(before.clone(), news);
        if before != after {
            match before {
                Some(Stage::Waiting) => lane.remove(run),
                Some(Stage::Locking) => drop(self.locking.remove(&run)),
                Some(Stage::Locked) => self.locked.retain(|ticket| ticket.id != run),
                Some(Stage::Delayed) => {
                    self.delayed.retain(|Reverse(delayed)| delayed.ticket.id != run);
                    self.again.retain(|ticket| ticket.id != run);
                }
                Some(Stage::Handed(_) | Stage::Open(_)) | None => {}
            }
        }
        let known = after.is_some();
        lane.put(run, after);
        self.enter_ring(schedule);
        known
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
            lane.insert(ticket);
        }
        self.enter_ring(schedule);
        runs
    }

    /// A schedule has another name from now on, with all its runs.
    pub(super) fn rename(&mut self, old: &ScheduleName, new: &ScheduleName) {
        let Some(mut lane) = self.lanes.remove(old) else { return };
        lane.in_ring = false;
        for ticket in &mut lane.waiting {
            ticket.schedule = new.clone();
        }
        for stage in lane.stages.values_mut() {
            if let Stage::Open(active) | Stage::Handed(Word::Open(active)) = stage {
                active.schedule = new.clone();
            }
        }
        if let Some(heard) = self.lanes.remove(new) {
            lane.take_in(heard);
        }
        let mut delayed = std::mem::take(&mut self.delayed).into_vec();
        let tickets = self.again.iter_mut().chain(&mut self.locked).chain(self.locking.values_mut());
        for ticket in tickets.chain(delayed.iter_mut().map(|Reverse(delayed)| &mut delayed.ticket)) {
            if ticket.schedule == *old {
                ticket.schedule = new.clone();
            }
        }
        self.delayed = delayed.into();
        for names in [&mut self.overflowed, &mut self.replacing] {
            if names.remove(old) {
                names.insert(new.clone());
            }
        }
        self.lanes.insert(new.clone(), lane);
        self.enter_ring(new);
    }

    /// How the runs of each schedule stand to each other from now on; `None` leaves it as it was.
    pub(super) fn set_turns(&mut self, turn: impl Fn(&ScheduleName) -> Option<Turn>) {
        let mut changed = Vec::new();
        for (schedule, lane) in &mut self.lanes {
            let Some(turn) = turn(schedule).filter(|turn| *turn != lane.turn) else { continue };
            lane.turn = turn;
            changed.push((schedule.clone(), turn));
        }
        for (schedule, turn) in changed {
            if turn == Turn::Replacing {
                self.replacing.insert(schedule.clone());
            } else {
                self.replacing.remove(&schedule);
            }
            self.enter_ring(&schedule);
        }
    }

    /// The runs that a newer one is waiting to replace.
    pub(super) fn to_cancel(&self) -> Vec<&ActiveRun> {
        self.replacing
            .iter()
            .filter_map(|schedule| self.lanes.get(schedule))
            .filter(|lane| lane.first().is_some())
            .flat_map(|lane| lane.open.iter().filter_map(|run| lane.stages.get(run)))
            .filter_map(|stage| if let Stage::Open(active) = stage { Some(active) } else { None })
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
                let on_their_way = lane.busy() - lane.open.len();
                let empty = lane.left.is_none() && lane.waiting.is_empty() && on_their_way <= LANE_LENGTH / 2;
                if empty {
                    lane.overflowed = false;
                    lane.left = Some(HashSet::new());
                }
                empty
            })
        });
        empty.collect()
    }

    /// Runs were read for a lane; those among them that are news. What is known, or was when the reading
    /// began, is not: it may be the past that was read.
    pub(super) fn refilled(&mut self, schedule: &ScheduleName, mut tickets: Vec<Ticket>) -> Vec<Ticket> {
        if let Some(lane) = self.lanes.get_mut(schedule) {
            let left = lane.left.take().unwrap_or_default();
            tickets.retain(|ticket| !left.contains(&ticket.id) && !lane.stages.contains_key(&ticket.id));
        }
        tickets
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
                || lane.left.is_some()
                || !lane.stages.is_empty()
        });
    }
}

#[cfg(test)]
mod tests;

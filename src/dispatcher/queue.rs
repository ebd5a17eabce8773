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
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn name(text: &str) -> ScheduleName {
        ScheduleName::new(text).unwrap()
    }

    fn ticket(schedule: &str, id: i64) -> Ticket {
        Ticket {
            id: RunId(id),
            schedule: name(schedule),
            airflow: "main".into(),
            dag_id: "d".into(),
            dag_run_id: format!("flowkeeper__{schedule}__m{id}"),
            trigger: TriggerKind::Znode,
            due_at: Timestamp::UNIX_EPOCH,
            conf: RawValue::from_string("{}".into()).unwrap(),
            logical_date: None,
            data_interval: None,
            attempts: 0,
            first_attempt_at: None,
            not_before: None,
            lookup_only: false,
        }
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        NOW + SignedDuration::from_secs(seconds)
    }

    /// Takes until nothing is left to take.
    fn drain(queue: &mut Queue, now: Timestamp) -> Vec<i64> {
        std::iter::from_fn(|| queue.take(now)).map(|ticket| ticket.id.0).collect()
    }

    #[test]
    fn a_burst_of_one_schedule_does_not_delay_another() {
        let mut queue = Queue::default();
        for id in 1..=100 {
            queue.offer(ticket("burst", id), Turn::Together, NOW);
        }
        queue.offer(ticket("nightly", 101), Turn::Together, NOW);
        let order = drain(&mut queue, NOW);
        assert_eq!(order[..3], [1, 101, 2]);
        assert_eq!(order.len(), 101);
    }

    #[test]
    fn runs_of_a_queueing_schedule_go_one_after_the_other() {
        let mut queue = Queue::default();
        queue.offer(ticket("inbox", 1), Turn::OneByOne, NOW);
        queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
        assert_eq!(drain(&mut queue, NOW), [1]);
        queue.settled(&name("inbox"), RunId(1), true);
        assert_eq!(drain(&mut queue, NOW), [0; 0], "the first is open in Airflow");
        queue.closed(&name("inbox"), RunId(1));
        assert_eq!(drain(&mut queue, NOW), [2]);
    }

    #[test]
    fn a_run_that_waits_for_its_next_try_keeps_its_turn() {
        let mut queue = Queue::default();
        queue.offer(ticket("inbox", 1), Turn::OneByOne, NOW);
        queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
        let first = queue.take(NOW).unwrap();
        queue.try_again(first, at(5));
        assert_eq!(queue.next_try(), Some(at(5)));
        assert_eq!(drain(&mut queue, at(4)), [0; 0]);
        assert_eq!(drain(&mut queue, at(5)), [1]);
    }

    #[test]
    fn a_run_that_was_tried_in_an_earlier_life_waits_for_its_time() {
        let mut queue = Queue::default();
        queue.offer(
            Ticket { attempts: 3, first_attempt_at: Some(NOW), not_before: Some(at(9)), ..ticket("inbox", 1) },
            Turn::OneByOne,
            NOW,
        );
        queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
        assert_eq!(drain(&mut queue, NOW), [0; 0]);
        assert_eq!(drain(&mut queue, at(9)), [1]);
    }

    #[test]
    fn a_held_schedule_lets_only_runs_by_hand_pass() {
        let mut queue = Queue::default();
        queue.offer(ticket("inbox", 1), Turn::Together, NOW);
        queue.hold(&name("inbox"), true);
        queue.offer(Ticket { trigger: TriggerKind::Manual, ..ticket("inbox", 2) }, Turn::Together, NOW);
        assert_eq!(drain(&mut queue, NOW), [2]);
        queue.hold(&name("inbox"), false);
        assert_eq!(drain(&mut queue, NOW), [1]);
    }

    #[test]
    fn a_run_taken_up_again_by_hand_waits_its_turn() {
        let mut queue = Queue::default();
        queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
        assert_eq!(drain(&mut queue, NOW), [2]);
        queue.offer(Ticket { attempts: 3, not_before: Some(NOW), ..ticket("inbox", 1) }, Turn::OneByOne, NOW);
        assert_eq!(drain(&mut queue, NOW), [0; 0]);
        queue.settled(&name("inbox"), RunId(2), false);
        assert_eq!(drain(&mut queue, NOW), [1]);
    }

    #[test]
    fn a_pause_holds_back_tries_but_not_looks() {
        let mut queue = Queue::default();
        for id in 1..=2 {
            queue.offer(ticket("inbox", id), Turn::Together, NOW);
        }
        let (first, second) = (queue.take(NOW).unwrap(), queue.take(NOW).unwrap());
        queue.hold(&name("inbox"), true);
        queue.try_again(first, at(1));
        queue.try_again(Ticket { lookup_only: true, ..second }, at(1));
        assert_eq!(drain(&mut queue, at(1)), [2]);
        queue.hold(&name("inbox"), false);
        assert_eq!(drain(&mut queue, at(3)), [1]);
    }

    #[test]
    fn a_run_that_was_given_up_leaves_wherever_it_stands() {
        let mut queue = Queue::default();
        for id in 1..=3 {
            queue.offer(ticket("inbox", id), Turn::OneByOne, NOW);
        }
        let first = queue.take(NOW).unwrap();
        queue.try_again(first, at(5));
        queue.closed(&name("inbox"), RunId(2));
        queue.closed(&name("inbox"), RunId(1));
        assert_eq!(drain(&mut queue, NOW), [3]);
        assert_eq!(queue.next_try(), None);
    }

    #[test]
    fn a_run_that_was_given_up_while_its_request_was_under_way_is_not_tried_again() {
        let mut queue = Queue::default();
        for id in 1..=2 {
            queue.offer(ticket("inbox", id), Turn::OneByOne, NOW);
        }
        let first = queue.take(NOW).unwrap();
        queue.closed(&name("inbox"), RunId(1));
        assert_eq!(drain(&mut queue, NOW), [0; 0], "its request may still make a DAG run");
        queue.try_again(first, at(5));
        assert_eq!(queue.next_try(), None);
        assert_eq!(drain(&mut queue, at(5)), [2]);

        // Unless it was taken up again meanwhile.
        queue.offer(ticket("other", 3), Turn::Together, NOW);
        let third = queue.take(NOW).unwrap();
        queue.closed(&name("other"), RunId(3));
        queue.offer(ticket("other", 3), Turn::Together, NOW);
        queue.try_again(third, at(6));
        assert_eq!(drain(&mut queue, at(6)), [3]);
    }

    #[test]
    fn what_runs_is_not_ended_for_a_run_that_is_held_back() {
        let mut queue = Queue::default();
        queue.opened(&name("inbox"), RunId(1), Turn::Replacing);
        queue.offer(ticket("inbox", 2), Turn::Replacing, NOW);
        queue.hold(&name("inbox"), true);
        assert!(queue.to_cancel().is_empty());
        queue.hold(&name("inbox"), false);
        assert_eq!(queue.to_cancel().len(), 1);
    }

    #[test]
    fn what_runs_is_replaced_only_where_that_is_the_policy() {
        for (turn, expected) in [(Turn::Replacing, 1), (Turn::OneByOne, 0), (Turn::Together, 0)] {
            let mut queue = Queue::default();
            queue.opened(&name("inbox"), RunId(1), turn);
            assert!(queue.to_cancel().is_empty());
            queue.offer(ticket("inbox", 2), turn, NOW);
            assert_eq!(queue.to_cancel().len(), expected, "{turn:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_read_again_once_the_lane_is_empty() {
        let mut queue = Queue::default();
        let length = i64::try_from(LANE_LENGTH).unwrap();
        for id in 1..=length + 5 {
            queue.offer(ticket("inbox", id), Turn::Together, NOW);
        }
        assert!(queue.take_overflowed().is_empty());
        assert_eq!(drain(&mut queue, NOW).len(), LANE_LENGTH);
        assert!(queue.take_overflowed().is_empty(), "the ledger would name those under way alone");
        for id in 1..=length / 2 {
            queue.settled(&name("inbox"), RunId(id), true);
        }
        assert_eq!(queue.take_overflowed(), [name("inbox")]);
        assert!(queue.take_overflowed().is_empty(), "asked for once");
        // The ledger names those under way as well; they are known.
        for id in length / 2 + 1..=length + 5 {
            queue.offer(ticket("inbox", id), Turn::Together, NOW);
        }
        assert_eq!(drain(&mut queue, NOW), (length + 1..=length + 5).collect::<Vec<_>>());
    }

    #[test]
    fn lanes_that_hold_nothing_are_forgotten() {
        let mut queue = Queue::default();
        queue.offer(ticket("inbox", 1), Turn::Together, NOW);
        let run = queue.take(NOW).unwrap();
        queue.settled(&run.schedule, run.id, false);
        queue.tidy();
        assert!(queue.lanes.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Offer(u8),
        Take,
        Retry(usize),
        Accept(usize),
        Close(usize),
        Hold(u8, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8).prop_map(Step::Offer),
            Just(Step::Take),
            any::<usize>().prop_map(Step::Retry),
            any::<usize>().prop_map(Step::Accept),
            any::<usize>().prop_map(Step::Close),
            (0..4u8, any::<bool>()).prop_map(|(lane, held)| Step::Hold(lane, held)),
        ]
    }

    proptest! {
        /// Whatever happens in between, every run is handed out, none is under way twice, and a
        /// queueing schedule never has two on their way or open.
        #[test]
        fn every_run_goes_exactly_once_at_a_time(steps in prop::collection::vec(step(), 1..200)) {
            let turn = |lane: u8| if lane.is_multiple_of(2) { Turn::Together } else { Turn::OneByOne };
            let mut queue = Queue::default();
            let (mut next, mut clock) = (0, 0);
            let mut under_way: Vec<Ticket> = Vec::new();
            let mut active: Vec<Ticket> = Vec::new();
            let mut waiting = HashSet::new();
            let lane_of = |ticket: &Ticket| ticket.schedule.as_str().as_bytes()[1] - b'0';
            for step in steps {
                clock += 1;
                match step {
                    Step::Offer(lane) => {
                        next += 1;
                        queue.offer(ticket(&format!("s{lane}"), next), turn(lane), at(clock));
                        waiting.insert(next);
                    }
                    Step::Take => if let Some(taken) = queue.take(at(clock)) {
                        prop_assert!(under_way.iter().all(|other| other.id != taken.id));
                        if turn(lane_of(&taken)) == Turn::OneByOne {
                            prop_assert!(under_way.iter().chain(&active).all(|other| other.schedule != taken.schedule));
                        }
                        waiting.remove(&taken.id.0);
                        under_way.push(taken);
                    },
                    Step::Retry(which) if !under_way.is_empty() => {
                        let ticket = under_way.swap_remove(which % under_way.len());
                        waiting.insert(ticket.id.0);
                        queue.try_again(ticket, at(clock + 3));
                    }
                    Step::Accept(which) if !under_way.is_empty() => {
                        let ticket = under_way.swap_remove(which % under_way.len());
                        queue.settled(&ticket.schedule, ticket.id, true);
                        active.push(ticket);
                    }
                    Step::Close(which) if !active.is_empty() => {
                        let ticket = active.swap_remove(which % active.len());
                        queue.closed(&ticket.schedule, ticket.id);
                    }
                    Step::Hold(lane, held) => queue.hold(&name(&format!("s{lane}")), held),
                    Step::Retry(_) | Step::Accept(_) | Step::Close(_) => {}
                }
            }
            // Everything is let go and ended: everything must come out.
            for lane in 0..4 {
                queue.hold(&name(&format!("s{lane}")), false);
            }
            for _ in 0..=2 * next {
                clock += 10;
                for ticket in under_way.drain(..).chain(active.drain(..)) {
                    queue.settled(&ticket.schedule, ticket.id, true);
                    queue.closed(&ticket.schedule, ticket.id);
                }
                while let Some(taken) = queue.take(at(clock)) {
                    waiting.remove(&taken.id.0);
                    under_way.push(taken);
                }
            }
            prop_assert!(waiting.is_empty(), "never handed out: {waiting:?}");
            prop_assert_eq!(queue.len(), 0);
        }
    }
}

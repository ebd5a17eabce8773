//! Whatever order answers, deliveries and events arrive in: in the end the queue agrees with the ledger.
//!
//! A small ledger makes histories, and tells of them over three ways, each in its own order. The steps
//! choose which way is heard next.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::domain::run::RunState;

const LANES: [(&str, Turn, bool); 4] = [
    ("a", Turn::Together, false),
    ("b", Turn::OneByOne, false),
    ("c", Turn::Replacing, false),
    ("d", Turn::OneByOne, true),
];

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Accepted,
    Over,
    Rejected,
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Record(usize),
    Ask,
    Grant(usize),
    Take,
    /// The request has taken effect; its answer has not come yet.
    Make(usize),
    Answer(usize, Came),
    /// The monitor meets the DAG run.
    See(usize, RunState),
    Cancel(usize),
    /// An operator takes up again what is over.
    Retry(usize),
    Hold(usize, bool, bool),
    HearAnswer,
    HearTicket,
    HearEvent,
}

fn act() -> impl Strategy<Value = Act> {
    let which = any::<usize>;
    prop_oneof![
        2 => (0..LANES.len()).prop_map(Act::Record),
        1 => Just(Act::Ask),
        1 => which().prop_map(Act::Grant),
        2 => Just(Act::Take),
        1 => which().prop_map(Act::Make),
        2 => (which(), prop_oneof![Just(Came::Accepted), Just(Came::Over), Just(Came::Rejected), Just(Came::Lost)])
            .prop_map(|(which, came)| Act::Answer(which, came)),
        2 => (which(), prop_oneof![Just(RunState::Queued), Just(RunState::Success)])
            .prop_map(|(which, state)| Act::See(which, state)),
        1 => which().prop_map(Act::Cancel),
        1 => which().prop_map(Act::Retry),
        1 => (0..LANES.len(), any::<bool>(), any::<bool>()).prop_map(|(lane, all, locked)| Act::Hold(lane, all, locked)),
        3 => Just(Act::HearAnswer),
        3 => Just(Act::HearTicket),
        3 => Just(Act::HearEvent),
    ]
}

struct Row {
    lane: usize,
    state: RunState,
    /// Whether Airflow has its DAG run.
    made: bool,
}

impl Row {
    fn is_in_airflow(&self) -> bool {
        self.state.is_open() && self.state != RunState::Pending
    }
}

#[derive(Default)]
struct World {
    rows: BTreeMap<i64, Row>,
    queue: Queue,
    requests: Vec<Ticket>,
    answers: VecDeque<(Ticket, Came)>,
    tickets: VecDeque<Ticket>,
    events: VecDeque<(i64, RunState)>,
    asking: Vec<i64>,
    granted: HashSet<i64>,
    /// Whether somebody took up a run again: hearing of that before its end takes a look at the ledger.
    retried: bool,
    clock: i64,
}

impl World {
    fn ticket(&self, id: i64) -> Ticket {
        let (schedule, _, lock) = LANES[self.rows[&id].lane];
        if lock { with_lock(schedule, id) } else { ticket(schedule, id) }
    }

    fn lane(&self, id: i64) -> (&'static str, Turn) {
        let (schedule, turn, _) = LANES[self.rows[&id].lane];
        (schedule, turn)
    }

    /// The number of one of the rows.
    fn pick(&self, which: usize) -> Option<i64> {
        self.rows.keys().nth(which % self.rows.len().max(1)).copied()
    }

    fn moves(&mut self, id: i64, state: RunState) {
        let row = self.rows.get_mut(&id).unwrap();
        if row.state != state {
            row.state = state;
            self.events.push_back((id, state));
        }
    }

    fn gone(&mut self, id: i64, known: bool) {
        if !known {
            self.granted.remove(&id);
            self.asking.retain(|asking| *asking != id);
        }
    }

    fn act(&mut self, act: Act) {
        self.clock += 1;
        match act {
            Act::Record(lane) => {
                let id = i64::try_from(self.rows.len()).unwrap() + 1;
                self.rows.insert(id, Row { lane, state: RunState::Pending, made: false });
                self.tickets.push_back(self.ticket(id));
            }
            Act::Ask => {
                let asked = ask(&mut self.queue);
                self.asking.extend(asked);
            }
            Act::Grant(which) if !self.asking.is_empty() => {
                let run = self.asking.swap_remove(which % self.asking.len());
                if self.queue.has_lock(RunId(run)) {
                    self.granted.insert(run);
                }
            }
            Act::Take => self.take(),
            Act::Make(which) if !self.requests.is_empty() => {
                let id = self.requests[which % self.requests.len()].id.0;
                self.rows.get_mut(&id).unwrap().made = true;
            }
            Act::Answer(which, came) if !self.requests.is_empty() => {
                let ticket = self.requests.swap_remove(which % self.requests.len());
                self.answer(ticket, came);
            }
            Act::See(which, state) => {
                if let Some(id) = self.pick(which).filter(|id| self.rows[id].made) {
                    self.moves(id, state);
                }
            }
            Act::Cancel(which) => {
                if let Some(id) = self.pick(which).filter(|id| self.rows[id].state == RunState::Pending) {
                    self.moves(id, RunState::Skipped);
                }
            }
            Act::Retry(which) => {
                if let Some(id) = self.pick(which).filter(|id| !self.rows[id].state.is_open()) {
                    self.retried = true;
                    self.rows.get_mut(&id).unwrap().state = RunState::Pending;
                    self.tickets.push_back(self.ticket(id));
                }
            }
            Act::Hold(lane, triggered, locked) => {
                for back in hold(&mut self.queue, LANES[lane].0, Hold { triggered, locked, skipping: false }) {
                    self.gone(back, false);
                }
            }
            Act::HearAnswer => self.hear_answer(),
            Act::HearTicket => self.hear_ticket(),
            Act::HearEvent => self.hear_event(),
            Act::Grant(_) | Act::Make(_) | Act::Answer(..) => {}
        }
    }

    fn take(&mut self) {
        let Some(taken) = self.queue.take(at(self.clock)) else { return };
        let id = taken.id.0;
        let answered = self.answers.iter().map(|(ticket, _)| ticket);
        let mut others = self.requests.iter().chain(answered);
        assert!(others.clone().all(|other| other.id != taken.id), "{id} is on its way twice");
        if self.lane(id).1 != Turn::Together {
            assert!(others.all(|other| other.schedule != taken.schedule), "{id} goes beside another");
        }
        assert!(
            taken.lock.is_none() || taken.first_attempt_at.is_some() || self.granted.contains(&id),
            "{id} goes without its lock"
        );
        self.requests.push(taken);
    }

    fn answer(&mut self, mut ticket: Ticket, came: Came) {
        let row = self.rows.get_mut(&ticket.id.0).unwrap();
        row.made |= matches!(came, Came::Accepted | Came::Over);
        let state = match came {
            Came::Accepted if !row.state.was_accepted() => RunState::Queued,
            Came::Over if !row.state.was_accepted() => RunState::Success,
            Came::Rejected if row.state == RunState::Pending => RunState::Rejected,
            _ => row.state,
        };
        self.moves(ticket.id.0, state);
        ticket.attempts += 1;
        ticket.first_attempt_at = Some(at(self.clock));
        self.answers.push_back((ticket, came));
    }

    fn hear_answer(&mut self) {
        let Some((ticket, came)) = self.answers.pop_front() else { return };
        let (id, schedule) = (ticket.id, ticket.schedule.clone());
        let known = match came {
            Came::Accepted => {
                let answer = Answer::Open(active(schedule.as_str(), id.0));
                self.queue.answered(&schedule, id, answer)
            }
            Came::Over | Came::Rejected => self.queue.answered(&schedule, id, Answer::Done),
            Came::Lost => self.queue.try_again(ticket, at(self.clock + 3)),
        };
        self.gone(id.0, known);
    }

    fn hear_ticket(&mut self) {
        if let Some(ticket) = self.tickets.pop_front() {
            let turn = self.lane(ticket.id.0).1;
            self.queue.offer(ticket, turn, at(self.clock));
        }
    }

    /// What is delivered before an event is sent is taken in before the event is followed.
    fn hear_event(&mut self) {
        while !self.tickets.is_empty() {
            self.hear_ticket();
        }
        let Some((id, state)) = self.events.pop_front() else { return };
        let (schedule, turn) = self.lane(id);
        if state.is_open() {
            self.queue.opened(active(schedule, id), turn);
        } else {
            let known = self.queue.closed(&name(schedule), RunId(id), state.was_accepted());
            self.gone(id, known);
        }
    }

    fn hear_all(&mut self) {
        while !(self.answers.is_empty() && self.tickets.is_empty() && self.events.is_empty()) {
            self.act(Act::HearAnswer);
            self.act(Act::HearTicket);
            self.act(Act::HearEvent);
        }
    }

    /// What the dispatcher does when it reads the ledger.
    fn compare(&mut self) {
        let stages: Vec<_> =
            self.queue.stages().map(|(_, run, stage)| (run.0, matches!(stage, Stage::Open(_)))).collect();
        for (id, open) in stages {
            let row = &self.rows[&id];
            let over = if open { !row.is_in_airflow() } else { !row.state.is_open() };
            if over {
                let accepted = open || row.state.was_accepted();
                let known = self.queue.closed(&name(self.lane(id).0), RunId(id), accepted);
                self.gone(id, known);
            }
        }
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            let (schedule, turn) = self.lane(id);
            if self.rows[&id].is_in_airflow() {
                self.queue.opened(active(schedule, id), turn);
            } else if self.rows[&id].state == RunState::Pending {
                let ticket = self.ticket(id);
                self.queue.offer(ticket, turn, at(self.clock));
            }
        }
        self.queue.take_doubt();
    }

    /// Nothing is to be heard any more: both must tell the same of every run.
    fn agrees(&self) {
        for (&id, row) in &self.rows {
            let stage = self.queue.stage(&name(LANES[row.lane].0), RunId(id));
            let handed = matches!(stage, Some(Stage::Handed(_)));
            let open = matches!(stage, Some(Stage::Open(_)));
            let agree = match row.state {
                RunState::Pending => stage.is_some() && !open,
                RunState::Queued | RunState::Running => open || handed,
                _ => stage.is_none() || handed,
            };
            assert!(agree, "run {id} is {} in the ledger and stands at {stage:?}", row.state);
        }
    }
}

proptest! {
    #[test]
    fn the_queue_agrees_with_the_ledger_whatever_order_it_hears_in(
        acts in prop::collection::vec(act(), 1..150),
    ) {
        let mut world = World::default();
        for act in acts {
            world.act(act);
        }
        world.hear_all();
        if world.retried {
            world.compare();
        }
        world.agrees();

        // Everything is let go: everything comes out, and nothing stays behind.
        for lane in 0..LANES.len() {
            world.act(Act::Hold(lane, false, false));
        }
        for _ in 0..=3 * world.rows.len() {
            world.clock += 10;
            world.act(Act::Ask);
            for _ in 0..world.asking.len() {
                world.act(Act::Grant(0));
            }
            for _ in 0..=world.rows.len() {
                world.act(Act::Take);
            }
            while !world.requests.is_empty() {
                world.act(Act::Answer(0, Came::Accepted));
            }
            for which in 0..world.rows.len() {
                world.act(Act::See(which, RunState::Success));
            }
            world.hear_all();
        }
        world.agrees();
        prop_assert!(world.rows.values().all(|row| !row.state.is_open()));
        prop_assert_eq!(world.queue.stages().count(), 0);
    }
}

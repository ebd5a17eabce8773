//! Who goes next, case by case and under random histories.

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
        lock: None,
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

//! Who goes next, case by case and under random histories.

mod orders;

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

const PAUSED: Hold = Hold { triggered: true, locked: false, skipping: false };
const DAG_PAUSED: Hold = Hold { triggered: true, locked: true, skipping: false };

/// Holds a schedule back; the runs that give their locks back.
fn hold(queue: &mut Queue, schedule: &str, hold: Hold) -> Vec<i64> {
    queue.hold(&name(schedule), hold, &HashSet::new()).into_iter().map(|run| run.0).collect()
}

fn with_lock(schedule: &str, id: i64) -> Ticket {
    Ticket { lock: Some("warehouse".into()), ..ticket(schedule, id) }
}

fn active(schedule: &str, id: i64) -> ActiveRun {
    let ticket = ticket(schedule, id);
    ActiveRun {
        id: ticket.id,
        schedule: ticket.schedule,
        airflow: ticket.airflow,
        dag_id: ticket.dag_id,
        dag_run_id: ticket.dag_run_id,
    }
}

/// Airflow has taken a run that was handed out; whether it is known still.
fn accept(queue: &mut Queue, schedule: &str, id: i64) -> bool {
    queue.answered(&name(schedule), RunId(id), Answer::Open(active(schedule, id)))
}

/// A run is over in Airflow; whether it is known still.
fn end(queue: &mut Queue, schedule: &str, id: i64) -> bool {
    queue.closed(&name(schedule), RunId(id), true)
}

/// A run was given up; whether it is known still.
fn give_up(queue: &mut Queue, schedule: &str, id: i64) -> bool {
    queue.closed(&name(schedule), RunId(id), false)
}

/// Lets everything ask for its lock that may.
fn ask(queue: &mut Queue) -> Vec<i64> {
    let mut asked = Vec::new();
    while let Some(ticket) = queue.next_to_lock() {
        asked.push(ticket.id.0);
        queue.wait_for_lock(ticket);
    }
    asked
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
    accept(&mut queue, "inbox", 1);
    assert_eq!(drain(&mut queue, NOW), [0; 0], "the first is open in Airflow");
    end(&mut queue, "inbox", 1);
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
    hold(&mut queue, "inbox", PAUSED);
    queue.offer(Ticket { trigger: TriggerKind::Manual, ..ticket("inbox", 2) }, Turn::Together, NOW);
    assert_eq!(drain(&mut queue, NOW), [2]);
    hold(&mut queue, "inbox", Hold::default());
    assert_eq!(drain(&mut queue, NOW), [1]);
}

#[test]
fn a_run_taken_up_again_by_hand_waits_its_turn() {
    let mut queue = Queue::default();
    queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
    assert_eq!(drain(&mut queue, NOW), [2]);
    queue.offer(Ticket { attempts: 3, not_before: Some(NOW), ..ticket("inbox", 1) }, Turn::OneByOne, NOW);
    assert_eq!(drain(&mut queue, NOW), [0; 0]);
    queue.answered(&name("inbox"), RunId(2), Answer::Done);
    assert_eq!(drain(&mut queue, NOW), [1]);
}

#[test]
fn a_pause_holds_back_tries_but_not_looks() {
    let mut queue = Queue::default();
    for id in 1..=2 {
        queue.offer(ticket("inbox", id), Turn::Together, NOW);
    }
    let (first, second) = (queue.take(NOW).unwrap(), queue.take(NOW).unwrap());
    hold(&mut queue, "inbox", PAUSED);
    queue.try_again(first, at(1));
    queue.try_again(Ticket { lookup_only: true, ..second }, at(1));
    assert_eq!(drain(&mut queue, at(1)), [2]);
    hold(&mut queue, "inbox", Hold::default());
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
    give_up(&mut queue, "inbox", 2);
    give_up(&mut queue, "inbox", 1);
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
    give_up(&mut queue, "inbox", 1);
    assert_eq!(drain(&mut queue, NOW), [0; 0], "its request may still make a DAG run");
    queue.try_again(first, at(5));
    assert_eq!(queue.next_try(), None);
    assert_eq!(drain(&mut queue, at(5)), [2]);

    // Unless it was taken up again meanwhile.
    queue.offer(ticket("other", 3), Turn::Together, NOW);
    let third = queue.take(NOW).unwrap();
    give_up(&mut queue, "other", 3);
    queue.offer(ticket("other", 3), Turn::Together, NOW);
    queue.try_again(third, at(6));
    assert_eq!(drain(&mut queue, at(6)), [3]);
}

#[test]
fn what_runs_is_not_ended_for_a_run_that_is_held_back() {
    let mut queue = Queue::default();
    queue.opened(active("inbox", 1), Turn::Replacing);
    queue.offer(ticket("inbox", 2), Turn::Replacing, NOW);
    hold(&mut queue, "inbox", PAUSED);
    assert!(queue.to_cancel().is_empty());
    hold(&mut queue, "inbox", Hold::default());
    assert_eq!(queue.to_cancel().len(), 1);
}

#[test]
fn what_runs_is_replaced_only_where_that_is_the_policy() {
    for (turn, expected) in [(Turn::Replacing, 1), (Turn::OneByOne, 0), (Turn::Together, 0)] {
        let mut queue = Queue::default();
        queue.opened(active("inbox", 1), turn);
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
        accept(&mut queue, "inbox", id);
    }
    assert_eq!(queue.take_overflowed(), [name("inbox")]);
    assert!(queue.take_overflowed().is_empty(), "asked for once");
    // The ledger names those under way as well; they are known. What ended since may be named, too.
    end(&mut queue, "inbox", 1);
    let read = std::iter::once(1).chain(length / 2 + 1..=length + 5).map(|id| ticket("inbox", id));
    for ticket in queue.refilled(&name("inbox"), read.collect()) {
        queue.offer(ticket, Turn::Together, NOW);
    }
    assert_eq!(drain(&mut queue, NOW), (length + 1..=length + 5).collect::<Vec<_>>());
}

#[test]
fn lanes_that_hold_nothing_are_forgotten() {
    let mut queue = Queue::default();
    queue.offer(ticket("inbox", 1), Turn::Together, NOW);
    let run = queue.take(NOW).unwrap();
    queue.answered(&run.schedule, run.id, Answer::Done);
    queue.tidy();
    assert!(queue.lanes.is_empty());
}

#[test]
fn a_run_asks_for_its_lock_before_it_takes_a_place_and_holds_up_nobody_else() {
    let mut queue = Queue::default();
    for id in 1..=3 {
        queue.offer(with_lock("load", id), Turn::Together, NOW);
    }
    queue.offer(ticket("other", 4), Turn::Together, NOW);
    assert_eq!(drain(&mut queue, NOW), [4], "without its lock no run goes");
    assert_eq!(ask(&mut queue), [1, 2, 3]);
    assert_eq!(drain(&mut queue, NOW), [0; 0]);
    assert!(queue.has_lock(RunId(2)) && !queue.has_lock(RunId(2)));
    assert_eq!(drain(&mut queue, NOW), [2]);
    assert_eq!(queue.len(), 2);
}

#[test]
fn overlap_is_judged_before_the_lock() {
    let mut queue = Queue::default();
    for id in 1..=2 {
        queue.offer(with_lock("load", id), Turn::OneByOne, NOW);
    }
    assert_eq!(ask(&mut queue), [1], "the second waits for the first and not for the lock");
    assert!(queue.has_lock(RunId(1)));
    assert_eq!(drain(&mut queue, NOW), [1]);
    accept(&mut queue, "load", 1);
    assert_eq!(ask(&mut queue), [0; 0]);
    assert!(!end(&mut queue, "load", 1));
    assert_eq!(ask(&mut queue), [2]);
}

#[test]
fn a_pause_gives_locks_back_that_were_not_used() {
    for (paused, by_hand_too) in [(PAUSED, false), (DAG_PAUSED, true)] {
        let mut queue = Queue::default();
        for id in 1..=4 {
            let trigger = if id == 4 { TriggerKind::Manual } else { TriggerKind::Znode };
            queue.offer(Ticket { trigger, ..with_lock("load", id) }, Turn::Together, NOW);
        }
        assert_eq!(ask(&mut queue), [1, 2, 3, 4]);
        assert!(queue.has_lock(RunId(1)), "and it waits for a place");
        // The third may have been submitted by an earlier life of this process.
        let keeps = HashSet::from([RunId(3)]);
        let mut back: Vec<_> = queue.hold(&name("load"), paused, &keeps).into_iter().map(|run| run.0).collect();
        back.sort_unstable();
        assert_eq!(back, if by_hand_too { vec![1, 2, 4] } else { vec![1, 2] }, "{paused:?}");
        assert!(!queue.has_lock(RunId(2)), "a grant that came too late");
        assert_eq!(ask(&mut queue), [0; 0]);
        assert!(queue.has_lock(RunId(3)));
        assert_eq!(drain(&mut queue, NOW), [0; 0], "what keeps its lock is not submitted either");
        if !by_hand_too {
            assert!(queue.has_lock(RunId(4)));
            assert_eq!(drain(&mut queue, NOW), [4]);
        }
        hold(&mut queue, "load", Hold::default());
        assert_eq!(ask(&mut queue)[..2], [1, 2], "they queue anew, in their order");
        assert_eq!(drain(&mut queue, at(5)), [3]);
    }
}

#[test]
fn runs_that_are_to_be_skipped_are_not_held_for_their_lock() {
    let mut queue = Queue::default();
    queue.offer(with_lock("load", 1), Turn::Together, NOW);
    queue.offer(Ticket { trigger: TriggerKind::Manual, ..with_lock("load", 2) }, Turn::Together, NOW);
    hold(&mut queue, "load", Hold { locked: true, skipping: true, ..Hold::default() });
    assert_eq!(ask(&mut queue), [1], "the dispatcher skips it instead; the DAG is paused for the one by hand");
}

#[test]
fn a_run_that_was_given_up_leaves_the_queue_for_its_lock() {
    let mut queue = Queue::default();
    for id in 1..=3 {
        queue.offer(with_lock("load", id), Turn::Together, NOW);
    }
    ask(&mut queue);
    assert!(queue.has_lock(RunId(1)) && queue.has_lock(RunId(2)));
    assert!(!give_up(&mut queue, "load", 1), "it waited for a place");
    assert!(!give_up(&mut queue, "load", 3), "it waited for its lock");
    assert_eq!(drain(&mut queue, NOW), [2]);
    assert!(give_up(&mut queue, "load", 2), "its request is on its way");
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_run_that_ends_before_its_answer_is_recorded_leaves_nothing_behind() {
    let mut queue = Queue::default();
    for id in 1..=2 {
        queue.offer(ticket("inbox", id), Turn::Replacing, NOW);
    }
    assert_eq!(drain(&mut queue, NOW), [1]);
    // The database was away: what the monitor saw is in the ledger together with the answer.
    queue.opened(active("inbox", 1), Turn::Replacing);
    assert!(end(&mut queue, "inbox", 1), "its answer is still to come");
    assert!(!accept(&mut queue, "inbox", 1), "which is older than its end");
    assert!(queue.to_cancel().is_empty());
    assert_eq!(drain(&mut queue, NOW), [2]);
}

#[test]
fn what_airflow_turns_out_to_have_is_not_sent_again() {
    let mut queue = Queue::default();
    queue.offer(ticket("inbox", 1), Turn::OneByOne, NOW);
    queue.offer(ticket("inbox", 2), Turn::OneByOne, NOW);
    let first = queue.take(NOW).unwrap();
    assert!(queue.try_again(first, at(5)), "the answer did not come in time");
    queue.opened(active("inbox", 1), Turn::OneByOne);
    assert_eq!((queue.next_try(), queue.len()), (None, 1));
    assert_eq!(drain(&mut queue, at(5)), [0; 0]);
    assert!(!end(&mut queue, "inbox", 1));
    assert_eq!(drain(&mut queue, at(5)), [2]);
}

#[test]
fn a_run_that_owns_a_lock_asks_for_it_however_late_it_may_go() {
    let ahead = Some(at(9));
    let tried = |ticket| Ticket { attempts: 1, first_attempt_at: Some(NOW), ..ticket };
    let cases = [
        // Recorded by a leader whose clock is ahead.
        (Ticket { not_before: ahead, ..with_lock("load", 1) }, vec![1], None),
        (Ticket { not_before: ahead, ..ticket("load", 1) }, vec![], ahead),
        (tried(Ticket { not_before: ahead, ..with_lock("load", 1) }), vec![], ahead),
        (tried(with_lock("load", 1)), vec![], Some(NOW)),
    ];
    for (ticket, asks, tries) in cases {
        let shown = format!("{ticket:?}");
        let mut queue = Queue::default();
        queue.offer(ticket, Turn::Together, NOW);
        assert_eq!((ask(&mut queue), queue.next_try()), (asks, tries), "{shown}");
    }
}

#[test]
fn what_contradicts_itself_is_looked_up_in_the_ledger() {
    let mut queue = Queue::default();
    queue.offer(ticket("inbox", 1), Turn::Together, NOW);
    assert_eq!(drain(&mut queue, NOW), [1]);
    accept(&mut queue, "inbox", 1);
    assert!(!queue.take_doubt());
    queue.offer(ticket("inbox", 1), Turn::Together, NOW);
    assert!(queue.take_doubt() && !queue.take_doubt(), "taken up again before its end was heard of");
    end(&mut queue, "inbox", 1);
    queue.offer(ticket("inbox", 1), Turn::Together, NOW);
    end(&mut queue, "inbox", 1);
    assert!(queue.take_doubt(), "its end is that of an earlier life, or it never went");
}

#[derive(Debug, Clone)]
enum Step {
    Offer(u8),
    Take,
    Retry(usize),
    Accept(usize),
    Close(usize),
    Hold(u8, bool, bool),
    Ask,
    Grant(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8).prop_map(Step::Offer),
        Just(Step::Take),
        any::<usize>().prop_map(Step::Retry),
        any::<usize>().prop_map(Step::Accept),
        any::<usize>().prop_map(Step::Close),
        (0..6u8, any::<bool>(), any::<bool>())
            .prop_map(|(lane, triggered, locked)| Step::Hold(lane, triggered, locked)),
        Just(Step::Ask),
        any::<usize>().prop_map(Step::Grant),
    ]
}

proptest! {
    /// Whatever happens in between, every run is handed out, none is under way twice, and a
    /// queueing schedule never has two on their way or open. What owns a lock goes only with it.
    #[test]
    fn every_run_goes_exactly_once_at_a_time(steps in prop::collection::vec(step(), 1..200)) {
        let turn = |lane: u8| if lane.is_multiple_of(2) { Turn::Together } else { Turn::OneByOne };
        let mut queue = Queue::default();
        let (mut next, mut clock) = (0, 0);
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut active: Vec<Ticket> = Vec::new();
        let mut waiting = HashSet::new();
        let (mut locking, mut locked) = (Vec::new(), HashSet::new());
        let lane_of = |ticket: &Ticket| ticket.schedule.as_str().as_bytes()[1] - b'0';
        for step in steps {
            clock += 1;
            match step {
                Step::Offer(lane) => {
                    next += 1;
                    let schedule = format!("s{lane}");
                    let ticket = if lane < 4 { ticket(&schedule, next) } else { with_lock(&schedule, next) };
                    queue.offer(ticket, turn(lane), at(clock));
                    waiting.insert(next);
                }
                Step::Take => if let Some(taken) = queue.take(at(clock)) {
                    prop_assert!(under_way.iter().all(|other| other.id != taken.id));
                    if turn(lane_of(&taken)) == Turn::OneByOne {
                        prop_assert!(under_way.iter().chain(&active).all(|other| other.schedule != taken.schedule));
                    }
                    prop_assert!(taken.lock.is_none() || locked.contains(&taken.id.0));
                    waiting.remove(&taken.id.0);
                    under_way.push(taken);
                },
                Step::Ask => locking.extend(ask(&mut queue)),
                Step::Grant(which) if !locking.is_empty() => {
                    let run = locking.swap_remove(which % locking.len());
                    prop_assert!(queue.has_lock(RunId(run)));
                    locked.insert(run);
                }
                Step::Retry(which) if !under_way.is_empty() => {
                    let ticket = under_way.swap_remove(which % under_way.len());
                    waiting.insert(ticket.id.0);
                    queue.try_again(ticket, at(clock + 3));
                }
                Step::Accept(which) if !under_way.is_empty() => {
                    let ticket = under_way.swap_remove(which % under_way.len());
                    accept(&mut queue, ticket.schedule.as_str(), ticket.id.0);
                    active.push(ticket);
                }
                Step::Close(which) if !active.is_empty() => {
                    let ticket = active.swap_remove(which % active.len());
                    end(&mut queue, ticket.schedule.as_str(), ticket.id.0);
                }
                Step::Hold(lane, triggered, lock) => {
                    let held = Hold { triggered, locked: lock, skipping: false };
                    for back in hold(&mut queue, &format!("s{lane}"), held) {
                        locked.remove(&back);
                        locking.retain(|run| *run != back);
                    }
                }
                Step::Grant(_) | Step::Retry(_) | Step::Accept(_) | Step::Close(_) => {}
            }
        }
        // Everything is let go and ended: everything must come out.
        for lane in 0..6 {
            hold(&mut queue, &format!("s{lane}"), Hold::default());
        }
        for _ in 0..=2 * next {
            clock += 10;
            for ticket in under_way.drain(..).chain(active.drain(..)) {
                accept(&mut queue, ticket.schedule.as_str(), ticket.id.0);
                end(&mut queue, ticket.schedule.as_str(), ticket.id.0);
            }
            locking.extend(ask(&mut queue));
            for run in locking.drain(..) {
                prop_assert!(queue.has_lock(RunId(run)));
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

#[test]
fn runs_keep_their_place_when_their_schedule_has_another_name() {
    let mut queue = Queue::default();
    for id in 1..=4 {
        queue.offer(ticket("old", id), Turn::OneByOne, NOW);
    }
    let first = queue.take(NOW).unwrap();
    assert!(queue.take(NOW).is_none(), "one by one");
    let tried = Ticket { first_attempt_at: Some(NOW), not_before: Some(at(5)), ..ticket("old", 9) };
    queue.offer(tried, Turn::OneByOne, NOW);
    // The ledger had the new name first, and Airflow a run.
    queue.opened(active("new", 4), Turn::OneByOne);
    queue.rename(&name("old"), &name("new"));

    assert!(queue.stage(&name("old"), first.id).is_none());
    assert_eq!(queue.stage(&name("new"), first.id), Some(&Stage::Handed(Word::Nothing)));
    assert!(matches!(queue.stage(&name("new"), RunId(4)), Some(Stage::Open(_))), "the latest word holds");
    assert!(queue.take(NOW).is_none(), "still one by one");
    assert!(accept(&mut queue, "new", 1));
    assert_eq!(queue.take(at(6)).map(|ticket| (ticket.id.0, ticket.schedule)), Some((9, name("new"))));
    queue.rename(&name("nobody"), &name("else"));
}

#[test]
fn a_schedule_that_takes_the_name_of_another_has_the_runs_of_both() {
    let mut queue = Queue::default();
    for (schedule, id) in [("old", 1), ("taken", 2), ("old", 3), ("taken", 4)] {
        queue.offer(ticket(schedule, id), Turn::OneByOne, NOW);
    }
    let (first, second) = (queue.take(NOW).unwrap(), queue.take(NOW).unwrap());
    assert_eq!((first.id.0, second.id.0), (1, 2));
    queue.rename(&name("old"), &name("taken"));
    for id in [1, 2] {
        assert_eq!(queue.stage(&name("taken"), RunId(id)), Some(&Stage::Handed(Word::Nothing)));
        assert!(queue.take(NOW).is_none(), "one by one");
        assert!(accept(&mut queue, "taken", id));
        end(&mut queue, "taken", id);
    }
    for id in [3, 4] {
        assert_eq!(queue.take(NOW).map(|ticket| (ticket.id.0, ticket.schedule)), Some((id, name("taken"))));
        assert!(accept(&mut queue, "taken", id));
        end(&mut queue, "taken", id);
    }
    assert_eq!(queue.len(), 0);
}

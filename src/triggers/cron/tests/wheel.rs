//! The wheel by itself: what is due when, over pauses, catch-up and jitter.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::domain::policy::Blindness;
use crate::domain::run::RunState;
use crate::triggers::cron::{CronWheel, Due};
use crate::triggers::gate::Gate;

const NOON: &str = "2026-11-22T12:00:00Z";

fn noon() -> Timestamp {
    at(NOON)
}

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn paused() -> Gate {
    Gate::Paused { reason: "by ann".into(), dag: false }
}

fn wheel_with(schedules: &[Arc<Schedule>], cursor: Timestamp) -> CronWheel {
    let mut wheel = CronWheel::new();
    for schedule in schedules {
        assert_eq!(wheel.insert(Arc::clone(schedule), cursor, Gate::Open, Blindness::Down, cursor), None);
    }
    wheel
}

/// Name and nominal times of the runs, and how many end without one.
fn shown(due: &[Due]) -> Vec<(String, Vec<Timestamp>, u64)> {
    due.iter()
        .map(|due| {
            let closed = due.plan.closed.iter().map(|closed| closed.span.count).sum();
            (due.schedule.name.to_string(), due.plan.runs.iter().map(|run| run.at).collect(), closed)
        })
        .collect()
}

#[test]
fn each_schedule_is_due_at_its_time_and_once() {
    let mut wheel =
        wheel_with(&[shared("a", "*/10 * * * *", Catchup::None), shared("b", "15 * * * *", Catchup::None)], noon());
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(10)));
    assert!(wheel.due(noon() + minutes(10) - SignedDuration::from_nanos(1), 100).is_empty());
    let ten = noon() + minutes(10);
    assert_eq!(shown(&wheel.due(ten, 100)), [("a".to_owned(), vec![ten], 0)]);
    assert!(wheel.due(ten, 100).is_empty());
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(15)));
    let fifteen = noon() + minutes(15);
    assert_eq!(shown(&wheel.due(fifteen, 100)), [("b".to_owned(), vec![fifteen], 0)]);
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(20)));
}

#[test]
fn all_that_is_due_in_one_second_comes_at_once() {
    let schedules: Vec<_> = (0..1_000).map(|n| shared(&format!("job-{n}"), "5 12 * * *", Catchup::None)).collect();
    let mut wheel = wheel_with(&schedules, noon());
    let due = wheel.due(noon() + minutes(5), 4_096);
    assert_eq!(due.len(), 1_000);
    assert!(due.iter().all(|due| due.plan.runs.len() == 1));
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(5) + SignedDuration::from_hours(24)));
}

#[test]
fn a_start_catches_up_from_the_cursor() {
    let mut wheel = CronWheel::new();
    let start = noon() + seconds(30);
    let cursor = noon() - SignedDuration::from_hours(3);
    for (name, catchup) in [("all", Catchup::All), ("latest", Catchup::Latest), ("none", Catchup::None)] {
        wheel.insert(shared(name, "0 * * * *", catchup), cursor, Gate::Open, Blindness::Down, start);
    }
    let mut due = wheel.due(start, 100);
    due.sort_by(|a, b| a.schedule.name.cmp(&b.schedule.name));
    let hours = [2, 1, 0].map(|hours| noon() - SignedDuration::from_hours(hours));
    assert_eq!(
        shown(&due),
        [("all".to_owned(), hours.to_vec(), 0), ("latest".to_owned(), vec![noon()], 2), ("none".to_owned(), vec![], 3)]
    );
    let reasons: Vec<_> = due.iter().flat_map(|due| &due.plan.closed).map(|closed| closed.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| reason.contains("while flowkeeper was not running")), "{reasons:?}");
    assert!(wheel.due(start, 100).is_empty());
}

#[test]
fn a_long_catch_up_leaves_room_for_others() {
    let mut wheel = CronWheel::new();
    let cursor = noon() - SignedDuration::from_hours(1);
    wheel.insert(shared("backlog", "* * * * * *", Catchup::All), cursor, Gate::Open, Blindness::Down, noon());
    wheel.insert(shared("other", "59 11 * * *", Catchup::All), cursor, Gate::Open, Blindness::Down, noon());
    let first = wheel.due(noon(), 100);
    let first = shown(&first);
    assert_eq!(first.first().map(|(name, runs, _)| (name.as_str(), runs.len())), Some(("backlog", 100)));
    // Its next part waits behind the other.
    let second = shown(&wheel.due(noon(), 1));
    assert_eq!(second, [("other".to_owned(), vec![noon() - minutes(1)], 0)]);

    let mut total = 100;
    let mut now = noon();
    while total < 3_600 {
        now += SignedDuration::from_millis(200);
        let due = wheel.due(now, 4_096);
        let runs: usize = due.iter().map(|due| due.plan.runs.len()).sum();
        assert!(runs <= 100 && due.iter().all(|due| due.plan.closed.is_empty()));
        total += runs;
    }
}

#[test]
fn a_paused_schedule_stands_still_and_catches_up_afterwards() {
    let mut wheel = wheel_with(&[shared("job", "* * * * *", Catchup::Latest)], noon());
    wheel.set_gate(&name("job"), paused(), noon());
    assert_eq!(wheel.next_wake(), None);
    assert!(!wheel.is_armed(&name("job")));
    assert!(wheel.due(noon() + minutes(10), 100).is_empty());

    // Ten seconds after a nominal time: behind a closed gate nothing is on time.
    let resumed = noon() + minutes(10) + seconds(5);
    wheel.set_gate(&name("job"), Gate::Open, resumed);
    assert!(wheel.is_armed(&name("job")));
    let due = wheel.due(resumed, 100);
    assert_eq!(shown(&due), [("job".to_owned(), vec![noon() + minutes(10)], 9)]);
    let closed = due.first().and_then(|due| due.plan.closed.first()).expect("a row");
    assert_eq!(closed.state, RunState::Skipped);
    assert!(closed.reason.contains("paused: by ann"), "{}", closed.reason);
    // From then on all is as before.
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(11)));
}

#[test]
fn a_start_behind_a_closed_gate_waits_too() {
    let mut wheel = CronWheel::new();
    wheel.insert(shared("job", "0 * * * *", Catchup::All), noon() - minutes(90), paused(), Blindness::Down, noon());
    assert!(wheel.due(noon(), 100).is_empty());
    wheel.set_gate(&name("job"), Gate::Open, noon());
    assert_eq!(shown(&wheel.due(noon(), 100)), [("job".to_owned(), vec![noon() - minutes(60), noon()], 0)]);
}

#[test]
fn a_skipping_schedule_moves_on() {
    let mut wheel = wheel_with(&[shared("job", "* * * * *", Catchup::Latest)], noon());
    wheel.set_gate(&name("job"), Gate::Skipping { reason: "the DAG is paused".into() }, noon());
    let due = wheel.due(noon() + minutes(1), 100);
    assert_eq!(shown(&due), [("job".to_owned(), vec![noon() + minutes(1)], 0)]);
    assert!(due.iter().all(|due| matches!(due.gate, Gate::Skipping { .. })));
}

#[test]
fn an_interruption_is_the_reason_for_what_it_covered_only() {
    let mut wheel = wheel_with(&[shared("job", "0 * * * *", Catchup::None)], noon());
    let awake = noon() + minutes(70);
    wheel.interrupted(&Blindness::Suspended, awake);
    let due = wheel.due(awake, 100);
    let closed = due.first().and_then(|due| due.plan.closed.first()).expect("a row");
    assert_eq!((closed.span.count, closed.state), (1, RunState::Missed));
    assert!(closed.reason.contains("suspended"), "{}", closed.reason);

    // An hour later it is held up for another cause, and nobody noticed which.
    let due = wheel.due(noon() + minutes(125), 100);
    let closed = due.first().and_then(|due| due.plan.closed.first()).expect("a row");
    assert!(closed.reason.contains("held up"), "{}", closed.reason);
}

#[test]
fn a_start_long_ago_is_no_excuse() {
    let mut wheel = wheel_with(&[shared("job", "0 * * * *", Catchup::None)], noon() + minutes(1));
    let due = wheel.due(noon() + minutes(65), 100);
    let closed = due.first().and_then(|due| due.plan.closed.first()).expect("a row");
    assert!(closed.reason.contains("held up"), "{}", closed.reason);
}

#[test]
fn a_cursor_in_the_future_is_reported_and_reckoned_from_now() {
    let mut wheel = CronWheel::new();
    let schedule = shared("job", "0 * * * *", Catchup::All);
    let insert = |wheel: &mut CronWheel, cursor| {
        wheel.insert(Arc::clone(&schedule), cursor, Gate::Open, Blindness::Down, noon())
    };
    assert_eq!(insert(&mut wheel, noon() + SignedDuration::from_hours(5)), Some(SignedDuration::from_hours(5)));
    assert_eq!(wheel.next_wake(), Some(noon() + minutes(60)));
    assert_eq!(insert(&mut wheel, noon() + SignedDuration::from_millis(300)), None);
    assert_eq!(wheel.len(), 1);

    let hour = noon() + minutes(60);
    assert_eq!(wheel.due(hour, 100).len(), 1);
    // The clock is set back: the same occurrence comes again, under the same id.
    assert_eq!(wheel.rewind(hour - minutes(30)), 1);
    assert_eq!(wheel.next_wake(), Some(hour));
    assert_eq!(wheel.rewind(hour), 0);
}

#[test]
fn one_that_is_never_due_costs_nothing() {
    let wheel = wheel_with(&[shared("never", "0 0 30 2 *", Catchup::All)], noon());
    assert_eq!(wheel.next_wake(), None);
    assert!(!wheel.is_armed(&name("never")));
}

#[test]
fn jitter_moves_the_wake_and_not_the_nominal_time() {
    let mut jittered = schedule("job", "0 * * * *", Catchup::None);
    if let Trigger::Cron(trigger) = &mut jittered.trigger {
        trigger.jitter = Duration::from_mins(5);
    }
    let mut wheel = wheel_with(&[Arc::new(jittered)], noon());
    let nominal = noon() + minutes(60);
    let wake = wheel.next_wake().expect("a time");
    assert!(wake > nominal && wake < nominal + minutes(5));
    assert!(wheel.due(wake - SignedDuration::from_micros(1), 100).is_empty());
    assert_eq!(shown(&wheel.due(wake, 100)), [("job".to_owned(), vec![nominal], 0)]);
}

/// What may happen to a member between two looks.
#[derive(Debug, Clone)]
enum Step {
    Pass(u32),
    Look(usize),
    Pause,
    Resume,
    /// The process ends and starts again from the cursor in the ledger, after some time.
    Restart(u32),
    Sleep(u32),
    SetBack(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let passed = || prop_oneof![0..30_000_u32, 0..40_000_000_u32];
    prop_oneof![
        4 => passed().prop_map(Step::Pass),
        6 => (1..200_usize).prop_map(Step::Look),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => passed().prop_map(Step::Restart),
        1 => passed().prop_map(Step::Sleep),
        1 => (0..5_000_u32).prop_map(Step::SetBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens, each nominal time is in exactly one row; what comes again after the clock
    /// was set back comes under the same id.
    #[test]
    fn each_nominal_time_is_covered_by_one_row(
        expression in prop::sample::select(vec!["* * * * * *", "*/7 * * * *", "0 */3 * * *", "30 2 * * *"]),
        catchup in prop::sample::select(vec![Catchup::None, Catchup::Latest, Catchup::All]),
        window in prop::option::of(0..50_000_u64),
        jitter in prop_oneof![Just(0_u64), 0..100_u64],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut job = schedule("job", expression, catchup);
        job.catchup_window = window.map(Duration::from_secs);
        if let Trigger::Cron(trigger) = &mut job.trigger {
            trigger.timezone = TimeZone::get("Europe/Berlin").expect("a zone");
            trigger.jitter = Duration::from_secs(jitter);
        }
        let job = Arc::new(job);
        let Trigger::Cron(trigger) = &job.trigger else { unreachable!("a cron trigger") };
        let milliseconds = |by: u32| SignedDuration::from_millis(i64::from(by));

        let start = at("2026-10-24T12:00:00.25Z");
        let (mut now, mut cursor, mut gate) = (start, start, Gate::Open);
        let mut wheel = wheel_with(&[Arc::clone(&job)], start);
        // First and last of each row, and how many it covers.
        let mut rows: Vec<(Timestamp, Timestamp, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(by) => now += milliseconds(by),
                Step::Look(limit) => {
                    for due in wheel.due(now, limit) {
                        let closed = due.plan.closed.iter().map(|row| (row.span.first, row.span.last, row.span.count));
                        let runs = due.plan.runs.iter().map(|run| (run.at, run.at, 1));
                        rows.extend(closed.chain(runs));
                        let moved = due.plan.cursor.expect("something was due");
                        prop_assert!(moved > cursor && moved <= now);
                        cursor = moved;
                    }
                }
                Step::Pause => gate = paused(),
                Step::Resume => gate = Gate::Open,
                Step::Restart(by) => {
                    now += milliseconds(by);
                    wheel = CronWheel::new();
                    wheel.insert(Arc::clone(&job), cursor, gate.clone(), Blindness::Down, now);
                }
                Step::Sleep(by) => {
                    now += milliseconds(by);
                    wheel.interrupted(&Blindness::Suspended, now);
                }
                Step::SetBack(by) => {
                    now = (now - milliseconds(by)).max(start);
                    if wheel.rewind(now) > 0 {
                        // The ids of single rows repeat; the ledger takes them once.
                        rows.retain(|(first, _, _)| *first <= now);
                        if let Some((_, last, _)) = rows.iter().max_by_key(|(_, last, _)| *last) {
                            prop_assume!(*last <= now);
                        }
                        cursor = now;
                    }
                }
            }
            wheel.set_gate(&job.name, gate.clone(), now);
        }
        rows.sort_unstable();
        for pair in rows.windows(2) {
            prop_assert!(matches!(pair, [(_, last, _), (first, _, _)] if last < first), "rows overlap: {pair:?}");
        }
        let covered: u64 = rows.iter().map(|(_, _, count)| count).sum();
        prop_assert_eq!(covered, trigger.span(start, cursor).map_or(0, |span| span.count));
        for (first, last, count) in rows {
            let within = trigger.span(first - SignedDuration::from_secs(1), last).map(|span| span.count);
            prop_assert_eq!(within, Some(count));
        }
    }
}

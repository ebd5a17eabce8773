//! Edits of cron schedules: what ends is settled, what begins takes its cursor from the ledger.

use jiff::SignedDuration;

use super::*;
use crate::domain::edit::{Fates, Known, Leaving, Standing};
use crate::domain::policy::Blindness;
use crate::store::model::{ScheduleState, ScheduleStates};
use crate::triggers::cron::CronWheel;
use crate::triggers::gate::{Gate, Gates};

const NOON: &str = "2026-11-22T12:00:00Z";

fn minute(minute: i64) -> Timestamp {
    at(NOON) + SignedDuration::from_mins(minute)
}

fn states(cursors: &[(&str, i64)]) -> ScheduleStates {
    let state = |(schedule, cursor): &(&str, i64)| {
        let state = ScheduleState {
            name: name(schedule),
            trigger_key: String::new(),
            since: at(NOON),
            cron_cursor: minute(*cursor),
            znode_initialized: None,
            znode_after: None,
            first_look: None,
            pause: None,
            dag_paused_at: None,
        };
        (name(schedule), state)
    };
    cursors.iter().map(state).collect()
}

fn renamed(schedule_name: &str, was: &str, expression: &str) -> Arc<Schedule> {
    Arc::new(Schedule { was: vec![name(was)], ..schedule(schedule_name, expression, Catchup::All) })
}

/// What an edit does to schedules that were in force under these names.
fn fates(in_force: &[&str], after: &[Arc<Schedule>]) -> Fates {
    let known = |schedule: &&str| (name(schedule), Known { standing: Standing::InForce, former: Vec::new() });
    let after = after.iter().map(|schedule| (&schedule.name, &*schedule.was));
    Fates::decide(&in_force.iter().map(known).collect(), after, Leaving::Ends)
}

fn paused() -> Gate {
    Gate::Paused { reason: "by ann".into(), dag: false }
}

/// What an edit at ten past twelve does to the schedule `job`, due every three minutes, of which all is
/// handed out up to six past.
struct Case<'c> {
    what: &'c str,
    /// Schedules that were in force with other triggers.
    others: &'c [&'c str],
    gate: Gate,
    after: Vec<Arc<Schedule>>,
    /// The cursors that the ledger has once it adopted the schedules.
    adopted: &'c [(&'c str, i64)],
    /// Minutes that are settled, and whether they are skipped.
    settled: &'c [(i64, bool)],
    /// When which schedule is due next.
    next: &'c [(&'c str, i64)],
}

#[test]
fn what_ends_is_settled_and_what_begins_takes_its_cursor_from_the_ledger() {
    let old = shared("job", "*/3 * * * *", Catchup::All);
    let with = |gate: Gate, after: Vec<Arc<Schedule>>| Case {
        what: "",
        others: &[],
        gate,
        after,
        adopted: &[],
        settled: &[],
        next: &[],
    };
    let every = |schedule: &str, minutes: &str| shared(schedule, &format!("*/{minutes} * * * *"), Catchup::All);
    let open = || Gate::Open;
    let cases = [
        Case { what: "unchanged", next: &[("job", 9)], ..with(open(), vec![Arc::clone(&old)]) },
        Case {
            what: "the same times, other policies",
            next: &[("job", 9)],
            ..with(open(), vec![Arc::new(Schedule { dag_id: "other".into(), ..(*old).clone() })])
        },
        Case {
            what: "edited",
            adopted: &[("job", 10)],
            settled: &[(9, false)],
            next: &[("job", 14)],
            ..with(open(), vec![every("job", "7")])
        },
        Case { what: "removed", settled: &[(9, false)], ..with(open(), vec![]) },
        Case {
            what: "renamed",
            adopted: &[("new", 6)],
            next: &[("new", 9)],
            ..with(open(), vec![renamed("new", "job", "*/3 * * * *")])
        },
        Case {
            what: "renamed and edited",
            adopted: &[("new", 10)],
            settled: &[(9, false)],
            next: &[("new", 14)],
            ..with(open(), vec![renamed("new", "job", "*/7 * * * *")])
        },
        Case {
            what: "a name that is still there is no rename",
            adopted: &[("new", 10)],
            next: &[("job", 9), ("new", 12)],
            ..with(open(), vec![Arc::clone(&old), renamed("new", "job", "*/3 * * * *")])
        },
        Case {
            what: "one that the ledger knows from before goes on",
            adopted: &[("back", 1)],
            next: &[("back", 5), ("job", 9)],
            ..with(open(), vec![Arc::clone(&old), every("back", "5")])
        },
        Case {
            what: "edited while paused: what waited is decided, and goes when the pause ends",
            adopted: &[("job", 10)],
            settled: &[(9, false)],
            ..with(paused(), vec![every("job", "7")])
        },
        Case {
            what: "removed while paused: nobody waits for the end of the pause",
            settled: &[(9, true)],
            ..with(paused(), vec![])
        },
        Case {
            what: "renamed and edited while paused",
            adopted: &[("new", 10)],
            settled: &[(9, true)],
            next: &[("new", 14)],
            ..with(paused(), vec![renamed("new", "job", "*/7 * * * *")])
        },
        Case {
            what: "renamed to a name that another had: both are settled under the names that they had",
            others: &["new"],
            adopted: &[("new", 10)],
            settled: &[(9, false)],
            next: &[("new", 12)],
            ..with(open(), vec![renamed("new", "job", "*/3 * * * *")])
        },
        Case {
            what: "one that watched a znode takes the name of this one",
            others: &["inbox"],
            adopted: &[("job", 10)],
            settled: &[(9, false)],
            next: &[("job", 12)],
            ..with(open(), vec![renamed("job", "inbox", "*/3 * * * *")])
        },
        Case {
            what: "renamed while paused to a name that another had",
            others: &["new"],
            adopted: &[("new", 10)],
            settled: &[(9, true)],
            next: &[("new", 12)],
            ..with(paused(), vec![renamed("new", "job", "*/3 * * * *")])
        },
    ];
    for case in &cases {
        for looked_ahead in [false, true] {
            goes_as_told(case, &old, looked_ahead);
        }
    }
}

#[test]
fn what_waits_for_its_jitter_belongs_to_the_rule_of_its_nominal_time() {
    let job = |minutes: &str| {
        let mut job = schedule("job", &format!("*/{minutes} * * * *"), Catchup::None);
        if let Trigger::Cron(trigger) = &mut job.trigger {
            trigger.jitter = Duration::from_hours(10);
        }
        Arc::new(job)
    };
    for (what, after, expected) in
        [("edited", vec![job("7")], vec![9]), ("removed", vec![], vec![9]), ("other policies", vec![job("3")], vec![])]
    {
        let mut wheel = CronWheel::new();
        wheel.insert(job("3"), minute(6), Gate::Open, Blindness::HeldUp, minute(6));
        let (_, due) = wheel.prepare(&after, &fates(&["job"], &after), minute(10));
        let settled: Vec<_> = due.iter().flat_map(|due| due.plan.runs.iter().map(|run| run.at)).collect();
        assert_eq!(settled, expected.into_iter().map(minute).collect::<Vec<_>>(), "{what}");
    }
}

fn goes_as_told(case: &Case<'_>, old: &Arc<Schedule>, looked_ahead: bool) {
    let mut wheel = CronWheel::new();
    wheel.insert(Arc::clone(old), minute(6), case.gate.clone(), Blindness::HeldUp, minute(6));
    let in_force: Vec<_> = case.others.iter().copied().chain(["job"]).collect();
    let (mut prepared, due) = wheel.prepare(&case.after, &fates(&in_force, &case.after), minute(10));
    if looked_ahead {
        prepared.look_ahead();
    }
    let settled: Vec<_> = due
        .iter()
        .flat_map(|due| due.plan.runs.iter().map(|run| (run.at, matches!(due.gate, Gate::Skipping { .. }))))
        .collect();
    let expected: Vec<_> = case.settled.iter().map(|(at, skipped)| (minute(*at), *skipped)).collect();
    assert_eq!(settled, expected, "{}: settled", case.what);

    // Until the ledger has it, only what is not edited may come due.
    let keeps =
        case.after.iter().any(|after| after.name == old.name && after.trigger == old.trigger && after.was.is_empty());
    assert_eq!(wheel.is_armed(&old.name), keeps && case.gate.is_open(), "{}: armed meanwhile", case.what);
    wheel.set_gate(&old.name, case.gate.clone(), minute(10));
    assert_eq!(wheel.is_armed(&old.name), keeps && case.gate.is_open(), "{}: still", case.what);

    let keeps_name = case.after.iter().any(|after| after.name == old.name);
    let gates: Gates =
        if keeps_name { Arc::new([(old.name.clone(), case.gate.clone())].into()) } else { Gates::default() };
    wheel.make(prepared, &states(case.adopted), &gates, minute(10));
    let mut names: Vec<_> = wheel.gates().map(|(name, _)| name.to_string()).collect();
    names.sort_unstable();
    let mut wanted: Vec<_> = case.after.iter().map(|after| after.name.to_string()).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted, "{}: names", case.what);
    let mut next = Vec::new();
    while let Some(wake) = wheel.next_wake() {
        for due in wheel.due(wake, 1) {
            let at = due.plan.runs.first().map_or(wake, |run| run.at);
            next.push((due.schedule.name.to_string(), at));
            wheel.remove(&due.schedule.name);
        }
    }
    let expected: Vec<_> = case.next.iter().map(|(name, at)| ((*name).to_owned(), minute(*at))).collect();
    let mut next_sorted = next;
    next_sorted.sort();
    assert_eq!(next_sorted, expected, "{}: next", case.what);
}

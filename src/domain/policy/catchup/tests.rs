//! Which of the times that nobody saw run, are missed or wait: the table of policies.

use super::*;
use crate::domain::calendar::CronExpression;
use jiff::tz::TimeZone;

const HOUR: Duration = Duration::from_hours(1);

fn at(text: &str) -> Timestamp {
    format!("2026-11-{text}Z").parse().expect("a time")
}

fn trigger(cron: &str) -> CronTrigger {
    CronTrigger::new(CronExpression::parse(cron).expect("an expression"), TimeZone::UTC)
}

struct Case {
    about: &'static str,
    cron: &'static str,
    catchup: Catchup,
    window: Option<Duration>,
    blindness: Blindness,
    cursor: &'static str,
    now: &'static str,
    /// Day and time of the runs.
    runs: &'static [&'static str],
    /// First, last, count, state and the end of the reason.
    closed: &'static [(&'static str, &'static str, u64, RunState, &'static str)],
}

fn paused() -> Blindness {
    Blindness::Paused("by ann: deploy".into())
}

#[test]
#[expect(clippy::too_many_lines, reason = "the table is the specification")]
fn the_policy_decides_over_what_was_not_seen() {
    use Blindness::{ClockJump, Down, HeldUp};
    use RunState::{Missed, Skipped};
    let base = || Case {
        about: "",
        cron: "0 * * * *",
        catchup: Catchup::Latest,
        window: None,
        blindness: Down,
        cursor: "22T06:00:00",
        now: "22T10:30:00",
        runs: &[],
        closed: &[],
    };
    let cases = [
        Case { about: "nothing came due", now: "22T06:30:00", ..base() },
        Case { about: "a cursor on a nominal time does not repeat it", now: "22T06:00:00", ..base() },
        Case {
            about: "none: what was not seen is missed",
            catchup: Catchup::None,
            closed: &[("22T07:00:00", "22T10:00:00", 4, Missed, "(catchup = \"none\")")],
            ..base()
        },
        Case {
            about: "latest: the newest runs",
            runs: &["22T10:00:00"],
            closed: &[("22T07:00:00", "22T09:00:00", 3, Skipped, "runs only the newest)")],
            ..base()
        },
        Case { about: "latest: a single one needs no other row", now: "22T07:30:00", runs: &["22T07:00:00"], ..base() },
        Case {
            about: "all: each runs",
            catchup: Catchup::All,
            runs: &["22T07:00:00", "22T08:00:00", "22T09:00:00", "22T10:00:00"],
            ..base()
        },
        Case {
            about: "the window cuts off what is too old",
            catchup: Catchup::All,
            window: Some(2 * HOUR),
            runs: &["22T09:00:00", "22T10:00:00"],
            closed: &[("22T07:00:00", "22T08:00:00", 2, Missed, "(outside catchup_window)")],
            ..base()
        },
        Case {
            about: "an occurrence exactly as old as the window is inside",
            catchup: Catchup::All,
            window: Some(HOUR),
            now: "22T10:00:30",
            cursor: "22T08:30:00",
            runs: &["22T10:00:00"],
            closed: &[("22T09:00:00", "22T09:00:00", 1, Missed, "(outside catchup_window)")],
            ..base()
        },
        Case {
            about: "latest, but even the newest is outside the window",
            window: Some(Duration::from_mins(1)),
            closed: &[("22T07:00:00", "22T10:00:00", 4, Missed, "(outside catchup_window)")],
            ..base()
        },
        Case {
            about: "both reasons: a row each",
            window: Some(2 * HOUR),
            runs: &["22T10:00:00"],
            closed: &[
                ("22T07:00:00", "22T08:00:00", 2, Missed, "(outside catchup_window)"),
                ("22T09:00:00", "22T09:00:00", 1, Skipped, "runs only the newest)"),
            ],
            ..base()
        },
        Case {
            about: "a few seconds late is on time, whatever the policy",
            catchup: Catchup::None,
            cursor: "22T09:30:00",
            now: "22T10:00:09",
            runs: &["22T10:00:00"],
            ..base()
        },
        Case {
            about: "latest: one that is on time is the newest",
            now: "22T10:00:03",
            runs: &["22T10:00:00"],
            closed: &[("22T07:00:00", "22T09:00:00", 3, Skipped, "runs only the newest)")],
            ..base()
        },
        Case {
            about: "paused: nothing is on time, and what does not run is skipped",
            catchup: Catchup::None,
            blindness: paused(),
            now: "22T10:00:03",
            closed: &[("22T07:00:00", "22T10:00:00", 4, Skipped, "paused: by ann: deploy (catchup = \"none\")")],
            ..base()
        },
        Case {
            about: "paused: the newest runs after all",
            blindness: paused(),
            now: "22T10:00:03",
            runs: &["22T10:00:00"],
            closed: &[("22T07:00:00", "22T09:00:00", 3, Skipped, "runs only the newest)")],
            ..base()
        },
        Case {
            about: "paused: the window holds too",
            catchup: Catchup::All,
            window: Some(2 * HOUR),
            blindness: paused(),
            runs: &["22T09:00:00", "22T10:00:00"],
            closed: &[("22T07:00:00", "22T08:00:00", 2, Skipped, "deploy (outside catchup_window)")],
            ..base()
        },
        Case {
            about: "a week of missed seconds is one row",
            cron: "* * * * * *",
            catchup: Catchup::None,
            blindness: ClockJump,
            cursor: "01T00:00:00",
            now: "08T00:00:10",
            runs: &[
                "08T00:00:01",
                "08T00:00:02",
                "08T00:00:03",
                "08T00:00:04",
                "08T00:00:05",
                "08T00:00:06",
                "08T00:00:07",
                "08T00:00:08",
                "08T00:00:09",
                "08T00:00:10",
            ],
            closed: &[("01T00:00:01", "08T00:00:00", 604_800, Missed, "(catchup = \"none\")")],
            ..base()
        },
        Case {
            about: "held up for a minute",
            blindness: HeldUp,
            cursor: "22T09:00:00",
            now: "22T10:01:00",
            runs: &["22T10:00:00"],
            ..base()
        },
        Case { about: "never due", cron: "0 0 30 2 *", cursor: "01T00:00:00", now: "30T00:00:00", ..base() },
        Case { about: "a cursor in the future", cursor: "25T00:00:00", ..base() },
    ];
    for case in cases {
        let name = ScheduleName::new("job").expect("a legal name");
        let trigger = trigger(case.cron);
        let plan = plan_due(&CatchUp {
            schedule: &name,
            trigger: &trigger,
            catchup: case.catchup,
            window: case.window,
            cursor: at(case.cursor),
            now: at(case.now),
            blindness: &case.blindness,
            seeing_since: at(case.now),
            on_time: ON_TIME,
            ends: false,
            limit: 1_000,
        });
        let runs: Vec<_> = plan.runs.iter().map(|run| run.at).collect();
        assert_eq!(runs, case.runs.iter().map(|text| at(text)).collect::<Vec<_>>(), "{}", case.about);
        assert_eq!(plan.closed.len(), case.closed.len(), "{}: {:?}", case.about, plan.closed);
        for (closed, (first, last, count, state, reason)) in plan.closed.iter().zip(case.closed) {
            let span = Span { first: at(first), last: at(last), count: *count };
            assert_eq!((closed.span, closed.state), (span, *state), "{}", case.about);
            assert!(closed.reason.ends_with(reason), "{}: {}", case.about, closed.reason);
        }
        let last = runs.iter().copied().chain(plan.closed.iter().map(|closed| closed.span.last)).max();
        assert_eq!(plan.cursor, last, "{}", case.about);
        assert!(!plan.more, "{}", case.about);
        assert_eq!(plan.next, trigger.next_after(last.unwrap_or(at(case.cursor))), "{}", case.about);
    }
}

#[test]
fn a_long_catch_up_in_parts_covers_each_occurrence_once() {
    let name = ScheduleName::new("job").expect("a legal name");
    let trigger = trigger("*/7 * * * * *");
    let seeing_since = at("22T10:00:00");
    let mut cursor = at("22T08:00:00");
    // The clock goes on while the parts are worked off.
    let mut now = seeing_since;
    let mut runs = Vec::new();
    let mut closed = Vec::new();
    loop {
        let plan = plan_due(&CatchUp {
            schedule: &name,
            trigger: &trigger,
            catchup: Catchup::All,
            window: Some(HOUR),
            cursor,
            now,
            blindness: &Blindness::Down,
            seeing_since,
            on_time: ON_TIME,
            ends: false,
            limit: 50,
        });
        assert!(plan.runs.len() <= 50);
        runs.extend(plan.runs.iter().map(|run| run.at));
        closed.extend(plan.closed);
        cursor = plan.cursor.unwrap_or(cursor);
        if !plan.more {
            break;
        }
        now += SignedDuration::from_secs(1);
    }
    let expected: Vec<_> =
        trigger.times_after(at("22T08:59:59")).map(|nominal| nominal.at).take_while(|time| *time <= now).collect();
    assert_eq!(runs, expected);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed.first().map(|closed| closed.span), trigger.span(at("22T08:00:00"), at("22T08:59:59")));
}

#[test]
fn jitter_delays_an_occurrence_and_keeps_the_order() {
    let name = ScheduleName::new("job").expect("a legal name");
    let mut trigger = trigger("0 * * * *");
    trigger.jitter = Duration::from_secs(30);
    let nominal = at("22T10:00:00");
    let due = due_at(&name, &trigger, nominal);
    assert!(due > nominal && due < nominal + SignedDuration::from_secs(30));
    let look = |trigger: &CronTrigger, cursor, now, ends| {
        plan_due(&CatchUp {
            schedule: &name,
            trigger,
            catchup: Catchup::None,
            window: None,
            cursor,
            now,
            blindness: &Blindness::Down,
            seeing_since: now,
            on_time: ON_TIME,
            ends,
            limit: 100,
        })
    };
    let plan = |trigger: &CronTrigger, cursor, now| look(trigger, cursor, now, false);
    let cursor = at("22T09:00:00");
    let early = plan(&trigger, cursor, due - SignedDuration::from_millis(1));
    assert_eq!((early.runs.len(), early.closed.len(), early.cursor), (0, 0, None));
    assert_eq!(early.next.map(|next| next.at), Some(nominal));
    assert_eq!(plan(&trigger, cursor, due).runs.len(), 1);
    // Late only once the grace is over as well, wherever in its 30 s the delay ends.
    assert_eq!(plan(&trigger, cursor, at("22T10:00:39")).runs.len(), 1);
    assert_eq!(plan(&trigger, cursor, at("22T10:00:41")).closed.len(), 1);

    // The trigger ends meanwhile: what has its nominal time behind it waits for nothing, and only that.
    let ends = look(&trigger, cursor, nominal, true);
    assert_eq!((ends.runs.len(), ends.closed.len(), ends.cursor), (1, 0, Some(nominal)));
    assert_eq!(look(&trigger, cursor, nominal - SignedDuration::from_millis(1), true).cursor, None);
    assert_eq!(look(&trigger, nominal, due, true).cursor, None, "once");

    let mut every_second =
        CronTrigger::new(CronExpression::parse("* * * * * *").expect("an expression"), TimeZone::UTC);
    every_second.jitter = Duration::from_secs(5);
    let runs = plan(&every_second, cursor, at("22T09:00:10")).runs;
    assert!(runs.is_sorted_by_key(|run| run.at));
    // Without a gap: none has overtaken another.
    assert_eq!(
        runs.last().map(|run| run.at),
        Some(cursor + SignedDuration::from_secs(i64::try_from(runs.len()).expect("few")))
    );
}

#[test]
fn a_failover_of_the_usual_length_makes_nothing_late() {
    let on_time = |seconds| on_time_after_a_failover(Duration::from_secs(seconds)).as_secs();
    assert_eq!([0, 4, 5, 10, 40].map(on_time), [10, 10, 10, 20, 80]);
    assert_eq!(on_time_after_a_failover(Duration::MAX), SignedDuration::MAX);

    let name = ScheduleName::new("job").expect("a legal name");
    let trigger = CronTrigger::new(CronExpression::parse("* * * * * *").expect("an expression"), TimeZone::UTC);
    // A killed leader is missed for 10 s, a look of the servers, and the successor's first moments.
    let (cursor, now) = (at("22T10:00:00"), at("22T10:00:13"));
    for (on_time, catchup, runs) in [
        (on_time_after_a_failover(Duration::from_secs(10)), Catchup::None, 13),
        (on_time_after_a_failover(Duration::from_secs(10)), Catchup::Latest, 13),
        (ON_TIME, Catchup::None, 10),
        (ON_TIME, Catchup::Latest, 10),
    ] {
        let plan = plan_due(&CatchUp {
            schedule: &name,
            trigger: &trigger,
            catchup,
            window: None,
            cursor,
            now,
            blindness: &Blindness::Down,
            seeing_since: now,
            on_time,
            ends: false,
            limit: 100,
        });
        let closed: u64 = plan.closed.iter().map(|closed| closed.span.count).sum();
        assert_eq!((plan.runs.len(), closed), (runs, 13 - runs as u64), "{on_time} {catchup:?}");
    }
}

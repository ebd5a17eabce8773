//! Around changes of a zone's offset.

use super::*;

struct Case {
    about: &'static str,
    zone: &'static str,
    cron: &'static str,
    /// `None` is the expression's own policy.
    dst: Option<DstPolicy>,
    after: &'static str,
    expected: &'static [&'static str],
}

fn run(cases: &[Case]) {
    for case in cases {
        let mut trigger = trigger(case.cron, case.zone);
        if let Some(dst) = case.dst {
            trigger.dst = dst;
        }
        let about = format!("{} ({} in {}, {:?})", case.about, case.cron, case.zone, trigger.dst);
        check(&about, &trigger, at(case.after), case.expected);
    }
}

#[test]
fn the_policy_follows_the_hour_field() {
    for (expression, policy) in [
        ("30 2 * * *", SHIFT_FIRST),
        ("30 2,14 * * *", SHIFT_FIRST),
        ("* 2 * * *", SHIFT_FIRST),
        ("*/5 1-3 * * *", SHIFT_FIRST),
        ("@daily", SHIFT_FIRST),
        ("0 * * * *", SKIP_BOTH),
        ("0 */2 * * *", SKIP_BOTH),
        ("@hourly", SKIP_BOTH),
        ("*/10 * * * * *", SKIP_BOTH),
    ] {
        assert_eq!(CronExpression::parse(expression).expect("an expression").default_dst(), policy, "{expression}");
    }
}

#[test]
fn europe_berlin_in_spring() {
    const ZONE: &str = "Europe/Berlin";
    // 2026-03-29: 02:00+01:00 is 03:00+02:00.
    const SPRING: &str = "2026-03-28T12:00:00Z";
    let case = |about, cron, dst, after, expected| Case { about, zone: ZONE, cron, dst, after, expected };
    run(&[
        case("shift", "30 2 * * *", None, SPRING, &["2026-03-29T03:30:00+02:00 gap", "2026-03-30T02:30:00+02:00"]),
        case("skip", "30 2 * * *", Some(SKIP_FIRST), SPRING, &["2026-03-30T02:30:00+02:00"]),
        case(
            "several fixed hours are shifted too",
            "30 2,14 * * *",
            None,
            SPRING,
            &["2026-03-28T14:30:00+01:00", "2026-03-29T03:30:00+02:00 gap", "2026-03-29T14:30:00+02:00"],
        ),
        case(
            "two wall times on one instant are one occurrence",
            "30 2,3 * * *",
            None,
            "2026-03-28T23:00:00Z",
            &["2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00", "2026-03-30T03:30:00+02:00"],
        ),
        case(
            "a shifted time keeps its place among the others",
            "15,45 2,3 * * *",
            Some(SHIFT_FIRST),
            "2026-03-28T23:00:00Z",
            &["2026-03-29T03:15:00+02:00", "2026-03-29T03:45:00+02:00", "2026-03-30T02:15:00+02:00"],
        ),
        case(
            "… also where an unshifted one lies between",
            "20 2-3/2,3 * * *",
            Some(SHIFT_FIRST),
            "2026-03-28T23:00:00Z",
            &["2026-03-29T03:20:00+02:00", "2026-03-30T02:20:00+02:00"],
        ),
        case(
            "every minute in fixed hours: the gap's minutes meet the next hour's",
            "*/30 1-4 * * *",
            None,
            "2026-03-28T23:00:00Z",
            &[
                "2026-03-29T01:00:00+01:00",
                "2026-03-29T01:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:30:00+02:00",
                "2026-03-29T04:00:00+02:00",
            ],
        ),
        case(
            "an hourly one just goes on",
            "0 * * * *",
            None,
            "2026-03-29T00:00:00Z",
            &["2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"],
        ),
        case(
            "every two hours by the wall clock: 02:00 does not exist",
            "0 */2 * * *",
            None,
            "2026-03-28T22:30:00Z",
            &["2026-03-29T00:00:00+01:00", "2026-03-29T04:00:00+02:00"],
        ),
        case(
            "every two hours, shifted",
            "0 */2 * * *",
            Some(SHIFT_BOTH),
            "2026-03-28T22:30:00Z",
            &["2026-03-29T00:00:00+01:00", "2026-03-29T03:00:00+02:00 gap", "2026-03-29T04:00:00+02:00"],
        ),
    ]);
}

#[test]
fn europe_berlin_in_autumn() {
    const ZONE: &str = "Europe/Berlin";
    // 2026-10-25: 03:00+02:00 is 02:00+01:00.
    const AUTUMN: &str = "2026-10-24T12:00:00Z";
    let case = |about, cron, dst, after, expected| Case { about, zone: ZONE, cron, dst, after, expected };
    run(&[
        case("first", "30 2 * * *", None, AUTUMN, &["2026-10-25T02:30:00+02:00 fold", "2026-10-26T02:30:00+01:00"]),
        case(
            "last",
            "30 2 * * *",
            Some(SHIFT_LAST),
            AUTUMN,
            &["2026-10-25T02:30:00+01:00 fold", "2026-10-26T02:30:00+01:00"],
        ),
        case(
            "both",
            "30 2 * * *",
            Some(SHIFT_BOTH),
            AUTUMN,
            &["2026-10-25T02:30:00+02:00 fold", "2026-10-25T02:30:00+01:00 fold", "2026-10-26T02:30:00+01:00"],
        ),
        case(
            "the edges of the repeated hour",
            "0 2,3 * * *",
            Some(SHIFT_BOTH),
            AUTUMN,
            &["2026-10-25T02:00:00+02:00 fold", "2026-10-25T02:00:00+01:00 fold", "2026-10-25T03:00:00+01:00"],
        ),
        case(
            "real time: each pass of the repeated hour",
            "*/30 * * * *",
            None,
            "2026-10-24T23:45:00Z",
            &[
                "2026-10-25T02:00:00+02:00 fold",
                "2026-10-25T02:30:00+02:00 fold",
                "2026-10-25T02:00:00+01:00 fold",
                "2026-10-25T02:30:00+01:00 fold",
                "2026-10-25T03:00:00+01:00",
            ],
        ),
        case(
            "midnight is far from it",
            "@daily",
            None,
            "2026-10-24T00:00:00Z",
            &["2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"],
        ),
    ]);
}

#[test]
fn america_new_york() {
    const ZONE: &str = "America/New_York";
    // 2026-03-08: 02:00-05:00 is 03:00-04:00. 2026-11-01: 02:00-04:00 is 01:00-05:00.
    let case = |about, cron, dst, after, expected| Case { about, zone: ZONE, cron, dst, after, expected };
    run(&[
        case(
            "shift",
            "30 2 * * *",
            None,
            "2026-03-07T12:00:00Z",
            &["2026-03-08T03:30:00-04:00 gap", "2026-03-09T02:30:00-04:00"],
        ),
        case("skip", "30 2 * * *", Some(SKIP_BOTH), "2026-03-07T12:00:00Z", &["2026-03-09T02:30:00-04:00"]),
        case(
            "the only time of the year may be skipped",
            "30 2 8 3 *",
            Some(SKIP_FIRST),
            "2026-03-07T12:00:00Z",
            &["2027-03-08T02:30:00-05:00"],
        ),
        case(
            "first",
            "30 1 * * *",
            None,
            "2026-10-31T12:00:00Z",
            &["2026-11-01T01:30:00-04:00 fold", "2026-11-02T01:30:00-05:00"],
        ),
        case(
            "last",
            "30 1 * * *",
            Some(SHIFT_LAST),
            "2026-10-31T12:00:00Z",
            &["2026-11-01T01:30:00-05:00 fold", "2026-11-02T01:30:00-05:00"],
        ),
        case(
            "both",
            "30 1 * * *",
            Some(SKIP_BOTH),
            "2026-10-31T12:00:00Z",
            &["2026-11-01T01:30:00-04:00 fold", "2026-11-01T01:30:00-05:00 fold", "2026-11-02T01:30:00-05:00"],
        ),
        case(
            "the search may begin inside the first pass",
            "30 1 * * *",
            Some(SHIFT_BOTH),
            "2026-11-01T05:45:00Z",
            &["2026-11-01T01:30:00-05:00 fold"],
        ),
        case(
            "… or inside the second",
            "30 1 * * *",
            Some(SHIFT_BOTH),
            "2026-11-01T06:45:00Z",
            &["2026-11-02T01:30:00-05:00"],
        ),
        case(
            "far ahead, by the zone's rule",
            "30 2 * 3 *",
            None,
            "2060-03-13T12:00:00Z",
            &["2060-03-14T03:30:00-04:00 gap"],
        ),
    ]);
}

#[test]
fn australia_lord_howe_moves_by_half_an_hour() {
    const ZONE: &str = "Australia/Lord_Howe";
    // 2026-10-04: 02:00+10:30 is 02:30+11:00. 2026-04-05: 02:00+11:00 is 01:30+10:30.
    let case = |about, cron, dst, after, expected| Case { about, zone: ZONE, cron, dst, after, expected };
    run(&[
        case(
            "shift",
            "15 2 * * *",
            None,
            "2026-10-03T00:00:00Z",
            &["2026-10-04T02:45:00+11:00 gap", "2026-10-05T02:15:00+11:00"],
        ),
        case("skip", "15 2 * * *", Some(SKIP_FIRST), "2026-10-03T00:00:00Z", &["2026-10-05T02:15:00+11:00"]),
        case(
            "hourly",
            "0 * * * *",
            None,
            "2026-10-03T14:00:00Z",
            &["2026-10-04T01:00:00+10:30", "2026-10-04T03:00:00+11:00"],
        ),
        case(
            "outside the half hour nothing is repeated",
            "15 1 * * *",
            Some(SHIFT_BOTH),
            "2026-04-04T00:00:00Z",
            &["2026-04-05T01:15:00+11:00", "2026-04-06T01:15:00+10:30"],
        ),
        case(
            "both",
            "45 1 * * *",
            Some(SHIFT_BOTH),
            "2026-04-04T00:00:00Z",
            &["2026-04-05T01:45:00+11:00 fold", "2026-04-05T01:45:00+10:30 fold", "2026-04-06T01:45:00+10:30"],
        ),
        case("last", "45 1 * * *", Some(SHIFT_LAST), "2026-04-04T00:00:00Z", &["2026-04-05T01:45:00+10:30 fold"]),
    ]);
}

#[test]
fn pacific_apia_skipped_a_whole_day() {
    const ZONE: &str = "Pacific/Apia";
    // After 2011-12-29T23:59:59-10:00 came 2011-12-31T00:00:00+14:00.
    const BEFORE: &str = "2011-12-28T12:00:00Z";
    let case = |about, cron, dst, after, expected| Case { about, zone: ZONE, cron, dst, after, expected };
    run(&[
        case(
            "shift: Friday's time meets Saturday's",
            "0 9 * * *",
            None,
            BEFORE,
            &[
                "2011-12-28T09:00:00-10:00",
                "2011-12-29T09:00:00-10:00",
                "2011-12-31T09:00:00+14:00",
                "2012-01-01T09:00:00+14:00",
            ],
        ),
        case(
            "shift: a time that only that Friday had",
            "0 9 30 12 *",
            None,
            BEFORE,
            &["2011-12-31T09:00:00+14:00 gap", "2012-12-30T09:00:00+14:00"],
        ),
        case("skip", "0 9 30 12 *", Some(SKIP_FIRST), BEFORE, &["2012-12-30T09:00:00+14:00"]),
        case(
            "hourly",
            "0 * * * *",
            None,
            "2011-12-30T08:30:00Z",
            &["2011-12-29T23:00:00-10:00", "2011-12-31T00:00:00+14:00", "2011-12-31T01:00:00+14:00"],
        ),
    ]);
}

#[test]
fn odd_zones() {
    let case = |about, zone, cron, dst, after, expected| Case { about, zone, cron, dst, after, expected };
    run(&[
        // Summer time all year, except in Ramadan: 2026-02-15 03:00+01:00 is 02:00+00:00, back on 03-22.
        case(
            "clocks go back in February",
            "Africa/Casablanca",
            "30 2 * * *",
            Some(SHIFT_BOTH),
            "2026-02-14T12:00:00Z",
            &["2026-02-15T02:30:00+01:00 fold", "2026-02-15T02:30:00+00:00 fold", "2026-02-16T02:30:00+00:00"],
        ),
        case(
            "and forward in March",
            "Africa/Casablanca",
            "30 2 * * *",
            None,
            "2026-03-21T12:00:00Z",
            &["2026-03-22T03:30:00+01:00 gap", "2026-03-23T02:30:00+01:00"],
        ),
        // Two hours: 2026-03-29 01:00+00:00 is 03:00+02:00.
        case(
            "two hours are skipped",
            "Antarctica/Troll",
            "30 1,2 * * *",
            None,
            "2026-03-28T12:00:00Z",
            &["2026-03-29T03:30:00+02:00 gap", "2026-03-29T04:30:00+02:00 gap", "2026-03-30T01:30:00+02:00"],
        ),
        // 2018-11-04: midnight is 01:00.
        case(
            "midnight does not exist",
            "America/Sao_Paulo",
            "@daily",
            None,
            "2018-11-03T12:00:00Z",
            &["2018-11-04T01:00:00-02:00 gap", "2018-11-05T00:00:00-02:00"],
        ),
        // 2018-02-18: midnight is 23:00 of the day before.
        case(
            "the last hour of a day is repeated",
            "America/Sao_Paulo",
            "30 23 17 2 *",
            Some(SHIFT_BOTH),
            "2018-02-17T12:00:00Z",
            &["2018-02-17T23:30:00-02:00 fold", "2018-02-17T23:30:00-03:00 fold"],
        ),
        case(
            "a zone without changes",
            "Asia/Kolkata",
            "30 2 * * *",
            None,
            "2026-03-28T12:00:00Z",
            &["2026-03-29T02:30:00+05:30", "2026-03-30T02:30:00+05:30"],
        ),
    ]);
}

/// The search takes each segment between two changes to be longer than the change itself; the time
/// zone database has no counterexample since 1970.
#[test]
fn no_zone_changes_twice_within_one_shift() {
    let start = at("1970-01-01T00:00:00Z");
    for name in jiff::tz::db().available() {
        let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
        let mut offset = zone.to_offset(start);
        let mut changes =
            zone.following(start).take_while(|change| change.timestamp() < at("2100-01-01T00:00:00Z")).peekable();
        while let Some(change) = changes.next() {
            let shift = i64::from((change.offset().seconds() - offset.seconds()).abs());
            offset = change.offset();
            if let Some(next) = changes.peek() {
                let length = next.timestamp().as_second() - change.timestamp().as_second();
                assert!(length >= shift, "{name}: {} and {}", change.timestamp(), next.timestamp());
            }
        }
    }
}

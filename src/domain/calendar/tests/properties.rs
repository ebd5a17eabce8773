//! Random expressions, zones and times near transitions against a slow, obviously right enumeration:
//! ask croner about every single wall-clock time, resolve each with jiff, sort.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use croner::Cron;
use jiff::tz::AmbiguousOffset;
use jiff::{SignedDuration, ToSpan as _};
use proptest::prelude::*;

use super::*;

const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Asia/Tehran",
    "Pacific/Kwajalein",
    "Asia/Kolkata",
    "UTC",
];

const DST: [DstPolicy; 6] = [
    SHIFT_FIRST,
    SHIFT_LAST,
    SHIFT_BOTH,
    SKIP_FIRST,
    DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::Last },
    SKIP_BOTH,
];

/// Every instant in `after..=until`, exclusive of the first, that `expression` means.
fn enumerate(
    expression: &str,
    step: SignedDuration,
    zone: &TimeZone,
    dst: DstPolicy,
    (after, until): (Timestamp, Timestamp),
) -> BTreeSet<Timestamp> {
    let cron = Cron::from_str(expression).expect("an expression");
    // Wide enough for any offset, and for a day that was skipped.
    let mut wall = (zone.to_datetime(after) - 25.hours()).with().second(0).build().expect("a time");
    let end = zone.to_datetime(until) + 25.hours();
    let mut instants = BTreeSet::new();
    while wall <= end {
        if cron.is_time_matching(&wall).expect("a time") {
            let read_with = |offset: jiff::tz::Offset| offset.to_timestamp(wall).expect("in range");
            match zone.to_ambiguous_timestamp(wall).offset() {
                AmbiguousOffset::Unambiguous { offset } => {
                    instants.insert(read_with(offset));
                }
                AmbiguousOffset::Gap { before, .. } => {
                    if dst.gap == GapPolicy::Shift {
                        instants.insert(read_with(before));
                    }
                }
                AmbiguousOffset::Fold { before, after } => {
                    if dst.fold != FoldPolicy::Last {
                        instants.insert(read_with(before));
                    }
                    if dst.fold != FoldPolicy::First {
                        instants.insert(read_with(after));
                    }
                }
            }
        }
        wall = wall.checked_add(step).expect("in range");
    }
    instants.into_iter().filter(|time| *time > after && *time <= until).collect()
}

fn number_field(min: u8, max: u8) -> impl Strategy<Value = String> {
    let value = min..=max;
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (1..=max).prop_map(|step| format!("*/{step}")),
        3 => value.clone().prop_map(|value| value.to_string()),
        2 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value.clone(), value.clone(), 1..=9_u8).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        2 => prop::collection::vec(value, 2..5)
            .prop_map(|values| values.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    ]
}

/// The hours in which clocks change, more often than others.
fn hour_field() -> impl Strategy<Value = String> {
    prop_oneof![number_field(0, 23), number_field(0, 3), Just("2".to_owned()), Just("1,2,3".to_owned())]
}

fn day_fields() -> impl Strategy<Value = (String, String)> {
    let star = || Just("*".to_owned());
    let of_month = || {
        prop_oneof![
            3 => number_field(1, 31),
            1 => Just("L".to_owned()),
            1 => Just("LW".to_owned()),
            1 => (1..=31_u8).prop_map(|day| format!("{day}W")),
        ]
    };
    let of_week = || {
        prop_oneof![
            3 => number_field(0, 7),
            1 => (0..=7_u8, 1..=5_u8).prop_map(|(day, nth)| format!("{day}#{nth}")),
            1 => (0..=7_u8).prop_map(|day| format!("{day}L")),
        ]
    };
    prop_oneof![
        4 => (star(), star()),
        1 => (of_month(), star()),
        1 => (star(), of_week()),
        1 => (of_month(), of_week()),
        1 => (of_month(), of_week().prop_map(|day| format!("+{day}"))),
    ]
}

/// A zone and a moment up to two days before one of its changes, or anywhere if it has none.
fn zone_near_change() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    // 1990 to 2060.
    (prop::sample::select(&ZONES[..]), 631_152_000..2_840_140_800_i64, 0..172_800_i64).prop_map(
        |(name, second, before)| {
            let zone = TimeZone::get(name).expect("a zone");
            let somewhere = Timestamp::from_second(second).expect("in range");
            let change = zone.following(somewhere).next().map_or(somewhere, |change| change.timestamp());
            (zone, change - SignedDuration::from_secs(before))
        },
    )
}

fn agree(
    expression: &str,
    step: SignedDuration,
    (zone, after): (TimeZone, Timestamp),
    dst: DstPolicy,
    length: SignedDuration,
) -> Result<(), TestCaseError> {
    let until = after + length;
    let expected: Vec<Timestamp> = enumerate(expression, step, &zone, dst, (after, until)).into_iter().collect();
    let mut trigger = CronTrigger::new(CronExpression::parse(expression).expect("an expression"), zone);
    trigger.dst = dst;

    let found: Vec<_> = trigger.times_after(after).take_while(|time| time.at <= until).collect();
    // Only the first difference: there may be thousands of times.
    let differs = (0..found.len().max(expected.len()))
        .map(|n| (found.get(n).map(|time| time.at), expected.get(n).copied()))
        .find(|(found, expected)| found != expected);
    prop_assert_eq!(differs, None, "found, expected");
    for time in &found {
        prop_assert_eq!(time.local, trigger.timezone.to_datetime(time.at));
    }
    let mut backwards = Vec::new();
    let mut before = until + SignedDuration::from_secs(1);
    while let Some(time) = trigger.previous_before(before).filter(|time| time.at > after) {
        before = time.at;
        backwards.push(time);
    }
    backwards.reverse();
    prop_assert!(backwards == found, "{} found backwards, {} forwards", backwards.len(), found.len());
    let span = expected.first().zip(expected.last()).map(|(first, last)| super::super::Span {
        first: *first,
        last: *last,
        count: u64::try_from(expected.len()).expect("few"),
    });
    prop_assert_eq!(trigger.span(after, until), span);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn minutes_agree_with_the_slow_enumeration(
        minute in number_field(0, 59),
        hour in hour_field(),
        (of_month, of_week) in day_fields(),
        month in prop_oneof![4 => Just("*".to_owned()), 1 => number_field(1, 12)],
        near in zone_near_change(),
        dst in prop::sample::select(&DST[..]),
    ) {
        let expression = format!("{minute} {hour} {of_month} {month} {of_week}");
        agree(&expression, SignedDuration::from_secs(60), near, dst, SignedDuration::from_hours(72))?;
    }

    #[test]
    fn seconds_agree_with_the_slow_enumeration(
        second in number_field(0, 59),
        minute in number_field(0, 59),
        hour in hour_field(),
        (zone, near) in zone_near_change(),
        dst in prop::sample::select(&DST[..]),
    ) {
        let expression = format!("{second} {minute} {hour} * * *");
        // The hours around the change itself.
        let change = zone.following(near).next().map_or(near, |change| change.timestamp());
        let from = change - SignedDuration::from_hours(3);
        agree(&expression, SignedDuration::from_secs(1), (zone, from), dst, SignedDuration::from_hours(6))?;
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*", piece in "[-0-9*/,LW#?+@A-Za-z ]{0,40}") {
        for text in [text, piece] {
            if let Ok(expression) = CronExpression::parse(&text) {
                let trigger = CronTrigger::new(expression, TimeZone::UTC);
                let next = trigger.next_after(Timestamp::UNIX_EPOCH);
                prop_assert_eq!(next.is_none(), trigger.expression.is_never());
            }
        }
    }
}

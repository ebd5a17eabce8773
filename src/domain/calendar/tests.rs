//! The specification of the calendar: tables of cases, and a slow, obviously right enumeration that
//! random cases are compared with.

mod dst;
mod expressions;
mod properties;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{CronExpression, NominalTime};
use crate::domain::schedule::{CronTrigger, DstPolicy, FoldPolicy, GapPolicy};

const SHIFT_FIRST: DstPolicy = DstPolicy { gap: GapPolicy::Shift, fold: FoldPolicy::First };
const SHIFT_LAST: DstPolicy = DstPolicy { gap: GapPolicy::Shift, fold: FoldPolicy::Last };
const SHIFT_BOTH: DstPolicy = DstPolicy { gap: GapPolicy::Shift, fold: FoldPolicy::Both };
const SKIP_FIRST: DstPolicy = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::First };
const SKIP_BOTH: DstPolicy = DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::Both };

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn trigger(expression: &str, zone: &str) -> CronTrigger {
    let expression = CronExpression::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    CronTrigger::new(expression, TimeZone::get(zone).expect("a zone"))
}

/// `2026-03-29T03:30:00+02:00`, and `gap` or `fold` after it.
fn shown(nominal: &NominalTime) -> String {
    let note = match nominal.dst {
        None => "",
        Some(super::DstNote::Gap) => " gap",
        Some(super::DstNote::Fold) => " fold",
    };
    let seconds = nominal.offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    format!("{}{sign}{hours:02}:{minutes:02}{note}", nominal.local)
}

/// The times of `trigger` after `after`, forwards; and the same ones found backwards, and counted.
fn check(about: &str, trigger: &CronTrigger, after: Timestamp, expected: &[&str]) {
    let found: Vec<_> = trigger.times_after(after).take(expected.len()).collect();
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected, "{about}: after {after}");
    for pair in found.windows(2) {
        let [earlier, later] = pair else { unreachable!("windows of two") };
        assert_eq!(trigger.previous_before(later.at).as_ref(), Some(earlier), "{about}: before {}", later.at);
        assert_eq!(trigger.next_after(earlier.at).as_ref(), Some(later), "{about}: after {}", earlier.at);
    }
    if let (Some(first), Some(last)) = (found.first(), found.last()) {
        let span = trigger.span(after, last.at).expect("some");
        assert_eq!((span.first, span.last), (first.at, last.at), "{about}");
        assert_eq!(span.count, u64::try_from(found.len()).expect("few"), "{about}");
    }
}

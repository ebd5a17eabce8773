//! What a trial did and found, as text for the reader and for the page about reliability.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;

use super::Trial;
use super::proof::{Verdict, Versions};

/// What was done and found, for the reader.
pub(super) fn report(
    trial: &Trial,
    verdict: &Verdict,
    took: Duration,
    agreed_after: Duration,
    rows: usize,
    znodes: &BTreeMap<&'static str, Versions>,
) -> String {
    let bad: usize = trial.taken.iter().filter(|(what, _)| what.starts_with("bad")).map(|(_, count)| count).sum();
    let total: usize = trial.taken.values().sum();
    let went_over = trial.logs().matches("other definitions are in force").count();
    let terms = trial.logs().matches("took the lead").count();
    let mut waits = verdict.in_force_after.clone();
    waits.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (waits.len() * percent).div_ceil(100).max(1);
        waits.get(rank - 1).map_or(0, SignedDuration::as_millis)
    };
    let changes: usize = znodes.values().map(BTreeMap::len).sum();
    let mut text = format!(
        "{:?}: {total} reloads, {bad} of them bad, in {:.0} s; {terms} terms, a leader went over {went_over} times; {rows} rows, {changes} \
         changes of znodes; 0 lost, 0 doubled\n\
         edited schedules: {} nominal times due and there, {} not due and not there, {} at an edit\n\
         written until the first row under it, of {} sets: p50 {} ms, p99 {} ms, max {} ms; all agreed {} ms after the last\n",
        trial.place,
        took.as_secs_f64(),
        verdict.due,
        verdict.not_due,
        verdict.at_an_edit,
        waits.len(),
        percentile(50),
        percentile(99),
        percentile(100),
        agreed_after.as_millis(),
    );
    for (what, count) in &trial.taken {
        let _ = writeln!(text, "  {count:4} {what}");
    }
    text
}

//! How long the first occurrence after a fault waited for Airflow; the table of the report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::faults::Kind;

/// An occurrence that Airflow has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival {
    pub(crate) due: Timestamp,
    /// By Airflow's clock.
    pub(crate) accepted: Timestamp,
}

/// A fault that was inflicted, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inflicted {
    pub(crate) kind: Kind,
    pub(crate) at: Timestamp,
}

/// Due → accepted of the first occurrence that came due after each fault, by kind.
///
/// A fault that nothing came due after before `until` is left out.
pub(crate) fn first_after(faults: &[Inflicted], arrivals: &[Arrival]) -> BTreeMap<Kind, Vec<SignedDuration>> {
    let mut sorted = arrivals.to_vec();
    sorted.sort_unstable();
    let mut waits: BTreeMap<Kind, Vec<SignedDuration>> = BTreeMap::new();
    for fault in faults {
        let first = sorted.partition_point(|arrival| arrival.due <= fault.at);
        let Some(arrival) = sorted.get(first) else { continue };
        waits.entry(fault.kind).or_default().push(arrival.accepted.duration_since(arrival.due));
    }
    waits
}

/// The value below which `percent` of the sorted values lie, by nearest rank.
pub(crate) fn percentile(sorted: &[SignedDuration], percent: usize) -> SignedDuration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A row of milliseconds: how many, median, p99, max.
pub(crate) fn row(label: &str, waits: &[SignedDuration]) -> String {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    let milliseconds = |wait: SignedDuration| wait.as_millis();
    format!(
        "| {label} | {} | {} | {} | {} |",
        sorted.len(),
        milliseconds(percentile(&sorted, 50)),
        milliseconds(percentile(&sorted, 99)),
        milliseconds(sorted.last().copied().unwrap_or_default())
    )
}

/// The table, in Markdown: for each kind of fault the cron occurrences, then the changes of znodes.
pub(crate) fn table(faults: &[Inflicted], cron: &[Arrival], changes: &[Arrival]) -> String {
    let mut text = String::new();
    for (what, arrivals) in [("second of cron", cron), ("change of a znode", changes)] {
        let _ = writeln!(
            text,
            "| fault → first {what} after it | n | median ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|"
        );
        for (kind, waits) in first_after(faults, arrivals) {
            let _ = writeln!(text, "{}", row(&kind.to_string(), &waits));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_first_occurrence_after_a_fault_is_the_one_that_counts() {
    let at = |milliseconds: i64| Timestamp::from_millisecond(milliseconds).expect("a time");
    let arrival = |due, accepted| Arrival { due: at(due), accepted: at(accepted) };
    let faults = [1000, 1500, 9000].map(|milliseconds| Inflicted { kind: Kind::KillLeader, at: at(milliseconds) });
    // Out of order, one at the very moment of a fault, and nothing after the last.
    let arrivals = [arrival(3000, 3010), arrival(2000, 4500), arrival(1000, 1001)];
    let waits = first_after(&faults, &arrivals);
    assert_eq!(waits[&Kind::KillLeader], [SignedDuration::from_millis(2500); 2]);
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    let waits: Vec<_> = (1..=200).map(SignedDuration::from_millis).collect();
    assert_eq!(row("x", &waits), "| x | 200 | 100 | 198 | 200 |");
    assert_eq!(row("x", &waits[..1]), "| x | 1 | 1 | 1 | 1 |");
    assert_eq!(row("x", &[]), "| x | 0 | 0 | 0 | 0 |");
}

//! The keys of a schedule that are about time: `catchup`, `retry`, `deadline`, and the dates of a DAG run.

use std::time::Duration;

use super::super::section::Section;
use super::super::written;
use crate::domain::schedule::{Catchup, DataInterval, Deadline, LogicalDate, Overlap, RetryPolicy, TriggerKind};

const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(366 * 24);

/// The parts of `retry` that are set.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RetryText {
    total: Option<Duration>,
    initial: Option<Duration>,
    max: Option<Duration>,
}

impl RetryText {
    pub(super) fn over(self, wider: Self) -> Self {
        Self { total: self.total.or(wider.total), initial: self.initial.or(wider.initial), max: self.max.or(wider.max) }
    }
}

pub(super) fn dates(
    section: &Section<'_, '_>,
    is_cron: bool,
    (own_date, own_interval): (Option<LogicalDate>, Option<DataInterval>),
    (default_date, default_interval): (Option<LogicalDate>, Option<DataInterval>),
) -> (LogicalDate, DataInterval) {
    if !is_cron {
        if matches!(own_date, Some(LogicalDate::Nominal | LogicalDate::IntervalStart)) {
            section.error(
                &["logical_date"],
                "only a cron schedule has a nominal time to take the logical date from",
                "write \"none\", or take the key out",
            );
        }
        return (LogicalDate::None, DataInterval::Dag);
    }
    let logical_date = own_date.or(default_date).unwrap_or(LogicalDate::Nominal);
    let by_itself =
        if logical_date == LogicalDate::IntervalStart { DataInterval::Previous } else { DataInterval::Exact };
    if logical_date == LogicalDate::IntervalStart {
        match own_interval {
            Some(DataInterval::Dag) => section.error(
                &["data_interval"],
                "the start of an interval that only the DAG knows cannot be the logical date",
                "write data_interval = \"previous\", or another `logical_date`",
            ),
            Some(DataInterval::Exact) if own_date.is_some() => section.warning(
                &["data_interval"],
                "with an exact interval, its start is the nominal time",
                "write data_interval = \"previous\", as Airflow 2 has it, or logical_date = \"nominal\"",
            ),
            _ => {}
        }
    }
    (logical_date, own_interval.or(default_interval).unwrap_or(by_itself))
}

pub(super) fn catchup(
    section: &Section<'_, '_>,
    kind: TriggerKind,
    own: Option<Catchup>,
    defaults: Option<Catchup>,
    overlap: Overlap,
) -> Catchup {
    let by_itself = match kind {
        TriggerKind::Cron => Catchup::Latest,
        TriggerKind::Znode => Catchup::All,
        // Nothing comes due unseen.
        TriggerKind::Ensemble | TriggerKind::Manual => return Catchup::None,
    };
    let catchup = own.or(defaults).unwrap_or(by_itself);
    if kind == TriggerKind::Cron && (catchup, overlap) == (Catchup::All, Overlap::Skip) {
        section.warning(
            &[if own.is_some() { "catchup" } else { "name" }],
            "catchup = \"all\" makes many times due at once, and overlap = \"skip\" (cron's default) runs only the first of them",
            "write overlap = \"queue\" to run them one after the other, or \"allow\" to run them beside each other",
        );
    }
    catchup
}

pub(super) fn retry_text(section: &Section<'_, '_>, written: Option<written::Retry>) -> RetryText {
    let written = written.unwrap_or_default();
    let least = Duration::from_millis(100);
    RetryText {
        total: written.r#for.map(|total| section.between(&["retry", "for"], total.0, Duration::ZERO, YEAR)),
        initial: written.initial.map(|pause| section.between(&["retry", "initial"], pause.0, least, DAY)),
        max: written.max.map(|pause| section.between(&["retry", "max"], pause.0, least, DAY)),
    }
}

pub(super) fn retry(section: &Section<'_, '_>, own: RetryText, defaults: RetryText) -> RetryPolicy {
    let by_itself = RetryPolicy::default();
    let set = own.over(defaults);
    let total = set.total.unwrap_or(by_itself.total);
    // A pause that is set alone moves the other one along.
    let initial = set.initial.unwrap_or_else(|| set.max.map_or(by_itself.initial, |max| by_itself.initial.min(max)));
    let max = set.max.unwrap_or_else(|| by_itself.max.max(initial));
    if initial > max && (own.initial.is_some() || own.max.is_some()) {
        section.error(
            &["retry"],
            format!("the first pause ({}) is longer than the longest ({})", super::human(initial), super::human(max)),
            "make `initial` at most `max`",
        );
    }
    RetryPolicy { total, initial, max }
}

pub(super) fn deadline(written: Option<written::Deadline>) -> Deadline {
    let written = written.unwrap_or_default();
    Deadline { start: written.start.map(|start| start.0), finish: written.finish.map(|finish| finish.0) }
}

pub(super) fn check_deadline(section: &Section<'_, '_>, deadline: Deadline) {
    if let (Some(start), Some(finish)) = (deadline.start, deadline.finish)
        && start > finish
    {
        section.error(
            &["deadline"],
            "the run is to end before it is to start",
            "make `finish` longer than `start`: both count from the nominal time",
        );
    }
}

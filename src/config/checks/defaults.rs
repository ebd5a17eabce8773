//! `[defaults]`: what schedules have that say nothing else.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::super::section::Section;
use super::super::written;
use super::cron::{jitter, zone};
use super::shared::Shared;
use super::times::{RetryText, deadline, retry_text};
use crate::domain::schedule::{
    Catchup, DataInterval, Deadline, FoldPolicy, GapPolicy, Initial, LogicalDate, Overlap, PausedDag,
};

/// Checked values of `[defaults]`.
#[derive(Debug, Default, Clone)]
pub(crate) struct ScheduleDefaults {
    pub(super) airflow: Option<Arc<str>>,
    pub(super) owner: Option<String>,
    pub(super) timezone: Option<TimeZone>,
    pub(super) initial: Option<Initial>,
    pub(super) logical_date: Option<LogicalDate>,
    pub(super) data_interval: Option<DataInterval>,
    pub(super) catchup: Option<Catchup>,
    pub(super) catchup_window: Option<Duration>,
    pub(super) overlap: Option<Overlap>,
    pub(super) gap: Option<GapPolicy>,
    pub(super) fold: Option<FoldPolicy>,
    pub(super) jitter: Option<Duration>,
    pub(super) retry: RetryText,
    pub(super) deadline: Deadline,
    pub(super) lock: Option<Arc<str>>,
    pub(super) paused_dag: Option<PausedDag>,
    pub(super) paused: Option<bool>,
}

impl ScheduleDefaults {
    /// These values where they are set, `wider` ones elsewhere.
    pub(crate) fn over(self, wider: &Self) -> Self {
        let wider = wider.clone();
        Self {
            airflow: self.airflow.or(wider.airflow),
            owner: self.owner.or(wider.owner),
            timezone: self.timezone.or(wider.timezone),
            initial: self.initial.or(wider.initial),
            logical_date: self.logical_date.or(wider.logical_date),
            data_interval: self.data_interval.or(wider.data_interval),
            catchup: self.catchup.or(wider.catchup),
            catchup_window: self.catchup_window.or(wider.catchup_window),
            overlap: self.overlap.or(wider.overlap),
            gap: self.gap.or(wider.gap),
            fold: self.fold.or(wider.fold),
            jitter: self.jitter.or(wider.jitter),
            retry: self.retry.over(wider.retry),
            deadline: Deadline {
                start: self.deadline.start.or(wider.deadline.start),
                finish: self.deadline.finish.or(wider.deadline.finish),
            },
            lock: self.lock.or(wider.lock),
            paused_dag: self.paused_dag.or(wider.paused_dag),
            paused: self.paused.or(wider.paused),
        }
    }
}

/// `[defaults]`. An Airflow that it names is looked up with the schedules that take it.
pub(crate) fn defaults(section: &Section<'_, '_>, shared: &mut Shared) -> ScheduleDefaults {
    let written: written::Defaults = section.read();
    let dst = written.dst.unwrap_or_default();
    ScheduleDefaults {
        airflow: written.airflow.map(|name| shared.name(&name)),
        owner: written.owner,
        timezone: written.timezone.and_then(|name| zone(section, shared, &name)),
        initial: written.initial.map(|initial| initial.0),
        logical_date: written.logical_date.map(|choice| choice.0),
        data_interval: written.data_interval.map(|choice| choice.0),
        catchup: written.catchup.map(|choice| choice.0),
        catchup_window: written.catchup_window.map(|window| window.0),
        overlap: written.overlap.map(|choice| choice.0),
        gap: dst.gap.map(|choice| choice.0),
        fold: dst.fold.map(|choice| choice.0),
        jitter: jitter(section, written.jitter),
        retry: retry_text(section, written.retry),
        deadline: deadline(written.deadline),
        lock: written.lock.and_then(|name| lock(section, shared, &name)),
        paused_dag: written.paused_dag.map(|choice| choice.0),
        paused: written.paused,
    }
}

/// The name of a lock, which is the name of a znode and a label of metrics.
pub(super) fn lock(section: &Section<'_, '_>, shared: &mut Shared, name: &str) -> Option<Arc<str>> {
    if super::is_name(name) {
        return Some(shared.name(name));
    }
    let hint = "use lower-case letters, digits, `-` and `_`, a letter or digit first, at most 64; it becomes the znode \
                locks/NAME under the root of [zookeeper]";
    section.error(&["lock"], format!("\"{name}\" is not a name for a lock"), hint);
    None
}

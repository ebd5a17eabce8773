//! What this member knows of itself and keeps nowhere else: which triggers are armed, whether it
//! leads, whether it is up.
//!
//! Triggers and the lifecycle write it, probes and history read it. It dies with the process; what
//! must outlive the process is in the ledger.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use crate::domain::schedule::ScheduleName;
use crate::overview::Standing;

/// The state of this member. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<RwLock<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    armed: HashSet<ScheduleName>,
    troubles: HashMap<ScheduleName, String>,
    unrecorded_since: Option<Timestamp>,
    leading: bool,
    started: bool,
}

impl Status {
    /// A member that has just begun: nothing armed, not leading, not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes whether a schedule's timer is set, its watch is set and the first diff is done, or its
    /// ensemble was looked at.
    pub fn set_armed(&self, schedule: &ScheduleName, armed: bool) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if armed {
            inner.armed.insert(schedule.clone());
        } else {
            inner.armed.remove(schedule);
        }
    }

    /// Whether [`Self::set_armed`] has said so.
    pub fn is_armed(&self, schedule: &ScheduleName) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).armed.contains(schedule)
    }

    /// Notes what keeps a schedule's trigger from seeing everything, or has stopped it; `None` when
    /// nothing does.
    pub fn set_trouble(&self, schedule: &ScheduleName, trouble: Option<String>) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => inner.troubles.insert(schedule.clone(), trouble),
            None => inner.troubles.remove(schedule),
        };
    }

    /// What [`Self::set_trouble`] has said.
    pub fn trouble(&self, schedule: &ScheduleName) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).troubles.get(schedule).cloned()
    }

    /// Notes since when the oldest occurrence is on its way to the ledger; `None` when none is.
    pub fn set_unrecorded_since(&self, since: Option<Timestamp>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).unrecorded_since = since;
    }

    /// What [`Self::set_unrecorded_since`] has said.
    pub fn unrecorded_since(&self) -> Option<Timestamp> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).unrecorded_since
    }

    /// Both, as overviews show them; a member that does not lead knows neither.
    pub fn standing(&self, schedule: &ScheduleName) -> Standing {
        Standing { armed: self.is_leading().then(|| self.is_armed(schedule)), trouble: self.trouble(schedule) }
    }

    /// Notes whether this member schedules; one that stops leading has nothing armed.
    pub fn set_leading(&self, leading: bool) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        inner.leading = leading;
        if !leading {
            inner.armed.clear();
            inner.troubles.clear();
            inner.unrecorded_since = None;
        }
    }

    /// Whether this member schedules.
    pub fn is_leading(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).leading
    }

    /// Notes that everything that a leader or a standby needs has been set up.
    pub fn set_started(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).started = true;
    }

    /// Whether [`Self::set_started`] was called.
    pub fn is_started(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_stops_leading_has_nothing_armed() {
        let name = ScheduleName::new("nightly").expect("a legal name");
        let status = Status::new();
        status.set_leading(true);
        status.set_armed(&name, true);
        status.set_unrecorded_since(Some(Timestamp::UNIX_EPOCH));
        assert!(status.is_armed(&name) && status.is_leading());
        status.set_leading(false);
        assert!(!status.is_armed(&name) && !status.is_leading());
        assert_eq!(status.unrecorded_since(), None);
    }
}

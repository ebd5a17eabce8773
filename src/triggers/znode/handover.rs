//! What a trigger that is edited leaves to the one that takes its place.
//!
//! Before it ends, the old one compares everything once more by its own rule, so that what it made due is
//! in the ledger, and tells how far that went. The ledger keeps it: what is changed after that belongs to
//! the new one, also where that would pass over what exists when it first looks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::schedule::ScheduleName;

/// Shared by all triggers of a term. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Triggers that are to compare once more before they end.
    ending: HashSet<ScheduleName>,
    /// Up to which zxid those that have ended compared everything.
    compared: HashMap<ScheduleName, i64>,
}

impl Handover {
    /// These triggers are about to end, since their rule is edited or gone.
    pub fn ending(&self, schedules: impl IntoIterator<Item = ScheduleName>) {
        let mut inner = self.inner();
        inner.ending = schedules.into_iter().collect();
        inner.compared.clear();
    }

    /// Up to which zxid those that ended compared everything. One that is not named could not compare.
    pub fn compared(&self) -> HashMap<ScheduleName, i64> {
        self.inner().compared.clone()
    }

    /// Whether a trigger that ends is to compare once more.
    pub(super) fn is_ending(&self, schedule: &ScheduleName) -> bool {
        self.inner().ending.contains(schedule)
    }

    /// A trigger that ends has compared everything up to this zxid.
    pub(super) fn leave(&self, schedule: &ScheduleName, zxid: i64) {
        self.inner().compared.insert(schedule.clone(), zxid);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edit_has_its_own() {
        let name = |text: &str| ScheduleName::new(text).unwrap();
        let handover = Handover::default();
        handover.ending([name("a")]);
        assert!(handover.is_ending(&name("a")) && !handover.is_ending(&name("b")));
        handover.leave(&name("a"), 7);
        assert_eq!(handover.compared(), HashMap::from([(name("a"), 7)]));
        // The ledger has the one before by now.
        handover.ending([name("b")]);
        assert!(!handover.is_ending(&name("a")) && handover.compared().is_empty());
    }
}

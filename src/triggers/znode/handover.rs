//! What a trigger that is edited leaves to the one that takes its place.
//!
//! Before it ends, the old one compares everything once more by its own rule, so that what it made due is
//! in the ledger. What is changed after that comparison belongs to the new one, also where that would
//! pass over what exists when it first looks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::schedule::{Schedule, ScheduleName, WatchScope, ZnodeTrigger};

/// Shared by all triggers of a term. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Triggers that are to compare once more before they end.
    ending: HashSet<ScheduleName>,
    /// The last comparisons.
    compared: HashMap<ScheduleName, Compared>,
}

/// A last comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Compared {
    ensemble: Option<Arc<str>>,
    path: Arc<str>,
    watch: WatchScope,
    /// The highest zxid that it saw.
    zxid: i64,
}

impl Handover {
    /// These triggers are about to end, since their rule is edited or gone.
    pub fn ending(&self, schedules: impl IntoIterator<Item = ScheduleName>) {
        let mut inner = self.inner();
        inner.ending = schedules.into_iter().collect();
        inner.compared.clear();
    }

    /// Whether a trigger that ends is to compare once more.
    pub(super) fn is_ending(&self, schedule: &ScheduleName) -> bool {
        self.inner().ending.contains(schedule)
    }

    /// A trigger has compared everything for the last time, and saw this zxid as the highest.
    pub(super) fn compared(&self, schedule: &ScheduleName, trigger: &ZnodeTrigger, zxid: i64) {
        let (ensemble, path) = (trigger.ensemble.clone(), Arc::clone(&trigger.path));
        let compared = Compared { ensemble, path, watch: trigger.watch, zxid };
        self.inner().compared.insert(schedule.clone(), compared);
    }

    /// Up to which zxid the trigger before this one has compared, where it watched the same place.
    pub(super) fn taken_over(&self, schedule: &Schedule, trigger: &ZnodeTrigger) -> Option<i64> {
        let mut inner = self.inner();
        let own = inner.compared.remove(&schedule.name);
        let compared = own.or_else(|| inner.compared.remove(schedule.was.as_ref()?))?;
        let same =
            compared.ensemble == trigger.ensemble && compared.path == trigger.path && compared.watch == trigger.watch;
        same.then_some(compared.zxid)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};
    use crate::domain::schedule::Trigger;

    #[test]
    fn only_who_watches_the_same_place_takes_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flowkeeper.toml");
        let head =
            "[zookeeper]\nconnect = \"h:1\"\n[airflow.main]\nurl = \"http://h\"\nauth = { token = { env = \"T\" } }\n";
        let schedule = |name: &str, was: &str, znode: &str| {
            let text = format!("{head}[[schedule]]\nname = \"{name}\"\n{was}znode = {{ {znode} }}\ndag = \"d\"\n");
            std::fs::write(&file, text).unwrap();
            config::check(&file, &Environment::default()).unwrap().0.schedules.remove(0)
        };
        let trigger = |schedule: &Schedule| match &schedule.trigger {
            Trigger::Znode(trigger) => trigger.clone(),
            other @ (Trigger::Cron(_) | Trigger::Ensemble(_)) => panic!("{other:?}"),
        };
        let before = schedule("a", "", "path = \"/x\", watch = \"children\"");
        let cases = [
            ("another `include`", schedule("a", "", "path = \"/x\", watch = \"children\", include = [\"y\"]"), Some(7)),
            ("renamed", schedule("b", "was = \"a\"\n", "path = \"/x\", watch = \"children\""), Some(7)),
            ("another path", schedule("a", "", "path = \"/z\", watch = \"children\""), None),
            ("another scope", schedule("a", "", "path = \"/x\", watch = \"subtree\""), None),
            ("another schedule", schedule("c", "", "path = \"/x\", watch = \"children\""), None),
        ];
        for (case, after, expected) in cases {
            let handover = Handover::default();
            handover.ending([before.name.clone()]);
            assert!(handover.is_ending(&before.name) && !handover.is_ending(&ScheduleName::new("c").unwrap()));
            handover.compared(&before.name, &trigger(&before), 7);
            assert_eq!(handover.taken_over(&after, &trigger(&after)), expected, "{case}");
            assert_eq!(handover.taken_over(&after, &trigger(&after)), None, "{case}: once");
        }
    }
}

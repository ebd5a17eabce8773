//! Which znodes no trigger takes for a change: those that flowkeeper itself makes, pure.
//!
//! A trigger on `/` would otherwise run a DAG for every look at the ensemble's health, since the canary
//! makes a znode and the verdict is written into another, and for each lock that such a run takes. A
//! trigger that names flowkeeper's root, or a znode below it, is meant so and sees them.

use std::sync::Arc;

use crate::domain::health::is_canary;
use crate::domain::schedule::{WatchScope, ZnodeTrigger};

/// What one trigger leaves out. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut {
    canaries: bool,
    /// Flowkeeper's root, where the trigger begins above it.
    root: Option<Arc<str>>,
}

impl LeftOut {
    /// `own_root` is flowkeeper's root in the trigger's ensemble, if it has one there.
    pub(super) fn of(trigger: &ZnodeTrigger, own_root: Option<&Arc<str>>) -> Self {
        if trigger.watch == WatchScope::Node {
            return Self::default();
        }
        let above = trigger.path.trim_end_matches('/');
        let is_below = |root: &&Arc<str>| root.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        Self { canaries: true, root: own_root.filter(is_below).cloned() }
    }

    /// Whether the znode at `path`, and all below it, is left out.
    pub(super) fn covers(&self, path: &str) -> bool {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let is_own =
            |root: &Arc<str>| path.strip_prefix(&**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (self.canaries && is_canary(name)) || self.root.as_ref().is_some_and(is_own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::{ChangeKinds, Initial};

    const CANARY: &str = "flowkeeper-canary-0123456789abcdef0123456789abcdef";

    fn left_out(path: &str, watch: WatchScope, own_root: Option<&str>) -> LeftOut {
        let trigger = ZnodeTrigger {
            ensemble: None,
            path: path.into(),
            watch,
            on: ChangeKinds { created: true, changed: true, deleted: true },
            include: None,
            settle: None,
            settle_max: None,
            batch: None,
            initial: Initial::Ignore,
            consume: None,
        };
        LeftOut::of(&trigger, own_root.map(Arc::from).as_ref())
    }

    #[test]
    fn what_flowkeeper_makes_is_left_out_from_above_and_seen_by_who_names_it() {
        use WatchScope::{Children, Node, Subtree};
        let canary = format!("/{CANARY}");
        let deep = format!("/apps/{CANARY}");
        let own = Some("/flowkeeper");
        for (path, watch, own_root, znode, is_left_out) in [
            ("/", Subtree, own, canary.as_str(), true),
            ("/", Children, own, &canary, true),
            ("/apps", Children, own, &deep, true),
            ("/apps", Subtree, None, &deep, true),
            // Somebody who names one znode means it.
            (&canary, Node, own, &canary, false),
            ("/", Subtree, own, "/flowkeeper", true),
            ("/", Subtree, own, "/flowkeeper/health/main", true),
            ("/", Children, own, "/flowkeeper", true),
            ("/", Subtree, own, "/flowkeepers", false),
            ("/", Subtree, own, "/zookeeper/config", false),
            ("/", Subtree, own, "/data", false),
            // In an ensemble where flowkeeper does not live it is somebody's.
            ("/", Subtree, None, "/flowkeeper/health/main", false),
            ("/apps", Subtree, Some("/apps/flowkeeper"), "/apps/flowkeeper/locks/x", true),
            ("/apps", Subtree, Some("/appsflowkeeper"), "/apps/x", false),
            ("/flowkeeper", Subtree, own, "/flowkeeper/health/main", false),
            ("/flowkeeper/health", Children, own, "/flowkeeper/health/main", false),
            ("/flowkeeper/health/main", Node, own, "/flowkeeper/health/main", false),
        ] {
            let covers = left_out(path, watch, own_root).covers(znode);
            assert_eq!(covers, is_left_out, "{watch:?} of {path}, root {own_root:?}: {znode}");
        }
    }
}

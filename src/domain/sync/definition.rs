//! A sync as the configuration defines it.

use std::sync::Arc;
use std::time::Duration;

use super::entry::EntryKind;
use crate::domain::schedule::WatchScope;
use crate::domain::template::ValueTemplate;

/// A checked `[[sync]]`.
#[derive(Debug, Clone)]
pub struct SyncDefinition {
    /// Its name.
    pub name: Arc<str>,
    /// The Airflow that is kept in step.
    pub airflow: Arc<str>,
    /// Which of its collections.
    pub kind: EntryKind,
    /// Name of the ensemble; `None` is the home ensemble.
    pub ensemble: Option<Arc<str>>,
    /// Absolute path of the znode.
    pub path: Arc<str>,
    /// What of it becomes an entry: each child, each znode below it, or each member of the JSON object that
    /// it holds itself.
    pub scope: WatchScope,
    /// Stands in a key where the path below the znode has a `/`.
    pub separator: String,
    /// Stands before each key.
    pub prefix: String,
    /// Makes the value; without it, it is what the znode holds.
    pub value: Option<ValueTemplate>,
    /// Whether what vanished from ZooKeeper is deleted in Airflow.
    pub prune: bool,
    /// What becomes of changes that people make in Airflow.
    pub drift: DriftPolicy,
    /// Whether entries that others made are taken over.
    pub adopt: bool,
    /// How often Airflow is compared when nothing changes in ZooKeeper.
    pub interval: Duration,
}

/// What becomes of changes that people make in Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriftPolicy {
    /// They are told.
    Report,
    /// They are undone.
    Repair,
}

impl SyncDefinition {
    /// Whether a znode that both read certainly becomes the same key of the same collection, if there is one.
    /// Syncs of different znodes may want the same key as well; nobody can tell before they are read.
    pub fn overlaps(&self, other: &Self) -> bool {
        let is_same_collection = (&self.airflow, self.kind) == (&other.airflow, other.kind);
        is_same_collection
            && self.ensemble == other.ensemble
            && (self.reads_keys_of(other) || other.reads_keys_of(self))
    }

    /// Whether the children of `inner`'s znode are among what this one reads, under the same keys.
    fn reads_keys_of(&self, inner: &Self) -> bool {
        let parent = self.path.trim_end_matches('/');
        let Some(below) = inner.path.trim_end_matches('/').strip_prefix(parent) else { return false };
        match (self.scope, inner.scope) {
            (WatchScope::Node, WatchScope::Node) => below.is_empty() && self.prefix == inner.prefix,
            (WatchScope::Node, _) | (_, WatchScope::Node) => false,
            (WatchScope::Children | WatchScope::Subtree, _) if below.is_empty() => self.prefix == inner.prefix,
            (WatchScope::Subtree, _) => below
                .strip_prefix('/')
                .is_some_and(|name| inner.prefix == format!("{}{}", self.key(name), self.separator)),
            (WatchScope::Children, _) => false,
        }
    }

    /// The key of the entry that comes from a name below the znode.
    pub fn key(&self, name: &str) -> String {
        format!("{}{}", self.prefix, name.replace('/', &self.separator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(path: &str, scope: WatchScope, prefix: &str, separator: &str) -> SyncDefinition {
        SyncDefinition {
            name: "app".into(),
            airflow: "main".into(),
            kind: EntryKind::Variables,
            ensemble: None,
            path: path.into(),
            scope,
            separator: separator.to_owned(),
            prefix: prefix.to_owned(),
            value: None,
            prune: false,
            drift: DriftPolicy::Report,
            adopt: false,
            interval: Duration::from_mins(5),
        }
    }

    #[test]
    fn what_two_syncs_certainly_both_write_is_seen() {
        use WatchScope::{Children, Node, Subtree};
        for (one, other, expected) in [
            (("/a", Children, "", "."), ("/a", Children, "", "."), true),
            (("/a", Children, "", "."), ("/a", Children, "x_", "."), false),
            (("/a", Children, "", "."), ("/b", Children, "", "."), false),
            (("/a", Children, "", "."), ("/ab", Children, "", "."), false),
            // The children of a subtree's znode are in it, whatever separates the parts of other paths.
            (("/a", Children, "", "."), ("/a", Subtree, "", "_"), true),
            (("/a", Subtree, "", "."), ("/a", Subtree, "", "_"), true),
            (("/a", Subtree, "", "."), ("/a/b/c", Children, "b.c.", "."), true),
            (("/a", Subtree, "p_", "_"), ("/a/b", Subtree, "p_b_", "."), true),
            (("/a", Subtree, "", "."), ("/a/b", Children, "", "."), false),
            (("/a", Subtree, "", "."), ("/a/b", Children, "b_", "."), false),
            (("/a", Children, "", "."), ("/a/b", Children, "b.", "."), false),
            (("/", Subtree, "", "."), ("/b", Children, "b.", "."), true),
            (("/a", Node, "", "."), ("/a", Node, "", "."), true),
            (("/a", Node, "", "."), ("/a", Node, "x", "."), false),
            (("/a", Node, "", "."), ("/a", Children, "", "."), false),
        ] {
            let told = format!("{one:?} and {other:?}");
            let of = |(path, scope, prefix, separator)| sync(path, scope, prefix, separator);
            let (one, other) = (of(one), of(other));
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (expected, expected), "{told}");
            assert!(!one.overlaps(&SyncDefinition { airflow: "other".into(), ..other.clone() }), "{told}");
            assert!(!one.overlaps(&SyncDefinition { kind: EntryKind::Pools, ..other.clone() }), "{told}");
            assert!(!one.overlaps(&SyncDefinition { ensemble: Some("solr".into()), ..other }), "{told}");
        }
    }
}

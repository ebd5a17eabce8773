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
    /// The key of the entry that comes from a name below the znode.
    pub fn key(&self, name: &str) -> String {
        format!("{}{}", self.prefix, name.replace('/', &self.separator))
    }
}

//! `[[sync]]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::leaf::{Choice, DurationText, Words};
use crate::domain::schedule::WatchScope;
use crate::domain::sync::definition::DriftPolicy;
use crate::domain::sync::entry::EntryKind;

/// Keeps variables, pools or connections of an Airflow in step with znodes. Only what flowkeeper wrote
/// is ever changed or deleted; `docs/sync.md` tells how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sync")]
pub(in crate::config) struct SyncSection {
    /// Names the sync; lower-case letters, digits and `-`, at most 64. What a sync wrote is kept under
    /// this name.
    #[schemars(required)]
    pub(in crate::config) name: Option<String>,
    /// The Airflow, when there are several.
    pub(in crate::config) airflow: Option<String>,
    /// Where the entries come from.
    #[schemars(required)]
    pub(in crate::config) znode: Option<SyncZnode>,
    /// What they become: variables hold text; a pool is a number of slots, or JSON with `slots`,
    /// `description` and `include_deferred`; a connection is a URI, or JSON with `conn_type`,
    /// `description`, `host`, `login`, `password`, `port`, `schema` and `extra`.
    #[schemars(required)]
    pub(in crate::config) to: Option<Choice<EntryKind>>,
    /// Stands before each key in Airflow.
    #[schemars(extend("default" = ""))]
    pub(in crate::config) prefix: Option<String>,
    /// A template that makes the value, from `znode`, `key` (without the prefix) and `value` (the text of
    /// the znode, or the member of the JSON object). Left out, the value is what the znode holds.
    pub(in crate::config) value: Option<String>,
    /// Delete in Airflow what vanished from ZooKeeper. When the znode is missing, or nothing is left
    /// below it, nothing is deleted before somebody runs `flowkeeper sync apply --prune`.
    #[schemars(extend("default" = false))]
    pub(in crate::config) prune: Option<bool>,
    /// What becomes of changes that people make in Airflow: they are told, or undone.
    #[schemars(extend("default" = "report"))]
    pub(in crate::config) drift: Option<Choice<DriftPolicy>>,
    /// Take over entries that are in Airflow already. Otherwise they are conflicts, and stay as they are.
    #[schemars(extend("default" = false))]
    pub(in crate::config) adopt: Option<bool>,
    /// How often Airflow is compared when nothing changes in ZooKeeper.
    #[schemars(extend("default" = "5m"))]
    pub(in crate::config) interval: Option<DurationText>,
}

/// The znodes of a sync.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SyncZnode {
    /// An absolute path.
    #[schemars(required)]
    pub(in crate::config) path: Option<String>,
    /// `children`: each child is an entry, its name the key. `subtree`: each znode below, but for those
    /// without data that only hold others; the path below is the key. `node`: the znode itself holds a
    /// JSON object, and each member is an entry.
    #[schemars(extend("default" = "children"))]
    pub(in crate::config) watch: Option<Choice<WatchScope>>,
    /// With `subtree`: stands in a key for each `/` of the path.
    #[schemars(extend("default" = "."))]
    pub(in crate::config) separator: Option<String>,
    /// The ensemble, a name of `[ensemble.NAME]`; left out, the home ensemble.
    pub(in crate::config) ensemble: Option<String>,
}

impl Words for EntryKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("variables", Self::Variables), ("pools", Self::Pools), ("connections", Self::Connections)];
}

impl Words for DriftPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("report", Self::Report), ("repair", Self::Repair)];
}

//! What a znode is known to be, and what changed between two looks at it.
//!
//! A watch only hints; the diff of two looks is the truth. Identity is `(czxid, mzxid)`: the data
//! version starts again when a znode is deleted and recreated, so it never decides, it only counts.

/// The kinds of change that a trigger can fire on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The znode appeared.
    Created,
    /// Its data was set.
    Changed,
    /// It was deleted.
    Deleted,
}

impl ChangeKind {
    /// The spelling of configuration, templates and API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

/// What the ledger last handled of one znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZnodeVersion {
    /// The transaction that created this incarnation.
    pub czxid: i64,
    /// The transaction that last set its data.
    pub mzxid: i64,
    /// How often the data of this incarnation was set, modulo 2³².
    pub version: i32,
}

//! What a znode is known to be, and what changed between two looks at it.
//!
//! A watch only hints; the diff of two looks is the truth. Identity is `(czxid, mzxid)`: the data
//! version starts again when a znode is deleted and recreated, so it never decides, it only counts.
//! zxids only grow. Two looks of which the later one shows a smaller zxid are of two histories, and
//! then nothing can be said about what changed: that is [`TimeWentBack`], never a change.

use super::schedule::ChangeKinds;

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

/// What one read showed of a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZnodeStat {
    /// The transaction that created this incarnation.
    pub czxid: i64,
    /// The transaction that last set its data.
    pub mzxid: i64,
    /// The transaction that last created or deleted a child.
    pub pzxid: i64,
    /// When this incarnation was created, by the ensemble's clock, in milliseconds since 1970.
    pub ctime_ms: i64,
    /// When its data was last set, by the ensemble's clock, in milliseconds since 1970.
    pub mtime_ms: i64,
    /// How often its data was set, modulo 2³².
    pub version: i32,
    /// How often a child was created or deleted, modulo 2³².
    pub cversion: i32,
    /// The length of its data.
    pub size_bytes: u32,
    /// How many children it has.
    pub children: u32,
}

impl ZnodeStat {
    /// The part that is kept once it is handled.
    pub fn seen(&self) -> ZnodeVersion {
        ZnodeVersion { czxid: self.czxid, mzxid: self.mzxid, version: self.version }
    }

    /// The children's part: what a trigger on children or a subtree keeps of the znode that it
    /// hangs on. Its data is of no interest there.
    pub fn seen_as_parent(&self) -> ZnodeVersion {
        ZnodeVersion { czxid: self.czxid, mzxid: self.pzxid.max(self.czxid), version: self.cversion }
    }
}

/// What happened to one znode between two looks, as far as the second look can tell.
///
/// The three parts are independent: a znode that was deleted, created again and set twice has all
/// of them. Which part gives the change its name depends on what the trigger fires on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The incarnation that went away.
    deleted: Option<ZnodeVersion>,
    /// The incarnation that came.
    created: bool,
    /// How often the data of the present incarnation was set.
    sets: i64,
    /// What is there now.
    now: Option<ZnodeVersion>,
}

/// A change that a trigger fires on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub kind: ChangeKind,
    /// The version that it led to; of a deletion, the version that went away.
    pub version: ZnodeVersion,
    /// Further changes that it stands for; a lower bound when `recreated`.
    pub coalesced: i64,
    /// Whether the znode was deleted and created again since the last look.
    pub recreated: bool,
}

impl Change {
    /// Whether it stands for more than one change.
    pub fn is_merged(&self) -> bool {
        self.coalesced > 0 || self.recreated
    }
}

/// A znode shows a smaller zxid than one that was handled before. ZooKeeper never does that within
/// one history: the ensemble was rebuilt, or restored from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is at zxid 0x{now:x}, although 0x{handled:x} was handled before")]
pub struct TimeWentBack {
    /// What was handled.
    pub handled: i64,
    /// What is seen now.
    pub now: i64,
}

/// Compares what was last handled of a znode with what is there now; `None` on either side is a
/// znode that is known not to exist. `Ok(None)` when nothing happened.
pub fn compare(handled: Option<ZnodeVersion>, now: Option<ZnodeVersion>) -> Result<Option<Difference>, TimeWentBack> {
    let back = |handled, now| Err(TimeWentBack { handled, now });
    match (handled, now) {
        (None, None) => Ok(None),
        (None, Some(new)) => {
            Ok(Some(Difference { deleted: None, created: true, sets: count_of_sets(0, new.version), now }))
        }
        (Some(old), None) => Ok(Some(Difference { deleted: Some(old), created: false, sets: 0, now })),
        (Some(old), Some(new)) if new.czxid == old.czxid => match new.mzxid {
            mzxid if mzxid < old.mzxid => back(old.mzxid, mzxid),
            mzxid if mzxid == old.mzxid => Ok(None),
            // It was set; a count of zero is a full round of the 32-bit counter.
            _ => {
                let sets = match count_of_sets(old.version, new.version) {
                    0 => 1 << 32,
                    sets => sets,
                };
                Ok(Some(Difference { deleted: None, created: false, sets, now }))
            }
        },
        // The new incarnation came after the old one was last set, or histories differ.
        (Some(old), Some(new)) if new.czxid <= old.mzxid => back(old.mzxid, new.czxid),
        (Some(old), Some(new)) => {
            Ok(Some(Difference { deleted: Some(old), created: true, sets: count_of_sets(0, new.version), now }))
        }
    }
}

/// Checks that a znode which is gone was deleted, and is not merely unknown to another history.
///
/// `ancestor_pzxid` is the pzxid of its nearest ancestor that exists. The deletion of a child, and
/// of the topmost ancestor that went with it, is written there, so it is later than whatever was
/// handled below.
pub fn check_deletion(handled: ZnodeVersion, ancestor_pzxid: i64) -> Result<(), TimeWentBack> {
    if ancestor_pzxid > handled.mzxid {
        Ok(())
    } else {
        Err(TimeWentBack { handled: handled.mzxid, now: ancestor_pzxid })
    }
}

/// How often the data was set between two data versions; the counter has 32 bits and wraps.
fn count_of_sets(from: i32, to: i32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_unsigned())
}

impl Difference {
    /// The change for a trigger that fires on `on`; `None` when it fires on nothing of it.
    ///
    /// What ZooKeeper merged is one change. It has the name of the first of `created`, `changed`
    /// and `deleted` that the trigger fires on and that happened.
    pub fn change(&self, on: ChangeKinds) -> Option<Change> {
        let recreated = self.created && self.deleted.is_some();
        if let Some(version) = self.now {
            if self.created && on.created {
                return Some(Change { kind: ChangeKind::Created, version, coalesced: self.sets, recreated });
            }
            if self.sets > 0 && on.changed {
                return Some(Change { kind: ChangeKind::Changed, version, coalesced: self.sets - 1, recreated });
            }
        }
        let version = self.deleted.filter(|_| on.deleted)?;
        Some(Change { kind: ChangeKind::Deleted, version, coalesced: 0, recreated })
    }
}

#[cfg(test)]
mod tests;

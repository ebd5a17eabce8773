//! Whether the ledger and an ensemble still tell one story.
//!
//! zxids only grow within one history. When the ensemble was rebuilt, or put back to an earlier state,
//! they begin again, and a new znode may well have a zxid above all that were handled. The same holds
//! the other way round for a ledger that was restored. So both remember a mark that only grows: the
//! ledger writes it first, then the znode `store`, and then the ledger notes what the znode is known
//! to hold. Whatever does not fit into that order happened outside of it, and an operator decides.
//!
//! Pure: what the ledger remembers and what was read come in, a verdict comes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::schedule::ScheduleName;
use super::whereabouts::Whereabouts;
use super::znode::TimeWentBack;

/// The data of the znode `store`, as JSON. Fields that this version does not know are ignored, so that
/// neighbouring versions can share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreNode {
    /// How often a rebuilt ensemble was adopted.
    pub generation: u32,
    /// The store that wrote it.
    pub store_id: String,
    /// Grows with each write.
    pub mark: i64,
}

impl StoreNode {
    /// Reads the data of the znode; what is wrong with it otherwise.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        let node: Self = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        if node.mark < 0 {
            return Err(format!("its mark is {}", node.mark));
        }
        if node.store_id.is_empty() {
            return Err("it names no store".to_owned());
        }
        Ok(node)
    }

    /// The data of the znode.
    pub fn to_json(&self) -> String {
        serde_json::json!({ "generation": self.generation, "store_id": self.store_id, "mark": self.mark }).to_string()
    }
}

/// What one read of the znode `store` showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is no such znode.
    Absent,
    /// It holds this.
    Node(FoundNode),
    /// It holds something else.
    Unreadable {
        /// What is wrong with its data.
        reason: String,
        /// Which znode it is.
        place: Incarnation,
    },
}

/// The znode `store` as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundNode {
    /// Its data.
    pub node: StoreNode,
    /// Which znode it is.
    pub place: Incarnation,
}

/// One version of one incarnation of a znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The transaction that created it.
    pub czxid: i64,
    /// The version of its data.
    pub version: i32,
}

/// What the znode `store` is known to have held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// Its generation.
    pub generation: u32,
    /// Its mark.
    pub mark: i64,
    /// The transaction that created it.
    pub czxid: i64,
}

/// What the ledger remembers of an ensemble.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// How often a rebuilt ensemble was adopted; part of run ids.
    pub generation: u32,
    /// The highest mark that was ever meant to be written.
    pub mark: i64,
    /// What the znode is known to have held since; `None` when it was never written, or when an operator
    /// has adopted an ensemble without it.
    pub confirmed: Option<Confirmed>,
    /// What an operator has decided to replace: another store's znode, which may still be there.
    pub replaces: Option<Incarnation>,
    /// Where the ensemble was when its znodes were last compared; of one that has no znode `store`.
    pub whereabouts: Option<Whereabouts>,
}

/// What the memory and the read amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One story. The znode, which may lag behind the ledger, can be written.
    Fine(Incarnation),
    /// One story, and the znode was never there: it can be created.
    Create,
    /// Two stories.
    Broken(Break),
}

/// How the ledger and the ensemble turned out to be of two histories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// The znode `store` is gone.
    Missing,
    /// It is at an earlier state than it was known to be in.
    Older(FoundNode),
    /// It holds what it should, but is another znode: somebody has copied the znodes of another ensemble.
    Recreated(FoundNode),
    /// Another store wrote it.
    Foreign(FoundNode),
    /// It holds no such data.
    Unreadable {
        /// What is wrong with it.
        reason: String,
        /// Which znode it is.
        place: Incarnation,
    },
    /// It is ahead of the ledger, which writes first: the ledger was restored from a copy.
    LedgerRestored(FoundNode),
    /// It is somewhere else, with none of the servers that it had: it may be another ensemble.
    Moved {
        /// Where it was.
        before: Whereabouts,
        /// Where it is.
        now: Whereabouts,
    },
    /// A znode that a trigger watches shows a smaller zxid than was handled.
    Contradicted {
        /// Whose.
        schedule: ScheduleName,
        /// The znode.
        path: Arc<str>,
        /// How.
        source: TimeWentBack,
    },
}

/// Judges where an ensemble without a znode `store` is by where it was; `true` where that is to be noted.
pub fn judge_whereabouts(memory: &Memory, now: &Whereabouts) -> Result<bool, Break> {
    match &memory.whereabouts {
        Some(before) if before == now => Ok(false),
        Some(before) if !before.may_be(now) => Err(Break::Moved { before: before.clone(), now: now.clone() }),
        _ => Ok(true),
    }
}

/// Judges a read of the znode `store` by what the ledger `store_id` remembers.
pub fn judge(store_id: &str, memory: &Memory, found: Found) -> Verdict {
    let found = match found {
        Found::Absent if memory.confirmed.is_none() => return Verdict::Create,
        Found::Absent => return Verdict::Broken(Break::Missing),
        Found::Unreadable { place, .. } if memory.replaces == Some(place) => return Verdict::Fine(place),
        Found::Unreadable { reason, place } => return Verdict::Broken(Break::Unreadable { reason, place }),
        Found::Node(found) => found,
    };
    let (node, place) = (&found.node, found.place);
    if node.store_id != store_id {
        return if memory.replaces == Some(place) {
            Verdict::Fine(place)
        } else {
            Verdict::Broken(Break::Foreign(found))
        };
    }
    if node.generation > memory.generation {
        return Verdict::Broken(Break::LedgerRestored(found));
    }
    if let Some(confirmed) = memory.confirmed {
        if (node.generation, node.mark) < (confirmed.generation, confirmed.mark) {
            return Verdict::Broken(Break::Older(found));
        }
        if place.czxid != confirmed.czxid {
            return Verdict::Broken(Break::Recreated(found));
        }
    }
    if node.mark > memory.mark {
        return Verdict::Broken(Break::LedgerRestored(found));
    }
    Verdict::Fine(place)
}

/// What an operator decides about znodes that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Adopt {
    /// They come due.
    Fire,
    /// They are taken as handled.
    Ignore,
}

impl Adopt {
    /// The spelling of the command line, the API and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fire => "fire",
            Self::Ignore => "ignore",
        }
    }

    /// The decision of this spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fire, Self::Ignore].into_iter().find(|decision| decision.as_str() == text)
    }
}

/// What becomes of the triggers' cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorsAfter {
    /// They are of the history that is there: the triggers go on from them.
    Kept,
    /// They end, and the next look is a first one, which treats what exists so.
    Begin(Adopt),
}

/// What adopting changes in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// What the ledger remembers from then on.
    pub memory: Memory,
    /// What becomes of the cursors.
    pub cursors: CursorsAfter,
    /// Whether the zxids in the ledger mean nothing any more: children are not deleted on their word.
    pub zxids_end: bool,
}

/// What it takes to go on after a break.
///
/// A rebuilt ensemble gets a generation that no run id has used: above that of the ledger, and above
/// that of the znode which is there. For a restored ledger the ensemble is the one that knows better.
pub fn adoption(memory: &Memory, found: &Break, decision: Adopt) -> Adoption {
    let next = |generation: u32| memory.generation.max(generation).saturating_add(1);
    let held = |found: &FoundNode| Confirmed {
        generation: found.node.generation,
        mark: found.node.mark,
        czxid: found.place.czxid,
    };
    let rebuilt = |generation, mark, confirmed, replaces| Adoption {
        memory: Memory { generation, mark, confirmed, replaces, whereabouts: memory.whereabouts.clone() },
        cursors: CursorsAfter::Begin(decision),
        zxids_end: true,
    };
    let mark_above = |found: &FoundNode| memory.mark.max(found.node.mark);
    match found {
        Break::Missing => rebuilt(next(0), memory.mark, None, None),
        Break::Older(found) | Break::Recreated(found) => {
            rebuilt(next(found.node.generation), mark_above(found), Some(held(found)), None)
        }
        Break::Foreign(found) => rebuilt(next(found.node.generation), memory.mark, None, Some(found.place)),
        Break::Unreadable { place, .. } => rebuilt(next(0), memory.mark, None, Some(*place)),
        Break::Contradicted { .. } => rebuilt(next(0), memory.mark, memory.confirmed, memory.replaces),
        Break::Moved { now, .. } => {
            let rebuilt = rebuilt(next(0), memory.mark, memory.confirmed, memory.replaces);
            Adoption { memory: Memory { whereabouts: Some(now.clone()), ..rebuilt.memory }, ..rebuilt }
        }
        Break::LedgerRestored(found) => {
            // The ledger is from before an adoption: its cursors are of the history before that.
            let zxids_end = found.node.generation > memory.generation;
            let cursors = match decision {
                Adopt::Fire if !zxids_end => CursorsAfter::Kept,
                _ => CursorsAfter::Begin(decision),
            };
            let generation = memory.generation.max(found.node.generation);
            let memory = Memory {
                generation,
                mark: mark_above(found),
                confirmed: Some(held(found)),
                replaces: None,
                whereabouts: memory.whereabouts.clone(),
            };
            Adoption { memory, cursors, zxids_end }
        }
    }
}

impl Break {
    /// A word for logs, metrics and the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Older(_) => "older",
            Self::Recreated(_) => "recreated",
            Self::Foreign(_) => "foreign",
            Self::Unreadable { .. } => "unreadable",
            Self::LedgerRestored(_) => "ledger_restored",
            Self::Moved { .. } => "moved",
            Self::Contradicted { .. } => "contradicted",
        }
    }

    /// What was found, what is remembered, and what that means. `path` is that of the znode `store`.
    pub fn describe(&self, path: &str, store_id: &str, memory: &Memory) -> String {
        let Memory { generation, mark, confirmed, .. } = memory;
        match self {
            Self::Missing => format!(
                "there is no {path} in ZooKeeper, which this ledger last wrote in generation {generation} with mark \
                 {mark}: ZooKeeper was rebuilt, or somebody has deleted it"
            ),
            Self::Older(found) => {
                let known = confirmed.map_or((*generation, *mark), |known| (known.generation, known.mark));
                format!(
                    "{path} in ZooKeeper is of generation {} with mark {}, and this ledger knows that it was of generation \
                     {} with mark {}: ZooKeeper was put back to an earlier state",
                    found.node.generation, found.node.mark, known.0, known.1
                )
            }
            Self::Recreated(found) => format!(
                "{path} in ZooKeeper was created by transaction 0x{:x}, and this ledger knows it from 0x{:x}: ZooKeeper was \
                 rebuilt, and its znodes were copied",
                found.place.czxid,
                confirmed.map_or(0, |known| known.czxid)
            ),
            Self::Foreign(found) => format!(
                "{path} in ZooKeeper was written by the store {} (generation {}, mark {}), and this ledger is the store \
                 {store_id}: another flowkeeper works there, or the ledger is a new one",
                found.node.store_id, found.node.generation, found.node.mark
            ),
            Self::Unreadable { reason, .. } => {
                format!("{path} in ZooKeeper holds nothing that a flowkeeper has written ({reason})")
            }
            Self::LedgerRestored(found) => format!(
                "{path} in ZooKeeper is of generation {} with mark {}, ahead of this ledger, which last wrote generation \
                 {generation} with mark {mark}: the ledger was restored from a copy",
                found.node.generation, found.node.mark
            ),
            Self::Moved { before, now } => format!(
                "the ensemble was {before} when its znodes were last compared, and is {now} now, which has none of the \
                 servers and the chroot of before: it may be another one, whose znodes cannot be compared with what was \
                 handled"
            ),
            Self::Contradicted { schedule, path, source } => format!(
                "{path}, which `{schedule}` watches, belongs to another history: {source}; ZooKeeper was rebuilt, or put \
                 back to an earlier state"
            ),
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self, ensemble: Option<&str>) -> String {
        let command = match ensemble {
            Some(name) => format!("flowkeeper adopt --ensemble {name}"),
            None => "flowkeeper adopt".to_owned(),
        };
        match self {
            Self::Foreign(_) => format!(
                "if another flowkeeper works there, set another `[zookeeper] root`; if not, `{command} --ignore` takes the \
                 znodes that exist as handled, `{command} --fire` runs them (docs/recovery.md)"
            ),
            Self::LedgerRestored(_) => format!(
                "`{command} --fire` runs what changed since the copy was made, and repeats nothing; `{command} --ignore` \
                 takes the znodes as they are as handled (docs/recovery.md)"
            ),
            Self::Moved { .. } => format!(
                "if it is the same ensemble, name one server of before in `connect` as well until it is in force, then \
                 take it out; if not, `{command} --ignore` takes the znodes that exist as handled, `{command} --fire` runs \
                 them (docs/recovery.md)"
            ),
            _ => format!(
                "`{command} --ignore` takes the znodes that exist as handled, `{command} --fire` runs them \
                 (docs/recovery.md)"
            ),
        }
    }
}

#[cfg(test)]
mod tests;

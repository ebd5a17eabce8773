//! What is to be done about each key: the table of cases that keeps flowkeeper from touching what is not
//! its own.
//!
//! An entry is ours if the ledger has a row for it *and* it carries the mark of this store. Each step that
//! sends something is recorded as an intent first, so that after a lost answer the next comparison knows
//! what may have happened: a row that says `creating` beside an entry with our mark is ours, beside one
//! without it is somebody else's.
//!
//! So a mark without a row is no work of a lost answer: somebody copied an entry in Airflow, description
//! and all, or the ledger was restored. Such an entry is taken up when a znode wants it, and never deleted
//! before somebody says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::EntryValue;
use super::mark::Mark;
use super::shown::Shown;

/// What a znode wants of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// An entry.
    Entry {
        /// What it is to hold.
        value: EntryValue,
        /// Tells this value from others.
        digest: String,
    },
    /// Something that cannot become an entry; why, without the value.
    Fault(String),
}

/// How far the ledger knows an entry to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It was about to be created, and nobody knows whether it was.
    Creating,
    /// It was written.
    Owned,
    /// It was about to be deleted, and nobody knows whether it was.
    Deleting,
}

impl Hold {
    /// The word of the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Owned => "owned",
            Self::Deleting => "deleting",
        }
    }

    /// The hold that the ledger's word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Creating, Self::Owned, Self::Deleting].into_iter().find(|hold| hold.as_str() == word)
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The sync that wrote it.
    pub sync: Arc<str>,
    /// How far it is ours.
    pub hold: Hold,
    /// The digest of the value that it has; `None` while a request that changes it is under way.
    pub digest: Option<String>,
}

/// What a sync may do, and who it is.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Its name.
    pub sync: &'a str,
    /// The identity of the store.
    pub store_id: &'a str,
    /// The names of the syncs that are configured to write into the same collection.
    pub configured: &'a BTreeSet<Arc<str>>,
    /// Whether to delete what vanished from ZooKeeper.
    pub prune: Prune,
    /// Why what vanished is to be doubted, whatever the znode wants.
    pub doubt: Option<Guard>,
    /// The keys that had vanished with many others at an earlier look, and an interval ago at least.
    pub still_missing: &'a BTreeSet<String>,
    /// The keys that Airflow did not take and is not asked about yet: why, and the digest of what they were to hold.
    pub resting: &'a BTreeMap<String, (String, Option<String>)>,
    /// Whether to undo hand-made changes.
    pub repair: bool,
    /// Whether to take over what others made.
    pub adopt: bool,
}

/// Whether what vanished from ZooKeeper is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// It stays.
    Never,
    /// It is, unless there is a [`Guard`]: then somebody has to say so, or more has to be known.
    Guarded,
    /// It is, whatever the reason.
    Always,
}

/// Why an entry is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The znode wants another value.
    Changed,
    /// Somebody changed it by hand.
    Repair,
    /// Somebody else made it, and it is taken over.
    Adopt,
}

/// What somebody did to an entry of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// These fields were changed.
    Changed(Vec<&'static str>),
    /// It was deleted.
    Deleted,
    /// It was written anew: our mark is gone.
    Rewritten,
}

/// Why an entry that no znode wants is not deleted before somebody says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Everything else vanished with it, or the znode was made anew.
    Guarded,
    /// Many others vanished with it.
    Many,
    /// It carries our mark, and the ledger does not know it.
    Unrecorded,
}

/// What is to be done about a key, or told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Airflow has it as it should be.
    InStep,
    /// The same, and the ledger does not know yet.
    Note,
    /// It is to be made.
    Create,
    /// It is to be changed.
    Update {
        /// The fields that are known to differ; hidden ones are not among them.
        fields: Vec<&'static str>,
        /// Why.
        cause: Cause,
    },
    /// It vanished from ZooKeeper, and is to be deleted.
    Delete,
    /// Somebody changed it in Airflow; nothing is done.
    Drift(Drift),
    /// Somebody else made it; nothing is done. `forget`: the ledger took it for ours.
    Foreign {
        /// Whether a row of the ledger goes.
        forget: bool,
    },
    /// Another sync wrote it; nothing is done.
    OfSync(Arc<str>),
    /// A flowkeeper with another store wrote it; nothing is done, also if it was ours: two that repair or adopt
    /// would take it from each other for ever.
    OfStore {
        /// The identity of that store.
        store_id: String,
        /// Whether a row of the ledger goes.
        forget: bool,
    },
    /// It vanished from ZooKeeper, and stays in Airflow.
    Stays,
    /// No znode wants it, and it is not deleted before somebody says so.
    Held(Doubt),
    /// It cannot become an entry: why.
    Fault(String),
    /// It is nobody's any more; the ledger forgets it.
    Forget,
}

impl Step {
    /// In a word, for people and metrics; `None` for what only concerns the ledger.
    pub fn word(&self) -> Option<&'static str> {
        Some(match self {
            Self::InStep | Self::Note => "in_step",
            Self::Create => "create",
            Self::Update { .. } => "update",
            Self::Delete => "delete",
            Self::Drift(_) => "drift",
            Self::Foreign { .. } | Self::OfSync(_) | Self::OfStore { .. } => "conflict",
            Self::Stays => "stays",
            Self::Held(_) => "held",
            Self::Fault(_) => "fault",
            Self::Forget => return None,
        })
    }

    /// The words of steps, in the order in which people are shown them.
    pub const WORDS: [&'static str; 9] =
        ["in_step", "create", "update", "delete", "drift", "conflict", "fault", "stays", "held"];

    /// More about it, for a person.
    pub fn detail(&self) -> Option<String> {
        Some(match self {
            Self::Update { fields, cause } => {
                let why = match cause {
                    Cause::Changed => "ZooKeeper has another value",
                    Cause::Repair => "it was changed in Airflow",
                    Cause::Adopt => "it is taken over",
                };
                if fields.is_empty() { why.to_owned() } else { format!("{why}: {}", fields.join(", ")) }
            }
            Self::Drift(Drift::Changed(fields)) => format!("changed in Airflow: {}", fields.join(", ")),
            Self::Drift(Drift::Deleted) => "deleted in Airflow".to_owned(),
            Self::Drift(Drift::Rewritten) => "written anew in Airflow: flowkeeper's mark is gone".to_owned(),
            Self::Foreign { .. } => "it is in Airflow already, and flowkeeper did not write it".to_owned(),
            Self::OfSync(sync) => format!("the sync {sync} writes it"),
            Self::OfStore { store_id, .. } => format!("a flowkeeper with another store, {store_id}, writes it"),
            Self::Stays => "gone from ZooKeeper; `prune` is off".to_owned(),
            Self::Held(Doubt::Guarded) => {
                "gone from ZooKeeper with everything that was there, so it is kept".to_owned()
            }
            Self::Held(Doubt::Many) => {
                "gone from ZooKeeper with many others; deleted if it still is after `interval`".to_owned()
            }
            Self::Held(Doubt::Unrecorded) => "no znode wants it, and it has flowkeeper's mark but the ledger does not \
                                              know it (a copy that somebody made?), so it is kept"
                .to_owned(),
            Self::Fault(reason) => reason.clone(),
            Self::InStep | Self::Note | Self::Create | Self::Delete | Self::Forget => return None,
        })
    }
}

/// Why nothing is deleted although `prune` is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// The znode itself is missing.
    Missing,
    /// The znode wants nothing any more.
    Empty,
    /// The znode is another one than before, so that what is missing may be still to come.
    Recreated,
    /// Nobody knows whether the ensemble has the history that the ledger remembers.
    Unproven,
    /// So many vanished at once that the others may be about to be written.
    Many,
}

/// How many entries may vanish at once, whatever their share.
const FEW: usize = 10;
/// Beyond that, one in so many may.
const SHARE: usize = 4;

/// What is to be done, by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Each key that somebody wants or wanted.
    pub steps: BTreeMap<String, Step>,
    /// Why nothing is deleted.
    pub guard: Option<Guard>,
}

impl Plan {
    /// How many keys there are for each word of [`Step::WORDS`]; words without any are left out.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for word in self.steps.values().filter_map(Step::word) {
            *counts.entry(word).or_default() += 1;
        }
        counts
    }
}

/// Compares what is wanted (`None`: the znode is missing) with what the ledger remembers and what Airflow
/// has.
pub fn plan(
    wishes: Option<&BTreeMap<String, Wish>>,
    owned: &BTreeMap<String, Owned>,
    shown: &BTreeMap<String, Shown>,
    rules: &Rules<'_>,
) -> Plan {
    let guard = match wishes {
        _ if rules.prune == Prune::Always => None,
        None => Some(Guard::Missing),
        Some(wishes) if wishes.is_empty() => Some(Guard::Empty),
        Some(_) => rules.doubt,
    };
    let nothing = BTreeMap::new();
    let wishes = wishes.unwrap_or(&nothing);
    let mut keys: BTreeSet<&String> = wishes.keys().collect();
    keys.extend(owned.keys());
    keys.extend(shown.values().filter(|shown| shown.mark().is_some()).map(|shown| &shown.key));
    let mut steps: BTreeMap<String, Step> = keys
        .into_iter()
        .filter_map(|key| {
            let (owned, shown) = (owned.get(key), shown.get(key));
            let step = match wishes.get(key) {
                Some(Wish::Fault(reason)) => Some(Step::Fault(reason.clone())),
                Some(Wish::Entry { value, digest }) => Some(wanted(value, digest, owned, shown, rules)),
                None => vanished(owned, shown, rules, guard.is_some()),
            };
            Some((key.clone(), rested(step?, wishes.get(key), rules.resting.get(key))))
        })
        .collect();
    let ours = owned.values().filter(|owned| &*owned.sync == rules.sync).count();
    if hold_many(&mut steps, ours, rules) {
        return Plan { steps, guard: Some(Guard::Many) };
    }
    let held = steps.values().any(|step| *step == Step::Held(Doubt::Guarded));
    Plan { steps, guard: guard.filter(|guard| held || *guard == Guard::Missing) }
}

/// What is to be sent is not sent while it rests, unless something else is wanted by now.
fn rested(step: Step, wish: Option<&Wish>, resting: Option<&(String, Option<String>)>) -> Step {
    let Some((reason, refused)) = resting else { return step };
    let wanted = match wish {
        Some(Wish::Entry { digest, .. }) => Some(digest),
        _ => None,
    };
    match step {
        Step::Create | Step::Update { .. } | Step::Delete if wanted == refused.as_ref() => Step::Fault(reason.clone()),
        step => step,
    }
}

/// Holds deletions when a large part of what is ours vanished at once, but for those that are missing for
/// long; whether any is held.
fn hold_many(steps: &mut BTreeMap<String, Step>, ours: usize, rules: &Rules<'_>) -> bool {
    let vanished = steps.values().filter(|step| **step == Step::Delete).count();
    if rules.prune == Prune::Always || vanished <= FEW || vanished * SHARE <= ours {
        return false;
    }
    let mut is_held = false;
    for (key, step) in steps {
        if *step == Step::Delete && !rules.still_missing.contains(key) {
            *step = Step::Held(Doubt::Many);
            is_held = true;
        }
    }
    is_held
}

/// Who wrote the entry that Airflow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer<'a> {
    /// There is none.
    Nobody,
    /// A sync of this store.
    Ours(&'a str),
    /// A sync of this store, which is not ours.
    OfStore(&'a str),
    /// Somebody else.
    Other,
}

fn writer<'a>(shown: Option<&'a Shown>, rules: &Rules<'_>) -> Writer<'a> {
    match shown.map(Shown::mark) {
        None => Writer::Nobody,
        Some(Some(Mark { sync, store_id })) if store_id == rules.store_id => Writer::Ours(sync),
        Some(Some(Mark { store_id, .. })) => Writer::OfStore(store_id),
        Some(None) => Writer::Other,
    }
}

/// The sync that a key belongs to, if it is another one that is still configured.
fn other_sync(owned: Option<&Owned>, writer: Writer<'_>, rules: &Rules<'_>) -> Option<Arc<str>> {
    let sync = match (owned, writer) {
        (Some(owned), _) => &*owned.sync,
        (None, Writer::Ours(sync)) => sync,
        (None, _) => return None,
    };
    rules.configured.get(sync).filter(|name| &***name != rules.sync).cloned()
}

fn wanted(value: &EntryValue, digest: &str, owned: Option<&Owned>, shown: Option<&Shown>, rules: &Rules<'_>) -> Step {
    let writer = writer(shown, rules);
    if let Some(sync) = other_sync(owned, writer, rules) {
        return Step::OfSync(sync);
    }
    let hold = owned.map(|owned| owned.hold);
    let is_news = owned.is_none_or(|owned| owned.hold != Hold::Owned || owned.digest.as_deref() != Some(digest));
    match (writer, shown) {
        (Writer::Nobody, _) | (_, None) => {
            if hold == Some(Hold::Owned) && !is_news && !rules.repair {
                Step::Drift(Drift::Deleted)
            } else {
                Step::Create
            }
        }
        (Writer::Ours(_), Some(shown)) => {
            let comparison = shown.compare(value);
            match (is_news, comparison.is_same()) {
                (false, true) => Step::InStep,
                (false, false) if rules.repair => Step::Update { fields: comparison.different, cause: Cause::Repair },
                (false, false) => Step::Drift(Drift::Changed(comparison.different)),
                (true, _) if comparison.is_certainly_same() => Step::Note,
                (true, _) => Step::Update { fields: comparison.different, cause: Cause::Changed },
            }
        }
        (Writer::OfStore(store_id), Some(shown)) => match hold {
            Some(Hold::Creating | Hold::Deleting) | None if rules.adopt => {
                Step::Update { fields: shown.compare(value).different, cause: Cause::Adopt }
            }
            Some(Hold::Creating | Hold::Deleting) => Step::OfStore { store_id: store_id.to_owned(), forget: true },
            Some(Hold::Owned) | None => Step::OfStore { store_id: store_id.to_owned(), forget: false },
        },
        (Writer::Other, Some(shown)) => match hold {
            Some(Hold::Owned) if rules.repair || rules.adopt => {
                Step::Update { fields: shown.compare(value).different, cause: Cause::Repair }
            }
            Some(Hold::Owned) => Step::Drift(Drift::Rewritten),
            _ if rules.adopt => Step::Update { fields: shown.compare(value).different, cause: Cause::Adopt },
            Some(Hold::Creating | Hold::Deleting) => Step::Foreign { forget: true },
            None => Step::Foreign { forget: false },
        },
    }
}

fn vanished(owned: Option<&Owned>, shown: Option<&Shown>, rules: &Rules<'_>, is_guarded: bool) -> Option<Step> {
    let writer = writer(shown, rules);
    // A row of a sync that nobody configures any more stays, with its entry, until another sync wants it.
    let is_ours = match (owned, writer) {
        (Some(owned), _) => &*owned.sync == rules.sync,
        (None, Writer::Ours(sync)) => sync == rules.sync,
        (None, _) => false,
    };
    if !is_ours {
        return None;
    }
    Some(match (writer, rules.prune) {
        (Writer::Nobody | Writer::OfStore(_) | Writer::Other, _) => Step::Forget,
        // The ledger was restored, or the key changed hands: the mark says whose it is now.
        (Writer::Ours(sync), _) if sync != rules.sync && rules.configured.contains(sync) => Step::Forget,
        (Writer::Ours(_), Prune::Always) => Step::Delete,
        (Writer::Ours(_), _) if owned.is_none() => Step::Held(Doubt::Unrecorded),
        (Writer::Ours(_), Prune::Never) => Step::Stays,
        (Writer::Ours(_), Prune::Guarded) if is_guarded => Step::Held(Doubt::Guarded),
        (Writer::Ours(_), Prune::Guarded) => Step::Delete,
    })
}

#[cfg(test)]
mod tests;

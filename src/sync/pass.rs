//! One comparison: reads what znodes want, what the ledger remembers and what Airflow has, and plans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key::KeyError;
use super::report::PassReport;
use super::source::{self, SourceError, Wanted};
use crate::airflow::{self, Airflow};
use crate::domain::sync::definition::{DriftPolicy, SyncDefinition};
use crate::domain::sync::digest::Digests;
use crate::domain::sync::plan::{self, Guard, Owned, Plan, Prune, Rules, Step, Wish};
use crate::store::{Ledger, StoreError};
use crate::zookeeper::Session;

/// What an operator may ask for beyond what is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Change nothing.
    pub dry_run: bool,
    /// Delete everything that vanished from ZooKeeper, also when nothing is left there, and what only its mark
    /// says to be ours.
    pub prune: bool,
    /// Undo changes that were made in Airflow.
    pub repair: bool,
}

/// Why nothing could be compared; nothing was changed. Fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The znodes cannot be read.
    #[error("read {path} for the sync {sync}: {reason}")]
    Source {
        /// The sync.
        sync: String,
        /// Its znode.
        path: String,
        /// Why.
        reason: String,
        /// What can be done.
        hint: &'static str,
    },
    /// The key of the digests is not there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Airflow does not tell what it has.
    #[error(transparent)]
    Airflow(#[from] Box<airflow::Error>),
    /// The ledger does not tell what is ours.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PassError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source { hint, .. } => Some((*hint).to_owned()),
            Self::Key(KeyError::Foreign { path }) => {
                Some(format!("delete {path}: every value is then compared or written once more"))
            }
            Self::Key(KeyError::ZooKeeper { source, .. }) => Some(source.hint().to_owned()),
            Self::Airflow(error) => Some(error.hint().to_owned()),
            Self::Store(error) => error.hint(),
        }
    }
}

/// What a comparison needs.
#[derive(Clone, Copy)]
pub struct Parties<'a> {
    /// The sync.
    pub definition: &'a SyncDefinition,
    /// The names of the syncs that write into the same collection.
    pub configured: &'a BTreeSet<Arc<str>>,
    /// The session with the ensemble that the znodes are in.
    pub session: &'a Session,
    /// Makes digests.
    pub digests: &'a Digests,
    /// The Airflow that is kept in step.
    pub airflow: &'a Airflow,
    /// The ledger; `None` before anything has served.
    pub ledger: Option<&'a Ledger>,
    /// The incarnation of the znode in which everything that was written has been seen.
    pub incarnation: Option<&'a str>,
    /// Whether the ensemble has the history that the ledger remembers.
    pub is_proven: bool,
    /// The keys that have been missing with many others for an interval.
    pub still_missing: &'a BTreeSet<String>,
    /// What Airflow did not take and is not asked about yet, as in [`Rules`].
    pub resting: &'a BTreeMap<String, (String, Option<String>)>,
}

/// What a comparison found.
pub struct Look {
    pub(super) plan: Plan,
    pub(super) wishes: BTreeMap<String, Wish>,
    pub(super) owned: BTreeMap<String, Owned>,
    /// As in [`Parties`], from now on.
    pub(super) incarnation: Option<String>,
}

impl Look {
    /// The keys that cannot become entries, or rest since Airflow did not take them.
    pub(super) fn faults(&self) -> impl Iterator<Item = &str> {
        self.plan.steps.iter().filter(|(_, step)| matches!(step, Step::Fault(_))).map(|(key, _)| key.as_str())
    }

    /// For people.
    pub fn report(&self) -> PassReport {
        PassReport::of(&self.plan.steps, self.plan.guard)
    }
}

/// Compares; changes nothing.
pub async fn look(parties: Parties<'_>, options: Options) -> Result<Look, PassError> {
    compare(parties, read(parties).await?, options).await
}

/// Reads what the znode wants; `None` when it is missing.
pub(super) async fn read(parties: Parties<'_>) -> Result<Option<Wanted>, PassError> {
    let definition = parties.definition;
    source::read(parties.session, definition, parties.digests).await.map_err(|error| PassError::Source {
        sync: definition.name.to_string(),
        path: definition.path.to_string(),
        reason: error.to_string(),
        hint: match &error {
            SourceError::ZooKeeper(error) => error.hint(),
            SourceError::NotAnObject => "write a JSON object into it, or another `watch`",
        },
    })
}

/// Compares what the znode wants with what there is.
pub(super) async fn compare(parties: Parties<'_>, wanted: Option<Wanted>, options: Options) -> Result<Look, PassError> {
    let Parties { definition, configured, airflow, ledger, incarnation: before, still_missing, resting, .. } = parties;
    // Before the list: what another sync writes meanwhile is then told by its mark.
    let owned = match ledger {
        Some(ledger) => ledger.owned_entries(&definition.airflow, definition.kind).await?,
        None => BTreeMap::new(),
    };
    let shown = airflow.list_entries(definition.kind).await.map_err(Box::new)?;
    let now = wanted.as_ref().map(|wanted| wanted.incarnation.as_str());
    let rules = Rules {
        sync: &definition.name,
        store_id: ledger.map_or("", Ledger::store_id),
        configured,
        prune: match (options.prune, definition.prune) {
            (true, _) => Prune::Always,
            (false, true) => Prune::Guarded,
            (false, false) => Prune::Never,
        },
        doubt: if !parties.is_proven {
            Some(Guard::Unproven)
        } else if before.is_some() && now.is_some() && before != now {
            Some(Guard::Recreated)
        } else {
            None
        },
        still_missing,
        resting,
        repair: options.repair || definition.drift == DriftPolicy::Repair,
        adopt: definition.adopt,
    };
    let plan = plan::plan(wanted.as_ref().map(|wanted| &wanted.wishes), &owned, &shown, &rules);
    let seen = if plan.guard.is_none() { now.or(before) } else { before };
    let incarnation = seen.map(str::to_owned);
    Ok(Look { plan, wishes: wanted.map(|wanted| wanted.wishes).unwrap_or_default(), owned, incarnation })
}

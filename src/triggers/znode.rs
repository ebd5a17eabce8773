//! Znode triggers: what changes in ZooKeeper becomes runs, each change once.
//!
//! One task a schedule. `watcher` is its loop, `scan` compares everything with what was handled,
//! `decide` turns one read into what the ledger is told, `settle` gathers batches, `writes` hands
//! over; what decides is pure. The tasks share the sessions and watches of
//! [`crate::zookeeper::Ensemble`], and nothing else.

mod decide;
mod scan;
mod settle;
mod watcher;
mod writes;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::gate::Gates;
use crate::clock::Clock;
use crate::domain::schedule::{Schedule, ScheduleName, Trigger};
use crate::domain::znode::TimeWentBack;
use crate::status::Status;
use crate::store::{Leadership, Ledger, StoreError};
use crate::zookeeper::Ensemble;

/// What a znode trigger works with.
#[derive(Debug, Clone)]
pub struct ZnodeTriggerParts {
    /// The schedule.
    pub schedule: Arc<Schedule>,
    /// The ensemble that its trigger names.
    pub ensemble: Ensemble,
    /// The ledger.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// Which schedules may not act.
    pub gates: watch::Receiver<Gates>,
    /// The time.
    pub clock: Clock,
    /// Where it is told whether the trigger is armed, and what troubles it.
    pub status: Status,
    /// How often a rebuilt ensemble was adopted; part of run ids.
    pub generation: u32,
}

/// Why a znode trigger stopped for good.
#[derive(Debug, thiserror::Error)]
pub enum ZnodeTriggerError {
    /// The znodes are of another history than the cursors.
    #[error(
        "go on with the znode trigger of `{schedule}`: {path} in ZooKeeper belongs to another history: {source} \
         (was the ensemble rebuilt, or restored from a backup?)"
    )]
    OtherHistory {
        /// The schedule.
        schedule: ScheduleName,
        /// The znode that shows it.
        path: Arc<str>,
        /// How.
        source: TimeWentBack,
    },
    /// The ledger does not take what the trigger found.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ZnodeTriggerError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherHistory { .. } => Some(
                "nothing was fired; rename the schedule, or change its trigger, to begin anew with what is there now"
                    .to_owned(),
            ),
            Self::Store(error) => error.hint(),
        }
    }
}

/// Runs the znode trigger of a schedule until `shutdown`, until the lead is lost, or until it
/// cannot go on: then it says so in the log and the status, and stops alone. Schedules without a
/// znode trigger are done at once.
pub async fn run(parts: ZnodeTriggerParts, shutdown: CancellationToken) {
    let Trigger::Znode(trigger) = parts.schedule.trigger.clone() else { return };
    let (name, status) = (parts.schedule.name.clone(), parts.status.clone());
    let result = match watcher::Watcher::open(parts, trigger).await {
        Ok(watcher) => watcher.run(&shutdown).await,
        Err(error) => Err(error),
    };
    status.set_armed(&name, false);
    match result {
        // A newer leader, or the end of the process, are no faults of this trigger.
        Ok(()) | Err(ZnodeTriggerError::Store(StoreError::Fenced { .. } | StoreError::Closed)) => {}
        Err(failure) => {
            let hint = failure.hint().unwrap_or_default();
            error!(schedule = %name, hint, "failed to {failure}; this trigger has stopped");
            status.set_trouble(&name, Some(format!("failed to {failure}")));
        }
    }
}

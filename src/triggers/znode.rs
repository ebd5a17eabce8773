//! Znode triggers: what changes in ZooKeeper becomes runs, each change once.
//!
//! One task a schedule. `watcher` is its loop, `scan` compares everything with what was handled,
//! `decide` turns one read into what the ledger is told, `announce` logs that triggers watch, `left_out` knows flowkeeper's own znodes, `settle`
//! gathers batches, `writes` hands over; what decides is pure. The tasks share the sessions and watches of
//! [`crate::zookeeper::Ensemble`], and nothing else.

mod announce;
mod decide;
mod handover;
mod left_out;
mod scan;
mod settle;
mod watcher;
mod writes;

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use self::announce::Announcements;
pub use self::handover::Handover;
use self::watcher::Watcher;
use super::gate::Gates;
use super::lineage::{Lineage, Standing};
use crate::clock::Clock;
use crate::domain::lineage::Break;
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
    /// The root of flowkeeper's own znodes, if that is its home ensemble.
    pub own_root: Option<Arc<str>>,
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
    /// Whether the ensemble has the history of the cursors, and since which adoption.
    pub lineage: Lineage,
    /// What the trigger before this one has left, and where this one leaves the same.
    pub handover: Handover,
    /// Where it is told that the trigger watches, for the log.
    pub announcements: Announcements,
}

/// Why a znode trigger stopped.
#[derive(Debug, thiserror::Error)]
pub enum ZnodeTriggerError {
    /// The znodes are of another history than the cursors.
    #[error("go on with the znode trigger of `{schedule}`: {path} in ZooKeeper belongs to another history: {source}")]
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

/// Why a look at the znodes came to its end without an error.
enum Ended {
    /// The process or the term ends.
    Over,
    /// The ensemble is not known to have the history of the cursors any more.
    Stopped,
}

/// When a trigger is to end.
#[derive(Debug, Clone)]
pub struct End {
    /// Other definitions come into force: what is due is handed over to the ledger first.
    pub edit: CancellationToken,
    /// At once.
    pub now: CancellationToken,
}

/// Runs the znode trigger of a schedule until its `end`, until the lead is lost, or until it
/// cannot go on: then it says so in the log and the status, and stops alone. While the ensemble has
/// another history than the cursors it stands still, and begins anew once that is adopted. Schedules
/// without a znode trigger are done at once.
pub async fn run(parts: ZnodeTriggerParts, end: End) {
    let Trigger::Znode(trigger) = parts.schedule.trigger.clone() else { return };
    let (name, status, lineage) = (parts.schedule.name.clone(), parts.status.clone(), parts.lineage.clone());
    let lost = parts.leadership.lost().clone();
    loop {
        let cleared = tokio::select! {
            () = end.edit.cancelled() => return,
            () = end.now.cancelled() => return,
            () = lost.cancelled() => return,
            cleared = cleared(&lineage, &name, &status) => cleared,
        };
        let result = match Watcher::open(parts.clone(), trigger.clone(), cleared.generation).await {
            Ok(watcher) => watcher.run(&end).await,
            Err(error) => Err(error),
        };
        drop(cleared);
        status.set_armed(&name, false);
        match result {
            // A newer leader, or the end of the process, are no faults of this trigger.
            Ok(Ended::Over) | Err(ZnodeTriggerError::Store(StoreError::Fenced { .. } | StoreError::Closed)) => return,
            Ok(Ended::Stopped) => {}
            Err(ZnodeTriggerError::OtherHistory { schedule, path, source }) => {
                lineage.contradict(Break::Contradicted { schedule, path, source });
            }
            Err(ZnodeTriggerError::Store(failure)) => {
                let hint = failure.hint().unwrap_or_default();
                error!(schedule = %name, hint, "failed to {failure}; this trigger has stopped");
                status.set_trouble(&name, Some(format!("failed to {failure}")));
                return;
            }
        }
    }
}

/// The right to compare znodes with cursors.
struct Cleared {
    generation: u32,
    _no_cursor_ends: OwnedRwLockReadGuard<()>,
}

/// Waits until the ensemble has the history of the cursors; the status tells what is waited for.
async fn cleared(lineage: &Lineage, schedule: &ScheduleName, status: &Status) -> Cleared {
    let mut standing = lineage.standing();
    loop {
        let now = standing.borrow_and_update().clone();
        match now {
            Standing::One { .. } => {
                let guard = lineage.compare().await;
                // An operator may have ended the cursors while the guard was waited for.
                if let Standing::One { generation, .. } = *lineage.standing().borrow() {
                    status.set_trouble(schedule, None);
                    return Cleared { generation, _no_cursor_ends: guard };
                }
                continue;
            }
            Standing::Two(two) => status.set_trouble(schedule, Some(format!("{}; {}", two.message, two.hint))),
            Standing::Unchecked { reason: Some(reason) } => status.set_trouble(schedule, Some(reason)),
            Standing::Unchecked { reason: None } => {}
        }
        if standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

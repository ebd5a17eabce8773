//! The ledger: the database of runs, attempts, cursors and all that must outlive the process.
//!
//! This is the one place for SQL. Writes of scheduling go through one writer, which puts what
//! arrives together into one transaction and one `fsync`; each transaction begins by comparing the
//! leader's epoch. Reads use connections of their own and never wait for the writer. The database is
//! `SQLite` or `PostgreSQL`: `database` has all in which they differ.

mod attempts;
mod audit;
mod components;
mod conditions;
mod consume;
mod database;
mod definitions;
mod error;
mod health;
mod history;
mod leadership;
mod lineage;
mod locks;
mod migrations;
pub mod model;
mod names;
mod open;
mod operations;
mod paths;
pub(crate) mod patience;
mod progress;
mod readers;
mod record;
mod resting;
mod retention;
mod schedules;
mod sightings;
mod sql;
mod stats;
mod sync;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use attempts::ActiveRun;
pub use definitions::SHORTEST_START;
pub use error::StoreError;
pub use leadership::{Lead, Leadership};
pub use locks::{LockNote, LockOwner, LockRun};
pub use operations::{BackfillStep, Reopen};
pub use progress::ZnodeProgress;
pub use schedules::{KnownSchedules, TriggerIdentity};
pub use sync::{LastPass, OwnedChanges};

use crate::clock::Clock;
use crate::vigil::Vigil;
use database::Database;
use model::{AttemptRecord, LedgerEvent, RecordedRun, Recording, Sighting, Ticket};
use progress::Questions;
use readers::{Readers, Snapshot};
use turn::Turns;
use writer::Work;

/// How many writes may wait for the writer before those that ask are held back.
const WRITE_QUEUE_LENGTH: usize = 8192;

/// How many events a slow subscriber may fall behind before it is told that it missed some.
const EVENT_BACKLOG: usize = 4096;

/// The ledger. Cheap to clone; all clones share the writer and the connections.
///
/// With a snapshot, it is read from that.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>, Option<Arc<Snapshot>>);

struct Inner {
    store_id: String,
    /// Over the writer.
    vigil: Vigil,
    clock: Clock,
    database: Arc<Database>,
    turns: Turns,
    readers: Arc<Readers>,
    /// Of znode triggers that begin.
    questions: Questions,
    /// For the question who leads, which must not wait for long reads of others.
    lead_reader: Readers,
    writer: mpsc::Sender<Work>,
    events: broadcast::Sender<LedgerEvent>,
    sequence: std::sync::atomic::AtomicU64,
    tickets: Mutex<Option<mpsc::UnboundedSender<Ticket>>>,
    health: watch::Sender<StoreHealth>,
    /// Grows with each pause and each resume.
    pauses: watch::Sender<u64>,
    shadow: bool,
}

/// Whether writes get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// The latest write did.
    Writable,
    /// The latest write did not, and is being tried again.
    Stuck {
        /// The error, for a person.
        reason: String,
    },
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("store_id", &self.0.store_id).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Watches over the writer: should that panic, nothing is recorded any more.
    pub fn vigil(&self) -> Vigil {
        self.0.vigil.clone()
    }

    /// The identity of this store: drawn when it was created, part of every DAG run's note.
    pub fn store_id(&self) -> &str {
        &self.0.store_id
    }

    /// Where this store is, as people may see it: without a password.
    pub fn url(&self) -> String {
        self.0.database.shown()
    }

    /// Everything that is committed from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<LedgerEvent> {
        self.0.events.subscribe()
    }

    /// Changes whenever a schedule is paused or resumed.
    pub fn pauses(&self) -> watch::Receiver<u64> {
        self.0.pauses.subscribe()
    }

    /// Whether writes get through.
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.0.health.subscribe()
    }

    /// Hands every run that is recorded as pending to `tickets`, right after its commit.
    pub fn deliver_to(&self, tickets: mpsc::UnboundedSender<Ticket>) {
        *self.0.tickets.lock().unwrap_or_else(PoisonError::into_inner) = Some(tickets);
    }

    /// Takes the lead: raises the epoch, which refuses every earlier leader's writes from then on.
    pub async fn take_lead(&self, member: &str) -> Result<Leadership, StoreError> {
        let epoch = self.0.turns.raise_epoch(member, self.0.clock.now()).await?;
        Ok(Leadership::new(epoch))
    }

    /// Records what one look of a trigger amounts to: all of it in one transaction, or nothing.
    ///
    /// Returns when it is durable, one answer for each run, in order. Meanwhile the disk may be
    /// full or the file locked: the write is then tried until it succeeds.
    pub async fn record(&self, leadership: &Leadership, recording: Recording) -> Result<Vec<RecordedRun>, StoreError> {
        self.queue(leadership, |leadership, reply| Work::Record { leadership, recording, reply }).await
    }

    /// Records how a request to Airflow ended, and moves its run accordingly.
    pub async fn record_attempt(&self, leadership: &Leadership, attempt: AttemptRecord) -> Result<(), StoreError> {
        self.queue(leadership, |leadership, reply| Work::Attempt { leadership, attempt, reply }).await
    }

    /// Records what a list of Airflow's showed: moves our runs, reopens those that were cleared,
    /// enters those of ours that the ledger has lost, keeps others where asked to. `watermark` is
    /// how far the list has been read.
    pub async fn record_sightings(
        &self,
        leadership: &Leadership,
        airflow: &str,
        sightings: Vec<Sighting>,
        watermark: Option<jiff::Timestamp>,
    ) -> Result<(), StoreError> {
        let airflow = airflow.to_owned();
        self.queue(leadership, |leadership, reply| Work::Sightings { leadership, airflow, sightings, watermark, reply })
            .await
    }

    async fn queue<T>(
        &self,
        leadership: &Leadership,
        work: impl FnOnce(Leadership, oneshot::Sender<Result<T, StoreError>>) -> Work,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.writer.send(work(leadership.clone(), reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

//! The locks that runs own, as far as the ledger tells: who asked when, and who holds.
//!
//! ZooKeeper alone decides who holds a lock; these notes are for people, and for whoever leads next:
//! a run whose row says that it holds its lock may have been submitted.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::names::SCHEDULE;
use super::sql::{Columns, bulk};
use super::{Leadership, Ledger, StoreError};
use crate::domain::run::{RunId, RunState};

/// How a run stands to its lock, to be written over what the row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockNote {
    /// The row.
    pub run: RunId,
    /// Since when it stands in the queue; `None` when it has left it.
    pub asked_at: Option<Timestamp>,
    /// Since when it holds the lock; `None` while it waits.
    pub held_at: Option<Timestamp>,
}

/// An open run that owns a lock and may be in Airflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOwner {
    /// The row.
    pub run: RunId,
    /// Name of the lock.
    pub lock: Arc<str>,
    /// Since when it stood in the queue.
    pub asked_at: Option<Timestamp>,
}

/// A run, as far as somebody who looks at a lock is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockRun {
    /// The row.
    pub run: RunId,
    /// Its schedule.
    pub schedule: String,
    /// The DAG run's id.
    pub dag_run_id: String,
    /// Its state.
    pub state: RunState,
    /// Since when it holds the lock, while its row is open.
    pub held_at: Option<Timestamp>,
}

impl Ledger {
    /// Notes how open runs stand to their locks.
    pub async fn note_locks(&self, leadership: &Leadership, notes: &[LockNote]) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let rows =
            notes.iter().map(|note| vec![note.run.0.into(), note.asked_at.into(), note.held_at.into()]).collect();
        bulk(
            transaction.connection(),
            "UPDATE runs SET lock_asked_at = v.column2, lock_held_at = v.column3 FROM (VALUES ",
            ") AS v WHERE runs.id = v.column1 AND runs.is_open = 1",
            &["BIGINT", "BIGINT", "BIGINT"],
            rows,
        )
        .await?;
        transaction.commit().await
    }

    /// The open runs that own a lock and may be in Airflow, oldest first: those that Airflow is known to
    /// have, those that were tried, and those that held their lock and so may have been.
    pub async fn lock_owners(&self) -> Result<Vec<LockOwner>, StoreError> {
        let rows = self.fetch(
            "SELECT id, lock_name, lock_asked_at FROM runs WHERE is_open = 1 AND lock_name IS NOT NULL \
             AND (state <> 'pending' OR submitted_at IS NOT NULL OR lock_held_at IS NOT NULL) ORDER BY id",
            [],
        );
        let rows = rows.await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (run, lock) = (RunId(columns.integer()?), columns.text()?.into());
                Ok(LockOwner { run, lock, asked_at: columns.optional_time()? })
            })
            .collect()
    }

    /// The lock that a run owns.
    pub async fn lock_of(&self, run: RunId) -> Result<Option<Arc<str>>, StoreError> {
        let rows = self.fetch("SELECT lock_name FROM runs WHERE id = $1", [run.0.into()]).await?;
        Ok(rows.first().map(|row| Columns::of(row).optional_text()).transpose()?.flatten().map(Into::into))
    }

    /// Which of these rows are open.
    pub async fn open_among(&self, runs: &[RunId]) -> Result<HashSet<RunId>, StoreError> {
        let head = "SELECT id FROM runs WHERE is_open = 1 AND id IN";
        let rows = self.fetch_in(head, "", runs.iter().map(|run| run.0)).await?;
        rows.iter().map(|row| Columns::of(row).integer().map(RunId)).collect()
    }

    /// What a person is shown of these rows beside their locks; those that are gone are left out.
    pub async fn lock_runs(&self, runs: &[RunId]) -> Result<Vec<LockRun>, StoreError> {
        let head = format!("SELECT id, {SCHEDULE}, dag_run_id, state, lock_held_at FROM runs WHERE id IN");
        let rows = self.fetch_in(&head, "", runs.iter().map(|run| run.0)).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (run, schedule, dag_run_id) = (RunId(columns.integer()?), columns.text()?, columns.text()?);
                let (state, held_at) = (columns.state()?, columns.optional_time()?);
                Ok(LockRun { run, schedule, dag_run_id, state, held_at: held_at.filter(|_| state.is_open()) })
            })
            .collect()
    }
}

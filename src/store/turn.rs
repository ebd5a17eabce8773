//! Taking turns at writing: one connection, one transaction at a time, and what became of it.
//!
//! Each transaction leaves its id in the row that everybody locks first. When the answer to its
//! `COMMIT` is lost, the turn does not end before that row, locked anew, has told whether the id is
//! still there: the old connection gives up its lock only once it has committed or rolled back, and
//! nobody else may have written under the same epoch. So nothing is written twice, and nothing that
//! was written is answered with an error.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::AnyConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::database::{Access, Database};
use super::sql::{Columns, bind, run};
use super::{Inner, StoreError};

/// How long a write waits before it is tried again after a passing failure.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The connection that writes, to be had by one at a time.
pub(super) struct Turns {
    database: Arc<Database>,
    access: Access,
    idle: Arc<Mutex<Option<AnyConnection>>>,
}

/// An open transaction. Dropped, it never happened: its connection is closed.
pub(super) struct Turn {
    database: Arc<Database>,
    idle: OwnedMutexGuard<Option<AnyConnection>>,
    connection: AnyConnection,
    epoch: i64,
    id: String,
}

/// What became of a transaction.
pub(super) enum Outcome {
    /// The database has it.
    Committed,
    /// The database has it not, for this reason.
    Undone(StoreError),
}

impl Turns {
    /// Begins with a connection that is open already, if there is one.
    pub(super) fn new(database: Arc<Database>, access: Access, connection: Option<AnyConnection>) -> Self {
        Self { database, access, idle: Arc::new(Mutex::new(connection)) }
    }

    /// The connection that nobody uses now.
    #[cfg(test)]
    pub(super) async fn idle(&self) -> OwnedMutexGuard<Option<AnyConnection>> {
        Arc::clone(&self.idle).lock_owned().await
    }

    /// Waits for the turn, begins a transaction under this epoch and locks the row of the ledger.
    pub(super) async fn begin(&self, epoch: i64) -> Result<Turn, StoreError> {
        let mut idle = Arc::clone(&self.idle).lock_owned().await;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let kept = idle.take();
        let was_kept = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => self.database.connect(self.access).await?,
        };
        let (connection, epoch) = match self.lock(connection, epoch, &id).await {
            // It had ended since it was last used, and nothing has happened yet.
            Err(error) if was_kept && error.is_broken_connection() => {
                self.lock(self.database.connect(self.access).await?, epoch, &id).await?
            }
            locked => locked?,
        };
        Ok(Turn { database: Arc::clone(&self.database), idle, connection, epoch, id })
    }

    async fn lock(
        &self,
        mut connection: AnyConnection,
        epoch: i64,
        id: &str,
    ) -> Result<(AnyConnection, i64), StoreError> {
        run(&mut connection, self.database.begin()).await?;
        // The id is that of the last transaction of the leader in force. One that was replaced must not
        // take its place.
        let sql = "UPDATE ledger SET last_transaction = CASE WHEN epoch = $1 THEN $2 ELSE last_transaction END \
                   WHERE singleton = 1 RETURNING epoch";
        let row = bind(sql, [epoch.into(), id.into()]).fetch_one(&mut connection).await?;
        let current = Columns::of(&row).integer()?;
        Ok((connection, current))
    }

    /// Raises the epoch; the new one. Where the answer is lost it may be raised twice, which harms
    /// nobody.
    pub(super) async fn raise_epoch(&self, member: &str, at: Timestamp) -> Result<i64, StoreError> {
        let mut idle = self.idle.lock().await;
        if let Some(connection) = idle.take() {
            match self.raise(connection, member, at).await {
                Err(error) if error.is_broken_connection() => {}
                raised => {
                    let (connection, epoch) = raised?;
                    *idle = Some(connection);
                    return Ok(epoch);
                }
            }
        }
        let (connection, epoch) = self.raise(self.database.connect(self.access).await?, member, at).await?;
        *idle = Some(connection);
        Ok(epoch)
    }

    async fn raise(
        &self,
        mut connection: AnyConnection,
        member: &str,
        at: Timestamp,
    ) -> Result<(AnyConnection, i64), StoreError> {
        let sql =
            "UPDATE ledger SET epoch = epoch + 1, leader = $1, leader_since = $2 WHERE singleton = 1 RETURNING epoch";
        let row = bind(sql, [member.into(), at.into()]).fetch_one(&mut connection).await?;
        let epoch = Columns::of(&row).integer()?;
        Ok((connection, epoch))
    }
}

impl Turn {
    /// The epoch in force. It cannot change before the transaction ends.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Undoes all of it, and keeps the connection if it is still good for something.
    pub(super) async fn undo(mut self) {
        if run(&mut self.connection, "ROLLBACK").await.is_ok() {
            *self.idle = Some(self.connection);
        }
    }

    /// Commits, and finds out whether that took effect, however long the database does not tell.
    pub(super) async fn commit(self, ledger: &Inner) -> Result<Outcome, StoreError> {
        let Self { database, mut idle, mut connection, epoch, id } = self;
        let Err(error) = run(&mut connection, "COMMIT").await else {
            *idle = Some(connection);
            return Ok(Outcome::Committed);
        };
        let mut error = StoreError::from(error);
        // Closed, so that what was not committed is undone.
        drop(connection);
        loop {
            match last_transaction(&database).await {
                Ok((connection, _, Some(last))) if last == id => {
                    *idle = Some(connection);
                    return Ok(Outcome::Committed);
                }
                Ok((connection, current, _)) => {
                    *idle = Some(connection);
                    // A newer leader has written since, so the id tells nothing any more.
                    let fenced = StoreError::Fenced { held: epoch, current };
                    return if current == epoch { Ok(Outcome::Undone(error)) } else { Err(fenced) };
                }
                Err(failed) if failed.is_transient() => error = failed,
                Err(failed) => return Err(failed),
            }
            ledger.stuck(&error);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The epoch in force and the id of the last transaction, once no other one holds the row of the
/// ledger; and a connection without a transaction.
async fn last_transaction(database: &Database) -> Result<(AnyConnection, i64, Option<String>), StoreError> {
    let mut connection = database.connect(Access::Create).await?;
    run(&mut connection, database.begin()).await?;
    let sql = "UPDATE ledger SET epoch = epoch WHERE singleton = 1 RETURNING epoch, last_transaction";
    let row = bind(sql, []).fetch_one(&mut connection).await?;
    run(&mut connection, "ROLLBACK").await?;
    let mut columns = Columns::of(&row);
    let (epoch, last) = (columns.integer()?, columns.optional_text()?);
    Ok((connection, epoch, last))
}

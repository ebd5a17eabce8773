//! Reading: a few connections beside the one that writes, which never wait for it.
//!
//! A read whose connection turns out to have ended is made once more on a new one: a server that was
//! restarted costs nobody an error.
//!
//! Each statement sees what was committed before it, so two of them may see two states of the ledger. Whoever
//! puts several together reads them from a snapshot, in which nothing changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::database::{Access, Database};
use super::error::no_answer;
use super::sql::{Value, bind, blocks_of_keys};
use super::{Ledger, StoreError};

/// How many reads go on beside each other.
const READERS: usize = 4;

/// How long a read may take: statistics of years may.
const PATIENCE: Duration = Duration::from_mins(1);

/// The connections that read.
pub(super) struct Readers {
    database: Arc<Database>,
    access: Access,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<AnyConnection>>,
}

/// The ledger as it was at one moment: a transaction that only reads. It holds one of the places of the
/// readers until it is dropped.
pub(super) struct Snapshot {
    readers: Arc<Readers>,
    /// `None` while it is used, and after it has broken.
    connection: Mutex<Option<AnyConnection>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Readers {
    /// Begins with a connection that is open already.
    pub(super) fn new(database: Arc<Database>, access: Access, connection: AnyConnection) -> Self {
        Self { database, access, places: Arc::new(Semaphore::new(READERS)), idle: Mutex::new(vec![connection]) }
    }

    /// For one read at a time.
    pub(super) fn single(database: Arc<Database>, access: Access) -> Self {
        Self { database, access, places: Arc::new(Semaphore::new(1)), idle: Mutex::default() }
    }

    /// The rows that a query returns.
    pub(super) async fn fetch(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        let _place = self.places.acquire().await.map_err(|_| StoreError::Closed)?;
        let (connection, rows) = self.first(&sql, &values).await?;
        self.idle().push(connection);
        Ok(rows)
    }

    /// Begins a snapshot.
    async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, StoreError> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (connection, _) = self.first(self.database.begin_snapshot(), &[]).await?;
        Ok(Snapshot { readers: Arc::clone(self), connection: Mutex::new(Some(connection)), place: Some(place) })
    }

    /// Runs a statement on a connection that was idle, or on a new one.
    async fn first(&self, sql: &str, values: &[Value]) -> Result<(AnyConnection, Vec<AnyRow>), StoreError> {
        let kept = self.idle().pop();
        if let Some(mut connection) = kept {
            match query(&mut connection, sql, values).await {
                // Those that were idle with it have ended as well.
                Err(error) if error.is_broken_connection() => self.idle().clear(),
                Err(error) => {
                    self.idle().push(connection);
                    return Err(error);
                }
                Ok(rows) => return Ok((connection, rows)),
            }
        }
        let mut connection = self.database.connect(self.access).await?;
        let rows = query(&mut connection, sql, values).await?;
        Ok((connection, rows))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<AnyConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// The rows that a query returns, one query at a time. After one that failed, others may fail as well.
    async fn fetch(&self, sql: &str, values: &[Value]) -> Result<Vec<AnyRow>, StoreError> {
        let mut connection = self.connection().take().ok_or_else(no_answer)?;
        let rows = query(&mut connection, sql, values).await;
        if !rows.as_ref().is_err_and(StoreError::is_broken_connection) {
            *self.connection() = Some(connection);
        }
        rows
    }

    fn connection(&self) -> MutexGuard<'_, Option<AnyConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives connection and place back. A connection that cannot end its transaction is closed, which ends it too.
impl Drop for Snapshot {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection().take() else { return };
        let (readers, place) = (Arc::clone(&self.readers), self.place.take());
        // Without a runtime the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if query(&mut connection, "ROLLBACK", &[]).await.is_ok() {
                readers.idle().push(connection);
            }
            drop(place);
        });
    }
}

async fn query(connection: &mut AnyConnection, sql: &str, values: &[Value]) -> Result<Vec<AnyRow>, StoreError> {
    Ok(bind(sql, values.iter().cloned()).patient(PATIENCE).fetch_all(connection).await?)
}

impl Ledger {
    /// The ledger as it is at one moment: whatever is read from the answer belongs together, however much is
    /// written meanwhile. For a few reads, one after the other: it takes the place of a reader until it is
    /// dropped, and who holds one waits for nothing else and reads from nothing else.
    pub async fn snapshot(&self) -> Result<Self, StoreError> {
        let snapshot = match &self.1 {
            Some(snapshot) => Arc::clone(snapshot),
            None => Arc::new(self.0.readers.snapshot().await?),
        };
        Ok(Self(Arc::clone(&self.0), Some(snapshot)))
    }

    /// The rows that a query returns.
    pub(super) async fn fetch(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let Some(snapshot) = &self.1 else { return self.0.readers.fetch(sql, values).await };
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        snapshot.fetch(&sql, &values).await
    }

    /// The rows that `head ($1, $2, …) tail` returns over all keys.
    pub(super) async fn fetch_in<V: Into<Value>>(
        &self,
        head: &str,
        tail: &str,
        keys: impl IntoIterator<Item = V>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let mut rows = Vec::new();
        for (sql, keys) in blocks_of_keys(head, tail, keys) {
            rows.extend(self.fetch(sql, keys).await?);
        }
        Ok(rows)
    }
}

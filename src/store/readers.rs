//! Reading: a few connections beside the one that writes, which never wait for it.
//!
//! A read whose connection turns out to have ended is made once more on a new one: a server that was
//! restarted costs nobody an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tokio::sync::Semaphore;

use super::StoreError;
use super::database::{Access, Database};
use super::sql::{Value, bind, blocks_of_keys};

/// How many reads go on beside each other.
const READERS: usize = 4;

/// How long a read may take: statistics of years may.
const PATIENCE: Duration = Duration::from_mins(1);

/// The connections that read.
pub(super) struct Readers {
    database: Arc<Database>,
    access: Access,
    places: Semaphore,
    idle: Mutex<Vec<AnyConnection>>,
}

impl Readers {
    /// Begins with a connection that is open already.
    pub(super) fn new(database: Arc<Database>, access: Access, connection: AnyConnection) -> Self {
        Self { database, access, places: Semaphore::new(READERS), idle: Mutex::new(vec![connection]) }
    }

    /// For one read at a time.
    pub(super) fn single(database: Arc<Database>, access: Access) -> Self {
        Self { database, access, places: Semaphore::new(1), idle: Mutex::default() }
    }

    /// The rows that a query returns.
    pub(super) async fn fetch(
        &self,
        sql: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let (sql, values) = (sql.into(), values.into_iter().collect::<Vec<_>>());
        let _place = self.places.acquire().await.map_err(|_| StoreError::Closed)?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = kept {
            match self.query(connection, &sql, &values).await {
                // Those that were idle with it have ended as well.
                Err(error) if error.is_broken_connection() => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                done => return done,
            }
        }
        self.query(self.database.connect(self.access).await?, &sql, &values).await
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

    async fn query(
        &self,
        mut connection: AnyConnection,
        sql: &str,
        values: &[Value],
    ) -> Result<Vec<AnyRow>, StoreError> {
        let query = bind(sql, values.iter().cloned()).patient(PATIENCE);
        let rows = query.fetch_all(&mut connection).await.map_err(StoreError::from);
        if !rows.as_ref().is_err_and(StoreError::is_broken_connection) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        rows
    }
}

//! The database behind the ledger: what differs between `SQLite` and `PostgreSQL`, and connecting.
//!
//! Everything else of the store is written once, in the SQL that both share.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _};
use tokio::time::Instant;

use super::StoreError;
use super::error::{ConnectFault, no_answer};
use super::sql::{Columns, bind};
use crate::secret::without_password;

/// How long a statement waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before a file is opened again that was held just then.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After this time the server ends a transaction whose client does nothing, and gives back its
/// locks: a member that was stopped in the middle of a write must not keep its successor waiting.
const IDLE_IN_TRANSACTION_SECONDS: u32 = 5;

/// The same for one that only reads. It keeps nobody waiting, but the server cannot clear up behind it.
const IDLE_IN_SNAPSHOT_SECONDS: u32 = 60;

/// How many prepared statements a connection to a server keeps: all that there are, in all sizes of
/// block.
const STATEMENTS: u32 = 500;

static DRIVERS: Once = Once::new();

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Write, and create the database where it is a file.
    Create,
    /// Read beside a writer of this process.
    Beside,
    /// Nothing but read.
    ReadOnly,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Sqlite { path: String },
    Postgres,
}

/// Where the ledger is kept.
#[derive(Clone)]
pub(super) struct Database {
    kind: Kind,
    url: String,
    shown: String,
}

impl Database {
    /// Reads a `[store] url`.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let shown = without_password(url);
        let unsupported = |reason: &str| StoreError::Unsupported { url: shown.clone(), reason: reason.to_owned() };
        match url.split_once("://") {
            Some(("sqlite", "")) => Err(unsupported("it names no file")),
            Some(("sqlite", path)) if path.contains(['?', '#', '%']) => {
                Err(unsupported("the path holds a `?`, `#` or `%`"))
            }
            Some(("sqlite", path)) => {
                Ok(Self { kind: Kind::Sqlite { path: path.to_owned() }, url: url.to_owned(), shown })
            }
            Some(("postgres" | "postgresql", _)) => {
                let mut parsed: reqwest::Url = url.parse().map_err(|_| unsupported("it is not a URL"))?;
                let has = |name: &str| parsed.query_pairs().any(|(key, _)| key == name);
                let defaults = [
                    ("application_name", "flowkeeper".to_owned()),
                    ("statement-cache-capacity", STATEMENTS.to_string()),
                ];
                let missing: Vec<_> = defaults.into_iter().filter(|(name, _)| !has(name)).collect();
                for (name, value) in missing {
                    parsed.query_pairs_mut().append_pair(name, &value);
                }
                Ok(Self { kind: Kind::Postgres, url: parsed.into(), shown })
            }
            _ => Err(unsupported("only `sqlite://` and `postgres://` stores are known")),
        }
    }

    /// The URL as configured, without a password.
    pub(super) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// Whether a statement may wait on a network, so that its answer may never come.
    pub(super) fn is_remote(&self) -> bool {
        self.kind == Kind::Postgres
    }

    /// The file that is not there, if the database is one.
    pub(super) fn absent_file(&self) -> Option<String> {
        match &self.kind {
            Kind::Sqlite { path } if !Path::new(path).exists() => Some(path.clone()),
            _ => None,
        }
    }

    /// A new connection, with the settings that the ledger relies on.
    pub(super) async fn connect(&self, access: Access) -> Result<AnyConnection, StoreError> {
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let failed = |fault: ConnectFault| StoreError::Connect { url: self.shown(), fault };
        let (url, settings) = self.url_and_settings(access);
        let options: AnyConnectOptions = url.parse().map_err(|error| failed(ConnectFault::of(&error)))?;
        let connect = || async {
            let mut connection = options.connect().await?;
            sqlx::raw_sql(AssertSqlSafe(settings.clone())).execute(&mut connection).await?;
            Ok(connection)
        };
        let connected = if self.is_remote() {
            tokio::time::timeout(CONNECT_TIMEOUT, connect()).await.unwrap_or_else(|_| Err(no_answer()))
        } else {
            // Of several that open a new file at once, SQLite refuses some at once and not after its time-out:
            // the change to write-ahead logging does not wait for others that change to it.
            let began = Instant::now();
            connect
                .retry(ConstantBuilder::default().with_delay(BUSY_PAUSE).without_max_times())
                .when(|error| ConnectFault::of(error).is_locked() && began.elapsed() < BUSY_TIMEOUT)
                .await
        };
        connected.map_err(|error: sqlx::Error| failed(ConnectFault::of(&error)))
    }

    fn url_and_settings(&self, access: Access) -> (String, String) {
        match &self.kind {
            Kind::Sqlite { path } => {
                let mode = match access {
                    Access::Create => "rwc",
                    Access::Beside => "rw",
                    Access::ReadOnly => "ro",
                };
                let mut settings = format!("PRAGMA busy_timeout = {};", BUSY_TIMEOUT.as_millis());
                if access != Access::ReadOnly {
                    // Write-ahead logging lets readers go on beside the writer; FULL makes a commit mean
                    // that the disk has it.
                    settings
                        .push_str(" PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;");
                }
                (format!("sqlite://{path}?mode={mode}"), settings)
            }
            Kind::Postgres => {
                // Each statement sees what was committed before it, so that what comes after the row of
                // the ledger is locked sees all that its last holder wrote. A commit means that the disk
                // has it, whatever the server's own setting.
                let idle = match access {
                    Access::Create => IDLE_IN_TRANSACTION_SECONDS,
                    Access::Beside | Access::ReadOnly => IDLE_IN_SNAPSHOT_SECONDS,
                };
                let mut settings = format!(
                    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; \
                     SET idle_in_transaction_session_timeout = '{idle}s'; \
                     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';"
                );
                if access != Access::Create {
                    settings.push_str(" SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;");
                }
                (self.url.clone(), settings)
            }
        }
    }

    /// The statement that begins a writing transaction.
    pub(super) fn begin(&self) -> &'static str {
        match self.kind {
            // The lock is taken at once, so that no later statement finds the file taken.
            Kind::Sqlite { .. } => "BEGIN IMMEDIATE",
            Kind::Postgres => "BEGIN",
        }
    }

    /// The statement that begins a transaction in which all statements see what the first one saw.
    pub(super) fn begin_snapshot(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite { .. } => "BEGIN DEFERRED",
            Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// A migration in the words of this database. The files are written for `SQLite`; the types below
    /// are all in which they differ.
    pub(super) fn translate(&self, migration: &str) -> String {
        match self.kind {
            Kind::Sqlite { .. } => migration.to_owned(),
            Kind::Postgres => migration
                .replace("INTEGER PRIMARY KEY", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY")
                .replace("BLOB", "BYTEA"),
        }
    }

    /// The tables that there are, in the order of their names.
    pub(super) async fn tables(&self, connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
        let sql = match self.kind {
            Kind::Sqlite { .. } => {
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
            }
            Kind::Postgres => {
                "SELECT CAST(tablename AS TEXT) FROM pg_catalog.pg_tables WHERE schemaname = current_schema() ORDER BY 1"
            }
        };
        let rows = bind(sql, []).fetch_all(connection).await?;
        rows.iter().map(|row| Columns::of(row).text()).collect()
    }

    /// Refuses a server whose database cannot keep every text.
    pub(super) async fn refuse_encoding(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        if !self.is_remote() {
            return Ok(());
        }
        let row = bind("SELECT current_setting('server_encoding')", []).fetch_one(connection).await?;
        match Columns::of(&row).text()?.as_str() {
            "UTF8" => Ok(()),
            other => Err(StoreError::Encoding { url: self.shown(), encoding: other.to_owned() }),
        }
    }
}

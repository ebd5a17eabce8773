//! Opening a ledger: connections, migrations, and the refusal of databases that are not ours.

use std::path::Path;
use std::sync::Once;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyPool, SqlSafeStr as _};
use tokio::sync::{broadcast, mpsc, watch};

use super::sql::Columns;
use super::{EVENT_BACKLOG, Inner, Ledger, StoreError, StoreHealth, WRITE_QUEUE_LENGTH, writer};
use crate::clock::Clock;

/// All migrations, oldest first. Each only adds, so that the version before still runs.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "ledger", include_str!("../../migrations/0001_ledger.sql")),
    (2, "paused dags", include_str!("../../migrations/0002_paused_dags.sql")),
];

/// How many readers work beside each other.
const READERS: u32 = 4;

/// How long a statement waits for another process that holds the file.
const BUSY_TIMEOUT_MS: u32 = 5_000;

static DRIVERS: Once = Once::new();

impl Ledger {
    /// Opens the ledger at `url` (`sqlite://PATH`), creating or upgrading it, and starts its writer.
    pub async fn open(url: &str, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(url, clock, false).await
    }

    /// The same for a shadow: what comes due is recorded, and marked as not to be submitted.
    pub async fn open_shadow(url: &str, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(url, clock, true).await
    }

    async fn open_with(url: &str, clock: Clock, shadow: bool) -> Result<Self, StoreError> {
        let path = sqlite_path(url)?;
        let write_pool = pool(url, path, "rwc", 1).await?;
        refuse_foreign(&write_pool, url).await?;
        migrate(&write_pool, url).await?;
        let store_id = identity(&write_pool, url, Some(shadow)).await?;
        let read_pool = pool(url, path, "rw", READERS).await?;
        let (sender, work) = mpsc::channel(WRITE_QUEUE_LENGTH);
        let ledger = Self(Arc::new(Inner {
            store_id,
            clock,
            write_pool,
            read_pool,
            writer: sender,
            events: broadcast::Sender::new(EVENT_BACKLOG),
            sequence: std::sync::atomic::AtomicU64::new(0),
            tickets: Mutex::new(None),
            health: watch::Sender::new(StoreHealth::Writable),
            pauses: watch::Sender::new(0),
            shadow,
        }));
        // The writer must not keep the ledger alive, or it would never see its last sender go.
        tokio::spawn(writer::run(Arc::downgrade(&ledger.0), work));
        Ok(ledger)
    }

    /// Opens an existing ledger for reading beside a member that serves, or when none does.
    pub async fn open_read_only(url: &str, clock: Clock) -> Result<Self, StoreError> {
        let path = sqlite_path(url)?;
        if !Path::new(path).exists() {
            return Err(StoreError::Absent { path: path.to_owned() });
        }
        let read_pool = pool(url, path, "ro", READERS).await?;
        refuse_foreign(&read_pool, url).await?;
        let newest: Vec<_> = sqlx::query("SELECT MAX(version) FROM _sqlx_migrations").fetch_all(&read_pool).await?;
        let newest = newest.first().map(|row| Columns::of(row).optional_integer()).transpose()?.flatten();
        if let Some(migration) = newest.filter(|newest| MIGRATIONS.iter().all(|(version, ..)| version < newest)) {
            return Err(StoreError::Newer { url: shown(url), migration });
        }
        let store_id = identity(&read_pool, url, None).await?;
        // No writer listens on the other end: writes answer that the ledger is closed.
        let (sender, _) = mpsc::channel(1);
        Ok(Self(Arc::new(Inner {
            store_id,
            clock,
            write_pool: read_pool.clone(),
            read_pool,
            writer: sender,
            events: broadcast::Sender::new(1),
            sequence: std::sync::atomic::AtomicU64::new(0),
            tickets: Mutex::new(None),
            health: watch::Sender::new(StoreHealth::Writable),
            pauses: watch::Sender::new(0),
            shadow: false,
        })))
    }
}

fn sqlite_path(url: &str) -> Result<&str, StoreError> {
    let unsupported = |reason: &str| StoreError::Unsupported { url: shown(url), reason: reason.to_owned() };
    let path = url.strip_prefix("sqlite://").ok_or_else(|| unsupported("only `sqlite://` stores are known"))?;
    if path.is_empty() {
        return Err(unsupported("it names no file"));
    }
    if path.contains(['?', '#', '%']) {
        return Err(unsupported("the path holds a `?`, `#` or `%`"));
    }
    Ok(path)
}

/// The URL without what stands between `//` and `@`.
fn shown(url: &str) -> String {
    match (url.split_once("//"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}//…@{host}"),
        _ => url.to_owned(),
    }
}

async fn pool(url: &str, path: &str, mode: &str, connections: u32) -> Result<AnyPool, StoreError> {
    DRIVERS.call_once(sqlx::any::install_default_drivers);
    // Write-ahead logging lets readers go on beside the writer; FULL makes a commit mean that the
    // disk has it.
    let pragmas = if mode == "ro" {
        format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};")
    } else {
        format!(
            "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA temp_store = MEMORY;"
        )
    };
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let pragmas = pragmas.clone();
            Box::pin(async move {
                sqlx::raw_sql(sqlx::AssertSqlSafe(pragmas)).execute(&mut *connection).await?;
                Ok(())
            })
        })
        .connect(&format!("sqlite://{path}?mode={mode}"))
        .await
        .map_err(|error| match error {
            sqlx::Error::Database(error) => {
                StoreError::Unsupported { url: shown(url), reason: error.message().to_owned() }
            }
            error => StoreError::Database(error),
        })
}

/// Refuses a database that holds tables but no ledger.
async fn refuse_foreign(pool: &AnyPool, url: &str) -> Result<(), StoreError> {
    let rows =
        sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
            .fetch_all(pool)
            .await
            .map_err(|error| StoreError::Unsupported { url: shown(url), reason: error.to_string() })?;
    let tables = rows.iter().map(|row| Columns::of(row).text()).collect::<Result<Vec<_>, _>>()?;
    let foreign = || tables.first().cloned().unwrap_or_default();
    if !tables.is_empty() && !tables.iter().any(|table| table == "ledger") {
        return Err(StoreError::Foreign { url: shown(url), table: foreign() });
    }
    if tables.iter().any(|table| table == "ledger") {
        let ours = sqlx::query("SELECT application FROM ledger WHERE singleton = 1").fetch_all(pool).await;
        let ours = ours.is_ok_and(|rows| {
            rows.iter().all(|row| Columns::of(row).text().is_ok_and(|application| application == "flowkeeper"))
        });
        if !ours {
            return Err(StoreError::Foreign { url: shown(url), table: "ledger".into() });
        }
    }
    Ok(())
}

async fn migrate(pool: &AnyPool, url: &str) -> Result<(), StoreError> {
    let migrations = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(migration) => StoreError::Newer { url: shown(url), migration },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Database(error),
        error => StoreError::Unsupported { url: shown(url), reason: error.to_string() },
    })
}

/// Reads the store's identity, drawing it in a new one. `shadow` is who asks; readers do not say.
///
/// A shadow and a member that submits must not share a store: what one covers, the other would not
/// run.
async fn identity(pool: &AnyPool, url: &str, shadow: Option<bool>) -> Result<String, StoreError> {
    let rows = sqlx::query("SELECT store_id, is_shadow FROM ledger WHERE singleton = 1").fetch_all(pool).await?;
    if let Some(row) = rows.first() {
        let mut columns = Columns::of(row);
        let (store_id, is_shadow) = (columns.text()?, columns.boolean()?);
        return match shadow {
            Some(shadow) if shadow != is_shadow => Err(StoreError::Shadow { url: shown(url), is_shadow }),
            _ => Ok(store_id),
        };
    }
    let drawn = uuid::Uuid::new_v4().simple().to_string();
    sqlx::query(
        "INSERT INTO ledger (singleton, application, store_id, epoch, is_shadow) VALUES (1, 'flowkeeper', $1, 0, $2)",
    )
    .bind(drawn.clone())
    .bind(i64::from(shadow.unwrap_or_default()))
    .execute(pool)
    .await?;
    Ok(drawn)
}

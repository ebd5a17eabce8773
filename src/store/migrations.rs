//! Creating and upgrading the tables, side by side with members of the version before.
//!
//! A migration only adds: tables, columns that may be empty or have a default, indexes, which may take the
//! place of others, since no statement names one. So a member
//! that does not know it goes on, and may be started again, on the same ledger: every program that
//! knows the third one. (Those before refused whatever they did not know.) Should one ever do more, it
//! writes its number to `ledger.needs_migration`, and programs that do not know it keep out.
//!
//! An index over `runs` holds up writes while it is built, on PostgreSQL some seconds for millions of
//! rows. They wait, or are tried again.

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, AssertSqlSafe, SqlSafeStr as _};

use super::StoreError;
use super::database::{Access, Database};
use super::sql::{Columns, bind};

/// All migrations, oldest first.
const MIGRATIONS: [(i64, &str, &str); 17] = [
    (1, "ledger", include_str!("../../migrations/0001_ledger.sql")),
    (2, "paused dags", include_str!("../../migrations/0002_paused_dags.sql")),
    (3, "neighbours", include_str!("../../migrations/0003_neighbours.sql")),
    (4, "lineage", include_str!("../../migrations/0004_lineage.sql")),
    (5, "locks", include_str!("../../migrations/0005_locks.sql")),
    (6, "configurations", include_str!("../../migrations/0006_configurations.sql")),
    (7, "ensembles", include_str!("../../migrations/0007_ensembles.sql")),
    (8, "components", include_str!("../../migrations/0008_components.sql")),
    (9, "definitions", include_str!("../../migrations/0009_definitions.sql")),
    (10, "sync", include_str!("../../migrations/0010_sync.sql")),
    (11, "edits", include_str!("../../migrations/0011_edits.sql")),
    (12, "servers", include_str!("../../migrations/0012_servers.sql")),
    (13, "former names", include_str!("../../migrations/0013_former_names.sql")),
    (14, "renames", include_str!("../../migrations/0014_renames.sql")),
    (15, "resting triggers", include_str!("../../migrations/0015_resting_triggers.sql")),
    (16, "renames by name", include_str!("../../migrations/0016_renames_by_name.sql")),
    (17, "lists of DAG runs", include_str!("../../migrations/0017_dag_run_lists.sql")),
];

/// The newest migration that this program knows.
fn newest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default()
}

/// Brings the tables up to date.
pub(super) async fn migrate(database: &Database) -> Result<(), StoreError> {
    let migrations = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            let sql = AssertSqlSafe(database.translate(sql)).into_sql_str();
            Migration::new(version, name.into(), MigrationType::Simple, sql, false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.set_ignore_missing(true);
    // A connection of its own, since it keeps PostgreSQL's lock against others that migrate if it fails.
    let mut connection = database.connect(Access::Create).await?;
    migrator.run_direct(None, &mut connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => StoreError::Database(error),
        error => StoreError::Unsupported { url: database.shown(), reason: error.to_string() },
    })
}

/// Refuses a ledger that newer members have changed so that this program cannot use it any more.
pub(super) async fn refuse_newer(database: &Database, connection: &mut AnyConnection) -> Result<(), StoreError> {
    let rows = bind("SELECT needs_migration FROM ledger WHERE singleton = 1", []).fetch_all(connection).await?;
    let needed = rows.first().map(|row| Columns::of(row).integer()).transpose()?;
    match needed.filter(|needed| *needed > newest()) {
        Some(migration) => Err(StoreError::Newer { url: database.shown(), migration }),
        None => Ok(()),
    }
}

/// Refuses a ledger that lacks what this program reads, for those who may not add it.
pub(super) async fn refuse_older(database: &Database, connection: &mut AnyConnection) -> Result<(), StoreError> {
    let rows = bind("SELECT version FROM _sqlx_migrations WHERE success", []).fetch_all(connection).await?;
    let applied = rows.iter().map(|row| Columns::of(row).integer()).collect::<Result<Vec<_>, _>>()?;
    match MIGRATIONS.iter().map(|(version, ..)| *version).find(|version| !applied.contains(version)) {
        Some(migration) => Err(StoreError::Older { url: database.shown(), migration }),
        None => Ok(()),
    }
}

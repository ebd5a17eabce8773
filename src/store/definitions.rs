//! The sets of definitions that were in force: kept when one comes into force, read by those who ask
//! what held when, and taken up at a start without ZooKeeper.

use sqlx::any::AnyRow;

use super::conditions::Conditions;
use super::model::{DefinitionsVersion, NewDefinitions, Page};
use super::sql::{Columns, bind};
use super::{Leadership, Ledger, StoreError};

/// How many versions are kept at most.
const KEPT: i64 = 100;

/// How many are kept however large they are.
const KEPT_AT_LEAST: i64 = 10;

/// How much text they may have together, beyond those, in bytes.
const KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// How much of a version must be given, in characters.
pub const SHORTEST_START: usize = 4;

const COLUMNS: &str =
    "number, version, in_force_at, source, zookeeper_version, author, message, pushed_at, schedules, size_bytes";

impl Ledger {
    /// Keeps the set that comes into force; its number. The set that is in force already is not kept
    /// again, and `None` is the answer. The same text from another source is a set of its own: what is
    /// asked for by its source is to be found.
    pub async fn keep_definitions(
        &self,
        leadership: &Leadership,
        set: &NewDefinitions,
    ) -> Result<Option<i64>, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let connection = transaction.connection();
        let latest = bind("SELECT number, version, source FROM definitions ORDER BY number DESC LIMIT 1", [])
            .fetch_all(&mut *connection)
            .await?;
        let latest = latest
            .first()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok::<_, StoreError>((columns.integer()?, columns.text()?, columns.text()?))
            })
            .transpose()?;
        if latest.as_ref().is_some_and(|(_, version, source)| *version == set.version && *source == set.source) {
            return Ok(None);
        }
        let number = latest.map_or(1, |(number, ..)| number + 1);
        bind(
            format!(
                "INSERT INTO definitions ({COLUMNS}, documents) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
            ),
            [
                number.into(),
                set.version.as_str().into(),
                at.into(),
                set.source.as_str().into(),
                set.zookeeper_version.map(i64::from).into(),
                set.author.clone().into(),
                set.message.clone().into(),
                set.pushed_at.into(),
                i64::try_from(set.schedules).unwrap_or(i64::MAX).into(),
                i64::try_from(set.documents.len()).unwrap_or(i64::MAX).into(),
                set.documents.as_str().into(),
            ],
        )
        .execute(&mut *connection)
        .await?;
        bind(
            "DELETE FROM definitions WHERE number IN (SELECT number FROM (SELECT number, ROW_NUMBER() OVER \
             (ORDER BY number DESC) AS age, SUM(size_bytes) OVER (ORDER BY number DESC) AS total FROM definitions) AS aged \
             WHERE age > $1 OR (age > $2 AND total > $3))",
            [KEPT.into(), KEPT_AT_LEAST.into(), KEPT_BYTES.into()],
        )
        .execute(connection)
        .await?;
        transaction.commit().await?;
        Ok(Some(number))
    }

    /// The sets that were in force, newest first.
    pub async fn definitions(&self, limit: u32, cursor: Option<&str>) -> Result<Page<DefinitionsVersion>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM definitions");
        let read = |row: &AnyRow| entry(row).map(|entry| (entry.number, entry));
        Conditions::default().page(self, &select, "number", limit, cursor, read).await
    }

    /// The latest set that was in force, and its documents; from this source only, if one is given.
    pub async fn latest_definitions(
        &self,
        source: Option<&str>,
    ) -> Result<Option<(DefinitionsVersion, String)>, StoreError> {
        let filter = if source.is_some() { "WHERE source = $1" } else { "" };
        let sql = format!("SELECT {COLUMNS}, documents FROM definitions {filter} ORDER BY number DESC LIMIT 1");
        let rows = self.fetch(sql, source.map(Into::into)).await?;
        rows.first().map(with_documents).transpose()
    }

    /// The latest set from this source that was in force before the one with this number, and its documents.
    pub async fn definitions_before(
        &self,
        source: &str,
        number: i64,
    ) -> Result<Option<(DefinitionsVersion, String)>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS}, documents FROM definitions WHERE source = $1 AND number < $2 ORDER BY number DESC LIMIT 1"
        );
        let rows = self.fetch(sql, [source.into(), number.into()]).await?;
        rows.first().map(with_documents).transpose()
    }

    /// The set with this number or this version (or what one begins with); of several the newest.
    pub async fn definitions_of(&self, which: &str) -> Result<Option<(DefinitionsVersion, String)>, StoreError> {
        let number = which.parse::<i64>().unwrap_or(-1);
        let is_start = which.len() >= SHORTEST_START && which.bytes().all(|byte| byte.is_ascii_hexdigit());
        let start = if is_start { format!("{}%", which.to_ascii_lowercase()) } else { String::new() };
        let sql = format!(
            "SELECT {COLUMNS}, documents FROM definitions WHERE number = $1 OR version LIKE $2 \
             ORDER BY CASE WHEN number = $1 THEN 0 ELSE 1 END, number DESC LIMIT 1"
        );
        let rows = self.fetch(sql, [number.into(), start.into()]).await?;
        rows.first().map(with_documents).transpose()
    }
}

fn entry(row: &AnyRow) -> Result<DefinitionsVersion, StoreError> {
    read_entry(&mut Columns::of(row))
}

fn with_documents(row: &AnyRow) -> Result<(DefinitionsVersion, String), StoreError> {
    let mut columns = Columns::of(row);
    Ok((read_entry(&mut columns)?, columns.text()?))
}

fn read_entry(columns: &mut Columns<'_>) -> Result<DefinitionsVersion, StoreError> {
    let (number, version, in_force_at) = (columns.integer()?, columns.text()?, columns.time()?);
    let (source, zookeeper_version) = (columns.text()?, columns.optional_integer()?);
    let (author, message, pushed_at) = (columns.optional_text()?, columns.optional_text()?, columns.time()?);
    let (schedules, size_bytes) = (columns.integer()?, columns.integer()?);
    let zookeeper_version = zookeeper_version.and_then(|version| i32::try_from(version).ok());
    Ok(DefinitionsVersion {
        number,
        version,
        in_force_at,
        source,
        zookeeper_version,
        author,
        message,
        pushed_at,
        schedules,
        size_bytes,
    })
}

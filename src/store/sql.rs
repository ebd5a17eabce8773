//! Statements for many rows at once, and the decoding of columns.
//!
//! Throughput is decided by the number of statements, not of rows. Rows are sent in blocks of a few
//! fixed sizes, so that the prepared statements stay few enough to be cached.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::{AnyArguments, AnyQueryResult, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::error::{StoreError, no_answer};
use crate::domain::run::RunState;
use crate::domain::schedule::ScheduleName;

/// The sizes of block that rows are sent in: few, so that the prepared statements stay cached.
const BLOCKS: [usize; 8] = [1024, 256, 64, 32, 16, 8, 4, 1];

/// About how many parameters a statement may have, far below what either database takes.
const PARAMETERS: usize = 8_192;

/// The same where they are numbered and the database may be SQLite: it finds the name of a parameter by
/// walking a list from its beginning (`sqlite3VListNumToName`), so binding takes a time that grows with the
/// square of their number.
const NUMBERED_PARAMETERS: usize = 320;

/// How a statement marks where its parameters go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// `$1`, as every database here knows.
    Numbered,
    /// `?`, which SQLite need not look up; PostgreSQL does not know it.
    Plain,
}

impl Marks {
    /// The faster ones that the database behind a connection takes.
    fn of(connection: &AnyConnection) -> Self {
        if connection.backend_name() == <sqlx::Sqlite as sqlx::Database>::NAME { Self::Plain } else { Self::Numbered }
    }

    /// Adds the mark of a parameter.
    fn push(self, sql: &mut String, number: usize) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Numbered => write!(sql, "${number}"),
            Self::Plain => sql.write_char('?'),
        };
    }
}

/// How long a write may stay without an answer before its connection is given up. It may wait for
/// the transactions of others.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The largest block for what is left, of rows with so many columns.
fn block_size(left: usize, columns: usize, parameters: usize) -> Option<usize> {
    BLOCKS.into_iter().find(|&size| size <= left && (size == 1 || size * columns <= parameters))
}

/// A value to bind.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Integer(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}
impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}
impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Integer(Some(value.as_microsecond()))
    }
}
impl From<Option<Timestamp>> for Value {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Integer(value.map(Timestamp::as_microsecond))
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Integer(Some(i64::from(value)))
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}
impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(ToOwned::to_owned))
    }
}
impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Blob(value)
    }
}

/// A statement with its values, which waits for its answer only as long as one may come: a server
/// that is gone without a word would keep its client waiting for ever.
pub(super) struct Statement {
    query: sqlx::query::Query<'static, sqlx::Any, AnyArguments>,
    patience: Duration,
}

/// A prepared statement with these values bound in order.
pub(super) fn bind(sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
    let mut query = sqlx::query(AssertSqlSafe(sql.into()));
    for value in values {
        query = match value {
            Value::Integer(value) => query.bind(value),
            Value::Text(value) => query.bind(value.map(without_nul)),
            Value::Blob(value) => query.bind(value),
        };
    }
    Statement { query, patience: ANSWER_TIMEOUT }
}

impl Statement {
    /// Waits longer than a write may take.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) async fn execute(self, connection: &mut AnyConnection) -> Result<AnyQueryResult, sqlx::Error> {
        within(self.patience, self.query.execute(connection)).await
    }

    pub(super) async fn fetch_all(self, connection: &mut AnyConnection) -> Result<Vec<AnyRow>, sqlx::Error> {
        within(self.patience, self.query.fetch_all(connection)).await
    }

    pub(super) async fn fetch_one(self, connection: &mut AnyConnection) -> Result<AnyRow, sqlx::Error> {
        within(self.patience, self.query.fetch_one(connection)).await
    }
}

/// Runs one of the few statements that begin and end transactions. They go as they are, without being
/// prepared.
pub(super) async fn run(connection: &mut AnyConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    within(ANSWER_TIMEOUT, sqlx::raw_sql(statement).execute(connection)).await.map(|_| ())
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(no_answer()))
}

/// PostgreSQL keeps every character but U+0000, which may come in what others wrote: a cause that an
/// operator gives, an answer of Airflow's. It becomes U+FFFD in both databases. (Data of znodes is
/// kept as bytes, and JSON escapes it.)
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Runs `head (…), (…) tail` over all rows, block by block, and returns what `RETURNING` gave.
///
/// `casts` names the SQL type of each column where the statement does not tell the database itself
/// (a bare `VALUES` list); empty otherwise.
pub(super) async fn bulk(
    connection: &mut AnyConnection,
    head: &str,
    tail: &str,
    casts: &[&str],
    rows: Vec<Vec<Value>>,
) -> Result<Vec<AnyRow>, StoreError> {
    let mut returned = Vec::new();
    let marks = Marks::of(connection);
    let columns = rows.first().map_or(0, Vec::len);
    let mut rows = rows.into_iter();
    while let Some(size) = block_size(rows.len(), columns, PARAMETERS) {
        let block: Vec<_> = rows.by_ref().take(size).collect();
        let mut sql = String::with_capacity(head.len() + tail.len() + size * columns * 6);
        sql.push_str(head);
        for row in 0..size {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..columns {
                sql.push_str(if column == 0 { "" } else { ", " });
                let cast = casts.get(column);
                sql.push_str(if cast.is_some() { "CAST(" } else { "" });
                marks.push(&mut sql, row * columns + column + 1);
                if let Some(cast) = cast {
                    // Writing to a String cannot fail.
                    let _ = write!(sql, " AS {cast})");
                }
            }
            sql.push(')');
        }
        sql.push_str(tail);
        returned.extend(bind(sql, block.into_iter().flatten()).fetch_all(&mut *connection).await?);
    }
    Ok(returned)
}

/// `head ($1, $2, …) tail` with the keys of each block, for any database.
pub(super) fn blocks_of_keys<V: Into<Value>>(
    head: &str,
    tail: &str,
    keys: impl IntoIterator<Item = V>,
) -> Vec<(String, Vec<Value>)> {
    marked_blocks(Marks::Numbered, NUMBERED_PARAMETERS, head, tail, keys)
}

fn marked_blocks<V: Into<Value>>(
    marks: Marks,
    parameters: usize,
    head: &str,
    tail: &str,
    keys: impl IntoIterator<Item = V>,
) -> Vec<(String, Vec<Value>)> {
    let mut keys = keys.into_iter().map(Into::into).collect::<Vec<_>>().into_iter();
    let mut blocks = Vec::new();
    while let Some(size) = block_size(keys.len(), 1, parameters) {
        let mut sql = format!("{head} (");
        for number in 1..=size {
            sql.push_str(if number == 1 { "" } else { ", " });
            marks.push(&mut sql, number);
        }
        sql.push_str(") ");
        sql.push_str(tail);
        blocks.push((sql, keys.by_ref().take(size).collect()));
    }
    blocks
}

/// Runs `head ($1, $2, …) tail` over all keys, block by block.
pub(super) async fn select_in<V: Into<Value>>(
    connection: &mut AnyConnection,
    head: &str,
    tail: &str,
    keys: impl IntoIterator<Item = V>,
) -> Result<Vec<AnyRow>, StoreError> {
    let mut returned = Vec::new();
    for (sql, keys) in marked_blocks(Marks::of(connection), PARAMETERS, head, tail, keys) {
        returned.extend(bind(sql, keys).fetch_all(&mut *connection).await?);
    }
    Ok(returned)
}

/// Reads columns of one row, in order.
pub(super) struct Columns<'r> {
    row: &'r AnyRow,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(super) fn of(row: &'r AnyRow) -> Self {
        Self { row, next: 0 }
    }

    fn index(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn optional_integer(&mut self) -> Result<Option<i64>, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn optional_real(&mut self) -> Result<Option<f64>, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, StoreError> {
        Ok(self.integer()? != 0)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn optional_blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.row.try_get(self.index())?)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        time(self.integer()?)
    }

    pub(super) fn optional_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.optional_integer()?.map(time).transpose()
    }

    pub(super) fn state(&mut self) -> Result<RunState, StoreError> {
        let text = self.text()?;
        RunState::parse(&text).ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is not a run state") })
    }

    pub(super) fn schedule(&mut self) -> Result<ScheduleName, StoreError> {
        let text = self.text()?;
        ScheduleName::new(&text).ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is not a schedule name") })
    }
}

fn time(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|_| StoreError::Corrupt { what: format!("{microseconds} µs is not a time") })
}

//! What operators did: written with the action itself, read by people who ask why.

use jiff::Timestamp;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::conditions::Conditions;
use super::model::{AuditEntry, DecisionEntry, NewAudit, Page};
use super::sql::{Columns, bind};
use super::{Leadership, Ledger, StoreError};
use crate::domain::schedule::ScheduleName;

pub(super) async fn write_audit(
    connection: &mut AnyConnection,
    at: Timestamp,
    audit: &NewAudit,
) -> Result<(), StoreError> {
    bind(
        "INSERT INTO audit (at, actor, source, action, target, detail, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            at.into(),
            audit.actor.as_str().into(),
            audit.source.as_str().into(),
            audit.action.into(),
            audit.target.as_str().into(),
            audit.detail.clone().into(),
            audit.reason.clone().into(),
        ],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the decisions of a schedule its new name.
pub(super) async fn move_decisions(connection: &mut AnyConnection, old: &str, new: &str) -> Result<(), StoreError> {
    for sql in [
        "UPDATE decisions SET schedule = $1 WHERE schedule = $2",
        "INSERT INTO decision_counts (schedule, kind, count) SELECT $1, kind, count FROM decision_counts \
         WHERE schedule = $2 ON CONFLICT (schedule, kind) DO UPDATE SET count = decision_counts.count + excluded.count",
    ] {
        bind(sql, [new.into(), old.into()]).execute(&mut *connection).await?;
    }
    bind("DELETE FROM decision_counts WHERE schedule = $1", [old.into()]).execute(connection).await?;
    Ok(())
}

impl Ledger {
    /// Notes an action whose effect lies elsewhere, in Airflow for example.
    pub async fn write_audit(&self, leadership: &Leadership, audit: NewAudit) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        write_audit(transaction.connection(), at, &audit).await?;
        transaction.commit().await
    }

    /// What operators did, newest first.
    pub async fn audit(&self, limit: u32, cursor: Option<&str>) -> Result<Page<AuditEntry>, StoreError> {
        let read = |row: &AnyRow| {
            let mut columns = Columns::of(row);
            let id = columns.integer()?;
            let entry = AuditEntry {
                id,
                at: columns.time()?,
                actor: columns.text()?,
                source: columns.text()?,
                action: columns.text()?,
                target: columns.text()?,
                detail: columns.optional_text()?,
                reason: columns.optional_text()?,
            };
            Ok((id, entry))
        };
        let select = "SELECT id, at, actor, source, action, target, detail, reason FROM audit";
        Conditions::default().page(self, select, "id", limit, cursor, read).await
    }

    /// The last decisions of a schedule that made no row, newest first.
    pub async fn decisions(&self, schedule: &ScheduleName, limit: u32) -> Result<Vec<DecisionEntry>, StoreError> {
        let rows = self
            .fetch(
                "SELECT at, kind, detail FROM decisions WHERE schedule = $1 ORDER BY id DESC LIMIT $2",
                [schedule.as_str().into(), i64::from(limit).into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(DecisionEntry { at: columns.time()?, kind: columns.text()?, detail: columns.text()? })
            })
            .collect()
    }

    /// How many decisions without a row a schedule has taken, by kind.
    pub async fn decision_counts(&self, schedule: &ScheduleName) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = self
            .fetch(
                "SELECT kind, count FROM decision_counts WHERE schedule = $1 ORDER BY kind",
                [schedule.as_str().into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok((columns.text()?, columns.integer()?))
            })
            .collect()
    }
}

impl<T> Page<T> {
    /// Makes a page of rows that were read with a limit of one more than the page holds.
    pub(super) fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(cursor);
        Self { items, next_cursor }
    }

    /// The same page of something else.
    pub(super) fn map<U>(self, of: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(of).collect(), next_cursor: self.next_cursor }
    }
}

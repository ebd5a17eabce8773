//! Which entries of Airflows are ours, and how the last comparison of each sync ended. Values are never
//! kept, nor anything that tells them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::sql::{Columns, bind, bulk};
use super::{Leadership, Ledger, StoreError};
use crate::domain::sync::entry::EntryKind;
use crate::domain::sync::plan::{Hold, Owned};

/// What is to be written of entries that are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedChanges {
    /// These rows are as follows from now on.
    pub put: Vec<(String, Owned)>,
    /// These keys are nobody's any more.
    pub forget: Vec<String>,
}

impl OwnedChanges {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.forget.is_empty()
    }
}

/// How the last comparison of a sync ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPass {
    /// The name of the sync.
    pub sync: String,
    /// When it ended.
    pub at: Timestamp,
    /// What it found, as JSON.
    pub report: String,
}

impl Ledger {
    /// The entries of one kind in an Airflow that are ours, whichever sync wrote them.
    pub async fn owned_entries(&self, airflow: &str, kind: EntryKind) -> Result<BTreeMap<String, Owned>, StoreError> {
        let rows = self.fetch(
            "SELECT key, sync, hold, digest FROM sync_entries WHERE airflow = $1 AND kind = $2",
            [airflow.into(), kind.as_str().into()],
        );
        rows.await?
            .iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (key, sync, hold) = (columns.text()?, columns.text()?.into(), columns.text()?);
                let hold = Hold::parse(&hold)
                    .ok_or_else(|| StoreError::Corrupt { what: format!("`{hold}` is not how an entry is held") })?;
                Ok((key, Owned { sync, hold, digest: columns.optional_text()? }))
            })
            .collect()
    }

    /// Writes what is ours in an Airflow from now on, all of it or nothing.
    pub async fn note_entries(
        &self,
        leadership: &Leadership,
        airflow: &str,
        kind: EntryKind,
        changes: &OwnedChanges,
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let puts = changes.put.iter().map(|(key, owned)| {
            vec![
                airflow.into(),
                kind.as_str().into(),
                key.as_str().into(),
                owned.sync.as_ref().into(),
                owned.hold.as_str().into(),
                owned.digest.clone().into(),
                at.into(),
            ]
        });
        bulk(
            transaction.connection(),
            "INSERT INTO sync_entries (airflow, kind, key, sync, hold, digest, changed_at) VALUES ",
            " ON CONFLICT (airflow, kind, key) DO UPDATE SET sync = excluded.sync, hold = excluded.hold, \
             digest = excluded.digest, changed_at = excluded.changed_at",
            &[],
            puts.collect(),
        )
        .await?;
        let gone = changes.forget.iter().map(|key| vec![airflow.into(), kind.as_str().into(), key.as_str().into()]);
        bulk(
            transaction.connection(),
            "DELETE FROM sync_entries WHERE (airflow, kind, key) IN (VALUES ",
            ")",
            &["TEXT", "TEXT", "TEXT"],
            gone.collect(),
        )
        .await?;
        transaction.commit().await
    }

    /// Writes how the last comparison of a sync ended.
    pub async fn note_sync_pass(&self, leadership: &Leadership, sync: &str, report: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        bind(
            "INSERT INTO sync_passes (sync, at, report) VALUES ($1, $2, $3) \
             ON CONFLICT (sync) DO UPDATE SET at = excluded.at, report = excluded.report",
            [sync.into(), at.into(), report.into()],
        )
        .execute(transaction.connection())
        .await?;
        transaction.commit().await
    }

    /// How the last comparison of each sync ended, by name.
    pub async fn sync_passes(&self) -> Result<Vec<LastPass>, StoreError> {
        let rows = self.fetch("SELECT sync, at, report FROM sync_passes", []).await?;
        let mut passes = rows
            .iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(LastPass { sync: columns.text()?, at: columns.time()?, report: columns.text()? })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        passes.sort_unstable_by(|a, b| a.sync.cmp(&b.sync));
        Ok(passes)
    }
}

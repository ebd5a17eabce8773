//! Children that are to be deleted once their run got far enough: owed with the row, settled once.

use super::model::{ConsumeDue, ConsumeWork};
use super::names::SCHEDULE;
use super::sql::Columns;
use super::{Leadership, Ledger, StoreError};
use crate::domain::run::RunId;
use crate::domain::schedule::Consume;

/// How many are handed out at once.
const PAGE: i64 = 1000;

impl Ledger {
    /// The oldest consumes that are due in this ensemble (`None`: the home ensemble), of the rows
    /// behind `after`; at most a page of them.
    pub async fn consume_due(&self, ensemble: Option<&str>, after: RunId) -> Result<Vec<ConsumeDue>, StoreError> {
        let condition = if ensemble.is_some() { "consume_ensemble = $3" } else { "consume_ensemble IS NULL" };
        let sql = format!(
            "SELECT id, {SCHEDULE}, consume_path, consume_czxid, consume_when FROM runs \
             WHERE consume_when IS NOT NULL AND consume_note IS NULL AND id > $2 AND {condition} AND (state = 'success' \
             OR (consume_when = 'accepted' AND accepted_at IS NOT NULL)) ORDER BY id LIMIT $1"
        );
        let values = [PAGE.into(), after.0.into()].into_iter().chain(ensemble.map(Into::into));
        let rows = self.fetch(sql, values).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (run, schedule) = (RunId(columns.integer()?), columns.schedule()?);
                let (path, czxid) = (columns.text()?, columns.integer()?);
                let when = if columns.text()? == "success" { Consume::Success } else { Consume::Accepted };
                let ensemble = ensemble.map(ToOwned::to_owned);
                Ok(ConsumeDue { run, schedule, work: ConsumeWork { ensemble, path, czxid, when } })
            })
            .collect()
    }

    /// Notes that these rows owe nothing any more, and what became of their children.
    pub async fn consumes_settled(&self, leadership: &Leadership, settled: &[(RunId, &str)]) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let rows = settled.iter().map(|(run, note)| vec![run.0.into(), (*note).into()]).collect();
        super::sql::bulk(
            transaction.connection(),
            "UPDATE runs SET consume_note = v.column2 FROM (VALUES ",
            ") AS v WHERE runs.id = v.column1",
            &["BIGINT", "TEXT"],
            rows,
        )
        .await?;
        transaction.commit().await
    }
}

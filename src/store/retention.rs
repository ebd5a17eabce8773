//! Deleting what is old enough: history does not grow for ever, and what is still needed stays.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::sql::{Columns, bind};
use super::{Leadership, Ledger, StoreError};

/// How many decisions without a row each schedule keeps.
const DECISIONS_KEPT: i64 = 50;

/// How long a schedule that the leader's configuration does not have keeps its cursors and its pause.
const GONE_FOR: SignedDuration = SignedDuration::from_hours(24);

/// How many rows are deleted in one transaction, so that others are not kept waiting.
const BLOCK: i64 = 5_000;

impl Ledger {
    /// Deletes rows that were due and closed longer than `retention` ago; how many. The newest row of each schedule, open
    /// rows, and runs by hand (their keys must stay taken) are kept.
    pub async fn retain(&self, leadership: &Leadership, retention: Duration) -> Result<u64, StoreError> {
        let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
        let oldest = self.0.clock.now().saturating_sub(retention).unwrap_or(Timestamp::MIN);
        let mut deleted = self.retain_airflows(leadership, oldest).await?;
        loop {
            let mut transaction = self.begin(leadership).await?;
            let rows = bind(
                "DELETE FROM runs WHERE id IN (SELECT id FROM runs r WHERE r.due_at < $1 AND r.is_open = 0 \
                 AND COALESCE(r.closed_at, r.recorded_at) < $1 \
                 AND r.trigger_kind <> 'manual' AND (r.consume_when IS NULL OR r.consume_note IS NOT NULL) \
                 AND EXISTS (SELECT 1 FROM runs n WHERE n.schedule = r.schedule AND (n.due_at, n.id) > (r.due_at, r.id)) \
                 ORDER BY r.due_at LIMIT $2) RETURNING id",
                [oldest.into(), BLOCK.into()],
            )
            .fetch_all(transaction.connection())
            .await?;
            let runs = rows.iter().map(|row| Columns::of(row).integer()).collect::<Result<Vec<_>, _>>()?;
            let connection = transaction.connection();
            super::sql::select_in(connection, "DELETE FROM attempts WHERE run_id IN", "", runs.iter().copied()).await?;
            super::sql::select_in(connection, "DELETE FROM timeline WHERE run_id IN", "", runs.iter().copied()).await?;
            let others = bind(
                "DELETE FROM dag_runs WHERE id IN (SELECT id FROM dag_runs WHERE COALESCE(ended_at, first_seen_at) < $1 \
                 AND state NOT IN ('queued', 'running') LIMIT $2)",
                [oldest.into(), BLOCK.into()],
            )
            .execute(transaction.connection())
            .await?
            .rows_affected();
            let others = others + super::health::retain(transaction.connection(), oldest, BLOCK).await?;
            transaction.commit().await?;
            deleted += runs.len() as u64 + others;
            if runs.is_empty() && others == 0 {
                return Ok(deleted);
            }
        }
    }

    /// Deletes parts of Airflows that went before `oldest`, and Airflows that were asked last before it; how many
    /// rows.
    async fn retain_airflows(&self, leadership: &Leadership, oldest: Timestamp) -> Result<u64, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let mut deleted = 0;
        for sql in [
            "DELETE FROM airflow_components WHERE gone_at < $1 OR airflow IN \
             (SELECT airflow FROM airflow_reports WHERE checked_at < $1)",
            "DELETE FROM airflow_reports WHERE checked_at < $1",
        ] {
            deleted += bind(sql, [oldest.into()]).execute(transaction.connection()).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(deleted)
    }

    /// Ends the cursors and the pauses of schedules that have been in no leader's configuration for a day, and the
    /// cursors of triggers that have not.
    pub async fn forget_gone_schedules(&self, leadership: &Leadership) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let before = transaction.at().saturating_sub(GONE_FOR).unwrap_or(Timestamp::MIN);
        for sql in [
            "DELETE FROM znode_cursors WHERE schedule IN (SELECT name FROM schedules WHERE gone_at < $1)",
            "DELETE FROM schedules WHERE gone_at < $1",
            "DELETE FROM resting_cursors WHERE EXISTS (SELECT 1 FROM resting_triggers r WHERE r.schedule = \
             resting_cursors.schedule AND r.trigger_key = resting_cursors.trigger_key AND r.gone_at < $1)",
            "DELETE FROM resting_triggers WHERE gone_at < $1",
        ] {
            bind(sql, [before.into()]).execute(transaction.connection()).await?;
        }
        transaction.commit().await
    }

    /// Keeps the last few decisions of each schedule.
    pub async fn trim_decisions(&self, leadership: &Leadership) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        bind(
            "DELETE FROM decisions WHERE id IN (SELECT id FROM (SELECT id, ROW_NUMBER() OVER (PARTITION BY schedule \
             ORDER BY id DESC) AS age FROM decisions) AS aged WHERE age > $1)",
            [DECISIONS_KEPT.into()],
        )
        .execute(transaction.connection())
        .await?;
        transaction.commit().await
    }
}

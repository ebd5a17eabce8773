//! Counts and percentiles over the runs of a time span, grouped by schedule, DAG or owner.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::model::{Percentiles, Stats, StatsBy};
use super::names::SCHEDULE;
use super::sql::Columns;
use super::{Ledger, StoreError};

impl Ledger {
    /// Counts, success rate and percentiles of each group, over runs due at or after `since`, as of one moment.
    pub async fn stats(&self, by: StatsBy, since: Option<Timestamp>) -> Result<Vec<Stats>, StoreError> {
        let group = match by {
            // Not the columns by themselves: SQLite would read all of their index, whatever `since` is, to have
            // the groups together.
            StatsBy::Schedule => SCHEDULE,
            StatsBy::Dag => "COALESCE(dag_id, '')",
            StatsBy::Owner => "COALESCE(owner, '')",
        };
        let since = since.map_or(i64::MIN, Timestamp::as_microsecond);
        let ledger = self.snapshot().await?;
        let counts = ledger
            .fetch(
                format!(
                    "SELECT {group}, state, CAST(SUM(occurrences) AS BIGINT) FROM runs WHERE due_at >= $1 GROUP BY 1, 2"
                ),
                [since.into()],
            )
            .await?;
        let mut groups: BTreeMap<String, Stats> = BTreeMap::new();
        for row in &counts {
            let mut columns = Columns::of(row);
            let group = columns.text()?;
            let stats = groups.entry(group.clone()).or_insert_with(|| Stats {
                group,
                occurrences: 0,
                states: BTreeMap::new(),
                success_rate: None,
                lateness_ms: Percentiles::default(),
                duration_ms: Percentiles::default(),
            });
            let (word, count) = (columns.text()?, columns.integer()?);
            stats.occurrences += count;
            stats.states.insert(word, count);
        }
        for stats in groups.values_mut() {
            stats.success_rate = success_rate(&stats.states);
        }
        let lateness = ledger.percentiles(group, "submitted_at - due_at", "submitted_at IS NOT NULL", since).await?;
        let duration = ledger.percentiles(
            group,
            "ended_at - started_at",
            "ended_at IS NOT NULL AND started_at IS NOT NULL",
            since,
        );
        let duration = duration.await?;
        for (name, stats) in &mut groups {
            stats.lateness_ms = lateness.get(name).copied().unwrap_or_default();
            stats.duration_ms = duration.get(name).copied().unwrap_or_default();
        }
        Ok(groups.into_values().collect())
    }

    /// Nearest-rank percentiles of an expression in microseconds, in milliseconds.
    async fn percentiles(
        &self,
        group: &str,
        expression: &str,
        condition: &str,
        since: i64,
    ) -> Result<BTreeMap<String, Percentiles>, StoreError> {
        let sql = format!(
            "SELECT g, total, x FROM (SELECT {group} AS g, {expression} AS x, \
             ROW_NUMBER() OVER (PARTITION BY {group} ORDER BY {expression}) AS rank, \
             COUNT(*) OVER (PARTITION BY {group}) AS total FROM runs WHERE due_at >= $1 AND {condition}) AS ranked \
             WHERE rank IN ((total * 50 + 99) / 100, (total * 95 + 99) / 100, (total * 99 + 99) / 100, total) ORDER BY g, rank"
        );
        let mut values: BTreeMap<String, (i64, Vec<i64>)> = BTreeMap::new();
        for row in &self.fetch(sql, [since.into()]).await? {
            let mut columns = Columns::of(row);
            let (group, total) = (columns.text()?, columns.integer()?);
            values.entry(group).or_insert((total, Vec::new())).1.push(columns.integer()? / 1000);
        }
        Ok(values
            .into_iter()
            .map(|(group, (total, found))| {
                // Ranks that fall together are returned once.
                let mut ranks: Vec<i64> = [50, 95, 99].map(|p| (total * p + 99) / 100).to_vec();
                ranks.push(total);
                let mut distinct = ranks.clone();
                distinct.dedup();
                let at = |rank: i64| distinct.iter().position(|&r| r == rank).and_then(|i| found.get(i)).copied();
                let percentiles = Percentiles {
                    p50: ranks.first().and_then(|&rank| at(rank)),
                    p95: ranks.get(1).and_then(|&rank| at(rank)),
                    p99: ranks.get(2).and_then(|&rank| at(rank)),
                    max: found.last().copied(),
                };
                (group, percentiles)
            })
            .collect())
    }
}

/// Successes among the runs that Airflow has ended.
fn success_rate(states: &BTreeMap<String, i64>) -> Option<f64> {
    let count = |state| states.get(state).copied().unwrap_or_default();
    let (good, bad) = (count("success"), count("failed"));
    #[expect(clippy::cast_precision_loss, reason = "counts of runs stay far below 2^52")]
    (good + bad > 0).then(|| good as f64 / (good + bad) as f64)
}

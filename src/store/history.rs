//! Reading history: pages of runs and of monitored DAG runs, and one run with all that happened to it.
//!
//! Pages are cut by keyset, not by offset: rows that arrive meanwhile neither shift a page nor slow
//! the later ones down.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::AnyRow;

use super::attempts::trigger_kind;
use super::conditions::{Conditions, cursor_of};
use super::error::no_answer;
use super::model::{
    Attempt, Covered, DagRun, DagRunFilter, Lateness, NominalRow, Page, Run, RunFilter, RunLock, TimelineEntry,
};
use super::names::{NamesOfRuns, SCHEDULE};
use super::sql::{Columns, Value};
use super::{Ledger, StoreError};
use crate::domain::occurrence::RUN_ID_PREFIX;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{ScheduleName, TriggerKind};

/// How long a store may take to show that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// What stands behind the number and the schedule of a run.
const RUN_COLUMNS: &str = "owner, airflow, dag_id, dag_run_id, trigger_kind, nominal_time, covers_from, covers_to, \
     occurrences, due_at, recorded_at, submitted_at, accepted_at, started_at, ended_at, state, reason, \
     coalesced, reopened, conf, \
     lock_name, lock_asked_at, lock_held_at, CASE WHEN state = 'pending' AND lock_name IS NOT NULL THEN \
     (SELECT MIN(h.id) FROM runs h WHERE h.is_open = 1 AND h.lock_name IS NOT NULL AND h.lock_name = runs.lock_name \
     AND h.lock_held_at IS NOT NULL AND h.id <> runs.id) END";

/// Reads runs, as [`run`] takes them.
fn select_runs() -> String {
    format!("SELECT id, {SCHEDULE} AS schedule, {RUN_COLUMNS} FROM runs")
}

fn run(row: &AnyRow) -> Result<Run, StoreError> {
    let mut columns = Columns::of(row);
    let mut run = Run {
        id: RunId(columns.integer()?),
        schedule: columns.text()?,
        owner: columns.optional_text()?,
        airflow: columns.text()?,
        dag_id: columns.text()?,
        dag_run_id: columns.text()?,
        trigger: trigger_kind(&columns.text()?)?,
        nominal_time: columns.optional_time()?,
        from: columns.optional_time()?,
        to: columns.optional_time()?,
        count: columns.integer()?,
        due_at: columns.time()?,
        recorded_at: columns.time()?,
        submitted_at: columns.optional_time()?,
        accepted_at: columns.optional_time()?,
        started_at: columns.optional_time()?,
        ended_at: columns.optional_time()?,
        state: columns.state()?,
        reason: columns.optional_text()?,
        hint: None,
        coalesced: columns.integer()?,
        reopened: columns.integer()?,
        conf: serde_json::Value::Null,
        lock: None,
        attempts: Vec::new(),
        timeline: Vec::new(),
        lateness_ms: Lateness::default(),
        duration_ms: None,
    };
    run.conf = serde_json::from_str(&columns.text()?)
        .map_err(|error| StoreError::Corrupt { what: format!("the conf of run {} is not JSON: {error}", run.id) })?;
    run.lock = lock(&mut columns)?;
    if run.state == RunState::Pending && run.reason.is_none() {
        run.reason = run.lock.as_ref().and_then(RunLock::wait);
    }
    let late = |at: Timestamp| at.duration_since(run.due_at).as_millis().try_into().unwrap_or(i64::MAX);
    run.lateness_ms = Lateness {
        record: Some(late(run.recorded_at)),
        submit: run.submitted_at.map(late),
        queue: run.started_at.map(late),
    };
    run.duration_ms = duration_ms(run.started_at, run.ended_at);
    Ok(run)
}

fn lock(columns: &mut Columns<'_>) -> Result<Option<RunLock>, StoreError> {
    let name = columns.optional_text()?;
    let (asked_at, held_at) = (columns.optional_time()?, columns.optional_time()?);
    let waits_for = columns.optional_integer()?.map(RunId);
    Ok(name.map(|name| RunLock { name, asked_at, held_at, waits_for: waits_for.filter(|_| held_at.is_none()) }))
}

fn duration_ms(started_at: Option<Timestamp>, ended_at: Option<Timestamp>) -> Option<i64> {
    ended_at?.duration_since(started_at?).as_millis().try_into().ok()
}

impl Ledger {
    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = self.fetch("SELECT 1", []);
        tokio::time::timeout(PING_TIMEOUT, asked).await.unwrap_or_else(|_| Err(no_answer().into()))?;
        Ok(())
    }

    /// Runs that match, newest first by the time that they came due.
    pub async fn runs(&self, filter: &RunFilter, limit: u32, cursor: Option<&str>) -> Result<Page<Run>, StoreError> {
        // The names first, and with them as of one moment.
        let ledger = if filter.schedule.is_some() { self.snapshot().await? } else { self.clone() };
        let names = match &filter.schedule {
            Some(schedule) => Some(ledger.names_of_runs(schedule).await?),
            None => None,
        };
        let (sql, values) = page_of_runs(filter, names, limit, cursor)?;
        let rows = ledger.fetch(sql, values).await?;
        let items = rows.iter().map(run).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(items, limit, |run| cursor_of(run.due_at, run.id.0)))
    }

    /// One run, by its number or its DAG run id, with its attempts and its timeline, all as of one moment.
    pub async fn run(&self, id: &str) -> Result<Option<Run>, StoreError> {
        let ledger = self.snapshot().await?;
        let (condition, value): (_, Value) = match id.parse::<i64>() {
            Ok(number) if !id.starts_with(RUN_ID_PREFIX) => ("id = $1", number.into()),
            _ => ("dag_run_id = $1", id.into()),
        };
        let rows = ledger.fetch(format!("{} WHERE {condition}", select_runs()), [value]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut run = run(row)?;
        run.attempts = ledger.attempts(run.id).await?;
        run.timeline = ledger.timeline(run.id).await?;
        Ok(Some(run))
    }

    async fn attempts(&self, run: RunId) -> Result<Vec<Attempt>, StoreError> {
        let rows = self.fetch(
            "SELECT number, started_at, ended_at, outcome, http_status, detail FROM attempts WHERE run_id = $1 ORDER BY number",
            [run.0.into()],
        ).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(Attempt {
                    number: columns.integer()?,
                    started_at: columns.time()?,
                    ended_at: columns.time()?,
                    outcome: columns.text()?,
                    http_status: columns.optional_integer()?.and_then(|status| status.try_into().ok()),
                    detail: columns.optional_text()?,
                })
            })
            .collect()
    }

    async fn timeline(&self, run: RunId) -> Result<Vec<TimelineEntry>, StoreError> {
        let rows =
            self.fetch("SELECT at, state, reason FROM timeline WHERE run_id = $1 ORDER BY id", [run.0.into()]).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(TimelineEntry { at: columns.time()?, state: columns.state()?, reason: columns.optional_text()? })
            })
            .collect()
    }

    /// The newest run of each of these schedules that has one, by the time that it came due.
    pub async fn last_runs_of(&self, schedules: &[ScheduleName]) -> Result<HashMap<String, Run>, StoreError> {
        // One probe of an index a schedule, however long its history is. What has still to follow to another name is
        // older than all that has followed.
        let head = format!(
            "{} WHERE id IN (SELECT (SELECT r.id FROM runs r WHERE r.schedule = s.name \
             AND r.id > COALESCE((SELECT o.last_run FROM renames o WHERE o.old_name = s.name), 0) \
             ORDER BY r.due_at DESC, r.id DESC LIMIT 1) FROM schedules s WHERE s.name IN",
            select_runs()
        );
        let rows = self.fetch_in(&head, ")", schedules.iter().map(ScheduleName::as_str)).await?;
        rows.iter().map(|row| run(row).map(|run| (run.schedule.clone(), run))).collect()
    }

    /// The cron rows of a schedule that cover a nominal time from `from` to `to`, both included, as of one
    /// moment: history that follows a rename is found under one name, whenever that is.
    pub async fn nominal_rows(
        &self,
        schedule: &ScheduleName,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<NominalRow>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("trigger_kind = ?", TriggerKind::Cron.as_str());
        conditions.add("nominal_time >= ?", from);
        conditions.add("COALESCE(covers_from, nominal_time) <= ?", to);
        let columns = "id, dag_run_id, owner, state, nominal_time, covers_from, covers_to, occurrences";
        let select = |clause: &str| format!("SELECT {columns} FROM runs {clause}");
        let ledger = self.snapshot().await?;
        let names = ledger.names_of_runs(schedule.as_str()).await?;
        let (sql, values) = names.select(conditions, select, "ORDER BY nominal_time");
        let rows = ledger.fetch(sql, values).await?;
        let rows = rows.iter().map(|row| {
            let mut columns = Columns::of(row);
            let (id, dag_run_id) = (RunId(columns.integer()?), columns.text()?);
            let (owner, state, nominal_time) = (columns.optional_text()?, columns.state()?, columns.time()?);
            let span = columns.optional_time()?.zip(columns.optional_time()?);
            let count = columns.integer()?;
            let covers = span.map(|(from, to)| Covered { from, to, count });
            Ok(NominalRow { id, dag_run_id, owner, state, nominal_time, covers })
        });
        rows.collect()
    }

    /// Monitored DAG runs that match, newest first by when they were first seen.
    pub async fn dag_runs(
        &self,
        filter: &DagRunFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<DagRun>, StoreError> {
        let (sql, values) = page_of_dag_runs(filter, limit, cursor)?;
        let rows = self.fetch(sql, values).await?;
        let items = rows.iter().map(|row| {
            let mut columns = Columns::of(row);
            let id = columns.integer()?;
            let mut dag_run = DagRun {
                airflow: columns.text()?,
                dag_id: columns.text()?,
                dag_run_id: columns.text()?,
                state: columns.state()?,
                run_type: columns.optional_text()?,
                logical_date: columns.optional_time()?,
                started_at: columns.optional_time()?,
                ended_at: columns.optional_time()?,
                duration_ms: None,
                first_seen_at: columns.time()?,
                run: columns.optional_integer()?.map(RunId),
            };
            dag_run.duration_ms = duration_ms(dag_run.started_at, dag_run.ended_at);
            Ok((id, dag_run))
        });
        let items = items.collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Page::cut(items, limit, |(id, dag_run)| cursor_of(dag_run.first_seen_at, *id)).map(|(_, dag_run)| dag_run))
    }

    /// How many rows each Airflow has that are not over.
    pub async fn open_counts(&self) -> Result<Vec<(String, usize)>, StoreError> {
        let rows = self
            .fetch("SELECT airflow, COUNT(*) FROM runs WHERE is_open = 1 AND state <> 'pending' GROUP BY airflow", [])
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok((columns.text()?, usize::try_from(columns.integer()?).unwrap_or_default()))
            })
            .collect()
    }
}

/// The statement for a page of runs and one row more, and its values. `names` has those under which the schedule
/// that is asked for has runs.
pub(super) fn page_of_runs(
    filter: &RunFilter,
    names: Option<NamesOfRuns>,
    limit: u32,
    cursor: Option<&str>,
) -> Result<(String, Vec<Value>), StoreError> {
    let mut conditions = Conditions::default();
    if let Some(cursor) = cursor {
        conditions.add_keyset("due_at", cursor)?;
    }
    let narrow = [("dag_id = ?", &filter.dag_id), ("owner = ?", &filter.owner)];
    for (condition, value) in narrow {
        if let Some(value) = value {
            conditions.add(condition, value.as_str());
        }
    }
    if let Some(since) = filter.since {
        conditions.add("due_at >= ?", since);
    }
    if let Some(until) = filter.until {
        conditions.add("due_at < ?", until);
    }
    // Most runs succeed, so an index by state would lead past those of all others. SQLite keeps no statistics
    // that tell it so.
    let is_narrow = names.is_some() || narrow.iter().any(|(_, value)| value.is_some());
    let by_state = !is_narrow || !filter.states.contains(&RunState::Success);
    conditions.add_states(if by_state { "state" } else { "COALESCE(state, '')" }, &filter.states);
    let order = format!("ORDER BY due_at DESC, id DESC LIMIT {}", i64::from(limit) + 1);
    let select = |clause: &str| format!("{} {clause}", select_runs());
    Ok(match names {
        Some(names) => names.select(conditions, select, &order),
        None => (format!("{} {order}", select(conditions.text())), conditions.into_values()),
    })
}

/// The statement for a page of monitored DAG runs and one row more, and its values.
pub(super) fn page_of_dag_runs(
    filter: &DagRunFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Result<(String, Vec<Value>), StoreError> {
    let mut conditions = Conditions::default();
    if let Some(cursor) = cursor {
        conditions.add_keyset("first_seen_at", cursor)?;
    }
    if let Some(airflow) = &filter.airflow {
        conditions.add("airflow = ?", airflow.as_str());
    }
    if let Some(dag_id) = &filter.dag_id {
        conditions.add("dag_id = ?", dag_id.as_str());
    }
    if let Some(since) = filter.since {
        conditions.add("first_seen_at >= ?", since);
    }
    if let Some(until) = filter.until {
        conditions.add("first_seen_at < ?", until);
    }
    conditions.add_states("state", &filter.states);
    let sql = format!(
        "SELECT id, airflow, dag_id, dag_run_id, state, run_type, logical_date, started_at, ended_at, first_seen_at, \
         (SELECT r.id FROM runs r WHERE r.dag_run_id = dag_runs.dag_run_id AND r.airflow = dag_runs.airflow) AS recorded_as \
         FROM dag_runs {} ORDER BY first_seen_at DESC, id DESC LIMIT {}",
        conditions.text(),
        i64::from(limit) + 1
    );
    Ok((sql, conditions.into_values()))
}

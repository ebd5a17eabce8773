//! Recording how requests to Airflow ended, and the rows that the dispatcher starts from.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::value::RawValue;
use sqlx::AnyConnection;

use super::model::{AttemptOutcome, AttemptRecord, Ticket};
use super::names::{SCHEDULE, take_along};
use super::record::note_moves;
use super::sql::{Columns, bulk, select_in};
use super::writer::{Changes, Move};
use super::{Ledger, StoreError};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{ScheduleName, TriggerKind};

/// Records all of them and moves their runs.
pub(super) async fn record(
    connection: &mut AnyConnection,
    at: Timestamp,
    attempts: &[&AttemptRecord],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    if attempts.is_empty() {
        return Ok(());
    }
    let rows = attempts
        .iter()
        .map(|attempt| {
            vec![
                attempt.run.0.into(),
                attempt.number.into(),
                attempt.started_at.into(),
                attempt.ended_at.into(),
                attempt.outcome.as_str().into(),
                attempt.http_status.map(i64::from).into(),
                attempt.detail.clone().into(),
            ]
        })
        .collect();
    bulk(
        connection,
        "INSERT INTO attempts (run_id, number, started_at, ended_at, outcome, http_status, detail) VALUES ",
        // A repeated write after an unanswered commit.
        " ON CONFLICT (run_id, number) DO NOTHING",
        &[],
        rows,
    )
    .await?;

    let known = moves_of(connection, attempts.iter().map(|attempt| attempt.run.0)).await?;
    let mut rows = Vec::with_capacity(attempts.len());
    let mut moves = Vec::new();
    for attempt in attempts {
        let Some(row) = known.get(&attempt.run.0) else { continue };
        let next = next_state(row.state, &attempt.outcome);
        let (not_before, lookup_only) = match attempt.outcome {
            AttemptOutcome::Retry { at } => (Some(at), false),
            AttemptOutcome::Unknown { at } => (Some(at), true),
            AttemptOutcome::Accepted(_) | AttemptOutcome::Rejected => (None, false),
        };
        let accepted = matches!(attempt.outcome, AttemptOutcome::Accepted(_)).then_some(attempt.ended_at);
        let closed = (!next.is_open() && row.state.is_open()).then_some(at);
        // A row that waits says why; one that Airflow has needs no reason.
        let reason = if next.is_open() && accepted.is_some() { None } else { attempt.detail.clone() };
        rows.push(vec![
            attempt.run.0.into(),
            attempt.number.into(),
            attempt.started_at.into(),
            accepted.into(),
            closed.into(),
            next.as_str().into(),
            next.is_open().into(),
            reason.clone().into(),
            not_before.into(),
            lookup_only.into(),
        ]);
        if next != row.state {
            moves.push(Move {
                run: row.run,
                schedule: row.schedule.clone(),
                airflow: row.airflow.clone(),
                dag_id: row.dag_id.clone(),
                dag_run_id: row.dag_run_id.clone(),
                state: next,
                reason,
            });
        }
    }
    bulk(
        connection,
        "UPDATE runs SET attempts = v.column2, submitted_at = COALESCE(submitted_at, v.column3), \
         accepted_at = COALESCE(accepted_at, v.column4), closed_at = COALESCE(v.column5, closed_at), \
         state = v.column6, is_open = v.column7, \
         reason = CASE WHEN v.column6 IN ('pending', 'rejected', 'queued', 'running') THEN v.column8 ELSE reason END, \
         not_before = v.column9, lookup_only = v.column10 FROM (VALUES ",
        ") AS v WHERE runs.id = v.column1",
        &["BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "TEXT", "BIGINT", "TEXT", "BIGINT", "BIGINT"],
        rows,
    )
    .await?;
    let again = moves.iter().filter(|to| known.get(&to.run.0).is_some_and(|row| row.state.reopens(to.state)));
    take_along(connection, again.map(|to| to.run.0)).await?;
    note_moves(connection, at, &moves).await?;
    changes.moves.extend(moves);
    Ok(())
}

/// What an answer makes of a row.
///
/// The answer to a request may be older than what the monitor has seen since, so an acceptance
/// moves only rows that are not yet known to be in Airflow. A row that was given up while its
/// request was under way is taken up again when Airflow did accept it.
fn next_state(state: RunState, outcome: &AttemptOutcome) -> RunState {
    match outcome {
        AttemptOutcome::Accepted(seen) if !state.was_accepted() => seen.as_run_state(),
        AttemptOutcome::Rejected if state == RunState::Pending => RunState::Rejected,
        _ => state,
    }
}

/// The present state and identity of rows, by number.
pub(super) async fn moves_of(
    connection: &mut AnyConnection,
    runs: impl Iterator<Item = i64>,
) -> Result<HashMap<i64, Move>, StoreError> {
    let rows = select_in(
        connection,
        &format!("SELECT id, {SCHEDULE}, airflow, dag_id, dag_run_id, state, reason FROM runs WHERE id IN"),
        "",
        runs,
    )
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::of(row);
            let id = columns.integer()?;
            Ok((
                id,
                Move {
                    run: RunId(id),
                    schedule: columns.text()?,
                    airflow: columns.text()?,
                    dag_id: columns.text()?,
                    dag_run_id: columns.text()?,
                    state: columns.state()?,
                    reason: columns.optional_text()?,
                },
            ))
        })
        .collect()
}

/// The columns of a [`Ticket`], in the order that [`ticket`] reads them.
pub(super) const TICKET_COLUMNS: &str = "id, schedule, airflow, dag_id, dag_run_id, trigger_kind, due_at, conf, logical_date, \
     interval_start, interval_end, attempts, submitted_at, not_before, lookup_only, lock_name";

pub(super) fn ticket(row: &sqlx::any::AnyRow) -> Result<Ticket, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Ticket {
        id: RunId(columns.integer()?),
        schedule: columns.schedule()?,
        airflow: columns.text()?,
        dag_id: columns.text()?,
        dag_run_id: columns.text()?,
        trigger: trigger_kind(&columns.text()?)?,
        due_at: columns.time()?,
        conf: raw_json(columns.text()?)?,
        logical_date: columns.optional_time()?,
        data_interval: columns.optional_time()?.zip(columns.optional_time()?),
        attempts: columns.integer()?,
        first_attempt_at: columns.optional_time()?,
        not_before: columns.optional_time()?,
        lookup_only: columns.boolean()?,
        lock: columns.optional_text()?.map(Into::into),
    })
}

pub(super) fn trigger_kind(text: &str) -> Result<TriggerKind, StoreError> {
    TriggerKind::parse(text).ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is not a trigger") })
}

pub(super) fn raw_json(text: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(text).map_err(|error| StoreError::Corrupt { what: format!("a conf is not JSON: {error}") })
}

/// An open run that Airflow already has; it takes part in the overlap policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRun {
    /// The row.
    pub id: RunId,
    /// Its schedule.
    pub schedule: ScheduleName,
    /// Which Airflow.
    pub airflow: String,
    /// Its DAG.
    pub dag_id: String,
    /// The DAG run's id.
    pub dag_run_id: String,
}

impl Ledger {
    /// Every row that waits to be accepted, oldest first, `limit` after the row `after`; of one
    /// schedule or of all.
    pub async fn pending(&self, schedule: Option<&str>, after: RunId, limit: u32) -> Result<Vec<Ticket>, StoreError> {
        let condition = if schedule.is_some() { "AND schedule = $3" } else { "" };
        let sql = format!(
            "SELECT {TICKET_COLUMNS} FROM runs WHERE is_open = 1 AND state = 'pending' AND id > $1 {condition} ORDER BY id LIMIT $2"
        );
        let values = [after.0.into(), i64::from(limit).into()].into_iter().chain(schedule.map(Into::into));
        let rows = self.fetch(sql, values).await?;
        rows.iter().map(ticket).collect()
    }

    /// Those of these rows that wait no more, with their states: they were given up, or Airflow has or
    /// had them.
    pub async fn not_pending(&self, runs: &[RunId]) -> Result<HashMap<RunId, RunState>, StoreError> {
        let head = "SELECT id, state FROM runs WHERE state <> 'pending' AND id IN";
        let rows = self.fetch_in(head, "", runs.iter().map(|run| run.0)).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok((RunId(columns.integer()?), columns.state()?))
            })
            .collect()
    }

    /// Every open row that Airflow already has.
    pub async fn active(&self) -> Result<Vec<ActiveRun>, StoreError> {
        let rows = self.fetch(
            "SELECT id, schedule, airflow, dag_id, dag_run_id FROM runs WHERE is_open = 1 AND state <> 'pending' ORDER BY id", []).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(ActiveRun {
                    id: RunId(columns.integer()?),
                    schedule: columns.schedule()?,
                    airflow: columns.text()?,
                    dag_id: columns.text()?,
                    dag_run_id: columns.text()?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::AirflowState as A;
    use RunState as R;

    #[test]
    fn an_answer_moves_only_rows_that_airflow_is_not_known_to_have() {
        let later = AttemptOutcome::Retry { at: Timestamp::UNIX_EPOCH };
        let cases = [
            (R::Pending, AttemptOutcome::Accepted(A::Queued), R::Queued),
            (R::Pending, AttemptOutcome::Accepted(A::Success), R::Success),
            // The monitor was quicker.
            (R::Running, AttemptOutcome::Accepted(A::Queued), R::Running),
            (R::Success, AttemptOutcome::Accepted(A::Queued), R::Success),
            // Cancelled while the request was under way.
            (R::Skipped, AttemptOutcome::Accepted(A::Queued), R::Queued),
            (R::Pending, AttemptOutcome::Rejected, R::Rejected),
            (R::Skipped, AttemptOutcome::Rejected, R::Skipped),
            (R::Pending, later.clone(), R::Pending),
            (R::Queued, later, R::Queued),
        ];
        for (from, outcome, expected) in cases {
            assert_eq!(next_state(from, &outcome), expected, "{from} after {outcome:?}");
        }
    }
}

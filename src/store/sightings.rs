//! Recording what Airflow's lists show.
//!
//! A DAG run of ours that is met moves its row wherever it leads, and is entered when the row is
//! missing (the ledger was restored from a copy). Only a note with this store's id makes it ours:
//! another flowkeeper may use the same names on the same Airflow.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::value::RawValue;
use sqlx::AnyConnection;

use super::model::{NewRun, OpenRun, Sighting};
use super::names::{SCHEDULE, take_along};
use super::record::{columns, insert_rows, note_moves};
use super::sql::{Columns, Value, bind, bulk, select_in};
use super::writer::{Changes, Move};
use super::{Leadership, Ledger, StoreError};
use crate::domain::note;
use crate::domain::occurrence::{kind_of, nominal_time_of, schedule_of};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::Overlap;

/// The reason in the timeline of a row that was made from Airflow's list.
const RESTORED_REASON: &str = "met in Airflow; this ledger had no row for it";

/// A row as far as a sighting is concerned.
struct Row {
    id: i64,
    schedule: String,
    dag_id: String,
    state: RunState,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

pub(super) async fn record(
    connection: &mut AnyConnection,
    at: Timestamp,
    store_id: &str,
    airflow: &str,
    sightings: &[Sighting],
    watermark: Option<Timestamp>,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let ours: Vec<_> = sightings.iter().filter(|seen| schedule_of(&seen.dag_run_id).is_some()).collect();
    enter_missing(connection, at, store_id, airflow, &ours, changes).await?;
    follow(connection, at, store_id, airflow, &ours, changes).await?;
    keep(connection, at, airflow, sightings).await?;
    if let Some(watermark) = watermark {
        bind(
            "INSERT INTO airflows (name, watermark) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE \
             SET watermark = excluded.watermark WHERE airflows.watermark < excluded.watermark",
            [airflow.into(), watermark.into()],
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn rows_of(
    connection: &mut AnyConnection,
    airflow: &str,
    ids: impl Iterator<Item = &str>,
) -> Result<HashMap<String, Row>, StoreError> {
    let rows = select_in(
        connection,
        &format!(
            "SELECT dag_run_id, airflow, id, {SCHEDULE}, dag_id, state, started_at, ended_at FROM runs \
             WHERE dag_run_id IN"
        ),
        "",
        ids,
    )
    .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in &rows {
        let mut columns = Columns::of(row);
        let (dag_run_id, held_by) = (columns.text()?, columns.text()?);
        if held_by != airflow {
            continue;
        }
        let row = Row {
            id: columns.integer()?,
            schedule: columns.text()?,
            dag_id: columns.text()?,
            state: columns.state()?,
            started_at: columns.optional_time()?,
            ended_at: columns.optional_time()?,
        };
        known.insert(dag_run_id, row);
    }
    Ok(known)
}

/// Moves the rows of the DAG runs that were seen.
async fn follow(
    connection: &mut AnyConnection,
    at: Timestamp,
    store_id: &str,
    airflow: &str,
    ours: &[&Sighting],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let known = rows_of(connection, airflow, ours.iter().map(|seen| seen.dag_run_id.as_str())).await?;
    let mut updates: HashMap<i64, Vec<Value>> = HashMap::new();
    let (mut moves, mut again) = (Vec::new(), Vec::new());
    for seen in ours {
        let Some(row) = known.get(&seen.dag_run_id).filter(|row| row.dag_id == seen.dag_id) else { continue };
        // A row that Airflow is not known to have may meet a DAG run that another flowkeeper made under
        // the same id; only a note of ours tells them apart.
        if !row.state.was_accepted() && !note::is_ours(seen.note.as_deref(), store_id) {
            continue;
        }
        let next = row.state.after_seeing(seen.state);
        // While a DAG run is not over, its end is that of an earlier life.
        let ended_at = seen.ended_at.filter(|_| !seen.state.as_run_state().is_open());
        if next.is_none() && row.started_at == seen.started_at && row.ended_at == ended_at {
            continue;
        }
        let lived_again = lived_again(row, seen);
        let end = next.or_else(|| lived_again.then_some(row.state));
        let state = next.unwrap_or(row.state);
        if !row.state.is_open() && state.is_open() {
            again.push(row.id);
        }
        updates.insert(
            row.id,
            vec![
                row.id.into(),
                state.as_str().into(),
                state.is_open().into(),
                i64::from(lived_again || next.is_some_and(|next| row.state.reopens(next))).into(),
                at.into(),
                seen.started_at.into(),
                ended_at.into(),
                (end.is_some() && !state.is_open()).then_some(at).into(),
            ],
        );
        if let Some((started_at, ended_at)) = seen.started_at.zip(ended_at).filter(|_| end.is_some()) {
            let took = ended_at.duration_since(started_at);
            crate::metrics::run_ended(state, took.try_into().unwrap_or_default());
        }
        if let Some(state) = end {
            moves.push(Move {
                run: RunId(row.id),
                schedule: row.schedule.clone(),
                airflow: airflow.to_owned(),
                dag_id: row.dag_id.clone(),
                dag_run_id: seen.dag_run_id.clone(),
                state,
                reason: None,
            });
        }
    }
    bulk(
        connection,
        "UPDATE runs SET state = v.column2, is_open = v.column3, reopened = reopened + v.column4, \
         accepted_at = COALESCE(accepted_at, v.column5), submitted_at = COALESCE(submitted_at, v.column5), \
         started_at = v.column6, ended_at = v.column7, closed_at = COALESCE(v.column8, closed_at), \
         reason = NULL, not_before = NULL, lookup_only = 0 FROM (VALUES ",
        ") AS v WHERE runs.id = v.column1",
        &["BIGINT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT", "BIGINT"],
        updates.into_values().collect(),
    )
    .await?;
    take_along(connection, again.into_iter()).await?;
    note_moves(connection, at, &moves).await?;
    changes.moves.extend(moves);
    Ok(())
}

/// Whether a DAG run was cleared and ended again between two looks: it began after the end that the
/// row knows. One that somebody only marked keeps its beginning.
fn lived_again(row: &Row, seen: &Sighting) -> bool {
    let both_over = !row.state.is_open() && !seen.state.as_run_state().is_open();
    both_over && row.ended_at.zip(seen.started_at).is_some_and(|(ended, started)| started >= ended)
}

/// Enters DAG runs that carry our note and have no row.
async fn enter_missing(
    connection: &mut AnyConnection,
    at: Timestamp,
    store_id: &str,
    airflow: &str,
    ours: &[&Sighting],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let marked: Vec<_> = ours.iter().filter(|seen| note::is_ours(seen.note.as_deref(), store_id)).collect();
    if marked.is_empty() {
        return Ok(());
    }
    let known = select_in(
        connection,
        "SELECT dag_run_id FROM runs WHERE dag_run_id IN",
        "",
        marked.iter().map(|seen| seen.dag_run_id.as_str()),
    )
    .await?;
    let known: std::collections::HashSet<String> =
        known.iter().map(|row| Columns::of(row).text()).collect::<Result<_, _>>()?;
    for seen in marked.into_iter().filter(|seen| !known.contains(&seen.dag_run_id)) {
        let Some(run) = restored(airflow, seen, at) else { continue };
        let inserted = insert_rows(connection, vec![columns(&run, at)]).await?;
        let Some(number) = inserted.into_values().next() else { continue };
        // Airflow has it, so it was accepted, whatever becomes of it.
        bind(
            "UPDATE runs SET submitted_at = $1, accepted_at = $1 WHERE id = $2".to_owned(),
            [seen.queued_at.unwrap_or(at).into(), number.into()],
        )
        .execute(&mut *connection)
        .await?;
        let entered = Move {
            run: RunId(number),
            schedule: run.schedule.to_string(),
            airflow: airflow.to_owned(),
            dag_id: run.dag_id.clone(),
            dag_run_id: run.dag_run_id.clone(),
            state: run.state,
            reason: Some(RESTORED_REASON.to_owned()),
        };
        note_moves(connection, at, std::slice::from_ref(&entered)).await?;
        changes.moves.push(entered);
    }
    Ok(())
}

/// The row that a DAG run of ours must once have had, as far as Airflow can tell.
fn restored(airflow: &str, seen: &Sighting, at: Timestamp) -> Option<NewRun> {
    let schedule = schedule_of(&seen.dag_run_id)?;
    let nominal_time = nominal_time_of(&seen.dag_run_id);
    let conf = seen.conf.clone().or_else(|| RawValue::from_string("{}".to_owned()).ok())?;
    Some(NewRun {
        schedule,
        owner: None,
        airflow: airflow.to_owned(),
        dag_id: seen.dag_id.clone(),
        dag_run_id: seen.dag_run_id.clone(),
        trigger: kind_of(&seen.dag_run_id)?,
        nominal_time,
        due_at: nominal_time.or(seen.queued_at).unwrap_or(at),
        covers: None,
        state: RunState::Queued,
        reason: None,
        coalesced: 0,
        conf,
        logical_date: seen.logical_date,
        data_interval: None,
        overlap: Overlap::Allow,
        consume: None,
        // Airflow does not say which lock it owned, and runs it anyway.
        lock: None,
    })
}

/// Keeps the DAG runs that are followed whoever triggered them.
async fn keep(
    connection: &mut AnyConnection,
    at: Timestamp,
    airflow: &str,
    sightings: &[Sighting],
) -> Result<(), StoreError> {
    let mut rows: HashMap<(&str, &str), Vec<Value>> = HashMap::new();
    for seen in sightings.iter().filter(|seen| seen.keep) {
        rows.insert(
            (&seen.dag_id, &seen.dag_run_id),
            vec![
                airflow.into(),
                seen.dag_id.as_str().into(),
                seen.dag_run_id.as_str().into(),
                seen.state.as_run_state().as_str().into(),
                seen.run_type.clone().into(),
                seen.logical_date.into(),
                seen.started_at.into(),
                seen.ended_at.into(),
                at.into(),
            ],
        );
    }
    bulk(
        connection,
        "INSERT INTO dag_runs (airflow, dag_id, dag_run_id, state, run_type, logical_date, started_at, ended_at, \
         first_seen_at) VALUES ",
        " ON CONFLICT (airflow, dag_id, dag_run_id) DO UPDATE SET state = excluded.state, run_type = excluded.run_type, \
         logical_date = excluded.logical_date, started_at = excluded.started_at, ended_at = excluded.ended_at",
        &[],
        rows.into_values().collect(),
    )
    .await?;
    Ok(())
}

impl Ledger {
    /// The rows that Airflow has and that are not over, oldest first.
    pub async fn open_runs(&self, airflow: &str) -> Result<Vec<OpenRun>, StoreError> {
        let rows = self
            .fetch(
                "SELECT id, schedule, dag_id, dag_run_id, state FROM runs WHERE is_open = 1 AND airflow = $1 \
             AND state <> 'pending' ORDER BY id",
                [airflow.into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(OpenRun {
                    id: RunId(columns.integer()?),
                    schedule: columns.schedule()?,
                    dag_id: columns.text()?,
                    dag_run_id: columns.text()?,
                    state: columns.state()?,
                })
            })
            .collect()
    }

    /// Whether Airflow has a row that is not over.
    pub async fn has_open_runs(&self, airflow: &str) -> Result<bool, StoreError> {
        let rows =
            self.fetch("SELECT id FROM runs WHERE is_open = 1 AND airflow = $1 LIMIT 1", [airflow.into()]).await?;
        Ok(!rows.is_empty())
    }

    /// How far the list of this Airflow's DAG runs has been read.
    pub async fn watermark(&self, airflow: &str) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.fetch("SELECT watermark FROM airflows WHERE name = $1", [airflow.into()]).await?;
        rows.first().map(|row| Columns::of(row).time()).transpose()
    }

    /// Closes a run whose DAG run is proven to be gone: a 404 on reading it.
    pub async fn mark_removed(&self, leadership: &Leadership, run: RunId, reason: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let known = super::attempts::moves_of(transaction.connection(), std::iter::once(run.0)).await?;
        if let Some(row) = known.into_values().next().filter(|row| row.state.is_open()) {
            let removed = Move { state: RunState::Removed, reason: Some(reason.to_owned()), ..row };
            let at = transaction.at();
            super::record::close(transaction.connection(), at, &removed).await?;
            transaction.moved(removed);
        }
        transaction.commit().await
    }
}

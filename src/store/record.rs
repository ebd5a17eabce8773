//! Recording occurrences: runs, cursors and decisions of any number of triggers at once.
//!
//! The overlap policy `skip` is judged here, inside the transaction, since only here is it certain
//! which runs are open. Occurrences that end alike without a run share a row.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use sqlx::AnyConnection;

use super::StoreError;
use super::conditions::Conditions;
use super::model::{Covered, CursorMove, NewRun, RecordedRun, Recording, Ticket};
use super::names::{self, SCHEDULE};
use super::paths;
use super::sql::{Columns, Value, bind, bulk, select_in};
use super::writer::{Changes, Move};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{Consume, Overlap, TriggerKind};
use crate::metrics::LatenessStep;

const INSERT_RUNS: &str = "INSERT INTO runs (schedule, owner, airflow, dag_id, dag_run_id, trigger_kind, nominal_time, \
     covers_from, covers_to, occurrences, due_at, recorded_at, closed_at, state, is_open, reason, coalesced, reopened, \
     conf, logical_date, interval_start, interval_end, attempts, lookup_only, consume_when, consume_ensemble, \
     consume_path, consume_czxid, lock_name) VALUES ";

/// The reason of a run that `overlap = "skip"` turned down; one text, so that neighbours share a row.
pub(super) const OVERLAP_REASON: &str = "an earlier run of this schedule was still open (overlap = \"skip\")";

/// The reason of a waiting run that a newer one replaced.
const REPLACED_REASON: &str = "a newer occurrence took its place in the queue";

/// The reason of a run that a shadow recorded.
const SHADOW_REASON: &str = "recorded by a shadow member, which submits nothing";

/// Records all of it; an answer for each recording, in order.
pub(super) async fn record(
    connection: &mut AnyConnection,
    at: Timestamp,
    recordings: &[&Recording],
    shadow: bool,
    changes: &mut Changes,
) -> Result<Vec<Result<Vec<RecordedRun>, StoreError>>, StoreError> {
    if recordings.is_empty() {
        return Ok(Vec::new());
    }
    let mut runs: Vec<NewRun> = recordings.iter().flat_map(|recording| recording.runs.iter().cloned()).collect();
    if shadow {
        for run in runs.iter_mut().filter(|run| run.state == RunState::Pending) {
            run.state = RunState::Skipped;
            run.reason = Some(SHADOW_REASON.to_owned());
            run.consume = None;
        }
    }
    judge_overlap(connection, &mut runs).await?;
    let recorded = insert(connection, at, &runs, changes).await?;
    replace_waiting(connection, at, &runs, changes).await?;
    move_cursors(connection, recordings).await?;
    note_decisions(connection, recordings).await?;

    let mut recorded = recorded.into_iter();
    Ok(recordings.iter().map(|recording| recorded.by_ref().take(recording.runs.len()).collect()).collect())
}

/// Turns down pending runs of schedules with `overlap = "skip"` that have an open run.
async fn judge_overlap(connection: &mut AnyConnection, runs: &mut [NewRun]) -> Result<(), StoreError> {
    let judged = |run: &NewRun| run.state == RunState::Pending && run.overlap == Overlap::Skip;
    let schedules: BTreeSet<&str> = runs.iter().filter(|run| judged(run)).map(|run| run.schedule.as_str()).collect();
    if schedules.is_empty() {
        return Ok(());
    }
    let rows =
        select_in(connection, "SELECT DISTINCT schedule FROM runs WHERE is_open = 1 AND schedule IN", "", schedules)
            .await?;
    let mut open: HashSet<String> = rows.iter().map(|row| Columns::of(row).text()).collect::<Result<_, _>>()?;
    for run in runs.iter_mut().filter(|run| judged(run)) {
        if !open.insert(run.schedule.as_str().to_owned()) {
            run.state = RunState::Skipped;
            run.reason = Some(OVERLAP_REASON.to_owned());
        }
    }
    Ok(())
}

/// Inserts the rows, or finds those that were recorded before.
async fn insert(
    connection: &mut AnyConnection,
    at: Timestamp,
    runs: &[NewRun],
    changes: &mut Changes,
) -> Result<Vec<Result<RecordedRun, StoreError>>, StoreError> {
    let covered = covered_before(connection, runs).await?;
    let merges = |run: &NewRun| matches!(run.state, RunState::Skipped | RunState::Missed) && run.nominal_time.is_some();
    let single: Vec<_> = runs
        .iter()
        .filter(|run| !merges(run) && !covered.contains_key(&run.dag_run_id))
        .map(|run| columns(run, at))
        .collect();
    let mut numbers = insert_rows(connection, single).await?;
    for run in runs.iter().filter(|run| merges(run) && !covered.contains_key(&run.dag_run_id)) {
        let number = match extend_latest(connection, run).await? {
            Some(number) => Some((run.dag_run_id.clone(), number)),
            None => insert_rows(connection, vec![columns(run, at)]).await?.into_iter().next(),
        };
        numbers.extend(number);
    }
    let met: BTreeSet<&str> = runs
        .iter()
        .map(|run| run.dag_run_id.as_str())
        .filter(|id| !numbers.contains_key(*id) && !covered.contains_key(*id))
        .collect();
    let mut met = if met.is_empty() { HashMap::new() } else { find_met(connection, met.into_iter()).await? };
    take_on_consumes(connection, runs, &met).await?;
    met.extend(covered);

    let mut taken = HashSet::new();
    Ok(runs
        .iter()
        .map(|run| {
            let fresh = numbers.get(&run.dag_run_id).copied().filter(|number| taken.insert(*number));
            if let Some(number) = fresh {
                changes.moves.push(moved(RunId(number), run));
                let occurrences = run.covers.map_or(1, |covers| covers.count);
                crate::metrics::occurrences_recorded(run.trigger, u64::try_from(occurrences).unwrap_or_default());
                if run.state == RunState::Pending {
                    crate::metrics::lateness(run.trigger, LatenessStep::Record, at.duration_since(run.due_at));
                }
                if run.state == RunState::Pending {
                    changes.tickets.push(ticket(RunId(number), run));
                }
                return Ok(RecordedRun {
                    id: RunId(number),
                    dag_run_id: run.dag_run_id.clone(),
                    state: run.state,
                    fresh: true,
                });
            }
            if let Some(number) = numbers.get(&run.dag_run_id) {
                // Twice in one batch.
                return Ok(RecordedRun {
                    id: RunId(*number),
                    dag_run_id: run.dag_run_id.clone(),
                    state: run.state,
                    fresh: false,
                });
            }
            let known = met.get(&run.dag_run_id).ok_or_else(|| StoreError::Corrupt {
                what: format!("run `{}` is neither new nor known", run.dag_run_id),
            })?;
            known.compare(run)?;
            Ok(RecordedRun { id: known.id, dag_run_id: run.dag_run_id.clone(), state: known.state, fresh: false })
        })
        .collect())
}

/// Nominal times at or before their schedule's cursor that a row of another identity covers already.
///
/// Only a clock that was set back brings such times up again. A row for several has the identity of its last time
/// alone, and one from before a rename that of the name of then.
async fn covered_before(connection: &mut AnyConnection, runs: &[NewRun]) -> Result<HashMap<String, Met>, StoreError> {
    let cron = |run: &&NewRun| run.trigger == TriggerKind::Cron && run.nominal_time.is_some();
    let schedules: BTreeSet<&str> = runs.iter().filter(cron).map(|run| run.schedule.as_str()).collect();
    let mut covered = HashMap::new();
    if schedules.is_empty() {
        return Ok(covered);
    }
    let head = "SELECT name, cron_cursor FROM schedules WHERE name IN";
    let rows = select_in(connection, head, "", schedules).await?;
    let cursors: HashMap<String, Timestamp> = rows
        .iter()
        .map(|row| {
            let mut columns = Columns::of(row);
            Ok((columns.text()?, columns.time()?))
        })
        .collect::<Result<_, StoreError>>()?;
    for run in runs.iter().filter(cron) {
        let repeated = cursors.get(run.schedule.as_str()).is_some_and(|cursor| run.nominal_time <= Some(*cursor));
        if !repeated {
            continue;
        }
        let mut conditions = Conditions::default();
        conditions.add("trigger_kind = ?", TriggerKind::Cron.as_str());
        conditions.add("COALESCE(covers_from, nominal_time) <= ?", run.nominal_time);
        conditions.add("nominal_time >= ?", run.nominal_time);
        conditions.add("dag_run_id <> ?", run.dag_run_id.as_str());
        let names = names::names_of_runs(connection, run.schedule.as_str()).await?;
        let select = |clause: &str| format!("SELECT id, state, trigger_kind, conf FROM runs {clause}");
        let (sql, values) = names.select(conditions, select, "LIMIT 1");
        let rows = bind(sql, values).fetch_all(&mut *connection).await?;
        if let Some(row) = rows.first() {
            let mut columns = Columns::of(row);
            let (id, state) = (RunId(columns.integer()?), columns.state()?);
            let (trigger, conf) = (columns.text()?, columns.text()?);
            let schedule = run.schedule.to_string();
            covered.insert(run.dag_run_id.clone(), Met { id, state, schedule, trigger, conf });
        }
    }
    Ok(covered)
}

/// Inserts the rows that are new; their numbers by identity.
pub(super) async fn insert_rows(
    connection: &mut AnyConnection,
    rows: Vec<Vec<Value>>,
) -> Result<HashMap<String, i64>, StoreError> {
    let inserted =
        bulk(connection, INSERT_RUNS, " ON CONFLICT (dag_run_id) DO NOTHING RETURNING dag_run_id, id", &[], rows)
            .await?;
    inserted
        .iter()
        .map(|row| {
            let mut columns = Columns::of(row);
            Ok((columns.text()?, columns.integer()?))
        })
        .collect()
}

/// A row that was there before.
struct Met {
    id: RunId,
    state: RunState,
    schedule: String,
    trigger: String,
    conf: String,
}

impl Met {
    /// The same identity must mean the same occurrence. A conf may differ where the schedule was
    /// edited in between, but not for a run by hand: there the content is the caller's.
    fn compare(&self, run: &NewRun) -> Result<(), StoreError> {
        let conflict = |what| Err(StoreError::IdentityConflict { dag_run_id: run.dag_run_id.clone(), what });
        if self.schedule != run.schedule.as_str() {
            conflict("schedule")
        } else if self.trigger != run.trigger.as_str() {
            conflict("trigger")
        } else if self.trigger == "manual" && self.conf != run.conf.get() {
            conflict("conf")
        } else {
            Ok(())
        }
    }
}

async fn find_met<'a>(
    connection: &mut AnyConnection,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<String, Met>, StoreError> {
    let rows = select_in(
        connection,
        &format!("SELECT dag_run_id, id, state, {SCHEDULE}, trigger_kind, conf FROM runs WHERE dag_run_id IN"),
        "",
        ids,
    )
    .await?;
    rows.iter()
        .map(|row| {
            let mut columns = Columns::of(row);
            let dag_run_id = columns.text()?;
            let id = RunId(columns.integer()?);
            let state = columns.state()?;
            let (schedule, trigger, conf) = (columns.text()?, columns.text()?, columns.text()?);
            Ok((dag_run_id, Met { id, state, schedule, trigger, conf }))
        })
        .collect()
}

/// Lets rows that were there before owe the deletion of their child, where they do not yet: those that
/// a restored ledger has entered from Airflow's list, which knows nothing of children.
async fn take_on_consumes(
    connection: &mut AnyConnection,
    runs: &[NewRun],
    met: &HashMap<String, Met>,
) -> Result<(), StoreError> {
    let owed = runs.iter().filter(|run| met.contains_key(&run.dag_run_id)).filter_map(|run| {
        let work = run.consume.as_ref()?;
        Some(vec![
            run.dag_run_id.as_str().into(),
            consume_word(work.when).into(),
            work.ensemble.clone().into(),
            work.path.as_str().into(),
            work.czxid.into(),
        ])
    });
    bulk(
        connection,
        "UPDATE runs SET consume_when = v.column2, consume_ensemble = v.column3, consume_path = v.column4, \
         consume_czxid = v.column5 FROM (VALUES ",
        ") AS v WHERE runs.dag_run_id = v.column1 AND runs.consume_when IS NULL",
        &["TEXT", "TEXT", "TEXT", "TEXT", "BIGINT"],
        owed.collect(),
    )
    .await?;
    Ok(())
}

/// Lets the newest row of the schedule cover this occurrence too, if it ended alike; its number then.
async fn extend_latest(connection: &mut AnyConnection, run: &NewRun) -> Result<Option<i64>, StoreError> {
    let rows = bind(
        format!(
            "SELECT id, state, reason, nominal_time, due_at, owner, airflow, dag_id, {SCHEDULE} FROM runs \
             WHERE schedule = $1 ORDER BY due_at DESC, id DESC LIMIT 1"
        ),
        [run.schedule.as_str().into()],
    )
    .fetch_all(&mut *connection)
    .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut columns = Columns::of(row);
    let number = columns.integer()?;
    // Every column is read before any is compared: a comparison that ends early would leave its columns unread.
    let (state, reason) = (columns.state()?, columns.optional_text()?);
    let (nominal, due_at) = (columns.optional_time()?, columns.time()?);
    let (owner, airflow, dag_id) = (columns.optional_text()?, columns.text()?, columns.text()?);
    let schedule = columns.text()?;
    // What was due for one owner and DAG says nothing about what is due for the next, nor does what belongs to a
    // schedule that has given this name up.
    let for_the_same =
        owner == run.owner && airflow == run.airflow && dag_id == run.dag_id && schedule == run.schedule.as_str();
    let alike = for_the_same && state == run.state && reason == run.reason;
    let earlier = nominal.is_some_and(|nominal| Some(nominal) < covered(run).map(|c| c.from)) && due_at < run.due_at;
    let Some(covered) = covered(run).filter(|_| alike && earlier) else { return Ok(None) };
    bind(
        "UPDATE runs SET covers_from = COALESCE(covers_from, nominal_time), covers_to = $1, nominal_time = $1, \
         occurrences = occurrences + $2, due_at = $3, dag_run_id = $4 WHERE id = $5",
        // The row's identity is that of the last occurrence that it covers.
        [covered.to.into(), covered.count.into(), run.due_at.into(), run.dag_run_id.as_str().into(), number.into()],
    )
    .execute(&mut *connection)
    .await?;
    Ok(Some(number))
}

fn covered(run: &NewRun) -> Option<Covered> {
    run.covers.or_else(|| run.nominal_time.map(|nominal| Covered { from: nominal, to: nominal, count: 1 }))
}

pub(super) fn columns(run: &NewRun, at: Timestamp) -> Vec<Value> {
    vec![
        run.schedule.as_str().into(),
        run.owner.clone().into(),
        run.airflow.as_str().into(),
        run.dag_id.as_str().into(),
        run.dag_run_id.as_str().into(),
        run.trigger.as_str().into(),
        run.nominal_time.into(),
        run.covers.map(|covers| covers.from).into(),
        run.covers.map(|covers| covers.to).into(),
        run.covers.map_or(1, |covers| covers.count).into(),
        run.due_at.into(),
        at.into(),
        (!run.state.is_open()).then_some(at).into(),
        run.state.as_str().into(),
        run.state.is_open().into(),
        run.reason.clone().into(),
        run.coalesced.into(),
        0.into(),
        run.conf.get().into(),
        run.logical_date.into(),
        run.data_interval.map(|interval| interval.0).into(),
        run.data_interval.map(|interval| interval.1).into(),
        0.into(),
        0.into(),
        run.consume.as_ref().map(|work| consume_word(work.when)).into(),
        run.consume.as_ref().and_then(|work| work.ensemble.clone()).into(),
        run.consume.as_ref().map(|work| work.path.clone()).into(),
        run.consume.as_ref().map(|work| work.czxid).into(),
        run.lock.as_deref().into(),
    ]
}

pub(super) fn consume_word(when: Consume) -> &'static str {
    match when {
        Consume::Accepted => "accepted",
        Consume::Success => "success",
    }
}

fn moved(id: RunId, run: &NewRun) -> Move {
    Move {
        run: id,
        schedule: run.schedule.to_string(),
        airflow: run.airflow.clone(),
        dag_id: run.dag_id.clone(),
        dag_run_id: run.dag_run_id.clone(),
        state: run.state,
        reason: run.reason.clone(),
    }
}

fn ticket(id: RunId, run: &NewRun) -> Ticket {
    Ticket {
        id,
        schedule: run.schedule.clone(),
        airflow: run.airflow.clone(),
        dag_id: run.dag_id.clone(),
        dag_run_id: run.dag_run_id.clone(),
        trigger: run.trigger,
        due_at: run.due_at,
        conf: run.conf.clone(),
        logical_date: run.logical_date,
        data_interval: run.data_interval,
        attempts: 0,
        first_attempt_at: None,
        not_before: None,
        lookup_only: false,
        lock: run.lock.clone(),
    }
}

/// `queue_one` and `cancel_running` keep only the newest of those that wait.
///
/// The oldest open row of a schedule is the one that may be on its way to Airflow, so it stays.
async fn replace_waiting(
    connection: &mut AnyConnection,
    at: Timestamp,
    runs: &[NewRun],
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let schedules: BTreeSet<&str> = runs
        .iter()
        .filter(|run| {
            run.state == RunState::Pending && matches!(run.overlap, Overlap::QueueOne | Overlap::CancelRunning)
        })
        .map(|run| run.schedule.as_str())
        .collect();
    for schedule in schedules {
        let rows = bind(
            "SELECT id, airflow, dag_id, dag_run_id FROM runs WHERE schedule = $1 AND is_open = 1 AND state = 'pending' \
             AND submitted_at IS NULL \
             AND id > (SELECT MIN(id) FROM runs WHERE schedule = $1 AND is_open = 1) \
             AND id < (SELECT MAX(id) FROM runs WHERE schedule = $1 AND is_open = 1)",
            [schedule.into()],
        )
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            let mut columns = Columns::of(row);
            let replaced = Move {
                run: RunId(columns.integer()?),
                schedule: schedule.to_owned(),
                airflow: columns.text()?,
                dag_id: columns.text()?,
                dag_run_id: columns.text()?,
                state: RunState::Skipped,
                reason: Some(REPLACED_REASON.to_owned()),
            };
            close(connection, at, &replaced).await?;
            changes.moves.push(replaced);
        }
    }
    Ok(())
}

/// Closes a run in the state and with the reason of the move, and notes it in its timeline.
pub(super) async fn close(connection: &mut AnyConnection, at: Timestamp, to: &Move) -> Result<(), StoreError> {
    bind(
        "UPDATE runs SET state = $1, is_open = 0, reason = $2, closed_at = $3 WHERE id = $4",
        [to.state.as_str().into(), to.reason.clone().into(), at.into(), to.run.0.into()],
    )
    .execute(&mut *connection)
    .await?;
    note_moves(connection, at, std::slice::from_ref(to)).await
}

/// Enters moves into the timelines.
pub(super) async fn note_moves(
    connection: &mut AnyConnection,
    at: Timestamp,
    moves: &[Move],
) -> Result<(), StoreError> {
    let rows = moves
        .iter()
        .map(|to| vec![to.run.0.into(), at.into(), to.state.as_str().into(), to.reason.clone().into()])
        .collect();
    bulk(connection, "INSERT INTO timeline (run_id, at, state, reason) VALUES ", "", &[], rows).await?;
    Ok(())
}

async fn move_cursors(connection: &mut AnyConnection, recordings: &[&Recording]) -> Result<(), StoreError> {
    let mut cron: BTreeMap<&str, Timestamp> = BTreeMap::new();
    let mut initialized: BTreeMap<&str, i64> = BTreeMap::new();
    // The last move of a path wins; a statement may touch each row only once.
    let mut znodes = HashMap::new();
    for cursor in recordings.iter().flat_map(|recording| &recording.cursors) {
        match cursor {
            CursorMove::Cron { schedule, to } => {
                let latest = cron.entry(schedule.as_str()).or_insert(*to);
                *latest = (*latest).max(*to);
            }
            CursorMove::ZnodeInitialized { schedule, zxid } => {
                initialized.insert(schedule.as_str(), *zxid);
            }
            CursorMove::Znode { schedule, path, seen, data } => {
                znodes.insert((schedule.as_str(), path.as_str()), (*seen, data.as_ref()));
            }
        }
    }
    bulk(
        connection,
        "UPDATE schedules SET cron_cursor = v.column2 FROM (VALUES ",
        ") AS v WHERE schedules.name = v.column1 AND schedules.cron_cursor < v.column2",
        &["TEXT", "BIGINT"],
        cron.into_iter().map(|(schedule, to)| vec![schedule.into(), to.into()]).collect(),
    )
    .await?;
    bulk(
        connection,
        "UPDATE schedules SET znode_zxid = v.column2, znode_after = NULL, first_look = NULL FROM (VALUES ",
        ") AS v WHERE schedules.name = v.column1",
        &["TEXT", "BIGINT"],
        initialized.into_iter().map(|(schedule, zxid)| vec![schedule.into(), zxid.into()]).collect(),
    )
    .await?;
    let mut present = Vec::new();
    for ((schedule, path), (seen, data)) in znodes {
        let Some(seen) = seen else {
            let key = paths::key(path);
            bind("DELETE FROM znode_cursors WHERE schedule = $1 AND path = $2", [schedule.into(), (*key).into()])
                .execute(&mut *connection)
                .await?;
            continue;
        };
        present.push(vec![
            schedule.into(),
            (*paths::key(path)).into(),
            paths::full(path).into(),
            seen.czxid.into(),
            seen.mzxid.into(),
            i64::from(seen.version).into(),
            data.cloned().into(),
        ]);
    }
    bulk(
        connection,
        "INSERT INTO znode_cursors (schedule, path, full_path, czxid, mzxid, version, data) VALUES ",
        " ON CONFLICT (schedule, path) DO UPDATE SET czxid = excluded.czxid, mzxid = excluded.mzxid, \
         version = excluded.version, data = excluded.data",
        &[],
        present,
    )
    .await?;
    Ok(())
}

pub(super) async fn note_decisions(
    connection: &mut AnyConnection,
    recordings: &[&Recording],
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for decision in recordings.iter().flat_map(|recording| &recording.decisions) {
        *counts.entry((decision.schedule.as_str(), decision.kind)).or_default() += 1;
        rows.push(vec![
            decision.schedule.as_str().into(),
            decision.at.into(),
            decision.kind.into(),
            decision.detail.as_str().into(),
        ]);
    }
    bulk(connection, "INSERT INTO decisions (schedule, at, kind, detail) VALUES ", "", &[], rows).await?;
    bulk(
        connection,
        "INSERT INTO decision_counts (schedule, kind, count) VALUES ",
        " ON CONFLICT (schedule, kind) DO UPDATE SET count = decision_counts.count + excluded.count",
        &[],
        counts.into_iter().map(|((schedule, kind), count)| vec![schedule.into(), kind.into(), count.into()]).collect(),
    )
    .await?;
    Ok(())
}

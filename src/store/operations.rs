//! What operators do to runs: trigger, retry, cancel and backfill, each with its line in the audit.

use jiff::Timestamp;

use super::attempts::{TICKET_COLUMNS, moves_of, ticket};
use super::audit::write_audit;
use super::model::{Covered, NewAudit, NewRun, RecordedRun, Recording};
use super::names::{SCHEDULE, take_along};
use super::record::{close, note_moves, record};
use super::sql::{Columns, bind};
use super::transaction::Transaction;
use super::writer::Move;
use super::{Leadership, Ledger, StoreError};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::ScheduleName;

/// How a closed row is taken up again.
#[derive(Debug, Clone)]
pub struct Reopen {
    /// Only if it is still in this state.
    pub expected: RunState,
    /// What is to be sent, to which DAG and for whom, for rows whose conf was never rendered; `None` keeps
    /// what is stored.
    pub fresh: Option<NewRun>,
}

/// One step of a backfill. Steps whose row has changed since the plan was made do nothing, nor do those
/// that would give a row the identity of another.
#[derive(Debug, Clone)]
pub enum BackfillStep {
    /// A nominal time that has no row.
    Record(NewRun),
    /// A closed row without a DAG run becomes pending.
    Reopen {
        /// The row.
        row: RunId,
        /// Only if it is still in this state.
        expected: RunState,
        /// What is to be sent, to which DAG and for whom.
        run: NewRun,
    },
    /// Occurrences are taken out of a row that covers several.
    Split {
        /// The row.
        row: RunId,
        /// Only if it still covers exactly this.
        was: Covered,
        /// A new row for what came before, alike in everything else, under the identity of its last time.
        before: Option<(String, Covered)>,
        /// What the row itself covers from now on; `None` when nothing is left of it.
        after: Option<Covered>,
        /// The occurrences that become pending rows.
        runs: Vec<NewRun>,
    },
}

impl BackfillStep {
    /// The runs that it records.
    fn runs(&self) -> &[NewRun] {
        match self {
            Self::Record(run) | Self::Reopen { run, .. } => std::slice::from_ref(run),
            Self::Split { runs, .. } => runs,
        }
    }
}

impl Ledger {
    /// Records a run by hand. When its identity is known already, nothing is written and the answer
    /// is not `fresh`; with another conf it is an [`StoreError::IdentityConflict`]. A schedule that was renamed or
    /// removed a moment ago is [`StoreError::NotFound`]: under the old name, nobody would know of the run.
    pub async fn trigger(
        &self,
        leadership: &Leadership,
        run: NewRun,
        audit: NewAudit,
    ) -> Result<RecordedRun, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        must_be_in_force(&mut transaction, &run.schedule).await?;
        let shadow = self.0.shadow;
        let (connection, at, changes) = transaction.parts();
        let recording = Recording { runs: vec![run], ..Recording::default() };
        let recorded = record(connection, at, &[&recording], shadow, changes).await?;
        let recorded = recorded.into_iter().next().unwrap_or(Err(StoreError::Closed))?;
        let recorded = recorded.into_iter().next().ok_or(StoreError::Closed)?;
        if recorded.fresh {
            write_audit(transaction.connection(), at, &audit).await?;
            transaction.commit().await?;
        }
        Ok(recorded)
    }

    /// Makes a row pending again, or tries a pending one at once; `false` when its state has changed.
    pub async fn retry(
        &self,
        leadership: &Leadership,
        run: RunId,
        reopen: Reopen,
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let done = make_pending(&mut transaction, run, reopen.expected, reopen.fresh.as_ref()).await?;
        if done {
            write_audit(transaction.connection(), at, &audit).await?;
            transaction.commit().await?;
        }
        Ok(done)
    }

    /// Gives up a row that has not been accepted; `false` when it is not pending any more.
    pub async fn cancel(
        &self,
        leadership: &Leadership,
        run: RunId,
        reason: &str,
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        self.give_up(leadership, run, reason, Some(audit)).await
    }

    /// Closes a row that has not been accepted because a policy says so; `false` when it is not
    /// pending any more.
    pub async fn skip(&self, leadership: &Leadership, run: RunId, reason: &str) -> Result<bool, StoreError> {
        self.give_up(leadership, run, reason, None).await
    }

    async fn give_up(
        &self,
        leadership: &Leadership,
        run: RunId,
        reason: &str,
        audit: Option<NewAudit>,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let known = moves_of(transaction.connection(), std::iter::once(run.0)).await?;
        let Some(row) = known.into_values().next().filter(|row| row.state == RunState::Pending) else {
            return Ok(false);
        };
        let skipped = Move { state: RunState::Skipped, reason: Some(reason.to_owned()), ..row };
        close(transaction.connection(), at, &skipped).await?;
        transaction.moved(skipped);
        if let Some(audit) = audit {
            write_audit(transaction.connection(), at, &audit).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Applies the steps of a backfill in one transaction; which of them were. A schedule that was renamed or removed
    /// since the plan was made is [`StoreError::NotFound`].
    pub async fn backfill(
        &self,
        leadership: &Leadership,
        steps: Vec<BackfillStep>,
        audit: NewAudit,
    ) -> Result<Vec<bool>, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        if let Some(run) = steps.iter().flat_map(BackfillStep::runs).next() {
            must_be_in_force(&mut transaction, &run.schedule).await?;
        }
        let mut applied = Vec::with_capacity(steps.len());
        for step in steps {
            applied.push(match step {
                BackfillStep::Record(run) => insert_pending(&mut transaction, vec![run]).await?,
                BackfillStep::Reopen { row, expected, run } => {
                    make_pending(&mut transaction, row, expected, Some(&run)).await?
                }
                BackfillStep::Split { row, was, before, after, runs } => {
                    split(&mut transaction, row, was, before, after, runs).await?
                }
            });
        }
        write_audit(transaction.connection(), at, &audit).await?;
        transaction.commit().await?;
        Ok(applied)
    }
}

/// Refuses what is meant for a schedule that is known by this name no more.
async fn must_be_in_force(transaction: &mut Transaction<'_>, schedule: &ScheduleName) -> Result<(), StoreError> {
    let sql = "SELECT name FROM schedules WHERE name = $1 AND gone_at IS NULL";
    let found = bind(sql, [schedule.as_str().into()]).fetch_all(transaction.connection()).await?;
    if found.is_empty() {
        return Err(StoreError::NotFound { what: format!("the schedule `{schedule}`") });
    }
    Ok(())
}

/// Inserts rows without judging the overlap policy: who backfills wants all of them, in turn.
async fn insert_pending(transaction: &mut Transaction<'_>, runs: Vec<NewRun>) -> Result<bool, StoreError> {
    let runs: Vec<_> =
        runs.into_iter().map(|run| NewRun { overlap: crate::domain::schedule::Overlap::Allow, ..run }).collect();
    let recording = Recording { runs, ..Recording::default() };
    let shadow = transaction.is_shadow();
    let (connection, at, changes) = transaction.parts();
    let recorded = record(connection, at, &[&recording], shadow, changes).await?;
    let recorded = recorded.into_iter().next().unwrap_or(Err(StoreError::Closed))?;
    Ok(recorded.iter().any(|run| run.fresh))
}

/// Makes a row pending: its retries start anew, its past attempts stay in its history.
///
/// With a `fresh` run it is the occurrence as the schedule has it now: conf, DAG, Airflow and owner go
/// together, so that no DAG gets the conf that was written for another. Nothing runs for the row where it
/// pointed before, or it would not be taken up again.
async fn make_pending(
    transaction: &mut Transaction<'_>,
    run: RunId,
    expected: RunState,
    fresh: Option<&NewRun>,
) -> Result<bool, StoreError> {
    if let Some(fresh) = fresh
        && is_of_another(transaction, &fresh.dag_run_id, run).await?
    {
        return Ok(false);
    }
    let at = transaction.at();
    let done = bind(
        "UPDATE runs SET state = 'pending', is_open = 1, reason = NULL, not_before = $1, lookup_only = 0, \
         submitted_at = NULL, accepted_at = NULL, started_at = NULL, ended_at = NULL, closed_at = NULL, \
         lock_asked_at = CASE WHEN state = 'pending' THEN lock_asked_at ELSE NULL END, \
         lock_held_at = CASE WHEN state = 'pending' THEN lock_held_at ELSE NULL END, \
         reopened = reopened + CASE WHEN state = 'pending' THEN 0 ELSE 1 END WHERE id = $2 AND state = $3",
        [at.into(), run.0.into(), expected.as_str().into()],
    )
    .execute(transaction.connection())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    take_along(transaction.connection(), std::iter::once(run.0)).await?;
    if let Some(fresh) = fresh {
        bind(
            "UPDATE runs SET dag_run_id = $1, nominal_time = $2, covers_from = NULL, covers_to = NULL, occurrences = 1, \
             due_at = $3, conf = $4, logical_date = $5, interval_start = $6, interval_end = $7, lock_name = $8, \
             owner = $9, airflow = $10, dag_id = $11 WHERE id = $12",
            [
                fresh.dag_run_id.as_str().into(),
                fresh.nominal_time.into(),
                fresh.due_at.into(),
                fresh.conf.get().into(),
                fresh.logical_date.into(),
                fresh.data_interval.map(|interval| interval.0).into(),
                fresh.data_interval.map(|interval| interval.1).into(),
                fresh.lock.as_deref().into(),
                fresh.owner.as_deref().into(),
                fresh.airflow.as_str().into(),
                fresh.dag_id.as_str().into(),
                run.0.into(),
            ],
        )
        .execute(transaction.connection())
        .await?;
    }
    let known = moves_of(transaction.connection(), std::iter::once(run.0)).await?;
    if let Some(row) = known.into_values().next().filter(|_| expected != RunState::Pending) {
        note_moves(transaction.connection(), at, std::slice::from_ref(&row)).await?;
        transaction.moved(row);
    }
    let sql = format!("SELECT {TICKET_COLUMNS} FROM runs WHERE id = $1");
    let row = bind(sql, [run.0.into()]).fetch_one(transaction.connection()).await?;
    transaction.dispatch(ticket(&row)?);
    Ok(true)
}

/// Whether another row has this identity, as after a schedule took the name of one that was there before.
async fn is_of_another(transaction: &mut Transaction<'_>, dag_run_id: &str, row: RunId) -> Result<bool, StoreError> {
    let others = bind("SELECT id FROM runs WHERE dag_run_id = $1 AND id <> $2", [dag_run_id.into(), row.0.into()])
        .fetch_all(transaction.connection())
        .await?;
    Ok(!others.is_empty())
}

/// Takes occurrences out of a row that covers several.
async fn split(
    transaction: &mut Transaction<'_>,
    row: RunId,
    was: Covered,
    before: Option<(String, Covered)>,
    after: Option<Covered>,
    mut runs: Vec<NewRun>,
) -> Result<bool, StoreError> {
    let rows = bind(
        "SELECT state FROM runs WHERE id = $1 AND covers_from = $2 AND covers_to = $3 AND occurrences = $4",
        [row.0.into(), was.from.into(), was.to.into(), was.count.into()],
    )
    .fetch_all(transaction.connection())
    .await?;
    let Some(state) = rows.first().map(|row| Columns::of(row).state()).transpose()? else { return Ok(false) };
    let of_the_row = after.is_none().then(|| runs.last()).flatten().map(|run| run.dag_run_id.as_str());
    for dag_run_id in before.iter().map(|(dag_run_id, _)| dag_run_id.as_str()).chain(of_the_row) {
        if is_of_another(transaction, dag_run_id, row).await? {
            return Ok(false);
        }
    }
    if let Some((dag_run_id, covers)) = before {
        insert_alike(transaction, row, &dag_run_id, covers).await?;
    }
    if let Some(covers) = after {
        shrink(transaction, row, covers).await?;
    } else {
        let Some(last) = runs.pop() else { return Ok(false) };
        make_pending(transaction, row, state, Some(&last)).await?;
    }
    if !runs.is_empty() {
        insert_pending(transaction, runs).await?;
    }
    Ok(true)
}

/// Copies a row under another identity and with another cover.
async fn insert_alike(
    transaction: &mut Transaction<'_>,
    row: RunId,
    dag_run_id: &str,
    covers: Covered,
) -> Result<(), StoreError> {
    let single = covers.count == 1;
    bind(
        format!("INSERT INTO runs (schedule, owner, airflow, dag_id, dag_run_id, trigger_kind, nominal_time, covers_from, covers_to, \
         occurrences, due_at, recorded_at, closed_at, state, is_open, reason, coalesced, reopened, conf, attempts, lookup_only, lock_name) \
         SELECT {SCHEDULE}, owner, airflow, dag_id, $1, trigger_kind, $2, $3, $4, $5, $2, recorded_at, closed_at, state, \
         is_open, reason, coalesced, reopened, conf, attempts, lookup_only, lock_name FROM runs WHERE id = $6"),
        [
            dag_run_id.into(),
            covers.to.into(),
            (!single).then_some(covers.from).into(),
            (!single).then_some(covers.to).into(),
            covers.count.into(),
            row.0.into(),
        ],
    )
    .execute(transaction.connection())
    .await?;
    Ok(())
}

/// Lets a row cover only what is left of it.
async fn shrink(transaction: &mut Transaction<'_>, row: RunId, covers: Covered) -> Result<(), StoreError> {
    let single = covers.count == 1;
    let span = |time: Timestamp| (!single).then_some(time);
    bind(
        "UPDATE runs SET covers_from = $1, covers_to = $2, nominal_time = $3, occurrences = $4 WHERE id = $5",
        [span(covers.from).into(), span(covers.to).into(), covers.to.into(), covers.count.into(), row.0.into()],
    )
    .execute(transaction.connection())
    .await?;
    Ok(())
}

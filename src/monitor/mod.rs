//! The only closer: follows the DAG runs of one Airflow to their end.
//!
//! Each tick reads one list, of everything that changed since shortly before the watermark, and lets
//! the ledger compare. A lost tick costs time, never truth: the watermark moves only after a list
//! was read whole, so an Airflow that is away for an hour is caught up with by one longer list.
//! Now and then the open rows are compared in full. Deleted DAG runs are believed only after
//! Airflow's own 404.

mod absence;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::airflow::{Airflow, DagRun, Error, RunQuery};
use crate::clock::Clock;
use crate::config::model::DagGlobs;
use crate::domain::occurrence::{RUN_ID_PREFIX, schedule_of};
use crate::domain::run::{AirflowState, RunState};
use crate::metrics;
use crate::store::model::{LedgerEvent, Sighting};
use crate::store::{Leadership, Ledger, StoreError};
use absence::Absences;

/// How far before the watermark a list begins: Airflow stamps a change before it commits it, so rows
/// appear late.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);

/// Between two lists while runs are open and something moves.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);

/// Between two lists while runs are open or others' runs are recorded.
const INTERVAL: Duration = Duration::from_secs(5);

/// Between two lists while nothing is open; what is cleared in Airflow is still noticed.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);

/// How long after the last change the busy interval is kept.
const BUSY_FOR: SignedDuration = SignedDuration::from_mins(1);

/// Between two full comparisons while few runs are open, so that a deletion is soon noticed. While
/// many are, only the chore asks for one, every few minutes.
const FULL_INTERVAL: Duration = Duration::from_secs(30);

/// How many open runs are few: their full comparison is one request.
const FEW_OPEN: usize = 100;

/// How many DAGs a full comparison asks for in one list.
const DAGS_PER_LIST: usize = 50;

/// The reason of a run that was deleted.
const REMOVED_REASON: &str = "the DAG run was deleted in Airflow";

/// What a monitor works with.
pub struct Parts {
    /// The Airflow.
    pub airflow: Airflow,
    /// The ledger.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// DAGs whose runs are recorded, whoever triggered them.
    pub keep: DagGlobs,
    /// The time.
    pub clock: Clock,
    /// Changes when a full comparison is asked for.
    pub reconcile: watch::Receiver<u64>,
}

/// Why a look at Airflow came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Airflow(#[from] Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows the DAG runs until the leadership is lost.
pub async fn run(parts: Parts) -> Result<(), StoreError> {
    let lost = parts.leadership.lost().clone();
    let name = parts.airflow.name().to_owned();
    let mut reconcile = parts.reconcile.clone();
    let ledger = parts.ledger.clone();
    let mut monitor =
        Monitor { parts, name, absences: Absences::default(), up: None, last_move: None, last_full: None };
    let mut full = true;
    loop {
        let looked = tokio::select! {
            () = lost.cancelled() => return Ok(()),
            looked = monitor.look(full) => looked,
        };
        full = monitor.judge(looked, full)?;
        // Before it is asked what is open, so that nothing opens unnoticed.
        let mut events = ledger.subscribe();
        let wake = Instant::now() + monitor.pause().await;
        tokio::select! {
            () = lost.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(wake) => {}
            Ok(()) = reconcile.changed() => full = true,
            () = opened(&mut events, &monitor.name) => {
                // Nobody who has just started something waits for an idle interval to pass.
                let soon = wake.min(Instant::now() + BUSY_INTERVAL);
                tokio::select! {
                    () = lost.cancelled() => return Ok(()),
                    () = tokio::time::sleep_until(soon) => {}
                }
            }
        }
        full |= monitor.full_is_due();
    }
}

/// Waits until this Airflow has accepted a run.
async fn opened(events: &mut broadcast::Receiver<LedgerEvent>, airflow: &str) {
    loop {
        match events.recv().await {
            Ok(event) if event.airflow == airflow && matches!(event.state, RunState::Queued | RunState::Running) => {
                return;
            }
            // So much has happened that there is something to look at.
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

struct Monitor {
    parts: Parts,
    name: String,
    absences: Absences,
    /// Whether Airflow answered last time.
    up: Option<bool>,
    /// When a look last moved something.
    last_move: Option<Timestamp>,
    /// When all open rows were last compared, and how many there were.
    last_full: Option<(Instant, usize)>,
}

impl Monitor {
    /// One tick: what changed, and with `full` a comparison of all open rows.
    async fn look(&mut self, full: bool) -> Result<(), LookError> {
        self.follow_changes().await?;
        if full {
            self.compare_open().await?;
        }
        Ok(())
    }

    /// Whether the next tick owes a full comparison; stops at a ledger that refuses.
    fn judge(&mut self, looked: Result<(), LookError>, full: bool) -> Result<bool, StoreError> {
        let (up, owed) = match looked {
            Ok(()) => (true, false),
            Err(LookError::Store(error @ (StoreError::Fenced { .. } | StoreError::Closed))) => return Err(error),
            Err(LookError::Store(error)) => {
                tracing::warn!(airflow = %self.name, error = %error, "what Airflow shows could not be recorded; it is read again");
                return Ok(full);
            }
            Err(LookError::Airflow(error)) => {
                if self.up != Some(false) {
                    tracing::warn!(
                        airflow = %self.name,
                        hint = error.hint(),
                        "failed to {error}; open runs are followed again when it answers"
                    );
                }
                (false, full)
            }
        };
        if up && self.up == Some(false) {
            tracing::info!(airflow = %self.name, "Airflow answers again");
        }
        metrics::airflow_up(&self.name, up);
        self.up = Some(up);
        Ok(owed)
    }

    async fn pause(&self) -> Duration {
        // A ledger that cannot be read just now may hold open runs.
        let open = self.parts.ledger.has_open_runs(&self.name).await.unwrap_or(true);
        let moved = self.last_move.is_some_and(|at| self.parts.clock.now().duration_since(at) < BUSY_FOR);
        interval(open, moved, !self.parts.keep.is_empty())
    }

    fn full_is_due(&self) -> bool {
        self.last_full.is_some_and(|(at, open)| full_is_due(at.elapsed(), open))
    }

    /// Reads everything that changed since the watermark, and moves the watermark to where the list
    /// began to be read.
    async fn follow_changes(&mut self) -> Result<(), LookError> {
        let ledger = &self.parts.ledger;
        let before = self.airflows_time();
        let watermark = ledger.watermark(&self.name).await?.unwrap_or(before);
        let query = RunQuery {
            updated_since: Some(watermark.saturating_sub(OVERLAP).unwrap_or(Timestamp::MIN)),
            run_id_prefix: self.parts.keep.is_empty().then(|| RUN_ID_PREFIX.to_owned()),
            ..RunQuery::default()
        };
        let mut events = ledger.subscribe();
        self.read_all(&query, |_| {}).await?;
        // Before the first answer there is no telling what Airflow's clock says.
        let reached = if self.parts.airflow.clock_offset().is_some() { before } else { watermark };
        self.parts.ledger.record_sightings(&self.parts.leadership, &self.name, Vec::new(), Some(reached)).await?;
        if events.try_recv().is_ok() {
            self.last_move = Some(self.parts.clock.now());
        }
        Ok(())
    }

    /// Compares every open row with the list of open DAG runs.
    async fn compare_open(&mut self) -> Result<(), LookError> {
        let open = self.parts.ledger.open_runs(&self.name).await?;
        let dags: Vec<String> =
            open.iter().map(|run| run.dag_id.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let mut listed = HashSet::new();
        for dags in dags.chunks(DAGS_PER_LIST) {
            let query = RunQuery {
                dag_ids: dags.to_vec(),
                states: vec![AirflowState::Queued, AirflowState::Running],
                run_id_prefix: Some(RUN_ID_PREFIX.to_owned()),
                ..RunQuery::default()
            };
            let read = self.read_all(&query, |run| {
                listed.insert((run.dag_id.clone(), run.dag_run_id.clone()));
            });
            match read.await {
                // The list of a DAG that was deleted is a 404, and has no DAG runs.
                Err(LookError::Airflow(error)) if error.is_absent() => {}
                read => read?,
            }
        }
        for run in self.absences.compare(&open, &listed) {
            match self.parts.airflow.find_run(&run.dag_id, &run.dag_run_id).await {
                Ok(found) => self.record(vec![found]).await?,
                Err(error) if error.is_absent() => {
                    tracing::info!(run.id = run.id.0, schedule = %run.schedule, "{REMOVED_REASON}");
                    self.parts.ledger.mark_removed(&self.parts.leadership, run.id, REMOVED_REASON).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.last_full = Some((Instant::now(), open.len()));
        Ok(())
    }

    /// Reads all pages of a list and records them, page by page.
    async fn read_all(&self, query: &RunQuery, mut each: impl FnMut(&DagRun)) -> Result<(), LookError> {
        let mut offset = 0;
        loop {
            let page = self.parts.airflow.list_runs(query, offset).await?;
            page.runs.iter().for_each(&mut each);
            offset += page.entries as u64;
            self.record(page.runs).await?;
            if page.entries == 0 || offset >= page.total {
                return Ok(());
            }
        }
    }

    async fn record(&self, runs: Vec<DagRun>) -> Result<(), StoreError> {
        let sightings: Vec<_> = runs.into_iter().filter_map(|run| sighting(run, &self.parts.keep)).collect();
        if sightings.is_empty() {
            return Ok(());
        }
        self.parts.ledger.record_sightings(&self.parts.leadership, &self.name, sightings, None).await
    }

    /// The time by Airflow's clock, as far as its answers have told it.
    fn airflows_time(&self) -> Timestamp {
        let now = self.parts.clock.now();
        self.parts.airflow.clock_offset().and_then(|offset| now.saturating_add(offset).ok()).unwrap_or(now)
    }
}

/// A DAG run as the ledger takes it; `None` for those that are neither ours nor to be kept.
fn sighting(run: DagRun, keep: &DagGlobs) -> Option<Sighting> {
    let keep = keep.matches(&run.dag_id);
    // A word that no known version of Airflow uses moves nothing.
    let state = run.state?;
    (keep || schedule_of(&run.dag_run_id).is_some()).then_some(Sighting {
        dag_id: run.dag_id,
        dag_run_id: run.dag_run_id,
        state,
        run_type: run.run_type,
        logical_date: run.logical_date,
        queued_at: run.queued_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        note: run.note,
        conf: run.conf,
        keep,
    })
}

/// How long to wait for the next list.
fn interval(open: bool, moved: bool, keeps_others: bool) -> Duration {
    match (open, moved, keeps_others) {
        (true, true, _) => BUSY_INTERVAL,
        (true, false, _) | (false, _, true) => INTERVAL,
        (false, _, false) => IDLE_INTERVAL,
    }
}

/// Whether open rows are to be compared in full again, this long after `open` of them were.
fn full_is_due(elapsed: Duration, open: usize) -> bool {
    open < FEW_OPEN && elapsed >= FULL_INTERVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_open_runs_are_often_compared_in_full() {
        let cases = [(0, 29, false), (0, 30, true), (99, 30, true), (99, 29, false), (100, 3600, false)];
        for (open, seconds, due) in cases {
            assert_eq!(full_is_due(Duration::from_secs(seconds), open), due, "{open} open after {seconds} s");
        }
    }

    #[test]
    fn lists_are_as_frequent_as_there_is_something_to_see() {
        let cases = [
            ((true, true, false), BUSY_INTERVAL),
            ((true, true, true), BUSY_INTERVAL),
            ((true, false, false), INTERVAL),
            ((false, true, true), INTERVAL),
            ((false, false, true), INTERVAL),
            ((false, true, false), IDLE_INTERVAL),
            ((false, false, false), IDLE_INTERVAL),
        ];
        for ((open, moved, keeps_others), expected) in cases {
            assert_eq!(interval(open, moved, keeps_others), expected, "{open} {moved} {keeps_others}");
        }
    }
}

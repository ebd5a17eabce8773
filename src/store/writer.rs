//! The one writer: what arrives together shares one transaction and one `fsync`.
//!
//! A write is answered after its commit, never before. What fails for a passing reason (disk full,
//! file locked) is kept and tried again for as long as the process lives, so nothing that a trigger
//! saw is dropped; what fails for its own content is answered alone, without harming its neighbours.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, Weak};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::model::{AttemptRecord, LedgerEvent, RecordedRun, Recording, Sighting, Ticket};
use super::turn::{Outcome, RETRY_PAUSE, Turn};
use super::{Inner, Leadership, StoreError, StoreHealth, attempts, record, sightings};
use crate::domain::occurrence::kind_of;
use crate::domain::run::{RunId, RunState};

/// How many writes share a transaction at most; bounds the time to the first answer.
const BATCH_LENGTH: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write, with the address for its answer.
pub(super) enum Work {
    Record {
        leadership: Leadership,
        recording: Recording,
        reply: Reply<Vec<RecordedRun>>,
    },
    Attempt {
        leadership: Leadership,
        attempt: AttemptRecord,
        reply: Reply<()>,
    },
    Sightings {
        leadership: Leadership,
        airflow: String,
        sightings: Vec<Sighting>,
        watermark: Option<Timestamp>,
        reply: Reply<()>,
    },
}

impl Work {
    fn leadership(&self) -> &Leadership {
        match self {
            Self::Record { leadership, .. } | Self::Attempt { leadership, .. } | Self::Sightings { leadership, .. } => {
                leadership
            }
        }
    }

    fn answer(self, answer: Result<Answer, StoreError>) {
        // Whoever asked may have gone; the write stands all the same.
        match (self, answer) {
            (Self::Record { reply, .. }, Ok(Answer::Recorded(runs))) => drop(reply.send(Ok(runs))),
            (Self::Record { reply, .. }, Ok(Answer::Done)) => drop(reply.send(Ok(Vec::new()))),
            (Self::Record { reply, .. }, Err(error)) => drop(reply.send(Err(error))),
            (Self::Attempt { reply, .. } | Self::Sightings { reply, .. }, answer) => {
                drop(reply.send(answer.map(|_| ())));
            }
        }
    }
}

/// What a write is answered with.
pub(super) enum Answer {
    Recorded(Vec<RecordedRun>),
    Done,
}

/// What a transaction changed, for those who want to know after its commit.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) moves: Vec<Move>,
    pub(super) tickets: Vec<Ticket>,
    /// Whether a schedule was paused or resumed.
    pub(super) pauses: bool,
}

/// A run that has a new state.
pub(super) struct Move {
    pub(super) run: RunId,
    pub(super) schedule: String,
    pub(super) airflow: String,
    pub(super) dag_id: String,
    pub(super) dag_run_id: String,
    pub(super) state: RunState,
    pub(super) reason: Option<String>,
}

impl Inner {
    /// Tells subscribers and the dispatcher what a committed transaction changed.
    pub(super) fn publish(&self, at: Timestamp, changes: Changes) {
        if changes.pauses {
            self.pauses.send_modify(|changes| *changes += 1);
        }
        if !changes.tickets.is_empty()
            && let Some(tickets) = &*self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
        {
            for ticket in changes.tickets {
                // The dispatcher has gone: it reads the open rows when it comes back.
                let _ = tickets.send(ticket);
            }
        }
        for Move { run, schedule, airflow, dag_id, dag_run_id, state, reason } in changes.moves {
            if let Some(trigger) = kind_of(&dag_run_id) {
                crate::metrics::run_moved(trigger, state);
            }
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
            // Nobody listening is fine.
            let _ = self.events.send(LedgerEvent {
                sequence,
                at,
                run,
                schedule,
                airflow,
                dag_id,
                dag_run_id,
                state,
                reason,
            });
        }
    }
}

impl Inner {
    /// Tells that writes do not get through, if that is news.
    pub(super) fn stuck(&self, error: &StoreError) {
        let reason = error.to_string();
        if self.health.send_if_modified(|health| {
            let news = *health == StoreHealth::Writable;
            *health = StoreHealth::Stuck { reason: reason.clone() };
            news
        }) {
            crate::metrics::ledger_writable(false);
            tracing::error!(
                error = %reason,
                "the ledger cannot be written; nothing is lost, and the write is tried until it succeeds"
            );
        }
    }

    /// Tells that writes get through, if that is news.
    pub(super) fn writable(&self) {
        if self.health.send_if_modified(|health| {
            let stuck = *health != StoreHealth::Writable;
            *health = StoreHealth::Writable;
            stuck
        }) {
            crate::metrics::ledger_writable(true);
            tracing::info!("the ledger can be written again");
        }
    }
}

/// Writes until the last handle of the ledger is gone.
pub(super) async fn run(ledger: Weak<Inner>, mut work: mpsc::Receiver<Work>) {
    let mut batch = Vec::with_capacity(BATCH_LENGTH);
    while work.recv_many(&mut batch, BATCH_LENGTH).await > 0 {
        let Some(ledger) = ledger.upgrade() else { return };
        commit_until_done(&ledger, std::mem::take(&mut batch)).await;
    }
}

/// Commits the batch, trying again while the failure is a passing one.
async fn commit_until_done(ledger: &Inner, batch: Vec<Work>) {
    let started = tokio::time::Instant::now();
    loop {
        match commit(ledger, &batch).await {
            Ok(answers) => {
                crate::metrics::ledger_committed(started.elapsed(), batch.len());
                ledger.writable();
                for (work, answer) in batch.into_iter().zip(answers) {
                    if let Err(StoreError::Fenced { .. }) = &answer {
                        work.leadership().give_up();
                    }
                    work.answer(answer);
                }
                return;
            }
            Err(error) if error.is_transient() => {
                ledger.stuck(&error);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                answer_one_by_one(ledger, batch, error).await;
                return;
            }
        }
    }
}

/// Finds the write whose content the database refuses, so that the others go through.
async fn answer_one_by_one(ledger: &Inner, mut batch: Vec<Work>, error: StoreError) {
    if batch.len() == 1
        && let Some(work) = batch.pop()
    {
        tracing::error!(error = %error, "the ledger refused a write");
        work.answer(Err(error));
        return;
    }
    for work in batch {
        Box::pin(commit_until_done(ledger, vec![work])).await;
    }
}

/// One transaction over the whole batch; an answer for each write.
async fn commit(ledger: &Inner, batch: &[Work]) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
    // A batch may hold the last writes of an earlier term of this member; it is written under the latest.
    let epoch = batch.iter().map(|work| work.leadership().epoch()).max().unwrap_or_default();
    let mut turn = ledger.turns.begin(epoch).await?;
    let current = turn.epoch();
    let at = ledger.clock.now();
    let mut changes = Changes::default();
    let accepted = |work: &Work| work.leadership().epoch() == current;
    let accepted_work = batch.iter().filter(|work| accepted(work));
    let mut recorded = match write(ledger, &mut turn, at, accepted_work, &mut changes).await {
        Ok(recorded) => recorded.into_iter(),
        Err(error) => {
            if !error.is_broken_connection() {
                turn.undo().await;
            }
            return Err(error);
        }
    };
    match turn.commit(ledger).await {
        Ok(Outcome::Committed) => ledger.publish(at, changes),
        // A newer leader has taken over before it could be found out: the ledger is its own now.
        Err(StoreError::Fenced { held, current }) => {
            return Ok(batch.iter().map(|_| Err(StoreError::Fenced { held, current })).collect());
        }
        Ok(Outcome::Undone(error)) | Err(error) => return Err(error),
    }
    Ok(batch
        .iter()
        .map(|work| match work {
            work if !accepted(work) => Err(StoreError::Fenced { held: work.leadership().epoch(), current }),
            Work::Record { .. } => recorded.next().unwrap_or(Err(StoreError::Closed)).map(Answer::Recorded),
            Work::Attempt { .. } | Work::Sightings { .. } => Ok(Answer::Done),
        })
        .collect())
}

/// Writes what was accepted; an answer for each recording, in order.
async fn write<'w>(
    ledger: &Inner,
    turn: &mut Turn,
    at: Timestamp,
    accepted: impl Iterator<Item = &'w Work> + Clone,
    changes: &mut Changes,
) -> Result<Vec<Result<Vec<RecordedRun>, StoreError>>, StoreError> {
    let connection = turn.connection();
    // Rows first, then what happened to them: a sighting may be of a run recorded just before.
    let recordings: Vec<_> = accepted
        .clone()
        .filter_map(|work| if let Work::Record { recording, .. } = work { Some(recording) } else { None })
        .collect();
    let recorded = record::record(connection, at, &recordings, ledger.shadow, changes).await?;
    let outcomes: Vec<_> = accepted
        .clone()
        .filter_map(|work| if let Work::Attempt { attempt, .. } = work { Some(attempt) } else { None })
        .collect();
    attempts::record(connection, at, &outcomes, changes).await?;
    for work in accepted {
        if let Work::Sightings { airflow, sightings, watermark, .. } = work {
            sightings::record(connection, at, &ledger.store_id, airflow, sightings, *watermark, changes).await?;
        }
    }
    Ok(recorded)
}

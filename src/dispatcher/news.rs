//! What the dispatcher hears: runs that are to go, answers to its requests, and what others did to runs.
//!
//! It comes over three ways that keep no order among each other; `queue` makes one story of it.

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::compare::Compare;
use super::queue::{Answer, LANE_LENGTH, Stage, Word};
use super::{Dispatcher, Message};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::ScheduleName;
use crate::store::model::{AttemptOutcome, LedgerEvent, Ticket};
use crate::store::patience::answer_while_leading;
use crate::store::{ActiveRun, StoreError};

/// When a run is tried again whose outcome the ledger would not take.
const RECORD_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(5);

impl Dispatcher {
    pub(super) fn offer(&mut self, tickets: Vec<Ticket>) {
        let now = self.clock.now();
        for mut ticket in tickets {
            ticket.schedule = self.name_now(ticket.schedule);
            let turn = self.turn(&ticket.schedule);
            if let Some(lanes) = self.airflows.get_mut(ticket.airflow.as_str()) {
                let schedule = ticket.schedule.clone();
                lanes.queue.offer(ticket, turn, now);
                if let Some(hold) = self.holds.get(&schedule) {
                    let given_back = lanes.queue.hold(&schedule, *hold, self.locks.earlier());
                    self.locks.give_back(given_back);
                }
            } else {
                tracing::warn!(
                    run.id = ticket.id.0,
                    schedule = %ticket.schedule,
                    airflow = %ticket.airflow,
                    "a run waits for an Airflow that is not configured any more; it stays pending until that is back"
                );
            }
        }
    }
    pub(super) fn opened(&mut self, mut active: ActiveRun) {
        active.schedule = self.name_now(active.schedule);
        let turn = self.turn(&active.schedule);
        if let Some(lanes) = self.airflows.get_mut(active.airflow.as_str()) {
            lanes.queue.opened(active, turn);
        }
    }

    pub(super) fn handle(&mut self, message: Message) {
        match message {
            Message::Answered { airflow, load } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.pace.on_answer(load, lanes.in_flight, Instant::now());
                    lanes.in_flight -= 1;
                }
            }
            Message::GuestLeft { airflow } => self.guest_left(&airflow),
            Message::Recorded { mut ticket, outcome } => {
                ticket.schedule = self.name_now(ticket.schedule);
                let Some(lanes) = self.airflows.get_mut(ticket.airflow.as_str()) else { return };
                let (schedule, run) = (ticket.schedule.clone(), ticket.id);
                let known = match outcome {
                    Ok(AttemptOutcome::Accepted(state)) if state.as_run_state().is_open() => {
                        let active = ActiveRun {
                            id: ticket.id,
                            schedule: ticket.schedule,
                            airflow: ticket.airflow,
                            dag_id: ticket.dag_id,
                            dag_run_id: ticket.dag_run_id,
                        };
                        lanes.queue.answered(&schedule, run, Answer::Open(active))
                    }
                    Ok(AttemptOutcome::Accepted(_) | AttemptOutcome::Rejected) => {
                        lanes.queue.answered(&schedule, run, Answer::Done)
                    }
                    Ok(AttemptOutcome::Retry { at } | AttemptOutcome::Unknown { at }) => {
                        lanes.queue.try_again(*ticket, at)
                    }
                    // Whoever leads next finds the row as it was.
                    Err(StoreError::Fenced { .. } | StoreError::Closed) => true,
                    Err(error) => {
                        tracing::warn!(
                            run.id = run.0,
                            schedule = %schedule,
                            error = %error,
                            "the outcome of a request could not be recorded; Airflow is asked again in a moment"
                        );
                        let at = self.clock.now().saturating_add(RECORD_AGAIN_AFTER).unwrap_or(Timestamp::MAX);
                        lanes.queue.try_again(*ticket, at)
                    }
                };
                if !known {
                    self.locks.give_back([run]);
                }
            }
            Message::NotEnded { airflow, run } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.cancelling.remove(&run);
                }
            }
            Message::OwnsLock { airflow, schedule, run, lock } => {
                let schedule = self.name_now(schedule);
                // It may have ended while the ledger was read.
                let stage = self.airflows.get(airflow.as_str()).and_then(|lanes| lanes.queue.stage(&schedule, run));
                if matches!(stage, Some(Stage::Open(_) | Stage::Handed(Word::Open(_)))) {
                    self.locks.owns(run, lock);
                }
            }
            Message::Refilled { airflow, schedule, tickets } => {
                let schedule = self.name_now(schedule);
                let Some(lanes) = self.airflows.get_mut(&airflow) else { return };
                let (tickets, full) = match tickets {
                    Ok(tickets) => {
                        let full = tickets.len() >= LANE_LENGTH;
                        (tickets, full)
                    }
                    Err(error) => {
                        tracing::warn!(schedule = %schedule, error = %error, "waiting runs could not be read; tried again");
                        (Vec::new(), true)
                    }
                };
                let news = lanes.queue.refilled(&schedule, tickets);
                self.offer(news);
                if full && let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.queue.refill_later(&schedule);
                }
            }
        }
    }

    /// Follows what others did to runs: the monitor closed one, an operator gave one up.
    pub(super) async fn follow(
        &mut self,
        event: Result<LedgerEvent, RecvError>,
        events: &mut broadcast::Receiver<LedgerEvent>,
        tickets: &mut mpsc::UnboundedReceiver<Ticket>,
    ) {
        let mut next = Some(event);
        while let Some(event) = next {
            // A run is delivered before anything is told of it, so it must not be taken in after that.
            self.offer(std::iter::from_fn(|| tickets.try_recv().ok()).collect());
            match event {
                Ok(event) => self.follow_one(&event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "too many changes at once; the open rows are read again");
                    self.compare(Compare::Known).await;
                }
                Err(RecvError::Closed) => return,
            }
            next = match events.try_recv() {
                Ok(event) => Some(Ok(event)),
                Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            };
        }
    }

    fn follow_one(&mut self, event: &LedgerEvent) {
        let Some(schedule) = ScheduleName::new(&event.schedule).map(|name| self.name_now(name)) else { return };
        if matches!(event.state, RunState::Queued | RunState::Running) {
            let active = ActiveRun {
                id: event.run,
                schedule,
                airflow: event.airflow.clone(),
                dag_id: event.dag_id.clone(),
                dag_run_id: event.dag_run_id.clone(),
            };
            self.look_for_lock(&active);
            self.opened(active);
        } else if !event.state.is_open() {
            let mut known = false;
            if let Some(lanes) = self.airflows.get_mut(event.airflow.as_str()) {
                lanes.cancelling.remove(&event.run);
                known = lanes.queue.closed(&schedule, event.run, event.state.was_accepted());
            }
            // While a request is on its way, its DAG run may still come about.
            if !known {
                self.locks.give_back([event.run]);
            }
        }
    }

    /// A run that is in Airflow and was not sent there just now (somebody cleared its DAG run) may own a
    /// lock that it has given back.
    fn look_for_lock(&self, active: &ActiveRun) {
        let stage =
            self.airflows.get(active.airflow.as_str()).and_then(|lanes| lanes.queue.stage(&active.schedule, active.id));
        // Those that wait in line have not asked for theirs.
        let asked = stage.is_some_and(|stage| *stage != Stage::Waiting);
        if asked || !self.locks.are_there() {
            return;
        }
        let (ledger, leadership, to_loop) = (self.ledger.clone(), self.leadership.clone(), self.to_loop.clone());
        let (airflow, schedule, run) = (active.airflow.clone(), active.schedule.clone(), active.id);
        self.requests.spawn(async move {
            let what = "the lock of a run that is in Airflow again";
            match answer_while_leading(&leadership, what, || ledger.lock_of(run)).await {
                Some(Ok(Some(lock))) => drop(to_loop.send(Message::OwnsLock { airflow, schedule, run, lock })),
                Some(Ok(None)) | None => {}
                Some(Err(error)) => tracing::warn!(
                    run.id = run.0,
                    error = %error,
                    "whether a run that was taken up again owns a lock could not be read; it runs without it"
                ),
            }
        });
    }

    /// A run has its lock: it goes as soon as there is a place.
    pub(super) fn has_lock(&mut self, run: RunId) {
        if !self.airflows.values_mut().any(|lanes| lanes.queue.has_lock(run)) {
            tracing::debug!(run.id = run.0, "a run got a lock that it does not wait for any more");
        }
    }
}

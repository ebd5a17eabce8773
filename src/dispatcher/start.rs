//! What the dispatcher begins: requests for runs whose turn it is, and what else they need first.
//!
//! Whatever waits for an answer runs beside the loop and tells it by a [`Message`].

use std::sync::Arc;
use std::time::Duration;

use super::guests::Moment;
use super::queue::LANE_LENGTH;
use super::request::Request;
use super::{Dispatcher, Message, PAGE};
use crate::domain::run::RunId;
use crate::domain::schedule::{RetryPolicy, TriggerKind};
use crate::store::model::{AttemptOutcome, Ticket};
use crate::store::patience::answer_while_leading;

/// When Airflow is told again to end a run that a newer one replaces.
const END_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Dispatcher {
    /// Starts as many requests as may be in flight.
    pub(super) fn pump(&mut self) {
        let now = self.clock.now();
        let names: Vec<Arc<str>> = self.airflows.keys().cloned().collect();
        for name in names {
            if self.airflows.get(&name).is_none_or(|lanes| lanes.target.is_none()) {
                continue;
            }
            while let Some(ticket) = self.airflows.get_mut(&name).and_then(|lanes| lanes.queue.next_to_lock()) {
                self.lock(&name, ticket);
            }
            self.admit(&name, Moment::BeforeRuns);
            // Asked once: what may start together must not start one by one.
            let full = self.airflows.get(&name).map_or(0, |lanes| lanes.in_flight + lanes.room());
            while let Some(ticket) = self
                .airflows
                .get_mut(&name)
                .and_then(|lanes| (lanes.in_flight < full).then(|| lanes.queue.take(now)).flatten())
            {
                self.submit(&name, ticket);
            }
            self.admit(&name, Moment::AfterRuns);
            self.replace_running(&name);
            self.refill(&name);
        }
    }

    /// Why a run is to be skipped, if it is. A run by hand goes all the same, and one that was tried
    /// before may be in Airflow already.
    fn skip_reason(&self, ticket: &Ticket) -> Option<Arc<str>> {
        let new = ticket.attempts == 0 && !self.locks.earlier().contains(&ticket.id);
        let reason = self.skipping.get(&ticket.schedule)?;
        (new && ticket.trigger != TriggerKind::Manual).then(|| Arc::clone(reason))
    }

    /// Asks for the lock of a run that nothing else stands in the way of.
    fn lock(&mut self, name: &Arc<str>, ticket: Ticket) {
        if let Some(reason) = self.skip_reason(&ticket) {
            self.skip(ticket, reason);
        } else if let Some(lanes) = self.airflows.get_mut(name) {
            self.locks.ask(&ticket);
            lanes.queue.wait_for_lock(ticket);
        }
    }

    fn submit(&mut self, name: &Arc<str>, ticket: Ticket) {
        if let Some(reason) = self.skip_reason(&ticket) {
            self.skip(ticket, reason);
            return;
        }
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        // Nobody is handed out while there is no room, and without a target there is none.
        let Some(target) = &lanes.target else { return };
        lanes.in_flight += 1;
        let schedule = self.in_force.schedules.get(&ticket.schedule);
        let request = Request {
            airflow: target.airflow.clone(),
            name: Arc::clone(name),
            ledger: self.ledger.clone(),
            leadership: self.leadership.clone(),
            clock: self.clock.clone(),
            policy: schedule.map_or_else(RetryPolicy::default, |schedule| schedule.retry),
            link: self.link.clone(),
            to_loop: self.to_loop.clone(),
        };
        self.requests.spawn(request.make(ticket));
    }

    /// Lets a policy close a run instead of submitting it.
    fn skip(&self, ticket: Ticket, reason: Arc<str>) {
        let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
        let to_loop = self.to_loop.clone();
        self.requests.spawn(async move {
            let skipping = answer_while_leading(&leadership, "a run to be skipped", || {
                ledger.skip(&leadership, ticket.id, &reason)
            });
            // Without the lead it is left to whoever has it.
            let Some(skipped) = skipping.await else { return };
            let outcome = skipped.map(|_| AttemptOutcome::Rejected);
            // The loop outlives what it spawns.
            let _ = to_loop.send(Message::Recorded { ticket: Box::new(ticket), outcome });
        });
    }

    /// Ends the runs that a newer one is waiting to replace, each once.
    fn replace_running(&mut self, name: &Arc<str>) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        let Some(target) = &lanes.target else { return };
        for active in lanes.queue.to_cancel() {
            if !lanes.cancelling.insert(active.id) {
                continue;
            }
            let (active, airflow, name) = (active.clone(), target.airflow.clone(), Arc::clone(name));
            let (ledger, leadership, to_loop) = (self.ledger.clone(), self.leadership.clone(), self.to_loop.clone());
            self.requests.spawn(async move {
                // A newer leader may be starting what this one would end.
                let confirming =
                    answer_while_leading(&leadership, "the end of a run", || ledger.confirm_lead(&leadership));
                if !matches!(confirming.await, Some(Ok(()))) {
                    return;
                }
                match airflow.fail_run(&active.dag_id, &active.dag_run_id).await {
                    Ok(()) => tracing::info!(
                        run.id = active.id.0,
                        schedule = %active.schedule,
                        "ended a DAG run for a newer occurrence (overlap = \"cancel_running\")"
                    ),
                    Err(error) => {
                        tracing::warn!(
                            run.id = active.id.0,
                            schedule = %active.schedule,
                            error = %error,
                            "a DAG run could not be ended for a newer occurrence, which waits; tried again soon"
                        );
                        // Nobody waits for it once the lead is given up.
                        let pause = tokio::time::sleep(END_AGAIN_AFTER);
                        if leadership.lost().run_until_cancelled(pause).await.is_some() {
                            let _ = to_loop.send(Message::NotEnded { airflow: name, run: active.id });
                        }
                    }
                }
            });
        }
    }

    fn refill(&mut self, name: &Arc<str>) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        for schedule in lanes.queue.take_overflowed() {
            let (ledger, to_loop, airflow) = (self.ledger.clone(), self.to_loop.clone(), Arc::clone(name));
            self.requests.spawn(async move {
                let limit = u32::try_from(LANE_LENGTH).unwrap_or(PAGE);
                let tickets = ledger.pending(Some(schedule.as_str()), RunId(0), limit).await;
                // The loop has ended: the rows are read again by whoever leads next.
                let _ = to_loop.send(Message::Refilled { airflow, schedule, tickets });
            });
        }
    }
}

//! One request for a run: what is sent, what came of it, and its line in the ledger.
//!
//! It runs beside the loop, which hears twice of it: when the answer is in, and when it is recorded.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Message;
use super::retry::conclude;
use crate::airflow::{self, Airflow, Submission};
use crate::clock::Clock;
use crate::domain::note::{self, NoteFacts};
use crate::domain::schedule::RetryPolicy;
use crate::metrics::{self, LatenessStep};
use crate::store::model::{AttemptOutcome, AttemptRecord, Ticket};
use crate::store::{Leadership, Ledger};

/// One request with its recording; runs beside the loop.
pub(super) struct Request {
    pub(super) airflow: Airflow,
    pub(super) name: Arc<str>,
    pub(super) ledger: Ledger,
    pub(super) leadership: Leadership,
    pub(super) clock: Clock,
    pub(super) policy: RetryPolicy,
    pub(super) link: Option<Arc<str>>,
    pub(super) to_loop: mpsc::UnboundedSender<Message>,
}

impl Request {
    /// Submits the run, and records what came of it.
    pub(super) async fn make(self, mut ticket: Ticket) {
        let started_at = self.clock.now();
        let link = self.link.as_deref().map(|base| format!("{base}/api/v1/runs/{}", ticket.id));
        if ticket.first_attempt_at.is_none() {
            metrics::lateness(ticket.trigger, LatenessStep::Submit, started_at.duration_since(ticket.due_at));
        }
        let note = note::compose(&NoteFacts {
            store_id: self.ledger.store_id(),
            schedule: ticket.schedule.as_str(),
            trigger: ticket.trigger,
            due_at: ticket.due_at,
            cause: None,
            link: link.as_deref(),
        });
        let submission = Submission {
            dag_id: &ticket.dag_id,
            dag_run_id: &ticket.dag_run_id,
            conf: &ticket.conf,
            logical_date: ticket.logical_date,
            data_interval: ticket.data_interval,
            note: &note,
            store_id: self.ledger.store_id(),
            lookup_only: ticket.lookup_only,
        };
        let submitted = airflow::submit(&self.airflow, &submission).await;
        let ended_at = self.clock.now();
        // The loop outlives its requests, so nobody is missing at the other end.
        let answered = Message::Answered { airflow: self.name, load: submitted.load };
        let _ = self.to_loop.send(answered);

        let number = ticket.attempts + 1;
        let conclusion = conclude(submitted.outcome, &ticket, self.policy, number, started_at, ended_at);
        let record = AttemptRecord {
            run: ticket.id,
            number,
            started_at,
            ended_at,
            http_status: conclusion.http_status,
            detail: conclusion.detail,
            outcome: conclusion.outcome.clone(),
        };
        if let Some(detail) = record.detail.as_deref() {
            tracing::debug!(run.id = ticket.id.0, schedule = %ticket.schedule, attempt = number, detail, "Airflow answered");
        }
        metrics::attempt_ended(&ticket.airflow, record.outcome.as_str());
        let outcome = self.ledger.record_attempt(&self.leadership, record).await.map(|()| conclusion.outcome);
        ticket.attempts = number;
        ticket.first_attempt_at.get_or_insert(started_at);
        ticket.lookup_only |= matches!(outcome, Ok(AttemptOutcome::Unknown { .. }));
        let _ = self.to_loop.send(Message::Recorded { ticket: Box::new(ticket), outcome });
    }
}

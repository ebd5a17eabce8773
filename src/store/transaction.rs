//! A transaction of an operator's action: the same lock, epoch and announcements as the writer's.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::AnyConnection;

use super::model::Ticket;
use super::turn::{Outcome, Turn};
use super::writer::{Changes, Move};
use super::{Leadership, Ledger, StoreError};

/// How long an operator waits for the outcome of a commit. It is found out all the same.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(10);

/// An open writing transaction; dropped without [`Self::commit`], it never happened.
pub(super) struct Transaction<'l> {
    ledger: &'l Ledger,
    turn: Turn,
    at: Timestamp,
    changes: Changes,
}

impl Ledger {
    /// Begins a transaction under the epoch of `leadership`.
    pub(super) async fn begin(&self, leadership: &Leadership) -> Result<Transaction<'_>, StoreError> {
        let turn = self.0.turns.begin(leadership.epoch()).await?;
        if leadership.epoch() != turn.epoch() {
            leadership.give_up();
            return Err(StoreError::Fenced { held: leadership.epoch(), current: turn.epoch() });
        }
        Ok(Transaction { ledger: self, turn, at: self.0.clock.now(), changes: Changes::default() })
    }
}

impl Transaction<'_> {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        self.turn.connection()
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.ledger.0.shadow
    }

    /// The one time that everything in this transaction happens at.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    /// What the transaction is going to announce.
    pub(super) fn parts(&mut self) -> (&mut AnyConnection, Timestamp, &mut Changes) {
        (self.turn.connection(), self.at, &mut self.changes)
    }

    /// Announces a move once committed.
    pub(super) fn moved(&mut self, to: Move) {
        self.changes.moves.push(to);
    }

    /// Hands a run to the dispatcher once committed.
    pub(super) fn dispatch(&mut self, ticket: Ticket) {
        self.changes.tickets.push(ticket);
    }

    /// Announces that a schedule was paused or resumed, once committed.
    pub(super) fn paused_or_resumed(&mut self) {
        self.changes.pauses = true;
    }

    /// Commits and announces.
    ///
    /// Whoever asked may go away, and the database may not answer for a long time. What it did is
    /// found out and announced all the same, or a run that it has would wait for nobody.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let (ledger, turn, at, changes) = (self.ledger.clone(), self.turn, self.at, self.changes);
        let commit = tokio::spawn(async move {
            match turn.commit(&ledger.0).await? {
                Outcome::Committed => {
                    ledger.0.writable();
                    ledger.0.publish(at, changes);
                    Ok(())
                }
                Outcome::Undone(error) => Err(error),
            }
        });
        match tokio::time::timeout(OUTCOME_PATIENCE, commit).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::OutcomeUnknown),
        }
    }
}

//! A transaction of an operator's action: the same lock, epoch and announcements as the writer's.

use jiff::Timestamp;
use sqlx::{Any, AnyConnection};

use super::model::Ticket;
use super::writer::{Changes, Move, lock_epoch};
use super::{Leadership, Ledger, StoreError};

/// An open writing transaction; dropped without [`Self::commit`], it never happened.
pub(super) struct Transaction<'l> {
    ledger: &'l Ledger,
    inner: sqlx::Transaction<'static, Any>,
    at: Timestamp,
    changes: Changes,
}

impl Ledger {
    /// Begins a transaction under the epoch of `leadership`.
    pub(super) async fn begin(&self, leadership: &Leadership) -> Result<Transaction<'_>, StoreError> {
        let mut inner = self.0.write_pool.begin().await?;
        let current = lock_epoch(&mut inner).await?;
        if leadership.epoch() != current {
            leadership.give_up();
            return Err(StoreError::Fenced { held: leadership.epoch(), current });
        }
        Ok(Transaction { ledger: self, inner, at: self.0.clock.now(), changes: Changes::default() })
    }
}

impl Transaction<'_> {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.inner
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
        (&mut self.inner, self.at, &mut self.changes)
    }

    /// Announces a move once committed.
    pub(super) fn moved(&mut self, to: Move) {
        self.changes.moves.push(to);
    }

    /// Hands a run to the dispatcher once committed.
    pub(super) fn dispatch(&mut self, ticket: Ticket) {
        self.changes.tickets.push(ticket);
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await?;
        self.ledger.0.publish(self.at, self.changes);
        Ok(())
    }
}

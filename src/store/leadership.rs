//! Leadership as a value: proof that this process took the lead, handed to all who schedule.
//!
//! It cannot be made outside the store. It holds an epoch, a counter that whoever takes the lead
//! raises; every write compares it inside its own transaction, so a leader that was replaced while
//! it slept is refused however late it wakes up.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::sql::Columns;
use super::{Ledger, StoreError};

/// Who took the lead last, as the store has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lead {
    /// The epoch in force; 0 before anybody has led.
    pub epoch: i64,
    /// What the leader said of itself when it took the lead.
    pub leader: Option<String>,
    /// When it did.
    pub since: Option<Timestamp>,
}

impl Ledger {
    /// Who took the lead last. One small read, cheap enough for every second.
    pub async fn lead(&self) -> Result<Lead, StoreError> {
        let sql = "SELECT epoch, leader, leader_since FROM ledger WHERE singleton = 1";
        let rows = self.0.lead_reader.fetch(sql, []).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt { what: "the ledger has no identity".to_owned() })?;
        let mut columns = Columns::of(row);
        Ok(Lead { epoch: columns.integer()?, leader: columns.optional_text()?, since: columns.optional_time()? })
    }

    /// Fails with [`StoreError::Fenced`] when a newer leader has taken over. What was seen before this
    /// succeeds is not of a newer leader's making.
    pub async fn confirm_lead(&self, leadership: &Leadership) -> Result<(), StoreError> {
        let current = self.lead().await?.epoch;
        if current == leadership.epoch() {
            return Ok(());
        }
        leadership.give_up();
        Err(StoreError::Fenced { held: leadership.epoch(), current })
    }
}

/// Proof of having taken the lead in one epoch.
#[derive(Debug, Clone)]
pub struct Leadership {
    epoch: i64,
    lost: CancellationToken,
}

impl Leadership {
    pub(super) fn new(epoch: i64) -> Self {
        Self { epoch, lost: CancellationToken::new() }
    }

    /// The epoch that it was taken in.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Is cancelled when a newer epoch has refused this one, or when it was given up.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives the lead up: everything that acts under it stops.
    pub fn give_up(&self) {
        self.lost.cancel();
    }
}

//! Leadership as a value: proof that this process took the lead, handed to all who schedule.
//!
//! It cannot be made outside the store. It holds an epoch, a counter that whoever takes the lead
//! raises; every write compares it inside its own transaction, so a leader that was replaced while
//! it slept is refused however late it wakes up.

use tokio_util::sync::CancellationToken;

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

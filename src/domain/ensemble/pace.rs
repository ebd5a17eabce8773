//! How long things must last before they are told.
//!
//! What gets worse is told quickly, and not at a single look: an election takes a moment, a packet is
//! lost. What gets better must last, the longer the more often it has come back, so that what flaps is
//! one event with a count. All of it follows from the interval of the looks.

use std::time::Duration;

use jiff::SignedDuration;

/// How soon a first bad look is followed by another one, at most.
const CONFIRM_MOST: Duration = Duration::from_secs(3);

/// How many such pauses servers may take to elect a leader while a majority of them is there.
const ELECTION_PAUSES: i32 = 4;

/// How many intervals what got better must last.
const HOLD_INTERVALS: i32 = 3;

/// How often the hold doubles.
const DOUBLINGS_MOST: u32 = 3;

/// After how many intervals of being well what went wrong before is forgotten.
const WINDOW_INTERVALS: i32 = 40;

/// The times that follow from how often an ensemble is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    interval: Duration,
}

impl Pace {
    /// How many bad looks, each on its own, are told even though none lasted.
    pub(super) const BLIPS: u32 = 3;

    /// Of an ensemble that is looked at so often.
    pub fn of(interval: Duration) -> Self {
        Self { interval }
    }

    /// How long something bad must last, and how soon it is looked at again.
    pub fn confirm(self) -> Duration {
        self.interval.min(CONFIRM_MOST)
    }

    /// How long an election may take before the quorum counts as lost.
    pub(super) fn election(self) -> SignedDuration {
        signed(self.confirm()).saturating_mul(ELECTION_PAUSES)
    }

    /// How long something must be well that was seen bad `count` times.
    pub(super) fn hold(self, count: u32) -> SignedDuration {
        let doublings = count.saturating_sub(1).min(DOUBLINGS_MOST);
        signed(self.interval).saturating_mul(HOLD_INTERVALS).saturating_mul(1 << doublings)
    }

    /// How long something must be well until its count begins anew.
    pub(super) fn window(self) -> SignedDuration {
        signed(self.interval).saturating_mul(WINDOW_INTERVALS)
    }
}

/// Intervals are a day at most.
pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

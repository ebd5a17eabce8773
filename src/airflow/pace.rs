//! How many requests one Airflow gets at once.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// What an answer says about Airflow's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It answered in its own time.
    Fine {
        /// From sending the request to the last byte of its answer, without logins and look-ups.
        round_trip: Duration,
    },
    /// It failed, timed out or asked for less.
    Overloaded,
    /// Nothing: there was no answer, or none that Airflow worked for.
    Unknown,
}

/// The limit of requests in flight.
#[derive(Debug)]
pub struct Pace {
    limit: usize,
}

impl Pace {
    /// A limit that is found.
    pub fn auto() -> Self {
        Self { limit: 1 }
    }

    /// A limit that is given.
    pub fn fixed(limit: NonZeroU32) -> Self {
        Self { limit: usize::try_from(limit.get()).unwrap_or(usize::MAX) }
    }

    /// How many requests may be in flight.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An answer came in while `in_flight` requests were under way.
    pub fn on_answer(&mut self, _load: Load, _in_flight: usize, _now: Instant) {}
}

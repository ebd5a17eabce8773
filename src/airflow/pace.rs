//! How many requests one Airflow gets at once.

use std::time::Duration;

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

//! How many requests one Airflow gets at once.

/// What an answer says about Airflow's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It answered in its own time.
    Fine,
    /// It failed, timed out or asked for less.
    Overloaded,
    /// Nothing: there was no answer, or none that Airflow worked for.
    Unknown,
}

//! The ledger: the database of runs, attempts, cursors and all that must outlive the process.
pub mod model;

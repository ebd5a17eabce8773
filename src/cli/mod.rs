//! The command line: what a person types, and what is printed for them.
//!
//! Commands print and decide nothing. Those that read open the ledger, so they work when no member is
//! serving; those that act ask a serving member over its HTTP API, so that there is one place where
//! actions are checked and audited. Standard output carries the answer alone; progress, logs and
//! errors go to standard error.

mod arguments;
mod error;
mod output;
mod time;

pub use arguments::{Cli, Command, GlobalOptions, OutputFormat};
pub use error::{CommandError, Exit};

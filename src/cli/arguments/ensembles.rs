//! Arguments of the commands that are about ZooKeeper itself: health, locks, and taking up a rebuilt one.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::super::time::TimeArgument;
use super::values::{parse_check, parse_duration, parse_wait};
use crate::domain::health::Check;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArguments {
    /// A name of `[ensemble.NAME]` [default: the home ensemble, or the only one]
    #[arg(value_name = "ENSEMBLE")]
    pub ensemble: Option<String>,
    /// Only these checks; they alone decide on the exit code
    #[arg(long = "check", value_name = "CHECK", value_delimiter = ',', value_parser = parse_check)]
    pub checks: Vec<Check>,
    /// How long after the first sample the second is taken; `0s` takes one, and what compares two is unknown
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_wait)]
    pub interval: Duration,
    /// How long one answer of a server may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_wait)]
    pub timeout: Duration,
    /// Print one line with performance data, as monitoring plugins do
    #[arg(long)]
    pub brief: bool,
    /// Show what the leader found last, from the ledger, instead of looking now; a stale report is unknown
    #[arg(long)]
    pub last: bool,
    /// List how verdicts changed, from the ledger, instead of looking now
    #[arg(long, conflicts_with_all = ["last", "brief"])]
    pub history: bool,
    /// Changes seen at this time or later; `12h` is twelve hours ago
    #[arg(long, value_name = "TIME", requires = "history")]
    pub since: Option<TimeArgument>,
    /// The newest this many changes
    #[arg(long, value_name = "COUNT", default_value_t = 50, requires = "history", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
}

/// Arguments of `adopt`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("decision").required(true))]
pub struct AdoptArguments {
    /// Run the znodes that exist; after a restored ledger, what changed since
    #[arg(long, group = "decision")]
    pub fire: bool,
    /// Take the znodes that exist as handled
    #[arg(long, group = "decision")]
    pub ignore: bool,
    /// Another ensemble than the home one
    #[arg(long, value_name = "NAME")]
    pub ensemble: Option<String>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `lock`.
#[derive(Debug, Args)]
#[command(after_help = LOCK_EXIT_CODES)]
pub struct LockArguments {
    /// The lock: an absolute path of a znode, or a name under `locks/` of flowkeeper's root
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Wait at most this long for the lock, `30s` for example [default: without limit]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "no_wait")]
    pub timeout: Option<Duration>,
    /// Do not wait: give up at once when somebody else holds the lock
    #[arg(long)]
    pub no_wait: bool,
    /// How long the command has to end by itself (SIGTERM) when the lock is lost, before SIGKILL
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "2s")]
    pub grace: Duration,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

const LOCK_EXIT_CODES: &str = "\
Exit codes: the command's own, or 128 and the number of the signal that ended it.
  123  the lock was lost, and the command was ended
  124  somebody else holds the lock (--no-wait), or held it for too long (--timeout)
  125  the lock could not be asked for: the configuration, or ZooKeeper cannot be reached
  126  the command could not be started
  127  there is no such command
  2    the command line of flowkeeper itself is wrong";

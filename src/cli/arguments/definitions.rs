//! Arguments of the commands that bring what is in ZooKeeper into force: `config` and `sync`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// What to do with the definitions in ZooKeeper.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check FILE and what it includes, and put it in force on all members
    Push(PushArguments),
    /// Write the definitions in ZooKeeper to FILE, or print them
    Pull(PullArguments),
    /// Show what FILE would change, schedule by schedule
    Diff(DiffArguments),
    /// List the definitions that were in force, or print one
    History(HistoryArguments),
    /// Put definitions that were in force before in force again
    Rollback(RollbackArguments),
}

/// Arguments of `config push`.
#[derive(Debug, Args)]
pub struct PushArguments {
    /// The definitions: a file, which may include others beside and below it
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The version that FILE was made from [default: what the line on top of FILE says]
    #[arg(long, value_name = "VERSION")]
    pub base: Option<String>,
    /// How it is done.
    #[command(flatten)]
    pub how: ReplaceArguments,
}

/// What `config push` and `config rollback` have in common.
#[derive(Debug, Args)]
pub struct ReplaceArguments {
    /// Take the place of whatever is in force
    #[arg(long)]
    pub force: bool,
    /// Why, for the history and the audit
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
}

/// Arguments of `config pull`.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Where to write; what was pushed with it goes beside and below it [default: print it]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Write over files that were edited
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `config diff`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct DiffArguments {
    /// What to compare [default: the definitions in ZooKeeper]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, group = "what")]
    pub file: Option<PathBuf>,
    /// With what: a version of the history [default: the definitions in ZooKeeper]
    #[arg(long, value_name = "VERSION", group = "what")]
    pub from: Option<String>,
}

/// Arguments of `config history`.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Print this one: its number, its version, or the beginning of that
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
}

/// Arguments of `config rollback`.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// A number of `config history`, a version, or the beginning of one
    #[arg(value_name = "VERSION")]
    pub version: String,
    /// The version that is to be given up [default: the one in ZooKeeper now]
    #[arg(long, value_name = "VERSION")]
    pub base: Option<String>,
    /// How it is done.
    #[command(flatten)]
    pub how: ReplaceArguments,
}

/// What to do about syncs.
#[derive(Debug, Subcommand)]
pub enum SyncCommand {
    /// Show by key how Airflow differs from what znodes want; changes nothing
    Diff(SyncDiffArguments),
    /// Compare now and bring Airflow into step; the member that leads does it
    Apply(SyncApplyArguments),
}

/// Arguments of `sync diff`.
#[derive(Debug, Args)]
#[command(after_help = SYNC_DIFF_EXIT_CODES)]
pub struct SyncDiffArguments {
    /// One sync [default: all]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Arguments of `sync apply`.
#[derive(Debug, Args)]
pub struct SyncApplyArguments {
    /// One sync [default: all]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Change nothing, and show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Delete everything in Airflow that has this sync's mark and that no znode wants, also when nothing is left
    /// in ZooKeeper
    #[arg(long)]
    pub prune: bool,
    /// Undo changes that people made in Airflow
    #[arg(long)]
    pub repair: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

const SYNC_DIFF_EXIT_CODES: &str =
    "Exit codes: 0 everything is in step, 1 something differs, 2 usage or configuration, 3 it could not be compared";

//! The commands, their arguments and the help that explains them.

mod definitions;
mod ensembles;
mod runs;
mod schedules;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use jiff::tz::TimeZone;

pub(super) use definitions::{
    ConfigCommand, DiffArguments, HistoryArguments, PullArguments, PushArguments, RollbackArguments,
    SyncApplyArguments, SyncCommand, SyncDiffArguments,
};
pub(super) use ensembles::{AdoptArguments, HealthArguments, LockArguments};
pub(super) use runs::{
    AuditArguments, GroupBy, RunActionArguments, RunsAction, RunsArguments, RunsFilterArguments, StatsArguments,
};
pub(super) use schedules::{
    BackfillArguments, NextArguments, PauseArguments, ResumeArguments, SchedulesArguments, TriggerArguments,
    WhyArguments,
};
use values::parse_zone;

/// Triggers Airflow DAGs on cron, on znode changes and on the health of a ZooKeeper ensemble, exactly once, and
/// remembers what became of them.
#[derive(Debug, Parser)]
#[command(name = "flowkeeper", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalOptions {
    /// The configuration file
    #[arg(
        short = 'c',
        long,
        global = true,
        value_name = "FILE",
        env = "FLOWKEEPER_CONFIG",
        default_value = "flowkeeper.toml",
        value_hint = ValueHint::FilePath,
        help_heading = "Global options"
    )]
    pub config: PathBuf,

    /// How to print the answer; `github` is for `check` alone
    #[arg(short = 'o', long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    pub output: OutputFormat,

    /// When to use colours; `auto` is on a terminal, unless `NO_COLOR` is set
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = false,
        help_heading = "Global options"
    )]
    pub color: ColorChoice,

    /// The zone of times that are printed, and of those typed without an offset [default: the schedule's]
    #[arg(long, global = true, value_name = "ZONE", value_parser = parse_zone, help_heading = "Global options")]
    pub timezone: Option<TimeZone>,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document, times in UTC.
    Json,
    /// Comma-separated values with a header, times in UTC.
    Csv,
    /// Workflow commands that mark faults in a pull request.
    Github,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented configuration and DAGs to start from
    Init(InitArguments),
    /// Check the configuration and print every fault in it
    Check(CheckArguments),
    /// Check the health of a ZooKeeper ensemble now; exit 0 ok, 1 warning, 2 critical, 3 unknown
    Health(HealthArguments),
    /// Run a member: trigger DAGs, follow their runs, answer the HTTP API
    Serve(ServeArguments),
    /// Print the next times of a schedule, or of any cron expression
    Next(NextArguments),
    /// List the schedules, or show one
    Schedules(SchedulesArguments),
    /// Pause a schedule, until it is resumed or until a time
    Pause(PauseArguments),
    /// Resume a paused schedule
    Resume(ResumeArguments),
    /// Run a schedule's DAG now
    Trigger(TriggerArguments),
    /// Run past times of a cron schedule that did not run
    Backfill(BackfillArguments),
    /// Show what ran, what did not, and why
    Runs(RunsArguments),
    /// Count runs, and show how late and how long they were
    Stats(StatsArguments),
    /// Explain what was decided for a schedule around a time
    Why(WhyArguments),
    /// Show who paused, resumed, triggered, retried, pushed or rolled back what
    Audit(AuditArguments),
    /// Show each Airflow and its schedulers, triggerers and DAG processors
    Airflow,
    /// Show the members, and which of them leads
    Members,
    /// Compare Airflow's variables, pools and connections with znodes, or bring them into step
    #[command(subcommand)]
    Sync(SyncCommand),
    /// Go on after ZooKeeper was rebuilt or the ledger restored
    Adopt(AdoptArguments),
    /// Push, pull, compare and roll back definitions that are kept in ZooKeeper
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show who holds distributed locks, and who waits for them
    Locks,
    /// Run a command while it holds a distributed lock
    Lock(LockArguments),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the completion script of a shell
    Completions(CompletionsArguments),
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Where to write; existing files are never overwritten
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Also ask Airflow and ZooKeeper: reachable, DAGs there, not paused, without import errors
    #[arg(long)]
    pub online: bool,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Record everything, submit nothing to Airflow
    #[arg(long)]
    pub shadow: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;
    use crate::domain::health::Check;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_is_shown_by_its_id_and_lists_take_filters() {
        let shown = Cli::try_parse_from(["flowkeeper", "runs", "42"]).expect("an id alone");
        assert!(matches!(shown.command, Command::Runs(RunsArguments { id: Some(id), .. }) if id == "42"));
        let listed = Cli::try_parse_from(["flowkeeper", "runs", "--state", "failed,missed", "--since", "2h"]);
        assert!(matches!(listed.expect("filters").command, Command::Runs(runs) if runs.filter.state.len() == 2));
        let retried = Cli::try_parse_from(["flowkeeper", "runs", "retry", "42"]).expect("an action");
        assert!(matches!(retried.command, Command::Runs(RunsArguments { action: Some(RunsAction::Retry(_)), .. })));
        Cli::try_parse_from(["flowkeeper", "runs", "42", "--follow"]).expect_err("one run is not followed");
    }

    #[test]
    fn health_takes_checks_and_short_waits() {
        let health =
            Cli::try_parse_from(["flowkeeper", "health", "solr", "--check", "quorum,canary", "--interval", "500ms"]);
        let Command::Health(health) = health.expect("right").command else { panic!("another command") };
        assert_eq!(health.checks, [Check::Quorum, Check::Canary]);
        assert_eq!((health.interval, health.timeout), (Duration::from_millis(500), Duration::from_secs(5)));
        Cli::try_parse_from(["flowkeeper", "health", "--history", "--since", "12h"]).expect("right");
        for wrong in [["--since", "12h"], ["--history", "--last"], ["--history", "--brief"], ["--check", "ruok"]] {
            Cli::try_parse_from(["flowkeeper", "health"].iter().chain(&wrong)).expect_err(wrong[1]);
        }
        for wait in ["5", "-1s", "2h", "soon"] {
            Cli::try_parse_from(["flowkeeper", "health", &format!("--interval={wait}")]).expect_err(wait);
        }
    }

    #[test]
    fn next_wants_a_schedule_or_an_expression() {
        Cli::try_parse_from(["flowkeeper", "next"]).expect_err("neither");
        Cli::try_parse_from(["flowkeeper", "next", "x", "--cron", "@daily"]).expect_err("both");
        Cli::try_parse_from(["flowkeeper", "next", "--cron", "@daily", "--timezone", "Europe/Berlin"]).expect("one");
        Cli::try_parse_from(["flowkeeper", "next", "x", "--timezone", "Europe/Atlantis"]).expect_err("no such zone");
    }
}

//! Arguments of the commands that look back: runs, statistics and the audit.

use clap::{Args, Subcommand, ValueEnum};

use super::super::time::TimeArgument;
use super::values::parse_state;
use crate::domain::run::RunState;

/// Arguments of `runs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArguments {
    /// Show this one: its number or its `dag_run_id`
    #[arg(value_name = "ID", conflicts_with_all = ["schedule", "dag", "state", "owner", "since", "until", "limit", "follow"])]
    pub id: Option<String>,
    /// What is listed.
    #[command(flatten)]
    pub filter: RunsFilterArguments,
    /// What is done with one.
    #[command(subcommand)]
    pub action: Option<RunsAction>,
}

/// Which runs are listed.
#[derive(Debug, Args)]
pub struct RunsFilterArguments {
    /// Of this schedule
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Of this DAG
    #[arg(long, value_name = "DAG_ID")]
    pub dag: Option<String>,
    /// In one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = parse_state)]
    pub state: Vec<RunState>,
    /// Of this owner
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// Due at this time or later; `2h` is two hours ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<TimeArgument>,
    /// Due before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<TimeArgument>,
    /// The newest this many [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: Option<u32>,
    /// Go on printing each change until interrupted; with `-o json` one object a line
    #[arg(short = 'f', long)]
    pub follow: bool,
}

/// What can be done with a run.
#[derive(Debug, Subcommand)]
pub enum RunsAction {
    /// Run it again: failed ones are cleared in Airflow, those that never ran are submitted
    Retry(RunActionArguments),
    /// End it: pending ones are skipped, running ones are set failed in Airflow
    Cancel(RunActionArguments),
}

/// Which run something is done with.
#[derive(Debug, Args)]
pub struct RunActionArguments {
    /// Its number or its `dag_run_id`
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArguments {
    /// What to group by
    #[arg(long, value_enum, default_value_t)]
    pub by: GroupBy,
    /// Runs due at this time or later; `7d` is seven days ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<TimeArgument>,
}

/// What statistics are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum GroupBy {
    /// A line a schedule.
    #[default]
    Schedule,
    /// A line a DAG.
    Dag,
    /// A line an owner.
    Owner,
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// The newest this many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
}

//! Arguments of the commands that are about one schedule, or list all.

use clap::Args;

use super::super::time::TimeArgument;
use super::values::parse_name;
use crate::domain::schedule::ScheduleName;

/// Arguments of `next`.
#[derive(Debug, Args)]
pub struct NextArguments {
    /// A schedule with a cron trigger
    #[arg(value_name = "NAME", value_parser = parse_name, required_unless_present = "cron")]
    pub name: Option<ScheduleName>,
    /// A cron expression, read in the zone of `--timezone` (UTC without it)
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "name")]
    pub cron: Option<String>,
    /// How many times to print
    #[arg(short = 'n', long = "count", value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub count: u32,
    /// Times after this one [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<TimeArgument>,
}

/// Arguments of `schedules`.
#[derive(Debug, Args)]
pub struct SchedulesArguments {
    /// Show this one
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: Option<ScheduleName>,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub struct PauseArguments {
    /// The schedule
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: ScheduleName,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// When the pause ends by itself; `2h` is two hours from now
    #[arg(long, value_name = "TIME")]
    pub until: Option<TimeArgument>,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArguments {
    /// The schedule
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: ScheduleName,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `trigger`.
#[derive(Debug, Args)]
pub struct TriggerArguments {
    /// The schedule
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: ScheduleName,
    /// The DAG run's conf, a JSON object, in place of the one in the configuration
    #[arg(long, value_name = "JSON")]
    pub conf: Option<String>,
    /// The same key is the same run: a script that is repeated triggers once
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Wait for the end of the run; exit 1 when it does not end in success
    #[arg(long)]
    pub wait: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `backfill`.
#[derive(Debug, Args)]
pub struct BackfillArguments {
    /// A schedule with a cron trigger
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: ScheduleName,
    /// The first nominal time, inclusive; `7d` is seven days ago
    #[arg(long, value_name = "TIME")]
    pub from: TimeArgument,
    /// The last nominal time, inclusive; not later than now
    #[arg(long, value_name = "TIME")]
    pub to: TimeArgument,
    /// Also clear failed runs in Airflow
    #[arg(long)]
    pub failed: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// The schedule
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: ScheduleName,
    /// Around this time; `2h` is two hours ago [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<TimeArgument>,
}

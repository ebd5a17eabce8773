//! The commands, their arguments and the help that explains them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::time::TimeArgument;
use crate::domain::health::Check;
use crate::domain::run::RunState;
use crate::domain::schedule::ScheduleName;

/// Triggers Airflow DAGs on cron and on znode changes, exactly once, and remembers what became of them.
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
    /// Write a commented configuration and an example DAG to start from
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
    /// Show who paused, resumed, triggered, retried or cancelled what
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

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Record everything, submit nothing to Airflow
    #[arg(long)]
    pub shadow: bool,
}

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

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// The newest this many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
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
    /// Why, for the history and the audit
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
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

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

fn parse_name(text: &str) -> Result<ScheduleName, String> {
    ScheduleName::new(text).ok_or_else(|| {
        "a schedule's name has lower-case letters, digits and hyphens, at most 64, and starts with a letter or digit"
            .to_owned()
    })
}

fn parse_check(text: &str) -> Result<Check, String> {
    Check::parse(text).ok_or_else(|| {
        let known: Vec<_> = Check::all().map(Check::as_str).collect();
        format!("a check is one of {}", known.join(", "))
    })
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    /// Longer than anybody waits for a command.
    const LONGEST: Duration = Duration::from_hours(1);
    let parsed = text.parse::<SignedDuration>().ok().and_then(|wait| Duration::try_from(wait).ok());
    parsed.filter(|wait| *wait <= LONGEST).ok_or_else(|| "a duration is `500ms`, `2s` or `1m`, up to `1h`".to_owned())
}

fn parse_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "not an IANA time zone; for example `Europe/Berlin` or `UTC`".to_owned())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    super::time::parse_distance(text)
        .and_then(|distance| Duration::try_from(distance).ok())
        .ok_or_else(|| "not a duration; for example `30s`, `5m` or `1h30m`".to_owned())
}

fn parse_state(text: &str) -> Result<RunState, String> {
    RunState::parse(text).ok_or_else(|| {
        let known: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        format!("a state is one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

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

//! `[[schedule]]` and `[defaults]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::leaf::{Choice, DurationText, InitialText, Names, Table, Words};
use crate::domain::ensemble::EnsembleEvent;
use crate::domain::schedule::{
    Catchup, Consume, DataInterval, FoldPolicy, GapPolicy, LogicalDate, Overlap, PausedDag, WatchScope,
};
use crate::domain::znode::ChangeKind;

/// A named rule: when its trigger comes due, its DAG runs. It has one of `cron`, `znode`
/// and `ensemble`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Schedule {
    /// The name: `[a-z0-9][a-z0-9-]{0,63}`, unique across all files. It is part of every run id.
    #[schemars(required, regex(pattern = "^[a-z0-9][a-z0-9-]{0,63}$"))]
    pub(in crate::config) name: Option<String>,
    /// The name that this schedule had before: its cursor and history go on. Of a schedule that was renamed
    /// several times, all of them, the latest first: members that have not seen every set find it by any of them.
    pub(in crate::config) was: Option<Names>,
    /// The DAG to run.
    #[schemars(required)]
    pub(in crate::config) dag: Option<String>,
    /// The Airflow that has it, where there are several.
    pub(in crate::config) airflow: Option<String>,
    /// Who answers for it; for filters and statistics.
    pub(in crate::config) owner: Option<String>,
    /// Wall-clock times: five fields (minute, hour, day of month, month, day of week), six with
    /// seconds first, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Day of month and
    /// day of week combine as in Vixie cron: where both are given, either is enough.
    pub(in crate::config) cron: Option<String>,
    /// A change in ZooKeeper.
    pub(in crate::config) znode: Option<Znode>,
    /// A change of an ensemble's health.
    pub(in crate::config) ensemble: Option<EnsembleEvents>,
    /// An IANA name, `Europe/Berlin`: the zone of `cron`, of the templates' times, and of tables.
    #[schemars(extend("default" = "UTC"))]
    pub(in crate::config) timezone: Option<String>,
    /// A condition, as an expression of Jinja: over `znode` and `previous`, the state last handled, or
    /// over `ensemble`. Where it is false, nothing runs.
    pub(in crate::config) when: Option<String>,
    /// The DAG run's `conf`: a table of any depth. Its strings may be templates of Jinja over
    /// `schedule`, `nominal_time`, `dag_run_id`, `znode`, `previous`, `ensemble` and `changes`; a
    /// string that is exactly one expression keeps its type. Without it: `{ znode = … }` for a
    /// change, `{ changes = … }` for a batch, `{ ensemble = … }` for an ensemble,
    /// `{ schedule = …, nominal_time = … }` for a time.
    pub(in crate::config) conf: Option<Table>,
    /// What exists when a znode trigger looks for the first time: `"ignore"` it, `"fire"` for it,
    /// or fire for what was changed by a later transaction, `{ after_zxid = "0x…" }`, or at a later
    /// time, `{ after = "…" }`. With `consume` it is `"fire"`.
    #[schemars(extend("default" = "ignore"))]
    pub(in crate::config) initial: Option<InitialText>,
    /// The DAG run's logical date: the nominal time (cron's default), the start of the data interval
    /// (as Airflow 2's own cron schedules have it), or none (the default of the other triggers).
    pub(in crate::config) logical_date: Option<Choice<LogicalDate>>,
    /// The DAG run's data interval: the nominal time alone, from the previous nominal time to this
    /// one (the default with `logical_date = "interval_start"`), or as the DAG itself derives it
    /// (the default of the other triggers).
    pub(in crate::config) data_interval: Option<Choice<DataInterval>>,
    /// What came due while nobody could act: nothing of it runs, the latest (cron's default), or
    /// all (the default of znode triggers). Ensemble triggers are never late.
    pub(in crate::config) catchup: Option<Choice<Catchup>>,
    /// How far back catch-up reaches; without it there is no limit. What is older is `missed`.
    pub(in crate::config) catchup_window: Option<DurationText>,
    /// What happens while an earlier run is open: run beside it (the default of znode and
    /// ensemble triggers),
    /// skip (cron's default), wait and let a newer one take the place, wait its turn, or end the
    /// earlier one as failed.
    pub(in crate::config) overlap: Option<Choice<Overlap>>,
    /// What a wall time that does not exist or exists twice becomes.
    pub(in crate::config) dst: Option<Dst>,
    /// The longest delay to add to a nominal time; hashed from name and time, so it is the same
    /// after a restart.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) jitter: Option<DurationText>,
    /// How long and how often a request to Airflow is tried.
    pub(in crate::config) retry: Option<Retry>,
    /// When a run counts as late.
    pub(in crate::config) deadline: Option<Deadline>,
    /// The name of a distributed lock, the znode `locks/NAME` under the `root` of `[zookeeper]`: a run
    /// waits for it before it is submitted, and holds it until its DAG run ends. Runs with the same
    /// lock never overlap, whichever schedules they are of. Needs `[zookeeper]`.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$"))]
    pub(in crate::config) lock: Option<String>,
    /// What happens while the DAG is paused in Airflow: hold (as if this schedule were paused),
    /// submit (the DAG run waits in Airflow), or skip. A run with a `lock` is never submitted to a
    /// paused DAG; it waits instead.
    #[schemars(extend("default" = "hold"))]
    pub(in crate::config) paused_dag: Option<Choice<PausedDag>>,
    /// Whether the schedule rests.
    #[schemars(extend("default" = false))]
    pub(in crate::config) paused: Option<bool>,
}

/// Values for schedules that do not set them. Those of cron apply to schedules with `cron`,
/// `initial` to those with `znode`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Defaults {
    /// As in `[[schedule]]`.
    pub(in crate::config) airflow: Option<String>,
    /// As in `[[schedule]]`.
    pub(in crate::config) owner: Option<String>,
    /// As in `[[schedule]]`.
    pub(in crate::config) timezone: Option<String>,
    /// As in `[[schedule]]`; for `znode`, and not where `consume` decides it.
    pub(in crate::config) initial: Option<InitialText>,
    /// As in `[[schedule]]`; for `cron`.
    pub(in crate::config) logical_date: Option<Choice<LogicalDate>>,
    /// As in `[[schedule]]`; for `cron`.
    pub(in crate::config) data_interval: Option<Choice<DataInterval>>,
    /// As in `[[schedule]]`.
    pub(in crate::config) catchup: Option<Choice<Catchup>>,
    /// As in `[[schedule]]`.
    pub(in crate::config) catchup_window: Option<DurationText>,
    /// As in `[[schedule]]`; not where `consume` decides it.
    pub(in crate::config) overlap: Option<Choice<Overlap>>,
    /// As in `[[schedule]]`; for `cron`.
    pub(in crate::config) dst: Option<Dst>,
    /// As in `[[schedule]]`; for `cron`.
    pub(in crate::config) jitter: Option<DurationText>,
    /// As in `[[schedule]]`.
    pub(in crate::config) retry: Option<Retry>,
    /// As in `[[schedule]]`.
    pub(in crate::config) deadline: Option<Deadline>,
    /// As in `[[schedule]]`.
    pub(in crate::config) lock: Option<String>,
    /// As in `[[schedule]]`.
    pub(in crate::config) paused_dag: Option<Choice<PausedDag>>,
    /// As in `[[schedule]]`.
    pub(in crate::config) paused: Option<bool>,
}

/// A change in ZooKeeper.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Znode {
    /// The znode: an absolute path, below the ensemble's chroot if it has one.
    #[schemars(required)]
    pub(in crate::config) path: Option<String>,
    /// The ensemble, a name of `[ensemble.NAME]`; without it the home ensemble.
    pub(in crate::config) ensemble: Option<String>,
    /// What is watched: the znode itself, its children (a run for each), or everything below it. What
    /// flowkeeper makes is left out: the canaries of health checks, and its own `root` where that is below
    /// `path`.
    #[schemars(extend("default" = "node"))]
    pub(in crate::config) watch: Option<Choice<WatchScope>>,
    /// The kinds of change that fire. `["created", "changed"]` where it is left out, `["created"]`
    /// for children.
    pub(in crate::config) on: Option<Vec<Choice<ChangeKind>>>,
    /// Globs of paths below `path`, of which one must match: `*` stays within one part of the path,
    /// `**` crosses them.
    pub(in crate::config) include: Option<Vec<String>>,
    /// Wait until nothing has changed for this long, and run once for the whole batch.
    pub(in crate::config) settle: Option<DurationText>,
    /// With `settle`: run at the latest when the first change of the batch is this old.
    pub(in crate::config) settle_max: Option<DurationText>,
    /// With `settle`: run at the latest when the batch holds this many changes.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::config) batch: Option<u32>,
    /// For children: delete the child when Airflow has accepted its run, or when the DAG run has
    /// succeeded.
    pub(in crate::config) consume: Option<Choice<Consume>>,
}

/// A change of an ensemble's health. `docs/ensemble-triggers.md` says what each event is, and when it is
/// told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct EnsembleEvents {
    /// The ensemble, a name of `[ensemble.NAME]`; without it the home ensemble, which `home` names too.
    pub(in crate::config) name: Option<String>,
    /// What fires. Several that happen at one moment are one run.
    #[schemars(required)]
    pub(in crate::config) on: Option<Vec<Choice<EnsembleEvent>>>,
}

/// What a wall time that the zone skips or repeats becomes. The defaults depend on the hour field:
/// without `*` they are `shift` and `first`, with `*` (also `*/n`) `skip` and `both`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Dst {
    /// A wall time that does not exist: 02:30 becomes 03:30, or is left out.
    pub(in crate::config) gap: Option<Choice<GapPolicy>>,
    /// A wall time that exists twice: the first, the last, or both.
    pub(in crate::config) fold: Option<Choice<FoldPolicy>>,
}

/// How long and how often a request to Airflow is tried.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Retry {
    /// For how long, from the first attempt.
    #[schemars(extend("default" = "6h"))]
    pub(in crate::config) r#for: Option<DurationText>,
    /// The first pause.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) initial: Option<DurationText>,
    /// The longest pause.
    #[schemars(extend("default" = "1m"))]
    pub(in crate::config) max: Option<DurationText>,
}

/// When a run counts as late, from its nominal time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Deadline {
    /// It should have started.
    pub(in crate::config) start: Option<DurationText>,
    /// It should have ended.
    pub(in crate::config) finish: Option<DurationText>,
}

impl Words for WatchScope {
    const WORDS: &'static [(&'static str, Self)] =
        &[("node", Self::Node), ("children", Self::Children), ("subtree", Self::Subtree)];
}

impl Words for ChangeKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("created", Self::Created), ("changed", Self::Changed), ("deleted", Self::Deleted)];
}

impl Words for EnsembleEvent {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("leader_changed", Self::LeaderChanged),
        ("degraded", Self::Degraded),
        ("quorum_lost", Self::QuorumLost),
        ("recovered", Self::Recovered),
        ("server_down", Self::ServerDown),
        ("server_up", Self::ServerUp),
    ];
}

impl Words for Consume {
    const WORDS: &'static [(&'static str, Self)] = &[("accepted", Self::Accepted), ("success", Self::Success)];
}

impl Words for LogicalDate {
    const WORDS: &'static [(&'static str, Self)] =
        &[("nominal", Self::Nominal), ("interval_start", Self::IntervalStart), ("none", Self::None)];
}

impl Words for DataInterval {
    const WORDS: &'static [(&'static str, Self)] =
        &[("exact", Self::Exact), ("previous", Self::Previous), ("dag", Self::Dag)];
}

impl Words for Catchup {
    const WORDS: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("latest", Self::Latest), ("all", Self::All)];
}

impl Words for Overlap {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("allow", Self::Allow),
        ("skip", Self::Skip),
        ("queue_one", Self::QueueOne),
        ("queue", Self::Queue),
        ("cancel_running", Self::CancelRunning),
    ];
}

impl Words for PausedDag {
    const WORDS: &'static [(&'static str, Self)] =
        &[("hold", Self::Hold), ("submit", Self::Submit), ("skip", Self::Skip)];
}

impl Words for GapPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("shift", Self::Shift), ("skip", Self::Skip)];
}

impl Words for FoldPolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("first", Self::First), ("last", Self::Last), ("both", Self::Both)];
}

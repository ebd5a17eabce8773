//! A schedule: one trigger, one target DAG and the policies between them.
//!
//! These are checked values: whatever holds a [`Schedule`] may rely on its name being legal, its
//! cron expression parsed, its zone known and its templates compiled. Only `config` makes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::calendar::CronExpression;
use super::ensemble::EnsembleEvent;
use super::template::{ConfTemplate, Expression};
use super::znode::ChangeKind;

/// The name of a schedule: `[a-z0-9][a-z0-9-]{0,63}`, unique in one configuration.
///
/// Cheap to clone; it is part of every run id, so it never contains a character that a DAG run id
/// may not hold.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleName(Arc<str>);

impl ScheduleName {
    /// The longest legal name, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// Checks `name`; `None` when it is not a legal schedule name.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = name.bytes();
        let first = bytes.next()?;
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        (legal(first) && bytes.all(|b| legal(b) || b == b'-') && name.len() <= Self::MAX_LENGTH)
            .then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for ScheduleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A named rule: when this trigger comes due, that DAG runs, under these policies.
///
/// Two are equal when they were written alike: whoever works with one need not hear of the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Unique name.
    pub name: ScheduleName,
    /// The names under which its cursor may have been kept before a rename, the latest first.
    pub was: Vec<ScheduleName>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Name of the Airflow that holds the DAG, a key of `[airflow.NAME]`.
    pub airflow: Arc<str>,
    /// The DAG to run.
    pub dag_id: Arc<str>,
    /// The zone in which its times are shown and in which templates read them; for a cron trigger,
    /// also the zone of its fields.
    pub timezone: TimeZone,
    /// What makes it due.
    pub trigger: Trigger,
    /// Condition over what came due; `None` is always true.
    pub when: Option<Expression>,
    /// What the DAG run's `conf` is rendered from; `None` is the default of the trigger.
    pub conf: Option<ConfTemplate>,
    /// Which logical date the DAG run gets.
    pub logical_date: LogicalDate,
    /// Which data interval the DAG run gets.
    pub data_interval: DataInterval,
    /// What happens to occurrences that came due while nobody could act.
    pub catchup: Catchup,
    /// How far back catch-up reaches; `None` is without limit.
    pub catchup_window: Option<Duration>,
    /// What happens to an occurrence while an earlier run is open.
    pub overlap: Overlap,
    /// How long and how often a request to Airflow is tried.
    pub retry: RetryPolicy,
    /// When a run counts as late.
    pub deadline: Deadline,
    /// Name of the distributed lock that a run holds until its DAG run ends; recorded with each run.
    pub lock: Option<Arc<str>>,
    /// What happens while the DAG is paused in Airflow.
    pub paused_dag: PausedDag,
    /// Paused by the configuration itself.
    pub paused: bool,
}

/// What makes a schedule due.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Wall-clock times.
    Cron(CronTrigger),
    /// A change in ZooKeeper.
    Znode(ZnodeTrigger),
    /// A change of an ensemble's health.
    Ensemble(EnsembleTrigger),
}

impl Trigger {
    /// The kind as the ledger and the API spell it.
    pub fn kind(&self) -> TriggerKind {
        match self {
            Self::Cron(_) => TriggerKind::Cron,
            Self::Znode(_) => TriggerKind::Znode,
            Self::Ensemble(_) => TriggerKind::Ensemble,
        }
    }
}

impl Trigger {
    /// A text that changes when the trigger's cursor loses its meaning: the times, the znodes or the kinds of
    /// change that it is about. How they are gathered is not part of it. That of a cron trigger also has all that
    /// is needed to settle what it made due.
    pub fn identity(&self) -> String {
        match self {
            Self::Cron(cron) => {
                let zone = cron.timezone.iana_name().unwrap_or_default();
                let jitter = match cron.jitter {
                    Duration::ZERO => String::new(),
                    jitter => format!("|{}", jitter.as_millis()),
                };
                format!("cron|{}|{zone}|{:?}|{:?}{jitter}", cron.expression, cron.dst.gap, cron.dst.fold)
            }
            Self::Znode(znode) => format!(
                "znode {} {} {:?} created {} changed {} deleted {} include {:?}",
                znode.ensemble.as_deref().unwrap_or(""),
                znode.path,
                znode.watch,
                znode.on.created,
                znode.on.changed,
                znode.on.deleted,
                znode.include.as_ref().map(PathGlobs::patterns)
            ),
            Self::Ensemble(trigger) => {
                let on: Vec<&str> = trigger.on.iter().map(EnsembleEvent::as_str).collect();
                format!("ensemble {} on {}", trigger.ensemble, on.join(" "))
            }
        }
    }

    /// Whether two identities are of cron triggers with the same nominal times, however they are spelled.
    pub fn same_times(one: &str, other: &str) -> bool {
        let of = Self::cron_of_identity;
        of(one).zip(of(other)).is_some_and(|(one, other)| one.same_times(&other))
    }

    /// Whether two identities are of znode triggers that watch the same place, so that znodes which both
    /// are about were handled alike.
    pub fn same_znodes(one: &str, other: &str) -> bool {
        let place = |identity: &str| {
            let (place, _) = identity.strip_prefix("znode ")?.rsplit_once(" created ")?;
            Some(place.to_owned())
        };
        place(one).is_some_and(|one| place(other) == Some(one))
    }

    /// The cron trigger that an [`Self::identity`] tells of; `None` for texts that tell of none.
    pub fn cron_of_identity(identity: &str) -> Option<CronTrigger> {
        let mut parts = identity.strip_prefix("cron|")?.split('|');
        let (expression, zone, gap, fold) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let expression = CronExpression::parse(expression).ok()?;
        let mut trigger = CronTrigger::new(expression, TimeZone::get(zone).ok()?);
        trigger.dst.gap = [GapPolicy::Shift, GapPolicy::Skip].into_iter().find(|known| format!("{known:?}") == gap)?;
        trigger.dst.fold = [FoldPolicy::First, FoldPolicy::Last, FoldPolicy::Both]
            .into_iter()
            .find(|known| format!("{known:?}") == fold)?;
        if let Some(jitter) = parts.next() {
            trigger.jitter = Duration::from_millis(jitter.parse().ok()?);
        }
        Some(trigger)
    }
}

/// The kinds of trigger, as the ledger and the API spell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerKind {
    /// A nominal time.
    Cron,
    /// A znode change.
    Znode,
    /// A transition of an ensemble's health.
    Ensemble,
    /// A person or a script.
    Manual,
}

impl TriggerKind {
    /// The spelling of the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Znode => "znode",
            Self::Ensemble => "ensemble",
            Self::Manual => "manual",
        }
    }

    /// The opposite of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cron, Self::Znode, Self::Ensemble, Self::Manual].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A cron trigger. Equal ones are also spelled alike.
#[derive(Debug, Clone)]
pub struct CronTrigger {
    /// The parsed expression.
    pub expression: CronExpression,
    /// The zone whose wall clock the fields read.
    pub timezone: TimeZone,
    /// What a wall time that does not exist, or exists twice, becomes.
    pub dst: DstPolicy,
    /// The longest delay that is added to a nominal time, hashed from name and nominal time.
    pub jitter: Duration,
}

impl PartialEq for CronTrigger {
    fn eq(&self, other: &Self) -> bool {
        let alike = self.expression.as_str() == other.expression.as_str();
        alike && self.same_times(other) && self.jitter == other.jitter
    }
}

/// What happens to wall times around a change of the zone's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DstPolicy {
    /// A wall time that does not exist.
    pub gap: GapPolicy,
    /// A wall time that exists twice.
    pub fold: FoldPolicy,
}

/// What a wall time that the zone skips becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapPolicy {
    /// It is read with the offset before the gap: 02:30 becomes 03:30.
    Shift,
    /// It is dropped.
    Skip,
}

/// Which pass of a wall time that the zone repeats counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldPolicy {
    /// The earlier one.
    First,
    /// The later one.
    Last,
    /// Each.
    Both,
}

/// A znode trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct ZnodeTrigger {
    /// Name of the ensemble; `None` is the home ensemble.
    pub ensemble: Option<Arc<str>>,
    /// Absolute path of the znode that is watched, or of the parent or root.
    pub path: Arc<str>,
    /// What below `path` is watched.
    pub watch: WatchScope,
    /// The kinds of change that fire.
    pub on: ChangeKinds,
    /// Only paths (relative to `path`) that match one of these fire; `None` is all.
    pub include: Option<PathGlobs>,
    /// A batch is due when nothing has changed for this long; `None` fires each change at once.
    pub settle: Option<Duration>,
    /// … or when its first change is this old.
    pub settle_max: Option<Duration>,
    /// … or when it holds this many changes.
    pub batch: Option<usize>,
    /// What exists at first sight.
    pub initial: Initial,
    /// When a child is deleted after its run.
    pub consume: Option<Consume>,
}

/// An ensemble trigger.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleTrigger {
    /// Name of the ensemble, under which its health is kept.
    pub ensemble: Arc<str>,
    /// What fires.
    pub on: EnsembleEvents,
}

/// A set of [`EnsembleEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnsembleEvents(u8);

impl EnsembleEvents {
    /// Whether this fires.
    pub fn contains(self, event: EnsembleEvent) -> bool {
        self.0 & Self::bit(event) != 0
    }

    /// Those that fire, in the order of [`EnsembleEvent`].
    pub fn iter(self) -> impl Iterator<Item = EnsembleEvent> {
        EnsembleEvent::ALL.into_iter().filter(move |event| self.contains(*event))
    }

    fn bit(event: EnsembleEvent) -> u8 {
        1 << event as u8
    }
}

impl FromIterator<EnsembleEvent> for EnsembleEvents {
    fn from_iter<T: IntoIterator<Item = EnsembleEvent>>(events: T) -> Self {
        Self(events.into_iter().fold(0, |bits, event| bits | Self::bit(event)))
    }
}

/// Glob patterns over paths, with the text that they were made of.
#[derive(Debug, Clone)]
pub struct PathGlobs {
    patterns: Vec<String>,
    set: globset::GlobSet,
}

impl PartialEq for PathGlobs {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl PathGlobs {
    /// Compiles the patterns; `*` does not cross a `/`.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = globset::GlobSetBuilder::new();
        for pattern in patterns {
            set.add(globset::GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        Ok(Self { patterns: patterns.to_vec(), set: set.build()? })
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether one of them matches.
    pub fn is_match(&self, path: &str) -> bool {
        self.set.is_match(path)
    }
}

/// What a znode trigger watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchScope {
    /// The znode itself.
    Node,
    /// Its direct children, a run a child.
    Children,
    /// Everything below it.
    Subtree,
}

/// The set of [`ChangeKind`] that fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeKinds {
    /// A znode appeared.
    pub created: bool,
    /// Its data was set.
    pub changed: bool,
    /// It was deleted.
    pub deleted: bool,
}

impl ChangeKinds {
    /// Whether `kind` fires.
    pub fn contains(self, kind: ChangeKind) -> bool {
        match kind {
            ChangeKind::Created => self.created,
            ChangeKind::Changed => self.changed,
            ChangeKind::Deleted => self.deleted,
        }
    }
}

/// What a trigger does with znodes that exist when it first looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// They are known from then on, and do not fire.
    Ignore,
    /// They fire as created.
    Fire,
    /// Those changed by a later transaction fire.
    AfterZxid(i64),
    /// Those changed (by the ensemble's clock) later fire.
    After(Timestamp),
}

/// When the child that a run came from is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consume {
    /// When Airflow has accepted the run.
    Accepted,
    /// When the DAG run has succeeded.
    Success,
}

/// Which logical date the DAG run gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogicalDate {
    /// The nominal time.
    Nominal,
    /// The start of the data interval, as Airflow 2's cron schedules have it.
    IntervalStart,
    /// None (Airflow 2: the time of the request).
    None,
}

/// Which data interval the DAG run gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataInterval {
    /// Both ends are the nominal time.
    Exact,
    /// From the previous nominal time to this one.
    Previous,
    /// Airflow derives it from the DAG.
    Dag,
}

/// What happens to occurrences that came due while nobody could act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catchup {
    /// None of them runs.
    None,
    /// The latest runs.
    Latest,
    /// All of them run.
    All,
}

/// What happens to an occurrence while an earlier run of its schedule is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It runs beside it.
    Allow,
    /// It is skipped.
    Skip,
    /// It waits, and a newer one takes its place.
    QueueOne,
    /// It waits its turn.
    Queue,
    /// The earlier run is ended as failed in Airflow, then this one runs.
    CancelRunning,
}

/// How long and how often a request to Airflow is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// From the first attempt.
    pub total: Duration,
    /// The first pause.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { total: Duration::from_hours(6), initial: Duration::from_secs(1), max: Duration::from_mins(1) }
    }
}

/// When a run counts as late, from its nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline {
    /// It should have started.
    pub start: Option<Duration>,
    /// It should have ended.
    pub finish: Option<Duration>,
}

/// What happens while the DAG is paused in Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedDag {
    /// As if the schedule were paused.
    Hold,
    /// The run is submitted and waits in Airflow.
    Submit,
    /// The occurrence is skipped.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensemble_trigger_is_what_it_listens_to() {
        let events: EnsembleEvents = [EnsembleEvent::Recovered, EnsembleEvent::QuorumLost].into_iter().collect();
        assert_eq!(events.iter().collect::<Vec<_>>(), [EnsembleEvent::QuorumLost, EnsembleEvent::Recovered]);
        assert!(!events.contains(EnsembleEvent::ServerUp));
        let trigger = Trigger::Ensemble(EnsembleTrigger { ensemble: "main".into(), on: events });
        assert_eq!(trigger.identity(), "ensemble main on quorum_lost recovered");
        assert_eq!(EnsembleEvent::ALL.into_iter().collect::<EnsembleEvents>().iter().count(), 6);
    }

    #[test]
    fn a_trigger_is_known_again_by_its_identity() {
        for (expression, zone, gap, fold) in [
            ("30 2 * * 1-5", "Europe/Berlin", GapPolicy::Shift, FoldPolicy::First),
            ("*/10 * * * * *", "UTC", GapPolicy::Skip, FoldPolicy::Both),
            ("@daily", "America/New_York", GapPolicy::Skip, FoldPolicy::Last),
        ] {
            let mut trigger =
                CronTrigger::new(CronExpression::parse(expression).unwrap(), TimeZone::get(zone).unwrap());
            trigger.dst = DstPolicy { gap, fold };
            for jitter in [Duration::ZERO, Duration::from_mins(30)] {
                trigger.jitter = jitter;
                let identity = Trigger::Cron(trigger.clone()).identity();
                let again = Trigger::cron_of_identity(&identity).unwrap();
                assert_eq!(again, trigger, "{identity}");
                assert_eq!(Trigger::Cron(again).identity(), identity);
            }
        }
        let spelled = |text: &str| format!("cron|{text}|UTC|Shift|First");
        for (one, other, same) in [("0 0 * * *", "@daily", true), ("0 0 * * *", "0 1 * * *", false)] {
            assert_eq!(Trigger::same_times(&spelled(one), &spelled(other)), same, "{one} {other}");
        }
        assert!(Trigger::same_times(&spelled("@daily"), &(spelled("@daily") + "|60000")), "jitter moves no time");
        for (one, other, same) in [
            ("znode  /a Node created true changed true", "znode  /a Node created false changed true", true),
            ("znode  /a Node created true", "znode  /a Children created true", false),
            ("znode  /a Node created true", "znode  /b Node created true", false),
            ("znode  /a Node created true", "znode solr /a Node created true", false),
            ("cron|@daily|UTC|Shift|First", "cron|@daily|UTC|Shift|First", false),
        ] {
            assert_eq!(Trigger::same_znodes(one, other), same, "{one} {other}");
        }
        for text in [
            "",
            "cron|",
            "cron|x|UTC|Skip|Both",
            "cron|@daily|Nowhere|Skip|Both",
            "cron|@daily|UTC|Skip|Both|x",
            "znode /a",
        ] {
            assert!(Trigger::cron_of_identity(text).is_none(), "{text}");
        }
    }
}

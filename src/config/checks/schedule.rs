//! `[[schedule]]` and `[defaults]`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::super::section::Section;
use super::super::text;
use super::super::written;
use super::ensemble::ensemble_trigger;
use super::znode::{consume_conflicts, znode_trigger};
use crate::domain::calendar::{CronError, CronExpression};
use crate::domain::schedule::{
    Catchup, CronTrigger, DataInterval, Deadline, DstPolicy, FoldPolicy, GapPolicy, Initial, LogicalDate, Overlap,
    PausedDag, RetryPolicy, Schedule, ScheduleName, Trigger, TriggerKind, ZnodeTrigger,
};
use crate::domain::template::{Compiler, ConfTemplate, Expression};

/// The longest `dag_id` that Airflow stores, in characters.
const DAG_ID_MAX_LENGTH: usize = 250;

const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(366 * 24);

/// Texts that many schedules have alike, read once and shared.
#[derive(Default)]
pub(crate) struct Shared {
    compiler: Compiler,
    crons: HashMap<String, Result<CronExpression, CronError>>,
    zones: HashMap<String, Option<TimeZone>>,
    names: HashMap<String, Arc<str>>,
}

impl Shared {
    /// The shared text of a name.
    pub(crate) fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }

    fn zone(&mut self, name: &str) -> Option<TimeZone> {
        if !self.zones.contains_key(name) {
            self.zones.insert(name.to_owned(), TimeZone::get(name).ok());
        }
        self.zones.get(name).cloned().flatten()
    }

    fn cron(&mut self, text: &str) -> Result<CronExpression, CronError> {
        if !self.crons.contains_key(text) {
            self.crons.insert(text.to_owned(), CronExpression::parse(text));
        }
        match self.crons.get(text) {
            Some(known) => known.clone(),
            None => CronExpression::parse(text),
        }
    }
}

/// A checked schedule, but for what it names elsewhere: those names are looked up when all files
/// have been read.
pub(crate) struct Draft {
    pub(crate) schedule: Schedule,
    /// Where its name stands.
    pub(crate) name_at: Range<usize>,
    /// Where its Airflow is named, by itself or by defaults.
    pub(crate) airflow_at: Option<Range<usize>>,
    /// Where its ensemble is named; its `znode` or `ensemble` otherwise.
    pub(crate) ensemble_at: Option<Range<usize>>,
    /// Where its DAG is named.
    pub(crate) dag_at: Range<usize>,
    /// Where its owner is named; its header otherwise.
    pub(crate) owner_at: Range<usize>,
    /// Where the path of its znode is named; its header otherwise.
    pub(crate) path_at: Range<usize>,
    /// Where its lock is named; its name otherwise.
    pub(crate) lock_at: Range<usize>,
    /// Where its former name stands.
    pub(crate) was_at: Option<Range<usize>>,
}

/// Checked values of `[defaults]`.
#[derive(Debug, Default, Clone)]
pub(crate) struct ScheduleDefaults {
    airflow: Option<Arc<str>>,
    owner: Option<String>,
    timezone: Option<TimeZone>,
    initial: Option<Initial>,
    logical_date: Option<LogicalDate>,
    data_interval: Option<DataInterval>,
    catchup: Option<Catchup>,
    catchup_window: Option<Duration>,
    overlap: Option<Overlap>,
    gap: Option<GapPolicy>,
    fold: Option<FoldPolicy>,
    jitter: Option<Duration>,
    retry: RetryText,
    deadline: Deadline,
    lock: Option<Arc<str>>,
    paused_dag: Option<PausedDag>,
    paused: Option<bool>,
}

impl ScheduleDefaults {
    /// These values where they are set, `wider` ones elsewhere.
    pub(crate) fn over(self, wider: &Self) -> Self {
        let wider = wider.clone();
        Self {
            airflow: self.airflow.or(wider.airflow),
            owner: self.owner.or(wider.owner),
            timezone: self.timezone.or(wider.timezone),
            initial: self.initial.or(wider.initial),
            logical_date: self.logical_date.or(wider.logical_date),
            data_interval: self.data_interval.or(wider.data_interval),
            catchup: self.catchup.or(wider.catchup),
            catchup_window: self.catchup_window.or(wider.catchup_window),
            overlap: self.overlap.or(wider.overlap),
            gap: self.gap.or(wider.gap),
            fold: self.fold.or(wider.fold),
            jitter: self.jitter.or(wider.jitter),
            retry: self.retry.over(wider.retry),
            deadline: Deadline {
                start: self.deadline.start.or(wider.deadline.start),
                finish: self.deadline.finish.or(wider.deadline.finish),
            },
            lock: self.lock.or(wider.lock),
            paused_dag: self.paused_dag.or(wider.paused_dag),
            paused: self.paused.or(wider.paused),
        }
    }
}

/// The parts of `retry` that are set.
#[derive(Debug, Default, Clone, Copy)]
struct RetryText {
    total: Option<Duration>,
    initial: Option<Duration>,
    max: Option<Duration>,
}

impl RetryText {
    fn over(self, wider: Self) -> Self {
        Self { total: self.total.or(wider.total), initial: self.initial.or(wider.initial), max: self.max.or(wider.max) }
    }
}

/// `[defaults]`. An Airflow that it names is looked up with the schedules that take it.
pub(crate) fn defaults(section: &Section<'_, '_>, shared: &mut Shared) -> ScheduleDefaults {
    let written: written::Defaults = section.read();
    let dst = written.dst.unwrap_or_default();
    ScheduleDefaults {
        airflow: written.airflow.map(|name| shared.name(&name)),
        owner: written.owner,
        timezone: written.timezone.and_then(|name| zone(section, shared, &name)),
        initial: written.initial.map(|initial| initial.0),
        logical_date: written.logical_date.map(|choice| choice.0),
        data_interval: written.data_interval.map(|choice| choice.0),
        catchup: written.catchup.map(|choice| choice.0),
        catchup_window: written.catchup_window.map(|window| window.0),
        overlap: written.overlap.map(|choice| choice.0),
        gap: dst.gap.map(|choice| choice.0),
        fold: dst.fold.map(|choice| choice.0),
        jitter: written.jitter.map(|jitter| section.between(&["jitter"], jitter.0, Duration::ZERO, DAY)),
        retry: retry_text(section, written.retry),
        deadline: deadline(written.deadline),
        lock: written.lock.and_then(|name| lock(section, shared, &name)),
        paused_dag: written.paused_dag.map(|choice| choice.0),
        paused: written.paused,
    }
}

/// One `[[schedule]]`; `None` where so much is wrong that there is nothing to go on with. Its faults
/// are noted either way.
pub(crate) fn schedule(section: &Section<'_, '_>, defaults: &ScheduleDefaults, shared: &mut Shared) -> Option<Draft> {
    let written: written::Schedule = section.read();
    let name = section
        .required(&["name"], written.name, "give it a name: lower-case letters, digits and `-`, at most 64")
        .and_then(|name| legal_name(section, "name", &name));
    let was = written.was.and_then(|was| legal_name(section, "was", &was));
    let dag = section.required(&["dag"], written.dag, "name the DAG to run: dag = \"…\"");
    if let Some(dag) = dag.as_deref() {
        check_dag_id(section, dag);
    }
    let timezone = written.timezone.and_then(|name| zone(section, shared, &name));
    let timezone = timezone.or_else(|| defaults.timezone.clone()).unwrap_or(TimeZone::UTC);
    let dst = written.dst.unwrap_or_default();
    let cron = written.cron.as_deref().and_then(|text| cron(section, shared, text));
    let znode = written.znode.and_then(|znode| znode_trigger(section, znode, shared));
    let ensemble = written.ensemble.and_then(|ensemble| ensemble_trigger(section, ensemble, shared));
    let kind = trigger_kind(section);
    if let Some(kind) = kind {
        check_keys_fit(section, kind);
    }
    let when = written.when.as_deref().and_then(|text| expression(section, shared, text));
    let conf = written.conf.and_then(|_| conf(section, shared));
    if let Some(kind) = kind {
        check_variables_fit(section, kind, when.as_ref(), conf.as_ref());
    }
    let retry = retry(section, retry_text(section, written.retry), defaults.retry);
    let own_deadline = deadline(written.deadline);
    check_deadline(section, own_deadline);
    let jitter =
        written.jitter.map(|jitter| section.between(&["jitter"], jitter.0, Duration::ZERO, DAY)).or(defaults.jitter);
    let own_lock = written.lock.and_then(|name| lock(section, shared, &name));
    let own_paused_dag = written.paused_dag.map(|choice| choice.0);
    check_lock_and_pause(section, own_lock.as_ref(), own_paused_dag);
    let own_overlap = written.overlap.map(|choice| choice.0);
    let own_initial = written.initial.map(|initial| initial.0);
    let trigger = match kind? {
        TriggerKind::Cron => Trigger::Cron(cron_trigger(cron?, timezone.clone(), &dst, jitter, defaults)),
        TriggerKind::Znode => Trigger::Znode(with_initial(section, znode?, own_overlap, own_initial, defaults)),
        TriggerKind::Ensemble => Trigger::Ensemble(ensemble?),
        // No trigger of the configuration.
        TriggerKind::Manual => return None,
    };
    let is_cron = matches!(trigger, Trigger::Cron(_));
    let consumes = matches!(&trigger, Trigger::Znode(znode) if znode.consume.is_some());
    let (logical_date, data_interval) = dates(
        section,
        is_cron,
        written.logical_date.map(|choice| choice.0),
        written.data_interval.map(|choice| choice.0),
        defaults,
    );
    let overlap = own_overlap.or(if consumes { None } else { defaults.overlap });
    let overlap = overlap.unwrap_or(if is_cron { Overlap::Skip } else { Overlap::Allow });
    let catchup = catchup(section, trigger.kind(), written.catchup.map(|choice| choice.0), defaults.catchup, overlap);
    Some(Draft {
        name_at: section.span(&["name"]),
        airflow_at: airflow_at(section, defaults),
        ensemble_at: ensemble_at(section, &trigger),
        dag_at: section.span(&["dag"]),
        owner_at: section.span(&["owner"]),
        path_at: section.span(&["znode", "path"]),
        lock_at: section.span(&[if own_lock.is_some() { "lock" } else { "name" }]),
        was_at: was.is_some().then(|| section.span(&["was"])),
        schedule: Schedule {
            name: name?,
            was,
            owner: written.owner.or_else(|| defaults.owner.clone()),
            airflow: match written.airflow {
                Some(airflow) => shared.name(&airflow),
                None => defaults.airflow.clone().unwrap_or_else(|| shared.name("")),
            },
            dag_id: shared.name(&dag?),
            timezone,
            trigger,
            when,
            conf,
            logical_date,
            data_interval,
            catchup,
            catchup_window: written.catchup_window.map(|window| window.0).or(defaults.catchup_window),
            overlap,
            retry,
            deadline: Deadline {
                start: own_deadline.start.or(defaults.deadline.start),
                finish: own_deadline.finish.or(defaults.deadline.finish),
            },
            lock: own_lock.or_else(|| defaults.lock.clone()),
            paused_dag: own_paused_dag.or(defaults.paused_dag).unwrap_or(PausedDag::Hold),
            paused: written.paused.or(defaults.paused).unwrap_or(false),
        },
    })
}

/// Where the Airflow of a schedule is named; its name where defaults name it.
fn airflow_at(section: &Section<'_, '_>, defaults: &ScheduleDefaults) -> Option<Range<usize>> {
    let own = section.has("airflow");
    (own || defaults.airflow.is_some()).then(|| section.span(&[if own { "airflow" } else { "name" }]))
}

fn cron_trigger(
    expression: CronExpression,
    timezone: TimeZone,
    dst: &written::Dst,
    jitter: Option<Duration>,
    defaults: &ScheduleDefaults,
) -> CronTrigger {
    let by_itself = expression.default_dst();
    let gap = dst.gap.as_ref().map(|choice| choice.0);
    let fold = dst.fold.as_ref().map(|choice| choice.0);
    let dst = DstPolicy {
        gap: gap.or(defaults.gap).unwrap_or(by_itself.gap),
        fold: fold.or(defaults.fold).unwrap_or(by_itself.fold),
    };
    CronTrigger { expression, timezone, dst, jitter: jitter.unwrap_or_default() }
}

/// The trigger with what it does at first sight.
fn with_initial(
    section: &Section<'_, '_>,
    znode: ZnodeTrigger,
    overlap: Option<Overlap>,
    initial: Option<Initial>,
    defaults: &ScheduleDefaults,
) -> ZnodeTrigger {
    let consumes = znode.consume.is_some();
    if consumes {
        consume_conflicts(section, overlap, initial);
    }
    let by_itself = if consumes { Initial::Fire } else { defaults.initial.unwrap_or(Initial::Ignore) };
    ZnodeTrigger { initial: initial.unwrap_or(by_itself), ..znode }
}

/// Where the ensemble of a trigger is named.
fn ensemble_at(section: &Section<'_, '_>, trigger: &Trigger) -> Option<Range<usize>> {
    match trigger {
        Trigger::Cron(_) => None,
        Trigger::Znode(_) => Some(section.span(&["znode", "ensemble"])),
        Trigger::Ensemble(_) => Some(section.span(&["ensemble", "name"])),
    }
}

/// The one trigger of a schedule.
fn trigger_kind(section: &Section<'_, '_>) -> Option<TriggerKind> {
    let triggers = ["cron", "znode", "ensemble"].map(|key| section.has(key));
    match triggers {
        [true, false, false] => return Some(TriggerKind::Cron),
        [false, true, false] => return Some(TriggerKind::Znode),
        [false, false, true] => return Some(TriggerKind::Ensemble),
        [false, false, false] => {
            let hint = "add cron = \"30 2 * * *\", znode = { path = \"/…\" } or ensemble = { on = [\"quorum_lost\"] }";
            section.error(&[], "a schedule needs a trigger", hint);
        }
        _ => section.error(&[], "a schedule has one trigger, and this has several", "make a schedule of each"),
    }
    None
}

fn legal_name(section: &Section<'_, '_>, key: &str, name: &str) -> Option<ScheduleName> {
    let legal = ScheduleName::new(name);
    if legal.is_none() {
        let lower: String = name.to_lowercase().replace(['_', ' ', '.', '/'], "-");
        let hint = match ScheduleName::new(&lower) {
            Some(near) => format!("write \"{near}\": lower-case letters, digits and `-`, at most 64"),
            None => "use lower-case letters, digits and `-`, a letter or digit first, at most 64".to_owned(),
        };
        section.error(&[key], format!("\"{name}\" is not a name for a schedule"), hint);
    }
    legal
}

/// The name of a lock, which is the name of a znode and a label of metrics.
fn lock(section: &Section<'_, '_>, shared: &mut Shared, name: &str) -> Option<Arc<str>> {
    if super::is_name(name) {
        return Some(shared.name(name));
    }
    let hint = "use lower-case letters, digits, `-` and `_`, a letter or digit first, at most 64; it becomes the znode \
                locks/NAME under the root of [zookeeper]";
    section.error(&["lock"], format!("\"{name}\" is not a name for a lock"), hint);
    None
}

fn check_lock_and_pause(section: &Section<'_, '_>, lock: Option<&Arc<str>>, paused_dag: Option<PausedDag>) {
    if lock.is_some() && paused_dag == Some(PausedDag::Submit) {
        section.warning(
            &["paused_dag"],
            "a run with a lock is never submitted to a paused DAG: it would hold the lock and not run",
            "take `paused_dag` or `lock` out; as it is, runs wait until the DAG goes on",
        );
    }
}

fn check_dag_id(section: &Section<'_, '_>, dag: &str) {
    let legal = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if dag.is_empty() || dag.chars().count() > DAG_ID_MAX_LENGTH || !dag.chars().all(legal) {
        section.error(
            &["dag"],
            format!("\"{dag}\" is not the id of a DAG"),
            "Airflow allows letters, digits, `_`, `-` and `.`, at most 250",
        );
    }
}

fn zone(section: &Section<'_, '_>, shared: &mut Shared, name: &str) -> Option<TimeZone> {
    let zone = shared.zone(name);
    if zone.is_none() {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let ending = format!("/{}", name.to_lowercase().replace(' ', "_"));
        let city = names.iter().find(|known| known.to_lowercase().ends_with(&ending)).map(String::as_str);
        let near = city.or_else(|| text::nearest(name, names.iter().map(String::as_str)));
        section.error(
            &["timezone"],
            format!("there is no time zone named \"{name}\""),
            near.map_or_else(
                || "write an IANA name, such as \"Europe/Berlin\" or \"UTC\"".to_owned(),
                |near| format!("did you mean \"{near}\"?"),
            ),
        );
    }
    zone
}

fn cron(section: &Section<'_, '_>, shared: &mut Shared, text: &str) -> Option<CronExpression> {
    match shared.cron(text) {
        Ok(expression) => {
            if expression.is_never() {
                section.error(
                    &["cron"],
                    format!("\"{text}\" never comes due: no such date exists"),
                    "correct the day of month or the month; to rest a schedule, write paused = true",
                );
            }
            Some(expression)
        }
        Err(error) => {
            section.error(&["cron"], error.to_string(), error.hint());
            None
        }
    }
}

/// Keys that one kind of trigger has and the others have not.
fn check_keys_fit(section: &Section<'_, '_>, kind: TriggerKind) {
    const OF_CRON: [&str; 3] = ["dst", "jitter", "data_interval"];
    let goes_with = |key| match kind {
        TriggerKind::Cron => match key {
            "initial" => Some("`znode`"),
            "when" => Some("`znode` and `ensemble`"),
            _ => None,
        },
        TriggerKind::Znode => OF_CRON.contains(&key).then_some("`cron`"),
        TriggerKind::Ensemble | TriggerKind::Manual => match key {
            "initial" => Some("`znode`"),
            "catchup" | "catchup_window" => Some("`cron` and `znode`"),
            key => OF_CRON.contains(&key).then_some("`cron`"),
        },
    };
    for key in OF_CRON.into_iter().chain(["initial", "when", "catchup", "catchup_window"]) {
        let Some(others) = goes_with(key).filter(|_| section.has(key)) else { continue };
        section.error(&[key], format!("`{key}` goes with {others}, which this schedule has not"), "take it out");
    }
}

/// Variables that one kind of trigger has and the other has not.
fn check_variables_fit(
    section: &Section<'_, '_>,
    kind: TriggerKind,
    when: Option<&Expression>,
    conf: Option<&ConfTemplate>,
) {
    let batches = section.value(&["znode", "settle"]).is_some();
    let missing: &[(&str, &str)] = match kind {
        TriggerKind::Cron => &[
            ("znode", "a cron schedule has no znode"),
            ("previous", "a cron schedule has no znode"),
            ("changes", "a cron schedule has no changes"),
        ],
        TriggerKind::Ensemble => &[
            ("znode", "an ensemble schedule has no znode"),
            ("previous", "an ensemble schedule has no znode"),
            ("changes", "an ensemble schedule has no changes"),
            ("nominal_time", "an ensemble schedule has no nominal time"),
        ],
        _ if batches => &[
            ("znode", "a batch has several changes"),
            ("previous", "a batch has several changes"),
            ("nominal_time", "a znode schedule has no nominal time"),
        ],
        _ => &[("nominal_time", "a znode schedule has no nominal time"), ("changes", "only a batch has `changes`")],
    };
    for (variable, why) in missing {
        let hint = match (*variable, batches) {
            ("znode" | "previous", true) => "use `changes`, a list of what `znode` would be",
            ("nominal_time", _) if kind == TriggerKind::Ensemble => "use `ensemble.at`",
            (_, _) if kind == TriggerKind::Ensemble => "use `ensemble`",
            ("changes", _) => "use `znode`, or add `settle` for batches",
            _ => "leave the variable out",
        };
        if conf.is_some_and(|conf| conf.uses(variable)) {
            section.error(&["conf"], format!("`{variable}` is never there: {why}"), hint);
        }
        // `when` judges each change, also of a batch; a cron schedule has none, which is told already.
        let fits = kind == TriggerKind::Cron || (batches && matches!(*variable, "znode" | "previous"));
        if !fits && when.is_some_and(|when| when.uses(variable)) {
            section.error(&["when"], format!("`{variable}` is never there: {why}"), hint);
        }
    }
    for variable in ["changes", "dag_run_id"] {
        if batches && when.is_some_and(|when| when.uses(variable)) {
            section.error(
                &["when"],
                format!("`when` judges each change before there is a batch, so `{variable}` is never there"),
                "use `znode` and `previous`",
            );
        }
    }
}

fn expression(section: &Section<'_, '_>, shared: &mut Shared, text: &str) -> Option<Expression> {
    shared
        .compiler
        .expression(text)
        .map_err(|error| {
            let hint = error.hint.unwrap_or_else(|| "write one such as \"znode.text == 'ready'\"".to_owned());
            section.error(&["when"], format!("this condition cannot be read: {}", error.message), hint);
        })
        .ok()
}

fn conf(section: &Section<'_, '_>, shared: &mut Shared) -> Option<ConfTemplate> {
    let toml::de::DeValue::Table(table) = section.value(&["conf"])?.get_ref() else { return None };
    let json = super::json::object(section, table);
    match shared.compiler.conf(&json) {
        Ok(template) => Some(template),
        Err(errors) => {
            for (path, error) in errors {
                let at: Vec<&str> = std::iter::once("conf").chain(path.iter().map(String::as_str)).collect();
                let hint = error.hint.unwrap_or_else(|| {
                    "write a variable as {{ znode.text }}, and see docs/configuration.md".to_owned()
                });
                section.error(&at, format!("this template cannot be read: {}", error.message), hint);
            }
            None
        }
    }
}

fn dates(
    section: &Section<'_, '_>,
    is_cron: bool,
    logical_date: Option<LogicalDate>,
    data_interval: Option<DataInterval>,
    defaults: &ScheduleDefaults,
) -> (LogicalDate, DataInterval) {
    if !is_cron {
        if matches!(logical_date, Some(LogicalDate::Nominal | LogicalDate::IntervalStart)) {
            section.error(
                &["logical_date"],
                "only a cron schedule has a nominal time to take the logical date from",
                "write \"none\", or take the key out",
            );
        }
        return (LogicalDate::None, DataInterval::Dag);
    }
    let own_date = logical_date;
    let logical_date = logical_date.or(defaults.logical_date).unwrap_or(LogicalDate::Nominal);
    let by_itself =
        if logical_date == LogicalDate::IntervalStart { DataInterval::Previous } else { DataInterval::Exact };
    if logical_date == LogicalDate::IntervalStart {
        match data_interval {
            Some(DataInterval::Dag) => section.error(
                &["data_interval"],
                "the start of an interval that only the DAG knows cannot be the logical date",
                "write data_interval = \"previous\", or another `logical_date`",
            ),
            Some(DataInterval::Exact) if own_date.is_some() => section.warning(
                &["data_interval"],
                "with an exact interval, its start is the nominal time",
                "write data_interval = \"previous\", as Airflow 2 has it, or logical_date = \"nominal\"",
            ),
            _ => {}
        }
    }
    (logical_date, data_interval.or(defaults.data_interval).unwrap_or(by_itself))
}

fn catchup(
    section: &Section<'_, '_>,
    kind: TriggerKind,
    own: Option<Catchup>,
    defaults: Option<Catchup>,
    overlap: Overlap,
) -> Catchup {
    let by_itself = match kind {
        TriggerKind::Cron => Catchup::Latest,
        TriggerKind::Znode => Catchup::All,
        // Nothing comes due unseen.
        TriggerKind::Ensemble | TriggerKind::Manual => return Catchup::None,
    };
    let catchup = own.or(defaults).unwrap_or(by_itself);
    if kind == TriggerKind::Cron && (catchup, overlap) == (Catchup::All, Overlap::Skip) {
        section.warning(
            &[if own.is_some() { "catchup" } else { "name" }],
            "catchup = \"all\" makes many times due at once, and overlap = \"skip\" (cron's default) runs only the first of them",
            "write overlap = \"queue\" to run them one after the other, or \"allow\" to run them beside each other",
        );
    }
    catchup
}

fn retry_text(section: &Section<'_, '_>, written: Option<written::Retry>) -> RetryText {
    let written = written.unwrap_or_default();
    let least = Duration::from_millis(100);
    RetryText {
        total: written.r#for.map(|total| section.between(&["retry", "for"], total.0, Duration::ZERO, YEAR)),
        initial: written.initial.map(|pause| section.between(&["retry", "initial"], pause.0, least, DAY)),
        max: written.max.map(|pause| section.between(&["retry", "max"], pause.0, least, DAY)),
    }
}

fn retry(section: &Section<'_, '_>, own: RetryText, defaults: RetryText) -> RetryPolicy {
    let by_itself = RetryPolicy::default();
    let set = own.over(defaults);
    let total = set.total.unwrap_or(by_itself.total);
    // A pause that is set alone moves the other one along.
    let initial = set.initial.unwrap_or_else(|| set.max.map_or(by_itself.initial, |max| by_itself.initial.min(max)));
    let max = set.max.unwrap_or_else(|| by_itself.max.max(initial));
    if initial > max && (own.initial.is_some() || own.max.is_some()) {
        section.error(
            &["retry"],
            format!("the first pause ({}) is longer than the longest ({})", super::human(initial), super::human(max)),
            "make `initial` at most `max`",
        );
    }
    RetryPolicy { total, initial, max }
}

fn deadline(written: Option<written::Deadline>) -> Deadline {
    let written = written.unwrap_or_default();
    Deadline { start: written.start.map(|start| start.0), finish: written.finish.map(|finish| finish.0) }
}

fn check_deadline(section: &Section<'_, '_>, deadline: Deadline) {
    if let (Some(start), Some(finish)) = (deadline.start, deadline.finish)
        && start > finish
    {
        section.error(
            &["deadline"],
            "the run is to end before it is to start",
            "make `finish` longer than `start`: both count from the nominal time",
        );
    }
}

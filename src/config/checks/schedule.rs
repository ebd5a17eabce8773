//! `[[schedule]]`: its own keys, over `[defaults]`.

use std::ops::Range;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::super::section::Section;
use super::super::written;
use super::cron::{cron, cron_trigger, jitter, zone};
use super::defaults::{ScheduleDefaults, lock};
use super::ensemble::ensemble_trigger;
use super::fits::{check_keys_fit, check_variables_fit};
use super::shared::Shared;
use super::times::{catchup, check_deadline, dates, deadline, retry, retry_text};
use super::znode::{consume_conflicts, znode_trigger};
use crate::domain::schedule::{
    Deadline, Initial, Overlap, PausedDag, Schedule, ScheduleName, Trigger, TriggerKind, ZnodeTrigger,
};
use crate::domain::template::{ConfTemplate, Expression};

/// The longest `dag_id` that Airflow stores, in characters.
const DAG_ID_MAX_LENGTH: usize = 250;

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
    /// Where its former names stand; its header otherwise.
    pub(crate) was_at: Range<usize>,
}

/// One `[[schedule]]`; `None` where so much is wrong that there is nothing to go on with. Its faults
/// are noted either way.
pub(crate) fn schedule(section: &Section<'_, '_>, defaults: &ScheduleDefaults, shared: &mut Shared) -> Option<Draft> {
    let written: written::Schedule = section.read();
    let name = section
        .required(&["name"], written.name, "give it a name: lower-case letters, digits and `-`, at most 64")
        .and_then(|name| legal_name(section, "name", &name));
    let was = written.was.map(|names| names.0).unwrap_or_default();
    let was: Vec<_> = was.iter().filter_map(|was| legal_name(section, "was", was)).collect();
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
    let jitter = jitter(section, written.jitter).or(defaults.jitter);
    let own_lock = written.lock.and_then(|name| lock(section, shared, &name));
    let own_paused_dag = written.paused_dag.map(|choice| choice.0);
    check_lock_and_pause(section, own_lock.as_ref(), own_paused_dag);
    let own_overlap = written.overlap.map(|choice| choice.0);
    let own_initial = written.initial.map(|initial| initial.0);
    let trigger = match kind? {
        TriggerKind::Cron => {
            Trigger::Cron(cron_trigger(cron?, timezone.clone(), &dst, jitter, (defaults.gap, defaults.fold)))
        }
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
        (written.logical_date.map(|choice| choice.0), written.data_interval.map(|choice| choice.0)),
        (defaults.logical_date, defaults.data_interval),
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
        was_at: section.span(&["was"]),
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

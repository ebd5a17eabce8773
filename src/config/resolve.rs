//! What is judged when all files have been read: names that stand for something elsewhere.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::checks::{self, Draft};
use super::fault::{Fault, Severity};
use super::guard::open_to_all;
use super::load::{Loader, Origin};
use super::model::{Config, Ensemble};
use crate::domain::schedule::{EnsembleTrigger, Schedule, ScheduleName, Trigger};

/// The configuration, if nothing is wrong with it, and everything that was found, in the order of
/// the files and lines.
pub(super) fn resolve(loader: &mut Loader<'_>, main: &Path) -> (Option<Config>, Vec<Fault>) {
    let mut drafts = std::mem::take(&mut loader.drafts);
    let mut syncs = std::mem::take(&mut loader.syncs);
    check_names(loader, &drafts);
    let default_airflow = match loader.airflows.len() {
        1 => loader.airflows.keys().next().cloned(),
        _ => None,
    };
    if !loader.incomplete {
        check_airflows(loader, &mut drafts, default_airflow.as_ref());
        resolve_ensembles(loader, &mut drafts);
    }
    check_locks(loader, &drafts);
    checks::check_teams(loader, &drafts);
    checks::check_token_teams(loader);
    check_own_znodes(loader, &drafts);
    check_who_writes(loader);
    checks::resolve_syncs(loader, &mut syncs);
    let order: HashMap<String, usize> =
        loader.sources.iter().enumerate().rev().map(|(index, source)| (source.name.clone(), index)).collect();
    let main_sections = std::mem::take(&mut loader.main);
    let sections = (main_sections.server, main_sections.log, main_sections.store);
    let mut faults = std::mem::take(&mut loader.sink).into_faults();
    // What is not right TOML has no sections to tell apart.
    let is_right = faults.iter().all(|fault| fault.severity == Severity::Warning);
    let version = if is_right { loader.version() } else { String::new() };
    let config = match sections {
        (Some(server), Some(log), Some(store)) => Some(Config {
            file: main.to_path_buf(),
            server,
            log,
            store,
            zookeeper: main_sections.zookeeper,
            airflows: std::mem::take(&mut loader.airflows)
                .into_iter()
                .map(|(name, (airflow, _))| (name, airflow))
                .collect(),
            ensembles: std::mem::take(&mut loader.ensembles)
                .into_iter()
                .map(|(name, (ensemble, _))| (name, ensemble))
                .collect(),
            teams: Arc::new(
                std::mem::take(&mut loader.teams).into_iter().map(|(name, (team, _))| (name, team)).collect(),
            ),
            schedules: drafts.into_iter().map(|(_, draft)| Arc::new(draft.schedule)).collect(),
            syncs: syncs.into_iter().map(|(_, draft)| Arc::new(draft.definition)).collect(),
            version,
        }),
        _ => None,
    };
    // Faults without a file of their own, those of variables, come first.
    faults.sort_by_cached_key(|fault| {
        (order.get(&fault.file).map_or(0, |index| index + 1), fault.line, fault.column, fault.key.clone())
    });
    faults.dedup();
    (config, faults)
}

impl Loader<'_> {
    /// Notes an error in a source.
    pub(super) fn error(&self, file: usize, span: &Range<usize>, key: &str, message: String, hint: String) {
        let fault = self.sources[file].fault(span.clone(), key.to_owned(), Severity::Error, message, hint);
        self.sink.push(fault);
    }

    pub(super) fn warning(&self, file: usize, span: &Range<usize>, key: &str, message: String, hint: String) {
        let fault = self.sources[file].fault(span.clone(), key.to_owned(), Severity::Warning, message, hint);
        self.sink.push(fault);
    }
}

/// Names are unique, also those that schedules had before.
fn check_names(loader: &Loader<'_>, drafts: &[(usize, Draft)]) {
    let mut names: HashMap<&ScheduleName, Origin> = HashMap::with_capacity(drafts.len());
    for (file, draft) in drafts {
        let name = &draft.schedule.name;
        if let Some((first_file, first)) = names.get(name) {
            let place = loader.sources[*first_file].place(first.start);
            loader.error(
                *file,
                &draft.name_at,
                "schedule.name",
                format!("two schedules are named \"{name}\""),
                format!("the other one is at {place}; rename one of them"),
            );
        } else {
            names.insert(name, (*file, draft.name_at.clone()));
        }
    }
    let mut former: HashMap<&ScheduleName, Origin> = HashMap::new();
    let every = drafts.iter().flat_map(|(file, draft)| draft.schedule.was.iter().map(move |was| (file, draft, was)));
    for (file, draft, was) in every {
        let at = &draft.was_at;
        if let Some((other_file, other)) = names.get(was) {
            let place = loader.sources[*other_file].place(other.start);
            loader.error(
                *file,
                at,
                "schedule.was",
                format!("there still is a schedule named \"{was}\""),
                format!("it is at {place}; `was` takes over from a name that is gone"),
            );
        } else if let Some((other_file, other)) = former.insert(was, (*file, at.clone())) {
            let place = loader.sources[other_file].place(other.start);
            loader.error(
                *file,
                at,
                "schedule.was",
                format!("two schedules were \"{was}\""),
                format!("the other one is at {place}; keep one"),
            );
        }
    }
}

/// Every schedule has an Airflow that is there.
fn check_airflows(loader: &Loader<'_>, drafts: &mut [(usize, Draft)], only: Option<&Arc<str>>) {
    let known = || loader.airflows.keys().map(|name| &**name);
    for (file, draft) in drafts {
        let name = &draft.schedule.airflow;
        if name.is_empty() {
            match only {
                Some(only) => draft.schedule.airflow = Arc::clone(only),
                None if loader.airflows.is_empty() => {
                    loader.error(
                        *file,
                        &draft.name_at,
                        "airflow",
                        "there is no Airflow for this schedule".to_owned(),
                        "add a section [airflow.main] with its url".to_owned(),
                    );
                    // All the others lack the same section.
                    return;
                }
                None => loader.error(
                    *file,
                    &draft.name_at,
                    "schedule.airflow",
                    "there are several Airflows, and this schedule names none".to_owned(),
                    format!(
                        "add airflow = … here or in [defaults]; there are {}",
                        known().collect::<Vec<_>>().join(", ")
                    ),
                ),
            }
        } else if !loader.airflows.contains_key(name) {
            let at = draft.airflow_at.as_ref().unwrap_or(&draft.name_at);
            let hint = checks::not_among(name, known(), "airflow");
            loader.error(*file, at, "schedule.airflow", format!("there is no [airflow.{name}]"), hint);
        }
    }
}

/// Every trigger has an ensemble that is there. For those that watch znodes the home ensemble has one
/// name, which is none; for those that listen to its health, that of its section.
fn resolve_ensembles(loader: &Loader<'_>, drafts: &mut [(usize, Draft)]) {
    for (file, draft) in drafts {
        let Some(at) = &draft.ensemble_at else { continue };
        let znode = match &mut draft.schedule.trigger {
            Trigger::Znode(znode) => znode,
            Trigger::Ensemble(trigger) => {
                resolve_listener(loader, *file, at, trigger);
                continue;
            }
            Trigger::Cron(_) => continue,
        };
        match &znode.ensemble {
            Some(name) if !loader.ensembles.contains_key(name) => {
                let hint = checks::not_among(name, loader.ensembles.keys().map(|name| &**name), "ensemble");
                loader.error(*file, at, "schedule.znode.ensemble", format!("there is no [ensemble.{name}]"), hint);
            }
            None if loader.main.zookeeper.is_none() => loader.error(
                *file,
                at,
                "schedule.znode",
                "a znode is watched, and there is no home ensemble".to_owned(),
                "add a section [zookeeper] with `connect`, or name an ensemble: ensemble = \"…\"".to_owned(),
            ),
            Some(name) if loader.ensembles.get(name).is_some_and(|(ensemble, _)| ensemble.connection.is_none()) => {
                znode.ensemble = None;
            }
            _ => {}
        }
    }
}

fn resolve_listener(loader: &Loader<'_>, file: usize, at: &Range<usize>, trigger: &mut EnsembleTrigger) {
    let home = loader.ensembles.values().map(|(ensemble, _)| ensemble).find(|ensemble| ensemble.connection.is_none());
    let home = home.map_or(Ensemble::HOME, |ensemble| &*ensemble.name);
    match &*trigger.ensemble {
        name if loader.ensembles.contains_key(name) => {}
        "" | Ensemble::HOME if loader.main.zookeeper.is_some() => trigger.ensemble = home.into(),
        "" => loader.error(
            file,
            at,
            "schedule.ensemble",
            "this listens to the home ensemble, and there is none".to_owned(),
            "add a section [zookeeper] with `connect`, or name an ensemble: name = \"…\"".to_owned(),
        ),
        name => {
            let hint = checks::not_among(name, loader.ensembles.keys().map(|name| &**name), "ensemble");
            loader.error(file, at, "schedule.ensemble.name", format!("there is no [ensemble.{name}]"), hint);
        }
    }
}

/// Locks are znodes of the home ensemble.
fn check_locks(loader: &Loader<'_>, drafts: &[(usize, Draft)]) {
    if loader.main.zookeeper.is_some() || loader.incomplete {
        return;
    }
    for (file, draft) in drafts {
        let Some(lock) = &draft.schedule.lock else { continue };
        loader.error(
            *file,
            &draft.lock_at,
            "schedule.lock",
            format!("the lock \"{lock}\" is kept in ZooKeeper, and there is no home ensemble"),
            "add a section [zookeeper] with `connect`, or take `lock` out".to_owned(),
        );
    }
}

/// Definitions in ZooKeeper should not be everybody's. That is told of the main file, not of each set.
fn check_who_writes(loader: &Loader<'_>) {
    let (Some(server), Some(zookeeper)) = (&loader.main.server, &loader.main.zookeeper) else { return };
    if let Some((message, hint)) = open_to_all(server, zookeeper).filter(|_| !loader.has_definitions()) {
        loader.warning(0, &loader.main.zookeeper_at, "zookeeper", message, hint.to_owned());
    }
}

/// A trigger on flowkeeper's own znodes fires for what flowkeeper itself writes. From above they are left out.
fn check_own_znodes(loader: &Loader<'_>, drafts: &[(usize, Draft)]) {
    let Some(home) = &loader.main.zookeeper else { return };
    for (file, draft) in drafts {
        let Trigger::Znode(znode) = &draft.schedule.trigger else { continue };
        let is_home = match &znode.ensemble {
            None => true,
            Some(name) => loader.ensembles.get(name).is_some_and(|(ensemble, _)| ensemble.connection.is_none()),
        };
        let below = |path: &str, root: &str| {
            root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if is_home && below(&znode.path, &home.root) && znode.include.is_none() {
            let at = draft.ensemble_at.as_ref().unwrap_or(&draft.name_at);
            let fault = loader.sources[*file].fault(
                at.clone(),
                "schedule.znode.path".to_owned(),
                Severity::Warning,
                format!("this watches {}, where flowkeeper keeps its own state", home.root),
                "watch another znode, or name what is meant with `include`".to_owned(),
            );
            loader.sink.push(fault);
        }
    }
}

/// Keeps `Schedule` small in memory: a hundred thousand of them must fit beside everything else.
const _: () = assert!(size_of::<Schedule>() <= 768, "a schedule has grown too large");

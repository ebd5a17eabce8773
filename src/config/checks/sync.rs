//! `[[sync]]`: each by itself, and then together with the rest of the configuration.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::load::Loader;
use super::super::section::Section;
use super::super::written;
use super::shared::Shared;
use super::znode::check_path;
use crate::domain::schedule::{ScheduleName, WatchScope};
use crate::domain::sync::definition::{DriftPolicy, SyncDefinition};
use crate::domain::template::ValueTemplate;

const DEFAULT_INTERVAL: Duration = Duration::from_mins(5);
const LEAST_INTERVAL: Duration = Duration::from_secs(10);
const LONGEST_INTERVAL: Duration = Duration::from_hours(24);
/// The longest separator, in characters.
const SEPARATOR_MAX_CHARS: usize = 8;

/// A sync that was checked by itself, and where its parts are written.
pub(crate) struct SyncDraft {
    pub(crate) definition: SyncDefinition,
    name_at: Range<usize>,
    airflow_at: Range<usize>,
    ensemble_at: Range<usize>,
    path_at: Range<usize>,
}

/// One `[[sync]]`; `None` when something is missing that nothing can stand in for.
pub(crate) fn sync(section: &Section<'_, '_>, shared: &mut Shared) -> Option<SyncDraft> {
    let written: written::SyncSection = section.read();
    let name = section.required(&["name"], written.name, "name it: name = \"app-variables\"");
    let name = name.filter(|name| is_legal_name(section, name));
    let znode = section.required(&["znode"], written.znode, "say where the entries come from: { path = \"/…\" }");
    let kind = section.required(&["to"], written.to, "write to = \"variables\", \"pools\" or \"connections\"");
    let path = znode.as_ref().and_then(|znode| {
        let hint = "name the znode: path = \"/config/app\"";
        section.required(&["znode", "path"], znode.path.clone(), hint)
    });
    if let Some(path) = &path {
        check_path(section, path);
    }
    let written_znode = znode.unwrap_or_default();
    let scope = written_znode.watch.map_or(WatchScope::Children, |choice| choice.0);
    let separator = written_znode.separator.unwrap_or_else(|| ".".to_owned());
    if section.value(&["znode", "separator"]).is_some() {
        check_separator(section, scope, &separator);
    }
    let value = written.value.and_then(|source| match ValueTemplate::parse(&source) {
        Ok(template) => Some(template),
        Err(error) => {
            let hint = error.hint.unwrap_or_else(|| "write a variable as {{ znode.text }}".to_owned());
            section.error(&["value"], format!("this template cannot be read: {}", error.message), hint);
            None
        }
    });
    if section.has("value") {
        // What stands around the placeholders may be a secret.
        section.source.hide(section.span(&["value"]));
    }
    let prefix = written.prefix.unwrap_or_default();
    if let Some(fault) = kind.and_then(|kind| kind.0.key_fault(&format!("{prefix}x"))) {
        section.error(&["prefix"], format!("no key can begin with \"{prefix}\": {fault}"), "write another prefix");
    }
    let interval = written.interval.map_or(DEFAULT_INTERVAL, |interval| {
        section.between(&["interval"], interval.0, LEAST_INTERVAL, LONGEST_INTERVAL)
    });
    let definition = SyncDefinition {
        name: name?.into(),
        airflow: shared.name(written.airflow.as_deref().unwrap_or_default()),
        kind: kind?.0,
        ensemble: written_znode.ensemble.map(|name| shared.name(&name)),
        path: path?.into(),
        scope,
        separator,
        prefix,
        value,
        prune: written.prune.unwrap_or(false),
        drift: written.drift.map_or(DriftPolicy::Report, |choice| choice.0),
        adopt: written.adopt.unwrap_or(false),
        interval,
    };
    Some(SyncDraft {
        definition,
        name_at: section.span(&["name"]),
        airflow_at: section.span(&["airflow"]),
        ensemble_at: section.span(&["znode", "ensemble"]),
        path_at: section.span(&["znode", "path"]),
    })
}

fn is_legal_name(section: &Section<'_, '_>, name: &str) -> bool {
    let is_legal = ScheduleName::new(name).is_some();
    if !is_legal {
        let hint = "use lower-case letters, digits and `-`, a letter or digit first, at most 64";
        section.error(&["name"], format!("\"{name}\" is not a name for a sync"), hint);
    }
    is_legal
}

fn check_separator(section: &Section<'_, '_>, scope: WatchScope, separator: &str) {
    let at = ["znode", "separator"];
    if scope != WatchScope::Subtree {
        section.error(
            &at,
            "only the paths of a subtree have parts to separate",
            "add watch = \"subtree\", or take it out",
        );
    } else if separator.is_empty()
        || separator.chars().count() > SEPARATOR_MAX_CHARS
        || separator.contains(char::is_control)
    {
        section.error(&at, "this cannot separate the parts of a key", "write one to eight characters, such as \".\"");
    }
}

/// What is judged when all files have been read.
pub(crate) fn resolve(loader: &Loader<'_>, drafts: &mut [(usize, SyncDraft)]) {
    names(loader, drafts);
    if !loader.incomplete {
        for (file, draft) in drafts.iter_mut() {
            airflow(loader, *file, draft);
            ensemble(loader, *file, draft);
        }
    }
    overlaps(loader, drafts);
}

fn names(loader: &Loader<'_>, drafts: &[(usize, SyncDraft)]) {
    let mut names: HashMap<&str, (usize, &Range<usize>)> = HashMap::new();
    for (file, draft) in drafts {
        let name = &*draft.definition.name;
        if let Some((other, at)) = names.get(name) {
            let place = loader.sources[*other].place(at.start);
            let hint = format!("the other one is at {place}; rename one of them");
            loader.error(*file, &draft.name_at, "sync.name", format!("two syncs are named \"{name}\""), hint);
        } else {
            names.insert(name, (*file, &draft.name_at));
        }
    }
}

fn airflow(loader: &Loader<'_>, file: usize, draft: &mut SyncDraft) {
    let name = &draft.definition.airflow;
    let known = || loader.airflows.keys().map(|name| &**name);
    if loader.airflows.contains_key(name) {
        return;
    }
    if !name.is_empty() {
        let hint = super::not_among(name, known(), "airflow");
        loader.error(file, &draft.airflow_at, "sync.airflow", format!("there is no [airflow.{name}]"), hint);
    } else if loader.airflows.len() == 1 {
        draft.definition.airflow = loader.airflows.keys().next().map_or_else(|| Arc::clone(name), Arc::clone);
    } else if loader.airflows.is_empty() {
        let hint = "add a section [airflow.main] with its url";
        let message = "there is no Airflow to keep in step".to_owned();
        loader.error(file, &draft.name_at, "airflow", message, hint.to_owned());
    } else {
        let hint = format!("add airflow = …; there are {}", known().collect::<Vec<_>>().join(", "));
        let message = "there are several Airflows, and this sync names none".to_owned();
        loader.error(file, &draft.name_at, "sync.airflow", message, hint);
    }
}

fn ensemble(loader: &Loader<'_>, file: usize, draft: &mut SyncDraft) {
    let Some(home) = &loader.main.zookeeper else {
        loader.error(
            file,
            &draft.name_at,
            "sync",
            "a sync needs the home ensemble: flowkeeper keeps there the key of what it remembers".to_owned(),
            "add a section [zookeeper] with `connect`".to_owned(),
        );
        return;
    };
    let named = draft.definition.ensemble.as_ref();
    match named.map(|name| (name, loader.ensembles.get(name))) {
        Some((name, None)) => {
            let hint = super::not_among(name, loader.ensembles.keys().map(|name| &**name), "ensemble");
            let message = format!("there is no [ensemble.{name}]");
            loader.error(file, &draft.ensemble_at, "sync.znode.ensemble", message, hint);
            return;
        }
        Some((_, Some((ensemble, _)))) if ensemble.connection.is_some() => return,
        // The home ensemble has one name, which is none.
        _ => draft.definition.ensemble = None,
    }
    let (path, root) = (&*draft.definition.path, &*home.root);
    let below = |path: &str, root: &str| {
        root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if below(path, root) || (draft.definition.scope == WatchScope::Subtree && below(root, path)) {
        let message = format!("{path} has flowkeeper's own state in it, which is below {root}");
        let hint = "take the entries from znodes of their own".to_owned();
        loader.error(file, &draft.path_at, "sync.znode.path", message, hint);
    }
}

/// Two syncs that certainly write the same keys.
fn overlaps(loader: &Loader<'_>, drafts: &[(usize, SyncDraft)]) {
    for (index, (file, draft)) in drafts.iter().enumerate() {
        let own = &draft.definition;
        let earlier = drafts[..index].iter().find(|(_, other)| own.overlaps(&other.definition));
        if let Some((other_file, other)) = earlier {
            let at = loader.sources[*other_file].place(other.name_at.start);
            let message = format!("the sync \"{}\" writes the same {}", other.definition.name, own.kind.as_str());
            let hint = format!("it is at {at}; take one of them out, or give them different prefixes");
            loader.error(*file, &draft.path_at, "sync.znode.path", message, hint);
        }
    }
}

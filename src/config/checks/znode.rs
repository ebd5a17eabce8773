//! `znode = { … }` of a schedule.

use std::time::Duration;

use super::super::section::Section;
use super::super::written;
use super::shared::Shared;
use super::znode_path_fault;
use crate::domain::schedule::{ChangeKinds, Consume, Initial, Overlap, PathGlobs, WatchScope, ZnodeTrigger};
use crate::domain::znode::ChangeKind;

/// The most changes that a batch may hold: all of them go into one `conf`.
const BATCH_MAX: u32 = 1000;

const SETTLE_LEAST: Duration = Duration::from_millis(10);
const SETTLE_MOST: Duration = Duration::from_hours(24);

/// The trigger, with `initial` still at its default: that is a key of the schedule.
pub(super) fn znode_trigger(
    section: &Section<'_, '_>,
    written: written::Znode,
    shared: &mut Shared,
) -> Option<ZnodeTrigger> {
    let has = |key: &str| section.value(&["znode", key]).is_some();
    let path = section.required(&["znode", "path"], written.path, "name the znode: path = \"/data/ready\"");
    if let Some(path) = &path {
        check_path(section, path);
    }
    // A value that is there and could not be read: what depends on it is not judged.
    let unread = has("watch") && written.watch.is_none();
    let watch = written.watch.map_or(WatchScope::Node, |choice| choice.0);
    let on = written.on.map(|kinds| kinds.into_iter().map(|choice| choice.0).collect::<Vec<_>>());
    if !unread {
        check_kinds(section, watch, on.as_deref(), written.consume.is_some());
        if watch == WatchScope::Node && has("include") {
            section.error(
                &["znode", "include"],
                "`include` chooses among the znodes below `path`, and only the znode itself is watched",
                "add watch = \"subtree\" or \"children\", or take `include` out",
            );
        }
        if watch != WatchScope::Children && has("consume") {
            section.error(
                &["znode", "consume"],
                "only children are consumed",
                "add watch = \"children\", or take `consume` out",
            );
        }
    }
    let default_on = match watch {
        WatchScope::Children => vec![ChangeKind::Created],
        WatchScope::Node | WatchScope::Subtree => vec![ChangeKind::Created, ChangeKind::Changed],
    };
    let on = on.unwrap_or(default_on);
    let settle =
        written.settle.map(|settle| section.between(&["znode", "settle"], settle.0, SETTLE_LEAST, SETTLE_MOST));
    let settle_max = written.settle_max.map(|most| most.0);
    check_batch(section, settle, settle_max, written.batch);
    let include = written.include.filter(|globs| !globs.is_empty()).and_then(|globs| {
        // Each glob is judged at its own place first; together they can only be too many.
        section.globs(&["znode", "include"], &globs, true);
        PathGlobs::new(&globs).ok()
    });
    Some(ZnodeTrigger {
        ensemble: written.ensemble.map(|name| shared.name(&name)),
        path: shared.name(&path?),
        watch,
        on: ChangeKinds {
            created: on.contains(&ChangeKind::Created),
            changed: on.contains(&ChangeKind::Changed),
            deleted: on.contains(&ChangeKind::Deleted),
        },
        include,
        settle,
        settle_max,
        batch: written.batch.and_then(|batch| usize::try_from(batch).ok()),
        initial: Initial::Ignore,
        consume: written.consume.map(|choice: written::Choice<Consume>| choice.0),
    })
}

pub(super) fn check_path(section: &Section<'_, '_>, path: &str) {
    if let Some(fault) = znode_path_fault(path) {
        let trimmed = path.trim_end_matches('/');
        let hint = match fault {
            "it does not begin with /" => format!("write \"/{trimmed}\""),
            "it ends with /" => format!("write \"{trimmed}\""),
            _ => "write a path such as \"/data/ready\"".to_owned(),
        };
        section.error(&["znode", "path"], format!("\"{path}\" is not a znode's path: {fault}"), hint);
    }
}

fn check_kinds(section: &Section<'_, '_>, watch: WatchScope, on: Option<&[ChangeKind]>, consumes: bool) {
    let Some(on) = on else { return };
    let at = ["znode", "on"];
    let written = section.value(&at).and_then(|value| value.get_ref().as_array()).map_or(0, |array| array.len());
    if on.is_empty() {
        // With a kind that could not be read there would be one.
        if written == 0 {
            section.error(&at, "nothing fires this trigger", "name kinds of change: [\"created\", \"changed\"]");
        }
        return;
    }
    if watch == WatchScope::Children && on.contains(&ChangeKind::Changed) {
        section.error(
            &at,
            "the data of children is not watched, so \"changed\" never fires",
            "take it out, or write watch = \"subtree\"",
        );
    } else if consumes && on.iter().any(|kind| *kind != ChangeKind::Created) {
        section.error(
            &at,
            "a consumed child fires when it is created, and flowkeeper itself deletes it",
            "write on = [\"created\"], or take `on` out",
        );
    }
}

fn check_batch(section: &Section<'_, '_>, settle: Option<Duration>, settle_max: Option<Duration>, batch: Option<u32>) {
    let has = |key: &str| section.value(&["znode", key]).is_some();
    for key in ["settle_max", "batch"].into_iter().filter(|key| has(key) && !has("settle")) {
        section.error(
            &["znode", key],
            format!("`{key}` bounds a batch, and without `settle` there are no batches"),
            "add settle = \"2s\", for example",
        );
    }
    if let (Some(settle), Some(most)) = (settle, settle_max)
        && most < settle
    {
        section.error(
            &["znode", "settle_max"],
            "a batch would be due before it can settle",
            "make `settle_max` at least as long as `settle`",
        );
    }
    if let Some(batch) = batch
        && !(1..=BATCH_MAX).contains(&batch)
    {
        section.error(
            &["znode", "batch"],
            format!("a batch cannot hold {batch} changes"),
            format!("write a number from 1 to {BATCH_MAX}: all changes go into one conf"),
        );
    }
    if has("consume") && has("settle") {
        section.error(
            &["znode", "settle"],
            "a consumed child has a run of its own, so there are no batches",
            "take `settle` or `consume` out",
        );
    }
}

/// What `consume` implies, and the schedule says otherwise.
pub(super) fn consume_conflicts(section: &Section<'_, '_>, overlap: Option<Overlap>, initial: Option<Initial>) {
    if overlap.is_some_and(|overlap| !matches!(overlap, Overlap::Allow | Overlap::Queue)) {
        section.error(
            &["overlap"],
            "every consumed child has a run, so none may be skipped or replaced",
            "write \"allow\" or \"queue\", or take the key out",
        );
    }
    if initial.is_some_and(|initial| initial != Initial::Fire) {
        section.error(
            &["initial"],
            "`consume` takes every child, also those that are there at first sight",
            "write \"fire\", or take the key out",
        );
    }
}

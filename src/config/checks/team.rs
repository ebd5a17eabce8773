//! `[team.NAME]`, and whether schedules stay within the limits of their teams.

use std::collections::HashMap;

use super::super::load::Loader;
use super::super::section::Section;
use super::super::text;
use super::super::written;
use super::Draft;
use crate::domain::schedule::{Trigger, WatchScope};
use crate::domain::team::{NameGlobs, Team, ZnodeGlobs};

/// `[team.NAME]`.
pub(crate) fn team(section: &Section<'_, '_>) -> Team {
    let written: written::Team = section.read();
    let names = |key: &str, patterns: Option<Vec<String>>| {
        let patterns = patterns.unwrap_or_default();
        NameGlobs { set: section.globs(&[key], &patterns, false), patterns }
    };
    for (index, name) in written.notify.unwrap_or_default().iter().enumerate() {
        section.error(
            &["notify", &index.to_string()],
            format!("there is no [[notify]] named \"{name}\": notifications are not supported yet by this version of flowkeeper"),
            "take it out",
        );
    }
    let znodes = written.znodes.unwrap_or_default();
    // Faults are noted here; the globs themselves are compiled in parts.
    section.globs(&["znodes"], &znodes, true);
    for (index, pattern) in znodes.iter().enumerate() {
        if !pattern.starts_with(['/', '*', '{', '[', '?']) {
            section.error(
                &["znodes", &index.to_string()],
                format!("\"{pattern}\" matches no path: a path begins with /"),
                format!("write \"/{pattern}\""),
            );
        }
    }
    Team { dags: names("dags", written.dags), znodes: ZnodeGlobs::new(znodes), locks: names("locks", written.locks) }
}

/// A schedule whose owner is a team stays within the globs of that team.
pub(crate) fn check_teams(loader: &Loader<'_>, drafts: &[(usize, Draft)]) {
    if loader.teams.is_empty() {
        return;
    }
    let mut near: HashMap<&str, Option<&str>> = HashMap::new();
    for (file, draft) in drafts {
        let schedule = &draft.schedule;
        let Some(owner) = schedule.owner.as_deref() else { continue };
        let Some((team, _)) = loader.teams.get(owner) else {
            let names = loader.teams.keys().map(|name| &**name);
            if let Some(name) = *near.entry(owner).or_insert_with(|| text::nearest(owner, names)) {
                loader.warning(
                    *file,
                    &draft.owner_at,
                    "schedule.owner",
                    format!("the owner \"{owner}\" is no team, so nothing limits this schedule"),
                    format!("did you mean `{name}`?"),
                );
            }
            continue;
        };
        if !team.dags.matches(&schedule.dag_id) {
            loader.error(
                *file,
                &draft.dag_at,
                "schedule.dag",
                format!("the DAG \"{}\" is not among those of the team `{owner}`", schedule.dag_id),
                remedy(owner, "dags", &team.dags.patterns, "name one that matches"),
            );
        }
        if let Trigger::Znode(znode) = &schedule.trigger
            && !team.znodes.cover(&znode.path, znode.watch)
        {
            let what = match znode.watch {
                WatchScope::Node => format!("the znode {} is", znode.path),
                WatchScope::Children => format!("the children of {} are", znode.path),
                WatchScope::Subtree => format!("{} and what is below it are", znode.path),
            };
            let instead = match znode.watch {
                WatchScope::Node => "name one that matches".to_owned(),
                WatchScope::Children => format!("\"{}/*\" would cover them", znode.path.trim_end_matches('/')),
                WatchScope::Subtree => format!("\"{}/**\" would cover them", znode.path.trim_end_matches('/')),
            };
            loader.error(
                *file,
                &draft.path_at,
                "schedule.znode.path",
                format!("{what} not within those of the team `{owner}`"),
                remedy(owner, "znodes", &team.znodes.patterns, &instead),
            );
        }
        if let Some(lock) = &schedule.lock
            && !team.locks.matches(lock)
        {
            loader.error(
                *file,
                &draft.lock_at,
                "schedule.lock",
                format!("the lock \"{lock}\" is not among those of the team `{owner}`"),
                remedy(owner, "locks", &team.locks.patterns, "name one that matches"),
            );
        }
    }
}

/// What the team has, and what can be done.
fn remedy(team: &str, key: &str, patterns: &[String], instead: &str) -> String {
    if patterns.is_empty() {
        return format!("[team.{team}] has no `{key}`, and what is not listed is not allowed: add {key} = […] there");
    }
    let patterns: Vec<String> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
    format!("[team.{team}] has {key} = [{}]: {instead}, or add a glob there", patterns.join(", "))
}

/// A token of a team that is not there may act on nothing. That is no error, since definitions come and
/// go while tokens stay.
pub(crate) fn check_token_teams(loader: &Loader<'_>) {
    if loader.incomplete || !loader.has_definitions() {
        return;
    }
    let names: Vec<&str> = loader.teams.keys().map(|name| &**name).collect();
    for (index, team, at) in &loader.main.token_teams {
        if super::is_name(team) && !loader.teams.contains_key(team.as_str()) {
            loader.warning(
                0,
                at,
                &format!("server.token.{index}.team"),
                format!("there is no [team.{team}], so this token may act on nothing"),
                match text::nearest(team, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("add a section [team.{team}] to the definitions"),
                },
            );
        }
    }
}

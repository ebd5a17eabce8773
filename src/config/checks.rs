//! From what is written to what is meant: whether values make sense, alone and together.
//!
//! Each check notes its faults and goes on with a stand-in, so that one fault does not hide the
//! next. A check that compares two values runs only where both could be read.

mod connections;
mod cron;
mod defaults;
mod ensemble;
mod fits;
mod json;
mod schedule;
mod sections;
mod shared;
mod store;
mod sync;
mod team;
mod times;
mod znode;

pub(super) use connections::{airflow, ensemble, zookeeper};
pub(super) use defaults::{ScheduleDefaults, defaults};
pub(super) use schedule::{Draft, schedule};
pub(super) use sections::{log, server, token_teams};
pub(super) use shared::Shared;
pub(super) use store::store;
pub(super) use sync::{SyncDraft, resolve as resolve_syncs, sync};
pub(super) use team::{check_teams, check_token_teams, team};

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::guard::{Denied, Guard, Purpose};
use super::secret::SecretRef;
use super::section::Section;
use super::text;
use super::written::SecretText;

impl Section<'_, '_> {
    /// A value that must be there; a value with a fault of its own was noted already.
    pub(super) fn required<T>(&self, at: &[&str], value: Option<T>, hint: &str) -> Option<T> {
        if value.is_none() && self.value(at).is_none() {
            let name = at.last().copied().unwrap_or_default();
            let (_, above) = at.split_last().unwrap_or((&"", &[]));
            self.error(above, format!("`{name}` is missing"), hint);
        }
        value
    }

    /// The path of a certificate or a key, relative to the file that names it.
    fn path(&self, at: &[&str], written: &str) -> PathBuf {
        self.judge(at, |guard| guard.file(written, Purpose::Certificate, real));
        self.source.directory.join(written)
    }

    fn secret(&self, at: &[&str], written: SecretText) -> SecretRef {
        match written {
            SecretText::Env(name) => {
                self.judge(at, |guard| guard.variable(&name));
                SecretRef::Env(name)
            }
            SecretText::File(path) => {
                self.judge(at, |guard| guard.file(&path, Purpose::Secret, real));
                SecretRef::File(self.source.directory.join(path))
            }
        }
    }

    /// Notes what definitions that were pushed may not have a member do.
    fn judge(&self, at: &[&str], judge: impl FnOnce(&Guard) -> Result<(), Denied>) {
        if let Some(Err(Denied { message, hint })) = self.source.guard.as_deref().map(judge) {
            self.error(at, message, hint);
        }
    }

    /// A duration within limits.
    fn between(&self, at: &[&str], value: Duration, least: Duration, most: Duration) -> Duration {
        if value < least || value > most {
            self.error(
                at,
                format!("{} is out of range", human(value)),
                format!("write a duration from {} to {}", human(least), human(most)),
            );
        }
        value
    }

    /// A base URL, without a trailing slash.
    fn base_url(&self, at: &[&str], written: &str) -> String {
        self.check_url(at, written);
        if written.contains(['?', '#']) {
            self.error(at, "a base URL has no `?` or `#`", "write only what comes before it");
        }
        written.trim_end_matches('/').to_owned()
    }

    /// A URL that holds no credentials.
    fn check_url(&self, at: &[&str], written: &str) {
        let hint = "write it as http://host:port or https://host/path";
        match written.parse::<reqwest::Url>() {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.error(at, format!("`{}` is not a scheme for this", url.scheme()), hint);
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.error(at, "a user or a password does not stand in the URL", "use `auth`, with { env = \"NAME\" }");
            }
            Ok(_) => {}
            Err(error) => self.error(at, format!("this is not a URL: {error}"), hint),
        }
    }

    /// Globs, each fault at its own place.
    fn globs(&self, at: &[&str], patterns: &[String], separate_parts: bool) -> GlobSet {
        let mut set = GlobSetBuilder::new();
        for (index, pattern) in patterns.iter().enumerate() {
            match globset::GlobBuilder::new(pattern).literal_separator(separate_parts).build() {
                Ok(glob) => {
                    set.add(glob);
                }
                Err(error) => {
                    let index = index.to_string();
                    let at: Vec<&str> = at.iter().copied().chain([index.as_str()]).collect();
                    self.error(&at, format!("\"{pattern}\" is not a glob: {}", error.kind()), GLOB_HINT);
                }
            }
        }
        set.build().unwrap_or_else(|error| {
            self.error(at, format!("these globs cannot be used together: {error}"), GLOB_HINT);
            GlobSet::empty()
        })
    }
}

/// Where a path leads, if there is something.
fn real(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

const GLOB_HINT: &str = "`*` is any text, `?` any character, `[ab]` one of them, `{a,b}` either";

/// Whether a pattern of `include` has a wildcard in it.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{']) && Glob::new(pattern).is_ok()
}

/// A name of an Airflow or an ensemble: it appears in ids, paths and metrics.
pub(super) fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 64
        && name.bytes().next().is_some_and(legal)
        && name.bytes().all(|b| legal(b) || b == b'-' || b == b'_')
}

/// A duration as the configuration writes it.
pub(super) fn human(duration: Duration) -> String {
    let mut ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut written = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if ms >= length {
            // Writing to a String cannot fail.
            let _ = write!(written, "{}{unit}", ms / length);
            ms %= length;
        }
    }
    written
}

/// A znode path as ZooKeeper allows it, or what is wrong with it.
pub(super) fn znode_path_fault(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Some("it does not begin with /") };
    if rest.is_empty() {
        return None;
    }
    if rest.ends_with('/') {
        return Some("it ends with /");
    }
    if rest.split('/').any(str::is_empty) {
        return Some("it has an empty part (//)");
    }
    if rest.split('/').any(|part| part == "." || part == "..") {
        return Some("`.` and `..` are no names of znodes");
    }
    let forbidden = |c: char| matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    rest.contains(forbidden).then_some("it has a character that ZooKeeper refuses")
}

/// `there is no … named …`, with the nearest or all.
pub(super) fn not_among<'a>(name: &str, known: impl Iterator<Item = &'a str>, section: &str) -> String {
    let known: Vec<&str> = known.collect();
    if known.is_empty() {
        format!("add a section [{section}.{name}]")
    } else {
        text::did_you_mean(name, &known, "there are")
    }
}

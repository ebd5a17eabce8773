//! What people are told of a comparison: keys, kinds and numbers, never a value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::sync::definition::{DriftPolicy, SyncDefinition};
use crate::domain::sync::entry::EntryKind;
use crate::domain::sync::plan::{Guard, Step};
use crate::store::model::optional_microseconds;
use crate::store::{LastPass, Ledger, StoreError};

/// The most keys of a report that are kept; the rest is only counted.
const ITEMS_MAX: usize = 1000;

/// What a comparison found, or left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PassReport {
    /// How many keys there are for each word of `items[].step`, and for `in_step`.
    pub counts: BTreeMap<String, u64>,
    /// Each key that is not in step, by key.
    pub items: Vec<SyncItem>,
    /// How many more there are.
    pub omitted: u64,
    /// Why nothing is deleted although `prune` is on.
    pub guard: Option<String>,
    /// How many entries were created, updated and deleted.
    #[serde(default)]
    pub written: BTreeMap<String, u64>,
    /// The incarnation of the znode in which everything that was written has been seen.
    #[serde(default)]
    pub incarnation: Option<String>,
    /// What went wrong; what is told above is then what is known.
    pub error: Option<String>,
    /// What can be done about it.
    pub hint: Option<String>,
}

/// A key that is not in step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncItem {
    /// The key in Airflow.
    pub key: String,
    /// `create`, `update`, `delete`, `drift`, `conflict`, `fault`, `stays` or `held`.
    pub step: String,
    /// More about it.
    pub detail: Option<String>,
}

impl PassReport {
    /// Tells these steps.
    pub(super) fn of(steps: &BTreeMap<String, Step>, guard: Option<Guard>) -> Self {
        let mut report = Self { guard: guard.map(guard_text), ..Self::default() };
        for (key, step) in steps {
            let Some(word) = step.word() else { continue };
            *report.counts.entry(word.to_owned()).or_default() += 1;
            if matches!(step, Step::InStep | Step::Note) {
                continue;
            }
            if report.items.len() < ITEMS_MAX {
                let (key, detail) = (printable(key), step.detail());
                report.items.push(SyncItem { key, step: word.to_owned(), detail });
            } else {
                report.omitted += 1;
            }
        }
        report
    }

    /// How many keys are not in step.
    pub fn differences(&self) -> u64 {
        self.items.len() as u64 + self.omitted
    }

    /// In one line, for a log: `3 create, 1 drift`.
    pub fn summary(&self) -> String {
        let words = Step::WORDS.into_iter().filter_map(|word| Some((word, self.counts.get(word)?)));
        let told: Vec<String> = words.map(|(word, count)| format!("{count} {word}")).collect();
        if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
    }
}

/// A key as it may be shown on a terminal.
fn printable(key: &str) -> String {
    if key.contains(char::is_control) { key.escape_debug().to_string() } else { key.to_owned() }
}

fn guard_text(guard: Guard) -> String {
    match guard {
        Guard::Missing => "the znode is missing: what was written stays until `flowkeeper sync apply --prune`",
        Guard::Empty => "nothing is left below the znode: what was written stays until `flowkeeper sync apply --prune`",
        Guard::Recreated => {
            "the znode was deleted and made anew: what was written and is missing there stays until it is back, or \
             until `flowkeeper sync apply --prune`"
        }
        Guard::Unproven => {
            "it is not known whether the ensemble has the history that the ledger remembers: what was written stays \
             until `flowkeeper adopt` or `flowkeeper sync apply --prune`"
        }
        Guard::Many => {
            "many vanished at once: what is still missing after `interval` is deleted then, or by \
             `flowkeeper sync apply --prune` at once"
        }
    }
    .to_owned()
}

/// What the last comparison of a sync found; `None` before the first.
pub async fn last(ledger: &Ledger, sync: &str) -> Result<Option<PassReport>, StoreError> {
    let passes = ledger.sync_passes().await?;
    Ok(passes.iter().find(|last| last.sync == sync).and_then(parse))
}

/// One of a version that wrote something else tells nothing.
fn parse(last: &LastPass) -> Option<PassReport> {
    serde_json::from_str(&last.report).ok()
}

/// A sync, and how its last comparison ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncOverview {
    /// Its name.
    pub name: String,
    /// The Airflow that is kept in step.
    pub airflow: String,
    /// Which of its collections.
    pub to: EntryKind,
    /// The ensemble; null is the home ensemble.
    pub ensemble: Option<String>,
    /// The znode.
    pub path: String,
    /// Stands before each key.
    pub prefix: String,
    /// Whether what vanished from ZooKeeper is deleted.
    pub prune: bool,
    /// `report` or `repair`.
    pub drift: String,
    /// `in_step`; `differs`, something is told and not done; `failing`; `unknown`, not compared yet.
    pub state: String,
    /// When the last comparison ended.
    #[serde(serialize_with = "optional_microseconds")]
    pub at: Option<Timestamp>,
    /// What it found.
    #[serde(flatten)]
    pub last: PassReport,
}

impl SyncOverview {
    /// Puts together what is configured and what the ledger tells.
    pub fn of(definition: &SyncDefinition, last: Option<&LastPass>) -> Self {
        let report: Option<PassReport> = last.and_then(parse);
        let state = match &report {
            None => "unknown",
            Some(report) if report.error.is_some() => "failing",
            Some(report) if report.differences() > 0 || report.guard.is_some() => "differs",
            Some(_) => "in_step",
        };
        Self {
            name: definition.name.to_string(),
            airflow: definition.airflow.to_string(),
            to: definition.kind,
            ensemble: definition.ensemble.as_deref().map(str::to_owned),
            path: definition.path.to_string(),
            prefix: definition.prefix.clone(),
            prune: definition.prune,
            drift: match definition.drift {
                DriftPolicy::Report => "report".to_owned(),
                DriftPolicy::Repair => "repair".to_owned(),
            },
            state: state.to_owned(),
            at: last.map(|last| last.at),
            last: report.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::sync::plan::Drift;

    #[test]
    fn a_report_counts_everything_and_names_what_is_not_in_step() {
        let mut steps = BTreeMap::from([
            ("a".to_owned(), Step::InStep),
            ("b".to_owned(), Step::Note),
            ("c".to_owned(), Step::Forget),
            ("d\u{1b}".to_owned(), Step::Drift(Drift::Deleted)),
        ]);
        let report = PassReport::of(&steps, Some(Guard::Empty));
        assert_eq!((report.differences(), report.summary()), (1, "2 in_step, 1 drift".to_owned()));
        assert_eq!(report.items[0].key, "d\\u{1b}");
        assert!(report.guard.is_some());
        steps.extend((0..1500).map(|number| (format!("n{number}"), Step::Create)));
        let report = PassReport::of(&steps, None);
        assert_eq!((report.items.len(), report.omitted, report.counts["create"]), (1000, 501, 1500));
    }
}

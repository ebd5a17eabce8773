//! Carrying a plan out: the intent into the ledger, the request to Airflow, what came of it into the
//! ledger, part by part.
//!
//! Whatever is lost on the way, an answer or the process itself, the next comparison finds the intent and
//! judges by the mark in Airflow. So nothing here is tried again: to compare is to try again. For the same
//! reason nothing is waited for when the sync is to end: a request that hangs must not hold a reload up,
//! and its intent says that it is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::pass::Look;
use super::report::PassReport;
use super::resting::Setback;
use crate::airflow::Airflow;
use crate::airflow::entries::{Care, Change, Changed, Outgoing};
use crate::airflow::places::Places;
use crate::domain::sync::definition::SyncDefinition;
use crate::domain::sync::entry::EntryValue;
use crate::domain::sync::mark::Mark;
use crate::domain::sync::plan::{Hold, Owned, Step, Wish};
use crate::metrics::{self, EntryWrite};
use crate::store::{Leadership, Ledger, OwnedChanges, StoreError};

/// How long an answer is still waited for when the sync is to end: nearly all come within that time, and
/// what is known needs not be looked up.
const LAST_PATIENCE: Duration = Duration::from_millis(300);

/// What carries a plan out.
pub(super) struct Applier<'a> {
    pub(super) definition: &'a SyncDefinition,
    pub(super) airflow: &'a Airflow,
    pub(super) ledger: &'a Ledger,
    pub(super) leadership: &'a Leadership,
    /// The sync is to end: no further request.
    pub(super) ending: &'a CancellationToken,
    /// Where each request gets a place in Airflow's pace.
    pub(super) places: &'a Places,
    /// What to make of it when Airflow fails at a request.
    pub(super) care: Care,
}

/// What came of a plan.
pub(super) struct Applied {
    /// What is left.
    pub(super) report: PassReport,
    /// What Airflow did not take, by key.
    pub(super) setbacks: BTreeMap<String, Setback>,
    /// Airflow failed at a request, which may be about one of the entries in it.
    pub(super) is_failure: bool,
}

/// A plan while it is carried out.
struct Progress {
    steps: BTreeMap<String, Step>,
    written: BTreeMap<String, u64>,
    setbacks: BTreeMap<String, Setback>,
    /// Why the rest was not done.
    trouble: Option<(String, Option<String>)>,
    is_failure: bool,
}

impl Progress {
    /// Leaves out what an earlier change has come to an end with: a connection that could not be deleted is
    /// not made anew.
    fn still_to_do(&self, change: Change) -> Change {
        let is_over = |key: &str| matches!(self.steps.get(key), Some(Step::Fault(_)));
        match change {
            Change::Create(entries) => {
                Change::Create(entries.into_iter().filter(|entry| !is_over(&entry.key)).collect())
            }
            other => other,
        }
    }
}

impl Applier<'_> {
    /// Does what is planned; the report tells what is left. `None`: the sync is to end before everything was
    /// done; the ledger has what is known.
    pub(super) async fn apply(&self, look: Look) -> Result<Option<Applied>, StoreError> {
        let Look { plan, wishes, owned, .. } = look;
        self.note_known(&plan.steps, &wishes).await?;
        let changes = self.changes(&plan.steps, &wishes);
        let mut progress = Progress {
            steps: plan.steps,
            written: BTreeMap::new(),
            setbacks: BTreeMap::new(),
            trouble: None,
            is_failure: false,
        };
        for (change, write) in changes {
            let change = progress.still_to_do(change);
            if change.is_empty() || progress.trouble.is_some() {
                continue;
            }
            let parts = match self.answered(self.airflow.parts_of(change)).await {
                None => return Ok(None),
                Some(Ok(parts)) => parts,
                Some(Err(error)) => {
                    progress.trouble = Some((format!("failed to {error}"), Some(error.hint().to_owned())));
                    continue;
                }
            };
            for part in parts {
                if progress.trouble.is_some() {
                    break;
                }
                if self.is_to_end() || !self.carry_out(part, write, &wishes, &owned, &mut progress).await? {
                    return Ok(None);
                }
            }
        }
        let mut report = PassReport::of(&progress.steps, plan.guard);
        report.written = progress.written;
        if let Some((error, hint)) = progress.trouble {
            (report.error, report.hint) = (Some(error), hint);
        }
        Ok(Some(Applied { report, setbacks: progress.setbacks, is_failure: progress.is_failure }))
    }

    fn is_to_end(&self) -> bool {
        self.ending.is_cancelled() || self.leadership.lost().is_cancelled()
    }

    /// Ends when the sync is to end.
    async fn end(&self) {
        tokio::select! {
            () = self.ending.cancelled() => {}
            () = self.leadership.lost().cancelled() => {}
        }
    }

    /// What a request comes to; `None` when it hangs while the sync is to end. It may take effect all the same.
    async fn answered<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let over = async {
            self.end().await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            biased;
            answer = request => Some(answer),
            () = over => None,
        }
    }

    /// What only the ledger has to be told.
    async fn note_known(
        &self,
        steps: &BTreeMap<String, Step>,
        wishes: &BTreeMap<String, Wish>,
    ) -> Result<(), StoreError> {
        let mut changes = OwnedChanges::default();
        for (key, step) in steps {
            match step {
                Step::Note => changes.put.push((key.clone(), self.owned(Hold::Owned, digest(wishes, key)))),
                Step::Forget | Step::Foreign { forget: true } | Step::OfStore { forget: true, .. } => {
                    changes.forget.push(key.clone());
                }
                _ => {}
            }
        }
        self.note(&changes).await
    }

    /// What is sent, in this order. Airflow never takes a password away from a connection that it changes,
    /// so one that is to have none is deleted and made anew.
    fn changes(&self, steps: &BTreeMap<String, Step>, wishes: &BTreeMap<String, Wish>) -> [(Change, EntryWrite); 5] {
        let mark = Mark { sync: &self.definition.name, store_id: self.ledger.store_id() };
        let (mut create, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        let mut anew = Vec::new();
        for (key, step) in steps {
            let outgoing = || match wishes.get(key) {
                Some(Wish::Entry { value, .. }) => {
                    let description = mark.describe(value.description());
                    Some(Outgoing { key: key.clone(), value: value.clone(), description })
                }
                _ => None,
            };
            match step {
                Step::Create => create.extend(outgoing()),
                Step::Update { fields, .. } if fields.contains(&"password") && has_no_password(wishes.get(key)) => {
                    anew.extend(outgoing());
                }
                Step::Update { .. } => update.extend(outgoing()),
                Step::Delete => delete.push(key.clone()),
                _ => {}
            }
        }
        [
            (Change::Create(create), EntryWrite::Create),
            (Change::Update(update), EntryWrite::Update),
            (Change::Delete(delete), EntryWrite::Delete),
            (Change::Delete(anew.iter().map(|entry| entry.key.clone()).collect()), EntryWrite::Delete),
            (Change::Create(anew), EntryWrite::Create),
        ]
    }

    /// Sends one request in a place of Airflow's pace, between its intent and what came of it; `false` when the
    /// sync is to end before it is through.
    async fn carry_out(
        &self,
        part: Change,
        write: EntryWrite,
        wishes: &BTreeMap<String, Wish>,
        before: &BTreeMap<String, Owned>,
        progress: &mut Progress,
    ) -> Result<bool, StoreError> {
        let place = tokio::select! {
            biased;
            () = self.end() => None,
            place = self.places.take(&self.definition.airflow) => place,
        };
        let Some(place) = place else { return Ok(false) };
        let keys: Vec<String> = part.keys().into_iter().map(str::to_owned).collect();
        let hold = match write {
            EntryWrite::Create => Hold::Creating,
            EntryWrite::Update => Hold::Owned,
            EntryWrite::Delete => Hold::Deleting,
        };
        let intents = keys.iter().map(|key| (key.clone(), self.owned(hold, None))).collect();
        self.note(&OwnedChanges { put: intents, forget: Vec::new() }).await?;
        let Some(changed) = self.answered(self.airflow.change_entries(self.definition.kind, part, self.care)).await
        else {
            tracing::info!(
                sync = &*self.definition.name,
                airflow = &*self.definition.airflow,
                entries = keys.len(),
                "a request was not answered before its sync had to end; the next comparison finds out what became of it"
            );
            return Ok(false);
        };
        drop(place);
        let mut outcome = OwnedChanges::default();
        for key in keys {
            let (after, row) = settled(write, &key, &changed, before.get(&key));
            match row {
                Row::Done => outcome.put.push((key.clone(), self.owned(Hold::Owned, digest(wishes, &key)))),
                Row::Back(owned) => outcome.put.push((key.clone(), owned)),
                Row::Gone => outcome.forget.push(key.clone()),
                Row::Stays => {}
            }
            if changed.done.contains(&key) {
                *progress.written.entry(write.as_str().to_owned()).or_default() += 1;
            }
            if let Some(reason) = changed.refused.get(&key).or_else(|| changed.failed.get(&key)) {
                let is_refusal = changed.refused.contains_key(&key);
                let digest = if write == EntryWrite::Delete { None } else { digest(wishes, &key) };
                progress.setbacks.insert(key.clone(), Setback { reason: at_rest(reason), is_refusal, digest });
            }
            match after {
                After::Step(step) => drop(progress.steps.insert(key, step)),
                After::Nothing => drop(progress.steps.remove(&key)),
                After::Same => {}
            }
        }
        self.note(&outcome).await?;
        metrics::sync_written(&self.definition.name, write, changed.done.len());
        progress.is_failure = changed.is_failure();
        progress.trouble = changed.error.map(|error| (format!("failed to {error}"), Some(error.hint().to_owned())));
        Ok(true)
    }

    fn owned(&self, hold: Hold, digest: Option<String>) -> Owned {
        Owned { sync: self.definition.name.clone(), hold, digest }
    }

    async fn note(&self, changes: &OwnedChanges) -> Result<(), StoreError> {
        let definition = self.definition;
        self.ledger.note_entries(self.leadership, &definition.airflow, definition.kind, changes).await
    }
}

fn has_no_password(wish: Option<&Wish>) -> bool {
    let Some(Wish::Entry { value: EntryValue::Connection(connection), .. }) = wish else { return false };
    connection.password.is_none()
}

fn digest(wishes: &BTreeMap<String, Wish>, key: &str) -> Option<String> {
    match wishes.get(key) {
        Some(Wish::Entry { digest, .. }) => Some(digest.clone()),
        _ => None,
    }
}

/// A reason, and what follows.
fn at_rest(reason: &str) -> String {
    format!(
        "{reason}; asked again after a rest of up to an hour, when the znode changes, or by `flowkeeper sync apply`"
    )
}

/// What the ledger is told of a key after a request.
#[derive(Debug, PartialEq, Eq)]
enum Row {
    /// It is ours, with the value that is wanted.
    Done,
    /// As it was before the intent.
    Back(Owned),
    /// It is not ours.
    Gone,
    /// The intent stays: nobody knows.
    Stays,
}

/// What people are told of a key after a request.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// This.
    Step(Step),
    /// What was planned; it is still to be done.
    Same,
    /// Nothing any more.
    Nothing,
}

/// The table of what follows from an answer.
fn settled(write: EntryWrite, key: &str, changed: &Changed, before: Option<&Owned>) -> (After, Row) {
    let back = || before.cloned().map_or(Row::Gone, Row::Back);
    if let Some(reason) = changed.failed.get(key) {
        return (After::Step(Step::Fault(at_rest(reason))), Row::Stays);
    }
    if changed.is_unknown(key) {
        return (After::Same, if changed.is_not_sent() { back() } else { Row::Stays });
    }
    match (write, changed.refused.get(key), changed.done.contains(key)) {
        (EntryWrite::Create, Some(reason), _) => (After::Step(Step::Fault(at_rest(reason))), Row::Gone),
        (_, Some(reason), _) => (After::Step(Step::Fault(at_rest(reason))), back()),
        (EntryWrite::Create | EntryWrite::Update, None, true) => (After::Step(Step::InStep), Row::Done),
        // Somebody made it between the list and the request.
        (EntryWrite::Create, None, false) => (After::Step(Step::Foreign { forget: false }), Row::Gone),
        // Somebody deleted it between the list and the request: the next comparison makes it.
        (EntryWrite::Update, None, false) => (After::Same, Row::Stays),
        (EntryWrite::Delete, None, _) => (After::Nothing, Row::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_answer() {
        use EntryWrite::{Create, Delete, Update};
        let was = Owned { sync: "app".into(), hold: Hold::Owned, digest: Some("d".into()) };
        let done = Changed { done: ["k".to_owned()].into(), ..Changed::default() };
        let refused = Changed { refused: [("k".to_owned(), "422".to_owned())].into(), ..Changed::default() };
        let passed_over = Changed::default();
        let error = crate::airflow::Error::Refused {
            airflow: "main".into(),
            tried: "create".into(),
            detail: "500: Airflow failed".into(),
        };
        let lost = Changed { error: Some(error.clone()), ..Changed::default() };
        let not_sent = crate::airflow::Error::NoAnswer {
            airflow: "main".into(),
            url: "http://h".into(),
            tried: "create".into(),
            detail: "connection refused".into(),
            not_sent: true,
        };
        let not_sent = Changed { error: Some(not_sent), ..Changed::default() };
        let failed = Changed { failed: [("k".to_owned(), "422".to_owned())].into(), ..Changed::default() };
        let done_before_it_was_lost = Changed { error: Some(error), ..done.clone() };
        let fault = || After::Step(Step::Fault(at_rest("422")));
        let in_step = || After::Step(Step::InStep);
        for (write, changed, before, expected) in [
            (Create, &done, None, (in_step(), Row::Done)),
            (Create, &refused, None, (fault(), Row::Gone)),
            (Create, &passed_over, None, (After::Step(Step::Foreign { forget: false }), Row::Gone)),
            (Create, &lost, None, (After::Same, Row::Stays)),
            (Create, &done_before_it_was_lost, None, (in_step(), Row::Done)),
            (Update, &done, Some(&was), (in_step(), Row::Done)),
            (Update, &refused, Some(&was), (fault(), Row::Back(was.clone()))),
            (Update, &refused, None, (fault(), Row::Gone)),
            (Update, &passed_over, Some(&was), (After::Same, Row::Stays)),
            (Update, &lost, Some(&was), (After::Same, Row::Stays)),
            (Delete, &done, Some(&was), (After::Nothing, Row::Gone)),
            (Delete, &passed_over, Some(&was), (After::Nothing, Row::Gone)),
            (Delete, &refused, Some(&was), (fault(), Row::Back(was.clone()))),
            (Delete, &lost, Some(&was), (After::Same, Row::Stays)),
            // It did not reach Airflow: everything is as it was.
            (Create, &not_sent, None, (After::Same, Row::Gone)),
            (Update, &not_sent, Some(&was), (After::Same, Row::Back(was.clone()))),
            (Delete, &not_sent, Some(&was), (After::Same, Row::Back(was.clone()))),
            // Airflow failed at this one alone: others go on, and nobody knows what became of it.
            (Create, &failed, None, (fault(), Row::Stays)),
            (Update, &failed, Some(&was), (fault(), Row::Stays)),
            (Delete, &failed, Some(&was), (fault(), Row::Stays)),
        ] {
            assert_eq!(settled(write, "k", changed, before), expected, "{write:?} {changed:?}");
        }
    }
}

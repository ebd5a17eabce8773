//! Variables, pools and connections: listing them, and writing many at once where the API can.
//!
//! Airflow 3 takes changes in bulk, one transaction a request, and passes over what is there already
//! (`skip`), so making an entry never overwrites somebody else's. Airflow 2 takes one at a time, and its
//! `POST variables` overwrites without a word; so a variable is asked for right before it is made.
//!
//! A refusal of Airflow's repeats what it was sent (`"input": …`), so nothing of an answer's text goes
//! into errors here: only statuses, and the names of fields. Measured on Airflow 3.3.2 and 2.11.2.

mod answers;
mod bodies;

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{self, Verdict};
use super::client::{Airflow, Call};
use super::{Api, Error};
use crate::domain::sync::entry::{EntryKind, EntryValue};
use crate::domain::sync::shown::Shown;
use reqwest::Method;

/// Entries on a page of a list; Airflow's own upper limit, unless somebody changed it.
const PAGE_SIZE: u32 = 100;
/// How often a list is read from its beginning when it changes under our eyes.
const LISTINGS: u32 = 3;
/// The most entries in a request for many. On a busy Airflow one takes about a millisecond, and no run is
/// submitted meanwhile where Airflow bears one request at a time.
const BULK_ENTRIES: usize = 100;
/// About how large such a request may become, in bytes: proxies take 1 MiB unless told otherwise.
const BULK_BYTES: usize = 900 * 1024;
/// How many entries are written one by one before the ledger is told, and runs have their turn.
const SINGLE_ENTRIES: usize = 5;

/// An entry about to be written.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its key.
    pub key: String,
    /// What it holds.
    pub value: EntryValue,
    /// Its description, with the mark.
    pub description: String,
}

/// A change of entries of one kind.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes those that are not there; the others stay as they are.
    Create(Vec<Outgoing>),
    /// Changes those that are there.
    Update(Vec<Outgoing>),
    /// Deletes those that are there.
    Delete(Vec<String>),
}

impl Change {
    /// How many entries it is about.
    pub fn len(&self) -> usize {
        match self {
            Self::Create(entries) | Self::Update(entries) => entries.len(),
            Self::Delete(keys) => keys.len(),
        }
    }

    /// Whether it is about none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its keys.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Self::Create(entries) | Self::Update(entries) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            Self::Delete(keys) => keys.iter().map(String::as_str).collect(),
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Update(_) => "change",
            Self::Delete(_) => "delete",
        }
    }

    /// Its keys with what they are to hold.
    fn entries(&self) -> Vec<(&str, Option<&EntryValue>)> {
        match self {
            Self::Create(entries) | Self::Update(entries) => {
                entries.iter().map(|entry| (entry.key.as_str(), Some(&entry.value))).collect()
            }
            Self::Delete(keys) => keys.iter().map(|key| (key.as_str(), None)).collect(),
        }
    }

    /// Its key, if it is about one entry.
    fn only_key(&self) -> Option<String> {
        match self.keys().as_slice() {
            [key] => Some((*key).to_owned()),
            _ => None,
        }
    }

    /// It without these keys.
    fn without(mut self, keys: &BTreeMap<String, String>) -> Self {
        match &mut self {
            Self::Create(entries) | Self::Update(entries) => entries.retain(|entry| !keys.contains_key(&entry.key)),
            Self::Delete(all) => all.retain(|key| !keys.contains_key(key)),
        }
        self
    }

    /// Two halves of it, since one entry spoils a request for all.
    fn halves(self) -> [Self; 2] {
        let middle = self.len() / 2;
        match self {
            Self::Create(mut entries) => [Self::Create(entries.split_off(middle)), Self::Create(entries)],
            Self::Update(mut entries) => [Self::Update(entries.split_off(middle)), Self::Update(entries)],
            Self::Delete(mut keys) => [Self::Delete(keys.split_off(middle)), Self::Delete(keys)],
        }
    }
}

/// What to make of it when Airflow fails (500) at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// It is about the moment: nothing else is sent.
    Together,
    /// It may be about one of the entries: that one is looked for, and the others are sent without it.
    Apart,
}

/// At how many entries alone Airflow may fail until that is no more about entries.
const FAILURES: usize = 3;

/// What became of a [`Change`]. Keys in neither list were passed over: they were there already, or not
/// there any more.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Certainly done.
    pub done: BTreeSet<String>,
    /// Airflow refused these for good; why, without the value.
    pub refused: BTreeMap<String, String>,
    /// Airflow failed at these alone, and nobody knows whether they were done; why, without the value.
    pub failed: BTreeMap<String, String>,
    /// Why the rest is not known. It may have been done.
    pub error: Option<Error>,
}

impl Changed {
    /// Whether nobody knows what became of `key`.
    pub fn is_unknown(&self, key: &str) -> bool {
        self.error.is_some()
            && !self.done.contains(key)
            && !self.refused.contains_key(key)
            && !self.failed.contains_key(key)
    }

    /// Whether Airflow failed at the request, which may be about one of its entries.
    pub fn is_failure(&self) -> bool {
        self.error.as_ref().is_some_and(is_failure)
    }

    /// Whether what is not known was certainly not done: the request did not reach Airflow.
    pub fn is_not_sent(&self) -> bool {
        matches!(&self.error, Some(Error::NoAnswer { not_sent: true, .. }))
    }

    /// Notes that Airflow failed at one entry; whether that may still be about single entries.
    fn fail(&mut self, key: String, error: Error) -> bool {
        if self.failed.len() >= FAILURES {
            self.error = Some(error);
            return false;
        }
        let detail = if let Error::Refused { detail, .. } = error { detail } else { error.to_string() };
        self.failed.insert(key, detail);
        true
    }
}

impl Airflow {
    /// Every entry of a kind. All of them: a filter by prefix is a range in the order of the metadata
    /// database's collation, and an entry that it misses would be taken for absent.
    pub async fn list_entries(&self, kind: EntryKind) -> Result<BTreeMap<String, Shown>, Error> {
        let tried = format!("list the {}", kind.as_str());
        for _ in 0..LISTINGS {
            if let Some(entries) = self.list_once(kind, &tried).await? {
                return Ok(entries);
            }
        }
        Err(Error::Refused {
            airflow: self.name().to_owned(),
            tried,
            detail: "the list changes faster than it can be read".to_owned(),
        })
    }

    /// `None` when the list changed meanwhile: an entry may have moved from a page to one that was read.
    async fn list_once(&self, kind: EntryKind, tried: &str) -> Result<Option<BTreeMap<String, Shown>>, Error> {
        let mut all = BTreeMap::new();
        let (mut offset, mut first_total) = (0, None);
        loop {
            let body = self.ask_blind(tried, |_| bodies::list(kind, PAGE_SIZE, offset)).await?;
            let page = answers::page(kind, &body).ok_or_else(|| self.garbled(tried))?;
            if *first_total.get_or_insert(page.total) != page.total {
                return Ok(None);
            }
            offset += page.entries.len() as u64;
            let is_last = page.entries.is_empty() || offset >= page.total;
            all.extend(page.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
            if is_last {
                return Ok((all.len() as u64 == page.total).then_some(all));
            }
        }
    }

    /// How a long change is best cut, so that the ledger is told of each part.
    pub async fn parts_of(&self, change: Change) -> Result<Vec<Change>, Error> {
        let api = self.api().await.map_err(|failure| self.error("find out which API it speaks", failure))?;
        let (entries, bytes) = match api {
            Api::V1 => (SINGLE_ENTRIES, usize::MAX),
            Api::V2 => (BULK_ENTRIES, BULK_BYTES),
        };
        Ok(bodies::cut(change, entries, bytes))
    }

    /// Carries a change out, in one request where the API can.
    pub async fn change_entries(&self, kind: EntryKind, change: Change, care: Care) -> Changed {
        match self.api().await {
            Ok(Api::V2) => self.change_in_bulk(kind, change, care).await,
            Ok(Api::V1) => self.change_singly(kind, &change, care).await,
            Err(failure) => {
                let error = self.error(&format!("{} {}", change.verb(), kind.as_str()), failure);
                Changed { error: Some(error), ..Changed::default() }
            }
        }
    }

    async fn change_in_bulk(&self, kind: EntryKind, change: Change, care: Care) -> Changed {
        let mut changed = Changed::default();
        for (key, value) in change.entries() {
            if let Some(reason) = bodies::fault(Api::V2, kind, key, value) {
                changed.refused.insert(key.to_owned(), reason.to_owned());
            }
        }
        let mut todo = vec![change.without(&changed.refused)];
        while let Some(change) = todo.pop() {
            if change.is_empty() {
                continue;
            }
            let tried = format!("{} {} {}", change.verb(), change.len(), kind.as_str());
            let body = bodies::bulk(&change);
            let make = |_| Call::new(Method::PATCH, [kind.as_str()]).json(&body);
            match self.ask_blind(&tried, make).await {
                Ok(answer) => match answers::bulk(&change, &answer) {
                    Some(answers::Bulk::Done(keys)) => changed.done.extend(keys),
                    Some(answers::Bulk::Refused(reason)) => refuse(&mut changed, &mut todo, change, &reason),
                    None => {
                        changed.error = Some(self.garbled(&tried));
                        return changed;
                    }
                },
                Err(Error::Refused { detail, .. }) if answers::is_about_content(&detail) => {
                    refuse(&mut changed, &mut todo, change, &detail);
                }
                Err(error) if care == Care::Apart && is_failure(&error) => match change.only_key() {
                    Some(key) => {
                        if !changed.fail(key, error) {
                            return changed;
                        }
                    }
                    None => todo.extend(change.halves()),
                },
                Err(error) => {
                    changed.error = Some(error);
                    return changed;
                }
            }
        }
        changed
    }

    async fn change_singly(&self, kind: EntryKind, change: &Change, care: Care) -> Changed {
        let mut changed = Changed::default();
        for (index, (key, value)) in change.entries().into_iter().enumerate() {
            let key = key.to_owned();
            if let Some(reason) = bodies::fault(Api::V1, kind, &key, value) {
                changed.refused.insert(key, reason.to_owned());
                continue;
            }
            match self.change_one(kind, change, index, &key).await {
                Ok(true) => drop(changed.done.insert(key)),
                Ok(false) => {}
                Err(Error::Refused { detail, .. }) if answers::is_about_content(&detail) => {
                    changed.refused.insert(key, detail);
                }
                Err(error) if care == Care::Apart && is_failure(&error) => {
                    if !changed.fail(key, error) {
                        return changed;
                    }
                }
                Err(error) => {
                    changed.error = Some(error);
                    return changed;
                }
            }
        }
        changed
    }

    /// Whether it was done; `false` when it was there already, or not there any more.
    async fn change_one(&self, kind: EntryKind, change: &Change, index: usize, key: &str) -> Result<bool, Error> {
        let tried = format!("{} the {} {key}", change.verb(), kind.noun());
        let path = [kind.as_str(), key];
        let (method, body) = match change {
            Change::Create(entries) => (Method::POST, Some(bodies::single(&entries[index]))),
            Change::Update(entries) => (Method::PATCH, Some(bodies::single(&entries[index]))),
            Change::Delete(_) => (Method::DELETE, None),
        };
        let is_new = method == Method::POST;
        let garbled_unless = |is_good: bool| if is_good { Ok(()) } else { Err(self.garbled(&tried)) };
        if is_new && kind == EntryKind::Variables {
            match self.ask_blind(&tried, |_| Call::new(Method::GET, path)).await {
                Ok(answer) => return garbled_unless(answers::shows(kind, key, &answer)).map(|()| false),
                Err(Error::Absent { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let call = if is_new { Call::new(method, [kind.as_str()]) } else { Call::new(method, path) };
        let (call, answers_entry) = match body {
            Some(body) => (call.json(&body), true),
            None => (call, false),
        };
        match self.ask_blind(&tried, |_| call.clone()).await {
            // A page of something before Airflow is no proof that it was done.
            Ok(answer) => {
                let is_good = if answers_entry { answers::shows(kind, key, &answer) } else { answer.is_empty() };
                garbled_unless(is_good).map(|()| true)
            }
            Err(Error::Absent { .. }) if !is_new => Ok(false),
            Err(Error::Refused { detail, .. }) if is_new && detail.starts_with("409") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As [`Self::ask`], with errors that hold nothing of what was sent or answered.
    async fn ask_blind(&self, tried: &str, make: impl Fn(Api) -> Call) -> Result<Vec<u8>, Error> {
        let reply = self.exchange(make).await.map_err(|failure| self.error(tried, failure))?;
        let (airflow, tried) = (self.name().to_owned(), tried.to_owned());
        let status = reply.answer.status;
        match answer::classify(&reply.answer) {
            Verdict::Done => Ok(reply.answer.body),
            Verdict::Absent(_) => Err(Error::Absent { airflow, tried, detail: "404: it does not exist".to_owned() }),
            // Of a redirection only the address is told.
            Verdict::Unauthorized(detail) if (300..400).contains(&status) => {
                Err(Error::Unauthorized { airflow, tried, detail })
            }
            Verdict::Unauthorized(_) => {
                let detail = format!("{status}: the login is not accepted, or its user may not do this");
                Err(Error::Unauthorized { airflow, tried, detail })
            }
            Verdict::Refused(_) | Verdict::Unknown(_) | Verdict::WrongApi(_) => {
                Err(Error::Refused { airflow, tried, detail: answers::refusal(status, &reply.answer.body) })
            }
        }
    }
}

fn is_failure(error: &Error) -> bool {
    matches!(error, Error::Refused { detail, .. } if answers::is_failure(detail))
}

/// Notes the refusal of one entry, or has the halves of several tried.
fn refuse(changed: &mut Changed, todo: &mut Vec<Change>, change: Change, reason: &str) {
    if change.len() == 1 {
        changed.refused.extend(change.keys().into_iter().map(|key| (key.to_owned(), reason.to_owned())));
    } else {
        todo.extend(change.halves());
    }
}

#[cfg(test)]
mod tests;

//! What an answer of Airflow's means: pure functions from status, headers and body to a verdict.
//!
//! Two rules decide every case. A verdict that ends a run (accepted, rejected) needs words that only
//! Airflow can have written: JSON of the right shape. Whatever a proxy, a login page or a broken
//! connection may have produced as well is unknown, and unknown is tried again.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::DagRun;
use super::pace::Load;
use super::wire;
use crate::secret::Redaction;

/// Longest wait that a `Retry-After` is believed for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How much of a body that could not be read is searched for its first words.
const MAX_GLIMPSED_BYTES: usize = 64 << 10;

/// An HTTP answer, as far as any decision looks at it.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Retry-After`, `Location` and `Date` as sent.
    pub(super) retry_after: Option<String>,
    pub(super) location: Option<String>,
    pub(super) date: Option<String>,
    pub(super) body: Vec<u8>,
    /// What it may repeat and nobody is shown.
    pub(super) redaction: Redaction,
}

/// What the answer to a request for a new DAG run means.
#[derive(Debug)]
pub(super) enum PostVerdict {
    /// The DAG run was made by this request.
    Accepted(DagRun),
    /// Some unique key is taken.
    Conflict,
    /// The DAG is unknown or broken; nothing was made.
    DagMissing(String),
    /// Refused for good; nothing was made.
    Rejected(String),
    /// Not believed who we are; nothing was made.
    Unauthorized(String),
    /// Too many requests; nothing was made.
    Throttled { after: Option<Duration>, detail: String },
    /// This address does not speak the version of the API that we took it for; nothing was made.
    WrongApi(String),
    /// Anything may have happened.
    Unknown { after: Option<Duration>, detail: String },
}

/// What the answer to a request that reads or changes one thing means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 2xx: the body says more.
    Done,
    /// It does not exist, in Airflow's own words.
    Absent(String),
    /// Not believed who we are.
    Unauthorized(String),
    /// As [`PostVerdict::WrongApi`].
    WrongApi(String),
    /// Airflow refuses what was asked.
    Refused(String),
    /// Nothing can be said.
    Unknown(String),
}

/// Classifies the answer to `POST …/dagRuns` for `dag_run_id`.
pub(super) fn classify_post(answer: &Answer, dag_run_id: &str, now: Timestamp) -> PostVerdict {
    let said = said(answer);
    let after = || answer.retry_after.as_deref().and_then(|text| retry_after(text, now));
    let unknown = |detail: String| PostVerdict::Unknown { after: after(), detail };
    match (answer.status, said) {
        (200 | 201, _) => match wire::dag_run(&answer.body) {
            Some(run) if run.dag_run_id == dag_run_id => PostVerdict::Accepted(run),
            Some(_) => unknown(format!("{} with another DAG run than the one asked for", answer.status)),
            None => unknown(format!("{} without a DAG run in it: {}", answer.status, glimpse(answer))),
        },
        (300..=399, _) => PostVerdict::Unauthorized(redirect(answer)),
        (400, Some(said)) if said.contains("has import errors") => PostVerdict::DagMissing(said),
        (400 | 422, Some(said)) => PostVerdict::Rejected(said),
        (401 | 403, said) => PostVerdict::Unauthorized(unauthorized(answer, said)),
        (404, Some(said)) if names_a_dag(&said) => PostVerdict::DagMissing(said),
        (404 | 405 | 410, said) => PostVerdict::WrongApi(no_such_path(answer, said)),
        (409, _) => PostVerdict::Conflict,
        (413, _) => {
            PostVerdict::Rejected("413: the request is larger than Airflow (or a proxy before it) takes".into())
        }
        (429, said) => PostVerdict::Throttled { after: after(), detail: status_and(answer, said) },
        (_, said) => unknown(status_and(answer, said)),
    }
}

/// Classifies the answer to any other request.
pub(super) fn classify(answer: &Answer) -> Verdict {
    let said = said(answer);
    match (answer.status, said) {
        (200..=299, _) => Verdict::Done,
        (300..=399, _) => Verdict::Unauthorized(redirect(answer)),
        (401 | 403, said) => Verdict::Unauthorized(unauthorized(answer, said)),
        (404, Some(said)) if names_a_thing(&said) => Verdict::Absent(said),
        (404 | 405 | 410, said) => Verdict::WrongApi(no_such_path(answer, said)),
        (400 | 409 | 422, Some(said)) => Verdict::Refused(said),
        (_, said) => Verdict::Unknown(status_and(answer, said)),
    }
}

/// Whether the answer shows that this address does not speak the API that it was taken for.
pub(super) fn is_wrong_api(answer: &Answer) -> bool {
    matches!(answer.status, 404 | 405 | 410) && matches!(classify(answer), Verdict::WrongApi(_))
}

/// What Airflow said of a failure; good answers are not searched for one.
fn said(answer: &Answer) -> Option<String> {
    if answer.status < 300 { None } else { wire::failure(&answer.body, &answer.redaction) }
}

/// What an answer says about Airflow's load.
pub(super) fn load(status: u16, round_trip: Duration) -> Load {
    match status {
        429 | 500..=599 => Load::Overloaded,
        // Airflow may not have worked for these.
        300..=399 | 401 | 403 => Load::Unknown,
        _ => Load::Fine { round_trip },
    }
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(http_date(text)?.duration_since(now)).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// An HTTP date; those that servers send have the form of RFC 2822.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

/// Whether a 404 speaks of a DAG or DAG run, not of a path that does not exist.
fn names_a_dag(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("dag") && said.contains("not found")
}

/// Whether a 404 speaks of something that Airflow keeps, not of a path that does not exist.
fn names_a_thing(said: &str) -> bool {
    let lower = said.to_ascii_lowercase();
    names_a_dag(said)
        || (lower.contains("not found") && ["variable", "pool", "connection"].iter().any(|thing| lower.contains(thing)))
}

fn redirect(answer: &Answer) -> String {
    let target = answer.location.as_deref().map(|target| answer.redaction.apply(target)).unwrap_or_default();
    let target = wire::one_line(&target);
    let page = ["login", "signin", "sign_in", "oauth", "auth", "sso"].iter().any(|word| target.contains(word));
    let meaning = if page { "a login page" } else { "another address" };
    // A query may carry a token, the parameter of a path the id of a session, an address a password.
    let target = target.split(['?', '#', ';']).next().unwrap_or_default();
    let target = match target.split_once("//").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, place)) => format!("{scheme}//{place}"),
        None => target.to_owned(),
    };
    format!("{}: redirected to {meaning} ({target})", answer.status)
}

fn unauthorized(answer: &Answer, said: Option<String>) -> String {
    match said {
        Some(said) => format!("{}: {said}", answer.status),
        None => format!("{}: the login is not accepted", answer.status),
    }
}

fn no_such_path(answer: &Answer, said: Option<String>) -> String {
    match said {
        Some(said) => format!("{}: {said}", answer.status),
        None => format!("{}: no Airflow API at this address: {}", answer.status, glimpse(answer)),
    }
}

fn status_and(answer: &Answer, said: Option<String>) -> String {
    match said {
        Some(said) => format!("{}: {said}", answer.status),
        None => format!("{}: {}", answer.status, glimpse(answer)),
    }
}

/// The first words of a body that could not be read.
fn glimpse(answer: &Answer) -> String {
    let start = &answer.body[..answer.body.len().min(MAX_GLIMPSED_BYTES)];
    let text = wire::one_line(&answer.redaction.apply(&String::from_utf8_lossy(start)));
    if text.is_empty() { "an empty answer".into() } else { text.chars().take(120).collect() }
}

#[cfg(test)]
mod tests;

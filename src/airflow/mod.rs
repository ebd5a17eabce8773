//! Talking to Airflow's REST API: v2 of Airflow 3, v1 of Airflow 2.7 and later.
//!
//! This module owns everything that is particular to Airflow: addresses, logins, bodies, and above
//! all what an answer *means*. It never decides when something runs and never writes to the ledger.
//! The rule that all of it serves: only a proven outcome is final. An answer that leaves open
//! whether the DAG run exists is [`SubmitOutcome::Retry`], and a conflict is looked up before it is
//! believed.

mod answer;
mod auth;
mod client;
mod components;
mod error;
mod requests;
mod submit;
mod v1;
mod v2;
mod wire;

pub mod dags;
pub mod entries;
pub mod pace;
pub mod places;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use serde_json::value::RawValue;

use crate::domain::run::AirflowState;
use crate::secret::{CommandLine, Credential};

pub use client::{Airflow, address};
pub use error::Error;
pub use submit::submit;

/// How to reach one Airflow.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the configuration, for messages.
    pub name: Arc<str>,
    /// Where it is; a path is put before every path of the API.
    pub url: Url,
    /// How to log in.
    pub auth: Auth,
    /// Headers sent with every request.
    pub headers: Vec<(String, Credential)>,
    /// Certificate authorities to trust instead of the system's, as a PEM file.
    pub ca: Option<PathBuf>,
    /// How long an answer may take, from connecting to its last byte.
    pub timeout: Duration,
}

/// How to log in.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Not at all; [`Settings::headers`] may do it.
    None,
    /// API v2 exchanges them for a token, which is renewed before it expires; API v1 takes them with
    /// each request.
    Password {
        /// The user.
        username: String,
        /// Its password.
        password: Credential,
    },
    /// A bearer token; one in a file is read again after a 401 or 403.
    Token(Credential),
    /// A program prints a token, or JSON `{"headers": {…}, "expires_at": "…"}`.
    Command {
        /// Program and arguments; no shell is involved.
        argv: CommandLine,
        /// How long what it prints is good for, unless it says so itself.
        ttl: Duration,
        /// How long it may take.
        timeout: Duration,
    },
    /// OAuth 2 client credentials (RFC 6749, section 4.4).
    OAuth2 {
        /// Where tokens are issued.
        token_url: Url,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: Credential,
        /// The scope to ask for.
        scope: Option<String>,
        /// The audience to ask for.
        audience: Option<String>,
    },
}

/// The version of the REST API that an Airflow speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// Airflow 2.
    V1,
    /// Airflow 3.
    V2,
}

/// A DAG run about to be requested, with everything that it takes to recognise it later.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The DAG.
    pub dag_id: &'a str,
    /// Derived from schedule and occurrence, so that a retry cannot make a second DAG run.
    pub dag_run_id: &'a str,
    /// A JSON object, sent word for word.
    pub conf: &'a RawValue,
    /// The logical date; `None` leaves it out (Airflow 2 then takes the time of the request).
    pub logical_date: Option<Timestamp>,
    /// Start and end of the data interval; `None` leaves it to Airflow.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Made by [`crate::domain::note::compose`]; carries `store_id`.
    pub note: &'a str,
    /// Tells our DAG runs from those of another flowkeeper.
    pub store_id: &'a str,
    /// Look whether the DAG run exists, and send nothing.
    pub lookup_only: bool,
}

/// What became of a [`Submission`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// Airflow holds the DAG run, and it is ours.
    Accepted {
        /// Its state when Airflow answered.
        state: AirflowState,
        /// Status of the deciding answer.
        http_status: u16,
        /// How that is known, when it was not this request's own 200.
        detail: Option<String>,
    },
    /// Not known, or not now: submit again.
    Retry {
        /// How long Airflow asks to wait (`Retry-After`).
        after: Option<Duration>,
        /// The DAG run certainly does not exist: giving up now would be a proven rejection.
        proven_absent: bool,
        /// Status, if there was an answer.
        http_status: Option<u16>,
        /// What happened, for a person; holds no secret.
        detail: String,
    },
    /// Airflow refused for good.
    Rejected {
        /// Status of the deciding answer.
        http_status: u16,
        /// Why, for a person.
        reason: String,
    },
    /// Airflow did not believe who we are, also after a fresh login. The DAG run does not exist (by
    /// this request); every other submission to this Airflow will end the same way for now.
    Unauthorized {
        /// Status, if Airflow (not the login) refused.
        http_status: Option<u16>,
        /// What was tried, for a person.
        detail: String,
    },
    /// The DAG is unknown or cannot be imported: most often a deployment under way. The DAG run does
    /// not exist; retry for a while, then it is a proven rejection.
    DagMissing {
        /// Status of the deciding answer.
        http_status: u16,
        /// What Airflow said.
        detail: String,
    },
}

/// A [`SubmitOutcome`] with what the request for it says about Airflow's load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// What became of it.
    pub outcome: SubmitOutcome,
    /// What to tell [`pace::Pace`].
    pub load: pace::Load,
}

/// A DAG run as Airflow's API shows it.
#[derive(Debug, Clone)]
pub struct DagRun {
    /// Its DAG.
    pub dag_id: String,
    /// Its id.
    pub dag_run_id: String,
    /// Its state; `None` for a word that this version of flowkeeper does not know.
    pub state: Option<AirflowState>,
    /// `manual`, `scheduled`, …
    pub run_type: Option<String>,
    /// Its logical date.
    pub logical_date: Option<Timestamp>,
    /// When it was queued (API v2).
    pub queued_at: Option<Timestamp>,
    /// When its first task started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its note.
    pub note: Option<String>,
    /// Its conf.
    pub conf: Option<Box<RawValue>>,
}

/// Which DAG runs a list shows, oldest first. Conditions hold together; an Airflow that does not know
/// one ignores it, so callers must still look at what they get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Of these DAGs; empty is all.
    pub dag_ids: Vec<String>,
    /// In one of these states; empty is any.
    pub states: Vec<AirflowState>,
    /// Changed at or after.
    pub updated_since: Option<Timestamp>,
    /// With this logical date.
    pub logical_date: Option<Timestamp>,
    /// Whose id begins with this (API v2 of Airflow 3.3; ignored elsewhere).
    pub run_id_prefix: Option<String>,
}

/// One page of a list of DAG runs.
#[derive(Debug, Clone)]
pub struct RunPage {
    /// The DAG runs.
    pub runs: Vec<DagRun>,
    /// How many entries the page had, also those that could not be read.
    pub entries: usize,
    /// How many match on all pages.
    pub total: u64,
}

/// A DAG as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagFacts {
    /// Its id.
    pub dag_id: String,
    /// Paused by somebody in Airflow.
    pub is_paused: bool,
    /// Its file fails to import now; the last version that parsed is what Airflow remembers.
    pub has_import_errors: bool,
    /// It has a schedule of its own, so it would run twice.
    pub own_schedule: Option<String>,
}

/// A DAG with its params, for `check --online`.
#[derive(Debug, Clone)]
pub struct DagDetails {
    /// What lists show as well.
    pub facts: DagFacts,
    /// Names of params, each with its JSON Schema and default (`{"value": …, "schema": {…}}`).
    pub params: serde_json::Map<String, serde_json::Value>,
}

/// A DAG file that fails to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError {
    /// The file.
    pub filename: String,
    /// The stack trace.
    pub stack_trace: String,
}

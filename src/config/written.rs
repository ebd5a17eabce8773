//! The configuration as people write it.
//!
//! These types are the one source of three things: what the reader accepts, the JSON Schema, and
//! `docs/configuration.md`, whose texts are the doc comments here. They know shapes only; whether
//! the values make sense together is decided in [`checks`](super::checks). Every key is optional
//! here, so that one missing key does not hide other faults.

mod leaf;
mod schedule;
mod sections;
mod sync;

pub(super) use leaf::{Choice, DurationText, InFlightText, SecretText};
pub(super) use schedule::{Deadline, Defaults, Dst, EnsembleEvents, Retry, Schedule, Znode};
pub(super) use sections::{
    Airflow, AirflowAuth, Ensemble, HeaderValue, Log, OAuth2, Pushed, Sasl, Server, Store, Team, Threshold, Token,
    ZooKeeper, ZooKeeperAuth, ZooKeeperTls,
};

pub(super) use sync::SyncSection;

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// What separates a message from its remedy in the errors of the types here.
pub(super) const HINT_MARK: &str = "\nhint: ";

/// A configuration file. Files that are included hold `include`, `airflow`, `ensemble`, `team`,
/// `defaults` and `schedule`; the other sections belong in the main file.
#[derive(JsonSchema)]
#[schemars(title = "flowkeeper configuration", deny_unknown_fields)]
#[expect(dead_code, reason = "read section by section; this states what a whole file holds, for the schema")]
pub(super) struct File {
    /// More files, as paths or globs relative to this file. Names are unique across all files.
    pub include: Option<Vec<String>>,
    /// The HTTP API.
    pub server: Option<Server>,
    /// Logging.
    pub log: Option<Log>,
    /// The ledger: the database of runs, cursors and everything that must outlive the process.
    pub store: Option<Store>,
    /// The home ensemble. Leave it out and there are cron schedules only.
    pub zookeeper: Option<ZooKeeper>,
    /// Each Airflow, by a name of your choice.
    pub airflow: Option<BTreeMap<String, Airflow>>,
    /// Further ensembles to watch, by a name of your choice, and what to check of each.
    pub ensemble: Option<BTreeMap<String, Ensemble>>,
    /// Each team, by a name of your choice: what the schedules whose `owner` it is may touch.
    pub team: Option<BTreeMap<String, Team>>,
    /// Values for the schedules of this file that do not set them; in the main file, for those of
    /// all files.
    pub defaults: Option<Defaults>,
    /// The schedules: a trigger, a DAG, and the policies between them.
    pub schedule: Option<Vec<Schedule>>,
    /// Variables, pools and connections of Airflows that are kept in step with znodes.
    pub sync: Option<Vec<SyncSection>>,
}

/// The sections of [`File`], in its order.
pub(super) const SECTIONS: [&str; 11] =
    ["include", "server", "log", "store", "zookeeper", "airflow", "ensemble", "team", "defaults", "schedule", "sync"];

/// The sections that only the main file may hold.
pub(super) const MAIN_FILE_SECTIONS: [&str; 4] = ["server", "log", "store", "zookeeper"];

/// Sections of the design that this version does not have.
pub(super) const SECTIONS_TO_COME: [(&str, &str); 2] = [("expect", "dead man's switches"), ("notify", "notifications")];

//! What readers get of the ledger: the fields of the API and of `-o json`.
//!
//! Times are written in UTC with all six digits of their microseconds, so that they sort as text.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::TriggerKind;

/// Writes a time as the API does: `2026-11-22T02:30:00.000000Z`.
pub fn microseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// The same for a time that may be missing.
pub fn optional_microseconds<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => microseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// What changed in the ledger, for server-sent events, the dispatcher and the consumer of znodes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LedgerEvent {
    /// Grows by one with each event of this process.
    pub sequence: u64,
    /// When it was committed.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// The row.
    pub run: RunId,
    /// Its schedule.
    #[schema(value_type = String)]
    pub schedule: String,
    /// Which Airflow.
    pub airflow: String,
    /// Its DAG.
    pub dag_id: String,
    /// The DAG run's id.
    pub dag_run_id: String,
    /// The state that it now has.
    pub state: RunState,
    /// Why, for states that are not Airflow's own.
    pub reason: Option<String>,
}

/// A run as history shows it; the fields of the API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Number in the ledger.
    pub id: RunId,
    /// Schedule.
    pub schedule: String,
    /// Owner when it was recorded.
    pub owner: Option<String>,
    /// Airflow.
    pub airflow: String,
    /// DAG.
    pub dag_id: String,
    /// Identity in Airflow.
    pub dag_run_id: String,
    /// What made it due.
    pub trigger: TriggerKind,
    /// A cron occurrence's own time.
    #[serde(serialize_with = "optional_microseconds")]
    pub nominal_time: Option<Timestamp>,
    /// First occurrence covered, for a row that covers several.
    #[serde(serialize_with = "optional_microseconds")]
    pub from: Option<Timestamp>,
    /// Last occurrence covered, for a row that covers several.
    #[serde(serialize_with = "optional_microseconds")]
    pub to: Option<Timestamp>,
    /// How many occurrences the row covers.
    pub count: i64,
    /// When it came due.
    #[serde(serialize_with = "microseconds")]
    pub due_at: Timestamp,
    /// When the ledger had it.
    #[serde(serialize_with = "microseconds")]
    pub recorded_at: Timestamp,
    /// When its first request was sent.
    #[serde(serialize_with = "optional_microseconds")]
    pub submitted_at: Option<Timestamp>,
    /// When Airflow was known to hold it.
    #[serde(serialize_with = "optional_microseconds")]
    pub accepted_at: Option<Timestamp>,
    /// When Airflow started it.
    #[serde(serialize_with = "optional_microseconds")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(serialize_with = "optional_microseconds")]
    pub ended_at: Option<Timestamp>,
    /// What became of it.
    pub state: RunState,
    /// Why, for states that are not Airflow's own.
    pub reason: Option<String>,
    /// What can be done about it; of runs that wait for something that the definitions lack.
    #[serde(default)]
    pub hint: Option<String>,
    /// Changes that ZooKeeper merged into this one.
    pub coalesced: i64,
    /// How often it was reopened after its end.
    pub reopened: i64,
    /// The conf as sent.
    #[schema(value_type = Object)]
    pub conf: serde_json::Value,
    /// The lock that it owns until its DAG run ends; null without one.
    #[serde(default)]
    pub lock: Option<RunLock>,
    /// The requests; empty in lists.
    pub attempts: Vec<Attempt>,
    /// Its moves from state to state; empty in lists.
    pub timeline: Vec<TimelineEntry>,
    /// How late each step was.
    pub lateness_ms: Lateness,
    /// From start to end in Airflow.
    pub duration_ms: Option<i64>,
}

/// The lock that a run owns, as the ledger tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunLock {
    /// Its name: the znode `locks/NAME` under the root.
    pub name: String,
    /// Since when the run stands in the queue for it.
    #[serde(serialize_with = "optional_microseconds")]
    pub asked_at: Option<Timestamp>,
    /// Since when it has held it; kept when the lock was given back.
    #[serde(serialize_with = "optional_microseconds")]
    pub held_at: Option<Timestamp>,
    /// The run of this ledger that holds the lock, where this one waits for it.
    pub waits_for: Option<RunId>,
}

impl RunLock {
    /// What a waiting run waits for; `None` when it does not wait in the queue.
    pub fn wait(&self) -> Option<String> {
        if self.asked_at.is_none() || self.held_at.is_some() {
            return None;
        }
        Some(match self.waits_for {
            Some(holder) => format!("waits for the lock `{}`, which run {holder} holds", self.name),
            None => format!("waits for the lock `{}`: `flowkeeper locks` tells who holds it", self.name),
        })
    }
}

/// How late a run was, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lateness {
    /// From due to recorded.
    pub record: Option<i64>,
    /// From due to the first request.
    pub submit: Option<i64>,
    /// From due to started in Airflow.
    pub queue: Option<i64>,
}

/// One request to Airflow, as history shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// 1 for the first.
    pub number: i64,
    /// When the request began.
    #[serde(serialize_with = "microseconds")]
    pub started_at: Timestamp,
    /// When its answer was in.
    #[serde(serialize_with = "microseconds")]
    pub ended_at: Timestamp,
    /// `accepted`, `retry`, `unknown` or `rejected`.
    pub outcome: String,
    /// HTTP status, if there was an answer.
    pub http_status: Option<u16>,
    /// What happened.
    pub detail: Option<String>,
}

/// One move of a run from state to state.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TimelineEntry {
    /// When it was recorded.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// The new state.
    pub state: RunState,
    /// Why.
    pub reason: Option<String>,
}

/// A page of a list, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Give this back to get the next page; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A DAG run that `monitor` follows, whoever triggered it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DagRun {
    /// Which Airflow.
    pub airflow: String,
    /// Its DAG.
    pub dag_id: String,
    /// Its id.
    pub dag_run_id: String,
    /// Its state; `removed` when it was deleted.
    pub state: RunState,
    /// `manual`, `scheduled`, …
    pub run_type: Option<String>,
    /// Its logical date.
    #[serde(serialize_with = "optional_microseconds")]
    pub logical_date: Option<Timestamp>,
    /// When its first task started.
    #[serde(serialize_with = "optional_microseconds")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(serialize_with = "optional_microseconds")]
    pub ended_at: Option<Timestamp>,
    /// From start to end.
    pub duration_ms: Option<i64>,
    /// The run in the ledger, for DAG runs of ours.
    pub run: Option<RunId>,
    /// When the monitor first saw it.
    #[serde(serialize_with = "microseconds")]
    pub first_seen_at: Timestamp,
}

/// What an operator did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Number; higher is newer.
    pub id: i64,
    /// When.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// Name of the token, or `local` where none is needed.
    pub actor: String,
    /// Address that the request came from.
    pub source: String,
    /// `pause`, `resume`, `trigger`, `retry`, `cancel`, `backfill`, …
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// Details.
    pub detail: Option<String>,
    /// The reason given.
    pub reason: Option<String>,
}

/// What `stats` groups by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatsBy {
    /// The schedule.
    Schedule,
    /// The DAG.
    Dag,
    /// The owner.
    Owner,
}

/// Counts and percentiles of one group of runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Schedule, DAG or owner; empty where there is no owner.
    pub group: String,
    /// Occurrences covered.
    pub occurrences: i64,
    /// Runs by state.
    pub states: std::collections::BTreeMap<String, i64>,
    /// Successes among those that ended in success or failure, 0 to 1.
    pub success_rate: Option<f64>,
    /// Lateness of the first request.
    pub lateness_ms: Percentiles,
    /// Duration in Airflow.
    pub duration_ms: Percentiles,
}

/// Percentiles by the nearest-rank method.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Median.
    pub p50: Option<i64>,
    /// 95th.
    pub p95: Option<i64>,
    /// 99th.
    pub p99: Option<i64>,
    /// Largest.
    pub max: Option<i64>,
}

/// A decision as `why` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DecisionEntry {
    /// When.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// A word to count by.
    pub kind: String,
    /// What happened.
    pub detail: String,
}

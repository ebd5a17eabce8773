//! The rows of the ledger as values: what writers hand in, and in [`views`] what readers get back.

mod definitions;
mod health;
mod views;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use definitions::{DefinitionsVersion, NewDefinitions};
pub use health::*;
pub use views::*;

use crate::domain::lineage::Adopt;
use crate::domain::run::{AirflowState, RunId, RunState};
use crate::domain::schedule::{Consume, Overlap, Schedule, ScheduleName, TriggerKind};
use crate::domain::znode::ZnodeVersion;

/// A run about to be recorded, together with everything that its request to Airflow needs.
///
/// `conf` is stored as rendered and sent word for word on every attempt, so a retry cannot differ
/// from the first try.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The schedule that came due.
    pub schedule: ScheduleName,
    /// Its owner at that moment.
    pub owner: Option<String>,
    /// The Airflow that will hold the DAG run.
    pub airflow: String,
    /// The DAG.
    pub dag_id: String,
    /// Derived from schedule and occurrence; unique in the ledger.
    pub dag_run_id: String,
    /// What made it due.
    pub trigger: TriggerKind,
    /// A cron occurrence's own time; for a row that covers several, the last one.
    pub nominal_time: Option<Timestamp>,
    /// When it came due: the nominal time, the znode's modification time or the moment of the call.
    pub due_at: Timestamp,
    /// The first and last occurrence that the row covers, and how many; `None` for a single one.
    pub covers: Option<Covered>,
    /// [`RunState::Pending`], or a state that a policy decided at once.
    pub state: RunState,
    /// Why, for states that are not Airflow's own.
    pub reason: Option<String>,
    /// Changes that ZooKeeper merged into this one.
    pub coalesced: i64,
    /// The rendered conf, a JSON object.
    pub conf: Box<RawValue>,
    /// The logical date to send.
    pub logical_date: Option<Timestamp>,
    /// The data interval to send.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Judged inside the transaction, against every open row of the schedule.
    pub overlap: Overlap,
    /// The child to delete later, if the trigger consumes.
    pub consume: Option<ConsumeWork>,
    /// Name of the lock that it owns until its DAG run ends.
    pub lock: Option<Arc<str>>,
}

impl NewRun {
    /// A pending run, with what all runs of a schedule have alike.
    pub fn of(schedule: &Schedule, dag_run_id: String, due_at: Timestamp, conf: Box<RawValue>) -> Self {
        Self {
            schedule: schedule.name.clone(),
            owner: schedule.owner.clone(),
            airflow: schedule.airflow.to_string(),
            dag_id: schedule.dag_id.to_string(),
            dag_run_id,
            trigger: schedule.trigger.kind(),
            nominal_time: None,
            due_at,
            covers: None,
            state: RunState::Pending,
            reason: None,
            coalesced: 0,
            conf,
            logical_date: None,
            data_interval: None,
            overlap: schedule.overlap,
            consume: None,
            lock: schedule.lock.clone(),
        }
    }
}

/// The occurrences that one row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
    /// How many.
    pub count: i64,
}

/// A child that is to be deleted once its run got far enough; stored with the row, so that a crash
/// does not forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumeWork {
    /// Name of the ensemble; `None` is the home ensemble.
    pub ensemble: Option<String>,
    /// Absolute path of the child.
    pub path: String,
    /// The incarnation that the run is for; another one is never deleted.
    pub czxid: i64,
    /// When.
    pub when: Consume,
}

/// A consume that is due now.
#[derive(Debug, Clone)]
pub struct ConsumeDue {
    /// The run that owes it.
    pub run: RunId,
    /// The schedule of the run.
    pub schedule: ScheduleName,
    /// What to delete.
    pub work: ConsumeWork,
}

/// How far a trigger has handled its source; written in one transaction with the runs it made.
#[derive(Debug, Clone)]
pub enum CursorMove {
    /// All nominal times up to and including this one are covered.
    Cron {
        /// Whose.
        schedule: ScheduleName,
        /// Up to here.
        to: Timestamp,
    },
    /// This znode was handled in this version; `None` when it is known to be absent.
    Znode {
        /// Whose.
        schedule: ScheduleName,
        /// Absolute path.
        path: String,
        /// What was handled.
        seen: Option<ZnodeVersion>,
        /// The data that was handled, where templates need `previous`.
        data: Option<Vec<u8>>,
    },
    /// The trigger has done its first look; from now on what it has not seen is a change.
    ZnodeInitialized {
        /// Whose.
        schedule: ScheduleName,
        /// The highest zxid seen by then.
        zxid: i64,
    },
}

/// A decision that made no row, kept (the last few of each schedule) for `why`.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Whose.
    pub schedule: ScheduleName,
    /// When it was taken.
    pub at: Timestamp,
    /// A word to count by: `when_false`, …
    pub kind: &'static str,
    /// What a person should know.
    pub detail: String,
}

/// What one look of a trigger amounts to; recorded whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// The rows.
    pub runs: Vec<NewRun>,
    /// The cursors that they move.
    pub cursors: Vec<CursorMove>,
    /// The decisions without a row.
    pub decisions: Vec<Decision>,
}

/// A run as the ledger took it.
#[derive(Debug, Clone)]
pub struct RecordedRun {
    /// Its number.
    pub id: RunId,
    /// Its identity.
    pub dag_run_id: String,
    /// The state after the overlap policy.
    pub state: RunState,
    /// `false` when the same occurrence had been recorded before.
    pub fresh: bool,
}

/// What the ledger knows of a schedule between two lives of the process.
#[derive(Debug, Clone)]
pub struct ScheduleState {
    /// The schedule.
    pub name: ScheduleName,
    /// The trigger that the cursor belongs to.
    pub trigger_key: String,
    /// When its current trigger began to count.
    pub since: Timestamp,
    /// All nominal times up to here are covered; starts as `since`.
    pub cron_cursor: Timestamp,
    /// Whether a znode trigger has done its first look, and at which zxid.
    pub znode_initialized: Option<i64>,
    /// For the first look after an edit: what was changed after this zxid is new.
    pub znode_after: Option<i64>,
    /// How its next first look treats what exists, where an operator has decided that; `initial` else.
    pub first_look: Option<Adopt>,
    /// An operator's pause.
    pub pause: Option<Pause>,
    /// Since when it waits for its DAG, which is paused in Airflow, as far as the leader knows.
    pub dag_paused_at: Option<Timestamp>,
}

/// The states of all schedules.
pub type ScheduleStates = std::collections::HashMap<ScheduleName, ScheduleState>;

/// An operator's pause: a layer of its own over the configuration, which survives restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// Who paused.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it ends by itself.
    #[serde(serialize_with = "views::optional_microseconds")]
    pub until: Option<Timestamp>,
    /// When it began.
    #[serde(serialize_with = "views::microseconds")]
    pub at: Timestamp,
}

/// A znode that a trigger has handled.
#[derive(Debug, Clone)]
pub struct ZnodeCursor {
    /// Absolute path.
    pub path: String,
    /// The version that was handled.
    pub seen: ZnodeVersion,
}

/// Everything that a request to Airflow needs; what the dispatcher works on.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The row.
    pub id: RunId,
    /// Its schedule.
    pub schedule: ScheduleName,
    /// Which Airflow.
    pub airflow: String,
    /// Which DAG.
    pub dag_id: String,
    /// The DAG run's id.
    pub dag_run_id: String,
    /// What made it due.
    pub trigger: TriggerKind,
    /// When it came due.
    pub due_at: Timestamp,
    /// The rendered conf.
    pub conf: Box<RawValue>,
    /// The logical date to send.
    pub logical_date: Option<Timestamp>,
    /// The data interval to send.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Attempts so far.
    pub attempts: i64,
    /// When the first attempt began.
    pub first_attempt_at: Option<Timestamp>,
    /// Not before this moment.
    pub not_before: Option<Timestamp>,
    /// Retries have ended on an unknown outcome: only look it up, never submit again.
    pub lookup_only: bool,
    /// Name of the lock that it owns until its DAG run ends.
    pub lock: Option<Arc<str>>,
}

/// What became of an attempt.
#[derive(Debug, Clone)]
pub enum AttemptOutcome {
    /// Airflow holds the DAG run, and it is ours.
    Accepted(AirflowState),
    /// Not known, or refused for now: try again at this moment.
    Retry {
        /// Not before.
        at: Timestamp,
    },
    /// Retries ended without proof: the row stays pending, and is only looked up from now on.
    Unknown {
        /// Look again at.
        at: Timestamp,
    },
    /// Airflow refused for good.
    Rejected,
}

impl AttemptOutcome {
    /// The spelling of the ledger, the API and the metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Retry { .. } => "retry",
            Self::Unknown { .. } => "unknown",
            Self::Rejected => "rejected",
        }
    }
}

/// One request to Airflow for a run, as it ended.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The row.
    pub run: RunId,
    /// 1 for the first.
    pub number: i64,
    /// When the request began.
    pub started_at: Timestamp,
    /// When its answer was in.
    pub ended_at: Timestamp,
    /// HTTP status, if there was an answer.
    pub http_status: Option<u16>,
    /// What happened, for a person; holds no secret.
    pub detail: Option<String>,
    /// What follows.
    pub outcome: AttemptOutcome,
}

/// A DAG run as a list of Airflow's showed it, ours or not.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its DAG.
    pub dag_id: String,
    /// Its id.
    pub dag_run_id: String,
    /// Its state.
    pub state: AirflowState,
    /// `manual`, `scheduled`, `backfill`, `asset_triggered`, …
    pub run_type: Option<String>,
    /// Its logical date.
    pub logical_date: Option<Timestamp>,
    /// When Airflow queued it.
    pub queued_at: Option<Timestamp>,
    /// When its first task started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its note, where the API says so.
    pub note: Option<String>,
    /// Its conf, where the API says so; a JSON object.
    pub conf: Option<Box<RawValue>>,
    /// Whether `monitor` asks for it to be kept, whoever triggered it.
    pub keep: bool,
}

/// An open row, as the monitor needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    /// The row.
    pub id: RunId,
    /// Its schedule.
    pub schedule: ScheduleName,
    /// Its DAG.
    pub dag_id: String,
    /// The DAG run's id.
    pub dag_run_id: String,
    /// Its state: queued or running (pending rows are the dispatcher's).
    pub state: RunState,
}

/// An action about to be audited.
#[derive(Debug, Clone)]
pub struct NewAudit {
    /// Who.
    pub actor: String,
    /// From where.
    pub source: String,
    /// What.
    pub action: &'static str,
    /// To what.
    pub target: String,
    /// Details.
    pub detail: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Which runs a list shows. All conditions hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this schedule.
    pub schedule: Option<String>,
    /// Of this DAG.
    pub dag_id: Option<String>,
    /// In one of these states; empty is any.
    pub states: Vec<RunState>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Due at or after.
    pub since: Option<Timestamp>,
    /// Due before.
    pub until: Option<Timestamp>,
}

/// Which monitored DAG runs a list shows. All conditions hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagRunFilter {
    /// In this Airflow.
    pub airflow: Option<String>,
    /// Of this DAG.
    pub dag_id: Option<String>,
    /// In one of these states; empty is any.
    pub states: Vec<RunState>,
    /// First seen at or after.
    pub since: Option<Timestamp>,
    /// First seen before.
    pub until: Option<Timestamp>,
}

/// A row for one or several nominal times of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NominalRow {
    /// The row.
    pub id: RunId,
    /// Its identity, that of the last time it covers.
    pub dag_run_id: String,
    /// Whom the schedule belonged to when it was recorded.
    pub owner: Option<String>,
    /// Its state.
    pub state: RunState,
    /// The last time it covers.
    pub nominal_time: Timestamp,
    /// What it covers, if several.
    pub covers: Option<Covered>,
}

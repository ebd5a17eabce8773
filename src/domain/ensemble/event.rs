//! What is told of an ensemble.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::domain::health::{Finding, ServerView};

/// What can happen to an ensemble, in the order in which several at one moment are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnsembleEvent {
    /// No majority of its voting servers works: nothing can be written.
    QuorumLost,
    /// It works, and a check is critical; also when a lost quorum is back and something else is not.
    Degraded,
    /// No check is critical any more.
    Recovered,
    /// Another server leads.
    LeaderChanged,
    /// A server does not serve any more.
    ServerDown,
    /// A server serves again.
    ServerUp,
}

impl EnsembleEvent {
    /// All of them, in their order.
    pub const ALL: [Self; 6] =
        [Self::QuorumLost, Self::Degraded, Self::Recovered, Self::LeaderChanged, Self::ServerDown, Self::ServerUp];

    /// The spelling of the configuration and of JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuorumLost => "quorum_lost",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::LeaderChanged => "leader_changed",
            Self::ServerDown => "server_down",
            Self::ServerUp => "server_up",
        }
    }
}

/// What is thought of an ensemble as a whole, behind the hysteresis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// No check is critical.
    Healthy,
    /// It works, and a check is critical.
    Degraded,
    /// No majority of its voting servers works.
    QuorumLost,
}

impl Condition {
    /// The spelling of JSON and of the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::QuorumLost => "quorum_lost",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Happening {
    /// What.
    pub event: EnsembleEvent,
    /// To which server; `None` of what happens to the ensemble.
    pub server: Option<String>,
    /// How often it was seen since it was last well for long: more than one when it flaps.
    pub count: u32,
}

/// Everything that happened to an ensemble at one moment: an occurrence of ensemble triggers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Transition {
    /// The ensemble's name in the configuration.
    pub ensemble: String,
    /// When it was found out; no two transitions of an ensemble have the same.
    #[serde(serialize_with = "six_digits")]
    pub at: Timestamp,
    /// What happened; never empty, in the order of [`EnsembleEvent`].
    pub events: Vec<Happening>,
    /// What was thought of the ensemble before.
    pub before: Condition,
    /// What is thought of it now.
    pub after: Condition,
    /// Who was last known to lead before.
    pub leader_before: Option<String>,
    /// Who leads now, if that is known.
    pub leader_after: Option<String>,
    /// The servers.
    pub servers: Vec<ServerView>,
    /// The checks that are not well, the worst first; not more than [`Self::FAILING_MAX`].
    pub failing: Vec<Finding>,
}

/// As the API writes times.
fn six_digits<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

impl Transition {
    /// How many checks a transition lists at most: it becomes the conf of DAG runs.
    pub const FAILING_MAX: usize = 40;

    /// The most that anything in it was counted.
    pub fn count(&self) -> u32 {
        self.events.iter().map(|happening| happening.count).max().unwrap_or(1)
    }
}

//! Between the sources of definitions, the one who takes what they propose, and those who ask: how the
//! definitions of a member stand, and what becomes of reading them again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::ToSchema;

use super::changes::Changes;
use super::{Candidate, Provenance, Refusal};
use crate::config::Fault;
use crate::store::model::microseconds;

/// How long the source and the ledger together may take before who asked is told that it takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A candidate on its way to the one who applies sets.
#[derive(Debug)]
pub struct Proposal {
    /// What was found; `None` where it is still what was found last.
    pub candidate: Option<Candidate>,
    /// Those who asked for it and want to know what becomes of it.
    pub replies: Vec<oneshot::Sender<Answer>>,
}

/// A wish that the source look now.
#[derive(Debug, Default)]
pub struct Look {
    /// Who wants to know what becomes of it.
    pub reply: Option<oneshot::Sender<Answer>>,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What the source is to propose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// What it finds, also if it found that before: what it refers to may have changed.
    #[default]
    Everything,
    /// What is new.
    News,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is in force, or one that was proposed after it.
    InForce(Applied),
    /// It is refused; the set before stays in force.
    Refused(Box<Refusal>),
    /// The source cannot be asked, or the ledger does not take the set yet; fits "since …".
    Waits(String),
}

/// A set that came into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Applied {
    /// The version before.
    pub version_before: String,
    /// The version now.
    pub version: String,
    /// In what they differ.
    pub changes: Changes,
    /// What is probably not meant.
    pub warnings: Vec<Fault>,
    /// Sections of the main file that were changed; they are read when the process starts.
    pub restart: Vec<String>,
}

/// The definitions of a member, as it tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct State {
    /// Which set is in force.
    pub in_force: Provenance,
    /// Since when.
    #[serde(serialize_with = "microseconds")]
    pub since: Timestamp,
    /// How many schedules there are.
    pub schedules: usize,
    /// How many Airflows.
    pub airflows: usize,
    /// How many ensembles have a section.
    pub ensembles: usize,
    /// What is probably not meant.
    pub warnings: Vec<Fault>,
    /// Sections of the main file that were changed; they are read when the process starts.
    pub restart: Vec<String>,
    /// The newest set, where that cannot be taken.
    pub refused: Option<RefusedSet>,
    /// A set that is being applied: the ledger has not taken it yet.
    pub applying: Option<Provenance>,
}

/// A set that cannot be taken, as a member tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedSet {
    /// Which set it is.
    pub provenance: Provenance,
    /// Since when it is the newest.
    #[serde(serialize_with = "microseconds")]
    pub since: Timestamp,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// What the API knows of the definitions in force, and how it has them read again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloads {
    /// How they stand.
    pub state: watch::Receiver<Arc<State>>,
    /// To the source.
    pub looks: mpsc::Sender<Look>,
}

impl Reloads {
    /// Has the source look now; what became of what it found.
    pub async fn reload(&self) -> Answer {
        self.ask(Wanted::Everything, PATIENCE).await
    }

    /// Has the source look whether there is something new; what became of the newest set.
    pub async fn catch_up(&self, patience: Duration) -> Answer {
        self.ask(Wanted::News, patience).await
    }

    async fn ask(&self, wanted: Wanted, patience: Duration) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            // Without a source there is no answer either.
            drop(self.looks.send(Look { reply: Some(reply), wanted }).await);
            answer.await
        };
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Waits("this member is about to end".to_owned()),
            Err(_) => Answer::Waits("where the definitions are does not answer".to_owned()),
        }
    }
}

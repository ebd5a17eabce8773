//! What the ledger keeps of the health of ensembles.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Recording;
use super::views::microseconds;
use crate::domain::ensemble::{Recount, Standing, Transition};
use crate::domain::health::{Report, Verdict};

/// A look at an ensemble and what follows from it, about to be written.
#[derive(Debug, Clone)]
pub struct HealthRecord {
    /// What was found.
    pub report: Report,
    /// When.
    pub at: Timestamp,
    /// The revision of the standing that it was judged from; 0 of an ensemble that was never seen.
    pub expected_revision: i64,
    /// Where the judgement stands now.
    pub standing: Standing,
    /// Transitions that have come again.
    pub recounts: Vec<Recount>,
    /// What is to be told.
    pub transition: Option<Transition>,
    /// The runs that come of it.
    pub recording: Recording,
}

/// The latest that is known of an ensemble.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleState {
    /// Its latest report.
    pub report: Report,
    /// When that was made.
    pub reported_at: Timestamp,
    /// Where the judgement of its changes stands.
    pub standing: Standing,
    /// Grows with each write.
    pub revision: i64,
}

/// Which changes of verdicts a list shows. All conditions hold together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthFilter {
    /// Of this check.
    pub check: Option<String>,
    /// On this server.
    pub server: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// A change of a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthChange {
    /// When it was seen.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
    /// The ensemble.
    pub ensemble: String,
    /// The check.
    pub check: String,
    /// The server; `None` of the ensemble as a whole.
    pub server: Option<String>,
    /// The verdict before; `None` where there was none.
    pub before: Option<Verdict>,
    /// The verdict from then on.
    pub after: Verdict,
    /// What was measured, in `unit`.
    pub value: Option<f64>,
    /// The unit of `value`.
    pub unit: Option<String>,
    /// What it means, in one sentence.
    pub meaning: String,
}

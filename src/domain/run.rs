//! A run: the ledger's row for an occurrence, its states and their legal moves.
//!
//! A row is opened once, by the trigger that found the occurrence, and closed by the monitor alone
//! (or by a policy before anything was sent). A closed state is Airflow's latest word, not the last
//! one: somebody may clear the DAG run, and then the row reopens.

use std::fmt;

/// The number of a run in the ledger; higher numbers were recorded later.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What has become of an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Recorded, not yet known to be accepted by Airflow.
    Pending,
    /// Airflow has the DAG run and has not started it.
    Queued,
    /// Airflow runs it.
    Running,
    /// Airflow's word.
    Success,
    /// Airflow's word.
    Failed,
    /// A policy said no.
    Skipped,
    /// Outside the catch-up window, or catch-up is off.
    Missed,
    /// Airflow refused for good, or `when` or `conf` could not be evaluated.
    Rejected,
    /// Deleted in Airflow, proven by a 404 on reading that DAG run.
    Removed,
}

impl RunState {
    /// Every state, in the order of a run's life.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Skipped,
        Self::Missed,
        Self::Rejected,
        Self::Removed,
    ];

    /// The spelling of the ledger and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Rejected => "rejected",
            Self::Removed => "removed",
        }
    }

    /// The opposite of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether something is still expected to happen.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Queued | Self::Running)
    }

    /// Whether Airflow has said that it holds the DAG run, now or in the past.
    pub fn was_accepted(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Success | Self::Failed | Self::Removed)
    }

    /// What a run in this state becomes when Airflow is seen to hold its DAG run in `seen`.
    ///
    /// Airflow's word is followed wherever it leads: a closed run whose DAG run was cleared
    /// reopens, and a row that was given up is taken up again when its DAG run turns out to exist.
    /// `None` when nothing moves.
    #[must_use]
    pub fn after_seeing(self, seen: AirflowState) -> Option<Self> {
        let next = seen.as_run_state();
        (next != self).then_some(next)
    }

    /// Whether the move from `self` to `next` takes a closed run back into the open.
    pub fn reopens(self, next: Self) -> bool {
        !self.is_open() && next.is_open()
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of a DAG run, as Airflow's API spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AirflowState {
    /// Not started.
    Queued,
    /// Running, or restarting.
    Running,
    /// Ended well.
    Success,
    /// Ended badly.
    Failed,
}

impl AirflowState {
    /// Reads Airflow's spelling; `None` for a word that no known version uses.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "queued" => Some(Self::Queued),
            "running" | "restarting" => Some(Self::Running),
            "success" => Some(Self::Success),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }

    /// The run state that says the same.
    pub fn as_run_state(self) -> RunState {
        match self {
            Self::Queued => RunState::Queued,
            Self::Running => RunState::Running,
            Self::Success => RunState::Success,
            Self::Failed => RunState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_survives_a_round_trip() {
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.as_str()), Some(state));
        }
        assert_eq!(RunState::parse("done"), None);
    }

    #[test]
    fn airflows_word_moves_a_run() {
        use AirflowState as A;
        use RunState as R;
        let cases = [
            // An answer to our own request, or a list that met it.
            (R::Pending, A::Queued, Some(R::Queued), false),
            (R::Queued, A::Running, Some(R::Running), false),
            (R::Running, A::Running, None, false),
            (R::Running, A::Success, Some(R::Success), false),
            // A short DAG run may end between two looks.
            (R::Pending, A::Failed, Some(R::Failed), false),
            // Cleared in Airflow.
            (R::Failed, A::Queued, Some(R::Queued), true),
            (R::Success, A::Running, Some(R::Running), true),
            // Marked by hand in Airflow.
            (R::Failed, A::Success, Some(R::Success), false),
            // Given up here, but it exists after all.
            (R::Rejected, A::Running, Some(R::Running), true),
            (R::Removed, A::Queued, Some(R::Queued), true),
        ];
        for (from, seen, next, reopens) in cases {
            assert_eq!(from.after_seeing(seen), next, "{from} seeing {seen:?}");
            if let Some(next) = next {
                assert_eq!(from.reopens(next), reopens, "{from} to {next}");
            }
        }
    }
}

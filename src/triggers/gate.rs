//! Whether a trigger may act: open, or paused for a reason that a person can read.
//!
//! Three things close a gate: an operator's pause, `paused = true` in the configuration, and a DAG
//! that is paused in Airflow while the schedule holds. Whoever watches them tells the triggers;
//! while a gate is closed the trigger's cursor does not move.

use std::sync::Arc;

/// Whether a schedule's trigger may act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// It may.
    #[default]
    Open,
    /// It may not.
    Paused {
        /// By whom or what, and why.
        reason: Arc<str>,
    },
}

impl Gate {
    /// Whether the trigger may act.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

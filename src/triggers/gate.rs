//! Whether a schedule may act: open, paused, or skipping, for a reason that a person can read.
//!
//! An operator's pause, `paused = true` in the configuration, and a DAG that is paused in Airflow
//! close a gate. While it is paused the trigger's cursor does not move, and what waits is held back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::schedule::ScheduleName;

/// The gates that are not open, by schedule.
pub type Gates = Arc<HashMap<ScheduleName, Gate>>;

/// Whether a schedule may act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// It may.
    #[default]
    Open,
    /// Its trigger stands still, and its runs wait.
    Paused {
        /// By whom or what, and why.
        reason: Arc<str>,
        /// Its DAG is paused in Airflow, whatever else paused it: not even runs by hand go that would
        /// hold a lock.
        dag: bool,
    },
    /// Its DAG is paused in Airflow, and its runs are submitted all the same (`paused_dag = "submit"`), but
    /// for those that would hold a lock meanwhile.
    Submitting,
    /// Its trigger goes on, and its runs are skipped (`paused_dag = "skip"`).
    Skipping {
        /// Why.
        reason: Arc<str>,
    },
}

impl Gate {
    /// Whether the trigger may act.
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Paused { .. })
    }
}

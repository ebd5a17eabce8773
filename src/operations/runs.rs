//! What operators do with one run: retry and cancel.
//!
//! Nothing here closes a run that Airflow holds: it asks Airflow, and the monitor sees what came of it.

use super::trigger::nominal_run;
use super::{OperationError, Operations, Order};
use crate::airflow::Airflow;
use crate::domain::run::RunState;
use crate::domain::schedule::{Trigger, TriggerKind};
use crate::store::model::{NewRun, Run};
use crate::store::{Leadership, Reopen};

impl Operations {
    /// Runs a run again: what failed is cleared in Airflow, what never ran becomes pending, and what
    /// is pending is tried at once.
    pub async fn retry(&self, id: &str, order: Order) -> Result<Run, OperationError> {
        let run = self.run_within("retry", id, &order).await?;
        let leadership = self.leadership("retry")?;
        let wrong = |hint| OperationError::WrongState { action: "retry", run: run.id, state: run.state, hint };
        match run.state {
            RunState::Queued | RunState::Running => return Err(wrong("`flowkeeper runs cancel` ends it first")),
            RunState::Success => return Err(wrong("clear the DAG run in Airflow to run it again")),
            RunState::Failed => {
                self.clear(&leadership, &run, &order).await?;
                return self.run(id).await;
            }
            RunState::Pending | RunState::Skipped | RunState::Missed | RunState::Rejected | RunState::Removed => {}
        }
        if run.count > 1 {
            let (from, to) = (run.from.unwrap_or(run.due_at), run.to.unwrap_or(run.due_at));
            let schedule = run.schedule.clone();
            return Err(OperationError::CoversSeveral { run: run.id, schedule, count: run.count, from, to });
        }
        let reopen = Reopen { expected: run.state, fresh: self.fresh_conf(&run)? };
        let audit = order.audit("retry", run.dag_run_id.clone(), Some(format!("run {} was {}", run.id, run.state)));
        if self.0.ledger.retry(&leadership, run.id, reopen, audit).await? {
            self.run(id).await
        } else {
            let state = self.run(id).await?.state;
            let hint = "it has moved since: look at it again";
            Err(OperationError::WrongState { action: "retry", run: run.id, state, hint })
        }
    }

    /// Ends a run: one that is not yet accepted is skipped, one that Airflow holds is set failed there.
    pub async fn cancel(&self, id: &str, order: Order) -> Result<Run, OperationError> {
        let run = self.run_within("cancel", id, &order).await?;
        let leadership = self.leadership("cancel")?;
        if run.state == RunState::Pending && !self.is_in_airflow(&run).await {
            let reason = match &order.reason {
                Some(reason) => format!("cancelled by {}: {reason}", order.actor),
                None => format!("cancelled by {}", order.actor),
            };
            let audit =
                order.clone().audit("cancel", run.dag_run_id.clone(), Some(format!("run {} was pending", run.id)));
            if self.0.ledger.cancel(&leadership, run.id, &reason, audit).await? {
                return self.run(id).await;
            }
        }
        // It may have been accepted between our look and our write.
        let run = self.run(id).await?;
        if !run.state.is_open() {
            let hint = "only open runs can be cancelled";
            return Err(OperationError::WrongState { action: "cancel", run: run.id, state: run.state, hint });
        }
        let airflow = self.airflow("cancel", &run)?;
        let detail = format!("run {}: set failed in Airflow `{}`", run.id, run.airflow);
        self.0.ledger.write_audit(&leadership, order.audit("cancel", run.dag_run_id.clone(), Some(detail))).await?;
        airflow.fail_run(&run.dag_id, &run.dag_run_id).await.map_err(|source| OperationError::Airflow {
            action: "cancel",
            run: run.id,
            source: Box::new(source),
        })?;
        self.run(id).await
    }

    /// Whether the DAG run of a pending row exists after all, since an attempt's outcome is not known.
    /// An Airflow that cannot be asked counts as no: should it have the DAG run, the monitor meets it
    /// and opens the row again.
    async fn is_in_airflow(&self, run: &Run) -> bool {
        if run.attempts.is_empty() {
            return false;
        }
        let airflow = self.0.airflows.borrow().get(run.airflow.as_str()).cloned();
        let Some(airflow) = airflow else { return false };
        airflow.find_run(&run.dag_id, &run.dag_run_id).await.is_ok()
    }

    /// Clears a failed DAG run in Airflow; the monitor reopens the row when Airflow shows it.
    pub(super) async fn clear(&self, leadership: &Leadership, run: &Run, order: &Order) -> Result<(), OperationError> {
        let airflow = self.airflow("retry", run)?;
        let detail = format!("run {}: cleared in Airflow `{}`", run.id, run.airflow);
        self.0
            .ledger
            .write_audit(leadership, order.clone().audit("retry", run.dag_run_id.clone(), Some(detail)))
            .await?;
        airflow.clear_run(&run.dag_id, &run.dag_run_id).await.map_err(|source| OperationError::Airflow {
            action: "retry",
            run: run.id,
            source: Box::new(source),
        })
    }

    /// What a row is to be sent with, where what is stored cannot be: cron times are rendered again,
    /// so that a corrected `conf` takes effect; what came from a znode is sent as it was.
    fn fresh_conf(&self, run: &Run) -> Result<Option<NewRun>, OperationError> {
        let stale = matches!(run.state, RunState::Missed | RunState::Skipped | RunState::Rejected);
        if let (true, TriggerKind::Cron, Some(time), Ok(schedule)) =
            (stale, run.trigger, run.nominal_time, self.schedule(&run.schedule))
            && let Trigger::Cron(trigger) = &schedule.trigger
        {
            return nominal_run(&schedule, trigger, time).map(Some);
        }
        if run.conf.is_null() {
            return Err(OperationError::NothingToSend { run: run.id, schedule: run.schedule.clone() });
        }
        Ok(None)
    }

    fn airflow(&self, action: &'static str, run: &Run) -> Result<Airflow, OperationError> {
        self.0.airflows.borrow().get(run.airflow.as_str()).cloned().ok_or_else(|| OperationError::NoAirflow {
            action,
            run: run.id,
            airflow: run.airflow.clone(),
        })
    }
}

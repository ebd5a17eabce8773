//! Runs that operators make: one by hand, and those of past nominal times as their trigger would have
//! recorded them.

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};

use super::{OperationError, Operations, Order};
use crate::domain::occurrence::{Occurrence, is_manual_key};
use crate::domain::policy::request_dates;
use crate::domain::schedule::{CronTrigger, LogicalDate, Schedule, TriggerKind};
use crate::domain::template::RenderContext;
use crate::store::StoreError;
use crate::store::model::{NewRun, Run};

impl Operations {
    /// Records a run by hand. The same key is the same run: repeated, it answers with the run that
    /// there is; with another conf it is [`OperationError::KeyTaken`].
    ///
    /// `conf` takes the place of the schedule's own, which is rendered when there is none. The
    /// schedule's `overlap` holds; a pause does not, it stops the trigger and not the operator.
    pub async fn trigger(
        &self,
        schedule: &str,
        key: &str,
        conf: Option<serde_json::Map<String, serde_json::Value>>,
        order: Order,
    ) -> Result<Run, OperationError> {
        let schedule = self.schedule_within("trigger", schedule, &order)?;
        if !is_manual_key(key) {
            return Err(OperationError::BadKey { schedule: schedule.name.to_string(), key: key.to_owned() });
        }
        let leadership = self.leadership("trigger")?;
        let dag_run_id = Occurrence::Manual { key: key.to_owned() }.dag_run_id(&schedule.name);
        if let Some(run) = self.0.ledger.run(&dag_run_id).await? {
            return same_run(&schedule, key, conf.as_ref(), run);
        }
        let run = manual_run(&schedule, &dag_run_id, conf.as_ref(), self.0.clock.now())?;
        let audit = order.audit("trigger", schedule.name.to_string(), Some(dag_run_id.clone()));
        let recorded = match self.0.ledger.trigger(&leadership, run, audit).await {
            Ok(recorded) => recorded.fresh,
            // Somebody used the key between our look and our write.
            Err(StoreError::IdentityConflict { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        let run = self.run(&dag_run_id).await?;
        if recorded { Ok(run) } else { same_run(&schedule, key, conf.as_ref(), run) }
    }
}

/// The run by hand that a key stands for, as it is recorded for the first time at `now`.
fn manual_run(
    schedule: &Schedule,
    dag_run_id: &str,
    conf: Option<&serde_json::Map<String, serde_json::Value>>,
    now: Timestamp,
) -> Result<NewRun, OperationError> {
    let conf = match conf {
        Some(conf) => to_raw_value(conf)
            .map_err(|error| conf_error(schedule, format!("the conf given has no JSON form: {error}"), true))?,
        None => render_conf(schedule, dag_run_id, now, true)?,
    };
    let logical_date = match schedule.logical_date {
        // There is no interval by hand; what Airflow's own button does is to take the moment.
        LogicalDate::Nominal | LogicalDate::IntervalStart => Some(now),
        LogicalDate::None => None,
    };
    let run = NewRun::of(schedule, dag_run_id.to_owned(), now, conf);
    Ok(NewRun { trigger: TriggerKind::Manual, logical_date, ..run })
}

/// The run of a nominal time, as its trigger would record it.
pub(super) fn nominal_run(
    schedule: &Schedule,
    trigger: &CronTrigger,
    time: Timestamp,
) -> Result<NewRun, OperationError> {
    let dag_run_id = Occurrence::Nominal(time).dag_run_id(&schedule.name);
    let dates = request_dates(trigger, time, schedule.logical_date, schedule.data_interval);
    let conf = render_conf(schedule, &dag_run_id, time, false)?;
    Ok(NewRun {
        nominal_time: Some(time),
        logical_date: dates.logical_date,
        data_interval: dates.data_interval,
        ..NewRun::of(schedule, dag_run_id, time, conf)
    })
}

fn render_conf(
    schedule: &Schedule,
    dag_run_id: &str,
    time: Timestamp,
    by_hand: bool,
) -> Result<Box<RawValue>, OperationError> {
    let context = RenderContext { nominal_time: Some(time), ..RenderContext::of(schedule, dag_run_id) };
    context.conf().map_err(|error| conf_error(schedule, error.to_string(), by_hand))
}

fn conf_error(schedule: &Schedule, reason: String, by_hand: bool) -> OperationError {
    OperationError::Conf { schedule: schedule.name.to_string(), reason, by_hand }
}

/// The run that a key stands for already, if it is the one that is asked for. Without a conf of its
/// own, the request means the one that was rendered at the time of that run.
fn same_run(
    schedule: &Schedule,
    key: &str,
    conf: Option<&serde_json::Map<String, serde_json::Value>>,
    run: Run,
) -> Result<Run, OperationError> {
    let same = if let Some(conf) = conf {
        run.conf.as_object() == Some(conf)
    } else {
        let rendered = render_conf(schedule, &run.dag_run_id, run.due_at, true)?;
        serde_json::from_str::<serde_json::Value>(rendered.get()).is_ok_and(|rendered| rendered == run.conf)
    };
    if same {
        Ok(run)
    } else {
        Err(OperationError::KeyTaken { schedule: schedule.name.to_string(), key: key.to_owned(), run: run.id })
    }
}

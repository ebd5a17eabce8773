//! What operators do: trigger by hand, pause, resume, backfill, retry, cancel, adopt, apply a sync.
//!
//! Each is checked here, written to the ledger together with its line in the audit, and safe to
//! repeat. Nothing here closes a run that Airflow holds: it asks Airflow, and the monitor sees what
//! came of it.

pub mod adopt;
pub mod backfill;
mod error;
mod sync;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use utoipa::ToSchema;

pub use backfill::{BackfillAction, BackfillItem};
pub use error::OperationError;

use crate::airflow::Airflow;
use crate::clock::Clock;
use crate::domain::occurrence::{Occurrence, is_manual_key};
use crate::domain::policy::request_dates;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{CronTrigger, LogicalDate, Schedule, Trigger, TriggerKind};
use crate::domain::team::{Reach, Teams};
use crate::domain::template::{RenderContext, default_conf};
use crate::store::model::{NewAudit, NewRun, Pause, Run, microseconds, optional_microseconds};
use crate::store::{Leadership, Ledger, Reopen, StoreError};
use crate::sync::Desks;
use crate::triggers::lineage::Lineages;

/// How many nominal times a backfill decides about in one go.
pub const BACKFILL_PAGE: u32 = 200;

/// As [`BACKFILL_PAGE`], where each may cost a request to Airflow.
pub const BACKFILL_PAGE_CLEARING: u32 = 20;

/// The schedules in force, in the order of the configuration.
pub type Schedules = Arc<Vec<Arc<Schedule>>>;

/// The clients of the Airflows in force, by name.
pub type Airflows = Arc<BTreeMap<Arc<str>, Airflow>>;

/// Carries out what operators ask for. Cheap to clone.
#[derive(Clone)]
pub struct Operations(Arc<OperationsParts>);

/// What [`Operations`] works with.
pub struct OperationsParts {
    /// The ledger.
    pub ledger: Ledger,
    /// The lead, while this member has it.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// The schedules in force.
    pub schedules: watch::Receiver<Schedules>,
    /// The teams in force.
    pub teams: watch::Receiver<Teams>,
    /// Every Airflow by name.
    pub airflows: watch::Receiver<Airflows>,
    /// How the ledger and each watched ensemble stand to each other.
    pub lineages: watch::Receiver<Arc<Lineages>>,
    /// Where syncs take orders.
    pub desks: Desks,
    /// The time.
    pub clock: Clock,
}

/// Who asks, and why; what the audit keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Name of the token, or `local`.
    pub actor: String,
    /// Address that the request came from.
    pub source: String,
    /// The reason given.
    pub reason: Option<String>,
    /// What the caller may act on.
    pub reach: Reach,
}

/// The range of a backfill, or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillRange {
    /// The first nominal time, inclusive.
    pub from: Timestamp,
    /// The last, inclusive.
    pub to: Timestamp,
    /// Also clear failed runs in Airflow.
    pub failed: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What a part of a backfill did, or would do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BackfillReport {
    /// Each nominal time of this part, oldest first.
    pub items: Vec<BackfillItem>,
    /// How many of them there are for each action.
    pub counts: BTreeMap<String, u64>,
    /// How many nominal times the rest of the range has.
    pub remaining: u64,
    /// Give this back as `from` for the rest; null at the end.
    #[serde(serialize_with = "optional_microseconds")]
    pub next_from: Option<Timestamp>,
    /// The end of the range as it was used: what is due later still belongs to the trigger.
    #[serde(serialize_with = "microseconds")]
    pub to: Timestamp,
    /// Nothing was changed.
    pub dry_run: bool,
}

impl Operations {
    /// Puts the parts together.
    pub fn new(parts: OperationsParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The lead, if this member has it.
    pub fn lead(&self) -> Option<Leadership> {
        self.0.leadership.borrow().clone()
    }

    /// The name and the address of every Airflow.
    pub fn airflows(&self) -> Vec<(String, String)> {
        self.0.airflows.borrow().iter().map(|(name, airflow)| (name.to_string(), airflow.address())).collect()
    }

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

    /// Pauses a schedule until it is resumed, or until a time. A second pause replaces the first.
    pub async fn pause(
        &self,
        schedule: &str,
        until: Option<Timestamp>,
        order: Order,
    ) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule_within("pause", schedule, &order)?;
        let now = self.0.clock.now();
        if let Some(until) = until.filter(|&until| until <= now) {
            return Err(OperationError::PauseInThePast { schedule: schedule.name.to_string(), until });
        }
        let leadership = self.leadership("pause")?;
        let pause = Pause { by: order.actor.clone(), reason: order.reason.clone(), until, at: now };
        let detail = until.map(|until| format!("until {until}"));
        let audit = order.audit("pause", schedule.name.to_string(), detail);
        self.0.ledger.pause(&leadership, &schedule.name, pause, audit).await?;
        Ok(schedule)
    }

    /// Ends an operator's pause; without one, nothing happens and nothing is audited.
    pub async fn resume(&self, schedule: &str, order: Order) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule_within("resume", schedule, &order)?;
        let leadership = self.leadership("resume")?;
        let audit = order.audit("resume", schedule.name.to_string(), None);
        self.0.ledger.resume(&leadership, &schedule.name, audit).await?;
        Ok(schedule)
    }

    /// Runs past nominal times: the first `limit` of the range, in one transaction.
    ///
    /// Times after the trigger's cursor are left to the trigger, which will decide about them.
    pub async fn backfill(
        &self,
        schedule: &str,
        range: BackfillRange,
        limit: u32,
        order: Order,
    ) -> Result<BackfillReport, OperationError> {
        let schedule = self.schedule_within("backfill", schedule, &order)?;
        let Trigger::Cron(trigger) = &schedule.trigger else {
            return Err(OperationError::NotCron { schedule: schedule.name.to_string() });
        };
        if range.to < range.from {
            let BackfillRange { from, to, .. } = range;
            return Err(OperationError::EmptyRange { schedule: schedule.name.to_string(), from, to });
        }
        let limit = limit.clamp(1, if range.failed { BACKFILL_PAGE_CLEARING } else { BACKFILL_PAGE });
        let cursor = self.0.ledger.schedule_states().await?.get(&schedule.name).map(|state| state.cron_cursor);
        let to = range.to.min(self.0.clock.now()).min(cursor.unwrap_or(Timestamp::MAX));
        let (times, next_from, remaining) = page_of_times(trigger, range.from, to, limit);
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
            return Ok(report(Vec::new(), 0, None, to, range.dry_run));
        };
        let rows = self.0.ledger.nominal_rows(&schedule.name, first, last).await?;
        let items = backfill::plan(&times, &rows, range.failed);
        let cleared: Vec<RunId> =
            items.iter().filter(|item| item.action == BackfillAction::Clear).filter_map(|item| item.run).collect();
        // The schedule may have had another owner, and another DAG, when they were recorded.
        for row in backfill::touched(&items, &rows) {
            self.check_reach(&order, "backfill", || format!("run {}", row.id), row.owner.as_deref())?;
        }
        if range.dry_run {
            return Ok(report(items, remaining, next_from, to, true));
        }
        let leadership = self.leadership("backfill")?;
        let steps =
            backfill::steps(&schedule.name, trigger, &items, &rows, |time| nominal_run(&schedule, trigger, time))?;
        if !steps.is_empty() {
            let detail = format!("{first} to {last}: {} rows", steps.len());
            let audit = order.clone().audit("backfill", schedule.name.to_string(), Some(detail));
            self.0.ledger.backfill(&leadership, steps, audit).await?;
        }
        for id in cleared {
            let run = self.run(&id.to_string()).await?;
            self.clear(&leadership, &run, &order).await?;
        }
        Ok(report(items, remaining, next_from, to, false))
    }

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
    async fn clear(&self, leadership: &Leadership, run: &Run, order: &Order) -> Result<(), OperationError> {
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

    /// Notes in the audit that somebody had definitions read again, by this member or by one that stands by.
    pub async fn audit_reload(&self, order: Order, outcome: String) -> Result<(), OperationError> {
        let leadership = self.leadership("note a reload in the audit")?;
        let audit = order.audit("reload", "definitions".to_owned(), Some(outcome));
        self.0.ledger.write_audit(&leadership, audit).await?;
        Ok(())
    }

    fn schedule(&self, name: &str) -> Result<Arc<Schedule>, OperationError> {
        find_schedule(&self.0.schedules.borrow(), name)
    }

    /// The schedule, if the caller may act on it.
    fn schedule_within(
        &self,
        action: &'static str,
        name: &str,
        order: &Order,
    ) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule(name)?;
        self.check_reach(order, action, || format!("`{}`", schedule.name), schedule.owner.as_deref())?;
        Ok(schedule)
    }

    /// The run, if the caller may act on it. It is of the owner that it was recorded with; where its
    /// schedule has another one by now, it is of both, so that neither acts on what is the other's.
    async fn run_within(&self, action: &'static str, id: &str, order: &Order) -> Result<Run, OperationError> {
        let run = self.run(id).await?;
        self.check_reach(order, action, || format!("run {}", run.id), run.owner.as_deref())?;
        if let Ok(schedule) = self.schedule(&run.schedule) {
            let what = || format!("run {} of `{}`", run.id, schedule.name);
            self.check_reach(order, action, what, schedule.owner.as_deref())?;
        }
        Ok(run)
    }

    fn check_reach(
        &self,
        order: &Order,
        action: &'static str,
        what: impl Fn() -> String,
        owner: Option<&str>,
    ) -> Result<(), OperationError> {
        order.reach.check(&self.0.teams.borrow(), owner).map_err(|reason| {
            let (actor, what) = (order.actor.clone(), what());
            tracing::info!(%actor, source = %order.source, %action, %what, %reason, "a caller may not act on this");
            OperationError::OutOfReach { action, what, actor, reason }
        })
    }

    async fn run(&self, id: &str) -> Result<Run, OperationError> {
        self.0.ledger.run(id).await?.ok_or_else(|| OperationError::NoRun { id: id.to_owned() })
    }

    fn leadership(&self, action: &'static str) -> Result<Leadership, OperationError> {
        self.lead().ok_or(OperationError::NotLeading { action })
    }

    fn airflow(&self, action: &'static str, run: &Run) -> Result<Airflow, OperationError> {
        self.0.airflows.borrow().get(run.airflow.as_str()).cloned().ok_or_else(|| OperationError::NoAirflow {
            action,
            run: run.id,
            airflow: run.airflow.clone(),
        })
    }
}

impl Order {
    /// The line in the audit for what was done.
    pub(crate) fn audit(self, action: &'static str, target: String, detail: Option<String>) -> NewAudit {
        NewAudit { actor: self.actor, source: self.source, action, target, detail, reason: self.reason }
    }
}

/// The schedule of this name, or an error that names one that is close.
pub fn find_schedule(schedules: &[Arc<Schedule>], name: &str) -> Result<Arc<Schedule>, OperationError> {
    schedules.iter().find(|schedule| schedule.name.as_str() == name).cloned().ok_or_else(|| {
        let near = schedules
            .iter()
            .map(|schedule| (strsim::damerau_levenshtein(schedule.name.as_str(), name), schedule))
            .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, schedule)| schedule.name.to_string());
        OperationError::NoSchedule { name: name.to_owned(), near }
    })
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
    Ok(NewRun {
        dag_run_id: dag_run_id.to_owned(),
        trigger: TriggerKind::Manual,
        nominal_time: None,
        due_at: now,
        conf,
        logical_date,
        data_interval: None,
        ..pending_run(schedule)
    })
}

/// The run of a nominal time, as its trigger would record it.
fn nominal_run(schedule: &Schedule, trigger: &CronTrigger, time: Timestamp) -> Result<NewRun, OperationError> {
    let dag_run_id = Occurrence::Nominal(time).dag_run_id(&schedule.name);
    let dates = request_dates(trigger, time, schedule.logical_date, schedule.data_interval);
    Ok(NewRun {
        conf: render_conf(schedule, &dag_run_id, time, false)?,
        dag_run_id,
        trigger: TriggerKind::Cron,
        nominal_time: Some(time),
        due_at: time,
        logical_date: dates.logical_date,
        data_interval: dates.data_interval,
        ..pending_run(schedule)
    })
}

/// What all pending runs of a schedule have in common.
fn pending_run(schedule: &Schedule) -> NewRun {
    NewRun {
        schedule: schedule.name.clone(),
        owner: schedule.owner.clone(),
        airflow: schedule.airflow.to_string(),
        dag_id: schedule.dag_id.to_string(),
        dag_run_id: String::new(),
        trigger: schedule.trigger.kind(),
        nominal_time: None,
        due_at: Timestamp::UNIX_EPOCH,
        covers: None,
        state: RunState::Pending,
        reason: None,
        coalesced: 0,
        conf: RawValue::NULL.to_owned(),
        logical_date: None,
        data_interval: None,
        overlap: schedule.overlap,
        consume: None,
        lock: schedule.lock.clone(),
    }
}

fn render_conf(
    schedule: &Schedule,
    dag_run_id: &str,
    time: Timestamp,
    by_hand: bool,
) -> Result<Box<RawValue>, OperationError> {
    let context = RenderContext {
        schedule,
        dag_run_id,
        nominal_time: Some(time),
        znode: None,
        previous: None,
        ensemble: None,
        changes: &[],
    };
    match &schedule.conf {
        Some(template) => template.render(&context),
        None => default_conf(&context),
    }
    .map_err(|error| conf_error(schedule, error.to_string(), by_hand))
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

/// The first `limit` nominal times of a range, where the rest begins, and how many it has.
fn page_of_times(
    trigger: &CronTrigger,
    from: Timestamp,
    to: Timestamp,
    limit: u32,
) -> (Vec<Timestamp>, Option<Timestamp>, u64) {
    let before = from.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(from);
    let mut times = trigger.times_after(before).map(|time| time.at).take_while(|&time| time <= to);
    let page: Vec<_> = times.by_ref().take(limit as usize).collect();
    let next_from = times.next();
    let remaining =
        page.last().zip(next_from).and_then(|(&last, _)| trigger.span(last, to)).map_or(0, |rest| rest.count);
    (page, next_from, remaining)
}

fn report(
    items: Vec<BackfillItem>,
    remaining: u64,
    next_from: Option<Timestamp>,
    to: Timestamp,
    dry_run: bool,
) -> BackfillReport {
    let mut counts = BTreeMap::new();
    for item in &items {
        *counts.entry(item.action.as_str().to_owned()).or_default() += 1;
    }
    BackfillReport { items, counts, remaining, next_from, to, dry_run }
}

//! Backfill: running past nominal times, a page of them at a time. What becomes of each is planned in
//! `plan`.

mod plan;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use plan::{BackfillAction, BackfillItem};

use super::trigger::nominal_run;
use super::{OperationError, Operations, Order};
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{CronTrigger, Trigger};
use crate::store::model::{microseconds, optional_microseconds};

/// How many nominal times a backfill decides about in one go.
pub const BACKFILL_PAGE: u32 = 200;

/// As [`BACKFILL_PAGE`], where each may cost a request to Airflow.
pub const BACKFILL_PAGE_CLEARING: u32 = 20;

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
        let cursor = self.0.ledger.schedule_state(&schedule.name).await?.map(|state| state.cron_cursor);
        let to = range.to.min(self.0.clock.now()).min(cursor.unwrap_or(Timestamp::MAX));
        let (times, next_from, remaining) = page_of_times(trigger, range.from, to, limit);
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
            return Ok(report(Vec::new(), 0, None, to, range.dry_run));
        };
        let rows = self.0.ledger.nominal_rows(&schedule.name, first, last).await?;
        let items = plan::plan(&times, &rows, range.failed);
        let cleared: Vec<RunId> =
            items.iter().filter(|item| item.action == BackfillAction::Clear).filter_map(|item| item.run).collect();
        // The schedule may have had another owner, and another DAG, when they were recorded.
        for row in plan::touched(&items, &rows) {
            self.check_reach(&order, "backfill", || format!("run {}", row.id), row.owner.as_deref())?;
        }
        if range.dry_run {
            return Ok(report(items, remaining, next_from, to, true));
        }
        let leadership = self.leadership("backfill")?;
        let steps = plan::steps(&schedule.name, trigger, &items, &rows, |time| nominal_run(&schedule, trigger, time))?;
        if !steps.is_empty() {
            let detail = format!("{first} to {last}: {} rows", steps.len());
            let audit = order.clone().audit("backfill", schedule.name.to_string(), Some(detail));
            self.0.ledger.backfill(&leadership, steps, audit).await?;
        }
        for id in cleared {
            let run = self.run(&id.to_string()).await?;
            // The others before it took their time, and somebody else may have cleared it.
            if run.state == RunState::Failed {
                self.clear(&leadership, &run, &order).await?;
            }
        }
        Ok(report(items, remaining, next_from, to, false))
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

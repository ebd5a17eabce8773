//! Backfill, planned: what becomes of each past nominal time, and which rows that touches.
//!
//! Pure functions over nominal times and the rows that exist. Successful and open rows are left;
//! rows that never became a DAG run become pending; failed ones are cleared in Airflow where asked
//! for. A row that covers several times is split around those that are taken out of it, so that every
//! nominal time stays covered by exactly one row.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::occurrence::Occurrence;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{CronTrigger, ScheduleName};
use crate::store::BackfillStep;
use crate::store::model::{Covered, NewRun, NominalRow, microseconds};

/// What a backfill does with a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackfillAction {
    /// It had no row: a new one is recorded, and runs.
    Record,
    /// It was decided not to run, or could not: it runs now.
    Reopen,
    /// It failed: the DAG run is cleared in Airflow.
    Clear,
    /// It succeeded, is open, or failed and is not to be cleared.
    Leave,
}

impl BackfillAction {
    /// The spelling of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Reopen => "reopen",
            Self::Clear => "clear",
            Self::Leave => "leave",
        }
    }
}

/// One nominal time of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackfillItem {
    /// The nominal time.
    #[serde(serialize_with = "microseconds")]
    pub nominal_time: Timestamp,
    /// What is done with it.
    pub action: BackfillAction,
    /// The row that covers it so far.
    pub run: Option<RunId>,
    /// That row's state so far.
    pub state: Option<RunState>,
}

/// Decides about each of `times` (ascending), given the rows that cover any of them.
pub(super) fn plan(times: &[Timestamp], rows: &[NominalRow], clear_failed: bool) -> Vec<BackfillItem> {
    times
        .iter()
        .map(|&nominal_time| {
            let row = rows.iter().find(|row| covers(row, nominal_time));
            let action = match row.map(|row| row.state) {
                None => BackfillAction::Record,
                Some(RunState::Missed | RunState::Skipped | RunState::Rejected | RunState::Removed) => {
                    BackfillAction::Reopen
                }
                Some(RunState::Failed) if clear_failed => BackfillAction::Clear,
                Some(
                    RunState::Failed | RunState::Success | RunState::Pending | RunState::Queued | RunState::Running,
                ) => BackfillAction::Leave,
            };
            BackfillItem { nominal_time, action, run: row.map(|row| row.id), state: row.map(|row| row.state) }
        })
        .collect()
}

/// The rows that a plan changes, or has cleared in Airflow.
pub(super) fn touched<'a>(items: &'a [BackfillItem], rows: &'a [NominalRow]) -> impl Iterator<Item = &'a NominalRow> {
    let acts = |item: &BackfillItem| matches!(item.action, BackfillAction::Reopen | BackfillAction::Clear);
    rows.iter().filter(move |row| items.iter().any(|item| item.run == Some(row.id) && acts(item)))
}

/// The steps in the ledger that carry a plan out. `new_run` makes the pending row of a nominal time.
pub(super) fn steps<E>(
    schedule: &ScheduleName,
    trigger: &CronTrigger,
    items: &[BackfillItem],
    rows: &[NominalRow],
    mut new_run: impl FnMut(Timestamp) -> Result<NewRun, E>,
) -> Result<Vec<BackfillStep>, E> {
    let mut steps = Vec::new();
    for item in items.iter().filter(|item| item.action == BackfillAction::Record) {
        steps.push(BackfillStep::Record(new_run(item.nominal_time)?));
    }
    for row in rows {
        let taken: Vec<Timestamp> = items
            .iter()
            .filter(|item| item.action == BackfillAction::Reopen && item.run == Some(row.id))
            .map(|item| item.nominal_time)
            .collect();
        let runs = taken.iter().map(|&time| new_run(time)).collect::<Result<Vec<_>, E>>()?;
        steps.extend(match (row.covers, taken.as_slice()) {
            (_, []) => None,
            (None, _) => {
                runs.into_iter().next().map(|run| BackfillStep::Reopen { row: row.id, expected: row.state, run })
            }
            (Some(was), [first, .., last] | [first @ last]) => {
                let (before, after) = remainders(trigger, was, *first, *last, runs.len());
                let before = before.map(|covered| (Occurrence::Nominal(covered.to).dag_run_id(schedule), covered));
                Some(BackfillStep::Split { row: row.id, was, before, after, runs })
            }
        });
    }
    Ok(steps)
}

fn covers(row: &NominalRow, time: Timestamp) -> bool {
    match row.covers {
        Some(covered) => covered.from <= time && time <= covered.to,
        None => row.nominal_time == time,
    }
}

/// What a row still covers before and after the times from `first` to `last` are taken out of it.
///
/// The counts are reckoned with the calendar in force. A row from before an edit of the expression may
/// hold other times; what is left then keeps its ends, and the counts add up as far as they can.
fn remainders(
    trigger: &CronTrigger,
    was: Covered,
    first: Timestamp,
    last: Timestamp,
    taken: usize,
) -> (Option<Covered>, Option<Covered>) {
    let just_before = |time: Timestamp| time.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(time);
    let left = was.count.saturating_sub(i64::try_from(taken).unwrap_or(i64::MAX));
    let before = (was.from < first).then(|| {
        let span = trigger.span(just_before(was.from), just_before(first));
        let count = span.map_or(1, |span| i64::try_from(span.count).unwrap_or(i64::MAX));
        Covered { from: was.from, to: span.map_or(was.from, |span| span.last), count: count.min(left).max(1) }
    });
    let after = (last < was.to).then(|| {
        let from = trigger.next_after(last).map_or(was.to, |next| next.at.min(was.to));
        let count = left.saturating_sub(before.map_or(0, |before| before.count)).max(1);
        Covered { from, to: was.to, count }
    });
    (before, after)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use jiff::tz::TimeZone;
    use serde_json::value::RawValue;

    use super::*;
    use crate::domain::calendar::CronExpression;
    use crate::domain::schedule::{Overlap, TriggerKind};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_795_305_600 + hour * 3600).expect("a time")
    }

    fn hourly() -> CronTrigger {
        CronTrigger::new(CronExpression::parse("0 * * * *").expect("an expression"), TimeZone::UTC)
    }

    fn name() -> ScheduleName {
        ScheduleName::new("hourly").expect("a name")
    }

    fn row(id: i64, state: RunState, from: i64, to: i64) -> NominalRow {
        let covers = (from != to).then(|| Covered { from: at(from), to: at(to), count: to - from + 1 });
        let dag_run_id = Occurrence::Nominal(at(to)).dag_run_id(&name());
        NominalRow { id: RunId(id), dag_run_id, owner: None, state, nominal_time: at(to), covers }
    }

    fn new_run(time: Timestamp) -> NewRun {
        NewRun {
            schedule: name(),
            owner: None,
            airflow: "main".into(),
            dag_id: "dag".into(),
            dag_run_id: Occurrence::Nominal(time).dag_run_id(&name()),
            trigger: TriggerKind::Cron,
            nominal_time: Some(time),
            due_at: time,
            covers: None,
            state: RunState::Pending,
            reason: None,
            coalesced: 0,
            conf: RawValue::from_string("{}".into()).expect("JSON"),
            logical_date: None,
            data_interval: None,
            overlap: Overlap::Allow,
            consume: None,
            lock: None,
        }
    }

    #[test]
    fn each_state_has_its_action() {
        use BackfillAction as A;
        use RunState as S;
        let cases = [
            (S::Pending, A::Leave, A::Leave),
            (S::Queued, A::Leave, A::Leave),
            (S::Running, A::Leave, A::Leave),
            (S::Success, A::Leave, A::Leave),
            (S::Failed, A::Leave, A::Clear),
            (S::Skipped, A::Reopen, A::Reopen),
            (S::Missed, A::Reopen, A::Reopen),
            (S::Rejected, A::Reopen, A::Reopen),
            (S::Removed, A::Reopen, A::Reopen),
        ];
        for (state, without, with_failed) in cases {
            let rows = [row(1, state, 5, 5)];
            for (clear_failed, expected) in [(false, without), (true, with_failed)] {
                let items = plan(&[at(4), at(5)], &rows, clear_failed);
                assert_eq!(items[0].action, A::Record, "no row");
                assert_eq!((items[1].action, items[1].state), (expected, Some(state)), "{state}");
                let is_touched = touched(&items, &rows).next().is_some();
                assert_eq!(is_touched, expected != A::Leave, "{state}: who may not act on the row is refused");
            }
        }
    }

    /// What a split leaves: hours before, hours after, and hours that become rows.
    fn split(covered: (i64, i64), asked: (i64, i64)) -> (Option<Covered>, Option<Covered>, Vec<String>) {
        let rows = [row(7, RunState::Missed, covered.0, covered.1)];
        let times: Vec<_> = (asked.0..=asked.1).map(at).collect();
        let items = plan(&times, &rows, false);
        let steps =
            steps(&name(), &hourly(), &items, &rows, |time| Ok::<_, Infallible>(new_run(time))).expect("no run fails");
        let [.., BackfillStep::Split { row, before, after, runs, was }] = steps.as_slice() else {
            panic!("not a split: {steps:?}")
        };
        assert_eq!(*row, RunId(7));
        if let Some((dag_run_id, covered)) = before {
            assert_eq!(*dag_run_id, Occurrence::Nominal(covered.to).dag_run_id(&name()), "named after its last time");
        }
        let kept = before.as_ref().map_or(0, |(_, before)| before.count) + after.map_or(0, |after| after.count);
        assert_eq!(kept + i64::try_from(runs.len()).expect("few"), was.count, "every time stays covered once");
        let ids = runs.iter().map(|run| run.dag_run_id.clone()).collect();
        (before.as_ref().map(|(_, covered)| *covered), *after, ids)
    }

    fn covered(from: i64, to: i64) -> Covered {
        Covered { from: at(from), to: at(to), count: to - from + 1 }
    }

    #[test]
    fn rows_of_several_times_are_split_around_what_is_taken() {
        let (before, after, runs) = split((0, 9), (3, 5));
        assert_eq!((before, after, runs.len()), (Some(covered(0, 2)), Some(covered(6, 9)), 3));
        let (before, after, runs) = split((0, 9), (-2, 0));
        assert_eq!((before, after, runs.len()), (None, Some(covered(1, 9)), 1));
        let (before, after, runs) = split((0, 9), (8, 12));
        assert_eq!((before, after, runs.len()), (Some(covered(0, 7)), None, 2));
        assert_eq!(runs.last(), Some(&Occurrence::Nominal(at(9)).dag_run_id(&name())), "the row's own identity");
        let (before, after, runs) = split((0, 9), (-5, 20));
        assert_eq!((before, after, runs.len()), (None, None, 10));
        let (before, after, runs) = split((0, 1), (0, 0));
        assert_eq!((before, after, runs.len()), (None, Some(covered(1, 1)), 1));
    }

    #[test]
    fn a_row_from_before_an_edit_loses_no_time() {
        // Hourly once, daily at noon now: one of its 24 times is asked for.
        let daily = CronTrigger::new(CronExpression::parse("0 12 * * *").expect("an expression"), TimeZone::UTC);
        let midnight = 0;
        let was = Covered { from: at(midnight), to: at(midnight + 23), count: 24 };
        let noon = daily.next_after(was.from).expect("a time").at;
        let (before, after) = remainders(&daily, was, noon, noon, 1);
        let (before, after) = (before.expect("a rest"), after.expect("a rest"));
        assert_eq!((before.from, after.to), (was.from, was.to));
        assert_eq!(before.count + after.count, 23);
    }
}

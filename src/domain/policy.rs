//! The policies that stand between a nominal time and a run: catch-up, and the dates of the
//! request. Pure functions; each has a table of cases.
//!
//! The order of all policies is fixed: a schedule that is paused, a DAG that is paused, catch-up,
//! overlap, lock, slots. Catch-up is judged once, when the occurrence is recorded; overlap is judged
//! where the open runs are known for certain, in the ledger's transaction and the dispatcher's queue.

mod catchup;

use jiff::Timestamp;

pub use catchup::{Blindness, CatchUp, Closed, DuePlan, ON_TIME, due_at, on_time_after_a_failover, plan_due};

use super::schedule::{CronTrigger, DataInterval, LogicalDate};

/// The dates that a request to Airflow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDates {
    /// `logical_date`; `None` sends none.
    pub logical_date: Option<Timestamp>,
    /// `data_interval_start` and `data_interval_end`; `None` leaves them to Airflow.
    pub data_interval: Option<(Timestamp, Timestamp)>,
}

/// The dates for the nominal time `nominal`.
///
/// Without a logical date there is no data interval either: Airflow derives one from the other. The
/// first nominal time that there ever is has no previous one; its interval is empty.
pub fn request_dates(
    trigger: &CronTrigger,
    nominal: Timestamp,
    logical_date: LogicalDate,
    data_interval: DataInterval,
) -> RequestDates {
    let previous = || trigger.previous_before(nominal).map_or(nominal, |previous| previous.at);
    let interval_start = || match data_interval {
        DataInterval::Exact => nominal,
        // Airflow's own interval of a cron DAG begins at the previous time too.
        DataInterval::Previous | DataInterval::Dag => previous(),
    };
    let logical_date = match logical_date {
        LogicalDate::Nominal => nominal,
        LogicalDate::IntervalStart => interval_start(),
        LogicalDate::None => return RequestDates::default(),
    };
    let data_interval = (data_interval != DataInterval::Dag).then(|| (interval_start(), nominal));
    RequestDates { logical_date: Some(logical_date), data_interval }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::calendar::CronExpression;
    use jiff::tz::TimeZone;

    #[test]
    fn a_request_carries_the_dates_that_the_schedule_asks_for() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let expression = CronExpression::parse("30 2 * * 1-5").expect("an expression");
        let trigger = CronTrigger::new(expression, TimeZone::UTC);
        // A Monday: the previous nominal time was on Friday.
        let monday = at("2026-11-23T02:30:00Z");
        let friday = at("2026-11-20T02:30:00Z");
        let cases = [
            (LogicalDate::Nominal, DataInterval::Exact, Some(monday), Some((monday, monday))),
            (LogicalDate::Nominal, DataInterval::Previous, Some(monday), Some((friday, monday))),
            (LogicalDate::Nominal, DataInterval::Dag, Some(monday), None),
            (LogicalDate::IntervalStart, DataInterval::Exact, Some(monday), Some((monday, monday))),
            (LogicalDate::IntervalStart, DataInterval::Previous, Some(friday), Some((friday, monday))),
            (LogicalDate::IntervalStart, DataInterval::Dag, Some(friday), None),
            (LogicalDate::None, DataInterval::Previous, None, None),
        ];
        for (logical_date, data_interval, expected_date, expected_interval) in cases {
            let dates = request_dates(&trigger, monday, logical_date, data_interval);
            let expected = RequestDates { logical_date: expected_date, data_interval: expected_interval };
            assert_eq!(dates, expected, "{logical_date:?} with {data_interval:?}");
        }
    }
}

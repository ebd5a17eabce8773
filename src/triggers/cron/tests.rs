//! The cron trigger: the wheel as a plain value, its edits, and the loop on a real ledger.

mod editing;
mod running;
mod wheel;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::domain::calendar::CronExpression;
use crate::domain::schedule::{
    Catchup, CronTrigger, DataInterval, Deadline, LogicalDate, Overlap, PausedDag, RetryPolicy, Schedule, ScheduleName,
    Trigger,
};

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).expect("a legal name")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn cron(expression: &str) -> CronTrigger {
    CronTrigger::new(CronExpression::parse(expression).expect("an expression"), TimeZone::UTC)
}

fn schedule(schedule: &str, expression: &str, catchup: Catchup) -> Schedule {
    Schedule {
        name: name(schedule),
        was: Vec::new(),
        owner: None,
        airflow: "main".into(),
        dag_id: "load".into(),
        timezone: TimeZone::UTC,
        trigger: Trigger::Cron(cron(expression)),
        when: None,
        conf: None,
        logical_date: LogicalDate::Nominal,
        data_interval: DataInterval::Exact,
        catchup,
        catchup_window: Some(Duration::from_hours(6)),
        overlap: Overlap::Allow,
        retry: RetryPolicy::default(),
        deadline: Deadline::default(),
        lock: None,
        paused_dag: PausedDag::Submit,
        paused: false,
    }
}

fn shared(name: &str, expression: &str, catchup: Catchup) -> Arc<Schedule> {
    Arc::new(schedule(name, expression, catchup))
}

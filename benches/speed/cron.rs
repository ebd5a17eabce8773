//! Cron: 10,000 schedules, 1,000 of them due in the same second, and one that is due alone.

use std::fmt::Write as _;
use std::time::Duration;

use flowkeeper::clock::Clock;

use crate::measure::{Samples, number};
use crate::party::{self, Party};
use crate::report::{Goal, Report, Row};
use crate::stand_in::{Arrival, StandIn};
use crate::{Outcome, Setting};

/// Seconds between two times at which the burst is due.
const PERIOD_S: i64 = 10;
const PERIOD_US: i64 = PERIOD_S * 1_000_000;
/// What arrives less than this before a full period belongs to it.
const EARLY_US: i64 = 500_000;
const SCHEDULES: usize = 10_000;
const DUE: usize = 1_000;
/// The number of the schedule that is due alone, and the seconds of each ten at which it is.
const LONE_JOB: i64 = 1_000_000;
const LONE_SECONDS: [i64; 4] = [2, 4, 6, 8];

/// From the nominal time to the request's arrival.
pub(crate) async fn due_together(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let rounds = setting.pick(6, 2);
    let stand_in = StandIn::start().await?;
    // The other schedules are due in twelve hours.
    let hour = (Clock::system().now().as_second() / 3600 + 12) % 24;

    let party = Party::role("floor", &["clock", &DUE.to_string(), &stand_in.url]).await?;
    let (burst, _) = watch(&stand_in, rounds).await?;
    report.row(row("floor", "1,000 requests at once, no schedules", &burst, rounds).cost(party.end()));

    let party = Party::flowkeeper(setting, "flowkeeper", &schedules(&stand_in.url, hour)).await?;
    let (burst, lone) = watch(&stand_in, rounds).await?;
    report.row(row("flowkeeper", "10,000 schedules", &burst, rounds).cost(party.cost()));
    report.row(Row::new("cron", "flowkeeper").note("the lone one").latency(&lone));
    drop(party);
    report.goal(Goal::at_most("cron", "1,000 due together: p99", burst.percentile(99), 60.0, "ms"));
    report.goal(Goal::at_most("cron", "a lone one: p50", lone.percentile(50), 3.0, "ms"));

    let (all, due, hour) = (SCHEDULES.to_string(), DUE.to_string(), hour.to_string());
    let party =
        Party::role("tokio-cron-scheduler", &["tokio-cron-scheduler", &all, &due, &hour, &stand_in.url]).await?;
    let (burst, _) = watch(&stand_in, rounds).await?;
    report.row(row("tokio-cron-scheduler", "10,000 schedules", &burst, rounds).cost(party.end()));

    for (count, note) in [(DUE, "1,000 schedules"), (SCHEDULES, "10,000 schedules")] {
        let count = count.to_string();
        let arguments = [&count, &due, &stand_in.url, &hour].map(String::as_str);
        let party = Party::python(setting, "APScheduler", "apscheduler_trigger.py", &arguments).await?;
        let (burst, _) = watch(&stand_in, rounds).await?;
        report.row(row("APScheduler", note, &burst, rounds).cost(party.end()));
    }
    Ok(())
}

fn row(party: &'static str, note: &str, burst: &Samples, rounds: usize) -> Row {
    Row::new("cron", party).note(note).latency(burst).share(number(burst.len()) / number(rounds * DUE))
}

fn schedules(url: &str, hour: i64) -> String {
    let mut text = party::airflow(url);
    let mut add = |name: String, cron: String, job: i64| {
        // `overlap` is allowed: the stand-in closes runs at once, and when flowkeeper notices is not
        // what is measured.
        let _ = writeln!(
            text,
            "[[schedule]]\nname = \"{name}\"\ncron = \"{cron}\"\ndag = \"bench\"\noverlap = \"allow\"\n\
             catchup = \"none\"\nconf = {{ job = {job} }}\n"
        );
    };
    for (job, number) in (0..SCHEDULES).zip(0_i64..) {
        let cron = if job < DUE {
            format!("*/{PERIOD_S} * * * * *")
        } else {
            format!("{} {} {hour} * * *", number % 60, number / 60 % 60)
        };
        add(format!("job-{job:05}"), cron, number);
    }
    let seconds: Vec<String> =
        (0..6).flat_map(|ten| LONE_SECONDS.map(|second| (PERIOD_S * ten + second).to_string())).collect();
    add("lone".to_owned(), format!("{} * * * * *", seconds.join(",")), LONE_JOB);
    text
}

/// Looks at whole periods, from the next full one on that leaves time to settle: lateness of the
/// burst and of the lone schedule, in milliseconds.
async fn watch(stand_in: &StandIn, rounds: usize) -> Outcome<(Samples, Samples)> {
    let now = Clock::system().now().as_microsecond();
    let settle_us = 3_000_000;
    let first = (now + settle_us + PERIOD_US).div_euclid(PERIOD_US) * PERIOD_US;
    // Until a second before, so that nothing of an earlier period is counted.
    sleep_until(first - EARLY_US).await?;
    stand_in.clear();
    sleep_until(first + PERIOD_US * i64::try_from(rounds)? - EARLY_US).await?;
    let (lone, burst): (Vec<_>, Vec<_>) =
        stand_in.arrivals().into_iter().partition(|arrival| arrival.conf.job == LONE_JOB);
    // The lone one is due every two seconds but one.
    Ok((lateness(&burst, PERIOD_US), lateness(&lone, 2_000_000)))
}

/// How long after the last time it was due each request arrived. Not all parties say which time they
/// mean; one that is a whole period late would look good here, but its share would not.
fn lateness(arrivals: &[Arrival], period_us: i64) -> Samples {
    let late = arrivals.iter().map(|arrival| {
        let late_us = arrival.at_us.rem_euclid(period_us);
        // Just before the next time: too early for that one rather than late for the last.
        as_ms(if late_us > period_us - EARLY_US { late_us - period_us } else { late_us })
    });
    Samples::new(late.collect())
}

async fn sleep_until(time_us: i64) -> Outcome<()> {
    let now = Clock::system().now().as_microsecond();
    tokio::time::sleep(Duration::from_micros(u64::try_from(time_us - now).unwrap_or(0))).await;
    Ok(())
}

/// Microseconds as milliseconds.
fn as_ms(microseconds: i64) -> f64 {
    i32::try_from(microseconds).map_or(f64::INFINITY, f64::from) / 1000.0
}

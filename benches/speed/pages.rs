//! Pages of lists over a long history: 10,000 schedules and a million runs, as many of them monitored.
//!
//! The floor is the statement by itself, on the same database.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};

use crate::measure::{Samples, milliseconds};
use crate::party::{self, Party};
use crate::report::{Goal, Report, Row};
use crate::stand_in::StandIn;
use crate::team::{self, Store};
use crate::{Outcome, Setting};

const SCHEDULES: usize = 10_000;

/// Pages of history take no longer, in milliseconds.
const LIMIT_MS: f64 = 20.0;

/// What is asked for, and whether it is a page of history, which the goal is about. `{middle}` stands for the
/// time in the middle of the history, `{later}` for an hour after it, `{hour}` for an hour before its end.
const LISTS: [(&str, &str, bool); 14] = [
    ("50 schedules", "schedules?limit=50", false),
    ("1,000 schedules", "schedules?limit=1000", false),
    ("a schedule", "schedules/schedule-14001", false),
    ("runs", "runs", true),
    ("runs, in the middle", "runs?until={middle}", true),
    ("runs of a schedule", "runs?schedule=schedule-14001", true),
    ("runs of a schedule that succeeded", "runs?schedule=schedule-14001&state=success", true),
    ("runs of a DAG", "runs?dag=dag-7", true),
    ("runs that failed", "runs?state=failed", true),
    ("DAG runs", "dag-runs", true),
    ("DAG runs of an Airflow", "dag-runs?airflow=main", true),
    ("DAG runs of a DAG", "dag-runs?dag=dag-7", true),
    ("DAG runs of an hour, in the middle", "dag-runs?since={middle}&until={later}", true),
    ("statistics of the last hour", "stats?since={hour}", false),
];

pub(crate) async fn of_a_long_history(setting: &Setting, report: &mut Report) -> Outcome<()> {
    for (store, name, note) in
        [(Store::Sqlite, "bench-pages", "SQLite"), (Store::Postgres, "bench-pages-postgres", "PostgreSQL")]
    {
        if store == Store::Sqlite || setting.postgres.is_some() {
            pages(setting, report, (store, name), note).await?;
        }
    }
    Ok(())
}

async fn pages(setting: &Setting, report: &mut Report, (store, name): (Store, &str), note: &str) -> Outcome<()> {
    let (runs, times) = (setting.pick(1_000_000, 100_000), setting.pick(100, 20));
    let stand_in = StandIn::start().await?;
    let (directory, address) = (party::fresh(setting, name)?, party::free_address()?);
    let store = match store {
        Store::Sqlite => format!("sqlite://{}", directory.join("flowkeeper.db").display()),
        Store::Postgres => team::database(setting, name).await?,
    };
    let config = configuration(&address, &store, &stand_in.url);
    let url = format!("http://{address}");
    let start = async || {
        let mut party = Party::member("flowkeeper", &directory, &config)?;
        party.until_armed(&directory, &url).await?;
        Outcome::Ok(party)
    };
    // The tables are flowkeeper's own.
    drop(start().await?);
    let now = Clock::system().now().as_second();
    fill(&store, runs, now).await?;

    let party = start().await?;
    let http = reqwest::Client::new();
    let time = |ago: i64| text_of(now - ago);
    let middle = i64::try_from(runs)? / 2;
    let mut worst: f64 = 0.0;
    for (what, list, is_history) in LISTS {
        let list = list
            .replace("{middle}", &time(middle))
            .replace("{later}", &time(middle - 3_600))
            .replace("{hour}", &time(3_600));
        let list = format!("{url}/api/v1/{list}");
        let mut took = Vec::with_capacity(times);
        for _ in 0..times {
            let began = Instant::now();
            let answer = http.get(&list).send().await?.error_for_status()?.bytes().await?;
            took.push(milliseconds(began.elapsed()));
            if !answer.starts_with(b"{") {
                return Err(format!("{list} is not answered with JSON").into());
            }
        }
        let samples = Samples::new(took);
        if is_history {
            worst = worst.max(samples.percentile(99));
        }
        report.row(Row::new("pages", "flowkeeper").note(format!("{note}, {runs} runs: {what}")).latency(&samples));
    }
    report.row(Row::new("pages", "flowkeeper").note(format!("{note}: all of it")).cost(party.end()));
    let floor = floor(&store, times).await?;
    report.row(Row::new("pages", "floor").note(format!("{note}, {runs} runs: 100 rows of runs")).latency(&floor));
    let what = if note == "SQLite" {
        "slowest page of history, SQLite: p99"
    } else {
        "slowest page of history, PostgreSQL: p99"
    };
    report.goal(Goal::at_most("pages", what, worst, LIMIT_MS, "ms"));
    Ok(())
}

/// A time as the API takes it.
fn text_of(second: i64) -> String {
    jiff::Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

/// Schedules that are due once a year.
fn configuration(address: &str, store: &str, airflow: &str) -> String {
    let mut text = format!("[server]\nlisten = \"{address}\"\n[store]\nurl = \"{store}\"\n");
    text += &party::airflow(airflow);
    for schedule in 0..SCHEDULES {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[schedule]]\nname = \"schedule-{}\"\ncron = \"{} {} 0 1 1 *\"\ndag = \"dag-{}\"\n",
            10_000 + schedule,
            schedule % 60,
            schedule / 60 % 60,
            schedule % 200
        );
    }
    text
}

/// One run a second until `now`, of each schedule in its turn; one of 50 failed. Each was met in Airflow.
async fn fill(store: &str, runs: usize, now: i64) -> Outcome<()> {
    let numbers = format!(
        "WITH RECURSIVE n(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {})",
        runs - 1
    );
    let due = format!("({} + i) * 1000000", now - i64::try_from(runs)?);
    let state = "CASE WHEN i % 50 = 0 THEN 'failed' ELSE 'success' END";
    let mut connection = connect(store).await?;
    for sql in [
        format!(
            "INSERT INTO runs (schedule, owner, airflow, dag_id, dag_run_id, trigger_kind, nominal_time, occurrences, \
             due_at, recorded_at, submitted_at, accepted_at, started_at, ended_at, closed_at, state, is_open, coalesced, \
             reopened, conf, attempts, lookup_only) {numbers} SELECT 'schedule-' || (10000 + i % {SCHEDULES}), \
             'team-' || (i % 20), 'main', 'dag-' || (i % 200), 'flowkeeper__' || i, 'cron', {due}, 1, {due}, {due}, {due}, \
             {due}, {due}, {due} + 5000000, {due} + 5000000, {state}, 0, 0, 0, '{{\"edit\": 0}}', 1, 0 FROM n"
        ),
        format!(
            "INSERT INTO dag_runs (airflow, dag_id, dag_run_id, state, run_type, started_at, ended_at, first_seen_at) \
             {numbers} SELECT 'main', 'dag-' || (i % 200), 'flowkeeper__' || i, {state}, 'manual', {due}, \
             {due} + 5000000, {due} FROM n"
        ),
        "ANALYZE".to_owned(),
    ] {
        // SQLite needs no statistics, and flowkeeper has none made.
        if sql == "ANALYZE" && store.starts_with("sqlite") {
            continue;
        }
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}

/// The statement by itself.
async fn floor(store: &str, times: usize) -> Outcome<Samples> {
    let mut connection = connect(store).await?;
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let page = sqlx::query("SELECT * FROM runs ORDER BY due_at DESC, id DESC LIMIT 100");
        let rows = page.fetch_all(&mut connection).await?;
        took.push(milliseconds(began.elapsed()));
        if rows.len() != 100 {
            return Err(format!("{} rows instead of 100", rows.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    connection.close().await?;
    Ok(Samples::new(took))
}

async fn connect(store: &str) -> Outcome<AnyConnection> {
    sqlx::any::install_default_drivers();
    Ok(AnyConnection::connect(store).await?)
}

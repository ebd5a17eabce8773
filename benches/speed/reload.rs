//! Other definitions: 10,000 schedules, cron and znode mixed, on three members, until they are in force.

use std::fmt::Write as _;
use std::time::Duration;

use flowkeeper::clock::Clock;

use crate::measure::{Samples, number};
use crate::party::{self, Party};
use crate::report::{Goal, Report, Row};
use crate::stand_in::StandIn;
use crate::team::{Source, Store, Team};
use crate::{Outcome, Setting, znodes};

const SCHEDULES: usize = 10_000;

/// How many of them fit into one znode, which holds 1 MiB.
const SCHEDULES_IN_A_ZNODE: usize = 4_000;

/// Between two changes, so that each begins at rest.
const PAUSE: Duration = Duration::from_millis(1_500);

/// How long reloading may take, in milliseconds.
const LIMIT_MS: f64 = 2_000.0;

/// How long a change of one schedule may take, in milliseconds.
const SOON_MS: f64 = 1_000.0;

/// What is done to the schedules, one after the other; the names are those of the rows.
const EDITS: [(&str, Edit); 6] = [
    ("one edited", Edit { there: true, more: 0, rule: 0, conf: 0, one: 1 }),
    ("one more", Edit { there: true, more: 1, rule: 0, conf: 0, one: 1 }),
    ("all with another conf", Edit { there: true, more: 1, rule: 0, conf: 1, one: 1 }),
    ("all with another trigger", Edit { there: true, more: 1, rule: 1, conf: 1, one: 1 }),
    ("all removed", Edit { there: false, more: 0, rule: 1, conf: 1, one: 1 }),
    ("all added", Edit { there: true, more: 0, rule: 0, conf: 0, one: 0 }),
];

/// Which schedules there are.
#[derive(Clone, Copy)]
struct Edit {
    there: bool,
    /// How many more than usual.
    more: usize,
    /// Which trigger they have.
    rule: u8,
    /// Which conf.
    conf: u8,
    /// Which conf the first of them has beside.
    one: u8,
}

pub(crate) async fn other_definitions(setting: &Setting, report: &mut Report) -> Outcome<()> {
    for (store, source, name, note) in [
        (Store::Sqlite, Source::File, "bench-reload-file", "a saved file, SQLite"),
        (Store::Sqlite, Source::Znode, "bench-reload-push", "a push, SQLite"),
        (Store::Sqlite, Source::Plain, "bench-reload-plain", "a znode written by hand, SQLite"),
        (Store::Postgres, Source::File, "bench-reload-file-postgres", "a saved file, PostgreSQL"),
        (Store::Postgres, Source::Znode, "bench-reload-push-postgres", "a push, PostgreSQL"),
        (Store::Postgres, Source::Plain, "bench-reload-plain-postgres", "a znode written by hand, PostgreSQL"),
    ] {
        if store == Store::Sqlite || setting.postgres.is_some() {
            all_edits(setting, report, (store, source), name, note).await?;
        }
    }
    every_way(setting, report).await?;
    peers(setting, report).await
}

/// Every edit of all schedules, again and again.
async fn all_edits(
    setting: &Setting,
    report: &mut Report,
    (store, source): (Store, Source),
    name: &str,
    note: &str,
) -> Outcome<()> {
    let stand_in = StandIn::start().await?;
    let schedules = if source == Source::Plain { SCHEDULES_IN_A_ZNODE } else { SCHEDULES };
    let text = |edit: Edit| definitions(&stand_in.url, name, schedules, edit);
    make_znodes(setting, name).await?;
    let mut team = Team::start(setting, store, source, name, &text(EDITS[5].1)).await?;
    let mut took: Vec<Vec<f64>> = vec![Vec::new(); EDITS.len()];
    let mut first: Vec<Vec<f64>> = vec![Vec::new(); EDITS.len()];
    let mut armed: Vec<Vec<f64>> = vec![Vec::new(); EDITS.len()];
    let mut late: Vec<Vec<f64>> = vec![Vec::new(); EDITS.len()];
    for _ in 0..setting.pick(3, 1) {
        for (index, (_, edit)) in EDITS.iter().enumerate() {
            let text = text(*edit);
            tokio::time::sleep(PAUSE).await;
            stand_in.clear();
            let start = std::time::Instant::now();
            let change = team.change(async {
                match source {
                    Source::File => team.save(&text),
                    Source::Znode => team.push(&text).await,
                    Source::Plain => team.write(&text).await,
                }
            });
            let change = change.await?;
            team.until_armed().await?;
            armed[index].push(crate::measure::milliseconds(start.elapsed()));
            tokio::time::sleep(PAUSE).await;
            took[index].push(change.all);
            first[index].push(change.first);
            late[index].push(largest_lateness(&stand_in));
        }
    }
    let mut worst: f64 = 0.0;
    for (index, (edit, _)) in EDITS.iter().enumerate() {
        let all = Samples::new(std::mem::take(&mut took[index]));
        worst = worst.max(all.percentile(100));
        for (what, samples) in [
            ("on all three members", all),
            ("on the first of them", Samples::new(std::mem::take(&mut first[index]))),
            ("all armed", Samples::new(std::mem::take(&mut armed[index]))),
            ("lateness of a schedule of each second", Samples::new(std::mem::take(&mut late[index]))),
        ] {
            report.row(Row::new("reload", "flowkeeper").note(format!("{note}: {edit}, {what}")).latency(&samples));
        }
    }
    let start = std::time::Instant::now();
    team.reload().await?;
    let nothing = Samples::new(vec![crate::measure::milliseconds(start.elapsed())]);
    report.row(Row::new("reload", "flowkeeper").note(format!("{note}: read again, nothing changed")).latency(&nothing));
    report.row(Row::new("reload", "flowkeeper").note(format!("{note}: the leader in all")).cost(team.cost()));
    report.goal(Goal::at_most("reload", note_of(source, store), worst, LIMIT_MS, "ms"));
    Ok(())
}

fn note_of(source: Source, store: Store) -> &'static str {
    match (source, store) {
        (Source::File, Store::Sqlite) => "10,000 schedules, slowest edit: file, SQLite",
        (Source::Znode, Store::Sqlite) => "10,000 schedules, slowest edit: push, SQLite",
        (Source::File, Store::Postgres) => "10,000 schedules, slowest edit: file, PostgreSQL",
        (Source::Znode, Store::Postgres) => "10,000 schedules, slowest edit: push, PostgreSQL",
        (Source::Plain, Store::Sqlite) => "4,000 schedules, slowest edit: znode written by hand, SQLite",
        (Source::Plain, Store::Postgres) => "4,000 schedules, slowest edit: znode written by hand, PostgreSQL",
    }
}

/// One schedule of 10,000 is edited, in every way in which members hear of it.
async fn every_way(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let stand_in = StandIn::start().await?;
    let name = "bench-reload-ways";
    let text = |one: u8| definitions(&stand_in.url, name, SCHEDULES, Edit { one, ..EDITS[5].1 });
    make_znodes(setting, name).await?;
    let team = Team::start(setting, Store::Sqlite, Source::File, name, &text(0)).await?;
    let mut worst: f64 = 0.0;
    let mut one = 0;
    let mut ways: Vec<(&str, Vec<f64>)> =
        ["saved", "SIGHUP", "POST", "swapped by a link"].map(|way| (way, Vec::new())).into();
    for round in 0..setting.pick(5, 2) {
        for (way, took) in &mut ways {
            one += 1;
            let text = text(one);
            tokio::time::sleep(PAUSE).await;
            let change = team.change(async {
                match *way {
                    "saved" => team.save(&text),
                    "SIGHUP" => {
                        team.save(&text)?;
                        team.hang_up()
                    }
                    "POST" => {
                        team.save(&text)?;
                        team.reload().await
                    }
                    _ => team.swap(&text, round + 1),
                }
            });
            took.push(change.await?.all);
        }
    }
    for (way, took) in ways {
        let samples = Samples::new(took);
        worst = worst.max(samples.percentile(100));
        report.row(Row::new("reload", "flowkeeper").note(format!("one of 10,000 edited: {way}")).latency(&samples));
    }
    report.goal(Goal::at_most("reload", "one of 10,000 edited, slowest way of all", worst, SOON_MS, "ms"));
    Ok(())
}

/// What a peer takes to go over to other jobs. None of them checks a file, and none has other members.
async fn peers(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let (all, dir) = (setting.pick(SCHEDULES, SCHEDULES / 10).to_string(), party::fresh(setting, "bench-reload-peer")?);
    let database = format!("sqlite:///{}", dir.join("jobs.db").display());
    for (name, note, answer) in [
        (
            "APScheduler",
            "jobs in its store on SQLite",
            Party::answer_of_python(setting, "APScheduler", "apscheduler_reload.py", &[&all, &database]).await?,
        ),
        (
            "tokio-cron-scheduler",
            "jobs in memory",
            Party::answer_of_role("tokio-cron-scheduler", &["replace-jobs", &all]).await?,
        ),
    ] {
        for (edit, took) in answer.as_object().into_iter().flatten() {
            let samples = Samples::new(vec![took.as_f64().ok_or("no number")?]);
            report.row(Row::new("reload", name).note(format!("{all} {note}: {edit}")).latency(&samples));
        }
    }
    Ok(())
}

/// Half of the schedules wait for a time and half for a znode below `/{root}-tree`; one beside them is due
/// in each second.
fn definitions(url: &str, root: &str, schedules: usize, edit: Edit) -> String {
    let mut text = party::airflow(url);
    text += "[[schedule]]\nname = \"beat\"\ncron = \"* * * * * *\"\ndag = \"bench\"\noverlap = \"allow\"\n\n";
    for schedule in 0..if edit.there { schedules + edit.more } else { 0 } {
        let trigger = match (schedule % 2, edit.rule) {
            (0, hour) => format!("cron = \"{} {} {hour} 1 1 *\"", schedule % 60, schedule / 60 % 60),
            (_, 0) => format!("znode = {{ path = \"/{root}-tree/{schedule}\" }}"),
            (_, _) => format!("znode = {{ path = \"/{root}-tree/{schedule}\", on = [\"changed\"] }}"),
        };
        let one = if schedule == 0 { edit.one } else { 0 };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[schedule]]\nname = \"schedule-{schedule:05}\"\n{trigger}\ndag = \"bench\"\nowner = \"team-{}\"\n\
             conf = {{ edit = {}, name = \"{{{{ schedule.name }}}}\" }}\n",
            schedule % 20,
            edit.conf + one,
        );
    }
    text
}

/// Makes the znodes that schedules wait for.
async fn make_znodes(setting: &Setting, root: &str) -> Outcome<()> {
    let client = zookeeper_client::Client::connect(&setting.zookeeper).await?;
    let parent = format!("/{root}-tree");
    client.mkdir(&parent, &znodes::PERSISTENT).await?;
    let paths: Vec<String> = (1..=SCHEDULES).step_by(2).map(|schedule| format!("{parent}/{schedule}")).collect();
    znodes::create_all(&client, &paths).await
}

/// The largest distance from its second at which a request for the schedule of each second arrived, in
/// milliseconds; a second of which none arrived counts as far as the next one, and so does one that is not
/// over when the watching ends.
fn largest_lateness(stand_in: &StandIn) -> f64 {
    let now = Clock::system().now().as_microsecond();
    let arrivals: Vec<i64> = stand_in.arrivals().iter().map(|arrival| arrival.at_us).collect();
    let of_second = |arrived: &i64| arrived.rem_euclid(1_000_000);
    let lateness = arrivals.iter().map(of_second).max().unwrap_or(0);
    let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0] - 1_000_000).max().unwrap_or(0);
    // Since the last one, or of none at all: never.
    let gap = gap.max(arrivals.last().map_or(i64::MAX, |last| now - last - 1_000_000));
    let largest = lateness.max(gap);
    number(usize::try_from(largest).unwrap_or(usize::MAX)) / 1_000.0
}

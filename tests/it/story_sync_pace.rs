//! Syncs beside runs, on an Airflow that bears one writing request at a time: runs are not slowed down, and
//! syncs are not shut out.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use flowkeeper::domain::sync::entry::EntryKind;
use flowkeeper::store::model::Run;

use crate::support::airflow::{alone, unique};
use crate::support::fake_airflow::{FakeAirflow, Fault, World};
use crate::support::real_airflow::RealAirflow;
use crate::support::sync_story::{PATIENCE, Story, VARIABLES};
use crate::support::team::is_ready;
use crate::support::zookeeper::ZooKeeperServer;

/// Schedules that come due every second, all of them on one DAG.
fn ticks(count: usize, dag: &str) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[schedule]]\nname = \"tick-{number}\"\ncron = \"* * * * * *\"\ndag = \"{dag}\"\noverlap = \"allow\"\n\
             logical_date = \"none\"\n"
        );
        text
    })
}

/// A thousand znodes, and a sync that makes variables of them.
async fn thousand(story: &Story) {
    story.create("variables", "").await;
    for number in 0..1000 {
        story.create(&format!("variables/v{number}"), "before").await;
    }
}

/// From the due time until Airflow had it, in milliseconds, sorted.
fn waits(runs: &[Run]) -> Vec<i64> {
    let wait = |run: &Run| Some(i64::try_from(run.accepted_at?.duration_since(run.due_at).as_millis()).expect("soon"));
    let mut waits: Vec<i64> = runs.iter().filter_map(wait).collect();
    waits.sort_unstable();
    waits
}

fn told(what: &str, waits: &[i64]) {
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    println!(
        "{what}: {} runs, due to accepted: p50 {} ms, p90 {} ms, most {} ms",
        waits.len(),
        at(50),
        at(90),
        at(100)
    );
}

#[tokio::test]
async fn a_sync_of_a_thousand_variables_never_overlaps_with_a_submission() {
    // A request that takes more than two seconds gives its place up: on a busy machine it may.
    for _ in 0..4 {
        if overlaps_beside_a_thousand_variables().await == 0 {
            return;
        }
    }
    panic!("a sync and a run were on their way at once");
}

/// How often requests of a sync and of runs were on their way at once.
async fn overlaps_beside_a_thousand_variables() -> u64 {
    let server = ZooKeeperServer::shared().await;
    let mut world = World::default().with_dags(["tick"]);
    world.bears_one = Some(Duration::from_millis(20));
    let fake = FakeAirflow::start(world).await;
    let syncs = format!("in_flight = 1\n{}{VARIABLES}", ticks(3, "tick"));
    let mut story = Story::with_fake(server, &fake, &syncs).await;
    thousand(&story).await;
    story.member.start();
    story.in_step("variables", 1000).await;
    for number in 0..1000 {
        story.set(&format!("variables/v{number}"), "after").await;
    }
    story.until_variable("v999", Some("after")).await;
    story.in_step("variables", 1000).await;
    let runs = story.member.wait_for_runs("some are accepted", |runs| waits(runs).len() >= 20).await;
    told("a fake that bears one request", &waits(&runs));
    assert!(fake.count("entries_bulk") >= 20, "{}", fake.count("entries_bulk"));
    fake.world().stalls
}

#[tokio::test]
async fn runs_without_end_do_not_shut_a_sync_out() {
    let server = ZooKeeperServer::shared().await;
    let mut world = World::default().with_dags(["tick"]);
    // More comes due in a second than can be sent in one.
    world.bears_one = Some(Duration::from_millis(50));
    let fake = FakeAirflow::start(world).await;
    let syncs = format!("in_flight = 1\n{}{VARIABLES}", ticks(60, "tick"));
    let mut story = Story::with_fake(server, &fake, &syncs).await;
    story.create("variables", "").await;
    story.member.start();
    is_ready(&story.member).await;
    let pending = |runs: &[Run]| runs.iter().filter(|run| run.state == RunState::Pending).count() >= 100;
    story.member.wait_for_runs("runs pile up", pending).await;
    story.create("variables/a", "1").await;
    let begun = Instant::now();
    story.in_step("variables", 1).await;
    println!("in step beside a pile of runs after {:?}", begun.elapsed());
    let runs = story.member.runs().await;
    assert!(pending(&runs), "they still wait");
    assert_eq!(fake.world().stalls, 0, "a sync and a run were on their way at once");
}

#[tokio::test]
async fn a_request_of_a_sync_that_hangs_keeps_no_place_from_runs() {
    let (server, fake) =
        (ZooKeeperServer::shared().await, FakeAirflow::start(World::default().with_dags(["tick"])).await);
    let syncs = format!("in_flight = 1\n{}{VARIABLES}", ticks(1, "tick"));
    let mut story = Story::with_fake(server, &fake, &syncs).await;
    story.create("variables", "").await;
    story.create("variables/a", "1").await;
    fake.world().faults_at.insert("PATCH variables", Fault::HangBefore);
    story.member.start();
    let end = Instant::now() + PATIENCE;
    while fake.world().hung == 0 {
        assert!(Instant::now() < end, "nothing hangs\n{}", story.member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A request hangs for ten seconds, and has a place for two of them. On a busy machine it takes more than
    // one of them to see that.
    loop {
        let known = waits(&story.member.runs().await).len();
        let hung = fake.world().hung;
        story.member.wait_for_runs("runs go on", |runs| waits(runs).len() >= known + 3).await;
        if fake.world().hung == hung {
            break;
        }
        assert!(Instant::now() < end, "no run goes while a request hangs\n{}", story.member.logged());
    }
    fake.world().faults_at.clear();
    story.in_step("variables", 1).await;
}

#[tokio::test]
async fn a_sync_of_a_thousand_variables_slows_no_run_down_in_a_real_airflow_3() {
    let _alone = alone().await;
    let (server, real) = (ZooKeeperServer::shared().await, RealAirflow::three());
    let (username, password) = real.login();
    let prefix = format!("fk{}_", &unique()[..8]);
    let syncs = format!(
        "{}{}",
        ticks(2, "fk_empty"),
        VARIABLES.replace("interval = \"10s\"", &format!("interval = \"1h\"\nprefix = \"{prefix}\""))
    );
    let mut story = Story::prepare(server, &real.url(), (&username, &password), &syncs).await;
    story.create("variables", "").await;
    story.member.start();
    is_ready(&story.member).await;
    let alone = story.member.wait_for_runs("twenty without a sync", |runs| waits(runs).len() >= 20).await;
    let last = alone.iter().map(|run| run.due_at).max().expect("runs");
    for number in 0..1000 {
        story.create(&format!("variables/v{number}"), "before").await;
    }
    story.in_step("variables", 1000).await;
    let beside = story.member.wait_for_runs("some beside the sync", |runs| waits(runs).len() >= alone.len() + 10).await;
    let beside: Vec<Run> = beside.into_iter().filter(|run| run.due_at > last).collect();
    let (alone, beside) = (waits(&alone), waits(&beside));
    told("a real Airflow alone", &alone);
    told("beside a sync of 1000 variables", &beside);
    assert_eq!(story.member.stop().await, Some(0));
    let keys: Vec<String> = (0..1000).map(|number| format!("{prefix}v{number}")).collect();
    let deleted = story.airflow.change_entries(
        EntryKind::Variables,
        flowkeeper::airflow::entries::Change::Delete(keys),
        flowkeeper::airflow::entries::Care::Together,
    );
    assert_eq!(deleted.await.done.len(), 1000);
    // What overlaps stalls for five seconds, and everything behind it.
    let (median, before) = (beside[beside.len() / 2], alone[alone.len() / 2]);
    assert!(median < 2 * before + 4500, "{beside:?}, and alone {alone:?}");
}

//! What becomes of runs that wait behind an open one, with the real binary.

use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::process::Member;

async fn member(fake: &FakeAirflow, overlap: &str) -> Member {
    let mut member = Member::new(&format!(
        r#"
[airflow.main]
url = "{}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[[schedule]]
name = "load"
cron = "0 0 1 1 *"
dag = "load"
overlap = "{overlap}"
"#,
        fake.url()
    ));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member.start();
    member.armed().await;
    member
}

async fn trigger(member: &Member, key: &str) {
    member.post("schedules/load/trigger", &json!({ "key": key })).await;
}

fn states(runs: &[Run]) -> Vec<RunState> {
    runs.iter().map(|run| run.state).collect()
}

#[tokio::test]
async fn the_newest_that_waits_takes_the_place_of_the_others() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let member = member(&fake, "queue_one").await;
    trigger(&member, "a").await;
    member.wait_for_runs("the first is accepted", |runs| states(runs) == [RunState::Queued]).await;
    for key in ["b", "c", "d"] {
        trigger(&member, key).await;
    }
    let waiting = [RunState::Queued, RunState::Skipped, RunState::Skipped, RunState::Pending];
    let runs = member.wait_for_runs("only the newest waits", |runs| states(runs) == waiting).await;
    assert!(runs[1].reason.as_ref().is_some_and(|reason| reason.contains("newer")), "{:?}", runs[1].reason);
    fake.world().set_state("load", &runs[0].dag_run_id, State::Success);
    let ended = [RunState::Success, RunState::Skipped, RunState::Skipped, RunState::Queued];
    member.wait_for_runs("the newest goes next", |runs| states(runs) == ended).await;
    assert_eq!(fake.world().runs().len(), 2);
}

#[tokio::test]
async fn those_that_queue_go_one_after_the_other() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let member = member(&fake, "queue").await;
    for key in ["a", "b"] {
        trigger(&member, key).await;
    }
    let waiting = [RunState::Queued, RunState::Pending];
    let runs = member.wait_for_runs("the second waits", |runs| states(runs) == waiting).await;
    fake.world().set_state("load", &runs[0].dag_run_id, State::Failed);
    let ended = [RunState::Failed, RunState::Queued];
    member.wait_for_runs("the second goes next", |runs| states(runs) == ended).await;
}

#[tokio::test]
async fn a_newer_run_ends_the_one_before_it() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let member = member(&fake, "cancel_running").await;
    trigger(&member, "a").await;
    member.wait_for_runs("the first is accepted", |runs| states(runs) == [RunState::Queued]).await;
    trigger(&member, "b").await;
    let ended = [RunState::Failed, RunState::Queued];
    member.wait_for_runs("the second takes over", |runs| states(runs) == ended).await;
    assert_eq!(fake.count("patch"), 1);
    let note = fake.world().runs()[0].note.clone().unwrap_or_default();
    assert!(note.ends_with("/api/v1/runs/1") && note.contains("\nhttp://127.0.0.1:"), "{note}");
}

#[tokio::test]
async fn a_run_that_is_over_before_its_answer_is_recorded_stands_in_nobodys_way() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let member = member(&fake, "cancel_running").await;
    // Nearly as long as an answer is waited for, so that a busy machine's monitor is quicker.
    fake.world().latency = Duration::from_secs(27);
    trigger(&member, "a").await;
    while fake.world().runs().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // From now on only the answer to the request that made it is slow.
    fake.world().latency = Duration::ZERO;
    let runs = member.wait_for_runs("the monitor meets it", |runs| states(runs) == [RunState::Queued]).await;
    let id = &runs[0].dag_run_id;
    fake.world().set_state("load", id, State::Success);
    let run = member.wait_for_run("it is over", id, |run| run.state == RunState::Success).await;
    assert!(run.attempts.is_empty(), "and still unanswered: {:?}", run.attempts);
    member.wait_for_run("it is answered", id, |run| run.attempts.len() == 1).await;

    trigger(&member, "b").await;
    let ended = [RunState::Success, RunState::Queued];
    member.wait_for_runs("the second goes", |runs| states(runs) == ended).await;
    assert_eq!(fake.count("patch"), 0, "nothing was ended for it");
}

//! A shadow records everything, submits nothing, and keeps out of the stores of others.

use std::time::Duration;

use flowkeeper::domain::run::RunState;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;

fn config(url: &str) -> String {
    format!(
        r#"
[airflow.main]
url = "{url}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[[schedule]]
name = "tick"
cron = "* * * * * *"
dag = "tick"
overlap = "allow"
"#
    )
}

#[tokio::test]
async fn a_shadow_records_what_comes_due_and_submits_nothing() {
    let fake = FakeAirflow::start(World::default().with_dags(["tick"])).await;
    let mut member = Member::new(&config(&fake.url()));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member.start_with(&["serve", "--shadow"]);
    member.armed().await;
    member.post("schedules/tick/trigger", &json!({ "key": "by-hand" })).await;
    let covered = |runs: &[flowkeeper::store::model::Run]| runs.iter().map(|run| run.count).sum::<i64>();
    let runs = member.wait_for_runs("seconds are covered", |runs| covered(runs) >= 3).await;
    assert!(runs.iter().all(|run| run.state == RunState::Skipped));
    member.post(&format!("runs/{}/retry", runs[0].id), &json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fake.world().runs().is_empty());
    assert_eq!(member.stop().await, Some(0));

    // Its ledger covers what never ran, so nobody goes on from it.
    let live = member.command(&["serve"]).output().expect("run flowkeeper");
    assert_eq!(live.status.code(), Some(1));
    let said = String::from_utf8_lossy(&live.stderr).into_owned();
    assert!(said.contains("it is a shadow's") && said.contains("hint: "), "{said}");
}

#[tokio::test]
async fn a_shadow_keeps_out_of_a_store_that_members_submit_from() {
    let fake = FakeAirflow::start(World::default().with_dags(["tick"])).await;
    let mut member = Member::new(&config(&fake.url()));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member.start();
    member.armed().await;
    assert_eq!(member.stop().await, Some(0));
    let shadow = member.command(&["serve", "--shadow"]).output().expect("run flowkeeper");
    assert_eq!(shadow.status.code(), Some(1));
    let said = String::from_utf8_lossy(&shadow.stderr).into_owned();
    assert!(said.contains("it is not a shadow's") && said.contains("FLOWKEEPER_STORE__URL"), "{said}");
}

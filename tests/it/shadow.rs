//! A shadow submits nothing, whoever recorded it.

use std::time::Duration;

use flowkeeper::domain::run::RunState;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::{Member, free_port};

#[tokio::test]
async fn a_shadow_leaves_alone_what_a_member_recorded_before() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut member = Member::new(&format!(
        r#"
[airflow.main]
url = "http://{address}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[[schedule]]
name = "yearly"
cron = "0 0 1 1 *"
dag = "yearly"
overlap = "allow"
retry = {{ initial = "100ms", max = "300ms" }}
"#
    ));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member.start();
    member.armed().await;
    member.post("schedules/yearly/trigger", &json!({ "key": "before" })).await;
    assert_eq!(member.stop().await, Some(0));

    let fake = FakeAirflow::start_on(World::default().with_dags(["yearly"]), &address).await;
    member.start_with(&["serve", "--shadow"]);
    member.armed().await;
    member.post("schedules/yearly/trigger", &json!({ "key": "meanwhile" })).await;
    let before = member.runs().await.remove(0);
    member.post(&format!("runs/{}/retry", before.id), &json!({})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fake.world().runs().is_empty());
    let states: Vec<_> = member.runs().await.iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Pending, RunState::Skipped]);
    assert_eq!(member.stop().await, Some(0));

    member.start();
    member.wait_for_runs("the run that waited is not accepted", |runs| runs[0].state != RunState::Pending).await;
    assert_eq!(fake.world().runs().len(), 1);
}

//! Edits that reach members one after the other, across their leading and their dying.

use std::time::Duration;

use flowkeeper::store::model::Run;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::team::is_ready;

fn schedule(name: &str, trigger: &str, more: &str) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\n{trigger}\ndag = \"load\"\noverlap = \"allow\"\ncatchup = \"all\"\n{more}\n"
    )
}

/// Due each second.
fn ticking(name: &str) -> String {
    schedule(name, "cron = \"* * * * * *\"", "")
}

fn save(member: &Member, schedules: &str) {
    let directory = member.path().join("schedules");
    std::fs::create_dir_all(&directory).expect("make the directory");
    std::fs::write(directory.join("a.toml"), schedules).expect("write the file");
}

fn of<'r>(runs: &'r [Run], schedule: &str) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.schedule == schedule).collect()
}

/// Ends a member in order and starts it again with other schedules.
async fn again_with(member: &mut Member, schedules: &str) {
    assert_eq!(member.stop().await, Some(0), "{}", member.logged());
    save(member, schedules);
    member.start();
    is_ready(member).await;
}

#[tokio::test]
async fn a_schedule_that_comes_back_while_it_is_paused_does_not_fire() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let airflow = format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n",
        fake.url()
    );
    let mut member = Member::new(&airflow);
    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    std::fs::write(&main, format!("include = [\"schedules/*.toml\"]\n{text}")).expect("write the file");
    std::fs::write(member.path().join("password"), "admin").expect("write the file");
    let both = ticking("beside") + &ticking("held");
    save(&member, &both);
    member.start();
    member.armed().await;
    member.wait_for_runs("runs of both", |runs| !of(runs, "held").is_empty()).await;
    member.post("schedules/held/pause", &json!({"reason": "an upgrade"})).await;

    let paused_with = of(&member.runs().await, "held").len();
    for _ in 0..3 {
        // A leader whose file lacks it leaves it where it is.
        again_with(&mut member, &ticking("beside")).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        again_with(&mut member, &both).await;
    }
    let so_far = of(&member.runs().await, "beside").len();
    member.wait_for_runs("some more seconds", |runs| of(runs, "beside").len() >= so_far + 3).await;
    let runs = member.runs().await;
    assert_eq!(of(&runs, "held").len(), paused_with, "{:#?}", of(&runs, "held"));
    let held = member.get("schedules/held").await.expect("the schedule");
    assert_eq!(held["paused"], true, "{held}");
}

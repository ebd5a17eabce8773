//! Definitions that move from files to ZooKeeper: what was in force goes on, and nothing is lost on the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{put, said};
use crate::reload::{cron, names, of, save, until, without_a_gap};
use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::team::PATIENCE;
use crate::support::zookeeper::{ZooKeeperServer, create};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_that_move_from_files_to_zookeeper_go_on() {
    let zookeeper = ZooKeeperServer::start().await;
    let airflow = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let definitions = format!(
        "[airflow.main]\nurl = \"{}\"\n{}[[schedule]]\nname = \"flag\"\nznode = {{ path = \"/flag\" }}\ndag = \"load\"\n",
        airflow.url(),
        cron("beside", "* * * * * *", "")
    );
    let home = format!("[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n", zookeeper.connect());
    let mut member = Member::new(&(home + &definitions));
    let main = member.path().join("flowkeeper.toml");
    let with_definitions = std::fs::read_to_string(&main).expect("the configuration");
    let without =
        with_definitions.replacen("[server]\n", "[server]\ndefinitions = \"zookeeper\"\n", 1).replace(&definitions, "");
    let file = member.path().join("definitions.toml");
    save(&file, &definitions);
    let file = file.display().to_string();
    member.start();
    member.armed().await;
    let body = json!({ "documents": [{ "name": "d.toml", "text": definitions }] });
    let (status, problem) = put(&member, &body).await;
    assert_eq!(status, 409, "as long as the main file says that they are files: {problem}");

    // The main file alone changes nothing, although it has no schedules any more.
    save(&main, &without);
    let announced = |config: &Value| config["restart"] == json!(["server"]) && config["refused"].is_null();
    until(&member, "a section that needs a restart", announced).await;
    let list = member.get("schedules").await.expect("an answer");
    assert_eq!(names(&list), ["beside", "flag"]);

    // Who restarts before the push is told, instead of ending everything.
    member.stop().await;
    member.start();
    let end = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(ended) = member.ended() {
            break ended;
        }
        assert!(Instant::now() < end, "it serves\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!ended.success() && member.logged().contains("2 of the schedules in files"), "{}", member.logged());

    save(&main, &with_definitions);
    member.start();
    member.armed().await;
    save(&main, &without);
    until(&member, "a section that needs a restart", announced).await;
    let pushed = member.run(&["config", "push", &file, "-m", "moved"]).await;
    assert!(pushed.status.success(), "{}", said(&pushed));
    assert_eq!(member.get("config").await.expect("an answer")["in_force"]["source"], "file", "until the restart");

    member.stop().await;
    create(&zookeeper.client().await, "/flag", b"while nobody served").await;
    member.start();
    member.armed().await;
    until(&member, "the pushed set", |config| config["in_force"]["source"] == "zookeeper").await;
    let runs = member.wait_for_runs("a run of what was changed meanwhile", |runs| !of(runs, "flag").is_empty()).await;
    without_a_gap(&of(&runs, "beside"), 1);
}

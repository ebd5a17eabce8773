//! What flowkeeper itself does in ZooKeeper is no change for its triggers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::{ZooKeeperServer, create, set};

const TOKEN: &str = "let-me-in";

/// How many looks at the ensemble the triggers see by.
const LOOKS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trigger_on_everything_sees_neither_canaries_nor_flowkeepers_root() {
    // Its own, since everything under `/` is watched.
    let server = ZooKeeperServer::start().await;
    let mut world = World::default().with_dags(["reload"]);
    world.tokens.insert(TOKEN.to_owned());
    let airflow = FakeAirflow::start(world).await;
    let mut member = Member::new(&format!(
        r#"
[zookeeper]
connect = "{}"
session_timeout = "4s"

[airflow.main]
url = "{}"
auth = {{ token = {{ file = "token" }} }}

[ensemble.main]
interval = "1s"
admin = "off"

[[schedule]]
name = "everything"
znode = {{ path = "/", watch = "subtree", on = ["created", "changed", "deleted"] }}
dag = "reload"

[[schedule]]
name = "children"
znode = {{ path = "/", watch = "children", on = ["created", "deleted"] }}
dag = "reload"
"#,
        server.connect(),
        airflow.url()
    ));
    std::fs::write(member.path().join("token"), TOKEN).expect("write the token");
    member.start();
    member.armed().await;
    let mut looks = BTreeSet::new();
    while looks.len() < LOOKS {
        let report = member.get("ensembles/main").await.unwrap_or_default();
        looks.extend(report["checked_at"].as_str().map(ToOwned::to_owned));
        assert!(member.ended().is_none(), "{}", member.logged());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let zk = server.client().await;
    let health = || async { zk.get_data("/flowkeeper/health/main").await.ok().filter(|(_, stat)| stat.version > 1) };
    wait_for(health, || "nothing was published".to_owned()).await;
    let runs = member.runs().await;
    assert!(runs.is_empty(), "{runs:#?}");

    create(&zk, "/theirs", b"1").await;
    let first = member.wait_for_runs("what others make is seen", |runs| runs.len() >= 2).await;
    set(&zk, "/theirs", b"2").await;
    let runs = member.wait_for_runs("and what they change", |runs| runs.len() >= 3).await;
    let mut told: Vec<_> = runs.iter().map(|run| (run.schedule.as_str(), run.conf["znode"]["path"].clone())).collect();
    told.sort_unstable_by_key(|(schedule, _)| *schedule);
    let theirs = serde_json::json!("/theirs");
    assert_eq!(
        told,
        [("children", theirs.clone()), ("everything", theirs.clone()), ("everything", theirs)],
        "{first:#?}"
    );
    assert_eq!(member.stop().await, Some(0));
}

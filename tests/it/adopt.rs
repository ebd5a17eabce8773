//! ZooKeeper rebuilt or put back, the ledger restored, lost or copied: what the real binary notices, what
//! it leaves alone until somebody decides, and what comes of the decision.

mod ensemble;
mod ledger;

use std::process::Output;

use flowkeeper::store::model::Run;
use serde_json::Value;
use zookeeper_client::Client;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::team::TICK;
use crate::support::world::wait_for;
use crate::support::zookeeper::{ZooKeeperServer, create};

/// The schedules of every story, in the ensemble and the root that the story says.
fn config(zookeeper: &str, root: &str, airflow: &str) -> String {
    format!(
        r#"
[zookeeper]
connect = "{zookeeper}"
root = "{root}"
session_timeout = "4s"

[airflow.main]
url = "{airflow}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[defaults]
retry = {{ initial = "100ms", max = "300ms" }}

[[schedule]]
name = "flag"
znode = {{ path = "/flag", on = ["created", "changed"] }}
conf = {{ text = "{{{{ znode.text }}}}", before = "{{{{ previous.text if previous else 'nothing' }}}}" }}
dag = "flag"

[[schedule]]
name = "inbox"
znode = {{ path = "/inbox", watch = "children", consume = "accepted" }}
dag = "inbox"

[[schedule]]
name = "slow"
znode = {{ path = "/slow", watch = "children", consume = "success" }}
dag = "slow"

[[schedule]]
name = "tree"
znode = {{ path = "/tree", watch = "subtree", on = ["created", "changed"], settle = "300ms" }}
dag = "tree"

{TICK}"#
    )
}

fn member(config: &str) -> Member {
    let member = Member::new(config);
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    member
}

/// The same, working.
async fn armed_member(config: &str) -> Member {
    let mut member = member(config);
    member.start();
    member.armed().await;
    member
}

async fn airflow() -> FakeAirflow {
    FakeAirflow::start(World::default().with_dags(["flag", "inbox", "slow", "tree", "tick"])).await
}

/// The znodes that the schedules watch, as somebody sets them up.
async fn prepare(zk: &Client) {
    for path in ["/flag", "/inbox", "/slow", "/tree"] {
        create(zk, path, b"0").await;
    }
}

/// An ensemble with these znodes, and an Airflow.
async fn scene() -> (ZooKeeperServer, FakeAirflow, Client) {
    let (server, fake) = (ZooKeeperServer::start().await, airflow().await);
    let zk = server.client().await;
    prepare(&zk).await;
    (server, fake, zk)
}

fn of<'r>(runs: &'r [Run], schedule: &str) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.schedule == schedule).collect()
}

/// The part of each run id of a schedule that tells its occurrence.
fn occurrences(runs: &[Run], schedule: &str) -> Vec<String> {
    let part = |run: &&Run| run.dag_run_id.rsplit("__").next().unwrap_or_default().to_owned();
    of(runs, schedule).iter().map(part).collect()
}

/// The run at this place among those of a schedule is for an occurrence that begins like this.
fn assert_begins(runs: &[Run], schedule: &str, place: usize, with: &str) {
    let occurrences = occurrences(runs, schedule);
    assert!(occurrences[place].starts_with(with), "{with} at {place} of {occurrences:?}");
}

/// Waits until this many runs of a schedule are accepted; all its rows.
async fn accepted(member: &Member, schedule: &str, count: usize) -> Vec<Run> {
    let runs = member
        .wait_for_runs(&format!("{count} runs of {schedule}"), |runs| {
            of(runs, schedule).iter().filter(|run| run.accepted_at.is_some()).count() >= count
        })
        .await;
    assert_eq!(of(&runs, schedule).len(), count, "{:#?}", of(&runs, schedule));
    runs
}

/// Waits until the member has found two histories in an ensemble; what it says of them.
async fn stopped(member: &Member, ensemble: Option<&str>) -> Value {
    let found = || async {
        let listed = member.get("adopt").await?;
        let items = listed["items"].as_array()?.clone();
        items.into_iter().find(|item| item["ensemble"].as_str() == ensemble && item["histories"] == "two")
    };
    wait_for(found, || format!("nothing is found\n{}", member.logged())).await
}

async fn armed(member: &Member, schedule: &str) -> bool {
    member.get(&format!("schedules/{schedule}")).await.is_some_and(|shown| shown["armed"] == true)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

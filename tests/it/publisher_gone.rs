//! What the leader told in ZooKeeper of something that has left the configuration is taken back, and nothing
//! else is.

use std::time::Duration;

use serde_json::json;
use zookeeper_client::Client;

use crate::support::process::Member;
use crate::support::world::{children, wait_for, wait_for_children};
use crate::support::zookeeper::{ZooKeeperServer, create};

const ROOT: &str = "/publisher-gone";

fn configuration(connect: &str, ensembles: &[&str], airflows: &[&str]) -> String {
    let ensembles = ensembles.iter().map(|name| {
        format!("[ensemble.{name}]\nconnect = \"{connect}\"\ninterval = \"1s\"\nadmin = \"off\"\ncanary = \"off\"\n")
    });
    // Nobody is there, which is told as well.
    let airflows = airflows.iter().map(|name| format!("[airflow.{name}]\nurl = \"http://127.0.0.1:1\"\n"));
    let home = format!("[zookeeper]\nconnect = \"{connect}\"\nroot = \"{ROOT}\"\nsession_timeout = \"4s\"\n");
    home + &ensembles.chain(airflows).collect::<String>()
}

/// Replaces what follows the member's own sections.
fn rewrite(member: &Member, rest: &str) {
    let file = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let own = text.split("[zookeeper]").next().expect("its own sections");
    std::fs::write(file, format!("{own}{rest}")).expect("write the configuration");
}

/// Waits until just these are told of, whoever else keeps what there.
async fn tells_of(zk: &Client, member: &Member, ensembles: &[&str], airflows: &[&str]) {
    for (folder, names) in [("health", ensembles), ("airflow", airflows)] {
        let path = format!("{ROOT}/{folder}");
        let told = || async {
            let found = zk.list_children(&path).await.ok()?;
            (found.len() == names.len() && names.iter().all(|name| found.iter().any(|one| one == name))).then_some(())
        };
        wait_for(told, || format!("{folder} is not {names:?}\n{}", member.logged())).await;
    }
}

#[tokio::test]
async fn what_leaves_the_configuration_is_taken_back_live_and_after_a_downtime() {
    let server = ZooKeeperServer::shared().await;
    let (zk, connect) = (server.client().await, server.connect());
    let mut member = Member::new(&configuration(&connect, &["a", "b", "c"], &["main", "other"]));
    member.start();
    // The home ensemble is looked at without a section of its own.
    tells_of(&zk, &member, &["home", "a", "b", "c"], &["main", "other"]).await;

    // Others may keep something beside it, and something that looks the same.
    let notes = format!("{ROOT}/health/notes");
    create(&zk, &notes, b"ask Ann before you stop zk3").await;
    let kept = format!("{ROOT}/health/kept");
    create(&zk, &kept, json!({"ensemble": "kept", "verdict": "ok"}).to_string().as_bytes()).await;
    create(&zk, &format!("{kept}/history"), b"").await;

    rewrite(&member, &configuration(&connect, &["a", "b"], &["main"]));
    tells_of(&zk, &member, &["home", "a", "b", "notes", "kept"], &["main"]).await;
    // Nothing that was seen last comes late.
    tokio::time::sleep(Duration::from_secs(3)).await;
    tells_of(&zk, &member, &["home", "a", "b", "notes", "kept"], &["main"]).await;

    assert_eq!(member.stop().await, Some(0));
    rewrite(&member, &configuration(&connect, &["b"], &[]));
    assert_eq!(children(&zk, &format!("{ROOT}/airflow")).await, ["main"], "nobody is there to do it");
    member.start();
    tells_of(&zk, &member, &["home", "b", "notes", "kept"], &[]).await;

    // What comes back is told again.
    rewrite(&member, &configuration(&connect, &["a", "b"], &["main"]));
    tells_of(&zk, &member, &["home", "a", "b", "notes", "kept"], &["main"]).await;
    wait_for_children(&zk, &kept, &["history"]).await;
    assert_eq!(member.stop().await, Some(0));
}

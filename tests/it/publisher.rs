//! What the leader tells in ZooKeeper: that it comes, is not written without need, comes back where it
//! was lost, and stops with the lead.

use std::sync::Arc;
use std::time::Duration;

use flowkeeper::publisher::{self, Parts, Publisher};
use flowkeeper::store::StoreError;
use serde_json::json;
use tokio::task::JoinHandle;
use zookeeper_client::{Acl, AuthId, Client, Permission};

use crate::support::world::{World, wait_for};
use crate::support::zookeeper::{ZooKeeperServer, delete, set};

/// Long enough for a write that should not come.
const A_WHILE: Duration = Duration::from_millis(500);

fn write(world: &World, publisher: &Publisher, root: &str) -> JoinHandle<Result<(), StoreError>> {
    let parts = Parts {
        ensemble: world.ensemble.clone(),
        root: root.into(),
        ledger: world.ledger.clone(),
        leadership: world.leadership.clone(),
    };
    tokio::spawn(publisher::write(publisher.clone(), parts))
}

/// Waits until a znode holds this; its version.
async fn holds(zk: &Client, path: &str, expected: &serde_json::Value) -> i32 {
    let read = || async {
        let (data, stat) = zk.get_data(path).await.ok()?;
        (serde_json::from_slice::<serde_json::Value>(&data).ok()? == *expected).then_some(stat.version)
    };
    wait_for(read, || format!("{path} does not come to hold {expected}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_once_each_and_come_back_where_they_were_lost() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    let world = World::new(&server.connect()).await;
    let publisher = Publisher::default();
    // Before there is a session, and before anybody writes: nobody waits.
    publisher.publish("health/main", &json!({"verdict": "ok"}));
    let writing = write(&world, &publisher, "/publisher-once/deep");
    let path = "/publisher-once/deep/health/main";
    assert_eq!(holds(&zk, path, &json!({"verdict": "ok"})).await, 0);
    publisher.publish("health/main", &json!({"verdict": "critical"}));
    assert_eq!(holds(&zk, path, &json!({"verdict": "critical"})).await, 1);
    publisher.publish("health/main", &json!({"verdict": "critical"}));
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(holds(&zk, path, &json!({"verdict": "critical"})).await, 1, "the same again is no news");

    // Another session finds what is there.
    world.ensemble.session().expect("a session").give_up();
    publisher.publish("airflow/main", &json!("up"));
    holds(&zk, "/publisher-once/deep/airflow/main", &json!("up")).await;
    assert_eq!(holds(&zk, path, &json!({"verdict": "critical"})).await, 1, "it was there already");

    // Somebody else's word is not the last, and what was wiped comes back with the next session.
    set(&zk, path, b"{\"verdict\": \"fine\"}").await;
    publisher.publish("health/main", &json!({"verdict": "warning"}));
    assert_eq!(holds(&zk, path, &json!({"verdict": "warning"})).await, 3);
    for path in [path, "/publisher-once/deep/health", "/publisher-once/deep/airflow/main"] {
        delete(&zk, path).await;
    }
    world.ensemble.session().expect("a session").give_up();
    assert_eq!(holds(&zk, path, &json!({"verdict": "warning"})).await, 0);
    holds(&zk, "/publisher-once/deep/airflow/main", &json!("up")).await;
    writing.abort();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_value_holds_up_no_other_and_comes_when_it_may() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    let world = World::new(&server.connect()).await;
    let publisher = Publisher::default();
    let read_only = [Acl::new(Permission::READ, AuthId::anyone())];
    let options = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::new(&read_only));
    let anyone = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
    zk.create("/publisher-refused", b"", &anyone).await.expect("the root");
    zk.create("/publisher-refused/a", b"0", &options).await.expect("a znode for reading only");
    publisher.publish("a", &1);
    publisher.publish("b", &2);
    let writing = write(&world, &publisher, "/publisher-refused");
    holds(&zk, "/publisher-refused/b", &json!(2)).await;
    holds(&zk, "/publisher-refused/a", &json!(0)).await;
    delete(&zk, "/publisher-refused/a").await;
    holds(&zk, "/publisher-refused/a", &json!(1)).await;
    writing.abort();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_after_the_lead() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    let world = World::new(&server.connect()).await;
    let publisher = Publisher::default();
    let writing = write(&world, &publisher, "/publisher-lead");
    publisher.publish("a", &1);
    holds(&zk, "/publisher-lead/a", &json!(1)).await;

    // Another one leads, and this one has not noticed.
    let successor = world.ledger.take_lead("another").await.expect("the lead is free");
    publisher.publish("a", &2);
    let ended = writing.await.expect("no panic");
    assert!(matches!(ended, Err(StoreError::Fenced { .. })), "{ended:?}");
    assert!(world.leadership.lost().is_cancelled());
    let parts = Parts {
        ensemble: world.ensemble.clone(),
        root: Arc::from("/publisher-lead"),
        ledger: world.ledger.clone(),
        leadership: successor.clone(),
    };
    let next = tokio::spawn(publisher::write(Publisher::default(), parts));
    successor.give_up();
    next.await.expect("no panic").expect("giving up is no failure");
    tokio::time::sleep(A_WHILE).await;
    holds(&zk, "/publisher-lead/a", &json!(1)).await;
    world.stop().await;
}

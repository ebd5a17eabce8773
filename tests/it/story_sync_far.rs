//! A sync from an ensemble that is not the home one, with `prune`: whatever happens to that ensemble, nothing
//! is deleted but what certainly vanished.

use std::time::Duration;

use serde_json::json;
use zookeeper_client::{Acl, AuthId, Client, Permission};

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::sync_story::{Story, VARIABLES, one, steps};
use crate::support::zookeeper::{ZooKeeperServer, create, delete, set};

/// A story whose variables `a`, `b` and `c` come from another ensemble.
async fn far_story(far: &ZooKeeperServer, fake: &FakeAirflow, watch: &str) -> (Story, Client) {
    let syncs = VARIABLES.replace("variables\" }", &format!("variables\", ensemble = \"far\"{watch} }}"));
    let syncs = format!("[ensemble.far]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n{syncs}", far.connect());
    let mut story = Story::with_fake(ZooKeeperServer::shared().await, fake, &syncs).await;
    let zookeeper = far.client().await;
    fill(&zookeeper, &story.root, &["a", "b", "c"]).await;
    story.member.start();
    story.in_step("variables", 3).await;
    (story, zookeeper)
}

async fn fill(zookeeper: &Client, root: &str, names: &[&str]) {
    create(zookeeper, root, b"").await;
    create(zookeeper, &format!("{root}/variables"), b"").await;
    for name in names {
        create(zookeeper, &format!("{root}/variables/{name}"), b"1").await;
    }
}

fn count(fake: &FakeAirflow) -> usize {
    fake.world().entries("variables").len()
}

#[tokio::test]
async fn only_what_certainly_vanished_from_another_ensemble_is_deleted() {
    let (far, fake) = (ZooKeeperServer::start().await, FakeAirflow::start(World::default()).await);
    let (mut story, zookeeper) = far_story(&far, &fake, "").await;
    let path = |name: &str| format!("{}/variables/{name}", story.root);
    let (a, b, root) = (path("a"), path("b"), format!("{}/variables", story.root));
    // A znode that was deleted is deleted in Airflow.
    delete(&zookeeper, &path("c")).await;
    story.in_step("variables", 2).await;
    assert_eq!(count(&fake), 2);

    // The ensemble is lost, longer than an interval.
    far.kill();
    let state = story.until("variables", "failing", |state| state["state"] == "failing").await;
    assert!(state["error"].as_str().is_some_and(|error| error.contains("far")), "{state}");
    assert!(state["hint"].is_string(), "{state}");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        (count(&fake), story.state("variables").await.expect("a state")["state"].clone()),
        (2, "failing".into())
    );

    // It comes back without anything: a rebuilt ensemble, which is filled again one after the other.
    far.wipe().await;
    let state = story.until("variables", "missing", |state| state["guard"].is_string()).await;
    assert_eq!(steps(&state), [one("a", "held"), one("b", "held")].concat());
    let zookeeper = far.client().await;
    create(&zookeeper, &story.root, b"").await;
    create(&zookeeper, &root, b"").await;
    let state =
        story.until("variables", "empty", |state| state["guard"].as_str().is_some_and(|it| it.contains("below"))).await;
    assert_eq!(steps(&state), [one("a", "held"), one("b", "held")].concat());
    create(&zookeeper, &a, b"2").await;
    story.until_variable("a", Some("2")).await;
    let state = story.until("variables", "made anew", |state| state["counts"]["in_step"] == 1).await;
    assert_eq!(steps(&state), one("b", "held"));
    assert!(state["guard"].as_str().is_some_and(|guard| guard.contains("made anew")), "{state}");
    // A restart does not forget it, and `diff` says the same.
    story.member.kill();
    story.member.start();
    let state = story.until("variables", "made anew", |state| state["counts"]["held"] == 1).await;
    assert_eq!((steps(&state), count(&fake)), (one("b", "held"), 2));
    let diff = story.member.run(&["sync", "diff"]).await;
    assert!(String::from_utf8_lossy(&diff.stdout).contains("held"), "{}", String::from_utf8_lossy(&diff.stdout));
    create(&zookeeper, &b, b"1").await;
    story.in_step("variables", 2).await;
    // Everything was seen in the new one, so what vanishes there is deleted.
    delete(&zookeeper, &b).await;
    story.in_step("variables", 1).await;
    assert_eq!(count(&fake), 1);
}

/// Has nobody read a znode, or everybody.
async fn deny(zookeeper: &Client, path: &str, denied: bool) {
    let permission = if denied { Permission::ADMIN } else { Permission::ALL };
    let list = [Acl::new(permission, AuthId::anyone())];
    zookeeper.set_acl(path, &list, None).await.expect("set the access list");
}

#[tokio::test]
async fn what_may_not_be_read_is_not_gone() {
    for (watch, leaf_denied) in [("", one("b", "fault")), (", watch = \"subtree\"", vec![])] {
        let (far, fake) = (ZooKeeperServer::start().await, FakeAirflow::start(World::default()).await);
        let (mut story, zookeeper) = far_story(&far, &fake, watch).await;
        let (root, leaf) = (format!("{}/variables", story.root), format!("{}/variables/b", story.root));
        deny(&zookeeper, &leaf, true).await;
        set(&zookeeper, &format!("{root}/a"), b"2").await;
        if leaf_denied.is_empty() {
            // Of a subtree nobody knows what is below it.
            let state = story.until("variables", "one denied", |state| state["state"] == "failing").await;
            assert!(state["error"].as_str().is_some_and(|error| error.contains("no permission")), "{state}");
        } else {
            let state = story.until("variables", "one denied", |state| !steps(state).is_empty()).await;
            assert_eq!(steps(&state), leaf_denied);
            story.until_variable("a", Some("2")).await;
        }
        assert_eq!(count(&fake), 3, "{watch}");
        deny(&zookeeper, &leaf, false).await;
        deny(&zookeeper, &root, true).await;
        // Nothing tells of a changed access list.
        let report = story.apply("variables", json!({})).await;
        assert!(report["error"].is_string() && report["hint"].is_string(), "{report}");
        assert_eq!((steps(&report), count(&fake)), (vec![], 3), "{watch}");
        deny(&zookeeper, &root, false).await;
        story.in_step("variables", 3).await;
        delete(&zookeeper, &leaf).await;
        story.in_step("variables", 2).await;
        assert_eq!((count(&fake), story.variable("b").await), (2, None), "{watch}");
    }
}

/// Deletes them at once, so that no look finds some of them gone: few that vanish are deleted in Airflow.
async fn delete_thirty(story: &Story) {
    let mut transaction = story.zookeeper.new_multi_writer();
    for number in 0..30 {
        let path = format!("{}/variables/v{number}", story.root);
        transaction.add_delete(&path, None).expect("a legal deletion");
    }
    transaction.commit().await.expect("they are deleted");
}

#[tokio::test]
async fn znodes_that_are_written_anew_one_after_the_other_delete_nothing() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let mut story = Story::with_fake(server, &fake, VARIABLES).await;
    story.create("variables", "").await;
    for number in 0..40 {
        story.create(&format!("variables/v{number}"), "1").await;
    }
    story.member.start();
    story.in_step("variables", 40).await;
    // A script deletes what there is, and writes it again.
    delete_thirty(&story).await;
    let state = story.until("variables", "held", |state| state["counts"]["held"] == 30).await;
    assert!(state["guard"].as_str().is_some_and(|guard| guard.contains("many vanished at once")), "{state}");
    assert_eq!(count(&fake), 40);
    for number in 0..30 {
        story.create(&format!("variables/v{number}"), "2").await;
    }
    story.until_variable("v29", Some("2")).await;
    story.in_step("variables", 40).await;
    assert_eq!(count(&fake), 40);
    // What is not written again is deleted when it is still missing after the interval.
    delete_thirty(&story).await;
    story.until("variables", "held", |state| state["counts"]["held"] == 30).await;
    assert_eq!(count(&fake), 40);
    story.in_step("variables", 10).await;
    assert_eq!(count(&fake), 10);
}

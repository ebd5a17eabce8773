//! Watches that nobody wants any more: they stay for who takes the place of a moment ago, and then they go.

use std::sync::Arc;

use flowkeeper::domain::schedule::WatchScope;
use flowkeeper::zookeeper::Interest;

use crate::support::proxy::Proxy;
use crate::support::world::{World, schedule, trigger, wait_for};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// How many watches a server counts: one path has as many as another.
fn watched(server: &ZooKeeperServer) -> Option<usize> {
    let answer = server.word("mntr").ok()?;
    let line = answer.lines().find_map(|line| line.strip_prefix("zk_watch_count"))?;
    line.trim().parse().ok()
}

#[tokio::test]
async fn a_watch_stays_for_the_next_who_wants_it_and_goes_when_nobody_comes() {
    let server = ZooKeeperServer::start().await;
    let zk = server.client().await;
    create(&zk, "/flag", b"1").await;
    let world = World::new(&server.connect()).await;
    let path: Arc<str> = "/flag".into();
    let first = world.ensemble.subscribe(Arc::clone(&path), Interest::Node);
    wait_for(async || first.arming(), || "the path is not watched".into()).await;
    let one = watched(&server);
    assert_ne!(one, Some(0));
    drop(first);
    let second = world.ensemble.subscribe(Arc::clone(&path), Interest::Node);
    assert!(second.arming().is_some_and(|arming| arming.watched), "at once: the watch is still set");
    assert_eq!(second.take(10).paths.len(), 0, "what was hinted at before is not told again");
    set(&zk, "/flag", b"2").await;
    let hinted = async || (second.take(10).paths == [Arc::clone(&path)]).then_some(());
    wait_for(hinted, || "nothing was hinted at".into()).await;
    drop(second);
    let is_gone = async || (watched(&server) == Some(0)).then_some(());
    wait_for(is_gone, || format!("{:?} watches are left", watched(&server))).await;
    // And it can be set again.
    let third = world.ensemble.subscribe(Arc::clone(&path), Interest::Node);
    wait_for(async || third.arming(), || "the path is not watched again".into()).await;
    assert_eq!(watched(&server), one);
}

#[tokio::test]
async fn the_next_session_sets_no_watch_that_nobody_wants() {
    let server = ZooKeeperServer::start().await;
    let zk = server.client().await;
    let proxy = Proxy::start(&server.connect()).await;
    let world = World::new(&proxy.connect()).await;
    for path in ["/kept", "/left"] {
        create(&zk, path, b"").await;
    }
    let kept = world.ensemble.subscribe("/kept".into(), Interest::Node);
    wait_for(async || kept.arming(), || "the path is not watched".into()).await;
    let one = watched(&server);
    let left = world.ensemble.subscribe("/left".into(), Interest::Node);
    wait_for(async || left.arming(), || "the other path is not watched".into()).await;
    let before = kept.arming().expect("it is watched").session.number();
    drop(left);
    proxy.cut();
    let again = async || kept.arming().filter(|arming| arming.session.number() > before);
    wait_for(again, || "no session has followed".into()).await;
    // The session before takes its own with it when the server has noticed its end.
    let is_one = async || (watched(&server) == one).then_some(());
    wait_for(is_one, || format!("{:?} watches are left", watched(&server))).await;
    let wanted = world.ensemble.subscribe("/left".into(), Interest::Node);
    wait_for(async || wanted.arming(), || "the path is not watched again".into()).await;
    set(&zk, "/left", b"new").await;
    let hinted = async || (wanted.take(10).paths.len() == 1).then_some(());
    wait_for(hinted, || "nothing was hinted at".into()).await;
}

#[tokio::test]
async fn what_changes_between_two_triggers_on_one_watch_is_one_run() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/between", b"1").await;
    let mut world = World::new(&server.connect()).await;
    world.watch(schedule("between", trigger("/between", WatchScope::Node))).await;
    world.armed("between").await;
    for round in 1..=5 {
        world.end_for_an_edit().await;
        // Nobody listens to the watch, which is still set.
        set(&zk, "/between", b"2").await;
        world.watch_again().await;
        world.armed("between").await;
        world.wait_for_runs("between", round).await;
    }
}

//! Who may join: members that share a home ensemble share one store.

use std::time::{Duration, Instant};

use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::team::{PATIENCE, TICK, Team, is_leading, is_ready, leads};

/// A ledger of its own in a directory.
fn store_in(directory: &tempfile::TempDir) -> String {
    format!("sqlite://{}", directory.path().join("another.db").display())
}

/// Waits until one of these has ended by itself; which, and its exit code.
async fn one_ends(members: &mut [&mut Member]) -> (usize, Option<i32>) {
    let end = Instant::now() + PATIENCE;
    loop {
        for (index, member) in members.iter_mut().enumerate() {
            if let Some(status) = member.ended() {
                return (index, status.code());
            }
        }
        let logs: Vec<_> = members.iter().map(|member| member.logged()).collect();
        assert!(Instant::now() < end, "both go on\n{}", logs.join("\n----\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The identity of a member's store.
async fn store_id(member: &Member) -> String {
    member.ledger().await.store_id().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_another_store_is_refused_and_told_both() {
    let team = Team::start(1, TICK).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let stranger = team.member(&store_in(&elsewhere), &team.zookeeper.connect());
    let output = stranger.run(&["serve"]).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said.split("error: ").last().expect("an error");
    for part in [
        "failed to join the other members",
        &store_in(&elsewhere),
        &store_id(&stranger).await,
        &team.store,
        &store_id(&team.members[0]).await,
        "hint: members share one store",
    ] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    assert!(is_leading(&team.members[0]).await);
    // Its place is given back: a member of the team gets in.
    let mut member = team.member(&team.store, &team.zookeeper.connect());
    member.start();
    is_ready(&member).await;
    assert_eq!(member.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_with_different_stores_that_start_at_once_one_goes() {
    let team = Team::start(0, TICK).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut one = team.member(&team.store, &team.zookeeper.connect());
    let mut other = team.member(&store_in(&elsewhere), &team.zookeeper.connect());
    one.start();
    other.start();
    let (gone, code) = one_ends(&mut [&mut one, &mut other]).await;
    assert_eq!(code, Some(2));
    let mut left = if gone == 0 { other } else { one };
    leads(&left, true).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(left.ended(), None, "{}", left.logged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_comes_back_to_a_leader_with_another_store_goes() {
    let team = Team::start(0, TICK).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    // The root is the other store's: two members of which none is known to be right would race for it.
    let mut other = team.member(&store_in(&elsewhere), &team.zookeeper.connect());
    other.start();
    leads(&other, true).await;
    let client = team.zookeeper.client().await;
    while client.check_stat("/flowkeeper/store").await.expect("an answer").is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(other.stop().await, Some(0));

    let proxy = Proxy::start(&team.zookeeper.connect()).await;
    let mut cut_off = team.member(&team.store, &proxy.connect());
    cut_off.start();
    leads(&cut_off, true).await;
    proxy.freeze(true);
    // Until its session is over it is known to lead.
    let queue = async || client.list_children("/flowkeeper/leader").await.expect("the queue").len();
    while queue().await > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.start();
    leads(&other, true).await;
    assert!(is_leading(&cut_off).await, "its own store knows of nobody else");
    proxy.freeze(false);
    let (gone, code) = one_ends(&mut [&mut cut_off, &mut other]).await;
    assert_eq!((gone, code), (0, Some(2)));
    assert!(cut_off.logged().contains("failed to join the other members"), "{}", cut_off.logged());
    assert!(is_leading(&other).await);
}

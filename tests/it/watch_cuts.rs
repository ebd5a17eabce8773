//! Connections that break while somebody waits for a watch on them: whoever waits looks again, and nobody is
//! alarmed by the trace of a panic.

use std::time::Duration;

use crate::support::ensemble::UNHURRIED;
use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::team::is_leading;
use crate::support::world::wait_for;
use crate::support::zookeeper::ZooKeeperServer;

/// How often a connection breaks.
const CUTS: u32 = 40;

/// Shorter than the canary waits for an event, so that some cut is in the midst of it; all of them together
/// take longer than a look is apart from the next.
const BETWEEN: Duration = Duration::from_millis(230);

fn nothing_panicked(member: &mut Member) {
    let logged = member.logged();
    assert!(!logged.contains("panicked"), "{logged}");
    assert!(member.ended().is_none(), "{logged}");
}

#[tokio::test]
async fn a_canary_whose_connection_breaks_while_it_waits_fails_and_flies_again() {
    let proxy = Proxy::start(&ZooKeeperServer::shared().await.connect()).await;
    let mut member = Member::new(&format!(
        "[ensemble.other]\nconnect = \"{}\"\ninterval = \"6s\"\nadmin = \"off\"\n[ensemble.other.thresholds]\n{UNHURRIED}",
        proxy.connect()
    ));
    member.start();
    let canary_is = async |wanted: &str| {
        let found = || async {
            let checks = member.get("ensembles/other").await?["checks"].as_array()?.clone();
            checks.iter().any(|one| one["check"] == "canary" && one["verdict"] == wanted).then_some(())
        };
        wait_for(found, || format!("the canary is not {wanted}\n{}", member.logged())).await;
    };
    canary_is("ok").await;
    // No event comes, so the canary waits for it as long as it may.
    proxy.mute_watches(true);
    canary_is("critical").await;
    for _ in 0..CUTS {
        tokio::time::sleep(BETWEEN).await;
        proxy.cut();
    }
    proxy.mute_watches(false);
    canary_is("ok").await;
    nothing_panicked(&mut member);
    assert_eq!(member.stop().await, Some(0));
}

#[tokio::test]
async fn a_member_whose_connection_breaks_again_and_again_alarms_nobody() {
    let proxy = Proxy::start(&ZooKeeperServer::shared().await.connect()).await;
    let mut member = Member::new(&format!(
        "[zookeeper]\nconnect = \"{}\"\nroot = \"/watch-cuts\"\nsession_timeout = \"4s\"\n",
        proxy.connect()
    ));
    member.start();
    wait_for(|| async { is_leading(&member).await.then_some(()) }, || "it does not lead".to_owned()).await;
    for _ in 0..CUTS {
        tokio::time::sleep(BETWEEN).await;
        proxy.cut();
    }
    wait_for(|| async { is_leading(&member).await.then_some(()) }, || "it does not lead".to_owned()).await;
    nothing_panicked(&mut member);
    assert_eq!(member.stop().await, Some(0));
}

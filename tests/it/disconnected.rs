//! The home ensemble is away: the leader leads on, and nobody notices but its znode triggers.

use std::time::Duration;

use flowkeeper::clock::Clock;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};

use crate::support::team::{TICK, Team, is_leading};
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// How long ZooKeeper is away: several times the session timeout.
const OUTAGE: Duration = Duration::from_secs(20);

/// How much later than before most occurrences may be submitted during the outage, and each of them at worst:
/// a busy machine is allowed for, a time limit that is waited for is not.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);
const WORST: SignedDuration = SignedDuration::from_secs(10);

/// From due to submitted, of the seconds in a stretch of time, sorted.
fn lateness(runs: &[Run], from: Timestamp, to: Timestamp) -> Vec<SignedDuration> {
    let mut lateness: Vec<_> = runs
        .iter()
        .filter(|run| run.schedule == "tick" && run.due_at >= from && run.due_at < to)
        .map(|run| run.submitted_at.expect("it was submitted").duration_since(run.due_at))
        .collect();
    lateness.sort_unstable();
    lateness
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_zookeeper_cron_and_other_ensembles_go_on_as_before() {
    let other = ZooKeeperServer::start().await;
    let schedules = format!(
        r#"{TICK}
[[schedule]]
name = "home-flag"
znode = {{ path = "/flag", on = ["created", "changed"] }}
dag = "flag"

[ensemble.other]
connect = "{}"

[[schedule]]
name = "other-flag"
znode = {{ path = "/flag", on = ["created", "changed"], ensemble = "other" }}
dag = "flag"
"#,
        other.connect()
    );
    let mut team = Team::start(2, &schedules).await;
    let (home_client, other_client) = (team.zookeeper.client().await, other.client().await);
    create(&home_client, "/flag", b"").await;
    create(&other_client, "/flag", b"").await;
    let leader = team.leader().await;
    let seen = |name: &'static str, count: usize| {
        move |runs: &[Run]| runs.iter().filter(|run| run.schedule == name).count() >= count
    };
    for name in ["home-flag", "other-flag"] {
        team.members[leader].wait_for_runs("both are watched", seen(name, 1)).await;
    }
    drop(home_client);

    let began = Clock::system().now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let down = Clock::system().now();
    team.zookeeper.kill();
    tokio::time::sleep(OUTAGE / 2).await;
    set(&other_client, "/flag", b"changed").await;
    team.members[leader].wait_for_runs("the other ensemble is followed", seen("other-flag", 2)).await;
    tokio::time::sleep(OUTAGE / 2).await;
    let up = Clock::system().now();
    team.zookeeper.restart().await;
    let client = team.zookeeper.client().await;
    set(&client, "/flag", b"changed").await;
    team.members[leader].wait_for_runs("the home ensemble is followed again", seen("home-flag", 2)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let end = Clock::system().now();

    assert!(is_leading(&team.members[leader]).await, "it led all the time");
    assert_eq!(team.members[leader].json(&["members"]).await[0]["epoch"], 1, "and nobody else did");
    assert_eq!(team.members[leader].stop().await, Some(0));
    let runs = team.members[leader].runs().await;
    let last = end.saturating_sub(SignedDuration::from_secs(2)).expect("a time");
    let (before, during, after) = (lateness(&runs, began, down), lateness(&runs, down, up), lateness(&runs, up, last));
    for (when, lateness) in [("before", &before), ("during", &during), ("after", &after)] {
        println!(
            "{when}: {} seconds, median {:?}, max {:?}",
            lateness.len(),
            lateness[lateness.len() / 2],
            lateness.last()
        );
    }
    assert!(during.len() >= 20, "every second came due: {}", during.len());
    let median = |lateness: &[SignedDuration]| lateness[lateness.len() / 2];
    for lateness in [&during, &after] {
        assert!(median(lateness) <= median(&before) + MARGIN, "{:?}, before {:?}", median(lateness), median(&before));
        assert!(lateness.last().is_some_and(|worst| *worst < WORST), "{lateness:?}");
    }
}

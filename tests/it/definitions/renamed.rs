//! Schedules that get another name by a set that nobody pushed to members.

use crate::edits::{of, seconds, ticking};

use super::Cluster;
use crate::support::team::is_ready;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_that_was_renamed_twice_in_the_znode_while_nobody_served_goes_on() {
    let mut cluster = Cluster::start(1).await;
    let file = cluster.write("d.toml", &ticking("old"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["old"]).await;
    cluster.first().wait_for_runs("some runs", |runs| of(runs, "old").len() >= 2).await;
    assert_eq!(cluster.members[0].stop().await, Some(0), "{}", cluster.first().logged());

    for renamed in [ticking("newer") + "was = \"old\"\n", ticking("newest") + "was = [\"newer\", \"old\"]\n"] {
        cluster.set_znode((cluster.airflow_section() + &renamed).as_bytes()).await;
    }
    cluster.members[0].start();
    is_ready(cluster.first()).await;
    cluster.agree(&["newest"]).await;
    let so_far = cluster.first().runs().await.len();
    let runs = cluster.first().wait_for_runs("more runs", |runs| runs.len() >= so_far + 3).await;
    assert_eq!(of(&runs, "newest").len(), runs.len(), "all of its history goes along");
    let wrong: Vec<_> = seconds(&runs).into_iter().filter(|(_, count)| *count != 1).collect();
    assert!(wrong.is_empty(), "lost or doubled: {wrong:?}");
}

//! Which set a member leads with that becomes the leader: the newest in ZooKeeper, also if nobody told it of
//! that before.

use std::time::{Duration, Instant};

use flowkeeper::store::model::Run;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::definitions::Cluster;
use crate::reload::save;
use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::team::{is_leading, is_ready, leads};

/// How long anything may take that a story waits for.
const PATIENCE: Duration = Duration::from_mins(3);

/// What a member logs that became the leader.
const TOOK_THE_LEAD: &str = "took the lead";

/// A schedule that is due every second.
fn every_second(name: &str) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\nairflow = \"main\"\ncron = \"* * * * * *\"\ndag = \"tick\"\ncatchup = \"all\"\n\
         overlap = \"allow\"\n"
    )
}

/// Members of which the first leads; the others hear of no change of a znode, as when events are on their way.
struct Deaf {
    cluster: Cluster,
    proxies: Vec<Proxy>,
}

impl Deaf {
    /// The first leads with the schedule `old`.
    async fn start(others: usize) -> Self {
        let mut cluster = Cluster::start(1).await;
        leads(cluster.first(), true).await;
        let mut proxies = Vec::new();
        for _ in 0..others {
            let proxy = Proxy::start(&cluster.zookeeper.connect()).await;
            let mut member = cluster.member_by_way_of(&proxy.connect(), "");
            member.start();
            is_ready(&member).await;
            cluster.members.push(member);
            proxies.push(proxy);
        }
        let file = cluster.write("d.toml", &every_second("old"));
        cluster.first().json(&["config", "push", &file]).await;
        cluster.agree(&["old"]).await;
        Self { cluster, proxies }
    }

    fn airflow(&self) -> String {
        self.cluster.airflow_section()
    }

    /// The leader dies, and right after it another set is written.
    async fn leader_dies_and_a_set_comes(&mut self, set: &str) -> Timestamp {
        self.until_runs_of("old", 0, |runs| runs.len() >= 2).await;
        for proxy in &self.proxies {
            proxy.mute_watches(true);
        }
        self.cluster.members[0].kill();
        let died = flowkeeper::clock::Clock::system().now();
        self.cluster.set_znode(set.as_bytes()).await;
        died
    }

    /// Waits until the rows of a schedule are as `good` says.
    async fn until_runs_of(&self, schedule: &str, member: usize, good: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        let member = &self.cluster.members[member];
        let own = |runs: &[Run]| runs.iter().filter(|run| run.schedule == schedule).cloned().collect::<Vec<_>>();
        own(&member.wait_for_runs(&format!("runs of {schedule}"), |runs| good(&own(runs))).await)
    }

    fn logged(&self) -> String {
        self.cluster.members.iter().map(Member::logged).collect::<Vec<_>>().join("\n----\n")
    }
}

/// Waits until a member tells of its definitions what `good` says.
async fn until(member: &Member, what: &str, good: impl Fn(&Value) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let config = member.get("config").await.unwrap_or_default();
        if good(&config) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {config:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_leader_begins_with_a_set_that_was_pushed_while_the_last_one_died() {
    let mut deaf = Deaf::start(1).await;
    let set = deaf.airflow() + &every_second("new");
    let died = deaf.leader_dies_and_a_set_comes(&set).await;
    deaf.until_runs_of("new", 1, |runs| runs.len() >= 2).await;
    let late: Vec<_> =
        deaf.until_runs_of("old", 1, |_| true).await.into_iter().filter(|run| run.recorded_at > died).collect();
    assert!(late.is_empty(), "it led with the set before: {late:#?}\n{}", deaf.logged());
    let logged = deaf.cluster.members[1].logged();
    assert_eq!(logged.matches(TOOK_THE_LEAD).count(), 1, "{logged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_take_a_set_of_which_it_never_heard_leaves_the_lead_to_one_that_can() {
    let mut deaf = Deaf::start(2).await;
    // It needs a file that is on the host of the last member alone, and the other one is before that in the queue.
    save(&deaf.cluster.members[2].path().join("second"), "there");
    let second = "[airflow.second]\nurl = \"http://127.0.0.1:1\"\nauth = { token = { file = \"second\" } }\n";
    let set = deaf.airflow() + second + &every_second("new");
    deaf.leader_dies_and_a_set_comes(&set).await;
    leads(&deaf.cluster.members[2], true).await;
    deaf.until_runs_of("new", 2, |runs| runs.len() >= 2).await;
    let (lacks, takes) = (&deaf.cluster.members[1], &deaf.cluster.members[2]);
    assert!(!lacks.logged().contains(TOOK_THE_LEAD), "{}", deaf.logged());
    let members = takes.get("members").await.expect("members");
    let leader = members["items"].as_array().and_then(|items| items.iter().find(|member| member["role"] == "leader"));
    assert_eq!(leader.map(|leader| (&leader["url"], &leader["epoch"])), Some((&json!(takes.url()), &json!(2))));
    // It is told why, and has its turn when it has the file.
    until(lacks, "a refusal", |config| config["refused"].to_string().contains("second")).await;
    save(&lacks.path().join("second"), "there as well");
    until(lacks, "no refusal", |config| config["refused"].is_null()).await;
    deaf.cluster.members[2].kill();
    leads(&deaf.cluster.members[1], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_take_the_newest_set_somebody_leads_with_the_one_before() {
    let mut deaf = Deaf::start(2).await;
    let set = deaf.airflow() + &every_second("new").replace("cron =", "corn =");
    let died = deaf.leader_dies_and_a_set_comes(&set).await;
    let end = Instant::now() + PATIENCE;
    let leader = loop {
        match (is_leading(&deaf.cluster.members[1]).await, is_leading(&deaf.cluster.members[2]).await) {
            (true, _) => break 1,
            (_, true) => break 2,
            _ => assert!(Instant::now() < end, "nobody leads\n{}", deaf.logged()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    deaf.until_runs_of("old", leader, |runs| runs.iter().filter(|run| run.recorded_at > died).count() >= 2).await;
    for member in &deaf.cluster.members[1..] {
        until(member, "a refusal", |config| config["refused"].to_string().contains("corn")).await;
    }
    assert!(is_leading(&deaf.cluster.members[leader]).await, "{}", deaf.logged());
}

//! What becomes of a real ensemble of three servers starts DAGs, each once.

use std::time::Duration;

use flowkeeper::domain::ensemble::{EnsembleEvent, Transition};
use flowkeeper::domain::run::RunState;
use serde_json::Value;

use crate::support::ensemble::{SERVERS, UNHURRIED, ZooKeeperEnsemble};
use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::postgres::PostgresServer;
use crate::support::process::Member;
use crate::support::team::{PATIENCE, is_leading, is_ready};

const TOKEN: &str = "let-me-in";

/// Who listens to what.
const SCHEDULES: &str = r#"
[ensemble.main]
interval = "{interval}"
admin = "off"

[ensemble.main.thresholds]
{thresholds}

[[schedule]]
name = "quorum"
ensemble = { on = ["quorum_lost", "recovered"] }
dag = "health"

[[schedule]]
name = "leader"
ensemble = { name = "main", on = ["leader_changed"] }
dag = "health"

[[schedule]]
name = "servers"
ensemble = { name = "home", on = ["server_down", "server_up"] }
dag = "health"
conf = { events = "{{ ensemble.events }}" }

[[schedule]]
name = "paused"
ensemble = { on = ["server_down"] }
dag = "health"
paused = true
"#;

/// An ensemble, an Airflow, and members that share a ledger.
struct Scene {
    ensemble: ZooKeeperEnsemble,
    airflow: FakeAirflow,
    members: Vec<Member>,
}

impl Scene {
    async fn start(members: usize) -> Self {
        Self::looking_every("1s", members).await
    }

    async fn looking_every(interval: &str, members: usize) -> Self {
        let mut world = World::default().with_dags(["health"]);
        world.tokens.insert(TOKEN.to_owned());
        let airflow = FakeAirflow::start(world).await;
        let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
        ensemble.is_whole().await;
        let config = format!(
            "[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n[airflow.main]\nurl = \"{}\"\n\
             auth = {{ token = {{ file = \"token\" }} }}\n{}",
            ensemble.connect(),
            airflow.url(),
            SCHEDULES.replace("{interval}", interval).replace("{thresholds}", UNHURRIED)
        );
        let store = PostgresServer::shared().await.create_database().await;
        let mut scene = Self { ensemble, airflow, members: Vec::new() };
        for _ in 0..members {
            let mut member = Member::sharing(&store, &config);
            std::fs::write(member.path().join("token"), TOKEN).expect("write the token");
            member.start();
            is_ready(&member).await;
            scene.members.push(member);
        }
        let leader = scene.leading().await;
        scene.members[leader].armed().await;
        scene
    }

    async fn leading(&self) -> usize {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if is_leading(member).await {
                    return index;
                }
            }
            assert!(std::time::Instant::now() < end, "nobody leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What became of the ensemble, oldest first.
    async fn transitions(&self) -> Vec<Transition> {
        let page = self.members[0].ledger().await.transitions(Some("main"), 1000, None).await;
        page.expect("read transitions").items.into_iter().rev().collect()
    }

    /// How often something was told, and how often it was counted the last time.
    async fn told(&self, event: EnsembleEvent) -> (usize, u32) {
        let transitions = self.transitions().await;
        let told: Vec<_> =
            transitions.iter().flat_map(|one| &one.events).filter(|happening| happening.event == event).collect();
        (told.len(), told.last().map_or(0, |happening| happening.count))
    }

    /// Waits until something was counted so often.
    async fn wait_for_count(&self, event: EnsembleEvent, count: u32) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.told(event).await.1 < count {
            assert!(std::time::Instant::now() < end, "{event:?}: {:#?}", self.transitions().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a look has found that all servers serve.
    async fn all_serve(&self) {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let report = self.members[0].get("ensembles/main").await.unwrap_or_default();
            let checks = report["checks"].as_array().cloned().unwrap_or_default();
            let serving = checks.iter().filter(|one| one["check"] == "serving" && one["verdict"] == "ok").count();
            if serving == SERVERS {
                return;
            }
            assert!(std::time::Instant::now() < end, "{report:#}\n{}", self.members[0].logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wait_for(&self, event: EnsembleEvent, times: usize) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.told(event).await.0 < times {
            let transitions = self.transitions().await;
            let logged: Vec<_> = self.members.iter().map(Member::logged).collect();
            assert!(std::time::Instant::now() < end, "{event:?}: {transitions:#?}\n{}", logged.join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The confs of the DAG runs of a schedule, oldest first.
    fn confs(&self, schedule: &str) -> Vec<Value> {
        let prefix = format!("flowkeeper__{schedule}__e");
        let world = self.airflow.world();
        let mut runs: Vec<_> = world.runs().iter().filter(|run| run.dag_run_id.starts_with(&prefix)).collect();
        runs.sort_by_key(|run| run.arrived);
        runs.iter().map(|run| serde_json::from_str(&run.conf).expect("JSON")).collect()
    }

    /// Waits until a schedule has so many DAG runs.
    async fn wait_for_confs(&self, schedule: &str, count: usize) -> Vec<Value> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let confs = self.confs(schedule);
            if confs.len() >= count {
                return confs;
            }
            let logged: Vec<_> = self.members.iter().map(Member::logged).collect();
            assert!(std::time::Instant::now() < end, "{schedule}: {confs:#?}\n{}", logged.join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_reaches_airflow_and_so_does_its_return() {
    let mut scene = Scene::start(1).await;
    let leader = scene.ensemble.leader().expect("a leader");
    let survivor = (leader + 1) % 3;
    let killed: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    for index in &killed {
        scene.ensemble.kill(*index);
    }
    let lost = scene.wait_for_confs("quorum", 1).await.remove(0);
    let lost = &lost["ensemble"];
    assert_eq!((&lost["event"], &lost["after"]), (&"quorum_lost".into(), &"quorum_lost".into()), "{lost:#}");
    assert_eq!(lost["leader_before"], scene.ensemble.servers()[leader].as_str());
    let failing: Vec<_> = lost["failing"].as_array().expect("a list").iter().map(|one| &one["check"]).collect();
    assert!(failing.contains(&&"quorum".into()) && failing.contains(&&"serving".into()), "{lost:#}");
    assert!(lost["failing"][0]["meaning"].as_str().is_some_and(|sentence| sentence.ends_with('.')), "{lost:#}");
    let down = scene.wait_for_confs("servers", 1).await;
    assert!(down.iter().all(|conf| conf["events"][0]["event"] == "server_down"), "{down:#?}");
    let metrics = scene.members[0].text("readyz").await.expect("it is ready");
    assert!(metrics.contains("true"), "it leads on without ZooKeeper: {metrics}");

    for index in killed {
        scene.ensemble.restart(index).await;
    }
    let back = scene.wait_for_confs("quorum", 2).await.remove(1);
    assert_eq!((&back["ensemble"]["event"], &back["ensemble"]["after"]), (&"recovered".into(), &"healthy".into()));
    // Nothing more comes of it.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(scene.confs("quorum").len(), 2);
    assert_eq!(scene.told(EnsembleEvent::QuorumLost).await, (1, 1));
    let runs = scene.members[0].runs().await;
    let paused: Vec<_> = runs.iter().filter(|run| run.schedule == "paused").collect();
    assert!(!paused.is_empty() && paused.iter().all(|run| run.state == RunState::Skipped), "{paused:#?}");
    assert!(paused[0].reason.as_ref().is_some_and(|reason| reason.contains("paused in the configuration")));

    let why = scene.members[0].run(&["why", "quorum"]).await;
    let why = String::from_utf8_lossy(&why.stdout).replace('\n', " ");
    for sentence in ["when the ensemble `main` has one of quorum_lost, recovered", "the ensemble had quorum_lost"] {
        assert!(why.contains(sentence), "{why}");
    }
    let shown = scene.members[0].json(&["schedules"]).await;
    let quorum = shown.as_array().expect("a list").iter().find(|one| one["name"] == "quorum").expect("it is listed");
    assert_eq!(quorum["trigger"]["kind"], "ensemble", "{quorum:#}");
    assert_eq!((&quorum["armed"], &quorum["next_time"]), (&true.into(), &Value::Null));
    assert_eq!(scene.members[0].stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_is_told_once_and_so_is_the_server_that_led() {
    // An election may take twelve seconds then, before it counts as a lost quorum.
    let scene = Scene::looking_every("3s", 1).await;
    let leader = scene.ensemble.leader().expect("a leader");
    scene.ensemble.kill(leader);
    let changed = scene.wait_for_confs("leader", 1).await.remove(0);
    let changed = &changed["ensemble"];
    let server = |key: &str| changed[key].as_str().map(ToOwned::to_owned);
    assert_eq!(server("leader_before"), Some(scene.ensemble.servers()[leader].clone()), "{changed:#}");
    let next = scene.ensemble.leader().expect("another leader");
    assert_eq!(server("leader_after"), Some(scene.ensemble.servers()[next].clone()), "{changed:#}");
    scene.wait_for(EnsembleEvent::ServerDown, 1).await;
    scene.ensemble.restart(leader).await;
    scene.wait_for(EnsembleEvent::ServerUp, 1).await;
    scene.wait_for(EnsembleEvent::Recovered, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for event in [EnsembleEvent::LeaderChanged, EnsembleEvent::ServerDown, EnsembleEvent::ServerUp] {
        assert_eq!(scene.told(event).await.0, 1, "{event:?}: {:#?}", scene.transitions().await);
    }
    assert_eq!(scene.told(EnsembleEvent::QuorumLost).await.0, 0, "an election is no lost quorum");
    let servers = scene.confs("servers");
    let told: Vec<_> = servers.iter().map(|conf| &conf["events"][0]["event"]).collect();
    assert_eq!(told, ["server_down", "server_up"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_and_goes_is_one_event_with_a_count() {
    // What is up for six seconds is told, and that is far more than a look needs to see it.
    let scene = Scene::looking_every("2s", 1).await;
    let leader = scene.ensemble.leader().expect("a leader");
    let flapping = (leader + 1) % 3;
    for count in 1..=3 {
        scene.ensemble.freeze(flapping, true);
        scene.wait_for_count(EnsembleEvent::ServerDown, count).await;
        scene.ensemble.freeze(flapping, false);
        scene.all_serve().await;
    }
    scene.wait_for(EnsembleEvent::ServerUp, 1).await;
    let ((down, count), (up, counted)) =
        (scene.told(EnsembleEvent::ServerDown).await, scene.told(EnsembleEvent::ServerUp).await);
    assert_eq!((down, up), (1, 1), "{:#?}", scene.transitions().await);
    assert!(count >= 3 && counted == count, "it was counted: {count}, {counted}");
    let servers = scene.wait_for_confs("servers", 2).await;
    assert_eq!(servers.len(), 2, "one run as it went, one as it was back for long");
    assert_eq!(servers[1]["events"][0]["count"], counted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_told_once_whoever_leads_meanwhile() {
    let mut scene = Scene::start(2).await;
    // Before it can be told, while it is, and after it was.
    for (round, pause_ms) in [200, 1500, 4000].into_iter().enumerate() {
        let follower = (scene.ensemble.leader().expect("a leader") + 1) % 3;
        let first = scene.leading().await;
        scene.ensemble.kill(follower);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        scene.members[first].kill();
        scene.wait_for(EnsembleEvent::ServerDown, round + 1).await;
        let second = scene.leading().await;
        assert_ne!(first, second);
        scene.ensemble.restart(follower).await;
        scene.wait_for(EnsembleEvent::ServerUp, round + 1).await;
        scene.wait_for_confs("servers", 2 * (round + 1)).await;
        scene.members[first].start();
        is_ready(&scene.members[first]).await;
    }
    let servers = scene.confs("servers");
    let told: Vec<_> = servers.iter().map(|conf| &conf["events"][0]["event"]).collect();
    let (down, up) = ("server_down", "server_up");
    assert_eq!(told, [down, up, down, up, down, up]);
    let runs = scene.members[0].runs().await;
    assert_eq!(runs.iter().filter(|run| run.schedule == "servers").count(), 6, "the ledger has the same");
}

//! Ensembles and Airflows that come, move and go while a member serves: everything that is told of them
//! follows, and nothing else is disturbed.

use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::Value;

use crate::reload::{airflow, another, cron, fake, of, save, version, without_a_gap};
use crate::support::fake_airflow::{FakeAirflow, State};
use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::team::PATIENCE;
use crate::support::zookeeper::{ZooKeeperServer, create, set};

/// How many requests an Airflow has had.
fn requests(fake: &FakeAirflow) -> u64 {
    fake.world().counts.values().sum()
}

/// A member with a home ensemble, whose definitions are in one file.
struct Scene {
    member: Member,
    fake: FakeAirflow,
}

impl Scene {
    async fn start() -> Self {
        let home = ZooKeeperServer::shared().await;
        let place = format!("/parts-{}", uuid::Uuid::new_v4().simple());
        let fake = fake().await;
        let zookeeper =
            format!("[zookeeper]\nconnect = \"{}\"\nroot = \"{place}\"\nsession_timeout = \"4s\"\n", home.connect());
        let mut member = Member::new(&format!("{zookeeper}{}", airflow(&fake)));
        save(&member.path().join("password"), "admin");
        member.include_schedules();
        save(&member.path().join("schedules/a.toml"), &beside());
        member.start();
        member.armed().await;
        Self { member, fake }
    }

    /// Puts these definitions in force, beside the schedule that is always there.
    async fn go_over(&mut self, definitions: &str) {
        let before = version(&self.member).await;
        save(&self.member.path().join("schedules/a.toml"), &(beside() + definitions));
        another(&self.member, &before).await;
    }

    async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(Instant::now() < end, "{what}\n{}", self.member.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The names that a list of the API has.
    async fn listed(&self, list: &str) -> Vec<String> {
        let list = self.member.get(list).await.expect("a list");
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    }

    async fn metrics(&self) -> String {
        self.member.text("metrics").await.expect("metrics")
    }
}

fn beside() -> String {
    cron("beside", "* * * * * *", "airflow = \"main\"")
}

fn ensemble(connect: &str) -> String {
    format!("[ensemble.other]\nconnect = \"{connect}\"\ninterval = \"1s\"\nadmin = \"off\"\n")
}

fn flag() -> String {
    "[[schedule]]\nname = \"flag\"\nznode = { path = \"/flag\", ensemble = \"other\" }\nairflow = \"main\"\ndag = \"load\"\n"
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_comes_moves_and_goes_with_its_triggers_its_health_and_its_metrics() {
    let other = ZooKeeperServer::start().await;
    let client = other.client().await;
    let mut scene = Scene::start().await;
    assert!(!scene.listed("ensembles").await.contains(&"other".to_owned()));

    scene.go_over(&(ensemble(&other.connect()) + &flag())).await;
    scene.member.armed().await;
    assert!(scene.listed("ensembles").await.contains(&"other".to_owned()));
    create(&client, "/flag", b"1").await;
    scene.member.wait_for_runs("its trigger fires", |runs| of(runs, "flag").len() == 1).await;
    let serves =
        |server: &str| format!("flowkeeper_ensemble_server_serves{{ensemble=\"other\",server=\"{server}\"}} 1");
    let line = serves(&other.connect());
    scene.until("its health is measured", async || scene.metrics().await.contains(&line).then_some(())).await;
    let shown = scene.member.get("ensembles/other").await.expect("an ensemble");
    assert!(shown["checks"].as_array().is_some_and(|checks| !checks.is_empty()), "{shown}");
    let inspected = scene.member.post("ensembles/other/checks/serving/run", &serde_json::json!({})).await;
    assert_eq!(inspected["verdict"], "ok", "{inspected}");

    // The same servers at another address, in two steps: the trigger goes on where it was.
    let proxy = Proxy::start_plain(&other.connect()).await;
    let covers = |runs: &[Run]| -> i64 { of(runs, "flag").iter().map(|run| 1 + run.coalesced).sum() };
    for (connect, covered) in [(format!("{},{}", other.connect(), proxy.connect()), 3), (proxy.connect(), 5)] {
        scene.go_over(&(ensemble(&connect) + &flag())).await;
        for data in [b"x", b"y"] {
            set(&client, "/flag", data).await;
        }
        scene.member.wait_for_runs("it goes on", |runs| covers(runs) == covered).await;
        scene.member.armed().await;
        let connected = "flowkeeper_zookeeper_connected{ensemble=\"other\"} 1\n";
        tokio::time::sleep(Duration::from_secs(1)).await;
        let still = async || scene.metrics().await.contains(connected).then_some(());
        scene.until("connected, also once the session before it has ended", still).await;
    }
    let line = serves(&proxy.connect());
    scene.until("the new address is measured", async || scene.metrics().await.contains(&line).then_some(())).await;
    let old = serves(&other.connect());
    scene.until("the old one is not", async || (!scene.metrics().await.contains(&old)).then_some(())).await;
    assert!(proxy.accepted() > 0);

    scene.go_over("").await;
    assert!(!scene.listed("ensembles").await.contains(&"other".to_owned()));
    let gone = reqwest::get(format!("{}/api/v1/ensembles/other", scene.member.url())).await.expect("an answer");
    assert_eq!(gone.status(), 404);
    scene
        .until("nothing is measured any more", async || {
            let metrics = scene.metrics().await;
            let told = ["verdict", "report_age_seconds", "server_serves", "check_verdict"];
            let is_told = |name: &&str| metrics.contains(&format!("flowkeeper_ensemble_{name}{{ensemble=\"other\""));
            (!told.iter().any(is_told)).then_some(())
        })
        .await;
    let nobody = "flowkeeper_zookeeper_connected{ensemble=\"other\"} NaN\n";
    scene.until("it is not connected", async || scene.metrics().await.contains(nobody).then_some(())).await;
    let connections = proxy.accepted();
    set(&client, "/flag", b"4").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.accepted(), connections, "nobody connects any more");
    let runs = scene.member.runs().await;
    assert_eq!(covers(&runs), 5);
    without_a_gap(&of(&runs, "beside"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_that_is_pointed_at_other_servers_waits_for_somebody_who_decides() {
    let (one, two) = (ZooKeeperServer::start().await, ZooKeeperServer::start().await);
    let (here, there) = (one.client().await, two.client().await);
    create(&here, "/flag", b"").await;
    create(&there, "/flag", b"").await;
    // The other ensemble is ahead, so that its zxids do not contradict what was handled.
    for _ in 0..50 {
        set(&there, "/flag", b"x").await;
    }
    let mut scene = Scene::start().await;
    scene.go_over(&(ensemble(&one.connect()) + &flag())).await;
    scene.member.armed().await;
    set(&here, "/flag", b"1").await;
    let runs = |count: usize| move |runs: &[Run]| of(runs, "flag").len() == count;
    scene.member.wait_for_runs("its trigger fires", runs(1)).await;

    let elsewhere = ensemble(&two.connect()) + &flag();
    scene.go_over(&elsewhere).await;
    let stands = async |scene: &Scene, histories: &str| {
        let histories = histories.to_owned();
        scene
            .until("how it stands", async || {
                let list = scene.member.get("adopt").await?;
                let items = list["items"].as_array()?;
                items
                    .iter()
                    .find(|item| item["ensemble"] == "other" && item["histories"] == histories.as_str())
                    .cloned()
            })
            .await
    };
    let moved = stands(&scene, "two").await;
    assert_eq!(moved["cause"], "moved", "{moved}");
    assert!(moved["reason"].as_str().is_some_and(|reason| reason.contains(&one.connect())), "{moved}");
    assert!(moved["hint"].as_str().is_some_and(|hint| hint.contains("--ensemble other")), "{moved}");
    set(&there, "/flag", b"2").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(of(&scene.member.runs().await, "flag").len(), 1, "nothing is compared");

    // Back where it was it goes on by itself, and has missed nothing.
    set(&here, "/flag", b"2").await;
    scene.go_over(&(ensemble(&one.connect()) + &flag())).await;
    scene.member.wait_for_runs("what was changed meanwhile", runs(2)).await;

    scene.go_over(&elsewhere).await;
    stands(&scene, "two").await;
    let decision = serde_json::json!({ "ensemble": "other", "decision": "ignore" });
    let adopted = scene.member.post("adopt", &decision).await;
    assert_eq!((&adopted["cause"], &adopted["generation"]), (&"moved".into(), &1.into()), "{adopted}");
    stands(&scene, "one").await;
    scene.member.armed().await;
    set(&there, "/flag", b"3").await;
    let runs = scene.member.wait_for_runs("the other ensemble is followed", runs(3)).await;
    assert!(of(&runs, "flag")[2].dag_run_id.starts_with("flowkeeper__flag__g1.z"), "{runs:#?}");
    without_a_gap(&of(&runs, "beside"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_airflow_comes_and_goes_and_what_it_had_open_waits_for_its_return() {
    let mut scene = Scene::start().await;
    let second = fake().await;
    let section = airflow(&second).replace("main", "second").replace("\"password\"", "\"../password\"");
    let job = cron("job", "* * * * * *", "airflow = \"second\"");
    scene.go_over(&(section.clone() + &job)).await;
    scene
        .member
        .wait_for_runs("runs in the second", |runs| {
            of(runs, "job").iter().filter(|run| run.state.was_accepted()).count() >= 2
        })
        .await;
    assert_eq!(scene.listed("airflow").await, ["main", "second"]);
    let up = |value: &str| format!("flowkeeper_airflow_up{{airflow=\"second\"}} {value}\n");
    let line = up("1");
    scene.until("it is up", async || scene.metrics().await.contains(&line).then_some(())).await;

    scene.go_over("").await;
    assert_eq!(scene.listed("airflow").await, ["main"]);
    let line = up("NaN");
    let is_told = async || scene.metrics().await.contains(&line).then_some(());
    scene.until("what nobody asks is neither up nor down", is_told).await;
    let open = |runs: &[Run]| {
        of(runs, "job").iter().filter(|run| run.state.is_open()).map(|run| run.dag_run_id.clone()).collect::<Vec<_>>()
    };
    let left = open(&scene.member.runs().await);
    assert!(!left.is_empty());
    // It is asked for nothing while it is out.
    let ids: Vec<_> = second.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
    for id in &ids {
        second.world().set_state("load", id, State::Success);
    }
    let asked = requests(&second);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(requests(&second), asked);
    assert_eq!(open(&scene.member.runs().await), left, "its rows stay as they are");
    let url = format!("{}/api/v1/runs/{}/cancel", scene.member.url(), left[0]);
    let refused = reqwest::Client::new().post(url).json(&serde_json::json!({})).send().await.expect("an answer");
    let (status, problem): (_, Value) = (refused.status(), refused.json().await.expect("JSON"));
    assert!(status.is_client_error() && problem["detail"].as_str().is_some_and(|d| d.contains("second")), "{problem}");

    // Back: what it had open is followed to its end, and each was one DAG run.
    scene.go_over(&section).await;
    let runs = scene
        .member
        .wait_for_runs("its runs end", |runs| {
            of(runs, "job").iter().filter(|run| ids.contains(&run.dag_run_id)).all(|run| run.state == RunState::Success)
                && of(runs, "job").iter().all(|run| run.state != RunState::Pending)
        })
        .await;
    let mut rows: Vec<_> = of(&runs, "job").iter().map(|run| run.dag_run_id.clone()).collect();
    let mut there: Vec<_> = second.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
    rows.sort_unstable();
    there.sort_unstable();
    assert_eq!(rows, there);
    assert_eq!(scene.listed("airflow").await, ["main", "second"]);
    without_a_gap(&of(&runs, "beside"), 1);
    assert!(scene.fake.world().runs().iter().all(|run| run.dag_run_id.starts_with("flowkeeper__beside__")));
}

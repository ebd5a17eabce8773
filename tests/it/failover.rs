//! Several members: one leads, the others stand by; whoever leads next goes on where the last one was.

use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::zookeeper::ZooKeeperServer;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Members that share an ensemble, a store and an Airflow.
struct Team {
    zookeeper: ZooKeeperServer,
    airflow: FakeAirflow,
    _directory: tempfile::TempDir,
    members: Vec<Member>,
}

impl Team {
    async fn start(count: usize, schedules: &str) -> Self {
        let mut team = Self::prepare(count, schedules).await;
        for member in &mut team.members {
            member.start();
            team_is_ready(member).await;
        }
        team.leader().await;
        team
    }

    async fn prepare(count: usize, schedules: &str) -> Self {
        let zookeeper = ZooKeeperServer::start().await;
        let airflow = FakeAirflow::start(World::default().with_dags(["tick", "flag"])).await;
        let directory = tempfile::tempdir().expect("a directory");
        let store = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let config = format!(
            r#"
[zookeeper]
connect = "{}"
session_timeout = "4s"

[airflow.main]
url = "{}"
auth = {{ token = {{ file = "token" }} }}
timeout = "2s"

{schedules}
"#,
            zookeeper.connect(),
            airflow.url()
        );
        airflow.world().tokens.insert("let-me-in".to_owned());
        let member = |_| {
            let member = Member::sharing(&store, &config);
            std::fs::write(member.path().join("token"), "let-me-in").expect("write the token");
            member
        };
        let members = (0..count).map(member).collect();
        Self { zookeeper, airflow, _directory: directory, members }
    }

    /// Waits until one member says that it leads; which.
    async fn leader(&mut self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter_mut().enumerate() {
                if is_leading(member).await {
                    return index;
                }
            }
            let logs: Vec<_> = self.members.iter().map(Member::logged).collect();
            assert!(Instant::now() < end, "nobody leads\n{}", logs.join("\n----\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn team_is_ready(member: &Member) {
    let end = Instant::now() + PATIENCE;
    while member.text("readyz").await.is_none() {
        assert!(Instant::now() < end, "not ready\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_leading(member: &Member) -> bool {
    let Some(ready) = member.text("readyz").await else { return false };
    serde_json::from_str::<Value>(&ready).is_ok_and(|ready| ready["leader"] == true)
}

const TICK: &str = r#"
[[schedule]]
name = "tick"
cron = "* * * * * *"
dag = "tick"
catchup = "all"
overlap = "allow"
retry = { initial = "100ms", max = "300ms" }
"#;

/// Every second from the first to the last that is covered is covered by exactly one row, every
/// accepted row is one DAG run, and there are no others.
fn nothing_lost_nothing_twice(team: &Team, runs: &[Run]) {
    let mut rows: Vec<(Timestamp, Timestamp)> = runs
        .iter()
        .filter(|run| run.schedule == "tick")
        .map(|run| {
            let nominal = run.nominal_time.expect("a nominal time");
            (run.from.unwrap_or(nominal), run.to.unwrap_or(nominal))
        })
        .collect();
    rows.sort_unstable();
    for pair in rows.windows(2) {
        assert_eq!(pair[1].0, pair[0].1 + SignedDuration::from_secs(1), "no second is missing or covered twice");
    }
    let world = team.airflow.world();
    for run in runs.iter().filter(|run| run.state.was_accepted()) {
        assert!(world.run(&run.dag_id, &run.dag_run_id).is_some(), "no DAG run {}", run.dag_run_id);
    }
    for dag_run in world.runs() {
        let known = runs.iter().any(|run| run.dag_run_id == dag_run.dag_run_id && run.state.was_accepted());
        assert!(known, "{} is in Airflow and not in the ledger", dag_run.dag_run_id);
    }
}

/// Waits until every run of before `until` is accepted; all runs.
async fn all_accepted(member: &Member, until: Timestamp) -> Vec<Run> {
    member
        .wait_for_runs("all are accepted", |runs| {
            runs.last().is_some_and(|run| run.due_at >= until)
                && runs.iter().filter(|run| run.due_at < until).all(|run| run.state != RunState::Pending)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_another_goes_on() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    team.members[first].kill();
    let second = team.leader().await;
    assert_ne!(first, second);
    let runs = all_accepted(&team.members[second], Clock::system().now()).await;
    assert_eq!(team.members[second].stop().await, Some(0), "{}", team.members[second].logged());
    let runs_at_the_end = team.members[second].runs().await;
    assert!(runs_at_the_end.len() >= runs.len());
    nothing_lost_nothing_twice(&team, &runs_at_the_end);
    assert!(runs.iter().all(|run| run.count == 1), "nothing is missed within ten seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    team.members[first].signal("TERM");
    let second = team.leader().await;
    let took = began.elapsed();
    assert_ne!(first, second);
    assert!(took < Duration::from_secs(1), "the hand-over took {took:?}\n{}", team.members[second].logged());
    assert_eq!(team.members[first].stop().await, Some(0), "{}", team.members[first].logged());
    all_accepted(&team.members[second], Clock::system().now()).await;
    assert_eq!(team.members[second].stop().await, Some(0));
    let runs = team.members[second].runs().await;
    nothing_lost_nothing_twice(&team, &runs);
    let latest = runs.iter().filter_map(|run| run.accepted_at.map(|at| at.duration_since(run.due_at))).max();
    assert!(latest.is_some_and(|latest| latest < SignedDuration::from_secs(1)), "due to accepted took {latest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_sleeps_beyond_its_session_stands_by_when_it_wakes() {
    let mut team = Team::start(2, TICK).await;
    let first = team.leader().await;
    team.members[first].signal("STOP");
    let second = 1 - first;
    let end = Instant::now() + PATIENCE;
    while !is_leading(&team.members[second]).await {
        assert!(Instant::now() < end, "nobody takes over\n{}", team.members[second].logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    team.members[first].signal("CONT");
    let end = Instant::now() + Duration::from_secs(10);
    while is_leading(&team.members[first]).await {
        assert!(Instant::now() < end, "the old leader does not notice\n{}", team.members[first].logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    team_is_ready(&team.members[first]).await;
    assert_eq!(team.members[first].ended(), None, "it stands by");
    // And takes its turn when the other one ends.
    assert_eq!(team.members[second].stop().await, Some(0));
    assert_eq!(team.leader().await, first);
    all_accepted(&team.members[first], Clock::system().now()).await;
    assert_eq!(team.members[first].stop().await, Some(0));
    nothing_lost_nothing_twice(&team, &team.members[first].runs().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_serves_history_and_passes_on_what_only_the_leader_can_do() {
    let mut team = Team::start(2, TICK).await;
    let leader = team.leader().await;
    let (leader, standby) = (&team.members[leader], &team.members[1 - leader]);
    let runs = standby.wait_for_runs("the first run", |runs| !runs.is_empty()).await;
    let history = standby.get("runs").await.expect("a standby has the history");
    assert!(history["items"].as_array().is_some_and(|items| items.len() >= runs.len()));

    // What only the leader knows.
    let schedule = standby.get("schedules/tick").await.expect("a schedule");
    assert_eq!(schedule["armed"], true);
    let schedules = standby.get("schedules").await.expect("schedules");
    assert_eq!(schedules["items"][0]["armed"], true);

    // What only the leader can do, and who asked for it.
    let run = standby.post("schedules/tick/trigger", &json!({ "key": "by-hand" })).await;
    assert_eq!(run["dag_run_id"], "flowkeeper__tick__mby-hand");
    let paused = standby.json(&["pause", "tick", "--reason", "upgrade"]).await;
    assert_eq!((&paused["paused"], &paused["pause"]["reason"]), (&json!(true), &json!("upgrade")));
    let audit = leader.json(&["audit"]).await;
    let source = audit[0]["source"].as_str().expect("a source");
    assert!(source.starts_with("127.0.0.1 by way of ") && source.ends_with(" (127.0.0.1)"), "{source}");
    assert!(source.contains(standby.url().rsplit(':').next().expect("a port")), "{source}");

    // A problem of the leader's is the answer, too.
    let refused = reqwest::Client::new()
        .post(format!("{}/api/v1/schedules/tack/trigger", standby.url()))
        .json(&json!({ "key": "k" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), 404);
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(problem["hint"], "did you mean `tick`?");

    // A member that was passed a request on passes it on to nobody.
    let astray = reqwest::Client::new()
        .post(format!("{}/api/v1/schedules/tick/resume", standby.url()))
        .header("flowkeeper-forwarded-by", "somebody")
        .json(&json!({}))
        .send()
        .await
        .expect("an answer");
    assert_eq!((astray.status().as_u16(), astray.headers()["retry-after"].to_str().ok()), (503, Some("2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_from_the_leader_and_end_with_its_term() {
    let mut team = Team::start(2, TICK).await;
    let leader = team.leader().await;
    let standby = &team.members[1 - leader];
    let mut events = reqwest::get(format!("{}/api/v1/events", standby.url())).await.expect("a stream");
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut heard = String::new();
    while !heard.contains("flowkeeper__tick__") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), events.chunk()).await.expect("events come");
        heard.push_str(&String::from_utf8_lossy(&chunk.expect("no error").expect("not the end")));
    }
    team.members[leader].signal("TERM");
    let rest = async { while let Ok(Some(_)) = events.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(5), rest).await.expect("the stream ends with the leader");
    assert_eq!(team.members[leader].stop().await, Some(0));
    assert_eq!(team.leader().await, 1 - leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_leads_a_standby_says_so() {
    let mut team = Team::start(2, TICK).await;
    let leader = team.leader().await;
    team.members[leader].kill();
    let standby = &team.members[1 - leader];
    let ask = async || {
        let request = reqwest::Client::new()
            .post(format!("{}/api/v1/schedules/tick/trigger", standby.url()))
            .json(&json!({ "key": "k" }));
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.json::<Value>().await.expect("JSON"))
    };
    // The session of the dead is still alive.
    let (status, headers, problem) = ask().await;
    assert_eq!((status, &problem["type"]), (502, &json!("urn:flowkeeper:problem:leader-unreachable")), "{problem}");
    assert_eq!(headers["retry-after"], "2");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.starts_with("nothing was done")), "{problem}");
    // Reading goes on; only the leader would know what is armed.
    let schedule = standby.get("schedules/tick").await.expect("a schedule");
    assert_eq!(schedule["armed"], Value::Null);
    let trigger = standby.json(&["trigger", "tick", "--key", "k"]).await;
    assert_eq!(trigger["dag_run_id"], "flowkeeper__tick__mk", "the command repeats it until somebody leads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_listed_by_the_api_and_by_the_command_even_while_a_member_is_down() {
    let mut team = Team::start(3, TICK).await;
    let leader = team.leader().await;
    let listed = |list: &Value| -> Vec<(String, String, String)> {
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let items = list.as_array().expect("a list").iter();
        items.map(|item| (text(item, "url"), text(item, "role"), text(item, "session"))).collect()
    };
    let expected = |role: &str, index: usize| (team.members[index].url(), role.to_owned(), "connected".to_owned());
    for member in &team.members {
        let list = member.get("members").await.expect("members");
        assert_eq!(list["zookeeper"]["state"], "connected");
        let list = listed(&list["items"]);
        assert_eq!(list.len(), 3);
        assert_eq!(list[0], expected("leader", leader));
        assert!((0..3).filter(|index| *index != leader).all(|index| list.contains(&expected("standby", index))));
    }
    let down = (0..3).find(|index| *index != leader).expect("a standby");
    team.members[down].kill();
    let list = team.members[down].json(&["members"]).await;
    assert!(listed(&list).contains(&(team.members[leader].url(), "leader".into(), "connected".into())), "{list}");
    assert_eq!(list[0]["epoch"], 1);
    assert!(list[0]["host"].as_str().is_some_and(|host| !host.is_empty()) && list[0]["pid"].is_u64(), "{list}");

    team.zookeeper.kill();
    let end = Instant::now() + PATIENCE;
    let list = loop {
        let list = team.members[leader].get("members").await.expect("members");
        if list["zookeeper"]["state"] == "disconnected" {
            break list;
        }
        assert!(Instant::now() < end, "{list}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(list["zookeeper"]["reason"].is_string() && list["zookeeper"]["since"].is_string(), "{list}");
    assert_eq!(list["items"][0]["role"], "leader", "it leads on: {list}");
    let output = team.members[leader].run(&["members"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("what was known last"), "{said}");
}

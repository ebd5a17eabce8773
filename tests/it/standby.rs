//! A member that stands by: what it serves itself, what it passes on to the leader, and who takes part.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::process::Member;
use crate::support::team::{PATIENCE, TICK, Team, is_ready};

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
        let chunk = tokio::time::timeout(PATIENCE, events.chunk()).await.expect("events come");
        heard.push_str(&String::from_utf8_lossy(&chunk.expect("no error").expect("not the end")));
    }
    team.members[leader].signal("TERM");
    let rest = async { while let Ok(Some(_)) = events.chunk().await {} };
    tokio::time::timeout(PATIENCE, rest).await.expect("the stream ends with the leader");
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

/// A schedule of each of two teams, and a token of the one.
const OWNED: &str = r#"
[[server.token]]
name = "payments-ci"
value = { file = "payments-ci" }
role = "operate"
team = "payments"

[team.payments]
dags = ["tick"]

[team.search]
dags = ["load"]

[[schedule]]
name = "pay"
cron = "0 0 1 1 *"
dag = "tick"
owner = "payments"

[[schedule]]
name = "search"
cron = "0 0 1 1 *"
dag = "load"
owner = "search"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_team_has_the_same_limits_on_every_member() {
    let mut team = Team::start(0, OWNED).await;
    for _ in 0..2 {
        let mut member = team.member(&team.store, &team.zookeeper.connect());
        std::fs::write(member.path().join("payments-ci"), "p-secret").expect("write the token");
        member.start();
        is_ready(&member).await;
        team.members.push(member);
    }
    let leader = team.leader().await;
    let (leader, standby) = (&team.members[leader], &team.members[1 - leader]);
    let http = reqwest::Client::new();
    let post = |member: &Member, path: &str| {
        http.post(format!("{}/api/v1/{path}", member.url())).json(&json!({ "reason": "stocktaking" }))
    };
    for member in [leader, standby] {
        for (path, expected) in [
            ("schedules/pay/pause", 200),
            ("schedules/pay/resume", 200),
            ("schedules/search/pause", 403),
            ("adopt", 403),
            ("config/reload", 403),
        ] {
            let answer = post(member, path).bearer_auth("p-secret").send().await.expect("an answer");
            let (status, problem) = (answer.status().as_u16(), answer.text().await.expect("a body"));
            assert_eq!(status, expected, "{path}: {problem}");
            assert!(expected == 200 || problem.contains("bound to the team") || problem.contains("admin"), "{problem}");
        }
    }
    // Who passes a request on vouches for nobody.
    let forged = post(leader, "schedules/pay/pause").header("flowkeeper-forwarded-by", "a member");
    assert_eq!(forged.send().await.expect("an answer").status(), 401);

    let audit = http.get(format!("{}/api/v1/audit", leader.url())).bearer_auth("p-secret").send().await;
    let audit: Value = audit.expect("an answer").json().await.expect("JSON");
    let entries = audit["items"].as_array().expect("entries");
    assert_eq!(entries.len(), 4, "two by way of each member: {audit}");
    assert!(entries.iter().all(|entry| entry["actor"] == "payments-ci" && entry["target"] == "pay"), "{audit}");
    let forwarded =
        entries.iter().filter(|entry| entry["source"].as_str().is_some_and(|from| from.contains("by way of")));
    assert_eq!(forwarded.count(), 2, "{audit}");

    // Teams come and go with the definitions, while tokens stay: without its team, one acts on nothing.
    for member in [leader, standby] {
        let path = member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&path).expect("its configuration");
        let without = text.replace("[team.payments]\ndags = [\"tick\"]\n", "");
        assert_ne!(text, without);
        std::fs::write(&path, without).expect("a written configuration");
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = post(standby, "schedules/pay/pause").bearer_auth("p-secret").send().await.expect("an answer");
        if answer.status() == 403 {
            let problem = answer.text().await.expect("a body");
            assert!(problem.contains("have no [team.payments]"), "{problem}");
            break;
        }
        assert!(Instant::now() < end, "the team is still there\n{}", leader.logged());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

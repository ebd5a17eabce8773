//! Definitions and several members: which of them leads with what, what a standby does, and who may do it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::definitions::{Cluster, said, yearly};
use crate::reload::{save, until};
use crate::support::process::Member;
use crate::support::team::{PATIENCE, TICK, Team, all_accepted, is_leading, is_ready, leads};

fn main_file(member: &Member) -> (std::path::PathBuf, String) {
    let path = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&path).expect("the main file");
    (path, text)
}

/// Waits until the list of members is as wanted.
async fn members_are(member: &Member, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let list = member.get("members").await.unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if wanted(&items) {
            return items;
        }
        assert!(Instant::now() < end, "{what}: {list:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ends the leader when what came due is accepted, and compares its rows with Airflow.
async fn at_the_end(team: &mut Team, leader: usize) {
    all_accepted(&team.members[leader]).await;
    for index in (0..team.members.len()).filter(|index| *index != leader).chain([leader]) {
        assert_eq!(team.members[index].stop().await, Some(0), "{}", team.members[index].logged());
    }
    let runs = team.members[leader].runs().await;
    team.nothing_lost_nothing_twice(&runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_take_the_newest_set_gives_way_to_a_member_that_can() {
    let mut team = Team::start(2, TICK).await;
    let before = team.leader().await;
    let (old, new) = (&team.members[before], &team.members[1 - before]);
    let ((path, good), (other_path, other)) = (main_file(old), main_file(new));
    let more = "[[schedule]]\nname = \"more\"\ncron = \"0 0 1 1 *\"\ndag = \"load\"\n";

    // As when a file needs a secret that one host does not have.
    let lacks = "[airflow.second]\nurl = \"http://127.0.0.1:1\"\nauth = { token = { file = \"second\" } }\n";
    let more = more.replace("dag =", "airflow = \"main\"\ndag =") + lacks;
    let tick = |text: &str| text.replace("dag = \"tick\"", "airflow = \"main\"\ndag = \"tick\"");
    save(&new.path().join("second"), "there");
    save(&other_path, &(tick(&other) + &more));
    save(&path, &(tick(&good) + &more));
    let began = Instant::now();
    leads(new, true).await;
    println!("another member leads {:?} after the file was saved", began.elapsed());
    leads(old, false).await;
    assert!(began.elapsed() >= Duration::from_secs(5), "a bad file first gets the time to reach everybody");
    assert!(old.logged().contains("leaves the lead to members that can take the newest definitions"));

    let items = members_are(new, "a warning", |items| items.iter().any(|item| item["warning"].is_string())).await;
    assert_eq!((&items[0]["url"], &items[0]["role"]), (&json!(new.url()), &json!("leader")));
    assert_eq!((&items[0]["refuses"], &items[0]["warning"]), (&Value::Null, &Value::Null));
    assert_eq!((&items[0]["schedules"], &items[1]["schedules"]), (&json!(2), &json!(1)));
    let (refuses, warning) = (items[1]["refuses"].as_str(), items[1]["warning"].as_str());
    assert!(refuses.is_some_and(|why| why.contains("second")), "{items:#?}");
    assert!(warning.is_some_and(|why| why.contains("it runs the definitions")), "{items:#?}");
    let metrics = [old.text("metrics").await.expect("metrics"), new.text("metrics").await.expect("metrics")];
    assert!(metrics[0].contains("flowkeeper_definitions_refused 1\n"), "{}", metrics[0]);
    assert!(metrics[1].contains("flowkeeper_definitions_refused 0\n"), "{}", metrics[1]);
    assert!(metrics[1].contains("flowkeeper_members_out_of_step 1\n"), "{}", metrics[1]);
    for member in [old, new] {
        let page = reqwest::get(member.url()).await.expect("a page").text().await.expect("text");
        let id = items[1]["id"].as_str().expect("an id");
        assert!(page.contains(&format!("{id} is out of step")) && page.contains("second"), "{page}");
    }
    let shown = new.json(&["members"]).await;
    assert_eq!(shown[1]["refuses"], items[1]["refuses"], "{shown}");

    // With what it lacked it is in step again, and the lead stays where it is.
    save(&old.path().join("second"), "there as well");
    old.post("config/reload", &json!({ "reason": "the secret is there" })).await;
    members_are(new, "in step", |items| {
        items.iter().all(|item| item["refuses"].is_null() && item["warning"].is_null() && item["lag_ms"] == 0)
    })
    .await;
    assert!(is_leading(new).await && !is_leading(old).await);
    at_the_end(&mut team, 1 - before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_all_members_refuse_the_newest_set_the_leader_stays() {
    let mut team = Team::start(2, TICK).await;
    let leader = team.leader().await;
    for member in &team.members {
        let (path, text) = main_file(member);
        save(&path, &text.replace("cron =", "corn ="));
    }
    for member in &team.members {
        until(member, "a refusal", |config| !config["refused"].is_null()).await;
    }
    members_are(&team.members[leader], "both are known to refuse", |items| {
        items.len() == 2 && items.iter().all(|item| item["refuses"].is_string() && item["warning"].is_null())
    })
    .await;
    // Longer than a leader that others could follow would stay.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(is_leading(&team.members[leader]).await);
    assert_eq!(team.members[leader].get("members").await.expect("members")["items"][0]["epoch"], 1);
    at_the_end(&mut team, leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_of_a_standby_about_definitions_is_done_and_audited() {
    let mut cluster = Cluster::start(2).await;
    let leader = usize::from(!is_leading(cluster.first()).await);
    let standby = &cluster.members[1 - leader];
    assert!(is_leading(&cluster.members[leader]).await);
    let file = cluster.write("d.toml", &yearly("a"));
    let first = standby.json(&["config", "push", &file, "-m", "the first"]).await;
    assert_eq!((&first["changed"], &first["schedules"]), (&json!(true), &json!(1)));
    cluster.agree(&["a"]).await;
    let file = cluster.write("d.toml", &(yearly("a") + &yearly("b")));
    let diff = standby.json(&["config", "diff", &file]).await;
    assert_eq!((&diff[0]["change"], &diff[0]["name"]), (&json!("added"), &json!("b")), "{diff}");
    standby.json(&["config", "push", &file, "--force"]).await;
    cluster.agree(&["a", "b"]).await;
    let history = standby.json(&["config", "history"]).await;
    let told: Vec<_> =
        history.as_array().expect("a list").iter().map(|entry| (&entry["number"], &entry["message"])).collect();
    assert_eq!(told, [(&json!(2), &Value::Null), (&json!(1), &json!("the first"))]);
    let listed = standby.get("config/history").await.expect("an answer");
    assert_eq!(listed["items"], history, "the API says the same");
    let back = standby.json(&["config", "rollback", "1", "-m", "b was too early"]).await;
    assert_eq!(back["version"], first["version"]);
    cluster.agree(&["a"]).await;
    let unknown = standby.run(&["config", "rollback", "77"]).await;
    assert!(said(&unknown).contains("the history has none"), "{}", said(&unknown));

    // Each member reads its own definitions again; the leader has the audit.
    let reload = |member: &Member| {
        let request = reqwest::Client::new().post(format!("{}/api/v1/config/reload", member.url()));
        request.json(&json!({ "reason": "to be sure" }))
    };
    let answer = reload(standby).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!((&answer["version"], &answer["version_before"]), (&first["version"], &first["version"]));
    let audit = standby.json(&["audit"]).await;
    let told: Vec<_> =
        audit.as_array().expect("a list").iter().map(|entry| (&entry["action"], &entry["reason"])).collect();
    let expected = [
        (json!("reload"), json!("to be sure")),
        (json!("config rollback"), json!("b was too early")),
        (json!("config push"), Value::Null),
        (json!("config push"), json!("the first")),
    ];
    assert_eq!(told, expected.iter().map(|(action, reason)| (action, reason)).collect::<Vec<_>>());
    let port = standby.url().rsplit(':').next().expect("a port").to_owned();
    for entry in audit.as_array().expect("a list") {
        let source = entry["source"].as_str().expect("a source");
        assert!(source.contains("by way of") && source.contains(&port), "{entry}");
    }

    // Where nobody leads it is done all the same, and the log says that the audit lacks it.
    cluster.members[leader].kill();
    let standby = &cluster.members[1 - leader];
    let answer = reload(standby).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(standby.logged().contains("the audit has no line of it"), "{}", standby.logged());
    leads(standby, true).await;
    assert_eq!(reload(standby).send().await.expect("an answer").status(), 200);
    let audit = standby.json(&["audit"]).await;
    assert_eq!((audit.as_array().map(Vec::len), &audit[0]["source"]), (Some(5), &json!("127.0.0.1")), "{audit}");
}

/// Tokens by the name of their role; the last is bound to a team.
const TOKENS: &str = r#"
[[server.token]]
name = "reader"
value = { file = "read" }
role = "read"

[[server.token]]
name = "operator"
value = { file = "operate" }
role = "operate"

[[server.token]]
name = "root"
value = { file = "admin" }
role = "admin"

[[server.token]]
name = "payments-ci"
value = { file = "team" }
role = "operate"
team = "payments"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_read_and_change_definitions_whichever_member_is_asked() {
    let mut cluster = Cluster::start(0).await;
    for _ in 0..2 {
        let mut member = cluster.member_by_way_of(&cluster.zookeeper.connect(), TOKENS);
        for role in ["read", "operate", "admin", "team"] {
            save(&member.path().join(role), &format!("{role}-secret"));
        }
        member.start();
        is_ready(&member).await;
        cluster.members.push(member);
    }
    leads(cluster.first(), true).await;
    let http = reqwest::Client::new();
    let ask = async |member: &Member, token: Option<&str>, method: Method, path: &str, body: &Value| {
        let mut request = http.request(method.clone(), format!("{}/api/v1/{path}", member.url()));
        if let Some(token) = token {
            request = request.bearer_auth(format!("{token}-secret"));
        }
        if method != Method::GET {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let team = "[team.payments]\ndags = [\"tick\"]\n";
    let set = |name: &str| {
        let text = cluster.airflow_section() + team + &yearly(name);
        json!({ "documents": [{ "name": "d.toml", "text": text }], "force": true })
    };
    let (status, pushed) = ask(cluster.first(), Some("admin"), Method::PUT, "config/definitions", &set("a")).await;
    assert_eq!(status, 200, "{pushed}");
    let in_force = pushed["version"].clone();
    let end = Instant::now() + PATIENCE;
    while ask(cluster.first(), Some("admin"), Method::GET, "config/history/1", &Value::Null).await.0 != 200 {
        assert!(Instant::now() < end, "it is not in the history\n{}", cluster.first().logged());
    }

    // What follows without a token, and for read, operate, admin, and operate that is bound to a team.
    let everybody = [401, 200, 200, 200, 200];
    let administrators = [401, 403, 403, 200, 403];
    let (nothing, again) = (json!({}), json!({ "version": "1" }));
    let note = json!({ "outcome": "read again" });
    // What is refused is another set than the one in force; what is done changes nothing.
    let (other, same) = (set("b"), set("a"));
    let cases = [
        (Method::GET, "config", &nothing, everybody),
        (Method::GET, "config/history", &nothing, everybody),
        (Method::GET, "config/history/1", &nothing, administrators),
        (Method::GET, "config/definitions", &nothing, administrators),
        (Method::PUT, "config/definitions", &other, administrators),
        (Method::POST, "config/rollback", &again, administrators),
        (Method::POST, "config/reload", &nothing, administrators),
        (Method::POST, "config/reload/note", &note, administrators),
    ];
    for member in &cluster.members {
        for (method, path, body, expected) in &cases {
            let tokens = [None, Some("read"), Some("operate"), Some("admin"), Some("team")];
            for (token, expected) in tokens.into_iter().zip(expected) {
                let body = if *method == Method::PUT && token == Some("admin") { &same } else { *body };
                let (status, answer) = ask(member, token, method.clone(), path, body).await;
                assert_eq!(status, *expected, "{method} {path} with {token:?}: {answer}");
                if status == 403 {
                    let detail = answer["detail"].as_str().unwrap_or_default();
                    assert!(detail.contains("admin") && answer["hint"].is_string(), "{answer}");
                    assert!(!answer.to_string().contains("secret"), "{answer}");
                }
            }
        }
    }
    let (_, config) = ask(cluster.first(), Some("read"), Method::GET, "config", &Value::Null).await;
    assert_eq!(config["in_force"]["version"], in_force, "nothing that was refused was done");
    let (_, audit) = ask(cluster.first(), Some("read"), Method::GET, "audit", &Value::Null).await;
    let entries = audit["items"].as_array().expect("entries");
    assert!(entries.iter().all(|entry| entry["actor"] == "root"), "{audit}");
    let count = |action: &str| entries.iter().filter(|entry| entry["action"] == action).count();
    assert_eq!(
        (count("config push"), count("config rollback")),
        (1, 0),
        "what was there already is no change: {audit}"
    );
    assert_eq!(count("reload"), 4, "two by each member: {audit}");
    assert!(!cluster.members.iter().any(|member| member.logged().contains("-secret")));
}

//! The health of ensembles over the API: who may ask, what is told, and how often servers are bothered.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::member::{Member, NOW};

const NOBODY: &str = "http://127.0.0.1:1";

/// A token for reading, and an ensemble where nobody answers.
const READER: &str = r#"
[[server.token]]
name = "airflow"
value = { env = "READ" }
role = "read"

[ensemble.gone]
connect = "127.0.0.1:1"
admin = "off"
"#;

/// How often an ensemble was inspected in this process.
async fn inspections(member: &Member, ensemble: &str) -> u32 {
    let metrics = member.send(member.request(Method::GET, "/metrics")).await.text;
    let series = format!("flowkeeper_ensemble_inspection_seconds_count{{ensemble=\"{ensemble}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_check_runs_on_the_member_that_is_asked_for_whoever_may_read() {
    let member = Member::start_with(READER, NOBODY).await;
    member.lead.send_replace(None);
    let run = |path: &str| {
        let path = format!("/api/v1/ensembles/{path}/run");
        member.request(Method::POST, &path).bearer_auth("r-secret").json(&json!({}))
    };
    let answer = member.send(run("gone/checks/serving")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let found = answer.json();
    assert_eq!((&found["ensemble"], &found["verdict"]), (&json!("gone"), &json!("critical")));
    assert_eq!(found["checked_at"], NOW.replace('Z', ".000000Z"));
    assert!(found["took_ms"].as_u64().is_some_and(|took| took >= 2000), "two samples are two seconds apart: {found}");
    let checks = found["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), 1, "{found}");
    assert_eq!((&checks[0]["check"], &checks[0]["server"]), (&json!("serving"), &json!("127.0.0.1:1")));
    assert!(checks[0]["meaning"].is_string() && checks[0]["remedy"].is_string(), "{found}");
    let fields: Vec<&String> = checks[0].as_object().expect("a finding").keys().collect();
    assert_eq!(fields, ["check", "server", "verdict", "value", "unit", "threshold", "meaning", "remedy"]);

    // Several, all, and the home ensemble, which nobody gave a name.
    let (several, all, home) = tokio::join!(
        member.send(run("gone/checks/quorum,canary")),
        member.send(run("gone/checks/all")),
        member.send(run("home/checks/quorum")),
    );
    let count = |found: &Value| found["checks"].as_array().map(Vec::len);
    assert_eq!((count(&several.json()), count(&all.json())), (Some(2), Some(26)));
    assert_eq!(home.json()["ensemble"], "home");

    for (path, detail, hint) in [
        ("solr/checks/quorum", "the ensemble `solr`", "there are: gone, home"),
        ("gon/checks/quorum", "the ensemble `gon`", "did you mean `gone`?"),
        ("gone/checks/ruok", "the check `ruok`", "there are serving, commands, leader,"),
    ] {
        let answer = member.send(run(path)).await;
        let problem = answer.json();
        assert_eq!((answer.status, answer.content_type.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
        let has = |field: &str, text: &str| problem[field].as_str().is_some_and(|told| told.contains(text));
        assert!(has("detail", detail) && has("hint", hint), "{path}: {problem}");
    }

    // What a page of another site sends, and one without a token.
    let page = member.send(run("gone/checks/quorum").header("origin", "https://evil.example")).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let form = member.request(Method::POST, "/api/v1/ensembles/gone/checks/quorum/run").bearer_auth("r-secret");
    assert_eq!(
        member.send(form.header("content-type", "text/plain").body("{}")).await.status,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let stranger = member.post("/api/v1/ensembles/gone/checks/quorum/run", &json!({})).await;
    assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    let acting = member.request(Method::POST, "/api/v1/schedules/hourly-load/pause").bearer_auth("r-secret");
    assert_eq!(member.send(acting.json(&json!({}))).await.status, StatusCode::FORBIDDEN, "only looking is allowed");
    member.stop().await;
}

#[tokio::test]
async fn all_tasks_of_a_dag_cost_two_inspections() {
    let member = Member::start_with("\n[ensemble.asked]\nconnect = \"127.0.0.1:1\"\nadmin = \"off\"\n", NOBODY).await;
    let checks = member.post("/api/v1/ensembles/asked/checks/all/run", &json!({})).await.json();
    let checks: Vec<&str> =
        checks["checks"].as_array().expect("checks").iter().filter_map(|it| it["check"].as_str()).collect();
    assert_eq!((checks.len(), inspections(&member, "asked").await), (26, 1));
    let asking = checks.iter().map(async |check| {
        let path = format!("/api/v1/ensembles/asked/checks/{check}/run");
        let found = member.post(&path, &json!({})).await.json();
        assert_eq!(found["checks"][0]["check"], *check, "{found}");
    });
    join_all(asking).await;
    assert_eq!(inspections(&member, "asked").await, 3);
    member.stop().await;
}

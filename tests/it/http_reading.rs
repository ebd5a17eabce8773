//! The API as it is read: every endpoint, paging, problems, and the description of itself.

use std::collections::BTreeSet;

use flowkeeper::domain::run::{AirflowState, RunState};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::member::{Answer, Member, at, dag_run_id, name};

/// Every route, with a request that it can answer.
const ROUTES: &[(&str, &str)] = &[
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/api/v1/schedules"),
    ("get", "/api/v1/schedules/{name}"),
    ("get", "/api/v1/schedules/{name}/next"),
    ("post", "/api/v1/schedules/{name}/trigger"),
    ("post", "/api/v1/schedules/{name}/pause"),
    ("post", "/api/v1/schedules/{name}/resume"),
    ("post", "/api/v1/schedules/{name}/backfill"),
    ("get", "/api/v1/runs"),
    ("get", "/api/v1/runs/{id}"),
    ("post", "/api/v1/runs/{id}/retry"),
    ("post", "/api/v1/runs/{id}/cancel"),
    ("get", "/api/v1/dag-runs"),
    ("get", "/api/v1/ensembles"),
    ("get", "/api/v1/ensembles/{name}"),
    ("get", "/api/v1/ensembles/{name}/checks"),
    ("post", "/api/v1/ensembles/{name}/checks/{check}/run"),
    ("get", "/api/v1/ensembles/{name}/ephemerals"),
    ("get", "/api/v1/ensembles/{name}/history"),
    ("get", "/api/v1/ensembles/{name}/transitions"),
    ("get", "/api/v1/locks"),
    ("get", "/api/v1/members"),
    ("get", "/api/v1/airflow"),
    ("get", "/api/v1/config"),
    ("get", "/api/v1/config/definitions"),
    ("put", "/api/v1/config/definitions"),
    ("get", "/api/v1/config/history"),
    ("get", "/api/v1/config/history/{version}"),
    ("post", "/api/v1/config/reload"),
    ("post", "/api/v1/config/reload/note"),
    ("post", "/api/v1/config/rollback"),
    ("get", "/api/v1/sync"),
    ("post", "/api/v1/sync/{name}/apply"),
    ("get", "/api/v1/adopt"),
    ("post", "/api/v1/adopt"),
    ("get", "/api/v1/stats"),
    ("get", "/api/v1/audit"),
    ("get", "/api/v1/events"),
];

#[tokio::test]
async fn schedules_show_configuration_ledger_and_member_together() {
    let member = Member::start().await;
    member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    member.see(&dag_run_id("2026-11-22T11:00:00Z"), AirflowState::Success).await;
    member.status.set_armed(&name("hourly-load"), true);

    let list = member.get("/api/v1/schedules").await.json();
    let names: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["hourly-load", "nightly", "on-flag"]);
    assert_eq!(list["next_cursor"], Value::Null);

    let hourly = member.get("/api/v1/schedules/hourly-load").await.json();
    assert_eq!(hourly, list["items"][0]);
    assert_eq!(hourly["trigger"], json!({"kind": "cron", "cron": "0 * * * *", "timezone": "Europe/Berlin"}));
    assert_eq!(hourly["next_time"], "2026-11-22T13:00:00.000000Z");
    assert_eq!((&hourly["armed"], &hourly["paused"], &hourly["pause"]), (&json!(true), &json!(false), &Value::Null));
    assert_eq!(hourly["last_run"]["state"], "success");
    assert_eq!(
        (&hourly["owner"], &hourly["airflow"], &hourly["dag_id"]),
        (&json!("payments"), &json!("main"), &json!("load"))
    );

    let nightly = &list["items"][1];
    assert_eq!((&nightly["paused"], &nightly["pause"]["by"]), (&json!(true), &json!("configuration")));
    assert_eq!((&nightly["next_time"], &nightly["last_run"]), (&Value::Null, &Value::Null));
    let flag = &list["items"][2];
    assert_eq!(flag["trigger"]["kind"], "znode");
    assert_eq!((&flag["trigger"]["path"], &flag["armed"]), (&json!("/data/ready"), &json!(false)));

    assert_eq!(flag["trouble"], Value::Null);
    member.status.set_trouble(&name("on-flag"), Some("/data/ready cannot be read".to_owned()));
    assert_eq!(member.get("/api/v1/schedules/on-flag").await.json()["trouble"], "/data/ready cannot be read");

    let page = member.get("/api/v1/schedules?limit=2").await.json();
    assert_eq!(page["next_cursor"], "nightly");
    let rest = member.get("/api/v1/schedules?limit=2&cursor=nightly").await.json();
    assert_eq!((rest["items"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &Value::Null));
    member.stop().await;
}

#[tokio::test]
async fn next_times_tell_of_clock_changes() {
    let member = Member::start().await;
    let path = "/api/v1/schedules/nightly/next?limit=2&from=2027-03-27T12:00:00Z";
    let next = member.get(path).await.json();
    assert_eq!(
        next["items"],
        json!([
            {"nominal_time": "2027-03-28T01:30:00.000000Z", "local": "2027-03-28T03:30:00", "dst": "gap"},
            {"nominal_time": "2027-03-29T00:30:00.000000Z", "local": "2027-03-29T02:30:00", "dst": null},
        ])
    );
    member.stop().await;
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_page_by_page() {
    let member = Member::start().await;
    for hour in 0..10 {
        let state = if hour % 2 == 0 { RunState::Pending } else { RunState::Skipped };
        member.record(&format!("2026-11-22T0{hour}:00:00Z"), state).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/runs?limit=3".to_owned();
    loop {
        let page = member.get(&path).await.json();
        seen.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|run| run["due_at"].as_str().expect("a time").to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/runs?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    let expected: Vec<_> = (0..10).rev().map(|hour| format!("2026-11-22T0{hour}:00:00.000000Z")).collect();
    assert_eq!(seen, expected);

    let count = async |query: &str| {
        let page = member.get(&format!("/api/v1/runs?{query}")).await.json();
        page["items"].as_array().map(Vec::len).expect("items")
    };
    assert_eq!(count("state=skipped").await, 5);
    assert_eq!(count("state=skipped,pending").await, 10);
    assert_eq!(count("schedule=hourly-load&dag=load&owner=payments").await, 10);
    assert_eq!(count("owner=nobody").await, 0);
    assert_eq!(count("since=2026-11-22T03:00:00Z&until=2026-11-22T05:00:00Z").await, 2);
    assert_eq!(count("since=2026-11-22T04:00:00%2B01:00&until=2026-11-22T05:00:00Z").await, 2);
    member.stop().await;
}

#[tokio::test]
async fn one_run_is_found_by_number_and_by_identity() {
    let member = Member::start().await;
    let id = member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    let identity = dag_run_id("2026-11-22T11:00:00Z");
    member.see(&identity, AirflowState::Success).await;
    let by_number = member.get(&format!("/api/v1/runs/{id}")).await.json();
    let by_identity = member.get(&format!("/api/v1/runs/{identity}")).await.json();
    assert_eq!(by_number, by_identity);
    assert_eq!(by_number["state"], "success");
    assert_eq!(by_number["conf"], json!({"hour": "12"}));
    assert!(by_number["timeline"].as_array().is_some_and(|moves| !moves.is_empty()));
    for field in [
        "id",
        "schedule",
        "owner",
        "airflow",
        "dag_id",
        "dag_run_id",
        "trigger",
        "nominal_time",
        "recorded_at",
        "submitted_at",
        "accepted_at",
        "started_at",
        "ended_at",
        "state",
        "reason",
        "coalesced",
        "reopened",
        "conf",
        "attempts",
        "lateness_ms",
        "duration_ms",
    ] {
        assert!(by_number.get(field).is_some(), "no `{field}` in {by_number}");
    }
    for step in ["record", "submit", "queue"] {
        assert!(by_number["lateness_ms"].get(step).is_some(), "no `{step}`");
    }
    assert_eq!(by_number["duration_ms"], 185_000);
    member.stop().await;
}

#[tokio::test]
async fn monitored_dag_runs_statistics_and_probes_answer() {
    let member = Member::start().await;
    member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    member.see(&dag_run_id("2026-11-22T11:00:00Z"), AirflowState::Success).await;
    member.see("manual__by-somebody-else", AirflowState::Running).await;

    let dag_runs = member.get("/api/v1/dag-runs?dag=load&state=running").await.json();
    assert_eq!(dag_runs["items"][0]["dag_run_id"], "manual__by-somebody-else");
    let stats = member.get("/api/v1/stats?by=owner").await.json();
    assert_eq!((&stats["items"][0]["group"], &stats["items"][0]["states"]["success"]), (&json!("payments"), &json!(1)));
    assert_eq!(member.get("/api/v1/audit").await.json(), json!({"items": [], "next_cursor": null}));

    assert_eq!(member.get("/healthz").await.json()["status"], "ok");
    assert_eq!(member.get("/readyz").await.json(), json!({"status": "ready", "leader": true}));
    member.status.set_leading(false);
    assert_eq!(member.get("/readyz").await.json()["leader"], false, "a standby is ready as well");
    let metrics = member.get("/metrics").await;
    assert!(metrics.content_type.starts_with("text/plain"));
    assert!(
        metrics.text.contains("flowkeeper_http_requests_total{route=\"/api/v1/stats\",method=\"GET\",status=\"200\"}")
    );
    member.stop().await;
}

/// What is asked, and the status, the kind and a word of the detail that it is answered with.
fn assert_problem(answer: &Answer, status: StatusCode, kind: &str, detail: &str) {
    let problem = answer.json();
    assert_eq!(answer.status, status, "{problem}");
    assert_eq!(answer.content_type, "application/problem+json", "{problem}");
    assert_eq!(problem["type"], format!("urn:flowkeeper:problem:{kind}"), "{problem}");
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "no {detail:?} in {problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "no hint in {problem}");
}

#[tokio::test]
async fn every_mistake_is_answered_with_a_problem() {
    let member = Member::start().await;
    let cases = [
        ("/api/v1/runs?limit=0", StatusCode::BAD_REQUEST, "invalid-request", "limit=0"),
        ("/api/v1/runs?limit=1001", StatusCode::BAD_REQUEST, "invalid-request", "1 to 1000"),
        ("/api/v1/runs?limit=many", StatusCode::BAD_REQUEST, "invalid-request", "limit"),
        ("/api/v1/runs?stat=failed", StatusCode::BAD_REQUEST, "invalid-request", "stat"),
        ("/api/v1/runs?state=done", StatusCode::BAD_REQUEST, "invalid-request", "done"),
        ("/api/v1/runs?since=yesterday", StatusCode::BAD_REQUEST, "invalid-request", "yesterday"),
        ("/api/v1/runs?cursor=nonsense", StatusCode::BAD_REQUEST, "invalid-request", "nonsense"),
        ("/api/v1/audit?cursor=x", StatusCode::BAD_REQUEST, "invalid-request", "cursor"),
        ("/api/v1/stats?by=colour", StatusCode::BAD_REQUEST, "invalid-request", "colour"),
        ("/api/v1/schedules/%FF", StatusCode::BAD_REQUEST, "invalid-request", "path"),
        ("/api/v1/schedules/hourly-loud", StatusCode::NOT_FOUND, "not-found", "hourly-loud"),
        ("/api/v1/schedules/on-flag/next", StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "not cron"),
        ("/api/v1/runs/4711", StatusCode::NOT_FOUND, "not-found", "4711"),
        ("/api/v2/runs", StatusCode::NOT_FOUND, "not-found", "/api/v2/runs"),
    ];
    for (path, status, kind, detail) in cases {
        assert_problem(&member.get(path).await, status, kind, detail);
    }
    let hint = member.get("/api/v1/schedules/hourly-loud").await.json()["hint"].clone();
    assert_eq!(hint, "did you mean `hourly-load`?");
    let deleted = member.send(member.request(Method::DELETE, "/api/v1/runs").json(&json!({}))).await;
    assert_problem(&deleted, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "DELETE");

    let trigger = "/api/v1/schedules/hourly-load/trigger";
    let send = async |body: Vec<u8>, content_type: &str| {
        member.send(member.request(Method::POST, trigger).header("content-type", content_type).body(body)).await
    };
    let json_type = "application/json";
    assert_problem(&send(b"{".to_vec(), json_type).await, StatusCode::BAD_REQUEST, "invalid-request", "EOF");
    assert_problem(&send(b"\xff\x00".to_vec(), json_type).await, StatusCode::BAD_REQUEST, "invalid-request", "body");
    assert_problem(&send(b"".to_vec(), json_type).await, StatusCode::BAD_REQUEST, "invalid-request", "key");
    let misspelt = br#"{"key": "k", "config": {}}"#.to_vec();
    assert_problem(&send(misspelt, json_type).await, StatusCode::BAD_REQUEST, "invalid-request", "config");
    let list = br#"{"key": "k", "conf": []}"#.to_vec();
    assert_problem(&send(list, json_type).await, StatusCode::BAD_REQUEST, "invalid-request", "map");
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_problem(&send(large, json_type).await, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "too large");
    let form = b"key=k".to_vec();
    let unsupported = send(form, "application/x-www-form-urlencoded").await;
    assert_problem(&unsupported, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "not JSON");

    member.lead.send_replace(None);
    let standby = member.post(trigger, &json!({"key": "k"})).await;
    assert_problem(&standby, StatusCode::SERVICE_UNAVAILABLE, "unavailable", "does not lead");
    member.stop().await;
}

#[tokio::test]
async fn the_description_covers_every_route_and_nothing_else() {
    let member = Member::start().await;
    let answer = member.get("/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    let openapi = answer.json();
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let mut described = BTreeSet::new();
    for (path, item) in openapi["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            described.insert((method.clone(), path.clone()));
            assert!(
                operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()),
                "{method} {path}"
            );
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
        }
    }
    let expected: BTreeSet<_> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, expected);
    // Each described route is really there: whatever it says, it is not "no such path" or "no such method".
    for (method, path) in ROUTES.iter().filter(|(_, path)| !path.ends_with("/events")) {
        let path = path.replace("{name}", "hourly-load").replace("{id}", "4711").replace("{check}", "quorum");
        let method = method.to_uppercase().parse::<Method>().expect("a method");
        let answer = member.send(member.request(method.clone(), &path).json(&json!({}))).await;
        let detail =
            if answer.content_type.contains("problem") { answer.json()["detail"].to_string() } else { String::new() };
        assert!(!detail.contains("no such path") && !detail.contains("other methods"), "{method} {path}: {detail}");
    }
    assert_references_resolve(&openapi, &openapi);
    member.stop().await;
}

fn assert_references_resolve(value: &Value, root: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(root.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|field| assert_references_resolve(field, root));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_references_resolve(item, root)),
        _ => {}
    }
}

#[tokio::test]
async fn answers_are_not_cached_and_not_sniffed() {
    let member = Member::start().await;
    let response = member.request(Method::GET, "/api/v1/runs").send().await.expect("an answer");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(member.clock.now(), at("2026-11-22T12:00:00Z"));
    member.stop().await;
}

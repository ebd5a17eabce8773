//! Who may call the API: tokens and their roles, and pages of other sites.

use std::sync::Arc;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::{Covered, NewRun};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::member::{Member, at, dag_run_id, nominal_run};

const TOKENS: &str = r#"
[[server.token]]
name = "dashboard"
value = { env = "READ" }
role = "read"

[[server.token]]
name = "ci"
value = { env = "OPERATE" }
role = "operate"

[[server.token]]
name = "root"
value = { env = "ADMIN" }
role = "admin"
"#;

#[tokio::test]
async fn each_token_may_do_what_its_role_says() {
    let member = Member::start_with(TOKENS, "http://127.0.0.1:1").await;
    let (ok, unauthenticated, forbidden) = (StatusCode::OK, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
    // Token, reading, acting, metrics.
    let matrix = [
        (None, unauthenticated, unauthenticated, unauthenticated),
        (Some("wrong"), unauthenticated, unauthenticated, unauthenticated),
        (Some("r-secret"), ok, forbidden, ok),
        (Some("o-secret"), ok, ok, ok),
        (Some("a-secret"), ok, ok, ok),
        (Some("r-secre"), unauthenticated, unauthenticated, unauthenticated),
        (Some(""), unauthenticated, unauthenticated, unauthenticated),
    ];
    for (token, reading, acting, metrics) in matrix {
        let with = |method, path| {
            let request = member.request(method, path);
            match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            }
        };
        assert_eq!(member.send(with(Method::GET, "/api/v1/runs")).await.status, reading, "{token:?} reads");
        let resume = with(Method::POST, "/api/v1/schedules/hourly-load/resume").json(&json!({}));
        assert_eq!(member.send(resume).await.status, acting, "{token:?} acts");
        assert_eq!(member.send(with(Method::GET, "/metrics")).await.status, metrics, "{token:?} looks at metrics");
        for open in ["/healthz", "/readyz", "/openapi.json"] {
            assert_eq!(member.send(with(Method::GET, open)).await.status, ok, "{token:?} {open}");
        }
    }
    let refused = member.request(Method::GET, "/api/v1/runs").send().await.expect("an answer");
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    let text = member.send(member.request(Method::GET, "/api/v1/runs").bearer_auth("nearly-right")).await.text;
    assert!(!text.contains("nearly-right") && !text.contains("secret"), "{text}");
    member.stop().await;
}

#[tokio::test]
async fn what_a_token_does_is_audited_under_its_name() {
    let member = Member::start_with(TOKENS, "http://127.0.0.1:1").await;
    let pause = member
        .request(Method::POST, "/api/v1/schedules/hourly-load/pause")
        .bearer_auth("o-secret")
        .json(&json!({"reason": "the warehouse moves"}));
    assert_eq!(member.send(pause).await.status, StatusCode::OK);
    let audit = member.send(member.request(Method::GET, "/api/v1/audit").bearer_auth("r-secret")).await.json();
    let entry = &audit["items"][0];
    assert_eq!((&entry["actor"], &entry["source"]), (&json!("ci"), &json!("127.0.0.1")));
    assert_eq!((&entry["action"], &entry["target"]), (&json!("pause"), &json!("hourly-load")));
    assert_eq!(entry["reason"], "the warehouse moves");
    member.stop().await;
}

#[tokio::test]
async fn pages_of_other_sites_cannot_act_or_read() {
    let member = Member::start().await;
    let resume = || member.request(Method::POST, "/api/v1/schedules/hourly-load/resume");
    let own_origin = format!("http://{}", member.config.server.listen);
    let cases: [(&str, &str, StatusCode); 6] = [
        ("origin", "https://evil.example", StatusCode::FORBIDDEN),
        ("origin", "null", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-site", StatusCode::FORBIDDEN),
        ("origin", &own_origin, StatusCode::OK),
        ("sec-fetch-site", "same-origin", StatusCode::OK),
    ];
    for (header, value, expected) in cases {
        let answer = member.send(resume().header(header, value).json(&json!({}))).await;
        assert_eq!(answer.status, expected, "{header}: {value}: {}", answer.text);
    }
    // What a form of another site can send without asking the browser first.
    let form = member.send(resume().header("content-type", "text/plain").body("{}")).await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let bare = member.send(resume()).await;
    assert_eq!(bare.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    // A name that was made to point at this machine.
    for (host, expected) in [("evil.example", StatusCode::FORBIDDEN), ("localhost:1", StatusCode::OK)] {
        let read = member.send(member.request(Method::GET, "/api/v1/runs").header("host", host)).await;
        assert_eq!(read.status, expected, "{host}");
    }
    assert_eq!(member.get("/api/v1/audit").await.json()["items"], json!([]), "nothing was resumed, nothing audited");
    member.stop().await;
}

/// Two teams, a token that is bound to each, and one that is bound to none that exists. `hourly-load` is
/// owned by `payments`.
const TEAMS: &str = r#"
[[server.token]]
name = "payments-ci"
value = { env = "TEAM" }
role = "operate"
team = "payments"

[[server.token]]
name = "search-ci"
value = { env = "OPERATE" }
role = "operate"
team = "search"

[[server.token]]
name = "root"
value = { env = "ADMIN" }
role = "admin"

[team.payments]
dags = ["load", "payments_*"]

[team.search]
dags = ["search_*"]
"#;

#[tokio::test]
async fn a_token_of_a_team_acts_on_what_the_team_owns_and_reads_the_rest() {
    let member = Member::start_with(TEAMS, "http://127.0.0.1:1").await;
    let own = member.record("2026-11-22T11:00:00Z", RunState::Missed).await;
    let other = NewRun { owner: Some("search".into()), state: RunState::Missed, ..nominal_run("2026-11-22T10:00:00Z") };
    let other = member.record_run(other).await;
    let ask = async |token: &str, method: Method, path: &str, body: Value| {
        let request = member.request(method, path).bearer_auth(token);
        member.send(if body.is_null() { request } else { request.json(&body) }).await
    };
    let range = json!({ "from": "2026-11-22T11:00:00Z", "to": "2026-11-22T11:00:00Z", "dry_run": true });
    // Path, body, and what follows for payments, search and the administrator.
    let cases = [
        ("schedules/hourly-load/pause".to_owned(), json!({}), [200, 403, 200]),
        ("schedules/hourly-load/resume".to_owned(), json!({}), [200, 403, 200]),
        ("schedules/hourly-load/trigger".to_owned(), json!({ "key": "k" }), [202, 403, 202]),
        ("schedules/hourly-load/backfill".to_owned(), range, [200, 403, 200]),
        ("schedules/nightly/pause".to_owned(), json!({}), [403, 403, 200]),
        ("schedules/hourly-lod/pause".to_owned(), json!({}), [404, 404, 404]),
        (format!("runs/{own}/retry"), json!({}), [202, 403, 202]),
        (format!("runs/{own}/cancel"), json!({}), [202, 403, 409]),
        // Its schedule has another owner by now.
        (format!("runs/{other}/retry"), json!({}), [403, 403, 202]),
        ("adopt".to_owned(), json!({ "decision": "ignore" }), [403, 403, 404]),
        ("config/reload".to_owned(), json!({}), [403, 403, 0]),
    ];
    for (path, body, expected) in cases {
        for (token, expected) in ["t-secret", "o-secret", "a-secret"].into_iter().zip(expected) {
            if expected != 0 {
                let answer = ask(token, Method::POST, &format!("/api/v1/{path}"), body.clone()).await;
                assert_eq!(answer.status.as_u16(), expected, "{token} {path}: {}", answer.text);
            }
        }
    }
    for path in ["schedules/nightly", "runs", "audit", "locks", "members"] {
        let answer = ask("o-secret", Method::GET, &format!("/api/v1/{path}"), Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
    }
    let problem = ask("o-secret", Method::POST, "/api/v1/schedules/hourly-load/pause", json!({})).await.json();
    assert_eq!(
        (&problem["detail"], &problem["hint"]),
        (
            &json!(
                "failed to pause `hourly-load`: the token `search-ci` is bound to the team `search`, and the owner is \
                 `payments`"
            ),
            &json!("use a token of the owner's team, or one without `team`")
        )
    );
    let problem = ask("t-secret", Method::POST, "/api/v1/adopt", json!({ "decision": "ignore" })).await.json();
    assert_eq!(
        problem["detail"],
        "failed to admit POST /api/v1/adopt: the token `payments-ci` is bound to the team `payments`, and this concerns \
         all teams"
    );
    let audit = member.ledger.audit(1000, None).await.expect("an audit").items;
    assert!(audit.iter().any(|entry| entry.action == "pause" && entry.actor == "payments-ci"), "{audit:#?}");
    assert!(audit.iter().all(|entry| entry.actor != "search-ci"), "what was refused was not done: {audit:#?}");
    member.stop().await;
}

#[tokio::test]
async fn a_token_of_a_team_backfills_nothing_that_was_recorded_for_another() {
    let member = Member::start_with(TEAMS, "http://127.0.0.1:1").await;
    // `hourly-load` belonged to `search`, and ran a DAG of theirs.
    let hour = |hour: u8| format!("2026-11-22T{hour:02}:00:00Z");
    let theirs = |time: u8, state| NewRun {
        owner: Some("search".into()),
        dag_id: "search_index".into(),
        state,
        ..nominal_run(&hour(time))
    };
    let covers = Some(Covered { from: at(&hour(0)), to: at(&hour(5)), count: 6 });
    member.record_run(NewRun { covers, ..theirs(5, RunState::Missed) }).await;
    member.record_run(theirs(6, RunState::Skipped)).await;
    member.record_run(theirs(7, RunState::Missed)).await;
    member.record(&hour(9), RunState::Skipped).await;
    let backfill = async |token: &str, (from, to): (u8, u8), dry_run: bool| {
        let body = json!({ "from": hour(from), "to": hour(to), "dry_run": dry_run });
        let request = member.request(Method::POST, "/api/v1/schedules/hourly-load/backfill").bearer_auth(token);
        member.send(request.json(&body)).await
    };
    let (ok, forbidden) = (StatusCode::OK, StatusCode::FORBIDDEN);
    // The range, and what follows for payments and search.
    let cases = [
        ((2, 3), [forbidden, forbidden]), // A part of a row that covers several.
        ((0, 5), [forbidden, forbidden]),
        ((6, 6), [forbidden, forbidden]),
        ((7, 7), [forbidden, forbidden]),
        ((7, 9), [forbidden, forbidden]), // Theirs, what was never recorded, and our own.
        ((8, 9), [ok, forbidden]),
    ];
    for (range, expected) in cases {
        for (token, expected) in ["t-secret", "o-secret"].into_iter().zip(expected) {
            for dry_run in [true, false] {
                let answer = backfill(token, range, dry_run).await;
                assert_eq!(answer.status, expected, "{token} {range:?} {dry_run}: {}", answer.text);
            }
        }
    }
    let problem = backfill("t-secret", (7, 7), false).await.json();
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.ends_with("is bound to the team `payments`, and the owner is `search`"), "{detail}");
    let run = async |time: u8| member.ledger.run(&dag_run_id(&hour(time))).await.expect("a look");
    for time in [5, 6, 7] {
        let run = run(time).await.expect("a row");
        assert!(!run.state.is_open() && run.owner.as_deref() == Some("search"), "it is as it was: {run:?}");
    }
    assert!(run(2).await.is_none() && run(3).await.is_none(), "nothing was split");

    // Who may act on both sends them where the schedule runs now, and they are of its owner.
    assert_eq!(backfill("a-secret", (2, 7), false).await.status, ok);
    for time in 2..=7 {
        let run = run(time).await.expect("a row");
        assert_eq!(
            (run.state, run.owner.as_deref(), &*run.dag_id, run.conf),
            (RunState::Pending, Some("payments"), "load", json!({ "hour": format!("{:02}", time + 1) }))
        );
    }
    let rest = run(1).await.expect("a row");
    assert_eq!((rest.state, rest.owner.as_deref(), &*rest.dag_id), (RunState::Missed, Some("search"), "search_index"));
    member.stop().await;
}

#[tokio::test]
async fn when_its_team_vanishes_a_token_acts_on_nothing() {
    let member = Member::start_with(TEAMS, "http://127.0.0.1:1").await;
    let pause = async || {
        let request = member.request(Method::POST, "/api/v1/schedules/hourly-load/pause").bearer_auth("t-secret");
        member.send(request.json(&json!({}))).await
    };
    assert_eq!(pause().await.status, StatusCode::OK);
    let before = member.teams.send_replace(Arc::default());
    let refused = pause().await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.json()["hint"],
        "bring [team.payments] back into the definitions, or use a token without `team`"
    );
    let reading = member.request(Method::GET, "/api/v1/schedules").bearer_auth("t-secret");
    assert_eq!(member.send(reading).await.status, StatusCode::OK);
    member.teams.send_replace(before);
    assert_eq!(pause().await.status, StatusCode::OK);
    member.stop().await;
}

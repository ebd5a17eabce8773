//! Who may call the API: tokens and their roles, and pages of other sites.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::member::Member;

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

//! The health of ensembles over the API: who may ask, what is told, and how often servers are bothered.

use std::process::{Command, Stdio};

use flowkeeper::clock::Clock;
use flowkeeper::domain::ensemble::{Condition, EnsembleEvent, Happening, Standing, Transition};
use flowkeeper::domain::health::{Check, Finding, Report, ServerState, ServerView, Verdict};
use flowkeeper::store::model::{HealthRecord, Recording};
use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::member::{Member, NOW, at};

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

/// A report on the ensemble `gone` as a leader would have written it.
fn report(serving: Verdict) -> Report {
    let server = Some("127.0.0.1:1");
    let quorum = Finding::told(Check::Quorum, None, Verdict::Ok, "1 of 1 voting servers works.").counting(1.0);
    let mut report =
        Report::new("gone".into(), vec![Finding::told(Check::Serving, server, serving, "It says so itself."), quorum]);
    let state = if serving == Verdict::Ok { ServerState::Up } else { ServerState::Down };
    report.servers = vec![ServerView { server: "127.0.0.1:1".into(), state }];
    report.leader = Some("127.0.0.1:1".into());
    report
}

/// Writes reports into the member's ledger, the last of which also tells of a transition.
async fn looks(member: &Member, reports: &[(Timestamp, Verdict)]) {
    for ((at, serving), revision) in reports.iter().zip(0..) {
        let transition = Transition {
            ensemble: "gone".into(),
            at: *at,
            events: vec![Happening { event: EnsembleEvent::Degraded, server: None, count: 1 }],
            before: Condition::Healthy,
            after: Condition::Degraded,
            leader_before: None,
            leader_after: Some("127.0.0.1:1".into()),
            servers: report(*serving).servers,
            failing: report(*serving).checks,
        };
        let record = HealthRecord {
            report: report(*serving),
            at: *at,
            expected_revision: revision,
            standing: Standing::default(),
            recounts: Vec::new(),
            transition: (revision + 1 == i64::try_from(reports.len()).expect("few")).then_some(transition),
            recording: Recording::default(),
        };
        let written = member.ledger.record_health(&member.leadership, &record).await.expect("a commit");
        assert_eq!(written, Some(revision + 1));
    }
}

const GONE: &str = "\n[ensemble.gone]\nconnect = \"127.0.0.1:1\"\nadmin = \"off\"\ninterval = \"20s\"\n\
                    [ensemble.gone.thresholds]\nlatency = { warn = 7 }\n";

#[tokio::test]
async fn what_was_found_last_is_read_from_the_ledger_and_says_how_old_it_is() {
    let member = Member::start_with(GONE, NOBODY).await;
    let never = member.get("/api/v1/ensembles/gone").await.json();
    assert_eq!((&never["verdict"], &never["stale"], &never["checks"]), (&json!(null), &json!(true), &json!([])));

    looks(&member, &[(at("2026-11-22T11:59:00Z"), Verdict::Ok), (at("2026-11-22T11:59:30Z"), Verdict::Critical)]).await;
    member.lead.send_replace(None);
    let list = member.get("/api/v1/ensembles").await.json();
    let names: Vec<&Value> = list["items"].as_array().expect("items").iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["gone", "home"]);
    let (gone, home) = (&list["items"][0], &list["items"][1]);
    assert_eq!(
        *gone,
        json!({
            "name": "gone", "home": false, "connect": "127.0.0.1:1", "interval_ms": 20_000, "verdict": "critical",
            "checked_at": "2026-11-22T11:59:30.000000Z", "age_ms": 30_000, "stale": false,
            "leader": "127.0.0.1:1", "quorum": null,
            "servers": [{"server": "127.0.0.1:1", "state": "down", "verdict": "critical"}],
        })
    );
    assert_eq!((&home["home"], &home["verdict"], &home["stale"]), (&json!(true), &json!(null), &json!(true)));

    let one = member.get("/api/v1/ensembles/gone").await.json();
    assert_eq!((&one["verdict"], &one["checks"][0]["check"]), (&json!("critical"), &json!("serving")));
    assert_eq!(one["transitions"][0]["events"][0]["event"], "degraded");
    member.clock.advance(jiff::SignedDuration::from_secs(31));
    assert_eq!(member.get("/api/v1/ensembles/gone").await.json()["stale"], true);

    let checks = member.get("/api/v1/ensembles/gone/checks").await.json();
    let of = |name: &str| {
        let items = checks["items"].as_array().expect("items");
        items.iter().find(|item| item["check"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!((checks["items"].as_array().map(Vec::len), &checks["stale"]), (Some(26), &json!(true)));
    assert_eq!((&of("serving")["verdict"], &of("serving")["scope"]), (&json!("critical"), &json!("server")));
    assert_eq!(of("serving")["findings"][0]["meaning"], "It says so itself.");
    assert_eq!((&of("latency")["threshold"]["warn"], &of("latency")["findings"]), (&json!(7), &json!([])));
    assert!(of("fsync")["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
    member.stop().await;
}

#[tokio::test]
async fn the_history_is_read_in_pages() {
    let member = Member::start_with(GONE, NOBODY).await;
    let minutes = ["10:00", "10:01", "10:02", "10:03"].map(|minute| at(&format!("2026-11-22T{minute}:00Z")));
    let verdicts = [Verdict::Critical, Verdict::Ok, Verdict::Ok, Verdict::Warning];
    looks(&member, &minutes.into_iter().zip(verdicts).collect::<Vec<_>>()).await;
    let changes = async |query: &str| {
        let page = member.get(&format!("/api/v1/ensembles/gone/history?{query}")).await.json();
        let change = |one: &Value| format!("{} {} {}", one["at"], one["before"], one["after"]).replace('"', "");
        let items: Vec<String> = page["items"].as_array().expect("items").iter().map(change).collect();
        (items, page["next_cursor"].as_str().map(ToOwned::to_owned))
    };
    let expected = [
        "2026-11-22T10:03:00.000000Z ok warning",
        "2026-11-22T10:01:00.000000Z critical ok",
        "2026-11-22T10:00:00.000000Z null critical",
    ];
    let (first, cursor) = changes("limit=2").await;
    assert_eq!(first, expected[..2]);
    let (rest, end) = changes(&format!("limit=2&cursor={}", cursor.expect("more"))).await;
    assert_eq!(rest, expected[2..]);
    assert_eq!(end, None);
    assert_eq!(changes("check=serving&server=127.0.0.1:1&since=2026-11-22T10:02:00Z").await.0, expected[..1]);
    assert_eq!(changes("check=quorum").await.0, Vec::<String>::new());
    let transitions = member.get("/api/v1/ensembles/gone/transitions").await.json();
    assert_eq!((&transitions["items"][0]["after"], &transitions["next_cursor"]), (&json!("degraded"), &json!(null)));

    for (path, status, detail) in [
        ("solr", StatusCode::NOT_FOUND, "`solr`"),
        ("solr/checks", StatusCode::NOT_FOUND, "`solr`"),
        ("solr/history", StatusCode::NOT_FOUND, "`solr`"),
        ("solr/transitions", StatusCode::NOT_FOUND, "`solr`"),
        ("gone/history?check=ruok", StatusCode::NOT_FOUND, "`ruok`"),
        ("gone/history?since=yesterday", StatusCode::BAD_REQUEST, "yesterday"),
        ("gone/history?cursor=x", StatusCode::BAD_REQUEST, "cursor"),
        ("gone/transitions?limit=0", StatusCode::BAD_REQUEST, "limit=0"),
    ] {
        let answer = member.get(&format!("/api/v1/ensembles/{path}")).await;
        let problem = answer.json();
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|told| told.contains(detail)), "{path}: {problem}");
        assert!(problem["hint"].is_string(), "{path}: {problem}");
    }
    member.stop().await;
}

#[tokio::test]
async fn the_command_shows_what_was_found_before() {
    let member = Member::start_with(GONE, NOBODY).await;
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
        command.env_clear().env("AIRFLOW_TOKEN", "airflow-secret").arg("-c").arg(member.configuration());
        command.args(["--timezone", "UTC", "health", "gone"]).args(arguments).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, stderr) = run(&["--last"]).await;
    assert_eq!(code, Some(3));
    assert!(stderr.contains("no member has looked at it yet") && stderr.contains("hint: "), "{stderr}");
    assert_eq!(run(&["--history"]).await, (Some(0), String::new(), "nothing has changed\n".into()));

    let now = Clock::system().now();
    let before = now - jiff::SignedDuration::from_mins(10);
    looks(&member, &[(before, Verdict::Ok), (now, Verdict::Critical)]).await;
    let (code, stdout, _) = run(&["--last"]).await;
    assert_eq!(code, Some(2), "{stdout}");
    assert!(stdout.starts_with("gone: critical, found at ") && !stdout.contains("nobody has looked"), "{stdout}");
    let (code, stdout, _) = run(&["--last", "--check", "quorum", "--brief"]).await;
    assert_eq!((code, stdout.lines().next()), (Some(0), Some("OK gone: 1 findings | 'quorum'=1")), "{stdout}");
    let (_, stdout, _) = run(&["--history"]).await;
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout}");
    assert!(lines[1].contains("serving") && lines[1].contains("ok") && lines[1].contains("critical"), "{stdout}");
    assert_eq!(run(&["--history", "--check", "quorum,canary"]).await.2, "nothing has changed\n");

    // A leader that is gone says nothing of now.
    looks_again(&member, now - jiff::SignedDuration::from_hours(1)).await;
    let (code, stdout, _) = run(&["--last", "--brief"]).await;
    assert_eq!(code, Some(3), "{stdout}");
    assert!(stdout.starts_with("UNKNOWN gone: nobody has looked for 36"), "{stdout}");
    let (code, stdout, _) = run(&["--last"]).await;
    assert_eq!(code, Some(3), "{stdout}");
    assert!(stdout.contains("nobody has looked since"), "{stdout}");
    member.stop().await;
}

/// A third look, with nothing else.
async fn looks_again(member: &Member, at: Timestamp) {
    let record = HealthRecord {
        report: report(Verdict::Ok),
        at,
        expected_revision: 2,
        standing: Standing::default(),
        recounts: Vec::new(),
        transition: None,
        recording: Recording::default(),
    };
    member.ledger.record_health(&member.leadership, &record).await.expect("a commit").expect("the revision");
}

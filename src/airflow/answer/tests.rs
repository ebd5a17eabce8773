//! The table of answers: each line is something that a real Airflow, or what stands before it, said.

use proptest::prelude::*;

use super::*;
use crate::secret::Secret;

const RUN: &str = "flowkeeper__s__z1-00";

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }
}

fn word(verdict: &PostVerdict) -> &'static str {
    match verdict {
        PostVerdict::Accepted(_) => "accepted",
        PostVerdict::Conflict => "conflict",
        PostVerdict::DagMissing(_) => "dag missing",
        PostVerdict::Rejected(_) => "rejected",
        PostVerdict::Unauthorized(_) => "unauthorized",
        PostVerdict::Throttled { .. } => "throttled",
        PostVerdict::WrongApi(_) => "wrong api",
        PostVerdict::Unknown { .. } => "unknown",
    }
}

#[test]
fn every_answer_to_a_new_dag_run_has_a_meaning() {
    let run = format!(r#"{{"dag_id":"d","dag_run_id":"{RUN}","state":"queued"}}"#);
    let odd_state = format!(r#"{{"dag_id":"d","dag_run_id":"{RUN}","state":"frozen"}}"#);
    let truncated = &run[..run.len() - 4];
    let cases = [
        // Accepted, only with the DAG run that was asked for.
        (200, run.as_str(), "accepted"),
        (201, run.as_str(), "accepted"),
        (200, odd_state.as_str(), "accepted"),
        (200, r#"{"dag_id":"d","dag_run_id":"other","state":"queued"}"#, "unknown"),
        (200, "{}", "unknown"),
        (200, truncated, "unknown"),
        (200, r#"{"dag_id":"d","dag_run_id":7,"state":[]}"#, "unknown"),
        (200, "<!DOCTYPE html><title>Welcome</title>", "unknown"),
        (200, "", "unknown"),
        (204, "", "unknown"),
        // A login page, or http where https is wanted.
        (302, "", "unauthorized"),
        (307, "", "unauthorized"),
        // Both versions, in their own words.
        (400, r#"{"detail":"Dag with dag_id: 'd' has import errors and cannot be triggered"}"#, "dag missing"),
        (
            400,
            r#"{"detail":"DAG with dag_id: 'd' has import errors","title":"DAG cannot be triggered","status":400}"#,
            "dag missing",
        ),
        (400, r#"{"detail":"Invalid input for param n: 'x' is not of type 'integer'"}"#, "rejected"),
        (400, r#"{"detail":"Dag with dag_id: 'd' does not allow manual runs"}"#, "rejected"),
        (400, r#"{"detail":"'None' is not an instance of 'str'","title":"Incorrect datetime argument"}"#, "rejected"),
        (400, "<html>400 The plain HTTP request was sent to HTTPS port</html>", "unknown"),
        (422, r#"{"detail":[{"loc":["body","conf"],"msg":"Input should be a valid dictionary"}]}"#, "rejected"),
        (422, "nope", "unknown"),
        (401, r#"{"detail":"Not authenticated"}"#, "unauthorized"),
        (403, r#"{"detail":"Invalid JWT token"}"#, "unauthorized"),
        (403, r#"{"detail":null,"status":403,"title":"Forbidden"}"#, "unauthorized"),
        (403, "<html>", "unauthorized"),
        (404, r#"{"detail":"Dag with dag_id: 'd' not found"}"#, "dag missing"),
        (404, r#"{"detail":"The Dag with ID: `d` was not found"}"#, "dag missing"),
        (404, r#"{"detail":"DAG with dag_id: 'd' not found","title":"DAG not found"}"#, "dag missing"),
        (404, r#"{"error":"/api/v1 has been removed in Airflow 3, please use /api/v2 instead."}"#, "wrong api"),
        (404, r#"{"error":"API route not found"}"#, "wrong api"),
        (404, r#"{"detail":"The requested URL was not found on the server.","title":"Not Found"}"#, "wrong api"),
        (404, "<html><title>Airflow 404</title>", "wrong api"),
        (405, r#"{"detail":"Method Not Allowed"}"#, "wrong api"),
        (409, r#"{"detail":{"reason":"Unique constraint violation"}}"#, "conflict"),
        (409, r#"{"detail":"DAGRun with DAG ID: 'd' and DAGRun ID: 'r' already exists"}"#, "conflict"),
        (413, "<html>", "rejected"),
        (429, "", "throttled"),
        (408, "", "unknown"),
        (500, r#"{"detail":"Internal Server Error"}"#, "unknown"),
        (500, "<h1> Ooops! </h1>", "unknown"),
        (502, "<html>", "unknown"),
        (503, "", "unknown"),
        (504, "", "unknown"),
        (599, "", "unknown"),
        (100, "", "unknown"),
    ];
    for (status, body, expected) in cases {
        let verdict = classify_post(&answer(status, body), RUN, Timestamp::UNIX_EPOCH);
        assert_eq!(word(&verdict), expected, "{status} {body}: {verdict:?}");
    }
}

#[test]
fn reading_is_classified_too() {
    let cases = [
        (200, "{}", "Done"),
        (204, "", "Done"),
        (302, "", "Unauthorized"),
        (403, "", "Unauthorized"),
        (404, r#"{"detail":"The DagRun with dag_id: `d` and run_id: `r` was not found"}"#, "Absent"),
        (
            404,
            r#"{"detail":"DAGRun with DAG ID: 'd' and DagRun ID: 'r' not found","title":"DAGRun not found"}"#,
            "Absent",
        ),
        // A proxy's 404 proves nothing about a DAG run.
        (404, "<html>not found</html>", "WrongApi"),
        (404, "", "WrongApi"),
        (404, r#"{"error":"API route not found"}"#, "WrongApi"),
        (400, r#"{"detail":"bad"}"#, "Refused"),
        (500, "", "Unknown"),
        (429, "", "Unknown"),
    ];
    for (status, body, expected) in cases {
        let verdict = format!("{:?}", classify(&answer(status, body)));
        assert!(verdict.starts_with(expected), "{status} {body}: {verdict}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now: Timestamp = "2026-11-22T14:59:00Z".parse().unwrap();
    let cases = [
        ("7", Some(7)),
        (" 120 ", Some(120)),
        ("Sun, 22 Nov 2026 14:59:28 GMT", Some(28)),
        ("Sun, 22 Nov 2026 14:00:00 GMT", Some(0)),
        ("999999999999", Some(3600)),
        ("99999999999999999999999", None),
        ("-3", None),
        ("soon", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text:?}");
    }
}

#[test]
fn a_redirect_shows_where_but_no_query() {
    let to = |location: &str| redirect(&Answer { status: 302, location: Some(location.into()), ..Answer::default() });
    assert_eq!(to("/login?next=secret"), "302: redirected to a login page (/login)");
    assert_eq!(to("https://host/"), "302: redirected to another address (https://host/)");
    assert_eq!(to("/login;jsessionid=secret?a=b"), "302: redirected to a login page (/login)");
    assert_eq!(to("https://me:se@cret@host/sso"), "302: redirected to a login page (https://host/sso)");
}

#[test]
fn what_airflow_was_told_is_shown_of_no_answer() {
    let redaction = Redaction::of(&[Secret::new("hunt\"er2"), Secret::new("eyJ.abc")]);
    let said = r#"{"detail":"no hunt\"er2 here: {\"a\": \"hunt\\\"er2\"}","title":"Bearer eyJ.abc"}"#;
    let page = "<pre>Authorization: Bearer eyJ.abc</pre><pre>hunt%22er2";
    for status in [200, 302, 400, 401, 403, 404, 409, 418, 422, 429, 500] {
        for body in [said, page, "{\"detail\": {\"of\": \"hunt\\\"er2\"}}"] {
            let location = Some("https://host/eyJ.abc/login".to_owned());
            let answer = Answer { location, redaction: redaction.clone(), ..answer(status, body) };
            let verdicts = (classify_post(&answer, RUN, Timestamp::UNIX_EPOCH), classify(&answer));
            let told = format!("{verdicts:?}");
            assert!(!told.contains("er2") && !told.contains("eyJ"), "{status} {body}: {told}");
        }
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_classification_panic(
        status in any::<u16>(),
        body in proptest::collection::vec(any::<u8>(), 0..300),
        header in ".{0,60}",
    ) {
        let answer = Answer {
            status,
            retry_after: Some(header.clone()),
            location: Some(header.clone()),
            date: Some(header.clone()),
            body,
            redaction: Redaction::default(),
        };
        let _ = http_date(&header);
        let verdict = classify_post(&answer, RUN, Timestamp::UNIX_EPOCH);
        // Arbitrary bytes are never proof.
        prop_assert!(!matches!(verdict, PostVerdict::Accepted(_) | PostVerdict::DagMissing(_)));
        prop_assert!(!matches!(classify(&answer), Verdict::Absent(_)));
    }
}

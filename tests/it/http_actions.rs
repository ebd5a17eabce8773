//! What operators do over the API, and what the ledger and the audit hold afterwards.

use std::time::Duration;

use flowkeeper::domain::run::{AirflowState, RunState};
use flowkeeper::store::model::NewRun;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::member::{AIRFLOW_TOKEN, Member, NOW, at, dag_run_id, nominal_run};

const TRIGGER: &str = "/api/v1/schedules/hourly-load/trigger";
const BACKFILL: &str = "/api/v1/schedules/hourly-load/backfill";

async fn states(member: &Member) -> Vec<(String, String, i64)> {
    let runs = member.get("/api/v1/runs?limit=1000").await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = runs["items"].as_array().expect("items").iter().rev();
    rows.map(|run| (text(&run["due_at"]), text(&run["state"]), run["count"].as_i64().expect("a count"))).collect()
}

#[tokio::test]
async fn the_same_key_is_the_same_run() {
    let member = Member::start().await;
    let first = member.post(TRIGGER, &json!({"key": "release-1.2", "conf": {"a": 1}})).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let run = first.json();
    assert_eq!(run["dag_run_id"], "flowkeeper__hourly-load__mrelease-1.2");
    assert_eq!((&run["state"], &run["trigger"], &run["conf"]), (&json!("pending"), &json!("manual"), &json!({"a": 1})));
    let again = member.post(TRIGGER, &json!({"key": "release-1.2", "conf": {"a": 1}})).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::ACCEPTED, &run["id"]));

    let other = member.post(TRIGGER, &json!({"key": "release-1.2", "conf": {"a": 2}})).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text);
    assert!(other.json()["detail"].as_str().is_some_and(|detail| detail.contains("another conf")));
    assert_eq!(member.actions().await, ["trigger hourly-load"], "what changed nothing is not audited");
    member.stop().await;
}

#[tokio::test]
async fn a_repeated_trigger_means_the_conf_of_its_first_time() {
    let member = Member::start().await;
    let first = member.post(TRIGGER, &json!({"key": "k"})).await.json();
    // 12:00 in UTC is 13:00 in the schedule's zone.
    assert_eq!(first["conf"], json!({"hour": "13"}));
    member.clock.advance(jiff::SignedDuration::from_hours(2));
    let again = member.post(TRIGGER, &json!({"key": "k"})).await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::ACCEPTED, &first["id"]), "{}", again.text);
    member.stop().await;
}

#[tokio::test]
async fn requests_that_arrive_together_with_one_key_are_one_run() {
    let member = Member::start().await;
    let body = json!({"key": "together"});
    let (a, b, c) = tokio::join!(member.post(TRIGGER, &body), member.post(TRIGGER, &body), member.post(TRIGGER, &body));
    for answer in [&a, &b, &c] {
        assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::ACCEPTED, &a.json()["id"]), "{}", answer.text);
    }
    assert_eq!(states(&member).await.len(), 1);
    assert_eq!(member.actions().await.len(), 1);
    member.stop().await;
}

#[tokio::test]
async fn triggers_that_cannot_be_are_refused() {
    let member = Member::start().await;
    let key = member.post(TRIGGER, &json!({"key": "no spaces"})).await;
    assert_eq!(key.status, StatusCode::BAD_REQUEST);
    // Its conf is made from a znode, and there is none by hand.
    let znode = member.post("/api/v1/schedules/on-flag/trigger", &json!({"key": "k"})).await;
    assert_eq!(znode.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", znode.text);
    assert!(znode.json()["hint"].as_str().is_some_and(|hint| hint.contains("--conf")));
    let own = member.post("/api/v1/schedules/on-flag/trigger", &json!({"key": "k", "conf": {}})).await;
    assert_eq!(own.status, StatusCode::ACCEPTED, "{}", own.text);
    let unknown = member.post("/api/v1/schedules/nobody/trigger", &json!({"key": "k"})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    member.stop().await;
}

#[tokio::test]
async fn a_pause_is_shown_and_ends_by_itself_or_by_hand() {
    let member = Member::start().await;
    let path = "/api/v1/schedules/hourly-load";
    let body = json!({"reason": "the warehouse moves", "until": "2026-11-22T14:30:00Z"});
    let paused = member.post(&format!("{path}/pause"), &body).await.json();
    assert_eq!(
        paused["pause"],
        json!({
            "by": "local", "reason": "the warehouse moves", "until": "2026-11-22T14:30:00.000000Z",
            "at": "2026-11-22T12:00:00.000000Z",
        })
    );
    assert_eq!((&paused["paused"], &paused["next_time"]), (&json!(true), &json!("2026-11-22T15:00:00.000000Z")));
    member.clock.advance(jiff::SignedDuration::from_hours(3));
    assert_eq!(member.get(path).await.json()["paused"], false, "its time is over");

    let past = member.post(&format!("{path}/pause"), &json!({"until": NOW})).await;
    assert_eq!(past.status, StatusCode::BAD_REQUEST);
    member.post(&format!("{path}/pause"), &json!({})).await;
    assert_eq!(member.get(path).await.json()["next_time"], Value::Null);
    let resumed = member.post(&format!("{path}/resume"), &json!({})).await.json();
    assert_eq!((&resumed["paused"], &resumed["pause"]), (&json!(false), &Value::Null));
    assert_eq!(member.actions().await, ["pause hourly-load", "pause hourly-load", "resume hourly-load"]);
    member.stop().await;
}

#[tokio::test]
async fn a_backfill_runs_what_did_not_run_and_splits_what_was_merged() {
    let member = Member::start().await;
    member.move_cursor(NOW).await;
    member.record_missed("2026-11-22T00:00:00Z", "2026-11-22T05:00:00Z", 6).await;
    member.record("2026-11-22T06:00:00Z", RunState::Skipped).await;
    member.record("2026-11-22T07:00:00Z", RunState::Pending).await;
    member.see(&dag_run_id("2026-11-22T07:00:00Z"), AirflowState::Success).await;
    member.record("2026-11-22T08:00:00Z", RunState::Pending).await;
    let range = json!({"from": "2026-11-22T02:00:00Z", "to": "2026-11-22T09:00:00Z"});

    let mut dry = range.clone();
    dry["dry_run"] = json!(true);
    let plan = member.post(BACKFILL, &dry).await.json();
    let planned: Vec<_> = plan["items"].as_array().expect("items").iter().map(|item| item["action"].clone()).collect();
    assert_eq!(planned, ["reopen", "reopen", "reopen", "reopen", "reopen", "leave", "leave", "record"]);
    assert_eq!((&plan["remaining"], &plan["next_from"]), (&json!(0), &Value::Null));
    assert_eq!(states(&member).await.len(), 4, "a dry run changes nothing");
    assert!(member.actions().await.is_empty());

    let done = member.post(BACKFILL, &range).await.json();
    assert_eq!(done["counts"], json!({"leave": 2, "record": 1, "reopen": 5}));
    let row = |hour: &str, state: &str, count| (format!("2026-11-22T{hour}:00:00.000000Z"), state.to_owned(), count);
    let expected = [
        row("01", "missed", 2),
        row("02", "pending", 1),
        row("03", "pending", 1),
        row("04", "pending", 1),
        row("05", "pending", 1),
        row("06", "pending", 1),
        row("07", "success", 1),
        row("08", "pending", 1),
        row("09", "pending", 1),
    ];
    assert_eq!(states(&member).await, expected);
    let again = member.post(BACKFILL, &range).await.json();
    assert_eq!(again["counts"], json!({"leave": 8}), "repeating it does nothing");
    assert_eq!(member.actions().await, ["backfill hourly-load"]);
    let run = member.get(&format!("/api/v1/runs/{}", dag_run_id("2026-11-22T05:00:00Z"))).await.json();
    assert_eq!(run["conf"], json!({"hour": "06"}), "rendered for its own time");
    member.stop().await;
}

#[tokio::test]
async fn a_backfill_clears_no_run_that_went_well_meanwhile() {
    let mut world = World::default().with_dags(["load"]);
    world.tokens.insert(AIRFLOW_TOKEN.to_owned());
    // Each request takes long enough for somebody else.
    world.latency = Duration::from_secs(4);
    let fake = FakeAirflow::start(world).await;
    let member = Member::start_with("", &fake.url()).await;
    member.move_cursor(NOW).await;
    let [first, second] = ["2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"].map(dag_run_id);
    for (time, id) in [("2026-11-22T10:00:00Z", &first), ("2026-11-22T11:00:00Z", &second)] {
        member.record(time, RunState::Pending).await;
        fake.world().create("load", id, None).expect("free");
        fake.world().set_state("load", id, State::Failed);
        member.see(id, AirflowState::Failed).await;
    }
    let range = json!({"from": "2026-11-22T10:00:00Z", "to": "2026-11-22T11:00:00Z", "failed": true});
    let meanwhile = async {
        while fake.world().counts.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        member.see(&second, AirflowState::Success).await;
    };
    let (done, ()) = tokio::join!(member.post(BACKFILL, &range), meanwhile);
    assert_eq!(done.json()["counts"], json!({"clear": 2}), "as it was planned: {}", done.text);
    let state = |id: &str| fake.world().run("load", id).map(|run| run.state);
    assert_eq!((state(&first), state(&second)), (Some(State::Queued), Some(State::Failed)), "one was cleared");
    member.stop().await;
}

#[tokio::test]
async fn a_long_backfill_is_done_in_parts_and_stops_at_the_cursor() {
    let member = Member::start().await;
    // The cursor was set when the member began, and no trigger has moved it since.
    member.clock.advance(jiff::SignedDuration::from_hours(3));
    let mut body = json!({"from": "2026-11-22T02:00:00Z", "to": "2026-11-22T15:00:00Z", "limit": 4});
    let mut parts = Vec::new();
    loop {
        let part = member.post(BACKFILL, &body).await.json();
        parts.push((part["items"].as_array().map_or(0, Vec::len), part["remaining"].as_u64()));
        assert_eq!(part["to"], "2026-11-22T12:00:00.000000Z", "what is due later is the trigger's");
        match &part["next_from"] {
            Value::Null => break,
            next => body["from"] = next.clone(),
        }
    }
    assert_eq!(parts, [(4, Some(7)), (4, Some(3)), (3, Some(0))]);
    assert_eq!(states(&member).await.len(), 11);
    member.stop().await;
}

#[tokio::test]
async fn backfills_that_make_no_sense_are_refused() {
    let member = Member::start().await;
    let backwards = member.post(BACKFILL, &json!({"from": NOW, "to": "2026-11-21T00:00:00Z"})).await;
    assert_eq!(backwards.status, StatusCode::BAD_REQUEST);
    let znode = member.post("/api/v1/schedules/on-flag/backfill", &json!({"from": NOW, "to": NOW})).await;
    assert_eq!(znode.status, StatusCode::UNPROCESSABLE_ENTITY);
    let future = member.post(BACKFILL, &json!({"from": "2027-01-01T00:00:00Z", "to": "2027-01-02T00:00:00Z"})).await;
    assert_eq!((future.status, &future.json()["items"]), (StatusCode::OK, &json!([])));
    member.stop().await;
}

#[tokio::test]
async fn what_never_ran_is_retried_and_what_is_open_is_not() {
    let member = Member::start().await;
    let skipped = member.record("2026-11-22T10:00:00Z", RunState::Skipped).await;
    let retried = member.post(&format!("/api/v1/runs/{skipped}/retry"), &json!({"reason": "needed after all"})).await;
    assert_eq!(retried.status, StatusCode::ACCEPTED, "{}", retried.text);
    let run = retried.json();
    assert_eq!(
        (&run["state"], &run["reason"], &run["conf"]),
        (&json!("pending"), &Value::Null, &json!({"hour": "11"}))
    );
    let pending = member.post(&format!("/api/v1/runs/{skipped}/retry"), &json!({})).await;
    assert_eq!(pending.status, StatusCode::ACCEPTED, "a pending run is tried at once: {}", pending.text);

    member.see(&dag_run_id("2026-11-22T10:00:00Z"), AirflowState::Running).await;
    let running = member.post(&format!("/api/v1/runs/{skipped}/retry"), &json!({})).await;
    assert_eq!(running.status, StatusCode::CONFLICT, "{}", running.text);
    member.see(&dag_run_id("2026-11-22T10:00:00Z"), AirflowState::Success).await;
    let success = member.post(&format!("/api/v1/runs/{skipped}/retry"), &json!({})).await;
    assert_eq!(success.status, StatusCode::CONFLICT);

    let merged = member.record_missed("2026-11-22T00:00:00Z", "2026-11-22T05:00:00Z", 6).await;
    let answer = member.post(&format!("/api/v1/runs/{merged}/retry"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.json()["hint"].as_str().is_some_and(|hint| hint.contains("flowkeeper backfill hourly-load")));
    let unknown = member.post("/api/v1/runs/4711/retry", &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    member.stop().await;
}

#[tokio::test]
async fn a_pending_run_is_cancelled_with_a_reason() {
    let member = Member::start().await;
    let id = member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    let cancelled = member.post(&format!("/api/v1/runs/{id}/cancel"), &json!({"reason": "wrong data"})).await.json();
    assert_eq!(
        (&cancelled["state"], &cancelled["reason"]),
        (&json!("skipped"), &json!("cancelled by local: wrong data"))
    );
    let again = member.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let audited = format!("cancel {}", dag_run_id("2026-11-22T11:00:00Z"));
    assert_eq!(member.actions().await, [audited]);
    member.stop().await;
}

#[tokio::test]
async fn an_airflow_that_cannot_be_reached_is_said_so() {
    let member = Member::start().await;
    let id = member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    member.see(&dag_run_id("2026-11-22T11:00:00Z"), AirflowState::Running).await;
    let answer = member.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text);
    assert_eq!(answer.json()["type"], "urn:flowkeeper:problem:airflow-unreachable");
    // A pending run does not need Airflow to be given up.
    let pending = member.record_run(NewRun { due_at: at(NOW), ..nominal_run("2026-11-22T12:00:00Z") }).await;
    let cancelled = member.post(&format!("/api/v1/runs/{pending}/cancel"), &json!({})).await;
    assert_eq!(cancelled.json()["state"], "skipped", "{}", cancelled.text);
    member.stop().await;
}

//! The same requests to a real Airflow 3, a real Airflow 2 and the fakes of both: what the client makes
//! of their answers must be alike, or stories told against the fake prove nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use flowkeeper::airflow::{Airflow, DagRun, RunQuery, Submission, SubmitOutcome, submit};
use flowkeeper::domain::component::{ComponentKind, Jobs};
use flowkeeper::domain::run::AirflowState;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::support::airflow::alone;
use crate::support::fake_airflow::{Dag, FakeAirflow, Version, World};
use crate::support::real_airflow::{RealAirflow, client};

/// A text that no earlier test run has used.
fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A logical date that no earlier test run has used: past, and after the start of the test DAGs, for
/// Airflow runs no task before that.
fn unique_date() -> Timestamp {
    let microseconds = i64::try_from(uuid::Uuid::new_v4().as_u128() % 100_000_000_000_000).expect("it fits");
    Timestamp::from_microsecond(1_610_000_000_000_000 + microseconds).expect("a time")
}

struct Sender {
    airflow: Airflow,
    store: String,
}

impl Sender {
    fn new(airflow: Airflow) -> Self {
        Self { airflow, store: unique() }
    }

    async fn send(&self, dag_id: &str, dag_run_id: &str, date: Option<Timestamp>, conf: &str) -> SubmitOutcome {
        let conf = RawValue::from_string(conf.to_owned()).expect("JSON");
        let note = format!("flowkeeper store {}\nschedule s", self.store);
        let submission = Submission {
            dag_id,
            dag_run_id,
            conf: &conf,
            logical_date: date,
            data_interval: date.map(|date| (date, date)),
            note: &note,
            store_id: &self.store,
            lookup_only: false,
        };
        submit(&self.airflow, &submission).await.outcome
    }

    async fn until(&self, dag_id: &str, dag_run_id: &str, state: AirflowState) -> DagRun {
        for _ in 0..240 {
            let run = self.airflow.find_run(dag_id, dag_run_id).await.expect("the DAG run is there");
            if run.state == Some(state) {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("{dag_run_id} of {dag_id} does not become {state:?}");
    }
}

/// What an outcome amounts to, without words that differ between versions.
fn essence(outcome: &SubmitOutcome) -> String {
    match outcome {
        SubmitOutcome::Accepted { http_status, .. } => format!("accepted {http_status}"),
        SubmitOutcome::Retry { http_status, proven_absent, .. } => format!("retry {http_status:?} {proven_absent}"),
        SubmitOutcome::Rejected { http_status, .. } => format!("rejected {http_status}"),
        SubmitOutcome::Unauthorized { http_status, .. } => format!("unauthorized {http_status:?}"),
        SubmitOutcome::DagMissing { http_status, .. } => format!("dag missing {http_status}"),
    }
}

/// One table of requests; what became of each.
async fn contract(url: &str, username: &str, password: &str) -> Vec<String> {
    let ours = Sender::new(client(url, username, password));
    let theirs = Sender::new(client(url, username, password));
    let (tail, date, date2) = (unique(), unique_date(), unique_date());
    let id = |name: &str| format!("flowkeeper__{name}__m{tail}");
    let (dag, conf) = ("fk_paused", r#"{"a":{"b":[1,"é"]}}"#);
    let mut seen = Vec::new();
    let mut note = |what: &str, outcome: &SubmitOutcome| seen.push(format!("{what}: {}", essence(outcome)));

    note("new", &ours.send(dag, &id("a"), Some(date), conf).await);
    note("again", &ours.send(dag, &id("a"), Some(date), conf).await);
    note("same id of another store", &theirs.send(dag, &id("a"), Some(date2), conf).await);
    let held = ours.send(dag, &id("b"), Some(date), conf).await;
    note("logical date held", &held);
    let SubmitOutcome::Rejected { reason, .. } = &held else { panic!("{held:?}") };
    assert!(reason.contains(&id("a")) && reason.contains(&date.to_string()), "{reason}");
    note("without a date", &ours.send(dag, &id("c"), None, conf).await);
    note("without a date, again", &ours.send(dag, &id("c"), None, conf).await);
    note("unknown DAG", &ours.send("fk_nosuch", &id("d"), Some(date), conf).await);
    note(
        "in the future",
        &ours
            .send(
                dag,
                &id("e"),
                Some(Timestamp::from_second(4_000_000_000).expect("a time") + (date - Timestamp::UNIX_EPOCH)),
                conf,
            )
            .await,
    );

    let airflow = &ours.airflow;
    let run = airflow.find_run(dag, &id("a")).await.expect("it is there");
    let told: serde_json::Value = serde_json::from_str(run.conf.expect("a conf").get()).expect("JSON");
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(conf).expect("JSON"));
    seen.push(format!("read: {:?} {} {:?}", run.state, run.logical_date == Some(date), run.run_type));
    seen.push(format!("absent: {}", airflow.find_run(dag, "nosuch").await.expect_err("there is none").is_absent()));
    seen.push(format!("absent in no DAG: {}", airflow.find_run("fk_nosuch", "x").await.expect_err("none").is_absent()));

    let since = airflow
        .server_date()
        .expect("a date header")
        .saturating_sub(jiff::SignedDuration::from_mins(1))
        .expect("a time");
    let recent =
        RunQuery { updated_since: Some(since), run_id_prefix: Some("flowkeeper__".into()), ..RunQuery::default() };
    seen.push(format!("changed of late: {}", listed(airflow, &recent, &tail).await));
    let later = RunQuery { updated_since: Timestamp::from_second(4_000_000_000).ok(), ..RunQuery::default() };
    seen.push(format!("changed in the future: {}", listed(airflow, &later, &tail).await));
    let queued = RunQuery {
        states: vec![AirflowState::Queued, AirflowState::Running],
        dag_ids: vec![dag.into(), "fk_empty".into()],
        ..RunQuery::default()
    };
    seen.push(format!("queued: {}", listed(airflow, &queued, &tail).await));

    airflow.fail_run(dag, &id("c")).await.expect("failed");
    seen.push(format!("failed: {:?}", airflow.find_run(dag, &id("c")).await.expect("there").state));
    airflow.set_note(dag, &id("c"), "hello").await.expect("noted");
    seen.push(format!("noted: {:?}", airflow.find_run(dag, &id("c")).await.expect("there").note));
    seen.push(format!("changed again: {}", listed(airflow, &recent, &tail).await));

    let among = [dag.to_owned()];
    let facts = airflow.list_dags(&among).await.expect("a list").into_iter().find(|facts| facts.dag_id == dag);
    seen.push(format!("DAG: {facts:?}"));
    seen.push(format!("no DAG: {}", airflow.dag_details("fk_nosuch").await.expect_err("none").is_absent()));
    airflow.import_errors().await.expect("a list");
    let health = airflow.health().await.expect("health");
    seen.push(format!(
        "health: {}",
        health.iter().any(|part| part.name == "metadatabase" && part.status.as_deref() == Some("healthy"))
    ));
    // What runs and what has never run, and which of it says when it has beaten. Triggerers come and go
    // in another story.
    let parts = health.iter().filter(|part| part.name != "triggerer");
    let mut parts: Vec<_> =
        parts.map(|part| format!("{} {:?} {}", part.name, part.status, part.heartbeat_at.is_some())).collect();
    parts.sort_unstable();
    seen.extend(parts);
    seen.push(match airflow.jobs().await.expect("jobs") {
        Jobs::Listed { jobs, since } => {
            let alive = jobs.iter().filter(|job| job.ended.is_none() && job.hostname.is_some());
            let started = alive.filter(|job| job.started_at.is_some() && job.kind != ComponentKind::Triggerer);
            let kinds: BTreeSet<_> = started.map(|job| job.kind.as_str()).collect();
            format!("jobs: {kinds:?} {since:?}")
        }
        other => format!("jobs: {other:?}"),
    });
    seen
}

/// How many DAG runs of this test a list shows, page by page.
async fn listed(airflow: &Airflow, query: &RunQuery, tail: &str) -> usize {
    let (mut offset, mut found) = (0, 0);
    loop {
        let page = airflow.list_runs(query, offset).await.expect("a page");
        found += page.runs.iter().filter(|run| run.dag_run_id.ends_with(tail)).count();
        offset += page.entries as u64;
        if page.entries == 0 || offset >= page.total {
            return found;
        }
    }
}

async fn compare(real: &RealAirflow, version: Version) {
    let mut world = World::new(version);
    world.dags.insert("fk_paused".into(), Dag { is_paused: true, ..Dag::default() });
    let fake = FakeAirflow::start(world).await;
    let (username, password) = real.login();
    let from_fake = contract(&fake.url(), "admin", "admin").await;
    let from_real = contract(&real.url(), &username, &password).await;
    assert_eq!(from_fake, from_real);
}

#[tokio::test]
async fn the_fake_answers_as_airflow_3_does() {
    let _alone = alone().await;
    compare(&RealAirflow::three(), Version::Three).await;
}

#[tokio::test]
async fn the_fake_answers_as_airflow_2_does() {
    let _alone = alone().await;
    compare(&RealAirflow::two(), Version::Two).await;
}

#[tokio::test]
async fn a_real_dag_run_succeeds_and_a_failed_one_succeeds_when_cleared() {
    let _alone = alone().await;
    for real in [RealAirflow::three(), RealAirflow::two()] {
        let sender = Sender::new(real.client());
        let tail = unique();
        let (good, cleared) = (format!("flowkeeper__good__m{tail}"), format!("flowkeeper__cleared__m{tail}"));
        for (dag, id) in [("fk_empty", &good), ("fk_fails_once", &cleared)] {
            let outcome = sender.send(dag, id, Some(unique_date()), "{}").await;
            assert!(matches!(outcome, SubmitOutcome::Accepted { http_status: 200, .. }), "{outcome:?}");
        }
        let run = sender.until("fk_empty", &good, AirflowState::Success).await;
        assert!(run.started_at.is_some() && run.ended_at >= run.started_at, "{run:?}");
        sender.until("fk_fails_once", &cleared, AirflowState::Failed).await;
        sender.airflow.clear_run("fk_fails_once", &cleared).await.expect("cleared");
        sender.until("fk_fails_once", &cleared, AirflowState::Success).await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_from_an_airflow_that_is_away() {
    for real in [RealAirflow::three(), RealAirflow::two()] {
        let sender = Sender::new(real.client_with("hunter2"));
        let outcome = sender.send("fk_empty", "flowkeeper__s__mx", None, "{}").await;
        let SubmitOutcome::Unauthorized { detail, .. } = &outcome else { panic!("{outcome:?}") };
        assert!(!detail.contains("hunter2"), "{detail}");
        let away = Sender::new(client("http://127.0.0.1:1", "admin", "admin"));
        let outcome = away.send("fk_empty", "flowkeeper__s__mx", None, "{}").await;
        assert!(matches!(outcome, SubmitOutcome::Retry { proven_absent: true, http_status: None, .. }), "{outcome:?}");
    }
}

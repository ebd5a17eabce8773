//! A fast stand-in for Airflow's API v2: accepts every DAG run, closes it at once as a success, and
//! notes when each request arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, patch, post};
use flowkeeper::clock::Clock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::Outcome;

/// Where a page of DAG runs ends unless asked otherwise, as in Airflow.
const PAGE: usize = 100;

/// One request for a DAG run.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// When it arrived, for durations.
    pub(crate) at: Instant,
    /// The same on the wall clock, in microseconds since 1970.
    pub(crate) at_us: i64,
    pub(crate) dag_run_id: String,
    pub(crate) conf: Conf,
}

/// What the parties say about a run.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conf {
    /// The znode, for znode triggers.
    pub(crate) path: String,
    /// Its data version.
    pub(crate) version: i64,
    /// The schedule's number, for cron triggers.
    pub(crate) job: i64,
}

#[derive(Deserialize)]
struct Submission {
    dag_run_id: String,
    #[serde(default)]
    conf: Conf,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Default)]
struct Runs {
    arrivals: Vec<Arrival>,
    notes: Vec<Option<String>>,
    index: HashMap<String, usize>,
}

/// A running stand-in.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) url: String,
    clock: Clock,
    runs: Arc<Mutex<Runs>>,
    arrived: Arc<Notify>,
}

impl StandIn {
    pub(crate) async fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stand_in = Self {
            url: format!("http://{}", listener.local_addr()?),
            clock: Clock::system(),
            runs: Arc::default(),
            arrived: Arc::default(),
        };
        let runs = "/api/v2/dags/{dag}/dagRuns";
        let app = Router::new()
            .route("/auth/token", post(|| async { (StatusCode::CREATED, Json(json!({"access_token": "token"}))) }))
            .route("/api/v2/version", get(|| async { Json(json!({"version": "3.3.2", "git_version": null})) }))
            .route("/api/v2/monitor/health", get(health))
            .route("/api/v2/importErrors", get(|| async { Json(json!({"import_errors": [], "total_entries": 0})) }))
            .route("/api/v2/dags", get(|| async { Json(json!({"dags": [dag("bench")], "total_entries": 1})) }))
            .route("/api/v2/dags/{dag}", get(|Path(name): Path<String>| async move { Json(dag(&name)) }))
            .route("/api/v2/dags/{dag}/details", get(|Path(name): Path<String>| async move { Json(dag(&name)) }))
            .route(runs, post(submit).get(list))
            .route(&format!("{runs}/{{run}}"), get(one).merge(patch(one)))
            .with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(listener, app.into_make_service()).await });
        Ok(stand_in)
    }

    /// How many DAG runs were asked for since [`Self::clear`].
    pub(crate) fn count(&self) -> usize {
        self.with(|runs| runs.arrivals.len())
    }

    /// Every request in the order of arrival.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.with(|runs| runs.arrivals.clone())
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.with(|runs| *runs = Runs::default());
    }

    /// Waits until more than `count` requests have arrived; false after `patience_ms` without one.
    pub(crate) async fn more_than(&self, count: usize, patience_ms: u64) -> bool {
        let patience = std::time::Duration::from_millis(patience_ms);
        let wait = async {
            loop {
                let notified = self.arrived.notified();
                if self.count() > count {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Waits until `count` requests have arrived, or none came for `patience_ms`.
    pub(crate) async fn settle(&self, count: usize, patience_ms: u64) {
        loop {
            let now = self.count();
            if now >= count || !self.more_than(now, patience_ms).await {
                return;
            }
        }
    }

    fn with<T>(&self, use_runs: impl FnOnce(&mut Runs) -> T) -> T {
        use_runs(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn submit(
    State(stand_in): State<StandIn>,
    Path(dag): Path<String>,
    Json(submission): Json<Submission>,
) -> (StatusCode, Json<Value>) {
    let arrival = Arrival {
        at: Instant::now(),
        at_us: stand_in.clock.now().as_microsecond(),
        dag_run_id: submission.dag_run_id,
        conf: submission.conf,
    };
    let answer = stand_in.with(|runs| {
        if runs.index.contains_key(&arrival.dag_run_id) {
            return None;
        }
        let answer = dag_run(&dag, &arrival, submission.note.as_deref());
        runs.index.insert(arrival.dag_run_id.clone(), runs.arrivals.len());
        runs.arrivals.push(arrival);
        runs.notes.push(submission.note);
        Some(answer)
    });
    stand_in.arrived.notify_waiters();
    answer.map_or_else(
        || (StatusCode::CONFLICT, Json(json!({"detail": {"reason": "Unique constraint violation"}}))),
        |run| (StatusCode::OK, Json(run)),
    )
}

/// What a list may be asked for. Runs are closed when they arrive, so the order of arrival is also
/// that of their last update.
#[derive(Deserialize)]
struct Filter {
    updated_at_gte: Option<jiff::Timestamp>,
    state: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
}

async fn list(State(stand_in): State<StandIn>, Path(dag): Path<String>, Query(filter): Query<Filter>) -> Json<Value> {
    let since = filter.updated_at_gte.map_or(i64::MIN, jiff::Timestamp::as_microsecond);
    let dag = if dag == "~" { "bench" } else { &dag };
    stand_in.with(|runs| {
        let from = match filter.state.as_deref() {
            // Every run is closed.
            Some(state) if state != "success" => runs.arrivals.len(),
            _ => runs.arrivals.partition_point(|arrival| arrival.at_us < since),
        };
        let page = runs.arrivals.iter().zip(&runs.notes).skip(from + filter.offset).take(filter.limit.unwrap_or(PAGE));
        let page: Vec<Value> = page.map(|(arrival, note)| dag_run(dag, arrival, note.as_deref())).collect();
        Json(json!({"dag_runs": page, "total_entries": runs.arrivals.len() - from}))
    })
}

async fn one(
    State(stand_in): State<StandIn>,
    Path((dag, dag_run_id)): Path<(String, String)>,
) -> Result<Json<Value>, StatusCode> {
    stand_in
        .with(|runs| {
            let at = *runs.index.get(&dag_run_id)?;
            Some(Json(dag_run(&dag, &runs.arrivals[at], runs.notes[at].as_deref())))
        })
        .ok_or(StatusCode::NOT_FOUND)
}

async fn health(State(stand_in): State<StandIn>) -> Json<Value> {
    let now = stand_in.clock.now().to_string();
    Json(json!({
        "metadatabase": {"status": "healthy"},
        "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": now},
        "triggerer": {"status": null, "latest_triggerer_heartbeat": null},
        "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": now},
    }))
}

fn dag(name: &str) -> Value {
    json!({
        "dag_id": name, "is_paused": false, "is_stale": false, "has_import_errors": false,
        "timetable_summary": null, "params": {},
    })
}

fn dag_run(dag: &str, arrival: &Arrival, note: Option<&str>) -> Value {
    let at = jiff::Timestamp::from_microsecond(arrival.at_us).unwrap_or_default().to_string();
    json!({
        "dag_run_id": arrival.dag_run_id, "dag_id": dag, "logical_date": null, "queued_at": at, "start_date": at,
        "end_date": at, "run_type": "manual", "state": "success", "conf": {}, "note": note,
    })
}

//! The real Airflows that `make test` starts, as their users see them: by their own REST API, and by the
//! files in their DAG folder.
//!
//! It knows nothing of flowkeeper's client, so that a story does not take that client's word for what
//! Airflow holds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a new DAG file may take until its DAG is known; a few seconds on an idle machine.
const PARSE_TIMEOUT: Duration = Duration::from_mins(3);

/// How long a request that Airflow fails with 5xx is repeated: on SQLite that is its way to say "busy".
const BUSY_TIMEOUT: Duration = Duration::from_mins(2);

/// An Airflow on SQLite does not stand a burst beside its other work, and answers some requests with 500
/// while it is busy. Whoever makes the one or cannot bear the other waits until the stories that are
/// being told are over, and the others wait for it.
static PEACE: RwLock<()> = RwLock::const_new(());

/// A share of the peace, or all of it.
#[expect(dead_code, reason = "held, and never looked at")]
enum Peace {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(Alone),
}

/// All Airflows, for one test.
pub(crate) type Alone = RwLockWriteGuard<'static, ()>;

/// Waits until no story uses an Airflow; none begins until the answer is dropped.
pub(crate) async fn alone() -> Alone {
    PEACE.write().await
}

/// A running Airflow.
pub(crate) struct Airflow {
    _peace: Peace,
    home: PathBuf,
    url: String,
    root: &'static str,
    username: String,
    password: String,
    token: Option<String>,
    client: reqwest::Client,
}

impl Airflow {
    /// Airflow 3, with API v2.
    pub(crate) async fn three() -> Self {
        Self::log_in(Peace::Shared(PEACE.read().await)).await
    }

    /// Airflow 3, while no other story uses it.
    pub(crate) async fn three_alone() -> Self {
        Self::log_in(Peace::Alone(alone().await)).await
    }

    async fn log_in(peace: Peace) -> Self {
        let mut airflow = Self::open("FLOWKEEPER_TEST_AIRFLOW3", "api/v2", peace);
        let login = json!({"username": airflow.username, "password": airflow.password});
        let answer = airflow.client.post(format!("{}/auth/token", airflow.url)).json(&login).send().await;
        let answer: Value = answer.expect("Airflow answers").json().await.expect("a token");
        airflow.token = Some(answer["access_token"].as_str().expect("a token").to_owned());
        airflow
    }

    /// Airflow 2, with API v1.
    pub(crate) async fn two() -> Self {
        Self::open("FLOWKEEPER_TEST_AIRFLOW2", "api/v1", Peace::Shared(PEACE.read().await))
    }

    fn open(variable: &str, root: &'static str, peace: Peace) -> Self {
        let home = std::env::var_os(variable)
            .unwrap_or_else(|| panic!("{variable} is not set: `make test` starts the Airflow that this test needs"));
        let home = PathBuf::from(home);
        let read = |name: &str| {
            let text = std::fs::read_to_string(home.join(name));
            text.unwrap_or_else(|error| panic!("{variable}: {name}: {error}")).trim().to_owned()
        };
        let (url, username, password) = (read("url"), read("username"), read("password"));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build();
        let client = client.expect("a client");
        Self { _peace: peace, home, url, root, username, password, token: None, client }
    }

    /// The section of a configuration that names this Airflow. `password` is a file beside it.
    pub(crate) fn section(&self) -> String {
        format!(
            "\n[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"{}\", password = {{ file = \"password\" }} }}\n",
            self.url, self.username
        )
    }

    /// The folder that tells how to reach it, with its DAG folder `dags`.
    pub(crate) fn home(&self) -> &std::path::Path {
        &self.home
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Sends a request to a path of the API; an answer of 5xx is not taken for one.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let end = Instant::now() + BUSY_TIMEOUT;
        loop {
            let mut request = self.client.request(method.clone(), format!("{}/{}/{path}", self.url, self.root));
            request = match &self.token {
                Some(token) => request.bearer_auth(token),
                None => request.basic_auth(&self.username, Some(&self.password)),
            };
            if let Some(body) = body {
                request = request.json(body);
            }
            // Logs are plain text otherwise.
            request = request.header(reqwest::header::ACCEPT, "application/json");
            match request.send().await {
                Ok(answer) if !answer.status().is_server_error() => {
                    return (answer.status(), answer.json().await.unwrap_or(Value::Null));
                }
                answer => assert!(Instant::now() < end, "{method} {path}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sends a request that must succeed.
    pub(crate) async fn done(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.send(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status}: {answer}");
        answer
    }

    /// Deletes something, waiting while Airflow refuses because it is running. A lost answer may be
    /// of a deletion that was done.
    pub(crate) async fn delete(&self, path: &str) {
        let end = Instant::now() + BUSY_TIMEOUT;
        loop {
            let (status, answer) = self.send(Method::DELETE, path, None).await;
            if status.is_success() || status == StatusCode::NOT_FOUND {
                return;
            }
            assert!(status == StatusCode::CONFLICT && Instant::now() < end, "DELETE {path}: {status}: {answer}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A DAG run, if there is one.
    pub(crate) async fn dag_run(&self, dag_id: &str, dag_run_id: &str) -> Option<Value> {
        let (status, run) = self.send(Method::GET, &format!("dags/{dag_id}/dagRuns/{dag_run_id}"), None).await;
        match status {
            StatusCode::NOT_FOUND => None,
            status => {
                assert!(status.is_success(), "{dag_run_id}: {status}: {run}");
                Some(run)
            }
        }
    }

    /// The ids of all runs of a DAG.
    pub(crate) async fn dag_run_ids(&self, dag_id: &str) -> Vec<String> {
        let mut ids = Vec::new();
        loop {
            let path = format!("dags/{dag_id}/dagRuns?limit=100&offset={}&order_by=id", ids.len());
            let page = self.done(Method::GET, &path, None).await;
            let runs = page["dag_runs"].as_array().expect("a list of DAG runs");
            ids.extend(runs.iter().map(|run| run["dag_run_id"].as_str().expect("an id").to_owned()));
            if runs.is_empty() {
                return ids;
            }
        }
    }

    /// Pauses or unpauses a DAG.
    pub(crate) async fn pause(&self, dag_id: &str, paused: bool) {
        let path = format!("dags/{dag_id}?update_mask=is_paused");
        self.done(Method::PATCH, &path, Some(&json!({"is_paused": paused}))).await;
    }

    /// Clears a DAG run with all its tasks, as its users do on its page.
    pub(crate) async fn clear(&self, dag_id: &str, dag_run_id: &str) {
        let path = format!("dags/{dag_id}/dagRuns/{dag_run_id}/clear");
        self.done(Method::POST, &path, Some(&json!({"dry_run": false}))).await;
    }

    /// Deletes a DAG with all its runs, and its file before that, so that it does not come back.
    pub(crate) async fn delete_dag(&self, dag: &OwnDag) {
        std::fs::remove_file(&dag.path).expect("remove the DAG file");
        self.delete(&format!("dags/{}", dag.dag_id)).await;
    }

    /// Puts a DAG of the test's own into the DAG folder, and waits until Airflow knows it.
    pub(crate) async fn add_dag(&self, kind: DagKind) -> OwnDag {
        let dag_id = format!("fk_own_{}", unique());
        let path = self.home.join("dags").join(format!("{dag_id}.py"));
        // Written aside first: a file that is read while it grows is an import error.
        let aside = self.home.join(format!("{dag_id}.tmp"));
        std::fs::write(&aside, kind.source(&dag_id)).expect("write the DAG file");
        std::fs::rename(&aside, &path).expect("put the DAG file in its place");
        let dag = OwnDag { dag_id, path };
        let end = Instant::now() + PARSE_TIMEOUT;
        while !self.send(Method::GET, &format!("dags/{}", dag.dag_id), None).await.0.is_success() {
            assert!(Instant::now() < end, "Airflow does not see {}", dag.path.display());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        dag
    }
}

/// What the runs of a DAG do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DagKind {
    /// Nothing; the scheduler ends them by itself.
    Empty,
    /// Nothing, and the DAG is paused when it appears.
    Paused,
    /// They fail, and succeed when they are cleared.
    FailsOnce,
}

impl DagKind {
    fn source(self, dag_id: &str) -> String {
        let paused = if matches!(self, Self::Paused) { "True" } else { "False" };
        let work = match self {
            Self::Empty | Self::Paused => "    EmptyOperator(task_id=\"nothing\")\n",
            Self::FailsOnce => {
                "    @task(retries=0)\n    def work(**context):\n        if context[\"ti\"].try_number < 2:\n            \
                 raise RuntimeError(\"the first try always fails\")\n\n    work()\n"
            }
        };
        format!(
            r#"from datetime import datetime

try:
    from airflow.sdk import DAG, task
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    from airflow import DAG
    from airflow.decorators import task
    from airflow.operators.empty import EmptyOperator

with DAG("{dag_id}", schedule=None, start_date=datetime(2020, 1, 1), catchup=False,
         is_paused_upon_creation={paused}, max_active_runs=64):
{work}"#
        )
    }
}

/// A DAG whose file is removed with it.
pub(crate) struct OwnDag {
    pub(crate) dag_id: String,
    path: PathBuf,
}

impl Drop for OwnDag {
    fn drop(&mut self) {
        // Airflow only forgets it a little later when this fails.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Letters and digits that no other test has, in this run or an earlier one.
pub(crate) fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}

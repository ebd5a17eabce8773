//! What a real Airflow tells of tasks, and what its operators put into it: DAG files and connections.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::airflow::Airflow;

/// How long Airflow may take to see new files, or to end a DAG run of thirty tasks, beside other tests.
const PATIENCE: Duration = Duration::from_mins(15);

/// A task, or one of its instances where it is mapped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskKey {
    pub(crate) task_id: String,
    /// −1 where it is not mapped.
    pub(crate) map_index: i64,
}

impl Airflow {
    /// Copies DAG files into the DAG folder: what they import first, and each of them whole.
    pub(crate) fn install(&self, files: &[&Path]) {
        for file in files {
            let name = file.file_name().expect("a file");
            let aside = self.home().join("aside.tmp");
            std::fs::copy(file, &aside).expect("copy the DAG file");
            std::fs::rename(&aside, self.home().join("dags").join(name)).expect("put the DAG file in its place");
        }
    }

    /// Puts a DAG file with this text into the DAG folder.
    pub(crate) fn write_dag(&self, name: &str, text: &str) {
        let aside = self.home().join("aside.tmp");
        std::fs::write(&aside, text).expect("write the DAG file");
        std::fs::rename(&aside, self.home().join("dags").join(format!("{name}.py"))).expect("put it in its place");
    }

    /// Takes it away again.
    pub(crate) fn remove_dag(&self, name: &str) {
        std::fs::remove_file(self.home().join("dags").join(format!("{name}.py"))).expect("remove the DAG file");
    }

    /// Waits until Airflow knows a DAG; an import error of any file ends the wait.
    pub(crate) async fn knows(&self, dag_id: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.send(Method::GET, &format!("dags/{dag_id}"), None).await.0.is_success() {
            let errors = self.done(Method::GET, "importErrors", None).await;
            assert_eq!(errors["total_entries"], 0, "{errors:#}");
            assert!(Instant::now() < end, "Airflow does not see {dag_id}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Makes a connection, in place of one of the same name.
    pub(crate) async fn connect(&self, connection_id: &str, url: &str) {
        self.delete(&format!("connections/{connection_id}")).await;
        let body = json!({"connection_id": connection_id, "conn_type": "http", "host": url});
        self.done(Method::POST, "connections", Some(&body)).await;
    }

    /// Waits until a DAG run has ended; its state.
    pub(crate) async fn ended(&self, dag_id: &str, dag_run_id: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let run = self.dag_run(dag_id, dag_run_id).await;
            let state = run.as_ref().and_then(|run| run["state"].as_str()).unwrap_or("absent");
            if state == "success" || state == "failed" {
                return state.to_owned();
            }
            assert!(Instant::now() < end, "{dag_run_id} is {state}: {:#?}", self.task_states(dag_id, dag_run_id).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The state of each task of a DAG run.
    pub(crate) async fn task_states(&self, dag_id: &str, dag_run_id: &str) -> BTreeMap<TaskKey, String> {
        let path = format!("dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances?limit=100");
        let answer = self.done(Method::GET, &path, None).await;
        let instances = answer["task_instances"].as_array().expect("a list of task instances");
        let key = |instance: &Value| TaskKey {
            task_id: instance["task_id"].as_str().expect("an id").to_owned(),
            map_index: instance["map_index"].as_i64().expect("an index"),
        };
        let state = |instance: &Value| instance["state"].as_str().unwrap_or("none").to_owned();
        instances.iter().map(|instance| (key(instance), state(instance))).collect()
    }

    /// The log of the first try of a task that is not mapped, as text.
    pub(crate) async fn task_log(&self, dag_id: &str, dag_run_id: &str, task_id: &str) -> String {
        let path = format!("dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/1?full_content=true");
        let answer = self.done(Method::GET, &path, None).await;
        // Version 2 gives a list of events, version 1 one text that is a list as Python prints it.
        answer["content"].to_string()
    }

    /// What a task left behind as JSON under this key, if anything.
    pub(crate) async fn xcom(&self, dag_id: &str, dag_run_id: &str, task: &TaskKey, key: &str) -> Option<Value> {
        let TaskKey { task_id, map_index } = task;
        let path = format!(
            "dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries/{key}?map_index={map_index}&stringify=false"
        );
        let (status, answer) = self.send(Method::GET, &path, None).await;
        (status != StatusCode::NOT_FOUND).then(|| answer["value"].clone())
    }
}

//! What one Airflow says of the DAGs that schedules use: paused, broken, or not there.
//!
//! One batched list every few seconds, shared by everyone who wants to know. A list that fails leaves
//! the facts as they were: an Airflow that does not answer has not unpaused anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Airflow, DagFacts, Error};

/// Between two lists.
const INTERVAL: Duration = Duration::from_secs(5);

/// The facts about DAGs at one moment. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DagDirectory(Arc<HashMap<String, DagFacts>>);

impl DagDirectory {
    /// What is known of a DAG; `None` if it is not there, or nothing is known yet.
    pub fn facts(&self, dag_id: &str) -> Option<&DagFacts> {
        self.0.get(dag_id)
    }
}

impl FromIterator<DagFacts> for DagDirectory {
    fn from_iter<I: IntoIterator<Item = DagFacts>>(facts: I) -> Self {
        Self(Arc::new(facts.into_iter().map(|facts| (facts.dag_id.clone(), facts)).collect()))
    }
}

/// What an Airflow says of `dag_ids`, which are sorted.
async fn read(airflow: &Airflow, dag_ids: &[String]) -> Result<DagDirectory, Error> {
    let dags = airflow.list_dags(dag_ids).await?;
    Ok(dags.into_iter().filter(|facts| dag_ids.binary_search(&facts.dag_id).is_ok()).collect())
}

/// The first facts about `dag_ids`; `None` if Airflow does not give them within `patience`.
pub async fn first(airflow: &Airflow, dag_ids: &[String], patience: Duration) -> Option<DagDirectory> {
    if dag_ids.is_empty() {
        return None;
    }
    let directory = tokio::time::timeout(patience, read(airflow, dag_ids)).await.ok().and_then(Result::ok);
    if directory.is_none() {
        tracing::warn!(
            airflow = airflow.name(),
            "Airflow does not tell yet which DAGs are paused; starting all the same"
        );
    }
    directory
}

/// Keeps `directory` up to date about `dag_ids`, which are sorted, until nobody reads it any more.
pub async fn refresh(airflow: Airflow, dag_ids: Vec<String>, directory: watch::Sender<DagDirectory>) {
    if dag_ids.is_empty() {
        return;
    }
    while !directory.is_closed() {
        tokio::time::sleep(INTERVAL).await;
        match read(&airflow, &dag_ids).await {
            Ok(news) => {
                directory.send_if_modified(|known| {
                    let modified = *known != news;
                    if modified {
                        *known = news;
                    }
                    modified
                });
            }
            // The monitor reports an Airflow that is away.
            Err(error) => {
                tracing::debug!(airflow = airflow.name(), error = %error, "the list of DAGs could not be read");
            }
        }
    }
}

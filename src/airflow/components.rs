//! What an Airflow says of its own parts: its health, and its jobs, which are the processes.
//!
//! Health is told by both versions, and to whoever asks. Jobs are in API v2 alone. Of them one page is
//! read, the latest heartbeats first: the filter `is_alive` of Airflow 3 is applied to a page after it
//! was cut, so it hides those that live behind those that do not (`core_api/routes/public/job.py`).

use jiff::Timestamp;
use reqwest::Method;

use super::client::Call;
use super::requests::PAGE_SIZE;
use super::{Airflow, Api, Error, v1, v2, wire};
use crate::domain::component::{HealthPart, Jobs};

/// The state of a job that has not ended.
const RUNNING: [&str; 2] = ["running", "restarting"];

/// Whether a job in this state, with this end, is over. Airflow closes a job that ends in order
/// (`success`), and marks one that it has given up (`failed`), at times without an end.
pub(super) fn is_over(state: Option<&str>, ended_at: Option<Timestamp>) -> bool {
    ended_at.is_some() || state.is_some_and(|state| !RUNNING.contains(&state))
}

impl Airflow {
    /// Reads Airflow's own word on its parts.
    pub async fn health(&self) -> Result<Vec<HealthPart>, Error> {
        let tried = "read the health";
        let make = |api| match api {
            Api::V1 => v1::health(),
            Api::V2 => v2::health(),
        };
        let body = self.ask(tried, make).await?;
        wire::health(&body).ok_or_else(|| self.garbled(tried))
    }

    /// Reads the jobs that have beaten last.
    pub async fn jobs(&self) -> Result<Jobs, Error> {
        let tried = "list jobs";
        if self.api().await.map_err(|failure| self.error(tried, failure))? == Api::V1 {
            return Ok(Jobs::NotOffered);
        }
        let make = |_| Call::new(Method::GET, ["jobs"]).page(PAGE_SIZE, 0).query("order_by", "-latest_heartbeat");
        let body = self.ask(tried, make).await?;
        wire::jobs(&body).ok_or_else(|| self.garbled(tried))
    }
}

//! What can be asked of an Airflow, apart from making DAG runs (see `submit`).

use reqwest::Method;
use serde_json::json;

use super::client::{Airflow, Call};
use super::{Api, DagDetails, DagFacts, DagRun, Error, ImportError, RunPage, RunQuery, v1, v2, wire};

/// Entries on a page; Airflow's own upper limit, unless somebody changed it.
pub(super) const PAGE_SIZE: u32 = 100;
/// Longest list of DAG ids that is put into an address, in bytes; proxies take 8 KiB in all.
const MAX_FILTER_BYTES: usize = 4000;

impl Airflow {
    /// Reads one DAG run; [`Error::is_absent`] is Airflow's own word that it does not exist.
    pub async fn find_run(&self, dag_id: &str, dag_run_id: &str) -> Result<DagRun, Error> {
        let tried = format!("read DAG run {dag_run_id} of DAG {dag_id}");
        let body = self.ask(&tried, |_| Call::new(Method::GET, ["dags", dag_id, "dagRuns", dag_run_id])).await?;
        // The id is compared, since "absent" and "there" must both be about the one that was asked for.
        wire::dag_run(&body).filter(|run| run.dag_run_id == dag_run_id).ok_or_else(|| self.garbled(&tried))
    }

    /// Reads one page of DAG runs, in the order of their creation, beginning with entry `offset`.
    pub async fn list_runs(&self, query: &RunQuery, offset: u64) -> Result<RunPage, Error> {
        let tried = "list DAG runs";
        let make = |api| match api {
            Api::V1 => v1::list_runs(query, PAGE_SIZE, offset),
            Api::V2 => v2::list_runs(query, PAGE_SIZE, offset),
        };
        let body = self.ask(tried, make).await?;
        wire::run_page(&body).ok_or_else(|| self.garbled(tried))
    }

    /// Reads the DAG run of `dag_id` that has this logical date, if there is one.
    pub async fn find_by_logical_date(&self, dag_id: &str, date: jiff::Timestamp) -> Result<Option<DagRun>, Error> {
        let query = RunQuery { dag_ids: vec![dag_id.to_owned()], logical_date: Some(date), ..RunQuery::default() };
        let page = self.list_runs(&query, 0).await?;
        Ok(page.runs.into_iter().find(|run| run.dag_id == dag_id && run.logical_date == Some(date)))
    }

    /// Replaces the note of a DAG run.
    pub async fn set_note(&self, dag_id: &str, dag_run_id: &str, note: &str) -> Result<(), Error> {
        let make = |api| match api {
            Api::V1 => v1::set_note(dag_id, dag_run_id).json(&json!({"note": note})),
            Api::V2 => v2::set_note(dag_id, dag_run_id).json(&json!({"note": note})),
        };
        self.ask(&format!("set the note of DAG run {dag_run_id} of DAG {dag_id}"), make).await.map(drop)
    }

    /// Ends a DAG run as failed; its running tasks are stopped.
    pub async fn fail_run(&self, dag_id: &str, dag_run_id: &str) -> Result<(), Error> {
        let make =
            |_| Call::new(Method::PATCH, ["dags", dag_id, "dagRuns", dag_run_id]).json(&json!({"state": "failed"}));
        self.ask(&format!("end DAG run {dag_run_id} of DAG {dag_id} as failed"), make).await.map(drop)
    }

    /// Clears a DAG run, so that Airflow runs it again.
    pub async fn clear_run(&self, dag_id: &str, dag_run_id: &str) -> Result<(), Error> {
        let make = |_| {
            // Airflow only shows what it would do unless told otherwise.
            Call::new(Method::POST, ["dags", dag_id, "dagRuns", dag_run_id, "clear"]).json(&json!({"dry_run": false}))
        };
        self.ask(&format!("clear DAG run {dag_run_id} of DAG {dag_id}"), make).await.map(drop)
    }

    /// Lists the DAGs whose files are there. `among` asks only for these (an Airflow that cannot, or
    /// more ids than fit into an address, give more); empty asks for all.
    pub async fn list_dags(&self, among: &[String]) -> Result<Vec<DagFacts>, Error> {
        let tried = "list DAGs";
        let fits = among.iter().map(|dag_id| dag_id.len() + 3).sum::<usize>() <= MAX_FILTER_BYTES;
        // `|` would be read as "or".
        let among = if fits && !among.iter().any(|dag_id| dag_id.contains('|')) { among } else { &[] };
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let make = |api| match api {
                Api::V1 => v1::list_dags(PAGE_SIZE, offset),
                Api::V2 => v2::list_dags(among, PAGE_SIZE, offset),
            };
            let body = self.ask(tried, make).await?;
            let (dags, entries, total) = wire::dag_page(&body).ok_or_else(|| self.garbled(tried))?;
            all.extend(dags);
            offset += entries as u64;
            if entries == 0 || offset >= total {
                return Ok(all);
            }
        }
    }

    /// Reads one DAG with its params.
    pub async fn dag_details(&self, dag_id: &str) -> Result<DagDetails, Error> {
        let tried = format!("read DAG {dag_id}");
        let body = self.ask(&tried, |_| Call::new(Method::GET, ["dags", dag_id, "details"])).await?;
        wire::dag_details(&body).ok_or_else(|| self.garbled(&tried))
    }

    /// Lists the DAG files that fail to import, the first hundred of them.
    pub async fn import_errors(&self) -> Result<Vec<ImportError>, Error> {
        let tried = "list import errors";
        let body = self.ask(tried, |_| Call::new(Method::GET, ["importErrors"]).page(PAGE_SIZE, 0)).await?;
        wire::import_errors(&body).ok_or_else(|| self.garbled(tried))
    }
}

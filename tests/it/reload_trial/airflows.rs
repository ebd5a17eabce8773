//! The Airflow of a trial: one in this process that is fast, or a real one.

use std::collections::BTreeMap;

use super::sets::Ground;
use crate::support::airflow::{Airflow, DagKind, OwnDag};
use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::proxy::Proxy;

/// What makes DAG runs.
pub(crate) enum Submitted {
    ToFake(FakeAirflow),
    ToReal(Airflow, OwnDag),
}

/// An Airflow, and a second address of it.
pub(crate) struct Target {
    submitted: Submitted,
    proxy: Proxy,
    /// Has the file with the password.
    directory: tempfile::TempDir,
}

impl Target {
    /// One in this process.
    pub(crate) async fn fake() -> Self {
        let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
        let proxy = Proxy::start_plain(&fake.address().to_string()).await;
        Self { submitted: Submitted::ToFake(fake), proxy, directory: with_password("admin") }
    }

    /// A real Airflow 3, with a DAG of its own whose runs are made and not worked off.
    pub(crate) async fn real() -> Self {
        let airflow = Airflow::three().await;
        let dag = airflow.add_dag(DagKind::Paused).await;
        let proxy = Proxy::start_plain(airflow.url().trim_start_matches("http://")).await;
        let directory = with_password(airflow.password());
        Self { submitted: Submitted::ToReal(airflow, dag), proxy, directory }
    }

    /// What sets are drawn from.
    pub(crate) fn ground(&self) -> Ground {
        let proxied = format!("http://{}", self.proxy.connect());
        let password = self.directory.path().join("password").display().to_string();
        match &self.submitted {
            Submitted::ToFake(fake) => Ground {
                urls: vec![fake.url(), proxied],
                username: "admin".into(),
                password,
                dag: "load".into(),
                in_flight: vec!["4", "8", "\"auto\""],
                step: 1,
            },
            Submitted::ToReal(airflow, dag) => Ground {
                urls: vec![airflow.url().to_owned(), proxied],
                username: airflow.username().to_owned(),
                password,
                dag: dag.dag_id.clone(),
                // On SQLite, two requests that overlap take seconds.
                in_flight: vec!["1"],
                step: 5,
            },
        }
    }

    /// Lets DAG runs go on, where they do not by themselves.
    pub(crate) fn advance(&self) {
        if let Submitted::ToFake(fake) = &self.submitted {
            fake.world().advance();
        }
    }

    /// How many DAG runs of each id there are, as Airflow itself says.
    pub(crate) async fn dag_runs(&self) -> BTreeMap<String, usize> {
        let ids: Vec<String> = match &self.submitted {
            Submitted::ToFake(fake) => fake.world().runs().iter().map(|run| run.dag_run_id.clone()).collect(),
            Submitted::ToReal(airflow, dag) => airflow.dag_run_ids(&dag.dag_id).await,
        };
        let mut counts = BTreeMap::new();
        for id in ids {
            *counts.entry(id).or_default() += 1;
        }
        counts
    }

    /// Takes away what was made in a real Airflow.
    pub(crate) async fn clear(self) {
        if let Submitted::ToReal(airflow, dag) = &self.submitted {
            airflow.delete_dag(dag).await;
        }
    }
}

fn with_password(password: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("password"), password).expect("write the password");
    directory
}

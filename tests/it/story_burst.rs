//! The story of a burst: 2,000 children at once, a real Airflow 3 on SQLite, and no run left behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use futures_util::StreamExt as _;
use zookeeper_client::{Acls, CreateMode};

use crate::story_runs::serve;
use crate::support::airflow::{Airflow, DagKind, unique};
use crate::support::zookeeper::{ZooKeeperServer, create};

/// How many children appear.
const CHILDREN: usize = 2000;

/// How long the last of them may take; a minute or two on an idle machine.
const PATIENCE: Duration = Duration::from_mins(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_changes_become_two_thousand_dag_runs() {
    let airflow = Airflow::three_alone().await;
    // Paused and submitted to: how fast Airflow's scheduler works off the queue is not asked here.
    let dag = airflow.add_dag(DagKind::Paused).await;
    let server = ZooKeeperServer::shared().await;
    let client = server.client().await;
    let name = format!("burst-{}", unique());
    create(&client, &format!("/{name}"), b"").await;
    let schedule = format!(
        r#"
[zookeeper]
connect = "{}"
root = "/flowkeeper/{name}"

[[schedule]]
name = "{name}"
znode = {{ path = "/{name}", watch = "children" }}
dag = "{}"
paused_dag = "submit"
conf = {{ child = "{{{{ znode.name }}}}" }}
"#,
        server.connect(),
        dag.dag_id,
    );
    let member = serve(&airflow, &schedule).await;

    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (client, options, parent) = (&client, &options, &name);
    futures_util::stream::iter(0..CHILDREN)
        .for_each_concurrent(100, async |number| {
            let path = format!("/{parent}/{number:04}");
            client.create(&path, b"", options).await.unwrap_or_else(|error| panic!("create {path}: {error}"));
        })
        .await;

    let end = Instant::now() + PATIENCE;
    let runs = loop {
        let runs = member.runs().await;
        if runs.len() >= CHILDREN && runs.iter().all(|run| run.state.was_accepted()) {
            break runs;
        }
        let pending = runs.iter().filter(|run| run.state == RunState::Pending).count();
        assert!(Instant::now() < end, "{} of {CHILDREN} recorded, {pending} pending", runs.len());
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let children: BTreeSet<_> = runs.iter().filter_map(|run| run.conf["child"].as_str()).collect();
    assert_eq!((runs.len(), children.len()), (CHILDREN, CHILDREN), "a run for each child, and no child twice");

    let mut expected: Vec<_> = runs.iter().map(|run| run.dag_run_id.clone()).collect();
    let mut held = airflow.dag_run_ids(&dag.dag_id).await;
    expected.sort_unstable();
    held.sort_unstable();
    assert!(held == expected, "Airflow has {} DAG runs for {} accepted runs", held.len(), expected.len());
    airflow.delete_dag(&dag).await;
}

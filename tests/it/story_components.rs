//! A triggerer of a real Airflow from its start to its end, killed once in between: what flowkeeper tells of
//! it with Airflow 3, which lists its processes, and with Airflow 2, which tells of the kind.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::airflow::Airflow;
use crate::support::children;
use crate::support::process::Member;

/// A triggerer takes half a minute to start on a busy machine, and as long to end.
const PATIENCE: Duration = Duration::from_mins(10);

/// A triggerer, in a group of processes of its own.
struct Triggerer(Child);

impl Triggerer {
    /// Starts one beside the components of an Airflow that `make test` started.
    fn start(airflow: &Airflow) -> Self {
        const SCRIPT: &str = r#"source scripts/lib.sh
            python=$(<"$1/python")
            airflow_environment "${python%/bin/python}" "$1" "${2##*:}"
            exec airflow triggerer --skip-serve-logs"#;
        let mut command = children::mortal("bash");
        command.args(["-c", SCRIPT, "--"]).arg(airflow.home()).arg(airflow.url());
        command.current_dir(env!("CARGO_MANIFEST_DIR")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(children::spawn(command).expect("start a triggerer"))
    }

    fn kill(mut self) {
        self.signal_all("KILL");
        self.0.wait().expect("it has ended");
    }

    /// Asks it to end, and waits until it has.
    async fn end(mut self) {
        signal("TERM", &self.0.id().to_string());
        let end = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("look at it").is_none() {
            assert!(Instant::now() < end, "the triggerer does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn signal_all(&self, name: &str) {
        signal(name, &format!("-{}", self.0.id()));
    }
}

impl Drop for Triggerer {
    fn drop(&mut self) {
        self.signal_all("KILL");
        self.0.wait().ok();
    }
}

fn signal(name: &str, target: &str) {
    // A group that is gone already is as good.
    Command::new("kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status().expect("run kill");
}

/// Waits until the Airflow is as `good` says; what the member tells of it then.
async fn comes(member: &Member, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let told = member.get("airflow").await.map(|list| list["items"][0].clone()).unwrap_or_default();
        if good(&told) {
            return told;
        }
        assert!(Instant::now() < end, "{what}: {told:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The components of this kind in this state.
fn those<'a>(told: &'a Value, kind: &str, state: &str) -> Vec<&'a Value> {
    let components = told["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    components.iter().filter(|part| part["kind"] == kind && part["state"] == state).collect()
}

fn warns(told: &Value, words: &str) -> bool {
    told["warnings"].as_array().is_some_and(|all| all.iter().filter_map(Value::as_str).any(|one| one.contains(words)))
}

fn serve(airflow: &Airflow) -> Member {
    let limits = "health_interval = \"1s\"\nheartbeat_threshold = \"15s\"\n";
    let mut member = Member::new(&format!("{}{limits}", airflow.section()));
    std::fs::write(member.path().join("password"), airflow.password()).expect("write the password");
    member.start();
    member
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_triggerer_of_airflow_3_comes_is_missed_is_replaced_and_goes() {
    let airflow = Airflow::three().await;
    let member = serve(&airflow);
    let told = comes(&member, "a scheduler and a DAG processor", |told| {
        !those(told, "scheduler", "healthy").is_empty() && !those(told, "dag_processor", "healthy").is_empty()
    });
    let told = told.await;
    assert_eq!((&told["state"], &told["version"], &told["jobs_reason"]), (&json!("up"), &json!("3.3.2"), &Value::Null));
    let scheduler = those(&told, "scheduler", "healthy")[0];
    assert!(scheduler["hostname"].is_string() && scheduler["job"].is_i64() && scheduler["started_at"].is_string());

    let first = Triggerer::start(&airflow);
    let told = comes(&member, "a triggerer", |told| !those(told, "triggerer", "healthy").is_empty()).await;
    let killed = those(&told, "triggerer", "healthy")[0]["job"].clone();
    first.kill();
    let words = format!("(job {killed}) has not beaten since");
    let told = comes(&member, "it is missed", |told| warns(told, &words)).await;
    assert!(those(&told, "triggerer", "stale").iter().any(|part| part["job"] == killed), "{told:#}");

    let second = Triggerer::start(&airflow);
    let told = comes(&member, "another", |told| !those(told, "triggerer", "healthy").is_empty()).await;
    let ended = those(&told, "triggerer", "healthy")[0]["job"].clone();
    assert_ne!(ended, killed, "each process is another job");
    second.end().await;
    let gone = |told: &Value| those(told, "triggerer", "gone").into_iter().find(|part| part["job"] == ended).cloned();
    let told = comes(&member, "it has ended", |told| gone(told).is_some()).await;
    let gone = gone(&told).expect("it is gone");
    assert_eq!(gone["reason"], json!("it ended, Airflow says: success"));
    assert!(gone["first_seen_at"].as_str() < gone["gone_at"].as_str(), "{gone:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_triggerer_of_airflow_2_is_told_of_as_a_kind() {
    let airflow = Airflow::two().await;
    let member = serve(&airflow);
    let told = comes(&member, "a scheduler", |told| !those(told, "scheduler", "healthy").is_empty()).await;
    assert_eq!(
        (&told["state"], &told["version"], &told["jobs_reason"]),
        (&json!("up"), &json!("2.11.2"), &Value::Null)
    );
    let scheduler = those(&told, "scheduler", "healthy")[0];
    assert_eq!((&scheduler["job"], &scheduler["hostname"]), (&Value::Null, &Value::Null));
    assert!(those(&told, "dag_processor", "healthy").is_empty(), "it is part of the scheduler");

    let first = Triggerer::start(&airflow);
    comes(&member, "a triggerer", |told| those(told, "triggerer", "healthy").len() == 1).await;
    first.kill();
    comes(&member, "it is missed", |told| warns(told, "the triggerer has not beaten since")).await;
    let second = Triggerer::start(&airflow);
    comes(&member, "another", |told| those(told, "triggerer", "healthy").len() == 1).await;
    second.end().await;
    comes(&member, "it has ended", |told| those(told, "triggerer", "stale").len() == 1 && warns(told, "triggerer"))
        .await;
}

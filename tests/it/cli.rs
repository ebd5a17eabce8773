//! The program as people and scripts run it: what it prints, where, and with which exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use flowkeeper::domain::run::{AirflowState, RunState};
use serde_json::{Value, json};

use crate::support::member::{Member, dag_run_id, name};
use crate::support::world::PATIENCE;

/// A command whose environment holds nothing by accident.
fn flowkeeper(configuration: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
    command
        .env_clear()
        .env("AIRFLOW_TOKEN", "airflow-secret")
        .env("OPERATE", "o-secret")
        .env("READ", "r-secret")
        .arg("-c")
        .arg(configuration)
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Runs a command beside the member, whose threads go on meanwhile.
async fn run(member: &Member, arguments: &[&str]) -> Output {
    run_command(flowkeeper(&member.configuration(), arguments)).await
}

async fn run_command(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await.expect("no panic")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("not one JSON document ({error})"))
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// Some history: a success, a failure, an open run, one that was skipped and a row for several.
async fn member_with_history() -> Member {
    let member = Member::start().await;
    member.record_missed("2026-11-22T00:00:00Z", "2026-11-22T05:00:00Z", 6).await;
    for (hour, state) in [("06", Some(AirflowState::Success)), ("07", Some(AirflowState::Failed)), ("09", None)] {
        let time = format!("2026-11-22T{hour}:00:00Z");
        member.record(&time, RunState::Pending).await;
        if let Some(state) = state {
            member.see(&dag_run_id(&time), state).await;
        }
    }
    member
}

/// A table of schedules without what depends on the time of day: the next time of the first row.
fn without_next(table: &str) -> String {
    let column = table.find("NEXT").expect("a column");
    let start = table.find('\n').expect("a heading") + 1 + column;
    let length = "2026-11-22 13:00:00+01:00".len();
    format!("{}{}{}", &table[..start], "-".repeat(length), &table[start + length..])
}

#[tokio::test]
async fn tables_show_history_in_the_zone_of_the_schedule() {
    let member = member_with_history().await;
    let output = run(&member, &["runs"]).await;
    insta::assert_snapshot!("runs", stdout(&output));
    assert!(!stdout(&output).contains('\u{1b}'), "no colours into a pipe");
    let coloured = run(&member, &["runs", "--color", "always"]).await;
    assert!(stdout(&coloured).contains("\u{1b}["));
    let elsewhere = run(&member, &["runs", "--state", "failed", "--timezone", "America/New_York"]).await;
    insta::assert_snapshot!("runs_elsewhere", stdout(&elsewhere));
    insta::assert_snapshot!("schedules", without_next(&stdout(&run(&member, &["schedules"]).await)));
    insta::assert_snapshot!("schedule", stdout(&run(&member, &["schedules", "nightly"]).await));
    insta::assert_snapshot!("stats", stdout(&run(&member, &["stats"]).await));
    let one = run(&member, &["runs", &dag_run_id("2026-11-22T06:00:00Z")]).await;
    insta::assert_snapshot!("run", stdout(&one));
    member.stop().await;
}

#[tokio::test]
async fn a_trigger_in_trouble_is_shown_as_long_as_its_member_serves() {
    let member = Member::start().await;
    member.status.set_trouble(&name("on-flag"), Some("/data/ready cannot be read: no permission".to_owned()));
    let shown = |output: Output| stdout(&output).lines().any(|line| line.contains("cannot be read"));
    assert!(shown(run(&member, &["schedules", "on-flag"]).await));
    assert!(shown(run(&member, &["why", "on-flag"]).await));
    let table = stdout(&run(&member, &["schedules"]).await);
    assert!(table.lines().any(|line| line.starts_with("on-flag") && line.contains("in trouble")), "{table}");
    let listed = parsed(&run(&member, &["schedules", "-o", "json"]).await);
    assert_eq!(
        (&listed[2]["armed"], &listed[2]["trouble"]),
        (&json!(false), &json!("/data/ready cannot be read: no permission"))
    );

    let directory = member.stop_serving().await;
    let alone = flowkeeper(&directory.path().join("flowkeeper.toml"), &["schedules", "-o", "json"]);
    let listed = parsed(&run_command(alone).await);
    assert_eq!((&listed[2]["armed"], &listed[2]["trouble"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn tables_fit_the_terminal() {
    let member = member_with_history().await;
    for width in [60, 80, 120, 200] {
        for arguments in [&["runs"][..], &["schedules"], &["stats"], &["runs", "1"], &["why", "hourly-load"]] {
            let mut command = flowkeeper(&member.configuration(), arguments);
            command.env("COLUMNS", width.to_string());
            let text = stdout(&run_command(command).await);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= width && widest > 0, "{arguments:?} is {widest} wide on {width}:\n{text}");
        }
    }
    let mut narrow = flowkeeper(&member.configuration(), &["runs"]);
    narrow.env("COLUMNS", "72");
    insta::assert_snapshot!("runs_narrow", stdout(&run_command(narrow).await));
    member.stop().await;
}

#[tokio::test]
async fn json_and_csv_have_the_names_of_the_api() {
    let member = member_with_history().await;
    let runs = parsed(&run(&member, &["runs", "-o", "json"]).await);
    let api = member.get("/api/v1/runs").await.json();
    assert_eq!(runs, api["items"]);
    let one = parsed(&run(&member, &["runs", "1", "-o", "json"]).await);
    assert_eq!(one, member.get("/api/v1/runs/1").await.json());
    let mut schedules = parsed(&run(&member, &["schedules", "-o", "json"]).await);
    assert_eq!(schedules[0]["armed"], json!(false), "the member says so");
    assert_eq!(schedules[0]["last_run"], member.get("/api/v1/schedules").await.json()["items"][0]["last_run"]);
    assert_eq!(schedules.as_array_mut().map(|list| list.len()), Some(3));
    assert_eq!(parsed(&run(&member, &["stats", "-o", "json"]).await)[0]["group"], "hourly-load");
    assert_eq!(parsed(&run(&member, &["audit", "-o", "json"]).await), json!([]));
    assert_eq!(parsed(&run(&member, &["check", "-o", "json"]).await), json!({"ok": true, "faults": []}));

    let csv = stdout(&run(&member, &["runs", "-o", "csv", "--limit", "2"]).await);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().expect("a header").iter().take(3).collect::<Vec<_>>(), ["id", "schedule", "owner"]);
    assert_eq!(reader.records().filter_map(Result::ok).count(), 2);
    let github = run(&member, &["runs", "-o", "github"]).await;
    assert_eq!(code(&github), 2);
    member.stop().await;
}

#[tokio::test]
async fn acting_commands_ask_the_member_that_serves() {
    let member = Member::start().await;
    let paused = run(&member, &["pause", "hourly-load", "--reason", "the warehouse moves"]).await;
    assert_eq!(code(&paused), 0, "{}", stderr(&paused));
    assert!(stdout(&paused).contains("by local: the warehouse moves"), "{}", stdout(&paused));
    let resumed = parsed(&run(&member, &["resume", "hourly-load", "-o", "json"]).await);
    assert_eq!(resumed["paused"], false);

    let triggered = parsed(&run(&member, &["trigger", "hourly-load", "--conf", r#"{"a": 1}"#, "-o", "json"]).await);
    assert_eq!((&triggered["state"], &triggered["conf"]), (&json!("pending"), &json!({"a": 1})));
    let first = parsed(&run(&member, &["trigger", "hourly-load", "--key", "k", "-o", "json"]).await);
    let again = parsed(&run(&member, &["trigger", "hourly-load", "--key", "k", "-o", "json"]).await);
    assert_eq!(first["id"], again["id"]);
    let conflict = run(&member, &["trigger", "hourly-load", "--key", "k", "--conf", "{}"]).await;
    assert_eq!(code(&conflict), 1);
    insta::assert_snapshot!("trigger_conflict", stderr(&conflict));

    let cancelled =
        run(&member, &["runs", "cancel", &first["id"].to_string(), "--reason", "a test", "-o", "json"]).await;
    assert_eq!(parsed(&cancelled)["state"], "skipped");
    let retried = run(&member, &["runs", "retry", &first["id"].to_string(), "-o", "json"]).await;
    assert_eq!(parsed(&retried)["state"], "pending");
    let audit = parsed(&run(&member, &["audit", "-o", "json"]).await);
    let actions: Vec<_> = audit.as_array().expect("a list").iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["retry", "cancel", "trigger", "trigger", "resume", "pause"]);
    member.stop().await;
}

#[tokio::test]
async fn a_run_is_waited_for_and_its_end_is_the_exit_code() {
    for (state, expected) in [(AirflowState::Success, 0), (AirflowState::Failed, 1)] {
        let member = Member::start().await;
        let command = flowkeeper(&member.configuration(), &["trigger", "hourly-load", "--key", "k", "--wait"]);
        let waiting = tokio::spawn(run_command(command));
        let identity = "flowkeeper__hourly-load__mk";
        while member.ledger.run(identity).await.expect("a ledger").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        member.see(identity, state).await;
        let output = waiting.await.expect("no panic");
        assert_eq!(code(&output), expected, "{}{}", stdout(&output), stderr(&output));
        assert!(stderr(&output).contains("run 1: pending"), "progress goes to standard error: {}", stderr(&output));
        assert!(stdout(&output).contains(if expected == 0 { "success" } else { "failed" }));
        member.stop().await;
    }
}

#[tokio::test]
async fn a_backfill_is_planned_then_done() {
    let member = Member::start().await;
    member.move_cursor("2026-11-22T12:00:00Z").await;
    member.record_missed("2026-11-22T00:00:00Z", "2026-11-22T05:00:00Z", 6).await;
    let range = ["--from", "2026-11-22T05:00:00+01:00", "--to", "2026-11-22T07:00"];
    let plan = run(&member, &[&["backfill", "hourly-load", "--dry-run"], &range[..]].concat()).await;
    insta::assert_snapshot!("backfill_plan", stdout(&plan));
    let done = run(&member, &[&["backfill", "hourly-load"], &range[..]].concat()).await;
    assert_eq!(stdout(&done), "1 recorded, 2 taken up again, 0 cleared in Airflow, 0 left\n", "{}", stderr(&done));
    assert!(!stderr(&done).contains('\u{1b}'), "no progress bar without a terminal");
    let again = parsed(&run(&member, &[&["backfill", "hourly-load", "-o", "json"], &range[..]].concat()).await);
    assert!(again.as_array().is_some_and(|items| items.iter().all(|item| item["action"] == "leave")), "{again}");
    let znode = run(&member, &[&["backfill", "on-flag"], &range[..]].concat()).await;
    assert_eq!(code(&znode), 1);
    member.stop().await;
}

#[tokio::test]
async fn tokens_come_from_the_configuration_or_the_environment() {
    let tokens = r#"
[[server.token]]
name = "dashboard"
value = { env = "READ" }
role = "read"
[[server.token]]
name = "ci"
value = { env = "OPERATE" }
role = "operate"
"#;
    let member = Member::start_with(tokens, "http://127.0.0.1:1").await;
    let paused = parsed(&run(&member, &["pause", "hourly-load", "-o", "json"]).await);
    assert_eq!(paused["pause"]["by"], "ci", "the first token that may");
    let mut command = flowkeeper(&member.configuration(), &["resume", "hourly-load"]);
    command.env("FLOWKEEPER_TOKEN", "r-secret");
    let refused = run_command(command).await;
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("hint: set FLOWKEEPER_TOKEN"), "{}", stderr(&refused));
    assert!(!stderr(&refused).contains("secret"), "{}", stderr(&refused));
    member.stop().await;
}

#[tokio::test]
async fn history_is_read_when_nothing_serves_and_acting_says_so() {
    let member = member_with_history().await;
    let (directory, configuration) = (member.directory.path().to_owned(), member.configuration());
    let text = std::fs::read_to_string(&configuration).expect("a configuration");
    let database = directory.join("flowkeeper.db");
    let kept = tempfile::tempdir().expect("a directory");
    let elsewhere = kept.path().join("flowkeeper.toml");
    // A port that was just given back: nothing listens on it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let text = text.replace(&member.config.server.listen.to_string(), &free.to_string());
    std::fs::write(&elsewhere, text.replace("sqlite://flowkeeper.db", &format!("sqlite://{}", database.display())))
        .expect("a configuration");
    let read = run_command(flowkeeper(&elsewhere, &["runs", "-o", "json"])).await;
    assert_eq!(parsed(&read).as_array().map(Vec::len), Some(4));
    let acted = run_command(flowkeeper(&elsewhere, &["pause", "hourly-load"])).await;
    assert_eq!(code(&acted), 3);
    let told = stderr(&acted).replace(&free.to_string(), "HOST:PORT");
    insta::assert_snapshot!("nothing_serves", told);
    member.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_what_kind_of_failure_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let configuration = directory.path().join("flowkeeper.toml");
    let run = async |arguments: &[&str]| run_command(flowkeeper(&configuration, arguments)).await;
    assert_eq!(code(&run(&["runs"]).await), 2, "no configuration");
    let written = run(&["init", &directory.path().display().to_string()]).await;
    assert_eq!(code(&written), 0, "{}", stderr(&written));
    assert_eq!(code(&run(&["check"]).await), 0);
    assert_eq!(code(&run(&["runs"]).await), 3, "nothing has served yet, there is no ledger");
    assert_eq!(code(&run(&["schedules"]).await), 0, "what is configured can be shown");
    assert_eq!(code(&run(&["why", "nightly-load"]).await), 0);
    assert_eq!(code(&run(&["next", "nobody"]).await), 2);
    assert_eq!(code(&run(&["next", "--cron", "99 * * * *"]).await), 2);
    assert_eq!(code(&run(&["runs", "--since", "yesterday"]).await), 2);
    assert_eq!(code(&run(&["runs", "--state", "done"]).await), 2);
    assert_eq!(code(&run(&["trigger", "nightly-load", "--conf", "[]"]).await), 2);
    assert_eq!(code(&run(&["nonsense"]).await), 2);
    std::fs::write(&configuration, "[sever]\nlisten = 1\n").expect("a file");
    let faulty = run(&["check"]).await;
    assert_eq!(code(&faulty), 2);
    assert!(stdout(&faulty).contains("flowkeeper.toml:1"), "{}", stdout(&faulty));
    let json = run(&["check", "-o", "json"]).await;
    let answer: Value = serde_json::from_slice(&json.stdout).expect("one JSON document");
    assert_eq!((code(&json), &answer["ok"]), (2, &json!(false)));
    assert!(stdout(&run(&["check", "-o", "github"]).await).starts_with("::error file="));
}

#[tokio::test]
async fn check_online_asks_airflow_and_zookeeper() {
    let member = Member::start().await;
    let output = run(&member, &["check", "--online", "-o", "json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!((code(&output), &answer["ok"]), (1, &json!(false)));
    let keys: Vec<_> = answer["faults"].as_array().expect("faults").iter().map(|fault| fault["key"].clone()).collect();
    assert_eq!(keys, ["airflow.main", "zookeeper"]);
    member.stop().await;
}

#[tokio::test]
async fn next_prints_wall_clocks_and_marks_their_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = async |arguments: &[&str]| run_command(flowkeeper(directory.path(), arguments)).await;
    let berlin = ["next", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin"];
    let table = run(&[&berlin[..], &["-n", "3", "--from", "2027-03-26T12:00"]].concat()).await;
    insta::assert_snapshot!("next", stdout(&table));
    let fold = run(&[&berlin[..], &["-n", "2", "--from", "2026-10-24T12:00", "-o", "json"]].concat()).await;
    assert_eq!(
        parsed(&fold),
        json!([
            {"nominal_time": "2026-10-25T00:30:00.000000Z", "local": "2026-10-25T02:30:00", "dst": "fold"},
            {"nominal_time": "2026-10-26T01:30:00.000000Z", "local": "2026-10-26T02:30:00", "dst": null},
        ])
    );
    let never = run(&["next", "--cron", "0 0 30 2 *"]).await;
    assert_eq!((code(&never), stdout(&never).as_str()), (0, ""));
    assert!(stderr(&never).contains("never comes due"));
}

#[tokio::test]
async fn init_never_overwrites() {
    let directory = tempfile::tempdir().expect("a directory");
    let configuration = directory.path().join("flowkeeper.toml");
    let dags = directory.path().join("dags");
    let target = directory.path().display().to_string();
    std::fs::write(&configuration, "# mine").expect("a file");
    let output = run_command(flowkeeper(&configuration, &["init", &target, "-o", "json"])).await;
    let written = |output: &Output| -> Vec<(bool, bool)> {
        let files = parsed(output).as_array().expect("a list").clone();
        files.iter().map(|file| (file["written"] == json!(true), file["same"] == json!(true))).collect()
    };
    let first = written(&output);
    assert_eq!(first[0], (false, false), "what a person wrote is left alone");
    assert!(first.len() > 1 && first[1..].iter().all(|file| *file == (true, true)), "{first:?}");
    assert_eq!(std::fs::read_to_string(&configuration).expect("a file"), "# mine");
    std::fs::write(dags.join("zookeeper_health.py"), "# mine too").expect("a file");
    let again = run_command(flowkeeper(&configuration, &["init", &target, "-o", "json"])).await;
    assert_eq!(written(&again).iter().filter(|file| **file == (false, false)).count(), 2, "{}", stdout(&again));
    assert_eq!(std::fs::read_to_string(dags.join("zookeeper_health.py")).expect("a file"), "# mine too");
    std::fs::remove_file(dags.join("zookeeper_health.py")).expect("it is removed");
    let repaired = run_command(flowkeeper(&configuration, &["init", &target, "-o", "json"])).await;
    assert_eq!(written(&repaired).iter().filter(|file| **file == (true, true)).count(), 1, "{}", stdout(&repaired));
    // Every DAG that the example configuration names is in a file beside it.
    let files = std::fs::read_dir(dags).expect("the DAGs").map(|file| file.expect("a file").path());
    let dags: String = files.map(|path| std::fs::read_to_string(path).expect("a DAG file")).collect();
    for line in flowkeeper::config::EXAMPLE.lines().filter(|line| line.starts_with("dag = ")) {
        let dag_id = line.split('"').nth(1).expect("a DAG id");
        assert!(dags.contains(&format!("\"{dag_id}\"")), "no DAG {dag_id}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let member = member_with_history().await;
    let script = format!(
        "set -o pipefail; {} -c {} next hourly-load -n 10000 | head -n 1",
        env!("CARGO_BIN_EXE_flowkeeper"),
        member.configuration().display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let output = run_command(command).await;
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert_eq!(stdout(&output).lines().count(), 1);
    member.stop().await;
}

#[tokio::test]
async fn following_tells_what_happens_as_it_happens() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let member = member_with_history().await;
    let mut child = tokio::process::Command::from(flowkeeper(&member.configuration(), &["runs", "-f", "-o", "json"]))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("news in time").expect("a pipe").expect("a line");
        serde_json::from_str(&line).expect("one object a line")
    };
    let first: Vec<_> = [next().await, next().await, next().await, next().await].map(|run| run["state"].clone()).into();
    assert_eq!(first, ["missed", "success", "failed", "pending"]);
    member.see(&dag_run_id("2026-11-22T09:00:00Z"), AirflowState::Running).await;
    assert_eq!(next().await["state"], "running");
    member.record("2026-11-22T10:00:00Z", RunState::Pending).await;
    assert_eq!(next().await["due_at"], "2026-11-22T10:00:00.000000Z");
    child.kill().await.expect("an end");
    member.stop().await;
}

#[tokio::test]
async fn why_explains_in_sentences() {
    let member = member_with_history().await;
    let output = run(&member, &["why", "hourly-load", "--at", "2026-11-22T07:30:00Z"]).await;
    insta::assert_snapshot!("why", stdout(&output));
    let missed = run(&member, &["why", "hourly-load", "--at", "2026-11-22T03:10:00Z", "-o", "json"]).await;
    let sentences = parsed(&missed)["sentences"].to_string();
    assert!(sentences.contains("is one of 6 from"), "{sentences}");
    let paused = stdout(&run(&member, &["why", "nightly"]).await);
    assert!(paused.contains("It is paused by configuration"), "{paused}");
    let znode = stdout(&run(&member, &["why", "on-flag"]).await);
    assert!(znode.contains("It has not looked at its znodes yet"), "{znode}");
    member.stop().await;
}

#[tokio::test]
async fn scripts_and_schema_are_printed_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let output = run_command(flowkeeper(directory.path(), &["completions", shell])).await;
        assert!(output.status.success() && stdout(&output).contains("backfill"), "{shell}");
    }
    let schema = parsed(&run_command(flowkeeper(directory.path(), &["schema"])).await);
    assert!(schema["properties"]["schedule"].is_object() || schema["$defs"].is_object(), "{schema}");
}

/// Passes connections on to `target`; of the first, the answer is lost after it took effect.
async fn losing_the_first_answer(listener: tokio::net::TcpListener, target: std::net::SocketAddr) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for connection in 0.. {
        let Ok((mut inbound, _)) = listener.accept().await else { return };
        let mut outbound = tokio::net::TcpStream::connect(target).await.expect("the member answers");
        if connection == 0 {
            let mut request = vec![0; 64 * 1024];
            let length = inbound.read(&mut request).await.expect("a request");
            outbound.write_all(&request[..length]).await.expect("a request is passed on");
            outbound.read_u8().await.expect("an answer begins");
        } else {
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await });
        }
    }
}

#[tokio::test]
async fn a_trigger_whose_answer_is_lost_is_one_run() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let between = listener.local_addr().expect("an address");
    let member = Member::start_with(&format!("advertise = \"http://{between}\""), "http://127.0.0.1:1").await;
    let proxy = tokio::spawn(losing_the_first_answer(listener, member.config.server.listen));
    let output = run(&member, &["trigger", "hourly-load", "-o", "json"]).await;
    assert_eq!(parsed(&output)["state"], "pending");
    let runs = parsed(&run(&member, &["runs", "-o", "json"]).await);
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "asked twice, recorded once");
    assert_eq!(member.actions().await, ["trigger hourly-load"]);
    proxy.abort();
    member.stop().await;
}

#[tokio::test]
async fn what_is_not_flowkeeper_is_said_so() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let other = listener.local_addr().expect("an address");
    let member = Member::start_with(&format!("advertise = \"http://{other}\""), "http://127.0.0.1:1").await;
    let page = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a connection");
        let mut request = [0; 4096];
        let _ = connection.read(&mut request).await.expect("a request");
        let body = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>";
        connection.write_all(body.as_bytes()).await.expect("an answer");
    });
    let output = run(&member, &["pause", "hourly-load"]).await;
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("is not flowkeeper"), "{}", stderr(&output));
    page.await.expect("no panic");
    member.stop().await;
}

//! The real binary with its ledger in PostgreSQL: served from, read, restarted under it, and kept out.

use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::postgres::{GUARDED, PASSWORD, PostgresServer, Stop};
use crate::support::process::Member;

fn config(airflow: &str) -> String {
    format!(
        r#"
[airflow.main]
url = "{airflow}"
auth = {{ username = "admin", password = {{ file = "password" }} }}

[[schedule]]
name = "tick"
owner = "platform"
cron = "* * * * * *"
dag = "tick"
catchup = "all"
overlap = "allow"
"#
    )
}

async fn member(store: &str) -> (FakeAirflow, Member) {
    let fake = FakeAirflow::start(World::default().with_dags(["tick"])).await;
    let member = Member::sharing(store, &config(&fake.url()));
    std::fs::write(member.path().join("password"), "admin").expect("a password");
    (fake, member)
}

/// How many seconds the rows cover, and how many seconds there were.
fn seconds(runs: &[Run]) -> (i64, i64) {
    let times: Vec<_> = runs.iter().filter_map(|run| run.nominal_time).collect();
    let (first, last) = (times.iter().min().expect("runs"), times.iter().max().expect("runs"));
    (runs.iter().map(|run| run.count).sum(), last.duration_since(*first).as_secs() + 1)
}

#[tokio::test]
async fn a_server_of_the_tests_own_keeps_its_data_however_it_ends() {
    let server = PostgresServer::start().await;
    let url = server.create_database().await;
    let database = url.rsplit('/').next().expect("the URL names a database");
    for (number, how) in [Stop::Fast, Stop::Immediate, Stop::Kill].into_iter().enumerate() {
        server.execute(database, &format!("CREATE TABLE t{number} (id BIGINT)")).await;
        server.restart(how).await;
        server.execute(database, &format!("INSERT INTO t{number} VALUES (1)")).await;
    }
}

#[tokio::test]
async fn what_a_member_serves_from_postgresql_can_be_read_while_it_serves_and_afterwards() {
    let (_fake, mut member) = member(&PostgresServer::shared().await.create_database().await).await;
    let unserved = member.json(&["schedules"]).await;
    assert_eq!(unserved[0]["name"], "tick", "nobody has served from it yet");
    member.start();
    member.armed().await;
    let triggered = member.post("schedules/tick/trigger", &json!({ "key": "by-hand", "conf": { "a": "\u{0}" } })).await;
    member.post("schedules/tick/pause", &json!({ "reason": "a \u{0} in it" })).await;
    member.post("schedules/tick/resume", &json!({})).await;
    member
        .wait_for_runs("some are accepted", |runs| runs.iter().filter(|run| run.state.was_accepted()).count() >= 3)
        .await;
    for serving in [true, false] {
        if !serving {
            assert_eq!(member.stop().await, Some(0), "{}", member.logged());
        }
        let runs = member.json(&["runs", "--schedule", "tick", "--owner", "platform", "--limit", "2"]).await;
        assert_eq!(runs.as_array().map(Vec::len), Some(2), "{runs}");
        let run = member.json(&["runs", triggered["dag_run_id"].as_str().expect("an id")]).await;
        assert_eq!((&run["conf"]["a"], &run["trigger"]), (&json!("\u{0}"), &json!("manual")));
        let stats = member.json(&["stats", "--by", "dag"]).await;
        assert!(stats[0]["group"] == "tick" && stats[0]["occurrences"].as_i64() >= Some(3), "{stats}");
        assert_eq!(member.json(&["schedules"]).await[0]["name"], "tick");
        assert!(member.run(&["why", "tick"]).await.status.success());
        let audit = member.json(&["audit"]).await;
        assert_eq!(audit.as_array().map(Vec::len), Some(3), "{audit}");
        assert!(audit.to_string().contains("a \u{fffd} in it"), "{audit}");
    }
}

#[tokio::test]
async fn a_member_goes_on_over_restarts_of_its_database() {
    let server = PostgresServer::start().await;
    let (fake, mut member) = member(&server.create_database().await).await;
    member.start();
    member.armed().await;
    for how in [Stop::Fast, Stop::Kill] {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        server.stop(how);
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.start_again().await;
    }
    let before = member.runs().await.len();
    member.wait_for_runs("it goes on", |runs| runs.len() > before + 3).await;
    assert_eq!(member.stop().await, Some(0), "{}", member.logged());
    let runs = member.runs().await;
    let (covered, passed) = seconds(&runs);
    assert_eq!(covered, passed, "each second once: {runs:#?}");
    let world = fake.world();
    let accepted = runs.iter().filter(|run| run.state != RunState::Pending && run.state.was_accepted());
    for run in accepted {
        assert!(world.run("tick", &run.dag_run_id).is_some(), "{} is in the ledger alone", run.dag_run_id);
    }
    for dag_run in world.runs() {
        assert!(runs.iter().any(|run| run.dag_run_id == dag_run.dag_run_id), "{} has no row", dag_run.dag_run_id);
    }
}

#[tokio::test]
async fn passwords_are_taken_from_where_users_of_postgresql_keep_them_and_never_shown() {
    let server = PostgresServer::shared().await;
    let url = server.create_database().await;
    let database = url.rsplit('/').next().expect("the URL names a database");
    server.execute("postgres", &format!("ALTER DATABASE {database} OWNER TO {GUARDED}")).await;
    let guarded = format!("postgres://{GUARDED}@127.0.0.1:{}/{database}", server.port());
    let (_fake, member) = member(&guarded).await;
    let pass = member.path().join("pgpass");
    let line = format!("127.0.0.1:{}:{database}:{GUARDED}:{}\n", server.port(), PASSWORD.replace(':', "\\:"));
    std::fs::write(&pass, line).expect("a file of passwords");
    std::fs::set_permissions(&pass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its rights");
    let file = pass.to_str().expect("a path in UTF-8");
    let cases = [
        (vec![("PGPASSWORD", PASSWORD)], 0),
        (vec![("PGPASSFILE", file)], 0),
        (vec![("STORE_PASSWORD", PASSWORD), ("FLOWKEEPER_STORE__PASSWORD", "{ env = \"STORE_PASSWORD\" }")], 0),
        (vec![("PGPASSWORD", "hunter2")], 3),
        (vec![("FLOWKEEPER_STORE__PASSWORD", "{ env = \"NOT_SET\" }")], 2),
    ];
    for (variables, code) in cases {
        for arguments in [["schedules"], ["serve"]] {
            // One that serves does not end by itself.
            if code == 0 && arguments == ["serve"] {
                continue;
            }
            let mut command = member.command(&arguments);
            command.env_remove("PGPASSWORD").envs(variables.iter().copied());
            let output = tokio::task::spawn_blocking(move || command.output()).await.expect("waited for");
            let output = output.expect("run flowkeeper");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{variables:?} {arguments:?}: {said}");
            assert!(code == 0 || said.contains("hint: "), "{said}");
            assert!(!said.contains("hunter2") && !said.contains(PASSWORD), "{said}");
        }
    }
}

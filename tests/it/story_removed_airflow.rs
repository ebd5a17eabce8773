//! A run whose Airflow is taken out of the configuration: everybody who looks is told why it stands still, and
//! what can be done.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::team::is_ready;

const OTHER: &str = "[airflow.other]\nurl = \"http://127.0.0.1:1\"\nauth = { token = { file = \"token\" } }\n";

#[tokio::test]
async fn a_run_of_an_airflow_that_was_removed_says_so_with_a_hint() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let config = format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ token = {{ file = \"token\" }} }}\n{OTHER}\
         [[schedule]]\nname = \"load\"\ncron = \"0 0 1 1 *\"\ndag = \"load\"\nairflow = \"other\"\n",
        fake.url()
    );
    let mut member = Member::new(&config);
    std::fs::write(member.path().join("token"), "t").expect("a token");
    fake.world().tokens.insert("t".to_owned());
    member.start();
    is_ready(&member).await;
    let run = member.json(&["trigger", "load", "--key", "one"]).await;
    let id = run["id"].to_string();
    let told = async |member: &Member| member.get(&format!("runs/{id}")).await.unwrap_or_default();
    assert!(told(&member).await["hint"].is_null());

    let main = member.path().join("flowkeeper.toml");
    let with = std::fs::read_to_string(&main).expect("the configuration");
    let without = with.replace(OTHER, "").replace("airflow = \"other\"", "airflow = \"main\"");
    std::fs::write(&main, without).expect("write the file");
    let end = Instant::now() + Duration::from_mins(3);
    let run = loop {
        let run = told(&member).await;
        if run["hint"].is_string() {
            break run;
        }
        assert!(Instant::now() < end, "{run:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let reason = "its Airflow `other` is not in the configuration any more, so it is not submitted";
    let hint = "put [airflow.other] back, and it goes on by itself; or give it up with `flowkeeper runs cancel`";
    let is_told = |run: &Value| {
        assert_eq!((&run["state"], &run["reason"], &run["hint"]), (&"pending".into(), &reason.into(), &hint.into()));
    };
    is_told(&run);
    is_told(&member.get("runs").await.expect("runs")["items"][0]);
    is_told(&member.json(&["runs", &id]).await);
    is_told(&member.json(&["runs"]).await[0]);
    for arguments in [&["runs", &id][..], &["runs"], &["why", "load"]] {
        let output = member.run(arguments).await;
        let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("`other` is not in the configuration"), "{arguments:?}: {text}");
        assert!(text.contains("put [airflow.other] back") || arguments == ["runs"], "{arguments:?}: {text}");
    }
    // What the hint says holds.
    std::fs::write(&main, &with).expect("write the file");
    while told(&member).await["hint"].is_string() {
        assert!(Instant::now() < end, "{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cancelled = member.json(&["runs", "cancel", &id, "--reason", "not needed"]).await;
    assert_eq!((&cancelled["state"], &cancelled["hint"]), (&"skipped".into(), &Value::Null));
}

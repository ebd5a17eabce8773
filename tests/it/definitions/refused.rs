//! Sets that are in order and that a member cannot use: something that they name is not on its host.

use super::*;

/// A set of one schedule whose Airflow asks for a secret that is in `place`.
fn needing(cluster: &Cluster, place: &str, schedules: &str) -> String {
    format!("{}auth = {{ token = {place} }}\n{schedules}", cluster.airflow_section())
}

fn write(cluster: &Cluster, text: &str) -> String {
    let path = cluster.directory.path().join("needing.toml");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// Waits until a member says of its definitions what is wanted.
async fn until(member: &Member, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let config = member.get("config").await;
        if let Some(config) = config.as_ref().filter(|config| wanted(config)) {
            return config.clone();
        }
        assert!(Instant::now() < end, "{what}: {config:#?}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn in_history(member: &Member, versions: usize) {
    let end = Instant::now() + PATIENCE;
    while member.json(&["config", "history"]).await.as_array().map(Vec::len) != Some(versions) {
        assert!(Instant::now() < end, "{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_lacks_a_file_is_taken_once_the_file_is_there() {
    let cluster = Cluster::start(2).await;
    let good = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &good]).await;
    cluster.agree(&["a"]).await;

    let file = write(&cluster, &needing(&cluster, "{ file = \"secrets/late\" }", &yearly("b")));
    let refused = cluster.first().json(&["config", "push", &file, "--force"]).await;
    assert_eq!(refused["members"]["refusing"].as_array().map(Vec::len), Some(2), "{refused}");
    for member in &cluster.members {
        let config = until(member, "the refusal", |config| !config["refused"].is_null()).await;
        let hint = config["refused"]["faults"][0]["hint"].as_str().expect("a hint");
        assert!(hint.contains("looks again by itself"), "{hint}");
    }
    cluster.agree(&["a"]).await;
    // Nobody pushes, reloads or restarts anything.
    for member in &cluster.members {
        std::fs::create_dir(member.path().join("secrets")).expect("a directory");
        std::fs::write(member.path().join("secrets/late"), "let-me-in").expect("written");
    }
    cluster.agree(&["b"]).await;
    for member in &cluster.members {
        until(member, "no refusal", |config| config["refused"].is_null()).await;
        assert_eq!(member.logged().matches("the newest definitions are refused").count(), 1, "said once");
    }
    // A newer set that lacks the same is the one that is shown.
    let more = needing(&cluster, "{ file = \"secrets/later\" }", &yearly("c"));
    for text in [more.clone(), more + "# again\n"] {
        let file = write(&cluster, &text);
        let pushed = cluster.first().json(&["config", "push", &file, "--force"]).await;
        let is_newest = |config: &Value| config["refused"]["provenance"]["version"] == pushed["version"];
        until(cluster.first(), "the refusal of the newest", is_newest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_starts_with_a_refused_set_begins_with_the_last_good_one() {
    let mut cluster = Cluster::start(1).await;
    let every_second = yearly("a").replace("0 0 1 1 *", "* * * * * *") + "overlap = \"allow\"\n";
    let file = cluster.write("d.toml", &every_second);
    let pushed = cluster.first().json(&["config", "push", &file]).await;
    let good = pushed["version"].clone();
    cluster.agree(&["a"]).await;
    in_history(cluster.first(), 1).await;

    // The desk takes it, since checking needs no secret; every member refuses it.
    let text = needing(&cluster, "{ env = \"AIRFLOW_TOKEN_OF_NOBODY\" }", &yearly("b"));
    let file = write(&cluster, &text);
    cluster.first().run(&["config", "push", &file, "--force"]).await;
    let is_refused = |config: &Value| config["refused"]["faults"][0]["key"] == "airflow.main.auth.token";
    until(cluster.first(), "the refusal", is_refused).await;

    cluster.members[0].kill();
    let runs_before = cluster.runs().await;
    cluster.members[0].start();
    let config = until(cluster.first(), "the refusal after the start", is_refused).await;
    assert_eq!((&config["in_force"]["version"], &config["in_force"]["source"]), (&good, &json!("ledger")));
    cluster.agree(&["a"]).await;
    assert!(cluster.first().get("members").await.expect("members")["items"][0]["refuses"].is_string());
    assert_eq!(cluster.first().logged().matches("the newest definitions are refused").count(), 2);
    // Cron goes on.
    let end = Instant::now() + PATIENCE;
    while cluster.runs().await < runs_before + 3 {
        assert!(Instant::now() < end, "{}", cluster.first().logged());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A set that can be used ends it.
    let file = cluster.write("d.toml", &(every_second + &yearly("c")));
    cluster.first().json(&["config", "push", &file, "--force"]).await;
    cluster.agree(&["a", "c"]).await;
    until(cluster.first(), "no refusal", |config| config["refused"].is_null()).await;
}

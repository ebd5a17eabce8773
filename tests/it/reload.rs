//! Definitions that change while a member serves: the real binary, its files, and a fake Airflow.

use std::path::Path;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::process::Member;
use crate::support::zookeeper::{ZooKeeperServer, create};

/// How soon a change is to be in force.
const SOON: Duration = Duration::from_secs(1);

/// The same on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(4);

pub(crate) fn airflow(fake: &FakeAirflow) -> String {
    format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n",
        fake.url()
    )
}

pub(crate) fn cron(name: &str, cron: &str, more: &str) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\ncron = \"{cron}\"\ndag = \"load\"\noverlap = \"allow\"\ncatchup = \"all\"\n{more}\n"
    )
}

/// A member whose definitions are in `schedules/`.
async fn serving(fake: &FakeAirflow, schedules: &str) -> Member {
    let mut member = Member::new(&airflow(fake));
    member.include_schedules();
    save(&member.path().join("password"), "admin");
    save(&member.path().join("schedules/a.toml"), schedules);
    member.start();
    member.armed().await;
    member
}

pub(crate) fn save(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("make the directory");
    std::fs::write(path, text).expect("write the file");
}

pub(crate) async fn fake() -> FakeAirflow {
    FakeAirflow::start(World::default().with_dags(["load"])).await
}

/// Waits until the definitions are as wanted; how long that took.
pub(crate) async fn until(member: &Member, what: &str, wanted: impl Fn(&Value) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let config = member.get("config").await;
        if config.as_ref().is_some_and(&wanted) {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {config:#?}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn version(member: &Member) -> String {
    member.get("config").await.expect("an answer")["in_force"]["version"].as_str().expect("a version").to_owned()
}

/// Waits until another version is in force; which, and how long that took.
pub(crate) async fn another(member: &Member, before: &str) -> (String, Duration) {
    let took = until(member, "another version", |config| config["in_force"]["version"] != before).await;
    (version(member).await, took)
}

pub(crate) async fn reload(member: &Member) -> (StatusCode, Value) {
    let url = format!("{}/api/v1/config/reload", member.url());
    let answer = reqwest::Client::new().post(url).json(&json!({"reason": "a test"})).send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

pub(crate) fn names(schedules: &Value) -> Vec<String> {
    let items = schedules["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["name"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn of<'r>(runs: &'r [Run], schedule: &str) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.schedule == schedule).collect()
}

/// Every second from the first nominal time to the last is covered once, and none twice.
pub(crate) fn without_a_gap(runs: &[&Run], seconds: i64) {
    let mut times: Vec<Timestamp> = runs.iter().filter_map(|run| run.nominal_time).collect();
    times.sort_unstable();
    for pair in times.windows(2) {
        assert_eq!(pair[1].duration_since(pair[0]), SignedDuration::from_secs(seconds), "{pair:?}");
    }
}

#[tokio::test]
async fn a_saved_file_is_in_force_within_a_second_and_disturbs_nothing_else() {
    let fake = fake().await;
    let beside = cron("beside", "* * * * * *", "");
    let member = serving(&fake, &beside).await;
    let file = member.path().join("schedules/a.toml");
    let mut before = version(&member).await;

    // Saved in place.
    save(&file, &(beside.clone() + &cron("new", "* * * * * *", "")));
    let (now, saved) = another(&member, &before).await;
    before = now;
    assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["beside", "new"]);
    member.wait_for_runs("runs under the first name", |runs| !of(runs, "new").is_empty()).await;

    // Another file, renamed over it.
    save(&member.path().join("tmp"), &(beside.clone() + &cron("newer", "* * * * * *", "was = \"new\"")));
    std::fs::rename(member.path().join("tmp"), &file).expect("rename");
    let (now, renamed) = another(&member, &before).await;
    before = now;
    assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["beside", "newer"]);
    let under_its_name = |runs: &[Run]| runs.iter().any(|run| run.dag_run_id.starts_with("flowkeeper__newer__"));
    member.wait_for_runs("a run under the second name", under_its_name).await;

    // One more file, which a glob finds.
    save(&member.path().join("schedules/b.toml"), &cron("more", "* * * * * *", ""));
    let (now, found) = another(&member, &before).await;
    before = now;

    // The directory swapped by a link, as Kubernetes does.
    let directory = member.path().to_path_buf();
    save(&directory.join("..two/a.toml"), &beside);
    std::os::unix::fs::symlink("..two", directory.join("link")).expect("link");
    std::fs::rename(directory.join("schedules"), directory.join("..one")).expect("rename");
    std::fs::rename(directory.join("link"), directory.join("schedules")).expect("rename");
    let (now, swapped) = another(&member, &before).await;
    before = now;
    assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["beside"]);

    let mut took = vec![saved, renamed, found, swapped];
    // Each is, but for a machine that is busy with other tests.
    while !took.iter().any(|took| *took <= SOON) {
        assert!(took.len() < 24, "in force within a second: {took:?}");
        save(&file, &format!("{beside}# {}\n", took.len()));
        let (now, again) = another(&member, &before).await;
        before = now;
        took.push(again);
    }
    println!("in force after {took:?}");

    member.wait_for_runs("some more seconds", |runs| of(runs, "beside").len() >= 8).await;
    let runs = member.runs().await;
    without_a_gap(&of(&runs, "beside"), 1);
    // What was renamed goes on where it was, under both names.
    without_a_gap(&of(&runs, "newer"), 1);
    let ids: Vec<_> =
        of(&runs, "newer").iter().map(|run| run.dag_run_id.split("__").nth(1).unwrap_or_default().to_owned()).collect();
    assert!(ids.contains(&"new".to_owned()) && ids.contains(&"newer".to_owned()), "{ids:?}");
    assert!(runs.iter().all(|run| run.state != RunState::Missed && run.state != RunState::Skipped), "{runs:#?}");
}

#[tokio::test]
async fn a_bad_set_is_refused_and_seen_and_a_good_one_ends_that() {
    let fake = fake().await;
    let good = cron("a", "* * * * * *", "");
    let member = serving(&fake, &good).await;
    let file = member.path().join("schedules/a.toml");
    let before = version(&member).await;

    save(&file, &good.replace("dag =", "dga ="));
    until(&member, "the refusal", |config| !config["refused"].is_null()).await;
    let config = member.get("config").await.expect("an answer");
    assert_eq!(config["in_force"]["version"], before.as_str());
    let fault = &config["refused"]["faults"][0];
    assert!(
        fault["file"].as_str().expect("text").ends_with("schedules/a.toml") && fault["line"].as_u64() > Some(0),
        "{fault}"
    );
    assert!(member.get("members").await.expect("members")["items"][0]["refuses"].is_string());
    assert!(member.text("metrics").await.expect("an answer").contains("flowkeeper_definitions_refused 1"));
    assert_eq!(member.logged().matches("the newest definitions are refused").count(), 1, "{}", member.logged());

    let (status, problem) = reload(&member).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    assert_eq!(problem["faults"][0]["key"], fault["key"], "{problem}");
    assert_eq!(member.logged().matches("the newest definitions are refused").count(), 1, "said once");

    // A secret that is not there is a fault as well: the client needs it.
    let other = "[airflow.other]\nurl = \"http://127.0.0.1:1\"\nauth = { token = { file = \"nowhere\" } }\n";
    save(&member.path().join("schedules/b.toml"), other);
    save(&file, &good.replace("dag =", "airflow = \"main\"\ndag ="));
    until(&member, "the other refusal", |config| config["refused"]["faults"][0]["key"] == "airflow.other.auth.token")
        .await;

    let runs_so_far = of(&member.runs().await, "a").len();
    std::fs::remove_file(member.path().join("schedules/b.toml")).expect("remove");
    until(&member, "no refusal", |config| config["refused"].is_null()).await;
    let (status, applied) = reload(&member).await;
    assert_eq!((status, applied["version"] != before.as_str()), (StatusCode::OK, true), "{applied}");
    member.wait_for_runs("more runs", |runs| of(runs, "a").len() > runs_so_far + 2).await;
    without_a_gap(&of(&member.runs().await, "a"), 1);
    let audit = member.get("audit").await.expect("an answer");
    assert_eq!(audit["items"][0]["action"], "reload", "{audit}");
}

#[tokio::test]
async fn what_has_become_empty_ends_nothing_until_somebody_says_that_it_is_meant() {
    let fake = fake().await;
    let member = serving(&fake, &cron("a", "@daily", "")).await;
    let (main, file) = (member.path().join("flowkeeper.toml"), member.path().join("schedules/a.toml"));
    let text = std::fs::read_to_string(&main).expect("the configuration");
    let refused = |config: &Value| !config["refused"].is_null();
    // As a save that stops half-way leaves it, on a disk that is full for example.
    for (path, whole) in [(&main, text.clone()), (&file, cron("a", "@daily", ""))] {
        save(path, "");
        until(&member, "a refusal", refused).await;
        assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["a"]);
        save(path, &whole);
        until(&member, "what was in force", |config| !refused(config)).await;
    }
    std::fs::remove_file(&file).expect("remove");
    let config = until(&member, "a glob without files", refused).await;
    assert!(member.logged().contains("no file matches \"schedules/*.toml\" any more"), "{config:?}");
    assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["a"]);
    member.signal("HUP");
    until(&member, "no schedules", |config| config["schedules"] == 0 && !refused(config)).await;
}

#[tokio::test]
async fn signals_and_requests_read_the_files_again_and_say_what_came_of_it() {
    let fake = fake().await;
    let member = serving(&fake, &cron("a", "@daily", "")).await;
    let file = member.path().join("schedules/a.toml");
    let (status, applied) = reload(&member).await;
    assert_eq!((status, &applied["version"]), (StatusCode::OK, &applied["version_before"]), "nothing has changed");

    save(&file, &(cron("a", "@hourly", "") + &cron("b", "@daily", "")));
    let (status, applied) = reload(&member).await;
    assert_eq!(status, StatusCode::OK, "{applied}");
    let expected = json!({"added": ["b"], "changed": ["a"], "removed": [], "renamed": {}});
    // The follower may have been faster.
    assert!(applied["changes"] == expected || applied["version"] == version(&member).await, "{applied}");
    assert_eq!(names(&member.get("schedules").await.expect("an answer")), ["a", "b"]);

    let before = version(&member).await;
    save(&file, &cron("c", "@daily", ""));
    member.signal("HUP");
    another(&member, &before).await;

    // What is read at the start only is told, and stays.
    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    save(&main, &text.replace("level = \"debug\"", "level = \"trace\""));
    until(&member, "a section that needs a restart", |config| config["restart"] == json!(["log"])).await;
    assert!(member.logged().contains("they stay as they were"), "{}", member.logged());
}

#[tokio::test]
async fn an_edited_schedule_fires_by_one_rule_at_a_time() {
    let fake = fake().await;
    let beside = cron("beside", "* * * * * *", "");
    let even = cron("job", "*/2 * * * * *", "");
    let odd = cron("job", "1-59/2 * * * * *", "");
    let member = serving(&fake, &(beside.clone() + &even)).await;
    let file = member.path().join("schedules/a.toml");
    let mut before = version(&member).await;
    // From when until when a rule was in force for certain; around an edit either may have been.
    let mut rules: Vec<(Timestamp, Timestamp, &String)> = Vec::new();
    let (none, mut since, mut rule) = (String::new(), Clock::system().now(), &even);
    // Edited, rolled back, deleted and recreated, again and again.
    for text in [&odd, &even, &none, &even, &odd, &none, &odd, &even] {
        tokio::time::sleep(Duration::from_millis(2_300)).await;
        rules.push((since, Clock::system().now(), rule));
        save(&file, &(beside.clone() + text));
        before = another(&member, &before).await.0;
        (since, rule) = (Clock::system().now(), text);
    }
    let of_the_last = |runs: &[Run]| of(runs, "job").iter().filter(|run| run.due_at > since).count() >= 2;
    let runs = member.wait_for_runs("runs by the last rule", of_the_last).await;
    // What has come due since these were read is not among them.
    let last = of(&runs, "beside").iter().map(|run| run.due_at).max().expect("runs");
    rules.push((since, last, rule));
    without_a_gap(&of(&runs, "beside"), 1);
    let job = of(&runs, "job");
    assert!(job.len() >= 8, "{job:#?}");
    let mut times: Vec<_> = job.iter().filter_map(|run| run.nominal_time).collect();
    let count = times.len();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), count, "no time twice");
    assert!(job.iter().all(|run| run.count == 1), "{job:#?}");
    // Every time that the rule in force had, and no other: an edited rule makes nothing due of before.
    for (from, to, rule) in rules {
        let within = |time: &Timestamp| *time > from && *time < to - SignedDuration::from_secs(1);
        let found: Vec<_> = times.iter().copied().filter(within).collect();
        let is_due = |second: &i64| rule != &none && (second % 2 == 0) == (rule == &even);
        let seconds = (from.as_second()..=to.as_second()).filter(is_due);
        let times = seconds.map(|second| Timestamp::from_second(second).expect("a time"));
        let due: Vec<_> = times.filter(within).collect();
        assert_eq!(found, due, "from {from} to {to} by {rule:?}");
    }
}

#[tokio::test]
async fn a_znode_trigger_that_is_added_watches_at_once_in_every_ensemble() {
    let zookeeper = ZooKeeperServer::shared().await;
    let place = format!("/reload-{}", uuid::Uuid::new_v4().simple());
    let fake = fake().await;
    let ensembles = format!(
        "[zookeeper]\nconnect = \"{connect}\"\nroot = \"{place}/root\"\n[ensemble.other]\nconnect = \"{connect}\"\n\
         interval = \"1h\"\n",
        connect = zookeeper.connect()
    );
    let znode = |name: &str, ensemble: &str| {
        format!("[[schedule]]\nname = \"{name}\"\nznode = {{ path = \"{place}/{name}\"{ensemble} }}\ndag = \"load\"\n")
    };
    let first = znode("at-home", "") + &znode("elsewhere", ", ensemble = \"other\"");
    let mut member = Member::new(&(ensembles + &airflow(&fake)));
    save(&member.path().join("password"), "admin");
    let file = member.path().join("flowkeeper.toml");
    let before = std::fs::read_to_string(&file).expect("the configuration");
    save(&file, &format!("{before}{first}"));
    member.start();
    member.armed().await;

    let more = znode("also-at-home", "") + &znode("also-elsewhere", ", ensemble = \"other\"");
    let version = version(&member).await;
    save(&file, &format!("{before}{first}{more}"));
    another(&member, &version).await;
    let began = Instant::now();
    member.armed().await;
    println!("armed after {:?}", began.elapsed());

    let client = zookeeper.client().await;
    for name in ["at-home", "elsewhere", "also-at-home", "also-elsewhere"] {
        create(&client, &format!("{place}/{name}"), b"").await;
    }
    let runs = member.wait_for_runs("each trigger fires once", |runs| runs.len() == 4).await;
    assert!(runs.iter().all(|run| run.reason.is_none()), "{runs:#?}");
}

#[tokio::test]
async fn an_airflow_that_moves_is_followed_and_one_that_goes_keeps_its_runs() {
    let (one, two) = (fake().await, fake().await);
    let member = serving(&one, &cron("a", "* * * * * *", "")).await;
    let sent = |fake: &FakeAirflow| fake.world().runs().len();
    member.wait_for_runs("runs in the first", |runs| runs.iter().any(|run| run.state != RunState::Pending)).await;

    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    let before = version(&member).await;
    save(&main, &text.replace(&one.url(), &two.url()));
    let (before, _) = another(&member, &before).await;
    let at_change = sent(&one);
    member.wait_for_runs("runs in the second", |_| sent(&two) >= 2).await;
    assert!(sent(&one) <= at_change + 1, "{} and {}", sent(&one), at_change);

    // Renamed: the runs of the old name stay as they are until it is back.
    let moved = std::fs::read_to_string(&main).expect("the configuration");
    save(&main, &moved.replace("[airflow.main]", "[airflow.other]"));
    let (before, _) = another(&member, &before).await;
    let open = member.runs().await.iter().filter(|run| run.airflow == "main" && run.state.is_open()).count();
    assert!(open > 0);
    member.wait_for_runs("runs of the other name", |runs| runs.iter().any(|run| run.airflow == "other")).await;
    save(&main, &moved);
    another(&member, &before).await;
    let ids: Vec<_> = two.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
    for id in ids {
        two.world().set_state("load", &id, State::Success);
    }
    member
        .wait_for_runs("ends", |runs| {
            runs.iter().filter(|run| run.airflow == "main" && run.state == RunState::Success).count() >= 2
        })
        .await;
}

#[tokio::test]
async fn the_same_text_in_another_directory_names_other_secrets() {
    let fake = fake().await;
    let mut member = Member::new("");
    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    save(&main, &format!("include = [\"*/airflow.toml\"]\n{text}{}", cron("a", "* * * * * *", "airflow = \"main\"")));
    save(&member.path().join("one/airflow.toml"), &airflow(&fake));
    save(&member.path().join("one/password"), "admin");
    member.start();
    member.armed().await;
    let before = member.get("config").await.expect("an answer");
    // The secret does not move along.
    save(&member.path().join("two/airflow.toml"), &airflow(&fake));
    std::fs::remove_file(member.path().join("one/airflow.toml")).expect("remove");
    until(&member, "what it names is missing", |config| {
        config["refused"]["faults"][0]["key"] == "airflow.main.auth.password"
    })
    .await;
    save(&member.path().join("two/password"), "admin");
    until(&member, "in force", |config| config["refused"].is_null() && config["since"] != before["since"]).await;
    assert_eq!(version(&member).await, before["in_force"]["version"].as_str().expect("a version"));
}

#[tokio::test]
async fn a_member_that_is_killed_while_it_reloads_loses_and_doubles_nothing() {
    let fake = fake().await;
    let beside = cron("beside", "* * * * * *", "");
    let mut member = serving(&fake, &beside).await;
    let file = member.path().join("schedules/a.toml");
    for round in 0..6_u64 {
        let job = cron("job", if round % 2 == 0 { "*/2 * * * * *" } else { "1-59/2 * * * * *" }, "");
        save(&file, &(beside.clone() + &job));
        tokio::time::sleep(Duration::from_millis(150 + 90 * round)).await;
        member.kill();
        member.start();
        member.armed().await;
    }
    member.wait_for_runs("runs after the last start", |runs| of(runs, "beside").len() >= 8).await;
    let runs = member.runs().await;
    without_a_gap(&of(&runs, "beside"), 1);
    let mut ids: Vec<_> = runs.iter().map(|run| &run.dag_run_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), runs.len());
    let in_airflow = fake.world().runs().len();
    assert!(in_airflow <= runs.len(), "{in_airflow} DAG runs for {} rows", runs.len());
}

#[tokio::test]
async fn ten_thousand_schedules_go_over_at_once() {
    let fake = fake().await;
    let many = |hour: usize| -> String {
        let one = |index: usize| cron(&format!("s{index}"), &format!("{} {hour} * * *", index % 60), "");
        (0..10_000).map(one).collect()
    };
    let beside = cron("beside", "* * * * * *", "");
    let member = serving(&fake, &(beside.clone() + &many(3))).await;
    let file = member.path().join("schedules/a.toml");
    let before = version(&member).await;
    save(&file, &(beside.clone() + &many(4)));
    let (before, edited) = another(&member, &before).await;
    save(&file, &(beside.clone() + &many(4) + &cron("one-more", "@daily", "")));
    let (before, added) = another(&member, &before).await;
    save(&file, &beside);
    let (_, removed) = another(&member, &before).await;
    println!("10,000 schedules: all edited {edited:?}, one more {added:?}, all removed {removed:?}");
    let runs = member.runs().await;
    without_a_gap(&of(&runs, "beside"), 1);
    assert!(runs.iter().all(|run| run.schedule == "beside"), "none of the others was due");
}

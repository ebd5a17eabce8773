//! Variables, pools and connections that follow znodes, with the real binary, a real ZooKeeper, and
//! Airflows that are real or unkind.

use std::time::{Duration, Instant};

use flowkeeper::airflow::entries::{Care, Change};
use flowkeeper::domain::sync::entry::{EntryKind, EntryValue};
use flowkeeper::domain::sync::shown::Fields;
use serde_json::{Map, Value, json};

use crate::support::airflow::{alone, unique};
use crate::support::fake_airflow::{FakeAirflow, Fault, Version, World};
use crate::support::real_airflow::RealAirflow;
use crate::support::sync_story::{PATIENCE, Story, VARIABLES, one, steps};
use crate::support::zookeeper::ZooKeeperServer;

/// A password that must not be found anywhere.
const SECRET: &str = "hush-4711-hush";

const THREE_KINDS: &str = r#"
[[sync]]
name = "variables"
znode = { path = "{root}/variables" }
to = "variables"
prefix = "{tag}_"
prune = true
interval = "10s"

[[sync]]
name = "pools"
znode = { path = "{root}/pools", watch = "node" }
to = "pools"
prefix = "{tag}_"
prune = true
interval = "10s"

[[sync]]
name = "connections"
znode = { path = "{root}/connections", watch = "subtree", separator = "_" }
to = "connections"
prefix = "{tag}_"
prune = true
interval = "10s"
"#;

/// Everything that a sync does with each kind, on one Airflow.
async fn all_kinds_follow_their_znodes(url: &str, login: (&str, &str)) {
    let server = ZooKeeperServer::shared().await;
    let tag = format!("fk{}", &unique()[..8]);
    let key = |name: &str| format!("{tag}_{name}");
    let mut story = Story::prepare(server, url, login, &THREE_KINDS.replace("{tag}", &tag)).await;
    // Somebody else's, which one of the znodes wants too.
    let theirs = flowkeeper::airflow::entries::Outgoing {
        key: key("theirs"),
        value: EntryValue::Variable("by hand".to_owned()),
        description: "mine".to_owned(),
    };
    let made = story.airflow.change_entries(EntryKind::Variables, Change::Create(vec![theirs]), Care::Together).await;
    assert!(made.error.is_none(), "{made:?}");
    for (path, data) in [
        ("variables", ""),
        ("variables/url", "http://a"),
        ("variables/limits", r#"{"cpu": 1.50, "token": "t"}"#),
        ("variables/theirs", "ours"),
        ("pools", r#"{"etl": 4, "reports": {"slots": 2, "description": "Night", "include_deferred": true}}"#),
        ("connections", ""),
        ("connections/dwh", &format!("postgres://etl:{SECRET}@db:5432/dwh?sslmode=require")),
        ("connections/api", ""),
        ("connections/api/test", r#"{"conn_type": "http", "host": "h", "extra": {"a": 1}}"#),
    ] {
        story.create(path, data).await;
    }
    story.member.start();
    let state = story.until("variables", "first", |state| state["counts"]["in_step"] == 2).await;
    assert_eq!(steps(&state), one(&key("theirs"), "conflict"));
    story.in_step("pools", 2).await;
    story.in_step("connections", 2).await;
    assert_eq!(story.variable(&key("url")).await.as_deref(), Some("http://a"));
    assert_eq!(story.variable(&key("theirs")).await.as_deref(), Some("by hand"));
    let pools = story.entries(EntryKind::Pools).await;
    let description = pools[&key("reports")].description.clone().expect("a description");
    assert!(description.starts_with("Night (flowkeeper sync pools, store "), "{description}");
    assert!(matches!(pools[&key("etl")].fields, Fields::Pool { slots: 4, include_deferred: false }));
    let connections = story.entries(EntryKind::Connections).await;
    assert!(connections.contains_key(&key("api_test")) && connections.contains_key(&key("dwh")));
    assert!(!connections.contains_key(&key("api")), "a znode that only holds others is no entry");

    // What changes, comes and goes.
    story.set("variables/url", "http://b").await;
    story.create("variables/new", "1").await;
    story.delete("variables/limits").await;
    story.set("pools", r#"{"etl": 5}"#).await;
    story.set("connections/dwh", "postgres://etl@db/dwh").await;
    story.delete("connections/api/test").await;
    story.until_variable(&key("url"), Some("http://b")).await;
    story.until_variable(&key("new"), Some("1")).await;
    story.until_variable(&key("limits"), None).await;
    story.in_step("pools", 1).await;
    // `api` holds nothing any more, so it is a znode without data, which is no connection.
    let state = story.until("connections", "one left", |state| state["counts"]["in_step"] == 1).await;
    assert_eq!(steps(&state), one(&key("api"), "fault"));
    assert!(!story.entries(EntryKind::Pools).await.contains_key(&key("reports")));
    assert!(!story.entries(EntryKind::Connections).await.contains_key(&key("api_test")));

    // On Airflow 3, where it is seen whether there is a password, it is gone as well.
    let dwh = story.entries(EntryKind::Connections).await.remove(&key("dwh")).expect("it is there");
    let wanted = EntryValue::read(EntryKind::Connections, json!("postgres://etl@db/dwh")).expect("a connection");
    assert!(dwh.compare(&wanted).is_same(), "{:?}", dwh.compare(&wanted));

    // A change by hand is told, and undone when that is asked for.
    let by_hand = EntryValue::Variable("by hand".to_owned());
    let description = story.entries(EntryKind::Variables).await[&key("new")].description.clone().unwrap_or_default();
    let edit = flowkeeper::airflow::entries::Outgoing { key: key("new"), value: by_hand, description };
    let edited = story.airflow.change_entries(EntryKind::Variables, Change::Update(vec![edit]), Care::Together).await;
    assert!(edited.done.contains(&key("new")), "{edited:?}");
    let report = story.apply("variables", json!({"dry_run": true})).await;
    assert_eq!(steps(&report), [one(&key("new"), "drift"), one(&key("theirs"), "conflict")].concat());
    assert_eq!(story.variable(&key("new")).await.as_deref(), Some("by hand"));
    let output = story.member.run(&["sync", "diff", "variables"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("drift") && told.contains("changed in Airflow: value"), "{told}");
    let report = story.apply("variables", json!({"repair": true, "reason": "as it was"})).await;
    assert_eq!((steps(&report), &report["written"]["update"]), (one(&key("theirs"), "conflict"), &json!(1)));
    assert_eq!(story.variable(&key("new")).await.as_deref(), Some("1"));
    assert_eq!(story.variable(&key("theirs")).await.as_deref(), Some("by hand"));
    let output = story.member.run(&["sync", "diff", "pools"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    // When nothing is left at all, somebody has to say that this is meant.
    story.set("pools", "{}").await;
    let state = story.until("pools", "held", |state| state["guard"].is_string()).await;
    assert_eq!(steps(&state), one(&key("etl"), "held"));
    let applied = story.member.run(&["sync", "apply", "pools", "--prune", "--reason", "moved"]).await;
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert!(!story.entries(EntryKind::Pools).await.contains_key(&key("etl")));

    // The password is nowhere but in ZooKeeper and in Airflow.
    let api = story.member.get("sync").await.expect("it answers").to_string();
    let diff = story.member.run(&["-o", "json", "sync", "diff"]).await;
    let mut places = vec![api.into_bytes(), story.member.logged().into_bytes(), diff.stdout, diff.stderr];
    assert_eq!(story.member.stop().await, Some(0));
    for file in std::fs::read_dir(story.member.path()).expect("the directory").flatten() {
        places.push(std::fs::read(file.path()).unwrap_or_default());
    }
    for place in places {
        assert!(!place.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "the password is told");
    }
    for (kind, names) in [(EntryKind::Variables, vec!["url", "new", "theirs"]), (EntryKind::Connections, vec!["dwh"])] {
        let keys = names.into_iter().map(key).collect();
        story.airflow.change_entries(kind, Change::Delete(keys), Care::Together).await;
    }
}

#[tokio::test]
async fn all_kinds_follow_their_znodes_in_the_fakes() {
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        all_kinds_follow_their_znodes(&fake.url(), ("admin", "admin")).await;
    }
}

#[tokio::test]
async fn all_kinds_follow_their_znodes_in_a_real_airflow_3() {
    let _alone = alone().await;
    let real = RealAirflow::three();
    let (username, password) = real.login();
    all_kinds_follow_their_znodes(&real.url(), (&username, &password)).await;
}

#[tokio::test]
async fn all_kinds_follow_their_znodes_in_a_real_airflow_2() {
    let _alone = alone().await;
    let real = RealAirflow::two();
    let (username, password) = real.login();
    all_kinds_follow_their_znodes(&real.url(), (&username, &password)).await;
}

#[tokio::test]
async fn a_thousand_variables_then_ten_changed_take_about_ten_requests() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let mut story =
        Story::with_fake(server, &fake, &VARIABLES.replace("interval = \"10s\"", "interval = \"1h\"")).await;
    story.create("variables", "").await;
    for number in 0..1000 {
        story.create(&format!("variables/v{number}"), "before").await;
    }
    story.member.start();
    story.in_step("variables", 1000).await;
    let requests = |fake: &FakeAirflow| (fake.count("entries"), fake.count("entries_bulk"));
    // The list is empty at first, and 100 entries go in a request.
    assert_eq!(requests(&fake), (1, 10));
    for number in 0..10 {
        story.set(&format!("variables/v{number}"), "after").await;
    }
    story.until_variable("v9", Some("after")).await;
    story.in_step("variables", 1000).await;
    let (lists, bulk) = requests(&fake);
    // Ten changes may come in two groups. This story's own looks at the list are ten requests each.
    assert!((11..=12).contains(&bulk), "{bulk} requests for many");
    assert!(lists <= 1 + 10 * 2 + 10 * 60, "{lists} pages");
    let changed = |entry: &&Map<String, Value>| entry["value"] == "after";
    assert_eq!(fake.world().entries("variables").iter().filter(changed).count(), 10);
}

#[tokio::test]
async fn a_thousand_variables_go_into_a_real_airflow_3_in_seconds() {
    let _alone = alone().await;
    let (server, real) = (ZooKeeperServer::shared().await, RealAirflow::three());
    let (username, password) = real.login();
    let tag = format!("fk{}_", &unique()[..8]);
    let syncs = VARIABLES.replace("interval = \"10s\"", &format!("interval = \"1h\"\nprefix = \"{tag}\""));
    let mut story = Story::prepare(server, &real.url(), (&username, &password), &syncs).await;
    story.create("variables", "").await;
    for number in 0..1000 {
        story.create(&format!("variables/v{number}"), "before").await;
    }
    let begun = Instant::now();
    story.member.start();
    story.in_step("variables", 1000).await;
    let first = begun.elapsed();
    let begun = Instant::now();
    for number in 0..10 {
        story.set(&format!("variables/v{number}"), "after").await;
    }
    let end = Instant::now() + PATIENCE;
    while story.state("variables").await.is_none_or(|state| state["written"]["update"].is_null()) {
        assert!(Instant::now() < end, "{}", story.member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ten = begun.elapsed();
    println!("1000 variables: {first:?} from the start of the process; 10 changed: {ten:?}");
    story.until_variable(&format!("{tag}v9"), Some("after")).await;
    let keys = (0..1000).map(|number| format!("{tag}v{number}")).collect();
    let deleted = story.airflow.change_entries(EntryKind::Variables, Change::Delete(keys), Care::Together).await;
    assert_eq!(deleted.done.len(), 1000, "{:?}", deleted.error);
}

#[tokio::test]
async fn an_airflow_that_was_away_is_brought_into_step_when_it_is_back() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let address = fake.address().to_string();
    let mut story = Story::with_one_variable(server, &fake).await;
    let world = fake.stop().await;
    story.set("variables/a", "2").await;
    story.create("variables/b", "1").await;
    let state = story.until("variables", "failing", |state| state["state"] == "failing").await;
    assert!(state["error"].as_str().is_some_and(|error| error.contains("list the variables")), "{state}");
    let metrics = story.member.text("metrics").await.expect("metrics");
    assert!(metrics.contains("flowkeeper_sync_failing{sync=\"variables\"} 1"), "{metrics}");
    let diff = story.member.run(&["sync", "diff"]).await;
    assert_eq!(diff.status.code(), Some(3), "{}", String::from_utf8_lossy(&diff.stdout));
    let fake = FakeAirflow::start_on(world, &address).await;
    story.in_step("variables", 2).await;
    assert_eq!(story.variable("a").await.as_deref(), Some("2"));
    assert_eq!(fake.world().entries("variables").len(), 2);
}

#[tokio::test]
async fn a_copy_that_somebody_made_in_airflow_is_kept_until_somebody_says_so() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let story = Story::with_one_variable(server, &fake).await;
    // Airflow's page copies the description as well, and with it the mark.
    let mut copy = fake.world().entries("variables")[0].clone();
    copy.insert("key".to_owned(), json!("a_copy"));
    fake.world().entries_mut("variables").push(copy);
    let report = story.apply("variables", json!({})).await;
    assert_eq!(steps(&report), one("a_copy", "held"));
    assert_eq!(story.variable("a_copy").await.as_deref(), Some("1"));
    let report = story.apply("variables", json!({"prune": true, "reason": "not needed"})).await;
    assert_eq!((steps(&report), &report["written"]["delete"]), (vec![], &json!(1)));
    assert_eq!(story.variable("a_copy").await, None);
    assert_eq!(story.variable("a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn lost_answers_neither_lose_what_is_ours_nor_take_what_is_not() {
    let server = ZooKeeperServer::shared().await;
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        let mut story = Story::with_fake(server, &fake, VARIABLES).await;
        story.create("variables", "").await;
        story.create("variables/theirs", "ours").await;
        for name in ["a", "b", "c"] {
            story.create(&format!("variables/{name}"), "0").await;
        }
        fake.world().entries_mut("variables").push(entry("theirs", "by hand"));
        story.member.start();
        story.until("variables", "first", |state| state["counts"]["in_step"] == 3).await;
        let faults = [
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::ResetBefore,
            Fault::ResetAfter,
            Fault::Truncated,
            Fault::Html,
            Fault::TooMany(1),
            Fault::TokensExpire,
        ];
        for (round, fault) in faults.into_iter().enumerate() {
            let value = format!("{}", round + 1);
            fake.world().faults.push_back(fault);
            story.set("variables/a", &value).await;
            story.delete("variables/b").await;
            story.until_variable("a", Some(&value)).await;
            story.until_variable("b", None).await;
            fake.world().faults.push_back(fault);
            story.create("variables/b", &value).await;
            story.until_variable("b", Some(&value)).await;
            let state = story.until("variables", "after a fault", |state| state["counts"]["in_step"] == 3).await;
            assert_eq!(steps(&state), one("theirs", "conflict"), "{fault:?}");
            assert_eq!(story.variable("theirs").await.as_deref(), Some("by hand"), "{fault:?}");
        }
    }
}

/// A variable that somebody made by hand.
pub(crate) fn entry(key: &str, value: &str) -> Map<String, Value> {
    let entry = json!({"key": key, "value": value, "description": null});
    entry.as_object().cloned().expect("an object")
}

#[tokio::test]
async fn a_member_that_dies_between_request_and_record_takes_up_what_is_its_own() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let mut story = Story::with_fake(server, &fake, VARIABLES).await;
    story.create("variables", "").await;
    story.create("variables/a", "1").await;
    // Airflow does it, and never says so.
    fake.world().faults.push_back(Fault::HangAfter);
    story.member.start();
    story.until_variable("a", Some("1")).await;
    story.member.kill();
    // Meanwhile the znode changes, and somebody makes an entry that another znode wants.
    story.set("variables/a", "2").await;
    story.create("variables/b", "ours").await;
    fake.world().entries_mut("variables").push(entry("b", "by hand"));
    story.member.start();
    let state = story.until("variables", "taken up", |state| state["counts"]["in_step"] == 1).await;
    assert_eq!(steps(&state), one("b", "conflict"));
    assert_eq!(story.variable("a").await.as_deref(), Some("2"));
    assert_eq!(story.variable("b").await.as_deref(), Some("by hand"));
}

#[tokio::test]
async fn while_zookeeper_or_the_znode_is_gone_nothing_changes_in_airflow() {
    let (server, fake) = (ZooKeeperServer::start().await, FakeAirflow::start(World::default()).await);
    let mut story = Story::with_one_variable(&server, &fake).await;
    story.delete("variables/a").await;
    story.delete("variables").await;
    let state = story.until("variables", "missing", |state| state["guard"].is_string()).await;
    assert_eq!(steps(&state), one("a", "held"));
    story.create("variables", "").await;
    story.create("variables/a", "1").await;
    story.in_step("variables", 1).await;
    server.kill();
    let state = story.until("variables", "ZooKeeper away", |state| state["state"] == "failing").await;
    assert!(state["error"].as_str().is_some_and(|error| error.contains("no session")), "{state}");
    assert_eq!(fake.world().entries("variables").len(), 1);
    server.restart().await;
    story.in_step("variables", 1).await;
}

#[tokio::test]
async fn a_sync_whose_znode_is_missing_is_not_told_to_be_in_step() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let story = Story::with_fake(server, &fake, VARIABLES).await;
    let compared = story.member.run(&["sync", "diff", "variables"]).await;
    let told = [compared.stdout, compared.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(compared.status.code(), Some(1), "{told}");
    assert!(told.contains("nothing is known to differ") && told.contains("the znode is missing"), "{told}");
}

#[tokio::test]
async fn a_shadow_changes_nothing_in_airflow() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let mut story = Story::with_fake(server, &fake, VARIABLES).await;
    story.create("variables", "").await;
    story.create("variables/a", "1").await;
    story.member.start_with(&["serve", "--shadow"]);
    story.until("variables", "it serves", |state| state["state"] == "unknown").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(story.state("variables").await.is_some_and(|state| state["state"] == "unknown"));
    assert!(fake.world().entries("variables").is_empty(), "a shadow changes nothing");
    let compared = story.member.run(&["sync", "diff", "variables"]).await;
    assert_eq!(compared.status.code(), Some(1), "{}", String::from_utf8_lossy(&compared.stderr));
    let unknown = story.member.run(&["sync", "diff", "nosuch"]).await;
    assert_eq!(unknown.status.code(), Some(2));
}

//! Several that want the same entries: two syncs of one flowkeeper, and two flowkeepers with stores of their
//! own.

use std::time::Duration;

use flowkeeper::domain::sync::entry::EntryKind;
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, Version, World};
use crate::support::sync_story::{Story, VARIABLES, one, steps};
use crate::support::zookeeper::ZooKeeperServer;

/// Two syncs whose keys meet: a prefix ends where the other's names begin, and a template cannot be seen
/// through before it is rendered.
const TWO: &str = r#"
[[sync]]
name = "late"
znode = { path = "{root}/late" }
to = "variables"
prefix = "app_"
value = "late {{ znode.text }}"
prune = true
interval = "10s"

[[sync]]
name = "early"
znode = { path = "{root}/early" }
to = "variables"
value = "early {{ znode.text }}"
prune = true
interval = "10s"
"#;

fn detail(state: &Value, key: &str) -> String {
    let items = state["items"].as_array().cloned().unwrap_or_default();
    let item = items.iter().find(|item| item["key"] == key).cloned().unwrap_or_default();
    item["detail"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn of_two_syncs_that_want_a_key_the_first_by_name_has_it_and_the_other_says_so() {
    let server = ZooKeeperServer::shared().await;
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        let mut story = Story::with_fake(server, &fake, TWO).await;
        for (path, data) in [
            ("early", ""),
            ("early/app_both", "1"),
            ("early/own", "1"),
            ("late", ""),
            ("late/both", "1"),
            ("late/own", "1"),
        ] {
            story.create(path, data).await;
        }
        story.member.start();
        story.in_step("early", 2).await;
        let state = story.until("late", "one is another's", |state| state["counts"]["in_step"] == 1).await;
        assert_eq!(steps(&state), one("app_both", "conflict"));
        assert_eq!(detail(&state, "app_both"), "the sync early writes it");
        assert_eq!(story.variable("app_both").await.as_deref(), Some("early 1"));

        // So it stays, whoever changes, and over a restart.
        story.set("late/both", "2").await;
        story.set("late/own", "2").await;
        story.until_variable("app_own", Some("late 2")).await;
        story.member.kill();
        story.member.start();
        story.in_step("early", 2).await;
        let state = story.until("late", "still", |state| state["counts"]["in_step"] == 1).await;
        assert_eq!(steps(&state), one("app_both", "conflict"));
        assert_eq!(story.variable("app_both").await.as_deref(), Some("early 1"));
        let rows = story.owned(EntryKind::Variables).await;
        let whose: Vec<_> = rows.iter().map(|(key, row)| (key.as_str(), &*row.sync)).collect();
        assert_eq!(whose, [("app_both", "early"), ("app_own", "late"), ("own", "early")]);

        // The one that wants it still gets it when the other does not any more.
        story.delete("early/app_both").await;
        story.in_step("early", 1).await;
        story.until_variable("app_both", Some("late 2")).await;
        story.in_step("late", 2).await;
        // And it is not given back.
        story.create("early/app_both", "3").await;
        let state = story.until("early", "late", |state| !steps(state).is_empty()).await;
        assert_eq!(detail(&state, "app_both"), "the sync late writes it");
        assert_eq!(story.variable("app_both").await.as_deref(), Some("late 2"));
    }
}

#[tokio::test]
async fn of_two_flowkeepers_the_mark_decides_and_they_do_not_fight() {
    let (server, fake) = (ZooKeeperServer::shared().await, FakeAirflow::start(World::default()).await);
    let first = VARIABLES.replace("prune = true", "prune = true\ndrift = \"repair\"\nadopt = true");
    let mut one_story = Story::with_fake(server, &fake, &first).await;
    let mut other = Story::with_fake(server, &fake, VARIABLES).await;
    for story in [&one_story, &other] {
        story.create("variables", "").await;
        story.create("variables/a", "of one").await;
    }
    other.set("variables/a", "of the other").await;
    other.create("variables/b", "of the other").await;
    one_story.member.start();
    one_story.in_step("variables", 1).await;
    other.member.start();
    let state = other.until("variables", "a conflict", |state| state["counts"]["in_step"] == 1).await;
    let store = one_story.member.ledger().await.store_id().to_owned();
    assert_eq!(steps(&state), one("a", "conflict"));
    assert_eq!(detail(&state, "a"), format!("a flowkeeper with another store, {store}, writes it"));
    assert_eq!(one_story.variable("a").await.as_deref(), Some("of one"));
    // What the other wrote is nothing to the one, whatever it takes and prunes.
    let report = one_story.apply("variables", json!({"prune": true, "repair": true, "reason": "tidy"})).await;
    assert_eq!(steps(&report), []);
    assert_eq!(one_story.variable("b").await.as_deref(), Some("of the other"));

    // The other takes it over once; the one, which repairs, says so and does not take it back.
    let took = other.reload("prune = true", "prune = true\nadopt = true\ndrift = \"repair\"").await;
    println!("taken over after a reload of {took:?}");
    other.in_step("variables", 2).await;
    assert_eq!(one_story.variable("a").await.as_deref(), Some("of the other"));
    let report = one_story.apply("variables", json!({})).await;
    assert_eq!(steps(&report), one("a", "conflict"));
    one_story.set("variables/a", "of one again").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    other.in_step("variables", 2).await;
    assert_eq!(one_story.variable("a").await.as_deref(), Some("of the other"));
    let writes = fake.count("entries_bulk");
    assert_eq!(writes, 3, "each was written once, and taken over once");
}

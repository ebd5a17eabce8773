//! Entries that Airflow does not take: the others are written all the same, and it is not asked again and
//! again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, Version, World};
use crate::support::sync_story::{PATIENCE, Story, VARIABLES, one, steps};
use crate::support::zookeeper::ZooKeeperServer;

/// The first rest of what Airflow refuses; of what it fails at it is shorter.
const REST: Duration = Duration::from_mins(1);

/// Waits until a sync has compared so often again.
async fn compared(story: &Story, times: usize) {
    let end = Instant::now() + PATIENCE;
    let mut seen: Vec<Value> = Vec::new();
    while seen.len() <= times {
        let at = story.state("variables").await.unwrap_or_default()["at"].clone();
        if seen.last() != Some(&at) {
            seen.push(at);
        }
        assert!(Instant::now() < end, "no comparison\n{}", story.member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn writes(fake: &FakeAirflow) -> u64 {
    fake.count("entries_bulk") + fake.count("entry_create") + fake.count("entry_update")
}

#[tokio::test]
async fn what_airflow_refuses_stops_nothing_else_and_rests() {
    let server = ZooKeeperServer::shared().await;
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        fake.world().refused_entries = vec!["forbidden".to_owned()];
        let mut story = Story::with_fake(server, &fake, VARIABLES).await;
        story.create("variables", "").await;
        for name in ["a", "b", "c", "d"] {
            story.create(&format!("variables/{name}"), if name == "b" { "forbidden" } else { "good" }).await;
        }
        story.member.start();
        let state = story.until("variables", "one refused", |state| state["counts"]["in_step"] == 3).await;
        assert_eq!((steps(&state), &state["error"]), (one("b", "fault"), &Value::Null), "{version:?}");
        let detail = state["items"][0]["detail"].as_str().unwrap_or_default().to_owned();
        let reason = if version == Version::Three {
            "422: Airflow refuses it (value: value_error)"
        } else {
            "400: Airflow refuses it"
        };
        assert!(detail.starts_with(reason) && !detail.contains("forbidden"), "{detail}");

        // It is compared every ten seconds, and Airflow is not asked for it again until it has rested.
        let (before, since) = (writes(&fake), Instant::now());
        compared(&story, 2).await;
        let asked = writes(&fake) - before;
        let rests = since.elapsed().as_secs() / REST.as_secs();
        assert!(asked <= rests + 1, "{version:?}: {asked} requests in {:?}", since.elapsed());
        assert_eq!(steps(&story.state("variables").await.expect("a state")), one("b", "fault"));
        // An operator is obeyed.
        let before = writes(&fake);
        let report = story.apply("variables", json!({"reason": "look again"})).await;
        assert!(steps(&report) == one("b", "fault") && writes(&fake) > before, "{version:?}: {report}");
        // Something else is written at once.
        story.set("variables/b", "allowed").await;
        story.in_step("variables", 4).await;
        assert_eq!(story.variable("b").await.as_deref(), Some("allowed"));
        // What is refused later keeps what there is.
        story.set("variables/b", "forbidden").await;
        let state = story.until("variables", "refused again", |state| state["counts"]["fault"] == 1).await;
        assert_eq!(steps(&state), one("b", "fault"));
        assert_eq!(story.variable("b").await.as_deref(), Some("allowed"), "{version:?}");
    }
}

#[tokio::test]
async fn an_entry_at_which_airflow_fails_stops_nothing_else_and_rests() {
    let server = ZooKeeperServer::shared().await;
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        fake.world().failing_entries = vec!["poison".to_owned()];
        let mut story = Story::with_fake(server, &fake, VARIABLES).await;
        story.create("variables", "").await;
        for number in 0..30 {
            story.create(&format!("variables/v{number:02}"), if number == 7 { "poison" } else { "good" }).await;
        }
        story.member.start();
        let state = story.until("variables", "one failed", |state| state["counts"]["in_step"] == 29).await;
        assert_eq!((steps(&state), &state["error"]), (one("v07", "fault"), &Value::Null), "{version:?}");
        let detail = state["items"][0]["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.starts_with("500: Airflow failed"), "{detail}");
        // Others go on meanwhile.
        story.set("variables/v08", "better").await;
        story.until_variable("v08", Some("better")).await;
        // Airflow recovers, and so does the entry, after its rest.
        fake.world().failing_entries.clear();
        story.in_step("variables", 30).await;
        assert_eq!(story.variable("v07").await.as_deref(), Some("poison"), "{version:?}");
    }
}

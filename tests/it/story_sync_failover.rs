//! A sync on three members with one PostgreSQL and an ensemble of three servers: whoever leads dies at each
//! point of a change, and the next one brings it to its end.

use std::time::{Duration, Instant};

use flowkeeper::domain::sync::entry::EntryKind;
use flowkeeper::domain::sync::plan::Hold;
use serde_json::{Value, json};

use super::sync::entry;
use crate::support::ensemble::ZooKeeperEnsemble;
use crate::support::fake_airflow::{FakeAirflow, Fault, World};
use crate::support::postgres::PostgresServer;
use crate::support::process::Member;
use crate::support::sync_story::{PATIENCE, Story, VARIABLES, one, state, steps, until};
use crate::support::team::{is_leading, is_ready};

/// What the leader is killed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The ledger knows what is to be done, and nothing reached Airflow.
    Request,
    /// Airflow did it, and has not answered.
    Answer,
    /// Airflow has answered, and the ledger does not take it.
    Record,
}

/// The member that leads.
async fn leader(members: &[Member]) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        for (index, member) in members.iter().enumerate() {
            if is_leading(member).await {
                return index;
            }
        }
        let logs: Vec<_> = members.iter().map(Member::logged).collect();
        assert!(Instant::now() < end, "nobody leads\n{}", logs.join("\n----\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The variables in Airflow, by key.
fn values(fake: &FakeAirflow) -> Vec<(String, String)> {
    let world = fake.world();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut values: Vec<_> =
        world.entries("variables").iter().map(|entry| (text(&entry["key"]), text(&entry["value"]))).collect();
    values.sort();
    values
}

/// Holds a table of the ledger against everybody who writes into it; until it is dropped.
async fn hold_back(database: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let pool = sqlx::PgPool::connect(database).await.expect("the database");
    let mut transaction = pool.begin().await.expect("a transaction");
    let lock = sqlx::query("LOCK TABLE sync_entries IN SHARE ROW EXCLUSIVE MODE");
    lock.execute(&mut *transaction).await.expect("the table");
    transaction
}

#[tokio::test]
async fn each_change_comes_to_its_end_wherever_the_leader_dies() {
    let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
    let database = PostgresServer::shared().await.create_database().await;
    let fake = FakeAirflow::start(World::default()).await;
    let (connect, login) = (ensemble.connect(), ("admin", "admin"));
    let zookeeper = ensemble.client().await;
    let story = Story::prepare_on(&database, &connect, zookeeper, &fake.url(), login, VARIABLES).await;
    for (name, data) in [("", ""), ("/a", "0"), ("/b", "0"), ("/theirs", "ours")] {
        story.create(&format!("variables{name}"), data).await;
    }
    fake.world().entries_mut("variables").push(entry("theirs", "by hand"));
    let mut members: Vec<Member> = (0..3).map(|_| story.another(&database)).collect();
    for member in &mut members {
        member.start();
        is_ready(member).await;
    }
    let mut leading = leader(&members).await;
    until(&mut members[leading], "variables", "first", |state| state["counts"]["in_step"] == 2).await;

    let moments = [Moment::Request, Moment::Answer, Moment::Record];
    for (round, moment) in moments.into_iter().enumerate() {
        let value = format!("{}", round + 1);
        let before = fake.count("entries_bulk");
        match moment {
            Moment::Request => drop(fake.world().faults_at.insert("PATCH variables", Fault::HangBefore)),
            Moment::Answer => drop(fake.world().faults_at.insert("PATCH variables", Fault::HangAfter)),
            // Long enough to take the ledger away before it answers.
            Moment::Record => fake.world().bears_one = Some(Duration::from_secs(2)),
        }
        let hung = fake.world().hung;
        // One changes, one goes, one comes, in one comparison or in several.
        story.set("variables/a", &value).await;
        story.delete("variables/b").await;
        story.create(&format!("variables/c{round}"), &value).await;
        let end = Instant::now() + PATIENCE;
        while fake.world().hung == hung && fake.count("entries_bulk") == before {
            assert!(Instant::now() < end, "{moment:?}: nothing is written\n{}", members[leading].logged());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut held = None;
        if moment == Moment::Record {
            held = Some(hold_back(&database).await);
            // Airflow answers meanwhile.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let rows = story.ledger(&database).await.owned_entries("main", EntryKind::Variables).await.expect("rows");
        assert!(rows.values().any(|row| row.digest.is_none()), "{moment:?}: {rows:?}");
        members[leading].kill();
        drop(held);
        {
            let mut world = fake.world();
            world.faults_at.clear();
            world.bears_one = None;
        }
        let died = leading;
        leading = leader(&members).await;
        assert_ne!(leading, died);

        // What Airflow has in the end, whatever had been done.
        let mut expected = vec![("a".to_owned(), value.clone()), ("theirs".to_owned(), "by hand".to_owned())];
        expected.extend((0..=round).map(|round| (format!("c{round}"), format!("{}", round + 1))));
        expected.sort();
        let end = Instant::now() + PATIENCE;
        while values(&fake) != expected {
            assert!(Instant::now() < end, "{moment:?}: {:?}\n{}", values(&fake), members[leading].logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let in_step = 2 + u64::try_from(round).expect("few");
        let state_now = until(&mut members[leading], "variables", &format!("{moment:?}"), |state| {
            state["counts"] == json!({"in_step": in_step, "conflict": 1}) && state["error"].is_null()
        })
        .await;
        assert_eq!(steps(&state_now), one("theirs", "conflict"), "{moment:?}");
        let rows = story.ledger(&database).await.owned_entries("main", EntryKind::Variables).await.expect("rows");
        let ours: Vec<&str> = expected.iter().map(|(key, _)| key.as_str()).filter(|key| *key != "theirs").collect();
        assert!(rows.keys().map(String::as_str).eq(ours.iter().copied()), "{moment:?}: {rows:?}");
        let settled =
            rows.values().all(|row| row.hold == Hold::Owned && row.digest.is_some() && &*row.sync == "variables");
        assert!(settled, "{moment:?}: {rows:?}");

        // A standby shows the same, and passes an order on.
        members[died].start();
        is_ready(&members[died]).await;
        let standby = &members[died];
        assert!(!is_leading(standby).await);
        let shown = state(standby, "variables").await.expect("it answers");
        assert_eq!((&shown["state"], &shown["counts"]), (&state_now["state"], &state_now["counts"]), "{moment:?}");
        assert_eq!(steps(&shown), steps(&state_now), "{moment:?}");
        fake.world().entries_mut("variables").retain(|entry| entry["key"] != "a");
        let dry = standby.json(&["sync", "apply", "variables", "--dry-run"]).await;
        let told: Vec<_> = dry.as_array().into_iter().flatten().map(|line| (&line["key"], &line["step"])).collect();
        assert_eq!(told, [(&json!("a"), &json!("drift")), (&json!("theirs"), &json!("conflict"))], "{moment:?}");
        let output = standby.run(&["sync", "apply", "variables", "--repair", "--reason", "it was deleted"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(story.variable("a").await, Some(value.clone()), "{moment:?}");
        story.create("variables/b", &value).await;
        until(&mut members[leading], "variables", "the next", |state| state["counts"]["in_step"] == in_step + 1).await;
    }
}

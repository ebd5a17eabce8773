//! Variables, pools and connections: the same requests to a real Airflow 3, a real Airflow 2 and the fakes
//! of both must come to the same, or stories told against the fake prove nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use flowkeeper::airflow::Airflow;
use flowkeeper::airflow::entries::{Change, Changed, Outgoing};
use flowkeeper::domain::sync::entry::{EntryKind, EntryValue};
use flowkeeper::domain::sync::mark::Mark;
use flowkeeper::domain::sync::shown::Shown;
use serde_json::{Value, json};

use crate::support::airflow::alone;
use crate::support::fake_airflow::{FakeAirflow, Fault, Version, World};
use crate::support::real_airflow::{RealAirflow, client};

const MARK: Mark<'_> = Mark { sync: "contract", store_id: "5f1d" };

fn outgoing(kind: EntryKind, key: &str, value: Value) -> Outgoing {
    let value = EntryValue::read(kind, value).expect("a value that Airflow takes");
    let description = MARK.describe(value.description());
    Outgoing { key: key.to_owned(), value, description }
}

/// A list, or a change, word for word but for the tail of this test run.
struct Teller {
    airflow: Airflow,
    kind: EntryKind,
    tail: String,
    told: Vec<String>,
}

impl Teller {
    fn key(&self, name: &str) -> String {
        format!("fk_{name}_{}", self.tail)
    }

    fn entries(&self, entries: &[(&str, Value)]) -> Vec<Outgoing> {
        entries.iter().map(|(name, value)| outgoing(self.kind, &self.key(name), value.clone())).collect()
    }

    async fn change(&mut self, what: &str, change: Change) {
        let changed = self.airflow.change_entries(self.kind, change).await;
        let names = |keys: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            keys.map(|key| key.replace(&format!("_{}", self.tail), "")).collect()
        };
        assert!(changed.error.is_none(), "{what}: {changed:?}");
        let (done, refused) = (names(&mut changed.done.iter()), names(&mut changed.refused.keys()));
        self.told.push(format!("{} {what}: done {done:?}, refused {refused:?}", self.kind.as_str()));
    }

    async fn list(&self) -> BTreeMap<String, Shown> {
        let all = self.airflow.list_entries(self.kind).await.expect("a list");
        all.into_iter().filter(|(key, _)| key.ends_with(&self.tail)).collect()
    }

    /// How the entries compare with these values.
    async fn compare(&mut self, wanted: &[(&str, Value)]) {
        let all = self.list().await;
        for (name, value) in wanted {
            let wanted = outgoing(self.kind, &self.key(name), value.clone());
            let told = match all.get(&wanted.key) {
                None => "absent".to_owned(),
                Some(shown) => {
                    let comparison = shown.compare(&wanted.value);
                    format!("{:?}, ours {}", comparison.different, shown.mark() == Some(MARK))
                }
            };
            self.told.push(format!("{} {name}: {told}", self.kind.as_str()));
        }
    }
}

/// One table of requests; what became of each.
async fn contract(url: &str, username: &str, password: &str) -> Vec<String> {
    let cases: [(EntryKind, [Value; 3]); 3] = [
        (EntryKind::Variables, [json!("a text"), json!({"k": 1.50, "l": [1, "é"]}), json!("")]),
        (
            EntryKind::Pools,
            [json!(3), json!({"slots": 5, "description": "d", "include_deferred": true}), json!({"slots": 0})],
        ),
        (
            EntryKind::Connections,
            [
                json!("postgres://etl:s3cret@db:5432/dwh?sslmode=require"),
                json!({"conn_type": "http", "description": "d"}),
                json!({"conn_type": "http", "login": "l", "extra": {"token": "s3cret", "a": 1}}),
            ],
        ),
    ];
    let mut told = Vec::new();
    for (kind, [one, two, three]) in cases {
        let tail = uuid::Uuid::new_v4().simple().to_string();
        let mut teller = Teller { airflow: client(url, username, password), kind, tail, told: Vec::new() };
        let both = [("a", one.clone()), ("b", two.clone())];
        teller.compare(&both).await;
        teller.change("create", Change::Create(teller.entries(&both))).await;
        teller.compare(&both).await;
        // What is there is passed over, whatever it holds.
        let more = [("a", three.clone()), ("c", three.clone())];
        teller.change("create again", Change::Create(teller.entries(&more))).await;
        teller.compare(&[both[0].clone(), ("c", three.clone())]).await;
        let others = [("a", two.clone()), ("nosuch", two.clone())];
        teller.change("update", Change::Update(teller.entries(&others))).await;
        teller.compare(&others).await;
        teller.change("update back", Change::Update(teller.entries(&both))).await;
        teller.compare(&both).await;
        let keys = ["a", "b", "c", "nosuch"].map(|name| teller.key(name)).to_vec();
        teller.change("delete", Change::Delete(keys)).await;
        teller.compare(&both).await;
        told.append(&mut teller.told);
    }
    told
}

async fn fake(version: Version) -> Vec<String> {
    let fake = FakeAirflow::start(World::new(version)).await;
    contract(&fake.url(), "admin", "admin").await
}

#[tokio::test]
async fn a_real_airflow_3_writes_and_lists_entries_as_the_fake_does() {
    let _alone = alone().await;
    let real = RealAirflow::three();
    let (username, password) = real.login();
    assert_eq!(contract(&real.url(), &username, &password).await, fake(Version::Three).await);
}

#[tokio::test]
async fn a_real_airflow_2_writes_and_lists_entries_as_the_fake_does() {
    let _alone = alone().await;
    let real = RealAirflow::two();
    let (username, password) = real.login();
    assert_eq!(contract(&real.url(), &username, &password).await, fake(Version::Two).await);
}

#[tokio::test]
async fn the_contract_is_what_it_should_be() {
    for version in [Version::Three, Version::Two] {
        let told = fake(version).await;
        let variables: Vec<&str> =
            told.iter().map(String::as_str).filter(|line| line.starts_with("variables")).collect();
        assert_eq!(
            variables,
            [
                "variables a: absent",
                "variables b: absent",
                r#"variables create: done ["fk_a", "fk_b"], refused []"#,
                "variables a: [], ours true",
                "variables b: [], ours true",
                r#"variables create again: done ["fk_c"], refused []"#,
                "variables a: [], ours true",
                "variables c: [], ours true",
                r#"variables update: done ["fk_a"], refused []"#,
                "variables a: [], ours true",
                "variables nosuch: absent",
                r#"variables update back: done ["fk_a", "fk_b"], refused []"#,
                "variables a: [], ours true",
                "variables b: [], ours true",
                r#"variables delete: done ["fk_a", "fk_b", "fk_c"], refused []"#,
                "variables a: absent",
                "variables b: absent",
            ],
            "{version:?}"
        );
    }
}

fn variables(count: usize) -> Vec<Outgoing> {
    (0..count).map(|number| outgoing(EntryKind::Variables, &format!("v{number}"), json!("s3cret"))).collect()
}

#[tokio::test]
async fn one_wrong_entry_does_not_spoil_those_beside_it() {
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        fake.world().refused_entries = vec!["\"v5\"".to_owned(), "\"v11\"".to_owned()];
        let airflow = client(&fake.url(), "admin", "admin");
        let changed = airflow.change_entries(EntryKind::Variables, Change::Create(variables(20))).await;
        assert!(changed.error.is_none(), "{changed:?}");
        assert_eq!(changed.refused.keys().collect::<Vec<_>>(), ["v11", "v5"]);
        assert_eq!(changed.done.len(), 18);
        assert_eq!(fake.world().entries("variables").len(), 18);
        assert!(!format!("{changed:?}").contains("s3cret"), "{changed:?}");
    }
}

#[tokio::test]
async fn airflow_2_gets_no_pool_that_it_could_not_list() {
    let unlimited = || vec![outgoing(EntryKind::Pools, "p", json!(-1)), outgoing(EntryKind::Pools, "q", json!(1))];
    for (version, done) in [(Version::Three, 2), (Version::Two, 1)] {
        let fake = FakeAirflow::start(World::new(version)).await;
        let airflow = client(&fake.url(), "admin", "admin");
        let changed = airflow.change_entries(EntryKind::Pools, Change::Create(unlimited())).await;
        assert_eq!((changed.done.len(), changed.refused.len()), (done, 2 - done), "{changed:?}");
        assert_eq!(airflow.list_entries(EntryKind::Pools).await.expect("a list").len(), done);
    }
}

#[tokio::test]
async fn what_became_of_a_change_whose_answer_is_lost_is_not_known() {
    for version in [Version::Three, Version::Two] {
        for fault in [
            Fault::ErrorBefore,
            Fault::ErrorAfter,
            Fault::ResetBefore,
            Fault::ResetAfter,
            Fault::Html,
            Fault::Truncated,
            Fault::TooMany(1),
        ] {
            let fake = FakeAirflow::start(World::new(version)).await;
            let airflow = client(&fake.url(), "admin", "admin");
            airflow.list_entries(EntryKind::Variables).await.expect("it answers");
            fake.world().faults.push_back(fault);
            let changed = airflow.change_entries(EntryKind::Variables, Change::Create(variables(2))).await;
            let told = format!("{version:?} {fault:?}: {changed:?}");
            let Changed { done, refused, error } = changed;
            assert!(done.is_empty() && refused.is_empty() && error.is_some(), "{told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_whole() {
    let fake = FakeAirflow::start(World::default()).await;
    let airflow = client(&fake.url(), "admin", "admin");
    for part in airflow.parts_of(Change::Create(variables(1001))).await.expect("it answers") {
        assert!(airflow.change_entries(EntryKind::Variables, part).await.error.is_none());
    }
    assert_eq!(fake.count("entries_bulk"), 11);
    assert_eq!(airflow.list_entries(EntryKind::Variables).await.expect("a list").len(), 1001);
    assert_eq!(fake.count("entries"), 11);
    fake.world().latency = Duration::from_millis(20);
    // Entries come and go meanwhile: what cannot be read whole is no list.
    let edit = async {
        loop {
            fake.world().entries_mut("variables").pop();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let listed = tokio::select! {
        listed = airflow.list_entries(EntryKind::Variables) => listed,
        () = edit => unreachable!("it edits for ever"),
    };
    assert!(listed.expect_err("no list").to_string().contains("changes faster"));
}

//! Variables, pools and connections: the same requests to a real Airflow 3, a real Airflow 2 and the fakes
//! of both must come to the same, or stories told against the fake prove nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use flowkeeper::airflow::Airflow;
use flowkeeper::airflow::entries::{Care, Change, Changed, Outgoing};
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
        let changed = self.airflow.change_entries(self.kind, change, Care::Together).await;
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
        let changed = airflow.change_entries(EntryKind::Variables, Change::Create(variables(20)), Care::Together).await;
        assert!(changed.error.is_none(), "{changed:?}");
        assert_eq!(changed.refused.keys().collect::<Vec<_>>(), ["v11", "v5"]);
        assert_eq!(changed.done.len(), 18);
        assert_eq!(fake.world().entries("variables").len(), 18);
        assert!(!format!("{changed:?}").contains("s3cret"), "{changed:?}");
    }
}

#[tokio::test]
async fn the_entry_at_which_airflow_fails_is_found_when_it_is_looked_for() {
    for version in [Version::Three, Version::Two] {
        let fake = FakeAirflow::start(World::new(version)).await;
        let airflow = client(&fake.url(), "admin", "admin");
        fake.world().failing_entries = vec!["\"v5\"".to_owned()];
        let create = || Change::Create(variables(20));
        let changed = airflow.change_entries(EntryKind::Variables, create(), Care::Together).await;
        let before = if version == Version::Three { 0 } else { 5 };
        assert!(changed.is_failure() && changed.failed.is_empty() && changed.done.len() == before, "{changed:?}");
        let changed = airflow.change_entries(EntryKind::Variables, create(), Care::Apart).await;
        assert!(changed.error.is_none() && changed.done.len() == 19 - before, "{changed:?}");
        assert_eq!(changed.failed.iter().collect::<Vec<_>>(), [(&"v5".to_owned(), &"500: Airflow failed".to_owned())]);
        assert_eq!(fake.world().entries("variables").len(), 19);
        // An Airflow that fails at everything is not asked for each entry.
        fake.world().failing_entries = vec!["\"v".to_owned()];
        let asked = fake.count("entries_bulk") + fake.count("entry_update");
        let changed = airflow.change_entries(EntryKind::Variables, Change::Update(variables(20)), Care::Apart).await;
        assert!(changed.is_failure() && changed.failed.len() == 3 && changed.done.is_empty(), "{changed:?}");
        let asked = fake.count("entries_bulk") + fake.count("entry_update") - asked;
        assert!(asked <= 12, "{asked} requests");
    }
}

#[tokio::test]
async fn airflow_2_gets_no_key_that_it_takes_for_another() {
    let fake = FakeAirflow::start(World::new(Version::Two)).await;
    let airflow = client(&fake.url(), "admin", "admin");
    for (kind, key, value) in [
        (EntryKind::Variables, "/a", json!("1")),
        (EntryKind::Pools, "/a", json!(1)),
        (EntryKind::Pools, "a/b", json!(1)),
    ] {
        for change in [Change::Create(vec![outgoing(kind, key, value)]), Change::Delete(vec![key.to_owned()])] {
            let changed = airflow.change_entries(kind, change, Care::Together).await;
            assert!(changed.refused.contains_key(key) && changed.done.is_empty(), "{key}: {changed:?}");
        }
    }
    assert_eq!(fake.count("entry_create") + fake.count("entry_delete"), 0);
}

#[tokio::test]
async fn airflow_3_gets_no_variable_that_it_could_not_list() {
    let fake = FakeAirflow::start(World::default()).await;
    let airflow = client(&fake.url(), "admin", "admin");
    let texts = ["[".repeat(201), "1".repeat(4301), "[".repeat(200), "1".repeat(4300)];
    let entries =
        (0..).zip(texts).map(|(number, text)| outgoing(EntryKind::Variables, &format!("v{number}"), json!(text)));
    let changed = airflow.change_entries(EntryKind::Variables, Change::Create(entries.collect()), Care::Together).await;
    assert_eq!(changed.refused.keys().collect::<Vec<_>>(), ["v0", "v1"]);
    assert_eq!(changed.done.iter().collect::<Vec<_>>(), ["v2", "v3"]);
}

#[tokio::test]
async fn airflow_2_gets_no_pool_that_it_could_not_list() {
    let unlimited = || vec![outgoing(EntryKind::Pools, "p", json!(-1)), outgoing(EntryKind::Pools, "q", json!(1))];
    for (version, done) in [(Version::Three, 2), (Version::Two, 1)] {
        let fake = FakeAirflow::start(World::new(version)).await;
        let airflow = client(&fake.url(), "admin", "admin");
        let changed = airflow.change_entries(EntryKind::Pools, Change::Create(unlimited()), Care::Together).await;
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
            let changed =
                airflow.change_entries(EntryKind::Variables, Change::Create(variables(2)), Care::Together).await;
            let told = format!("{version:?} {fault:?}: {changed:?}");
            let Changed { done, refused, failed, error } = changed;
            assert!(done.is_empty() && refused.is_empty() && failed.is_empty() && error.is_some(), "{told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_whole() {
    let fake = FakeAirflow::start(World::default()).await;
    let airflow = client(&fake.url(), "admin", "admin");
    for part in airflow.parts_of(Change::Create(variables(1001))).await.expect("it answers") {
        assert!(airflow.change_entries(EntryKind::Variables, part, Care::Together).await.error.is_none());
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

//! A real Airflow that goes away while its entries are brought into step, in each way that there is, and comes
//! back: znodes change meanwhile, and in the end everything agrees and nothing foreign was touched.

use std::collections::BTreeMap;

use flowkeeper::airflow::entries::{Care, Change, Outgoing};
use flowkeeper::domain::sync::entry::{EntryKind, EntryValue};
use flowkeeper::domain::sync::plan::Hold;
use serde_json::{Value, json};

use crate::support::airflow::{alone, unique};
use crate::support::airflow_kept::kept;
use crate::support::airflow_own::OwnAirflow;
use crate::support::airflow_way::{AirflowWay, Mishap};
use crate::support::real_airflow::{RealAirflow, client};
use crate::support::sync_story::{PATIENCE, Story, one, steps};
use crate::support::zookeeper::ZooKeeperServer;

/// The syncs; the interval is longer than any story, so that only changes and failures lead to comparisons.
const SYNCS: &str = r#"
[[sync]]
name = "variables"
znode = { path = "{root}/variables" }
to = "variables"
prefix = "{tag}_"
prune = true
interval = "1h"

[[sync]]
name = "pools"
znode = { path = "{root}/pools", watch = "node" }
to = "pools"
prefix = "{tag}_"
prune = true
interval = "1h"

[[sync]]
name = "connections"
znode = { path = "{root}/connections" }
to = "connections"
prefix = "{tag}_"
prune = true
interval = "1h"
"#;

const NAMES: [&str; 3] = ["variables", "pools", "connections"];

/// What znodes want, by name.
#[derive(Default)]
struct Wanted {
    variables: BTreeMap<String, String>,
    pools: BTreeMap<String, i64>,
    /// The passwords of connections.
    passwords: BTreeMap<String, String>,
}

/// A story with an Airflow behind a way that may be closed.
struct Away {
    story: Story,
    way: AirflowWay,
    tag: String,
    wanted: Wanted,
    home: std::path::PathBuf,
}

fn uri(password: &str) -> String {
    format!("postgres://etl:{password}@db:5432/dwh")
}

impl Away {
    /// Everything in step, and three entries of somebody else's: a variable that a znode wants as well, and a
    /// pool and a connection that none wants.
    async fn begin(url: &str, home: &std::path::Path, (username, password): (&str, &str)) -> Self {
        let way = AirflowWay::start(url).await;
        let tag = format!("fk{}", &unique()[..8]);
        let syncs = SYNCS.replace("{tag}", &tag);
        let mut story = Story::prepare(ZooKeeperServer::shared().await, &way.url(), (username, password), &syncs).await;
        // The story's own looks do not take the way.
        story.airflow = client(url, username, password);
        let mut away = Self { story, way, tag, wanted: Wanted::default(), home: home.to_owned() };
        for (kind, value) in [
            (EntryKind::Variables, json!("by hand")),
            (EntryKind::Pools, json!(7)),
            (EntryKind::Connections, json!(uri("theirs"))),
        ] {
            let value = EntryValue::read(kind, value).expect("a value");
            let theirs = Outgoing { key: away.key("theirs"), value, description: "mine".to_owned() };
            let made = away.story.airflow.change_entries(kind, Change::Create(vec![theirs]), Care::Together).await;
            assert!(made.done.len() == 1 && made.error.is_none(), "{made:?}");
        }
        for path in ["variables", "connections"] {
            away.story.create(path, "").await;
        }
        away.story.create("pools", "{}").await;
        away.story.create("variables/theirs", "ours").await;
        for number in 0..6 {
            away.variable(&format!("v{number}"), Some("text 0")).await;
        }
        for name in ["dwh", "lake", "old"] {
            away.password(name, Some("secret-0")).await;
        }
        away.pools(&[("etl", 4), ("night", 2), ("old", 1)]).await;
        away.story.member.start();
        away.in_step("at first").await;
        away
    }

    fn key(&self, name: &str) -> String {
        format!("{}_{name}", self.tag)
    }

    async fn variable(&mut self, name: &str, text: Option<&str>) {
        let path = format!("variables/{name}");
        let known = self.wanted.variables.contains_key(name);
        match text {
            Some(text) if known => self.story.set(&path, text).await,
            Some(text) => self.story.create(&path, text).await,
            None => self.story.delete(&path).await,
        }
        match text {
            Some(text) => drop(self.wanted.variables.insert(name.to_owned(), text.to_owned())),
            None => drop(self.wanted.variables.remove(name)),
        }
    }

    async fn password(&mut self, name: &str, password: Option<&str>) {
        let path = format!("connections/{name}");
        let known = self.wanted.passwords.contains_key(name);
        match password {
            Some(password) if known => self.story.set(&path, &uri(password)).await,
            Some(password) => self.story.create(&path, &uri(password)).await,
            None => self.story.delete(&path).await,
        }
        match password {
            Some(password) => drop(self.wanted.passwords.insert(name.to_owned(), password.to_owned())),
            None => drop(self.wanted.passwords.remove(name)),
        }
    }

    async fn pools(&mut self, pools: &[(&str, i64)]) {
        self.wanted.pools = pools.iter().map(|(name, slots)| ((*name).to_owned(), *slots)).collect();
        self.story.set("pools", &json!(self.wanted.pools).to_string()).await;
    }

    /// Waits until every sync is in step, and looks whether everything is as it should be.
    async fn in_step(&mut self, when: &str) {
        let count = |count: usize| u64::try_from(count).expect("few");
        let wanted = [self.wanted.variables.len(), self.wanted.pools.len(), self.wanted.passwords.len()].map(count);
        for (name, wanted) in NAMES.into_iter().zip(wanted) {
            let state = self
                .story
                .until(name, when, |state| state["counts"]["in_step"] == wanted && state["error"].is_null())
                .await;
            // What is somebody else's is told as that, and nothing of ours is.
            let others = if name == "variables" { one(&self.key("theirs"), "conflict") } else { vec![] };
            assert_eq!((steps(&state), &state["guard"]), (others, &Value::Null), "{when}: {state:#}");
        }
        self.as_wanted(when).await;
    }

    /// Waits until Airflow keeps exactly what znodes want, and what somebody else made: a comparison that began
    /// before the last change may have said that everything is in step.
    async fn as_wanted(&self, when: &str) {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let (kept, rows) = (self.kept().await, self.settled().await);
            if kept == self.expected() && rows == self.ours() {
                return;
            }
            let told = format!("{when}: {kept:#?} and {rows:?}, not {:#?}", self.expected());
            assert!(std::time::Instant::now() < end, "{told}\n{}", self.story.member.logged());
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// What Airflow keeps: what each entry holds, and whose it is, by collection and key.
    async fn kept(&self) -> BTreeMap<(&'static str, String), (Value, &'static str)> {
        let kept = kept(&self.home, &self.tag).await;
        let mut told = BTreeMap::new();
        for (collection, field) in NAMES.into_iter().zip(["value", "slots", "password"]) {
            for (key, entry) in kept[collection].as_object().into_iter().flatten() {
                let description = entry["description"].as_str().unwrap_or_default();
                let whose = match description {
                    "mine" => "theirs",
                    marked if marked.contains("flowkeeper sync") => "ours",
                    _ => "nobody's",
                };
                told.insert((collection, key.clone()), (entry[field].clone(), whose));
            }
        }
        told
    }

    /// What it is to keep.
    fn expected(&self) -> BTreeMap<(&'static str, String), (Value, &'static str)> {
        let mut expected = BTreeMap::new();
        for (collection, theirs) in NAMES.into_iter().zip([json!("by hand"), json!(7), json!("theirs")]) {
            expected.insert((collection, self.key("theirs")), (theirs, "theirs"));
        }
        let mut ours = |collection, name: &str, value| expected.insert((collection, self.key(name)), (value, "ours"));
        self.wanted.variables.iter().for_each(|(name, text)| drop(ours("variables", name, json!(text))));
        self.wanted.pools.iter().for_each(|(name, slots)| drop(ours("pools", name, json!(slots))));
        self.wanted.passwords.iter().for_each(|(name, text)| drop(ours("connections", name, json!(text))));
        expected
    }

    /// The keys that the ledger knows to be ours, with values that are known.
    async fn settled(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for kind in [EntryKind::Variables, EntryKind::Pools, EntryKind::Connections] {
            let rows = self.story.owned(kind).await.into_iter();
            let settled = rows.filter(|(_, row)| row.hold == Hold::Owned && row.digest.is_some());
            keys.extend(settled.map(|(key, _)| format!("{} {key}", kind.as_str())));
        }
        keys.sort();
        keys
    }

    /// The keys that are to be ours.
    fn ours(&self) -> Vec<String> {
        let expected = self.expected();
        let ours = expected.iter().filter(|(_, (_, whose))| *whose == "ours");
        let mut keys: Vec<String> = ours.map(|((collection, key), _)| format!("{collection} {key}")).collect();
        keys.sort();
        keys
    }

    /// Changes values, deletes one and makes one, of each kind: what each sync has to do then.
    async fn edit(&mut self, round: u32) {
        for name in ["v0", "v1", "v2"] {
            self.variable(name, Some(&format!("text {round}"))).await;
        }
        self.variable(&format!("v{}", round + 2), None).await;
        self.variable(&format!("new{round}"), Some("é \"new\"\n")).await;
        self.password("dwh", Some(&format!("secret-{round}"))).await;
        let gone = if round == 1 { "old".to_owned() } else { format!("new{}", round - 1) };
        self.password(&gone, None).await;
        self.password(&format!("new{round}"), Some("secret-new")).await;
        self.pools(&[("etl", i64::from(round) + 10), ("night", 2), (&format!("new{round}"), 3)]).await;
    }

    /// Waits until every sync tells that Airflow does not answer: over the API, in the metrics, on the page of
    /// commands, with nothing taken for drift.
    async fn is_told(&mut self, when: &str) {
        for name in NAMES {
            let state = self.story.until(name, when, |state| state["state"] == "failing").await;
            let told = state["error"].as_str().unwrap_or_default();
            assert!(told.starts_with("failed to ") && told.contains("of Airflow main at http://127.0.0.1:"), "{told}");
            assert!(state["hint"].as_str().is_some_and(|hint| hint.contains("API server")), "{state}");
            let wrong = |(_, step): &(String, String)| step == "drift" || step == "held";
            assert!(!steps(&state).iter().any(wrong), "{when}: {state:#}");
        }
        let metrics = self.story.member.text("metrics").await.expect("metrics");
        for name in NAMES {
            assert!(metrics.contains(&format!("flowkeeper_sync_failing{{sync=\"{name}\"}} 1")), "{metrics}");
        }
        let diff = self.story.member.run(&["sync", "diff"]).await;
        let told = String::from_utf8_lossy(&diff.stderr).into_owned();
        assert_eq!(diff.status.code(), Some(3), "{told}");
        assert!(told.contains("failed to") && told.contains("hint: ") && !told.contains("secret-"), "{told}");
    }

    /// What was written since `before`, by method and collection, and how often.
    fn written(&self, before: usize) -> BTreeMap<String, usize> {
        let mut written = BTreeMap::new();
        for request in self.way.writes().into_iter().skip(before) {
            let collection = NAMES.into_iter().find(|name| request.contains(*name)).unwrap_or("others");
            let method = request.split(' ').next().unwrap_or_default().to_owned();
            *written.entry(format!("{method} {collection}")).or_default() += 1;
        }
        written
    }

    /// Leaves nothing in an Airflow that others use.
    async fn tidy(self) {
        for kind in [EntryKind::Variables, EntryKind::Pools, EntryKind::Connections] {
            let entries = self.story.entries(kind).await;
            let keys = entries.into_keys().filter(|key| key.starts_with(&self.tag)).collect();
            self.story.airflow.change_entries(kind, Change::Delete(keys), Care::Together).await;
        }
    }
}

/// What one round of [`Away::edit`] takes.
fn expected(three: bool) -> BTreeMap<String, usize> {
    let counts: &[(&str, usize)] = if three {
        // One request for all that are made, one for all that change, one for all that go.
        &[("PATCH variables", 3), ("PATCH pools", 3), ("PATCH connections", 3)]
    } else {
        &[
            ("POST variables", 1),
            ("PATCH variables", 3),
            ("DELETE variables", 1),
            ("POST pools", 1),
            ("PATCH pools", 1),
            ("DELETE pools", 1),
            ("POST connections", 1),
            ("PATCH connections", 1),
            ("DELETE connections", 1),
        ]
    };
    counts.iter().map(|(request, count)| ((*request).to_owned(), *count)).collect()
}

/// The way to a real Airflow is closed, swallows answers, and delivers late.
async fn an_airflow_goes_away_and_comes_back(real: &RealAirflow, three: bool) {
    let (username, password) = real.login();
    let mut away = Away::begin(&real.url(), real.home(), (&username, &password)).await;

    // Nothing reaches it while everything changes.
    let (before, failures) = (away.way.writes().len(), away.way.failures());
    away.way.close(true);
    away.edit(1).await;
    away.is_told("closed").await;
    assert_eq!(away.way.writes().len(), before);
    away.way.close(false);
    away.in_step("open again").await;
    let written = away.written(before);
    println!("airflow 3: {three}; written after it was away: {written:?}");
    // An Airflow on SQLite that is busy fails now and then, and what it failed at is sent again.
    if away.way.failures() == failures {
        assert_eq!(written, expected(three));
    }

    // A change takes effect, and its answer is lost; then the way is closed before anybody can look.
    let variables = if three { "PATCH /api/v2/variables" } else { "PATCH /api/v1/variables/" };
    let connections = if three { "PATCH /api/v2/connections" } else { "PATCH /api/v1/connections/" };
    for request in [variables, connections] {
        away.way.next(request, Mishap::AnswerLost);
    }
    let met = away.way.met();
    away.edit(2).await;
    until(|| away.way.met() == met + 2, "two answers are lost").await;
    away.way.close(true);
    away.variable("v0", Some("after the answer was lost")).await;
    away.password("dwh", Some("secret-lost")).await;
    away.is_told("after lost answers").await;
    away.way.close(false);
    away.in_step("after lost answers").await;

    // A request hangs and is given up. It takes effect late, when its znode wants something else already.
    away.way.next(variables, Mishap::Late);
    let met = away.way.met();
    away.variable("v1", Some("late")).await;
    until(|| away.way.met() == met + 1, "a request hangs").await;
    let given_up = |state: &Value| state["error"].as_str().is_some_and(|error| error.contains("no answer in time"));
    away.story.until("variables", "a hung request", given_up).await;
    away.variable("v1", Some("wanted since")).await;
    away.variable("v5", Some("another")).await;
    away.way.release();
    away.in_step("after a late request").await;
    away.tidy().await;
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool, what: &str) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_real_airflow_3_goes_away_and_comes_back() {
    let _alone = alone().await;
    an_airflow_goes_away_and_comes_back(&RealAirflow::three(), true).await;
}

#[tokio::test]
async fn a_real_airflow_2_goes_away_and_comes_back() {
    let _alone = alone().await;
    an_airflow_goes_away_and_comes_back(&RealAirflow::two(), false).await;
}

#[tokio::test]
async fn a_real_api_server_is_stopped_killed_and_started_again() {
    let _alone = alone().await;
    let (mut own, real) = (OwnAirflow::start(true).await, RealAirflow::three());
    let (username, password) = real.login();
    let mut away = Away::begin(&own.url(), own.home(), (&username, &password)).await;

    // It stops where it stands, and goes on with what was sent meanwhile.
    own.freeze(true);
    away.edit(1).await;
    away.is_told("stopped").await;
    away.variable("v0", Some("while it stood still")).await;
    own.freeze(false);
    away.in_step("going on").await;

    // It is killed while it writes, and znodes change before it is back.
    let before = away.way.writes().len();
    for number in 0..300 {
        away.variable(&format!("many{number:03}"), Some("text")).await;
    }
    until(|| away.way.writes().len() > before, "it is written").await;
    own.kill();
    for number in 0..300 {
        let text = (number % 3 != 0).then_some("another text");
        if number % 2 == 0 {
            away.variable(&format!("many{number:03}"), text).await;
        }
    }
    away.edit(2).await;
    away.is_told("killed").await;
    own.restart().await;
    away.in_step("started again").await;
}

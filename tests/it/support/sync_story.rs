//! Stories of syncs: a member that serves them, what they are between, and waiting for what they do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowkeeper::airflow::Airflow;
use flowkeeper::clock::Clock;
use flowkeeper::domain::sync::entry::EntryKind;
use flowkeeper::domain::sync::plan::Owned;
use flowkeeper::domain::sync::shown::{Fields, Shown};
use flowkeeper::store::Ledger;
use serde_json::Value;
use zookeeper_client::Client;

use super::airflow::unique;
use super::fake_airflow::FakeAirflow;
use super::process::Member;
use super::real_airflow::client;
use super::zookeeper::{ZooKeeperServer, create, delete, set};

/// How long anything may take that a story waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// One child, one variable.
pub(crate) const VARIABLES: &str = r#"
[[sync]]
name = "variables"
znode = { path = "{root}/variables" }
to = "variables"
prune = true
interval = "10s"
"#;

/// A member that serves syncs, and what they are between.
pub(crate) struct Story {
    pub(crate) zookeeper: Client,
    /// The znode that everything of this story is below.
    pub(crate) root: String,
    pub(crate) airflow: Airflow,
    pub(crate) member: Member,
    /// The configuration without what is each member's own.
    config: String,
    password: String,
}

impl Story {
    /// Prepares a member for the Airflow at `url`; `syncs` is TOML in which `{root}` is the story's znode.
    pub(crate) async fn prepare(server: &ZooKeeperServer, url: &str, login: (&str, &str), syncs: &str) -> Self {
        Self::prepare_on("sqlite://ledger.db", &server.connect(), server.client().await, url, login, syncs).await
    }

    /// The same with a store that members can share, and any ensemble as home.
    pub(crate) async fn prepare_on(
        store: &str,
        connect: &str,
        zookeeper: Client,
        url: &str,
        (username, password): (&str, &str),
        syncs: &str,
    ) -> Self {
        let root = format!("/sync-{}", unique());
        create(&zookeeper, &root, b"").await;
        let config = format!(
            "[zookeeper]\nconnect = \"{connect}\"\nroot = \"{root}/flowkeeper\"\nsession_timeout = \"4s\"\n\
             [airflow.main]\nurl = \"{url}\"\nauth = {{ username = \"{username}\", password = {{ file = \"password\" }} }}\n\
             timeout = \"10s\"\n{}",
            syncs.replace("{root}", &root)
        );
        let airflow = client(url, username, password);
        let member = member(store, &config, password);
        Self { zookeeper, root, airflow, member, config, password: password.to_owned() }
    }

    /// Another member with the same configuration, which is not started.
    pub(crate) fn another(&self, store: &str) -> Member {
        member(store, &self.config, &self.password)
    }

    /// The same for a fake.
    pub(crate) async fn with_fake(server: &ZooKeeperServer, fake: &FakeAirflow, syncs: &str) -> Self {
        Self::prepare(server, &fake.url(), ("admin", "admin"), syncs).await
    }

    /// The same, serving, with the variable `a` in step: it is `1`.
    pub(crate) async fn with_one_variable(server: &ZooKeeperServer, fake: &FakeAirflow) -> Self {
        let mut story = Self::with_fake(server, fake, VARIABLES).await;
        story.create("variables", "").await;
        story.create("variables/a", "1").await;
        story.member.start();
        story.in_step("variables", 1).await;
        story
    }

    pub(crate) async fn create(&self, path: &str, data: &str) {
        create(&self.zookeeper, &format!("{}/{path}", self.root), data.as_bytes()).await;
    }

    pub(crate) async fn set(&self, path: &str, data: &str) {
        set(&self.zookeeper, &format!("{}/{path}", self.root), data.as_bytes()).await;
    }

    pub(crate) async fn delete(&self, path: &str) {
        delete(&self.zookeeper, &format!("{}/{path}", self.root)).await;
    }

    pub(crate) async fn state(&self, sync: &str) -> Option<Value> {
        state(&self.member, sync).await
    }

    /// Waits until a sync is as `good` says.
    pub(crate) async fn until(&mut self, sync: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        until(&mut self.member, sync, what, good).await
    }

    /// Waits until exactly so many keys are in step, and nothing else is told.
    pub(crate) async fn in_step(&mut self, sync: &str, count: u64) {
        in_step(&mut self.member, sync, count).await;
    }

    pub(crate) async fn entries(&self, kind: EntryKind) -> BTreeMap<String, Shown> {
        self.airflow.list_entries(kind).await.expect("a list")
    }

    /// A ledger, for reading.
    pub(crate) async fn ledger(&self, store: &str) -> Ledger {
        Ledger::open_read_only(store, Clock::system()).await.expect("open the ledger")
    }

    /// What the ledger takes for ours.
    pub(crate) async fn owned(&self, kind: EntryKind) -> BTreeMap<String, Owned> {
        self.member.ledger().await.owned_entries("main", kind).await.expect("rows of the ledger")
    }

    pub(crate) async fn variable(&self, key: &str) -> Option<String> {
        match self.entries(EntryKind::Variables).await.remove(key)?.fields {
            Fields::Variable(text) => text,
            _ => None,
        }
    }

    /// Waits until a variable holds this.
    pub(crate) async fn until_variable(&self, key: &str, text: Option<&str>) {
        let end = Instant::now() + PATIENCE;
        while self.variable(key).await.as_deref() != text {
            assert!(Instant::now() < end, "{key} does not become {text:?}\n{}", self.member.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn apply(&self, sync: &str, body: Value) -> Value {
        self.member.post(&format!("sync/{sync}/apply"), &body).await
    }

    /// The version of the definitions in force.
    pub(crate) async fn version(&self) -> Option<Value> {
        self.member.get("config").await.map(|config| config["in_force"]["version"].clone())
    }

    /// Replaces a word of the configuration, and waits until that is in force; how long it took.
    pub(crate) async fn reload(&self, before: &str, after: &str) -> Duration {
        let version = self.version().await.expect("a version");
        let main = self.member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&main).expect("the configuration");
        assert!(text.contains(before), "{before} is not in {text}");
        let begun = Instant::now();
        std::fs::write(&main, text.replace(before, after)).expect("write the file");
        while self.version().await.is_none_or(|now| now == version) {
            assert!(begun.elapsed() < PATIENCE, "{}", self.member.logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }
}

fn member(store: &str, config: &str, password: &str) -> Member {
    let member = Member::sharing(store, config);
    std::fs::write(member.path().join("password"), password).expect("a password");
    member
}

/// What a member says of a sync.
pub(crate) async fn state(member: &Member, sync: &str) -> Option<Value> {
    let page = member.get("sync").await?;
    page["items"].as_array()?.iter().find(|item| item["name"] == sync).cloned()
}

/// Waits until a member says of a sync what `good` says.
pub(crate) async fn until(member: &mut Member, sync: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let ended = member.ended();
        assert!(ended.is_none(), "flowkeeper ended: {ended:?}\n{}", member.logged());
        let state = state(member, sync).await.unwrap_or_default();
        if good(&state) {
            return state;
        }
        assert!(Instant::now() < end, "{sync}: {what}: {state:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until exactly so many keys are in step, and nothing else is told.
pub(crate) async fn in_step(member: &mut Member, sync: &str, count: u64) {
    until(member, sync, &format!("{count} in step"), |state| {
        state["state"] == "in_step" && state["counts"]["in_step"].as_u64().unwrap_or(0) == count
    })
    .await;
}

/// The steps of a report, by key.
pub(crate) fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    report["items"].as_array().into_iter().flatten().map(|item| (text(item, "key"), text(item, "step"))).collect()
}

/// The step of one key.
pub(crate) fn one(key: &str, step: &str) -> Vec<(String, String)> {
    vec![(key.to_owned(), step.to_owned())]
}

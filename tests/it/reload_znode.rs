//! The rule of a znode trigger is edited while znodes change, on a real `ZooKeeper`: each change is covered
//! by one run, of one rule, also if the member dies in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zookeeper_client::Client;

use crate::reload::{airflow, another, fake, of, save, version};
use crate::support::fake_airflow::FakeAirflow;
use crate::support::process::Member;
use crate::support::team::PATIENCE;
use crate::support::zookeeper::{ZooKeeperServer, create, delete, set};

/// A member whose schedule `tree` watches below a znode of its own, and somebody who changes what is there.
struct Scene {
    member: Member,
    fake: FakeAirflow,
    client: Client,
    place: String,
    rule: u32,
}

impl Scene {
    async fn start(watch: &str) -> Self {
        let zookeeper = ZooKeeperServer::shared().await;
        let client = zookeeper.client().await;
        let place = format!("/edit-{}", uuid::Uuid::new_v4().simple());
        create(&client, &place, b"").await;
        let fake = fake().await;
        let home = format!(
            "[zookeeper]\nconnect = \"{}\"\nroot = \"{place}/root\"\nsession_timeout = \"4s\"\n",
            zookeeper.connect()
        );
        let member = Member::new(&format!("{home}{}", airflow(&fake)));
        save(&member.path().join("password"), "admin");
        member.include_schedules();
        let mut scene = Self { member, fake, client, place, rule: 0 };
        for directory in ["one", "two"] {
            create(&scene.client, &scene.at(directory), b"").await;
        }
        for file in ["one/a.json", "one/b.txt", "two/a.json"] {
            create(&scene.client, &scene.at(file), b"").await;
        }
        scene.write(watch);
        scene.member.start();
        scene.member.armed().await;
        scene
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.place)
    }

    /// Saves another rule; `watch` has `{place}` for the znode of this scene.
    fn write(&mut self, watch: &str) {
        self.rule += 1;
        let watch = watch.replace("{place}", &self.place);
        let text = format!(
            "[[schedule]]\nname = \"tree\"\nznode = {{ {watch} }}\ndag = \"load\"\n\
             conf = {{ rule = {}, path = \"{{{{ znode.path }}}}\", event = \"{{{{ znode.event }}}}\", \
             version = \"{{{{ znode.version }}}}\" }}\nretry = {{ initial = \"100ms\", max = \"300ms\" }}\n",
            self.rule
        );
        save(&self.member.path().join("schedules/a.toml"), &text);
    }

    async fn go_over(&mut self, watch: &str) {
        let before = version(&self.member).await;
        self.write(watch);
        another(&self.member, &before).await;
    }

    /// Sets a znode again and again; the version that it comes to.
    fn keep_setting(&self, path: &str, stop: &CancellationToken) -> JoinHandle<i64> {
        let (client, path, stop) = (self.client.clone(), self.at(path), stop.clone());
        tokio::spawn(async move {
            let mut count = 0;
            while !stop.is_cancelled() {
                set(&client, &path, b"x").await;
                count += 1;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            count
        })
    }

    /// How often each version of a znode is covered by the runs that are not of its deletion.
    fn covered(&self, runs: &[Run], path: &str) -> BTreeMap<i64, usize> {
        let path = self.at(path);
        let mut covered = BTreeMap::new();
        for run in of(runs, "tree").iter().filter(|run| run.conf["path"] == path.as_str()) {
            if run.conf["event"] != "deleted" {
                let version = run.conf["version"].as_i64().expect("a version");
                (version - run.coalesced..=version).for_each(|version| *covered.entry(version).or_default() += 1);
            }
        }
        covered
    }

    /// Waits until the versions from `first` to `last` of a znode, and no others, are covered once each.
    async fn each_once(&self, path: &str, first: i64, last: i64) -> Vec<Run> {
        let expected: BTreeMap<i64, usize> = (first..=last).map(|version| (version, 1)).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            let runs = self.member.runs().await;
            let covered = self.covered(&runs, path);
            if covered == expected {
                return runs;
            }
            let differ: Vec<_> = (first..=last)
                .filter(|version| covered.get(version) != Some(&1))
                .map(|v| (v, covered.get(&v)))
                .collect();
            assert!(Instant::now() < end, "{path}: {differ:?} of {first} to {last}\n{}", self.member.logged());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every row is one DAG run.
    async fn nothing_twice(&self) {
        let runs = self
            .member
            .wait_for_runs("all are accepted", |runs| runs.iter().all(|run| run.state != RunState::Pending))
            .await;
        let rows: BTreeSet<_> = runs.iter().map(|run| run.dag_run_id.clone()).collect();
        let there: BTreeSet<_> = self.fake.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
        assert_eq!((rows.len(), there.len()), (runs.len(), self.fake.world().runs().len()));
        assert_eq!(rows, there);
    }
}

const JSON: &str = r#"path = "{place}/one", watch = "subtree", on = ["created", "changed"], include = ["**/*.json"]"#;
const ALL_KINDS: &str =
    r#"path = "{place}/one", watch = "subtree", on = ["created", "changed", "deleted"], include = ["**/*.json"]"#;
const ALL_FILES: &str = r#"path = "{place}/one", watch = "subtree", on = ["created", "changed", "deleted"]"#;
const ELSEWHERE: &str = r#"path = "{place}/two", watch = "subtree", on = ["created", "changed", "deleted"]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_belongs_to_one_rule_whatever_of_it_is_edited_while_znodes_change() {
    let mut scene = Scene::start(JSON).await;
    let stop = CancellationToken::new();
    let setting = ["one/a.json", "one/b.txt", "two/a.json"].map(|path| scene.keep_setting(path, &stop));
    let some = Duration::from_millis(700);
    // Other kinds of change; what is of no interest stays so.
    tokio::time::sleep(some).await;
    scene.go_over(ALL_KINDS).await;
    create(&scene.client, &scene.at("one/c.json"), b"").await;
    let created = scene.at("one/c.json");
    let is_created = |run: &Run| run.conf["path"] == created.as_str();
    scene.member.wait_for_runs("a znode that is new", |runs| runs.iter().any(is_created)).await;
    delete(&scene.client, &scene.at("one/c.json")).await;
    tokio::time::sleep(some).await;
    // More znodes of the same place, which were there before and not watched.
    scene.go_over(ALL_FILES).await;
    tokio::time::sleep(some).await;
    scene.go_over(JSON).await;
    tokio::time::sleep(some).await;
    scene.go_over(ALL_FILES).await;
    tokio::time::sleep(some).await;
    stop.cancel();
    let [json, text, elsewhere] = setting.map(async |setting| setting.await.expect("it is set"));
    let (json, text, elsewhere) = (json.await, text.await, elsewhere.await);
    assert!(json > 20 && text > 20 && elsewhere > 20, "{json} {text} {elsewhere}");

    // Always watched: every version, by the rules one after the other.
    let runs = scene.each_once("one/a.json", 1, json).await;
    let path = scene.at("one/a.json");
    let mut rules: Vec<(i64, i64)> = of(&runs, "tree")
        .iter()
        .filter(|run| run.conf["path"] == path.as_str())
        .map(|run| (run.conf["version"].as_i64().expect("a version"), run.conf["rule"].as_i64().expect("a rule")))
        .collect();
    rules.sort_unstable();
    assert!(rules.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{rules:?}");
    assert_eq!(rules.iter().map(|(_, rule)| *rule).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3, 4, 5]));

    // Watched now and then: never twice, nothing of the time before, and everything up to the end.
    let end = Instant::now() + PATIENCE;
    while !scene.covered(&scene.member.runs().await, "one/b.txt").contains_key(&text) {
        assert!(Instant::now() < end, "{}", scene.member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let runs = scene.member.runs().await;
    let covered = scene.covered(&runs, "one/b.txt");
    assert!(covered.values().all(|times| *times == 1), "{covered:?}");
    assert!(!covered.contains_key(&1), "what exists when it is first watched is no change: {covered:?}");
    let path = scene.at("one/b.txt");
    assert!(
        of(&runs, "tree")
            .iter()
            .filter(|run| run.conf["path"] == path.as_str())
            .all(|run| run.conf["rule"] == 3 || run.conf["rule"] == 5)
    );
    let deleted: Vec<_> = of(&runs, "tree").into_iter().filter(|run| run.conf["event"] == "deleted").collect();
    assert_eq!(deleted.len(), 1, "{deleted:#?}");
    assert_eq!((&deleted[0].conf["path"], &deleted[0].conf["rule"]), (&scene.at("one/c.json").into(), &2.into()));
    assert!(scene.covered(&runs, "two/a.json").is_empty(), "never watched");

    // Another place: what exists there is no change, and here nothing is one any more.
    let rows = runs.len();
    scene.go_over(ELSEWHERE).await;
    scene.member.armed().await;
    set(&scene.client, &scene.at("one/a.json"), b"y").await;
    set(&scene.client, &scene.at("two/a.json"), b"y").await;
    let runs = scene.each_once("two/a.json", elsewhere + 1, elsewhere + 1).await;
    assert_eq!(runs.len(), rows + 1);
    scene.nothing_twice().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_while_a_rule_is_edited_loses_and_doubles_no_change() {
    let mut scene = Scene::start(JSON).await;
    let stop = CancellationToken::new();
    let setting = scene.keep_setting("one/a.json", &stop);
    // The file is noticed within 300 ms; then it takes some tens of milliseconds to go over.
    for (round, rule) in [ALL_KINDS, JSON, ALL_FILES, JSON, ALL_KINDS].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        scene.write(rule);
        tokio::time::sleep(Duration::from_millis(250 + 40 * u64::try_from(round).expect("few rounds"))).await;
        scene.member.kill();
        scene.member.start();
        scene.member.armed().await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.cancel();
    let last = setting.await.expect("it is set");
    scene.each_once("one/a.json", 1, last).await;
    scene.nothing_twice().await;
}

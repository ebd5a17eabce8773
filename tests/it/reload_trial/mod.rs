//! Random reloads, good and bad, from every source, of three members that share an ensemble and a
//! PostgreSQL, while cron and znodes come due: nothing is lost or doubled, and all agree at the end.
//!
//! `sets` draws definitions, `places` has the ways in which they get where members take them from,
//! `airflows` what makes DAG runs of what is due, `proof` compares, `report` tells. In short it is a test like any other,
//! with a real Airflow too; at length it runs with `make reloads`.

mod airflows;
mod places;
mod proof;
mod report;
pub(crate) mod sets;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::config::{self, Document, Environment, version_of};
use flowkeeper::zookeeper::MemberCard;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Acls, Client, CreateMode, Error, Stat};

use crate::support::ensemble::ZooKeeperEnsemble;
use crate::support::postgres::PostgresServer;
use crate::support::process::Member;
use crate::support::random::Random;
use airflows::Target;
use places::{Bad, Place, Way};
use proof::{Evidence, Versions, Written, judge};
use report::report;
use sets::{ALWAYS, FLAG, Ground, Mistake, SOMETIMES, Set, TREE, draw, enlarge};

/// How many members there are.
const MEMBERS: usize = 3;

/// How many reloads `make reloads` does from each place.
const RELOADS: &str = "FLOWKEEPER_RELOADS";

/// What its sets are drawn from.
const SEED: &str = "FLOWKEEPER_RELOADS_SEED";

/// How long the members may take to agree, and the last rows to be settled.
const PATIENCE: Duration = Duration::from_mins(4);

/// The znode with the definitions.
const ZNODE: &str = "/flowkeeper/config";

/// What is no set.
const RUBBISH: &str = "{\"format\": [";

/// Where members tell what they run.
const CARDS: &str = "/flowkeeper/members";

/// A bad set is one in so many.
const BAD: u64 = 4;

/// An earlier set is written once more once in so many.
const EARLIER: u64 = 8;

/// How fast everything goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two reloads, in milliseconds.
    reloads: (u64, u64),
    /// Between two changes of the flag.
    flag: Duration,
    /// A znode below the tree is changed after so many changes of the flag.
    tree: u64,
}

/// As fast as an Airflow in this process allows.
const FAST: Pace = Pace { reloads: (20, 700), flag: Duration::from_millis(40), tree: 5 };

/// What a real Airflow on SQLite gets done.
const GENTLE: Pace = Pace { reloads: (100, 1500), flag: Duration::from_secs(1), tree: 3 };

struct Trial {
    place: Place,
    ensemble: ZooKeeperEnsemble,
    client: Client,
    airflow: Target,
    ground: Ground,
    members: Vec<Member>,
    random: Random,
    /// The good sets, in the order in which they were written.
    written: Vec<Written>,
    /// The same by version.
    by_version: BTreeMap<String, Set>,
    rounds: u64,
    /// How often something was written.
    puts: usize,
    /// How often which way was taken, and which sets were bad in what way.
    taken: BTreeMap<String, usize>,
}

impl Trial {
    async fn start(place: Place, airflow: Target, seed: u64) -> Self {
        let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
        let client = ensemble.client().await;
        let store = PostgresServer::shared().await.create_database().await;
        for path in [FLAG, TREE, ALWAYS, SOMETIMES, "/flowkeeper"] {
            create(&client, path, b"0").await;
        }
        let ground = airflow.ground();
        let mut trial = Self {
            place,
            ensemble,
            client,
            airflow,
            ground,
            members: Vec::new(),
            random: Random::new(seed),
            written: Vec::new(),
            by_version: BTreeMap::new(),
            rounds: 0,
            puts: 0,
            taken: BTreeMap::new(),
        };
        let first = trial.draw();
        if place == Place::Znode {
            create(&trial.client, ZNODE, first.text.as_bytes()).await;
        }
        for _ in 0..MEMBERS {
            let zookeeper =
                format!("[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n", trial.ensemble.connect());
            let member = Member::sharing(&store, &zookeeper);
            match place {
                Place::Files => member.include_schedules(),
                Place::Znode => {
                    let main = member.path().join("flowkeeper.toml");
                    let text = std::fs::read_to_string(&main).expect("the configuration");
                    // The password, and the one that is not there.
                    let own = format!(
                        "definitions = \"zookeeper\"\npushed = {{ files = [\"{}*\"] }}\n[log]",
                        trial.ground.password
                    );
                    std::fs::write(&main, text.replacen("[log]", &own, 1)).expect("write the configuration");
                }
            }
            places::lay(member.path(), &first.text);
            trial.members.push(member);
        }
        trial.note(&first);
        for member in &mut trial.members {
            member.start();
        }
        trial.armed().await;
        trial
    }

    /// Waits until the schedules that are always there are armed.
    async fn armed(&self) {
        let began = Instant::now();
        loop {
            for member in &self.members {
                let schedules = member.get("schedules").await.unwrap_or_default();
                let items = schedules["items"].as_array().cloned().unwrap_or_default();
                let armed = |name: &str| items.iter().any(|item| item["name"] == name && item["armed"] == true);
                if ["tick", "flag", "tree"].into_iter().all(armed) {
                    return;
                }
            }
            assert!(began.elapsed() < PATIENCE, "not armed\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn logs(&self) -> String {
        self.members.iter().map(Member::logged).collect::<Vec<_>>().join("\n----\n")
    }

    fn draw(&mut self) -> Set {
        self.rounds += 1;
        draw(&self.ground, &mut self.random, self.rounds)
    }

    /// A good set is about to be written.
    fn note(&mut self, set: &Set) {
        let version = self.version(&set.text);
        self.by_version.insert(version, set.clone());
        self.written.push(Written {
            at: Clock::system().now(),
            round: set.round,
            clocks: set.clocks.clone(),
            sees_sometimes: set.sees_sometimes,
        });
    }

    /// The version of a set, which members must tell when they have it.
    fn version(&self, text: &str) -> String {
        match self.place {
            Place::Znode => version_of(&[document(text)]),
            Place::Files => {
                let directory = tempfile::tempdir().expect("a directory");
                let main = directory.path().join("flowkeeper.toml");
                std::fs::copy(self.members[0].path().join("flowkeeper.toml"), &main).expect("copy the main file");
                places::lay(directory.path(), text);
                let (config, _) = config::check(&main, &Environment::default()).expect("a good set");
                config.version
            }
        }
    }

    fn member(&mut self) -> usize {
        usize::try_from(self.random.below(MEMBERS as u64)).expect("a member")
    }

    fn count(&mut self, what: String) {
        *self.taken.entry(what).or_default() += 1;
    }

    /// One reload of a good set.
    async fn reload(&mut self) {
        let way = Way::draw(self.place, &mut self.random);
        self.count(format!("{way:?}"));
        if way == Way::RolledBack && self.roll_back().await {
            return;
        }
        let mut set = if self.random.below(EARLIER) == 0 {
            let earlier = usize::try_from(self.random.below(self.by_version.len() as u64)).expect("an index");
            self.by_version.values().nth(earlier).expect("below the length").clone()
        } else {
            self.draw()
        };
        if way == Way::PushedLarge {
            set.text = enlarge(&set.text);
        }
        self.note(&set);
        match way {
            Way::Pushed | Way::PushedLarge | Way::RolledBack => {
                let (status, answer) = self.push(&set.text, true, None).await;
                assert_eq!((status, &answer["version"]), (200, &json!(self.version(&set.text))), "{answer}");
            }
            _ => {
                self.put(&set.text, way).await;
                let (asked, version) = (self.follow_up(way).await, self.version(&set.text));
                if let Some((status, answer)) = asked {
                    assert_eq!((status, &answer["version"]), (200, &json!(version)), "{answer}\n{}", self.logs());
                }
            }
        }
    }

    /// One reload that is refused.
    async fn reload_bad(&mut self) {
        let mut bad = Bad::draw(self.place, &mut self.random);
        if bad == Bad::PushedTooLate && !self.has_set().await {
            // Over nothing, no push is too late.
            bad = Bad::Emptied;
        }
        let mut way = Way::draw(self.place, &mut self.random);
        let set = self.draw();
        let pushed = matches!(way, Way::Pushed | Way::PushedLarge | Way::RolledBack);
        match bad {
            Bad::PushedTooLate => {
                let (status, answer) = self.push(&set.text, false, Some("000000000000")).await;
                assert_eq!(status, 409, "{answer}");
            }
            // Whoever checks has no secrets, so such a set can be pushed, and members refuse it.
            Bad::Mistaken(mistake) if pushed && Mistake::CHECKED.contains(&mistake) => {
                let (status, answer) = self.push(&mistake.spoil(&set, &self.ground), true, None).await;
                assert_eq!(status, 422, "{answer}");
                assert!(answer["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{answer}");
                way = Way::Pushed;
            }
            _ => {
                if pushed {
                    way = Way::SetAndRequest;
                }
                match bad {
                    Bad::Mistaken(mistake) => self.put(&mistake.spoil(&set, &self.ground), way).await,
                    Bad::Rubbish => self.put(RUBBISH, way).await,
                    Bad::Emptied => self.put("", way).await,
                    Bad::PushedTooLate | Bad::Deleted => self.delete().await,
                }
                if let Some((status, answer)) = self.follow_up(way).await {
                    assert_eq!(status, 422, "{bad:?}: {answer}\n{}", self.logs());
                    assert!(answer["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{answer}");
                }
            }
        }
        self.count(match bad {
            Bad::Mistaken(mistake) => format!("bad, {mistake:?}, {way:?}"),
            bad => format!("bad, {bad:?}"),
        });
    }

    /// Writes a set where every member takes its definitions from.
    async fn put(&mut self, text: &str, way: Way) {
        self.puts += 1;
        let number = self.puts;
        match self.place {
            Place::Files => self.members.iter().for_each(|member| places::save(member.path(), text, way, number)),
            Place::Znode => {
                set(&self.ensemble.connect(), &mut self.client, ZNODE, text.as_bytes()).await;
            }
        }
    }

    /// Whether there is a set in the znode, good or bad.
    async fn has_set(&self) -> bool {
        let data = self.client.get_data(ZNODE).await.map(|(data, _)| data).unwrap_or_default();
        !data.is_empty() && data != RUBBISH.as_bytes()
    }

    async fn delete(&mut self) {
        match self.client.delete(ZNODE, None).await {
            Ok(()) | Err(Error::NoNode) => {}
            // Parts of a large set are below it.
            Err(Error::NotEmpty) => self.put("", Way::Set).await,
            Err(error) => panic!("delete {ZNODE}: {error}"),
        }
    }

    /// Has a member look at once, as this way does; what it answered, if it was asked.
    async fn follow_up(&mut self, way: Way) -> Option<(u16, Value)> {
        let whom = self.member();
        if way.signals() {
            self.members[whom].signal("HUP");
        }
        if !way.asks() {
            return None;
        }
        let url = format!("{}/api/v1/config/reload", self.members[whom].url());
        Some(answer(|| reqwest::Client::new().post(&url).json(&json!({}))).await)
    }

    /// Pushes a set through any member; what that answered.
    async fn push(&mut self, text: &str, force: bool, base: Option<&str>) -> (u16, Value) {
        let whom = self.member();
        let url = format!("{}/api/v1/config/definitions", self.members[whom].url());
        let push = uuid::Uuid::new_v4().simple().to_string();
        let body = json!({
            "documents": [document(text)], "force": force, "base": base, "author": "trial", "push": push
        });
        answer(|| reqwest::Client::new().put(&url).json(&body)).await
    }

    /// Puts a set of the history in force again, through any member; false if it has none to go back to.
    async fn roll_back(&mut self) -> bool {
        let whom = self.member();
        let history = self.members[whom].get("config/history?limit=40").await.unwrap_or_default();
        let versions: Vec<&str> =
            history["items"].as_array().into_iter().flatten().filter_map(|item| item["version"].as_str()).collect();
        let known: Vec<&str> = versions.into_iter().filter(|version| self.by_version.contains_key(*version)).collect();
        if known.is_empty() {
            return false;
        }
        let version = self.random.pick(&known).to_owned();
        self.note(&self.by_version[&version].clone());
        let url = format!("{}/api/v1/config/rollback", self.members[whom].url());
        let push = uuid::Uuid::new_v4().simple().to_string();
        let body = json!({"version": version, "force": true, "push": push});
        let (status, answer) = answer(|| reqwest::Client::new().post(&url).json(&body)).await;
        assert_eq!((status, &answer["version"]), (200, &json!(version)), "{answer}");
        true
    }

    /// Waits until all members have this set, refuse none, and say so to the others; how long that took.
    async fn agreed(&self, set: &Set) -> Duration {
        let (began, version) = (Instant::now(), self.version(&set.text));
        loop {
            let mut differs = String::new();
            for (index, member) in self.members.iter().enumerate() {
                let config = member.get("config").await.unwrap_or_default();
                let agrees = config["in_force"]["version"] == version
                    && config["schedules"] == set.schedules
                    && config["refused"].is_null()
                    && config["applying"].is_null()
                    && config["restart"] == json!([]);
                let members = member.get("members").await.unwrap_or_default();
                let items = members["items"].as_array().cloned().unwrap_or_default();
                let in_step = |item: &Value| {
                    item["configuration_version"] == version
                        && item["schedules"] == set.schedules
                        && item["session"] == "connected"
                        && item["lag_ms"] == 0
                        && item["refuses"].is_null()
                        && item["warning"].is_null()
                };
                let leaders = items.iter().filter(|item| item["role"] == "leader").count();
                if !agrees || items.len() != MEMBERS || leaders != 1 || !items.iter().all(in_step) {
                    let _ = writeln!(differs, "member {index}: {config:#}\n{members:#}");
                }
            }
            let cards = self.cards().await;
            let says_so = |card: &MemberCard| {
                card.configuration_version == version
                    && card.schedules == Some(set.schedules)
                    && card.refuses.is_none()
                    && card.unrecorded_since.is_none()
            };
            if cards.len() != MEMBERS || !cards.iter().all(says_so) {
                let _ = writeln!(differs, "{cards:#?}");
            }
            if differs.is_empty() {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "not {version}:\n{differs}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What members tell of themselves, as anybody can read it in ZooKeeper.
    async fn cards(&self) -> Vec<MemberCard> {
        let mut cards = Vec::new();
        for name in self.client.list_children(CARDS).await.unwrap_or_default() {
            if let Ok((data, _)) = self.client.get_data(&format!("{CARDS}/{name}")).await {
                cards.push(serde_json::from_slice(&data).expect("a card"));
            }
        }
        cards
    }

    fn all_live(&mut self) {
        for (index, member) in self.members.iter_mut().enumerate() {
            let ended = member.ended();
            assert!(ended.is_none(), "member {index} ended: {ended:?}\n{}", member.logged());
        }
    }
}

fn document(text: &str) -> Document {
    Document { name: "all.toml".into(), text: text.to_owned() }
}

/// What a member answers. Where it is not possible at the moment, since the lead changes on a busy machine,
/// it is asked again: the same push is done once.
async fn answer(request: impl Fn() -> reqwest::RequestBuilder) -> (u16, Value) {
    let began = Instant::now();
    loop {
        let answer = request().send().await.expect("an answer");
        let (status, answer) = (answer.status().as_u16(), answer.json().await.expect("JSON"));
        if !matches!(status, 502..=504) || began.elapsed() > PATIENCE {
            return (status, answer);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn create(client: &Client, path: &str, data: &[u8]) {
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(path, data, &persistent).await.unwrap_or_else(|error| panic!("create {path}: {error}"));
}

/// Sets a znode, or makes it; where the answer is lost, or the session, it is set again.
async fn set(servers: &str, client: &mut Client, path: &str, data: &[u8]) -> Stat {
    let began = Instant::now();
    loop {
        let done = match client.set_data(path, data, None).await {
            Err(Error::NoNode) => {
                let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
                client.create(path, data, &persistent).await.map(|(stat, _)| stat)
            }
            done => done,
        };
        match done {
            Ok(stat) => return stat,
            Err(error) => assert!(began.elapsed() < PATIENCE, "set {path}: {error}"),
        }
        if let Ok(another) = Client::connect(servers).await {
            *client = another;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Changes the znodes that are watched, again and again; what it wrote.
async fn change(
    servers: String,
    mut client: Client,
    pace: Pace,
    stop: CancellationToken,
) -> BTreeMap<&'static str, Versions> {
    let mut written: BTreeMap<&'static str, Versions> =
        [FLAG, ALWAYS, SOMETIMES].map(|path| (path, Versions::new())).into();
    let mut number = 0_u64;
    while !stop.is_cancelled() {
        number += 1;
        let tree = [ALWAYS, SOMETIMES].into_iter().filter(|_| number.is_multiple_of(pace.tree));
        for path in [FLAG].into_iter().chain(tree) {
            let stat = set(&servers, &mut client, path, number.to_string().as_bytes()).await;
            let at = Timestamp::from_millisecond(stat.mtime).expect("a time");
            written.entry(path).or_default().insert(i64::from(stat.version), at);
        }
        tokio::time::sleep(pace.flag).await;
    }
    written
}

/// Reloads so often, and compares.
async fn through(place: Place, airflow: Target, tempo: Pace, reloads: usize, seed: u64) {
    println!("{place:?}: {reloads} reloads, seed {seed}");
    let mut trial = Trial::start(place, airflow, seed).await;
    let clock = Clock::system();
    let since = clock.now();
    let stop = CancellationToken::new();
    let changing = tokio::spawn(change(trial.ensemble.connect(), trial.client.clone(), tempo, stop.clone()));
    let began = Instant::now();
    for _ in 1..reloads {
        if trial.random.below(BAD) == 0 {
            trial.reload_bad().await;
        } else {
            trial.reload().await;
        }
        let pause = trial.random.milliseconds(tempo.reloads.0, tempo.reloads.1);
        tokio::time::sleep(pause).await;
        trial.airflow.advance();
        trial.all_live();
    }
    let last = trial.draw();
    trial.note(&last);
    match place {
        Place::Files => trial.put(&last.text, Way::Saved).await,
        Place::Znode => trial.put(&last.text, Way::Set).await,
    }
    trial.count("Last".to_owned());
    let agreed_after = trial.agreed(&last).await;
    trial.all_live();
    // Something is due under the last set too.
    trial.members[0]
        .wait_for_runs("a change under the last set", |runs| {
            runs.iter().rev().any(|run| run.schedule == "flag" && run.conf["round"] == last.round)
        })
        .await;
    stop.cancel();
    let znodes = changing.await.expect("the znodes are changed");
    let until = clock.now();
    let took = began.elapsed();
    let end = Instant::now() + PATIENCE;
    loop {
        let in_airflow = trial.airflow.dag_runs().await;
        let runs = trial.members[0].runs().await;
        let evidence = Evidence {
            since,
            until,
            step: trial.ground.step,
            sets: &trial.written,
            znodes: &znodes,
            runs: &runs,
            in_airflow: &in_airflow,
        };
        let mut verdict = judge(&evidence);
        // Whoever takes the lead may have heard of a set a moment later than the one before.
        if verdict.went_back > 0 && trial.logs().matches("took the lead").count() == 1 {
            verdict.wrong.push(format!("{} times a set came into force after a later one", verdict.went_back));
        }
        if verdict.wrong.is_empty() {
            println!("{}", report(&trial, &verdict, took, agreed_after, runs.len(), &znodes));
            break;
        }
        if Instant::now() > end {
            let place = std::env::temp_dir().join(format!("flowkeeper-reloads-{seed}-{place:?}.log"));
            std::fs::write(&place, trial.logs()).expect("keep the logs");
            let shown = &verdict.wrong[..verdict.wrong.len().min(20)];
            panic!(
                "seed {seed}: {} are wrong, {shown:#?}\nthe members' logs are in {}",
                verdict.wrong.len(),
                place.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    trial.airflow.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_reloads_of_files_nothing_is_lost_and_nothing_runs_twice() {
    through(Place::Files, Target::fake().await, FAST, 40, 20_261_122).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_reloads_of_a_znode_nothing_is_lost_and_nothing_runs_twice() {
    through(Place::Znode, Target::fake().await, FAST, 40, 20_261_122).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_reloads_a_real_airflow_has_each_run_once() {
    through(Place::Znode, Target::real().await, GENTLE, 40, 20_261_123).await;
}

/// How many reloads at length, and what they are drawn from.
fn at_length() -> (usize, u64) {
    let seed = std::env::var(SEED).ok().filter(|text| !text.is_empty());
    let seed = seed.map_or(u64::from(std::process::id()), |text| text.parse().expect("a seed"));
    (std::env::var(RELOADS).map_or(250, |text| text.parse().expect("a number of reloads")), seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: `make reloads`"]
async fn through_many_reloads_nothing_is_lost_and_nothing_runs_twice() {
    let (reloads, seed) = at_length();
    for place in [Place::Files, Place::Znode] {
        through(place, Target::fake().await, FAST, reloads, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a quarter of an hour: `make reloads`"]
async fn through_many_reloads_a_real_airflow_has_each_run_once() {
    let (reloads, seed) = at_length();
    for place in [Place::Files, Place::Znode] {
        through(place, Target::real().await, GENTLE, reloads, seed).await;
    }
}

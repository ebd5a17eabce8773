//! Random reloads, good and bad, from every source, of three members that share an ensemble and a
//! PostgreSQL, while cron and a znode come due: nothing is lost or doubled, and all agree at the end.
//!
//! In short it is a test like any other; at length it runs with `make reloads`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::ensemble::ZooKeeperEnsemble;
use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::postgres::PostgresServer;
use crate::support::process::Member;
use crate::support::random::Random;

/// How many members there are.
const MEMBERS: usize = 3;

/// How many reloads `make reloads` does from each place.
const RELOADS: &str = "FLOWKEEPER_RELOADS";

/// How long the members may take to agree, and the last rows to be settled.
const PATIENCE: Duration = Duration::from_mins(2);

/// The znode that triggers watch.
const FLAG: &str = "/flag";

/// The times at which the schedule `job` may be due.
const JOB: [&str; 3] = ["*/2 * * * * *", "1-59/2 * * * * *", "*/3 * * * * *"];

/// Where the definitions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Files,
    Znode,
}

/// How a reload is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Written in place, or into the znode.
    Saved,
    /// Renamed over it, or pushed through a member.
    Replaced,
    /// Saved, and a signal.
    Signal,
    /// Saved, and a request.
    Request,
}

struct Trial {
    place: Place,
    ensemble: ZooKeeperEnsemble,
    client: Client,
    fake: FakeAirflow,
    members: Vec<Member>,
    random: Random,
    reloads: usize,
    bad: usize,
}

impl Trial {
    async fn start(place: Place, seed: u64) -> Self {
        let ensemble = ZooKeeperEnsemble::start(Duration::from_millis(500)).await;
        let client = ensemble.client().await;
        let store = PostgresServer::shared().await.create_database().await;
        let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
        client.create(FLAG, b"0", &CreateMode::Persistent.with_acls(Acls::anyone_all())).await.expect("make the flag");
        let mut trial =
            Self { place, ensemble, client, fake, members: Vec::new(), random: Random::new(seed), reloads: 0, bad: 0 };
        let definitions = trial.definitions();
        if place == Place::Znode {
            let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
            trial.client.create("/flowkeeper", b"", &persistent).await.expect("make the root");
            trial.client.create("/flowkeeper/config", definitions.as_bytes(), &persistent).await.expect("make it");
        }
        for _ in 0..MEMBERS {
            let zookeeper =
                format!("[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n", trial.ensemble.connect());
            let mut member = Member::sharing(&store, &zookeeper);
            let main = member.path().join("flowkeeper.toml");
            let text = std::fs::read_to_string(&main).expect("the configuration");
            let text = match place {
                Place::Files => format!("include = [\"schedules/*.toml\"]\n{text}"),
                Place::Znode => text.replacen("[log]", "definitions = \"zookeeper\"\n[log]", 1),
            };
            std::fs::write(&main, text).expect("write the configuration");
            std::fs::create_dir(member.path().join("schedules")).expect("make a directory");
            std::fs::write(member.path().join("schedules/all.toml"), &definitions).expect("write the definitions");
            std::fs::write(member.path().join("password"), "admin").expect("write the password");
            member.start();
            trial.members.push(member);
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
                if armed("tick") && armed("flag") {
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

    /// A random set without a fault: `tick` and `flag` are always there, written otherwise each time.
    fn definitions(&mut self) -> String {
        let round = self.random.below(1_000_000);
        let mut text = vec![format!(
            "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"{}password\" }} }}\n\
             in_flight = 8\n",
            self.fake.url(),
            if self.place == Place::Files { "../" } else { "" }
        )];
        let tick = self.random.pick(&["* * * * * *", "*/1 * * * * *"]);
        let on = self.random.pick(&[r#""created", "changed""#, r#""created", "changed", "deleted""#]);
        let retry = "dag = \"load\"\noverlap = \"allow\"\ncatchup = \"all\"\nretry = { initial = \"100ms\", max = \"300ms\" }\n";
        text.push(format!("[[schedule]]\nname = \"tick\"\ncron = \"{tick}\"\nconf = {{ round = {round} }}\n{retry}"));
        text.push(format!(
            "[[schedule]]\nname = \"flag\"\nznode = {{ path = \"{FLAG}\", on = [{on}] }}\n\
             conf = {{ round = {round}, version = \"{{{{ znode.version }}}}\" }}\n{retry}"
        ));
        if self.random.below(4) > 0 {
            let cron = self.random.pick(&JOB);
            text.push(format!("[[schedule]]\nname = \"job\"\ncron = \"{cron}\"\n{retry}"));
        }
        text.concat()
    }

    /// One reload, of a good set or of a bad one.
    async fn reload(&mut self, good: bool) {
        let mut text = self.definitions();
        if !good {
            self.bad += 1;
            text = match self.random.below(3) {
                0 => text.replace("cron =", "corn ="),
                1 => text.replace("url = ", "url = \"\" "),
                _ => text.replace("password\"", "nowhere\""),
            };
        }
        self.reloads += 1;
        let way = self.random.pick(&[Way::Saved, Way::Replaced, Way::Signal, Way::Request]);
        let whom = usize::try_from(self.random.below(MEMBERS as u64)).expect("a member");
        match self.place {
            Place::Files => self.save(&text, way),
            Place::Znode if way == Way::Replaced && good => self.push(whom, &text).await,
            Place::Znode => {
                set(&self.ensemble.connect(), &mut self.client, "/flowkeeper/config", text.as_bytes()).await;
            }
        }
        match way {
            Way::Saved | Way::Replaced => {}
            Way::Signal => self.members[whom].signal("HUP"),
            Way::Request => {
                let url = format!("{}/api/v1/config/reload", self.members[whom].url());
                let answer = reqwest::Client::new().post(url).json(&json!({})).send().await.expect("an answer");
                let status = answer.status().as_u16();
                assert!(matches!(status, 200 | 422 | 503), "{status}: {}", answer.text().await.unwrap_or_default());
            }
        }
    }

    fn save(&self, text: &str, way: Way) {
        for member in &self.members {
            let file = member.path().join("schedules/all.toml");
            if way == Way::Replaced {
                let new = member.path().join("new");
                std::fs::write(&new, text).expect("write the definitions");
                std::fs::rename(new, file).expect("rename");
            } else {
                std::fs::write(file, text).expect("write the definitions");
            }
        }
    }

    async fn push(&self, whom: usize, text: &str) {
        let url = format!("{}/api/v1/config/definitions", self.members[whom].url());
        let body = json!({"documents": [{"name": "all.toml", "text": text}], "force": true});
        let answer = reqwest::Client::new().put(url).json(&body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        assert!(matches!(status, 200 | 503), "{status}: {}", answer.text().await.unwrap_or_default());
    }

    /// Waits until all members have the same definitions and refuse none.
    async fn agreed(&self) {
        let began = Instant::now();
        loop {
            let mut versions = BTreeSet::new();
            let mut refusing = 0;
            for member in &self.members {
                let config = member.get("config").await.unwrap_or_default();
                versions.insert(config["in_force"]["version"].to_string());
                refusing += usize::from(!config["refused"].is_null() || !config["applying"].is_null());
            }
            if versions.len() == 1 && refusing == 0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{versions:?}, {refusing} refuse\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sets a znode; where the answer is lost, or the session, it is set again.
async fn set(servers: &str, client: &mut Client, path: &str, data: &[u8]) -> i64 {
    let began = Instant::now();
    loop {
        match client.set_data(path, data, None).await {
            Ok(stat) => return i64::from(stat.version),
            Err(error) => assert!(began.elapsed() < PATIENCE, "set {path}: {error}"),
        }
        if let Ok(another) = Client::connect(servers).await {
            *client = another;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sets the flag again and again; the last version.
async fn set_flag(servers: String, mut client: Client, stop: CancellationToken) -> i64 {
    let mut number = 0_u64;
    let mut version = 0;
    while !stop.is_cancelled() {
        number += 1;
        version = set(&servers, &mut client, FLAG, number.to_string().as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    version
}

/// What is wrong with the rows of `tick`, `flag` and `job`, and with what Airflow has.
fn wrong(runs: &[Run], fake: &FakeAirflow, since: Timestamp, until: Timestamp, last_version: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    let of = |schedule: &'static str| runs.iter().filter(move |run| run.schedule == schedule);
    let mut seconds: BTreeMap<i64, usize> = BTreeMap::new();
    for run in of("tick") {
        let nominal = run.nominal_time.expect("a nominal time").as_second();
        *seconds.entry(nominal).or_default() += 1;
        if run.count != 1 {
            wrong.push(format!("{} covers {}", run.dag_run_id, run.count));
        }
    }
    for second in since.as_second() + 1..=until.as_second() {
        if seconds.get(&second) != Some(&1) {
            wrong.push(format!("tick: second {second} has {:?} rows", seconds.get(&second)));
        }
    }
    let mut versions: BTreeMap<i64, usize> = BTreeMap::new();
    for run in of("flag") {
        let version = run.conf["version"].as_i64().expect("a version");
        (version - run.coalesced..=version).for_each(|version| *versions.entry(version).or_default() += 1);
    }
    for version in 1..=last_version {
        if versions.get(&version) != Some(&1) {
            wrong.push(format!("flag: version {version} is covered {:?} times", versions.get(&version)));
        }
    }
    let mut jobs = BTreeSet::new();
    for run in of("job") {
        if !jobs.insert(run.nominal_time) {
            wrong.push(format!("{}: twice", run.dag_run_id));
        }
    }
    let in_airflow: BTreeSet<String> = fake.world().runs().iter().map(|run| run.dag_run_id.clone()).collect();
    if in_airflow.len() != fake.world().runs().len() {
        wrong.push("a DAG run is there twice".to_owned());
    }
    for run in runs.iter().filter(|run| run.due_at <= until) {
        let there = in_airflow.contains(&run.dag_run_id);
        if run.state.was_accepted() != there || run.state == RunState::Pending {
            wrong.push(format!("{} is {}, in Airflow: {there}", run.dag_run_id, run.state));
        }
    }
    wrong
}

async fn through(place: Place, reloads: usize, seed: u64) {
    let mut trial = Trial::start(place, seed).await;
    let clock = Clock::system();
    let since = clock.now();
    let stop = CancellationToken::new();
    let setting = tokio::spawn(set_flag(trial.ensemble.connect(), trial.client.clone(), stop.clone()));
    let began = Instant::now();
    while trial.reloads + 1 < reloads {
        let good = trial.random.below(4) > 0;
        trial.reload(good).await;
        let pause = trial.random.milliseconds(20, 700);
        tokio::time::sleep(pause).await;
        for index in 0..MEMBERS {
            let ended = trial.members[index].ended();
            assert!(ended.is_none(), "member {index} ended: {ended:?}\n{}", trial.members[index].logged());
        }
    }
    trial.reload(true).await;
    trial.agreed().await;
    stop.cancel();
    let last_version = setting.await.expect("the flag is set");
    let until = clock.now();
    let end = Instant::now() + PATIENCE;
    loop {
        let runs = trial.members[0].runs().await;
        let wrong = wrong(&runs, &trial.fake, since, until, last_version);
        if wrong.is_empty() {
            let jobs = runs.iter().filter(|run| run.schedule == "job").count();
            let changed = trial.logs().matches("other definitions are in force").count();
            println!(
                "{place:?}: {} reloads ({} of them bad) in {:.0} s, {changed} times a leader went over to other \
                 definitions; {} rows: {last_version} changes of the znode, {jobs} of the edited schedule; 0 lost, 0 doubled",
                trial.reloads,
                trial.bad,
                began.elapsed().as_secs_f64(),
                runs.len(),
            );
            return;
        }
        assert!(Instant::now() < end, "seed {seed}: {wrong:#?}\n{}", trial.logs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_reloads_of_files_nothing_is_lost_and_nothing_runs_twice() {
    through(Place::Files, 40, 20_261_122).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_random_reloads_of_a_znode_nothing_is_lost_and_nothing_runs_twice() {
    through(Place::Znode, 40, 20_261_122).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: `make reloads`"]
async fn through_many_reloads_nothing_is_lost_and_nothing_runs_twice() {
    let reloads = std::env::var(RELOADS).map_or(250, |text| text.parse().expect("a number of reloads"));
    for place in [Place::Files, Place::Znode] {
        through(place, reloads, u64::from(std::process::id())).await;
    }
}

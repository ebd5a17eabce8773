//! The user who changes znodes all the time, over every fault, and knows exactly what he did.
//!
//! He has a connection of his own to the ensemble. An answer that is lost is never guessed: writes
//! name the version that they replace, and each path of a child is used once, so that trying again
//! tells whether the first try took effect.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error, Stat};

use super::schedules::{FLAG, INBOX, LIFE, TREE};
use crate::support::fake_airflow::FakeAirflow;
use crate::support::random::Random;

/// How many znodes there are below [`TREE`]; few, so that each is set often.
const TREE_NODES: u64 = 40;

/// How long he stops between two actions: between these two, in milliseconds.
const PAUSE: (u64, u64) = (60, 180);

/// How many znodes below [`LIFE`] he keeps before he deletes the oldest.
const LIVES: usize = 5;

/// What he did to one znode.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// The data version of the first entry of `written`: 1 for a znode that had been there before.
    pub(crate) first: i64,
    /// When each version came to be, by ZooKeeper's clock.
    pub(crate) written: Vec<Timestamp>,
    /// Whether he deleted it.
    pub(crate) deleted: bool,
    /// The answer to its creation was lost and it is not there: it never was, or it was consumed.
    pub(crate) uncertain: bool,
}

impl History {
    /// The last version.
    pub(crate) fn last(&self) -> i64 {
        self.first + i64::try_from(self.written.len()).unwrap_or(i64::MAX) - 1
    }
}

/// Everything he did, by path.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) flag: History,
    pub(crate) tree: BTreeMap<String, History>,
    pub(crate) inbox: BTreeMap<String, History>,
    pub(crate) life: BTreeMap<String, History>,
}

/// The user.
pub(crate) struct Writer {
    connect: String,
    client: Option<Client>,
    random: Random,
    pub(crate) done: Done,
    /// Where runs of [`LIFE`] arrive: what was not seen to exist cannot be seen to be gone, so he
    /// deletes only what was.
    airflow: Arc<FakeAirflow>,
    /// How many of its DAG runs he has looked at, and the znodes that he found in them.
    looked_at: usize,
    seen: HashSet<String>,
}

impl Writer {
    /// Makes the znodes that schedules watch.
    pub(crate) async fn new(connect: &str, seed: u64, airflow: Arc<FakeAirflow>) -> Self {
        let mut writer = Self {
            connect: connect.to_owned(),
            client: None,
            random: Random::new(seed),
            done: Done { flag: History { first: 1, ..History::default() }, ..Done::default() },
            airflow,
            looked_at: 0,
            seen: HashSet::new(),
        };
        for path in [FLAG, INBOX, TREE, LIFE] {
            writer.create(path).await;
        }
        writer
    }

    /// Changes znodes until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            match self.random.below(10) {
                0..=2 => self.set_flag().await,
                // Faster than anybody reads: ZooKeeper merges some of these.
                3 => {
                    for _ in 0..4 {
                        self.set_flag().await;
                    }
                }
                4 | 5 => self.add_child().await,
                6..=8 => self.change_tree().await,
                _ => self.live().await,
            }
            let pause = self.random.milliseconds(PAUSE.0, PAUSE.1);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self
    }

    async fn set_flag(&mut self) {
        let version = self.done.flag.last();
        let written = self.set(FLAG, version).await;
        self.done.flag.written.push(written);
    }

    /// Adds a child, which flowkeeper deletes when Airflow has its run. So it is not tried twice: the
    /// second would be another one.
    async fn add_child(&mut self) {
        let path = format!("{INBOX}/child-{:06}", self.done.inbox.len());
        let client = self.client().await;
        let made = match client.create(&path, b"work", &open_to_all()).await {
            Ok((stat, _)) => Some(stat),
            Err(error) => {
                self.lost(&error);
                self.stat(&path).await
            }
        };
        let written = made.iter().map(time).collect();
        self.done.inbox.insert(path, History { written, uncertain: made.is_none(), ..History::default() });
    }

    async fn change_tree(&mut self) {
        let path = format!("{TREE}/{:02}", self.random.below(TREE_NODES));
        let version = self.done.tree.get(&path).map(History::last);
        let written = match version {
            None => self.create(&path).await,
            Some(version) => self.set(&path, version).await,
        };
        self.done.tree.entry(path).or_default().written.push(written);
    }

    /// Creates a znode, and deletes the oldest of them when there are many.
    async fn live(&mut self) {
        let path = format!("{LIFE}/{:06}", self.done.life.len());
        let written = self.create(&path).await;
        self.done.life.insert(path, History { written: vec![written], ..History::default() });
        let living: Vec<String> =
            self.done.life.iter().filter(|(_, history)| !history.deleted).map(|(path, _)| path.clone()).collect();
        self.look_at_runs();
        if living.len() > LIVES && self.seen.contains(&living[0]) {
            self.delete(&living[0]).await;
            self.done.life.entry(living[0].clone()).or_default().deleted = true;
        }
    }

    fn look_at_runs(&mut self) {
        let world = self.airflow.world();
        let fresh = world.runs().iter().skip(self.looked_at);
        let confs = fresh.filter_map(|run| serde_json::from_str::<serde_json::Value>(&run.conf).ok());
        self.seen.extend(confs.filter_map(|conf| conf["znode"]["path"].as_str().map(ToOwned::to_owned)));
        self.looked_at = world.runs().len();
    }

    /// Creates a znode that was never there before; when.
    async fn create(&mut self, path: &str) -> Timestamp {
        loop {
            let client = self.client().await;
            match client.create(path, b"work", &open_to_all()).await {
                Ok((stat, _)) => return time(&stat),
                // An earlier try, whose answer was lost.
                Err(Error::NodeExists) => return time(&self.existing(path).await),
                Err(error) => self.lost(&error),
            }
        }
    }

    /// Sets the data of a znode that is known to have this version; when.
    async fn set(&mut self, path: &str, version: i64) -> Timestamp {
        let version = i32::try_from(version).expect("fewer versions than wrap");
        loop {
            let client = self.client().await;
            match client.set_data(path, b"work", Some(version)).await {
                Ok(stat) => return time(&stat),
                // An earlier try, whose answer was lost.
                Err(Error::BadVersion) => {
                    let stat = self.existing(path).await;
                    if stat.version == version + 1 {
                        return time(&stat);
                    }
                    assert!(stat.version == version, "{path} is at {}, set from {version}", stat.version);
                }
                Err(error) => self.lost(&error),
            }
        }
    }

    async fn delete(&mut self, path: &str) {
        loop {
            let client = self.client().await;
            match client.delete(path, None).await {
                Ok(()) | Err(Error::NoNode) => return,
                Err(error) => self.lost(&error),
            }
        }
    }

    async fn existing(&mut self, path: &str) -> Stat {
        self.stat(path).await.unwrap_or_else(|| panic!("somebody else deleted {path}"))
    }

    /// The stat of a znode, as new as the last write; `None` when there is no such znode.
    async fn stat(&mut self, path: &str) -> Option<Stat> {
        loop {
            let client = self.client().await;
            let stat = match client.sync(path).await {
                Ok(()) => client.check_stat(path).await,
                Err(error) => Err(error),
            };
            match stat {
                Ok(stat) => return stat,
                Err(error) => self.lost(&error),
            }
        }
    }

    /// The present connection, or a new one as soon as there is one to be had.
    async fn client(&mut self) -> Client {
        loop {
            if let Some(client) = &self.client {
                return client.clone();
            }
            let connector = Client::connector().with_session_timeout(Duration::from_secs(4)).with_fail_eagerly();
            match connector.connect(&self.connect).await {
                Ok(client) => self.client = Some(client),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The connection failed; the next request needs a new one.
    fn lost(&mut self, error: &Error) {
        assert!(
            !matches!(error, Error::NoAuth | Error::BadArguments(_) | Error::NotEmpty),
            "ZooKeeper refuses the writer: {error}"
        );
        self.client = None;
    }
}

fn open_to_all() -> CreateOptions<'static> {
    CreateMode::Persistent.with_acls(Acls::anyone_all())
}

/// When the data of a znode was last set.
fn time(stat: &Stat) -> Timestamp {
    Timestamp::from_millisecond(stat.mtime).expect("a time")
}

//! Three members of flowkeeper on one store: started, given other definitions, asked what is in force.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::measure::milliseconds;
use crate::party::{self, Cost, Party};
use crate::znodes::PERSISTENT;
use crate::{Outcome, Setting};

/// How often each member is asked what is in force.
const LOOK: Duration = Duration::from_millis(5);

/// How long other definitions may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The file of definitions, which all members include.
const FILE: &str = "shared/definitions.toml";

/// Where the ledger is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Sqlite,
    Postgres,
}

/// Where definitions come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    File,
    /// A push.
    Znode,
    /// The znode, written past flowkeeper.
    Plain,
}

/// The members; the first one leads.
pub(crate) struct Team {
    members: Vec<Member>,
    directory: PathBuf,
    http: reqwest::Client,
    zookeeper: zookeeper_client::Client,
    /// The znode of the definitions.
    config: String,
}

struct Member {
    party: Party,
    directory: PathBuf,
    url: String,
}

/// How long it took until other definitions were in force, in milliseconds.
pub(crate) struct Took {
    /// On the first member that had them.
    pub(crate) first: f64,
    /// On all.
    pub(crate) all: f64,
}

impl Team {
    /// Starts three members with these definitions, and waits until all triggers are armed. `root` is a
    /// name that no other team has.
    pub(crate) async fn start(
        setting: &Setting,
        store: Store,
        source: Source,
        root: &str,
        definitions: &str,
    ) -> Outcome<Self> {
        let directory = party::fresh(setting, root)?;
        let store = match store {
            Store::Sqlite => format!("sqlite://{}", directory.join("flowkeeper.db").display()),
            Store::Postgres => database(setting, root).await?,
        };
        let zookeeper = zookeeper_client::Client::connect(&setting.zookeeper).await?;
        let (http, config) = (reqwest::Client::new(), format!("/{root}/config"));
        let mut team = Self { members: Vec::new(), directory, http, zookeeper, config };
        if source == Source::File {
            std::fs::create_dir_all(team.directory.join("shared"))?;
            team.save(definitions)?;
        }
        for name in ["a", "b", "c"] {
            let address = party::free_address()?;
            let sections = match source {
                Source::File => format!("include = [\"../{FILE}\"]\n[server]\n"),
                Source::Znode | Source::Plain => "[server]\ndefinitions = \"zookeeper\"\n".to_owned(),
            };
            let config = format!(
                "{sections}listen = \"{address}\"\n[store]\nurl = \"{store}\"\n[zookeeper]\nconnect = \"{}\"\n\
                 root = \"/{root}\"\n",
                setting.zookeeper,
            );
            let directory = party::fresh(setting, &format!("{root}/{name}"))?;
            let party = Party::member("flowkeeper", &directory, &config)?;
            let member = Member { party, directory, url: format!("http://{address}") };
            team.until("leads or stands by", async || team_is_ready(&team.http, &member.url, name == "a").await)
                .await?;
            team.members.push(member);
        }
        match source {
            Source::File => {}
            Source::Znode => team.push(definitions).await?,
            Source::Plain => team.write(definitions).await?,
        }
        let leader = &mut team.members[0];
        leader.party.until_armed(&leader.directory, &leader.url).await?;
        Ok(team)
    }

    /// Saves the file that all members include.
    pub(crate) fn save(&self, definitions: &str) -> Outcome<()> {
        Ok(std::fs::write(self.directory.join(FILE), definitions)?)
    }

    /// Swaps the directory of that file by a link, as Kubernetes does.
    pub(crate) fn swap(&self, definitions: &str, version: usize) -> Outcome<()> {
        let (shared, link) = (self.directory.join("shared"), self.directory.join("link"));
        let target = format!("version-{version}");
        std::fs::create_dir_all(self.directory.join(&target))?;
        std::fs::write(self.directory.join(&target).join("definitions.toml"), definitions)?;
        std::os::unix::fs::symlink(target, &link)?;
        if !shared.is_symlink() {
            std::fs::rename(&shared, self.directory.join("version-0"))?;
        }
        Ok(std::fs::rename(link, shared)?)
    }

    /// Pushes definitions through the leader.
    pub(crate) async fn push(&self, definitions: &str) -> Outcome<()> {
        let url = format!("{}/api/v1/config/definitions", self.members[0].url);
        let body = json!({"documents": [{"name": "d.toml", "text": definitions}], "force": true});
        let answer = self.http.put(url).json(&body).send().await?;
        if !answer.status().is_success() {
            return Err(answer.text().await?.into());
        }
        Ok(())
    }

    /// Writes definitions into the znode as they are, which has to hold them.
    pub(crate) async fn write(&self, definitions: &str) -> Outcome<()> {
        match self.zookeeper.set_data(&self.config, definitions.as_bytes(), None).await {
            Err(zookeeper_client::Error::NoNode) => {
                self.zookeeper.create(&self.config, definitions.as_bytes(), &PERSISTENT).await?;
            }
            written => drop(written?),
        }
        Ok(())
    }

    /// Has every member read its definitions again.
    pub(crate) async fn reload(&self) -> Outcome<()> {
        let reload = async |member: &Member| {
            let url = format!("{}/api/v1/config/reload", member.url);
            self.http.post(url).json(&json!({})).send().await?.error_for_status()?;
            Outcome::Ok(())
        };
        join_all(self.members.iter().map(reload)).await.into_iter().collect()
    }

    /// The same by a signal.
    pub(crate) fn hang_up(&self) -> Outcome<()> {
        for member in &self.members {
            std::process::Command::new("kill").arg("-HUP").arg(member.party.id().to_string()).status()?;
        }
        Ok(())
    }

    /// Makes a change; how long it took from its beginning until other definitions were in force.
    pub(crate) async fn change(&self, change: impl Future<Output = Outcome<()>>) -> Outcome<Took> {
        let mut before = Vec::new();
        for member in &self.members {
            before.push(in_force(&self.http, &member.url).await.ok_or("a member does not answer")?);
        }
        let start = Instant::now();
        let gone_over = async {
            let each = self.members.iter().zip(&before).map(async |(member, before)| {
                self.until("goes over", async || {
                    in_force(&self.http, &member.url).await.is_some_and(|now| now != *before)
                })
                .await?;
                Outcome::Ok(milliseconds(start.elapsed()))
            });
            join_all(each).await.into_iter().collect::<Outcome<Vec<f64>>>()
        };
        let ((), took) = try_join(change, gone_over).await?;
        Ok(Took {
            first: took.iter().copied().fold(f64::INFINITY, f64::min),
            all: took.into_iter().fold(0.0, f64::max),
        })
    }

    /// Waits until every trigger is armed.
    pub(crate) async fn until_armed(&mut self) -> Outcome<()> {
        let leader = &mut self.members[0];
        leader.party.until_armed(&leader.directory, &leader.url).await
    }

    /// What the member that leads used so far.
    pub(crate) fn cost(&self) -> Cost {
        self.members[0].party.cost()
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) -> Outcome<()> {
        let start = Instant::now();
        while !is_so().await {
            if start.elapsed() > PATIENCE {
                return Err(format!("no member {what}; logs are in {}", self.directory.display()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// The version that is in force on a member.
async fn in_force(http: &reqwest::Client, url: &str) -> Option<String> {
    let answer = http.get(format!("{url}/api/v1/config")).send().await.ok()?;
    let state: Value = answer.json().await.ok()?;
    Some(state["in_force"]["version"].as_str()?.to_owned())
}

/// Whether a member has begun, and leads if it is to.
async fn team_is_ready(http: &reqwest::Client, url: &str, leads: bool) -> bool {
    let answer = async { http.get(format!("{url}/readyz")).send().await.ok()?.json::<Value>().await.ok() };
    answer.await.is_some_and(|ready| ready["leader"] == leads)
}

/// The URL of a new database.
pub(crate) async fn database(setting: &Setting, name: &str) -> Outcome<String> {
    let server = setting.postgres.as_ref().ok_or("FLOWKEEPER_BENCH_POSTGRES is not set: run `make bench`")?;
    let (url, name) = (format!("postgres://flowkeeper@{server}"), name.replace('-', "_"));
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(&format!("{url}/postgres")).await?;
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(create).execute(&mut connection).await?;
    connection.close().await?;
    Ok(format!("{url}/{name}"))
}

//! A real ZooKeeper ensemble of three servers, whose servers can be killed one by one.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use zookeeper_client::Client;

use super::ports::free_port;
use super::zookeeper::ZooKeeperServer;

/// How many servers there are: the fewest that bear the loss of one.
pub(crate) const SERVERS: usize = 3;

/// Thresholds for `[ensemble.NAME.thresholds]` of tests in which it is no matter how long things take: this
/// machine may be busy.
pub(crate) const UNHURRIED: &str =
    "canary = { warn = 60000, critical = 120000 }\nlatency = { warn = 60000, critical = 120000 }\n";

/// How long the servers may take to agree on a leader.
const PATIENCE: Duration = Duration::from_mins(3);

/// Three servers with data directories of their own.
pub(crate) struct ZooKeeperEnsemble {
    servers: Vec<ZooKeeperServer>,
    connects: Vec<String>,
}

impl ZooKeeperEnsemble {
    /// Starts three servers. Sessions expire on whole ticks.
    pub(crate) async fn start(tick: Duration) -> Self {
        Self::start_with(tick, |_| ("127.0.0.1".to_owned(), String::new()), &[]).await
    }

    /// Starts three servers, each (numbered from 1) at an address and with settings of its own.
    pub(crate) async fn start_with(tick: Duration, own: impl Fn(usize) -> (String, String), options: &[&str]) -> Self {
        // Many ticks, however short one is, since the machine may be busy; but who was elected by
        // servers that changed their mind meanwhile waits this long for them.
        let limit = (Duration::from_secs(5).as_millis() / tick.as_millis()).max(5);
        let mut settings = format!(
            "tickTime={}\ninitLimit={limit}\nsyncLimit={limit}\nmaxSessionTimeout=60000\n\
             quorumListenOnAllIPs=false\n",
            tick.as_millis()
        );
        for number in 1..=SERVERS {
            let line = format!("server.{number}=127.0.0.1:{}:{}\n", free_port(), free_port());
            settings.push_str(&line);
        }
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let server = |number| {
            let (host, own) = own(number);
            ZooKeeperServer::of_ensemble((&host, free_port()), number, &format!("{settings}{own}"), options.clone())
        };
        let servers: Vec<_> = (1..=SERVERS).map(server).collect();
        let connects = servers.iter().map(ZooKeeperServer::connect).collect();
        let ensemble = Self { servers, connects };
        ensemble.restart_all().await;
        ensemble
    }

    /// Starts three servers at three addresses, so that `{host}` tells them apart; their AdminServers share
    /// a port. With the key `admin` for `[ensemble.NAME]`.
    pub(crate) async fn with_admin(settings: &str, options: &[&str]) -> (Self, String) {
        let port = free_port();
        let own = |number| {
            let host = format!("127.0.0.{number}");
            let admin = format!("admin.enableServer=true\nadmin.serverAddress={host}\nadmin.serverPort={port}\n");
            (host, format!("{admin}{settings}"))
        };
        let ensemble = Self::start_with(Duration::from_millis(500), own, options).await;
        ensemble.is_whole().await;
        (ensemble, format!("admin = \"http://{{host}}:{port}/commands\""))
    }

    /// Starts one server anew with another setting.
    pub(crate) async fn reconfigure(&self, index: usize, setting: &str) {
        self.servers[index].set(setting);
        self.servers[index].restart().await;
    }

    /// `host:port` of each server.
    pub(crate) fn servers(&self) -> &[String] {
        &self.connects
    }

    /// All servers, as a client is told of them.
    pub(crate) fn connect(&self) -> String {
        self.connects.join(",")
    }

    /// Which server leads the ensemble; `None` while none does.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.mode().as_deref() == Some("leader"))
    }

    /// Kills one server as a power cut would.
    pub(crate) fn kill(&self, index: usize) {
        self.servers[index].kill();
    }

    /// Stops the process of one server without ending it, or lets it go on.
    pub(crate) fn freeze(&self, index: usize, frozen: bool) {
        self.servers[index].freeze(frozen);
    }

    /// Kills all of them.
    pub(crate) fn kill_all(&self) {
        for server in &self.servers {
            server.kill();
        }
    }

    /// Starts one server on the data that it has; the others must be a quorum with it.
    pub(crate) async fn restart(&self, index: usize) {
        self.servers[index].restart().await;
    }

    /// Starts all of them on the data that they have, and waits until they serve.
    pub(crate) async fn restart_all(&self) {
        for server in &self.servers {
            server.launch();
        }
        for server in &self.servers {
            server.answers().await;
        }
    }

    /// Waits until every server serves and one leads.
    pub(crate) async fn is_whole(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let modes: Vec<_> = self.servers.iter().map(ZooKeeperServer::mode).collect();
            let count = |wanted: &str| modes.iter().filter(|mode| mode.as_deref() == Some(wanted)).count();
            if count("leader") == 1 && count("follower") == SERVERS - 1 {
                return;
            }
            let mut complaint = String::from("the ensemble is not whole:");
            for (server, mode) in self.connects.iter().zip(&modes) {
                let _ = write!(complaint, " {server} {}", mode.as_deref().unwrap_or("silent"));
            }
            assert!(Instant::now() < deadline, "{complaint}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A client that acts as the user would.
    pub(crate) async fn client(&self) -> Client {
        let connector = || Client::connector().with_session_timeout(Duration::from_secs(30));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match connector().connect(&self.connect()).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "the ensemble takes no client: {error}"),
            }
        }
    }
}

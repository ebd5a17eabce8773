//! The configuration as checked values: what the rest of flowkeeper works with.
//!
//! Whoever holds a [`Config`] may rely on it: units are read, names resolve, templates compile.
//! Secrets are still references here; [`SecretRef::resolve`](super::secret::SecretRef::resolve)
//! reads them when they are needed, so that checking a configuration needs none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;

use super::environment::Environment;
use super::secret::{Secret, SecretError, SecretRef};
use crate::domain::health::Thresholds;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::sync::definition::SyncDefinition;
use crate::domain::team::Teams;
use crate::secret::{CommandLine, without_password};

/// A whole configuration, with everything that its files include.
#[derive(Debug, Clone)]
pub struct Config {
    /// The main file.
    pub file: PathBuf,
    /// The HTTP API.
    pub server: Server,
    /// Logging.
    pub log: Log,
    /// The ledger.
    pub store: Store,
    /// The home ensemble; without it there are cron schedules only.
    pub zookeeper: Option<ZooKeeper>,
    /// Every Airflow by name; never empty when there are schedules.
    pub airflows: BTreeMap<Arc<str>, Airflow>,
    /// Every `[ensemble.NAME]` by name.
    pub ensembles: BTreeMap<Arc<str>, Ensemble>,
    /// Every `[team.NAME]` by name.
    pub teams: Teams,
    /// Every schedule, in the order of the files; names are unique.
    pub schedules: Vec<Arc<Schedule>>,
    /// Every sync, in the order of the files; names are unique.
    pub syncs: Vec<Arc<SyncDefinition>>,
    /// A short digest of the text of the definitions: members with the same have the same ones. The
    /// sections of the main file are no part of it.
    pub version: String,
}

impl Config {
    /// The schedule of this name. Walks the list: for commands, not for loops.
    pub fn schedule(&self, name: &str) -> Option<&Arc<Schedule>> {
        self.schedules.iter().find(|schedule| schedule.name.as_str() == name)
    }

    /// The sync of this name.
    pub fn sync(&self, name: &str) -> Option<&Arc<SyncDefinition>> {
        self.syncs.iter().find(|sync| &*sync.name == name)
    }

    /// The names of the syncs that write into the same collection as this one, it included.
    pub fn syncs_beside(&self, sync: &SyncDefinition) -> BTreeSet<Arc<str>> {
        let beside = self.syncs.iter().filter(|other| other.airflow == sync.airflow && other.kind == sync.kind);
        beside.map(|other| Arc::clone(&other.name)).collect()
    }

    /// How to reach the ensemble that a znode trigger names; `None` is the home ensemble.
    /// A checked configuration has one for every trigger in it.
    pub fn connection(&self, ensemble: Option<&str>) -> Option<&Connection> {
        let home = || self.zookeeper.as_ref().map(|zookeeper| &zookeeper.connection);
        match ensemble {
            None => home(),
            Some(name) => self.ensembles.get(name).and_then(|ensemble| ensemble.connection.as_ref().or_else(home)),
        }
    }

    /// The names of all schedules.
    pub fn schedule_names(&self) -> impl Iterator<Item = &ScheduleName> {
        self.schedules.iter().map(|schedule| &schedule.name)
    }
}

/// `[server]`: the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where others reach this member, without a trailing slash.
    pub advertise: Option<String>,
    /// Where the definitions come from: everything but the sections of the main file.
    pub definitions: DefinitionsSource,
    /// What definitions in ZooKeeper may have this member do.
    pub pushed: Pushed,
    /// Who may call; never empty when `listen` is beyond loopback.
    pub tokens: Vec<Token>,
}

/// `[server] definitions`: where everything comes from that is not a section of the main file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefinitionsSource {
    /// The main file and what it includes.
    File,
    /// The znode `config` below the root of the home ensemble.
    ZooKeeper,
}

/// `[server] pushed`: what definitions that were pushed may have a member do. The rest of flowkeeper does
/// not look at it: it is judged when a set is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Programs with their arguments, word for word.
    pub commands: Vec<Vec<String>>,
    /// Globs of environment variables.
    pub env: Vec<String>,
    /// Globs of files; relative ones start from the directory of the main file.
    pub files: Vec<String>,
}

impl Pushed {
    /// Variables that may be read by themselves. Those of Airflow's own configuration, `AIRFLOW__…`, are
    /// none of them.
    pub const DEFAULT_ENV: &str = "AIRFLOW_[!_]*";

    /// Files that may be read by themselves: those below the directory of the main file.
    pub const DEFAULT_FILES: &str = "**";
}

impl Default for Pushed {
    fn default() -> Self {
        Self {
            commands: Vec::new(),
            env: vec![Self::DEFAULT_ENV.to_owned()],
            files: vec![Self::DEFAULT_FILES.to_owned()],
        }
    }
}

/// `[[server.token]]`: a named caller of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The name that audit rows show.
    pub name: String,
    /// What the caller sends as `Authorization: Bearer …`.
    pub value: SecretRef,
    /// What the caller may do.
    pub role: Role,
    /// The team whose schedules and runs alone the caller may act on. The definitions in force may have
    /// no such team.
    pub team: Option<Arc<str>>,
}

/// What a token allows. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// To read.
    Read,
    /// To pause, resume, trigger, retry, cancel and backfill.
    Operate,
    /// To reload the configuration, and to push definitions.
    Admin,
}

impl Role {
    /// The spelling of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody may have to act.
    Warn,
    /// What flowkeeper does.
    Info,
    /// How it does it.
    Debug,
    /// Everything.
    Trace,
}

/// `[store]`: the ledger.
#[derive(Clone, PartialEq, Eq)]
pub struct Store {
    /// `sqlite://` and the path of the database, already relative to the working directory; or the URL
    /// of a PostgreSQL database, in which there may be a password.
    pub url: String,
    /// The password of the user of PostgreSQL, where it is kept apart.
    pub password: Option<SecretRef>,
    /// How long closed runs are kept.
    pub retention: Duration,
}

impl Store {
    /// The URL with the password in it, for the one who opens the store.
    pub fn address(&self, environment: &Environment) -> Result<Secret, SecretError> {
        let Some(password) = &self.password else { return Ok(Secret::new(self.url.as_str())) };
        let password = password.resolve(environment)?;
        // Checked: only the URL of a server comes with a password. As a parameter it may hold any
        // character.
        let mut url: reqwest::Url = match self.url.parse() {
            Ok(url) => url,
            Err(_) => return Ok(Secret::new(self.url.as_str())),
        };
        url.query_pairs_mut().append_pair("password", password.expose());
        Ok(Secret::new(String::from(url)))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("url", &without_password(&self.url))
            .field("password", &self.password)
            .field("retention", &self.retention)
            .finish()
    }
}

/// `[zookeeper]`: the home ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooKeeper {
    /// How to reach it.
    pub connection: Connection,
    /// The znode under which flowkeeper keeps its own state.
    pub root: String,
}

/// How to reach an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// `host:port,host:port/chroot`, as the client takes it.
    pub connect: String,
    /// The session timeout to ask for; the servers may grant another.
    pub session_timeout: Duration,
    /// Credentials.
    pub auth: Option<ZooKeeperAuth>,
    /// Encryption; `None` is plain TCP.
    pub tls: Option<ZooKeeperTls>,
    /// SASL authentication.
    pub sasl: Option<Sasl>,
}

/// `auth = { scheme, credential }` of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooKeeperAuth {
    /// The scheme; `digest` is the usual one.
    pub scheme: String,
    /// For `digest`, `user:password`.
    pub credential: SecretRef,
}

/// `tls` of an ensemble; paths are relative to the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooKeeperTls {
    /// The certificate authorities to trust, PEM. The client has no default ones.
    pub ca: PathBuf,
    /// The client's certificate and key, PEM.
    pub identity: Option<TlsIdentity>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// `sasl` of an ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: SaslMechanism,
    /// The user.
    pub username: String,
    /// Its password.
    pub password: SecretRef,
}

/// The SASL mechanisms that flowkeeper speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// `DIGEST-MD5`.
    DigestMd5,
}

/// `[airflow.NAME]`.
#[derive(Debug, Clone)]
pub struct Airflow {
    /// The name, a key of [`Config::airflows`].
    pub name: Arc<str>,
    /// The base URL, without a trailing slash.
    pub url: String,
    /// How to authenticate.
    pub auth: AirflowAuth,
    /// Headers to add to every request, by name.
    pub headers: Vec<(String, HeaderText)>,
    /// Certificate authorities to trust instead of the built-in ones, PEM.
    pub ca: Option<PathBuf>,
    /// How many requests may be under way at once.
    pub in_flight: InFlight,
    /// The limit of one request.
    pub timeout: Duration,
    /// The DAGs whose runs are recorded, whoever triggered them.
    pub monitor: DagGlobs,
    /// How often its components are looked at.
    pub health_interval: Duration,
    /// From which age on a heartbeat of theirs is old.
    pub heartbeat_threshold: Duration,
}

/// How flowkeeper authenticates to an Airflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AirflowAuth {
    /// Not at all.
    None,
    /// A user and a password: `/auth/token` of Airflow 3, basic authentication of Airflow 2.
    Password {
        /// The user.
        username: String,
        /// Its password.
        password: SecretRef,
    },
    /// A bearer token, read again after a 401 or 403.
    Token(SecretRef),
    /// OAuth 2 client credentials.
    OAuth2 {
        /// Where tokens are issued.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: SecretRef,
        /// The scope to ask for.
        scope: Option<String>,
        /// The audience to ask for.
        audience: Option<String>,
    },
    /// A program that prints a token, or JSON `{"headers": {…}, "expires_at": "…"}`.
    Command {
        /// The program and its arguments; never empty.
        command: CommandLine,
        /// How long a printed token is good for, where the program does not say.
        ttl: Duration,
    },
}

/// The text of a header.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Written in the configuration.
    Plain(String),
    /// Kept elsewhere.
    Secret(SecretRef),
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // People write tokens in headers; what is written plainly is not printed either.
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::Secret(reference) => reference.fmt(f),
        }
    }
}

/// How many requests may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    /// What the Airflow's answers allow.
    Auto,
    /// This many.
    Fixed(NonZeroU32),
}

/// A set of DAG ids, as globs.
#[derive(Debug, Clone)]
pub struct DagGlobs {
    /// As written.
    pub patterns: Vec<String>,
    /// Compiled.
    pub set: GlobSet,
}

impl DagGlobs {
    /// Whether nothing matches.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether this DAG is one of them.
    pub fn matches(&self, dag_id: &str) -> bool {
        self.set.is_match(dag_id)
    }
}

/// `[ensemble.NAME]`.
#[derive(Debug, Clone)]
pub struct Ensemble {
    /// The name, a key of [`Config::ensembles`].
    pub name: Arc<str>,
    /// How to reach it; `None` is the home ensemble.
    pub connection: Option<Connection>,
    /// The URL of its AdminServers' commands, with `{host}` in it; `None` asks none.
    pub admin: Option<String>,
    /// The znode below which the canary works; `None` lets none fly.
    pub canary: Option<String>,
    /// From which values on its checks are bad.
    pub thresholds: Thresholds,
    /// How often its health is checked.
    pub interval: Duration,
}

impl Ensemble {
    /// The home ensemble where the configuration has no section for it.
    pub fn home() -> Self {
        Self {
            name: Arc::from(Self::HOME),
            connection: None,
            admin: Some(Self::DEFAULT_ADMIN.to_owned()),
            canary: Some(Self::DEFAULT_CANARY.to_owned()),
            thresholds: Thresholds::default(),
            interval: Self::DEFAULT_INTERVAL,
        }
    }

    /// The name of the home ensemble where the configuration has no section for it.
    pub const HOME: &str = "home";

    /// How often health is checked by itself.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

    /// Where ZooKeeper's AdminServer is by itself.
    pub const DEFAULT_ADMIN: &str = "http://{host}:8080/commands";

    /// Where the canary works by itself.
    pub const DEFAULT_CANARY: &str = "/";
}

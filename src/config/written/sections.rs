//! Every section but the schedules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::leaf::{Choice, DurationText, InFlightText, SecretText, Words, fault};
use crate::config::model::{self, DefinitionsSource, LogFormat, LogLevel, Role, SaslMechanism};

/// The HTTP API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Server {
    /// The address to listen on. Beyond loopback there must be a token.
    #[schemars(extend("default" = "127.0.0.1:8787"))]
    pub(in crate::config) listen: Option<String>,
    /// The base URL at which others reach this member; it is used for links in notes.
    pub(in crate::config) advertise: Option<String>,
    /// Where everything but the sections `server`, `log`, `store` and `zookeeper` comes from: `file`, this
    /// file and what it includes; `zookeeper`, the znode `config` below `root` of the home ensemble, which
    /// `flowkeeper config push` writes. See `docs/live-configuration.md`.
    #[schemars(extend("default" = "file"))]
    pub(in crate::config) definitions: Option<Choice<DefinitionsSource>>,
    /// What definitions in ZooKeeper may have this member do. It is looked at whenever a set is judged.
    pub(in crate::config) pushed: Option<Pushed>,
    /// Who may call the API. Without a token everybody who reaches it may do everything.
    pub(in crate::config) token: Option<Vec<Token>>,
}

/// What definitions in ZooKeeper may have a member do: who may push does not own the host. See
/// `docs/live-configuration.md`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Pushed {
    /// What `auth.command` may be, word for word: `[["gcloud", "auth", "print-access-token"]]`.
    #[schemars(extend("default" = Vec::<String>::new()))]
    pub(in crate::config) commands: Option<Vec<Vec<String>>>,
    /// The environment variables that secrets may be in, as globs. What this file names for itself,
    /// `FLOWKEEPER_…` and `PGPASS…` are never among them.
    #[schemars(extend("default" = [model::Pushed::DEFAULT_ENV]))]
    pub(in crate::config) env: Option<Vec<String>>,
    /// The files that secrets and certificates may be in, as globs; a wildcard finds nothing hidden.
    /// Relative ones start from this file. This file, the ledger, and secrets that this file names are never
    /// among them.
    #[schemars(extend("default" = [model::Pushed::DEFAULT_FILES]))]
    pub(in crate::config) files: Option<Vec<String>>,
}

impl Words for DefinitionsSource {
    const WORDS: &'static [(&'static str, Self)] = &[("file", Self::File), ("zookeeper", Self::ZooKeeper)];
}

/// A named caller of the HTTP API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Token {
    /// The name that the audit log shows.
    #[schemars(required)]
    pub(in crate::config) name: Option<String>,
    /// What the caller sends as `Authorization: Bearer …`.
    #[schemars(required)]
    pub(in crate::config) value: Option<SecretText>,
    /// What the caller may do: `read`; also pause, resume, trigger, retry, cancel and backfill with
    /// `operate`; also reload the configuration, push and roll back definitions with `admin`.
    #[schemars(extend("default" = "read"))]
    pub(in crate::config) role: Option<Choice<Role>>,
    /// The team that the caller is bound to: it reads everything, and acts only on schedules and runs
    /// whose `owner` is that team. Not with `admin`. See `docs/teams.md`.
    pub(in crate::config) team: Option<String>,
}

impl Words for Role {
    const WORDS: &'static [(&'static str, Self)] =
        &[("read", Self::Read), ("operate", Self::Operate), ("admin", Self::Admin)];
}

/// Logging.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Log {
    /// `text` for people, `json` for one JSON object a line.
    #[schemars(extend("default" = "text"))]
    pub(in crate::config) format: Option<Choice<LogFormat>>,
    /// The least severe level that is written.
    #[schemars(extend("default" = "info"))]
    pub(in crate::config) level: Option<Choice<LogLevel>>,
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Words for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// The ledger.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Store {
    /// The database: `sqlite://` and a path, relative to this file; or
    /// `postgres://USER@HOST/DATABASE`, whose tables flowkeeper makes itself. The parameters of libpq's
    /// URLs are known: `sslmode`, `sslrootcert` (paths are relative to this file), `host` for a socket …
    #[schemars(extend("default" = "sqlite://flowkeeper.db"))]
    pub(in crate::config) url: Option<String>,
    /// The password of the user of PostgreSQL. Without it, PGPASSWORD and `~/.pgpass` are asked, as
    /// libpq does.
    pub(in crate::config) password: Option<SecretText>,
    /// How long closed runs are kept. The newest run of each schedule, open runs, and runs
    /// triggered by hand with a key stay.
    #[schemars(extend("default" = "90d"))]
    pub(in crate::config) retention: Option<DurationText>,
}

/// The home ensemble.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ZooKeeper {
    /// The servers, with an optional chroot: `host:port,host:port/chroot`. The port is 2181 where
    /// none is given.
    #[schemars(required)]
    pub(in crate::config) connect: Option<String>,
    /// The znode under which flowkeeper keeps its own state.
    #[schemars(extend("default" = "/flowkeeper"))]
    pub(in crate::config) root: Option<String>,
    /// The session timeout to ask for; the servers may grant another.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) session_timeout: Option<DurationText>,
    /// Credentials for ACLs.
    pub(in crate::config) auth: Option<ZooKeeperAuth>,
    /// Encryption.
    pub(in crate::config) tls: Option<ZooKeeperTls>,
    /// SASL authentication.
    pub(in crate::config) sasl: Option<Sasl>,
}

/// Credentials for ACLs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ZooKeeperAuth {
    /// The scheme.
    #[schemars(extend("default" = "digest"))]
    pub(in crate::config) scheme: Option<String>,
    /// For `digest`, `user:password`.
    #[schemars(required)]
    pub(in crate::config) credential: Option<SecretText>,
}

/// Encryption to an ensemble. Paths are relative to this file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ZooKeeperTls {
    /// The certificate authorities to trust, PEM. There are no default ones.
    #[schemars(required)]
    pub(in crate::config) ca: Option<String>,
    /// The client's certificate chain, PEM; together with `key`.
    pub(in crate::config) cert: Option<String>,
    /// The client's private key, PEM; together with `cert`.
    pub(in crate::config) key: Option<String>,
}

/// SASL authentication to an ensemble.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Sasl {
    /// The mechanism.
    #[schemars(extend("default" = "DIGEST-MD5"))]
    pub(in crate::config) mechanism: Option<Choice<SaslMechanism>>,
    /// The user.
    #[schemars(required)]
    pub(in crate::config) username: Option<String>,
    /// Its password.
    #[schemars(required)]
    pub(in crate::config) password: Option<SecretText>,
}

impl Words for SaslMechanism {
    const WORDS: &'static [(&'static str, Self)] = &[("DIGEST-MD5", Self::DigestMd5)];
}

/// An Airflow, 2.7 or later.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Airflow {
    /// The base URL of its web server; it may have a path.
    #[schemars(required)]
    pub(in crate::config) url: Option<String>,
    /// How to authenticate: one of the four kinds, or none.
    pub(in crate::config) auth: Option<AirflowAuth>,
    /// Headers to add to every request: a text, or a secret.
    pub(in crate::config) headers: Option<BTreeMap<String, HeaderValue>>,
    /// Encryption.
    pub(in crate::config) tls: Option<AirflowTls>,
    /// How many requests may be under way at once: `"auto"` follows Airflow's answer times and
    /// errors.
    #[schemars(extend("default" = "auto"))]
    pub(in crate::config) in_flight: Option<InFlightText>,
    /// The limit of one request.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) timeout: Option<DurationText>,
    /// DAG ids, as globs, whose DAG runs are recorded, whoever triggered them.
    #[schemars(extend("default" = Vec::<String>::new()))]
    pub(in crate::config) monitor: Option<Vec<String>>,
    /// How often its schedulers, triggerers and DAG processors are looked at.
    #[schemars(extend("default" = "15s"))]
    pub(in crate::config) health_interval: Option<DurationText>,
    /// From which age on the heartbeat of one of them is a warning; Airflow's own limit is 30 s.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) heartbeat_threshold: Option<DurationText>,
}

/// How to authenticate to an Airflow: `username` and `password`, or `token`, or `oauth2`, or
/// `command`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AirflowAuth {
    /// The user, with `password`.
    pub(in crate::config) username: Option<String>,
    /// The user's password: a token is fetched with it (Airflow 3), or it is sent (Airflow 2).
    pub(in crate::config) password: Option<SecretText>,
    /// A bearer token; read again after a 401 or 403.
    pub(in crate::config) token: Option<SecretText>,
    /// OAuth 2 client credentials.
    pub(in crate::config) oauth2: Option<OAuth2>,
    /// A program and its arguments. It prints a token, or JSON
    /// `{"headers": {…}, "expires_at": "…"}`.
    pub(in crate::config) command: Option<Vec<String>>,
    /// How long what `command` prints is good for, where it does not say.
    #[schemars(extend("default" = "50m"))]
    pub(in crate::config) ttl: Option<DurationText>,
}

/// OAuth 2 client credentials.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct OAuth2 {
    /// Where tokens are issued.
    #[schemars(required)]
    pub(in crate::config) token_url: Option<String>,
    /// The client.
    #[schemars(required)]
    pub(in crate::config) client_id: Option<String>,
    /// The client's secret.
    #[schemars(required)]
    pub(in crate::config) client_secret: Option<SecretText>,
    /// The scope to ask for.
    pub(in crate::config) scope: Option<String>,
    /// The audience to ask for.
    pub(in crate::config) audience: Option<String>,
}

/// Encryption to an Airflow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AirflowTls {
    /// The certificate authorities to trust instead of the built-in ones, PEM; relative to this
    /// file.
    #[schemars(required)]
    pub(in crate::config) ca: Option<String>,
}

/// A header's text, or the place of a secret.
#[derive(Debug)]
pub(in crate::config) enum HeaderValue {
    /// As written.
    Plain(String),
    /// Kept elsewhere.
    Secret(SecretText),
}

impl<'de> Deserialize<'de> for HeaderValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = HeaderValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a secret's place")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<HeaderValue, E> {
                if text.bytes().all(|byte| (32..127).contains(&byte)) {
                    Ok(HeaderValue::Plain(text.to_owned()))
                } else {
                    Err(fault("a header holds printable ASCII only", "take the other characters out"))
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderValue, A::Error> {
                SecretText::deserialize(MapAccessDeserializer::new(map)).map(HeaderValue::Secret)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for HeaderValue {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "HeaderValue".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<SecretText>()] })
    }
}

/// An ensemble to watch besides the home one, or (without `connect`) the home one itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Ensemble {
    /// The servers, as in `[zookeeper]`; left out, this is the home ensemble.
    pub(in crate::config) connect: Option<String>,
    /// The session timeout to ask for.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) session_timeout: Option<DurationText>,
    /// Credentials for ACLs.
    pub(in crate::config) auth: Option<ZooKeeperAuth>,
    /// Encryption.
    pub(in crate::config) tls: Option<ZooKeeperTls>,
    /// SASL authentication.
    pub(in crate::config) sasl: Option<Sasl>,
    /// How often the leader checks its health. What is seen for the first time is looked at again within
    /// three seconds.
    #[schemars(extend("default" = "15s"))]
    pub(in crate::config) interval: Option<DurationText>,
    /// The URL of the AdminServers' commands, `{host}` standing for each server's host. They are
    /// asked for what four-letter words do not tell; `"off"` asks none.
    #[schemars(extend("default" = "http://{host}:8080/commands"))]
    pub(in crate::config) admin: Option<String>,
    /// The znode below which the canary makes its ephemeral znodes; `"off"` lets none fly.
    #[schemars(extend("default" = "/"))]
    pub(in crate::config) canary: Option<String>,
    /// Limits by check, in place of the usual ones. `docs/health.md` has the checks, their units and
    /// their usual limits.
    pub(in crate::config) thresholds: Option<BTreeMap<String, Threshold>>,
}

/// A team: the limits of the schedules whose `owner` it is. What is not listed is not allowed; `["**"]` is
/// everything. See `docs/teams.md`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Team {
    /// The ids of the DAGs that they may run, as globs.
    #[schemars(extend("default" = []))]
    pub(in crate::config) dags: Option<Vec<String>>,
    /// The paths of the znodes that they may watch, as globs. `/a/**` is `/a` and all that is below it,
    /// which a watched subtree needs; watched children need `/a/*`.
    #[schemars(extend("default" = []))]
    pub(in crate::config) znodes: Option<Vec<String>>,
    /// The names of the locks that their runs may take, as globs.
    #[schemars(extend("default" = []))]
    pub(in crate::config) locks: Option<Vec<String>>,
    /// The names of the `[[notify]]` sections that are the team's. This version has no notifications, so
    /// it refuses every name.
    #[schemars(extend("default" = []))]
    pub(in crate::config) notify: Option<Vec<String>>,
}

/// When a check is bad.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Threshold {
    /// From this value on, a warning.
    pub(in crate::config) warn: Option<f64>,
    /// From this value on, critical.
    pub(in crate::config) critical: Option<f64>,
}

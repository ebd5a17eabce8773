//! Every section but the schedules.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::leaf::{Choice, DurationText, InFlightText, SecretText, Words, fault};
use crate::config::model::{LogFormat, LogLevel, Role, SaslMechanism};

/// The HTTP API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The address to listen on. Beyond loopback there must be a token.
    #[schemars(extend("default" = "127.0.0.1:8787"))]
    pub listen: Option<String>,
    /// The base URL at which others reach this member; it is used for links in notes.
    pub advertise: Option<String>,
    /// Where the schedules come from: these files.
    #[schemars(extend("default" = "file"))]
    pub definitions: Option<Choice<Definitions>>,
    /// Who may call the API. Without a token everybody who reaches it may do everything.
    pub token: Option<Vec<Token>>,
}

/// Where the schedules come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definitions {
    /// The configuration files.
    File,
}

impl Words for Definitions {
    const WORDS: &'static [(&'static str, Self)] = &[("file", Self::File)];
    const TO_COME: &'static [&'static str] = &["zookeeper"];
}

/// A named caller of the HTTP API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The name that the audit log shows.
    #[schemars(required)]
    pub name: Option<String>,
    /// What the caller sends as `Authorization: Bearer …`.
    #[schemars(required)]
    pub value: Option<SecretText>,
    /// What the caller may do: `read`; also pause, resume, trigger, retry, cancel and backfill with
    /// `operate`; also reload the configuration with `admin`.
    #[schemars(extend("default" = "read"))]
    pub role: Option<Choice<Role>>,
}

impl Words for Role {
    const WORDS: &'static [(&'static str, Self)] =
        &[("read", Self::Read), ("operate", Self::Operate), ("admin", Self::Admin)];
}

/// Logging.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `text` for people, `json` for one JSON object a line.
    #[schemars(extend("default" = "text"))]
    pub format: Option<Choice<LogFormat>>,
    /// The least severe level that is written.
    #[schemars(extend("default" = "info"))]
    pub level: Option<Choice<LogLevel>>,
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
pub struct Store {
    /// The database: `sqlite://` and a path, relative to this file.
    #[schemars(extend("default" = "sqlite://flowkeeper.db"))]
    pub url: Option<String>,
    /// How long closed runs are kept. The newest run of each schedule, open runs, and runs
    /// triggered by hand with a key stay.
    #[schemars(extend("default" = "90d"))]
    pub retention: Option<DurationText>,
}

/// The home ensemble.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZooKeeper {
    /// The servers, with an optional chroot: `host:port,host:port/chroot`. The port is 2181 where
    /// none is given.
    #[schemars(required)]
    pub connect: Option<String>,
    /// The znode under which flowkeeper keeps its own state.
    #[schemars(extend("default" = "/flowkeeper"))]
    pub root: Option<String>,
    /// The session timeout to ask for; the servers may grant another.
    #[schemars(extend("default" = "10s"))]
    pub session_timeout: Option<DurationText>,
    /// Credentials for ACLs.
    pub auth: Option<ZooKeeperAuth>,
    /// Encryption.
    pub tls: Option<ZooKeeperTls>,
    /// SASL authentication.
    pub sasl: Option<Sasl>,
}

/// Credentials for ACLs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZooKeeperAuth {
    /// The scheme.
    #[schemars(extend("default" = "digest"))]
    pub scheme: Option<String>,
    /// For `digest`, `user:password`.
    #[schemars(required)]
    pub credential: Option<SecretText>,
}

/// Encryption to an ensemble. Paths are relative to this file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZooKeeperTls {
    /// The certificate authorities to trust, PEM. There are no default ones.
    #[schemars(required)]
    pub ca: Option<String>,
    /// The client's certificate chain, PEM; together with `key`.
    pub cert: Option<String>,
    /// The client's private key, PEM; together with `cert`.
    pub key: Option<String>,
}

/// SASL authentication to an ensemble.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// The mechanism.
    #[schemars(extend("default" = "DIGEST-MD5"))]
    pub mechanism: Option<Choice<SaslMechanism>>,
    /// The user.
    #[schemars(required)]
    pub username: Option<String>,
    /// Its password.
    #[schemars(required)]
    pub password: Option<SecretText>,
}

impl Words for SaslMechanism {
    const WORDS: &'static [(&'static str, Self)] = &[("DIGEST-MD5", Self::DigestMd5)];
}

/// An Airflow, 2.7 or later.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Airflow {
    /// The base URL of its web server; it may have a path.
    #[schemars(required)]
    pub url: Option<String>,
    /// How to authenticate: one of the four kinds, or none.
    pub auth: Option<AirflowAuth>,
    /// Headers to add to every request: a text, or a secret.
    pub headers: Option<BTreeMap<String, HeaderValue>>,
    /// Encryption.
    pub tls: Option<AirflowTls>,
    /// How many requests may be under way at once: `"auto"` follows Airflow's answer times and
    /// errors.
    #[schemars(extend("default" = "auto"))]
    pub in_flight: Option<InFlightText>,
    /// The limit of one request.
    #[schemars(extend("default" = "30s"))]
    pub timeout: Option<DurationText>,
    /// DAG ids, as globs, whose DAG runs are recorded, whoever triggered them.
    #[schemars(extend("default" = Vec::<String>::new()))]
    pub monitor: Option<Vec<String>>,
}

/// How to authenticate to an Airflow: `username` and `password`, or `token`, or `oauth2`, or
/// `command`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AirflowAuth {
    /// The user, with `password`.
    pub username: Option<String>,
    /// The user's password: a token is fetched with it (Airflow 3), or it is sent (Airflow 2).
    pub password: Option<SecretText>,
    /// A bearer token; read again after a 401 or 403.
    pub token: Option<SecretText>,
    /// OAuth 2 client credentials.
    pub oauth2: Option<OAuth2>,
    /// A program and its arguments. It prints a token, or JSON
    /// `{"headers": {…}, "expires_at": "…"}`.
    pub command: Option<Vec<String>>,
    /// How long what `command` prints is good for, where it does not say.
    #[schemars(extend("default" = "50m"))]
    pub ttl: Option<DurationText>,
}

/// OAuth 2 client credentials.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// Where tokens are issued.
    #[schemars(required)]
    pub token_url: Option<String>,
    /// The client.
    #[schemars(required)]
    pub client_id: Option<String>,
    /// The client's secret.
    #[schemars(required)]
    pub client_secret: Option<SecretText>,
    /// The scope to ask for.
    pub scope: Option<String>,
    /// The audience to ask for.
    pub audience: Option<String>,
}

/// Encryption to an Airflow.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AirflowTls {
    /// The certificate authorities to trust instead of the built-in ones, PEM; relative to this
    /// file.
    #[schemars(required)]
    pub ca: Option<String>,
}

/// A header's text, or the place of a secret.
#[derive(Debug)]
pub enum HeaderValue {
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
pub struct Ensemble {
    /// The servers, as in `[zookeeper]`; left out, this is the home ensemble.
    pub connect: Option<String>,
    /// The session timeout to ask for.
    #[schemars(extend("default" = "10s"))]
    pub session_timeout: Option<DurationText>,
    /// Credentials for ACLs.
    pub auth: Option<ZooKeeperAuth>,
    /// Encryption.
    pub tls: Option<ZooKeeperTls>,
    /// SASL authentication.
    pub sasl: Option<Sasl>,
    /// How often health is checked. Checked for its form, and without effect until flowkeeper has
    /// health checks.
    #[schemars(extend("default" = "15s"))]
    pub interval: Option<DurationText>,
    /// The admin server's URL, `{host}` standing for each server. Checked for its form, and without
    /// effect until flowkeeper has health checks.
    pub admin: Option<String>,
    /// Limits by check. Checked for their form, and without effect until flowkeeper has health
    /// checks.
    pub thresholds: Option<BTreeMap<String, Threshold>>,
}

/// When a check is bad.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// From this value on, a warning.
    pub warn: Option<f64>,
    /// From this value on, critical.
    pub critical: Option<f64>,
}

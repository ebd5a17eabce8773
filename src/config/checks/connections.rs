//! `[zookeeper]`, `[ensemble.NAME]` and `[airflow.NAME]`: what flowkeeper talks to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::model::{
    Airflow, AirflowAuth, Connection, DagGlobs, Ensemble, HeaderText, InFlight, Sasl, SaslMechanism, TlsIdentity,
    ZooKeeper, ZooKeeperAuth, ZooKeeperTls,
};
use super::super::section::Section;
use super::super::text;
use super::super::written::{self, DurationText, HeaderValue, InFlightText};
use super::znode_path_fault;
use crate::domain::health::{Check, Direction, Limits, Thresholds};
use crate::secret::CommandLine;

const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_mins(50);
const DEFAULT_HEALTH_INTERVAL: Duration = Duration::from_secs(15);
const DEFAULT_HEARTBEAT_THRESHOLD: Duration = Duration::from_secs(30);
const DEFAULT_ROOT: &str = "/flowkeeper";
const ZOOKEEPER_PORT: u16 = 2181;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// What switches something off that is on by itself.
const OFF: &str = "off";

const CONNECT_HINT: &str = "write host:port,host:port/chroot, such as \"127.0.0.1:2181\"";

/// `[zookeeper]`.
pub(crate) fn zookeeper(section: &Section<'_, '_>) -> ZooKeeper {
    let written: written::ZooKeeper = section.read();
    let connect = section.required(&["connect"], written.connect, CONNECT_HINT).unwrap_or_default();
    let root = written.root.unwrap_or_else(|| DEFAULT_ROOT.to_owned());
    if let Some(fault) = znode_path_fault(&root) {
        section.error(
            &["root"],
            format!("\"{root}\" is not a znode's path: {fault}"),
            "write one such as \"/flowkeeper\"",
        );
    } else if root == "/" || root == "/zookeeper" || root.starts_with("/zookeeper/") {
        section.error(
            &["root"],
            format!("flowkeeper cannot keep its state under {root}"),
            "write one such as \"/flowkeeper\"",
        );
    }
    let connection = connection(section, &connect, written.session_timeout, written.auth, written.tls, written.sasl);
    ZooKeeper { connection, root }
}

/// `[ensemble.NAME]`; `home` says whether there is a `[zookeeper]` for those without `connect`.
pub(crate) fn ensemble(section: &Section<'_, '_>, name: &Arc<str>, home: bool) -> Ensemble {
    let written: written::Ensemble = section.read();
    let interval = written.interval.map(|interval| section.between(&["interval"], interval.0, SECOND, 24 * HOUR));
    let admin = match written.admin.as_deref() {
        None => Some(Ensemble::DEFAULT_ADMIN.to_owned()),
        Some(OFF) => None,
        Some(admin) => {
            section.base_url(&["admin"], &admin.replace("{host}", "host"));
            Some(admin.trim_end_matches('/').to_owned())
        }
    };
    let canary = match written.canary.as_deref() {
        None => Some(Ensemble::DEFAULT_CANARY.to_owned()),
        Some(OFF) => None,
        Some(path) => {
            if let Some(fault) = znode_path_fault(path) {
                section.error(
                    &["canary"],
                    format!("\"{path}\" is not a znode's path: {fault}"),
                    "write one that exists, such as \"/flowkeeper\", or \"off\"",
                );
            }
            Some(path.to_owned())
        }
    };
    let thresholds = thresholds(section, written.thresholds.unwrap_or_default());
    let connection = match written.connect {
        Some(connect) => {
            Some(connection(section, &connect, written.session_timeout, written.auth, written.tls, written.sasl))
        }
        None if section.has("connect") => None,
        None => {
            for key in ["session_timeout", "auth", "tls", "sasl"].into_iter().filter(|key| section.has(key)) {
                section.error(
                    &[key],
                    "an ensemble without `connect` is the home ensemble, which is reached as [zookeeper] says",
                    format!("add `connect`, or move `{key}` to [zookeeper]"),
                );
            }
            if !home {
                section.error(
                    &[],
                    format!("[ensemble.{name}] has no `connect`, and there is no home ensemble"),
                    "add `connect`, or a section [zookeeper]",
                );
            }
            None
        }
    };
    let interval = interval.unwrap_or(Ensemble::DEFAULT_INTERVAL);
    Ensemble { name: Arc::clone(name), connection, admin, canary, thresholds, interval }
}

/// `thresholds`: each of a check that judges by a number, in the right order.
fn thresholds(section: &Section<'_, '_>, written: BTreeMap<String, written::Threshold>) -> Thresholds {
    const HINT: &str = "write { warn = 10, critical = 50 }";
    let mut thresholds = Thresholds::default();
    for (name, threshold) in written {
        let at = ["thresholds", name.as_str()];
        let Some(check) = Check::parse(&name) else {
            let known: Vec<&str> =
                Check::all().filter(|check| check.info().direction.is_some()).map(Check::as_str).collect();
            section.error(&at, format!("there is no check `{name}`"), text::did_you_mean(&name, &known, "there are"));
            continue;
        };
        let Some(direction) = check.info().direction else {
            section.error(
                &at,
                format!("`{name}` is not judged by a limit"),
                "take it out; docs/health.md has its rule",
            );
            continue;
        };
        let limits = Limits { warn: threshold.warn, critical: threshold.critical };
        match (limits.warn, limits.critical) {
            (None, None)
                if section.value(&[at[0], at[1], "warn"]).is_none()
                    && section.value(&[at[0], at[1], "critical"]).is_none() =>
            {
                section.error(&at, "a threshold has no limit", HINT);
                continue;
            }
            (Some(limit), _) | (_, Some(limit)) if !limit.is_finite() => {
                section.error(&at, "a limit must be a finite number", HINT);
                continue;
            }
            _ => {}
        }
        let limits = thresholds.set(check, limits);
        if let (true, Some(warn), Some(critical)) = (limits.contradict(direction), limits.warn, limits.critical) {
            let (side, hint) = match direction {
                Direction::Above => ("above", "set both, `warn` to the smaller number"),
                Direction::Below => ("below", "set both, `warn` to the larger number"),
            };
            let message = format!("`{name}` would warn at {warn}, {side} its critical limit of {critical}");
            section.error(&at, message, hint);
        }
    }
    thresholds
}

fn connection(
    section: &Section<'_, '_>,
    connect: &str,
    session_timeout: Option<DurationText>,
    auth: Option<written::ZooKeeperAuth>,
    tls: Option<written::ZooKeeperTls>,
    sasl: Option<written::Sasl>,
) -> Connection {
    Connection {
        connect: connect_string(section, connect),
        session_timeout: session_timeout.map_or(DEFAULT_SESSION_TIMEOUT, |timeout| {
            section.between(&["session_timeout"], timeout.0, SECOND, Duration::from_mins(10))
        }),
        auth: auth.and_then(|auth| {
            let credential = section.required(
                &["auth", "credential"],
                auth.credential,
                "write credential = { env = \"NAME\" }; for `digest` it holds user:password",
            )?;
            Some(ZooKeeperAuth {
                scheme: auth.scheme.unwrap_or_else(|| "digest".to_owned()),
                credential: section.secret(&["auth", "credential"], credential),
            })
        }),
        tls: tls.and_then(|tls| {
            let ca = section.required(&["tls", "ca"], tls.ca, "name the file of the authorities to trust, PEM")?;
            let identity = match (tls.cert, tls.key) {
                (Some(cert), Some(key)) => Some(TlsIdentity {
                    cert: section.path(&["tls", "cert"], &cert),
                    key: section.path(&["tls", "key"], &key),
                }),
                (None, None) => None,
                (Some(_), None) => section.required(&["tls", "key"], None, "`cert` and `key` go together"),
                (None, Some(_)) => section.required(&["tls", "cert"], None, "`cert` and `key` go together"),
            };
            Some(ZooKeeperTls { ca: section.path(&["tls", "ca"], &ca), identity })
        }),
        sasl: sasl.and_then(|sasl| {
            let username = section.required(&["sasl", "username"], sasl.username, "name the user");
            let password =
                section.required(&["sasl", "password"], sasl.password, "write password = { env = \"NAME\" }");
            Some(Sasl {
                mechanism: sasl.mechanism.map_or(SaslMechanism::DigestMd5, |choice| choice.0),
                username: username?,
                password: section.secret(&["sasl", "password"], password?),
            })
        }),
    }
}

/// Checks `host:port,host:port/chroot`, and adds the ports that are left out.
fn connect_string(section: &Section<'_, '_>, written: &str) -> String {
    if written.is_empty() {
        if section.value(&["connect"]).is_some_and(|value| value.get_ref().as_str().is_some()) {
            section.error(&["connect"], "no server is named", CONNECT_HINT);
        }
        return String::new();
    }
    if written.contains('@') {
        section.error(&["connect"], "a user or a password does not stand in `connect`", "use `auth` or `sasl`");
        return written.to_owned();
    }
    let (servers, chroot) = match written.find('/') {
        Some(slash) => written.split_at(slash),
        None => (written, ""),
    };
    if written.contains("://") {
        section.error(&["connect"], "servers are named without a scheme", CONNECT_HINT);
        return written.to_owned();
    }
    if !chroot.is_empty()
        && let Some(fault) = znode_path_fault(chroot)
    {
        section.error(&["connect"], format!("\"{chroot}\" is not a chroot: {fault}"), CONNECT_HINT);
    }
    let servers: Vec<String> = servers
        .split(',')
        .map(|server| {
            let server = server.trim();
            let (host, port) = match server.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
                _ => (server, Some(ZOOKEEPER_PORT)),
            };
            let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
            match port {
                Some(port) if named && port != 0 => format!("{host}:{port}"),
                _ => {
                    section.error(&["connect"], format!("\"{server}\" is not a server"), CONNECT_HINT);
                    server.to_owned()
                }
            }
        })
        .collect();
    format!("{}{}", servers.join(","), if chroot == "/" { "" } else { chroot })
}

/// `[airflow.NAME]`.
pub(crate) fn airflow(section: &Section<'_, '_>, name: &Arc<str>) -> Airflow {
    let written: written::Airflow = section.read();
    let url = section
        .required(&["url"], written.url, "write the base URL of its web server, such as \"http://127.0.0.1:8080\"")
        .map(|url| section.base_url(&["url"], &url))
        .unwrap_or_default();
    let auth = written.auth.map_or(AirflowAuth::None, |auth| airflow_auth(section, auth));
    let monitor = written.monitor.unwrap_or_default();
    Airflow {
        name: Arc::clone(name),
        url,
        auth,
        headers: headers(section, written.headers.unwrap_or_default()),
        ca: written
            .tls
            .and_then(|tls| section.required(&["tls", "ca"], tls.ca, "name the file of the authorities to trust, PEM"))
            .map(|ca| section.path(&["tls", "ca"], &ca)),
        in_flight: match written.in_flight {
            None | Some(InFlightText::Auto) => InFlight::Auto,
            Some(InFlightText::Fixed(number)) => InFlight::Fixed(number),
        },
        timeout: written
            .timeout
            .map_or(DEFAULT_TIMEOUT, |timeout| section.between(&["timeout"], timeout.0, SECOND, HOUR)),
        monitor: DagGlobs { set: section.globs(&["monitor"], &monitor, false), patterns: monitor },
        health_interval: written.health_interval.map_or(DEFAULT_HEALTH_INTERVAL, |interval| {
            section.between(&["health_interval"], interval.0, SECOND, HOUR)
        }),
        heartbeat_threshold: written.heartbeat_threshold.map_or(DEFAULT_HEARTBEAT_THRESHOLD, |threshold| {
            section.between(&["heartbeat_threshold"], threshold.0, SECOND, HOUR)
        }),
    }
}

/// Words in the name of a header whose value is probably a secret.
const SENSITIVE_HEADERS: [&str; 7] = ["auth", "cookie", "credential", "key", "pass", "secret", "token"];

fn headers(section: &Section<'_, '_>, written: BTreeMap<String, HeaderValue>) -> Vec<(String, HeaderText)> {
    written
        .into_iter()
        .map(|(name, value)| {
            // The characters of a header's name: RFC 9110, section 5.6.2.
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(legal) {
                section.error(
                    &["headers", &name],
                    format!("\"{name}\" is not a header's name"),
                    "write one such as \"X-Proxy\"",
                );
            }
            let value = match value {
                HeaderValue::Plain(text) => {
                    let lower = name.to_lowercase();
                    if section.source.is_pushed() && SENSITIVE_HEADERS.iter().any(|word| lower.contains(word)) {
                        section.error(
                            &["headers", &name],
                            format!("the header \"{name}\" looks like a secret, and what is pushed is kept where others can read it"),
                            "write { env = \"NAME\" } or { file = \"path\" }",
                        );
                    }
                    section.source.hide(section.span(&["headers", &name]));
                    HeaderText::Plain(text)
                }
                HeaderValue::Secret(place) => HeaderText::Secret(section.secret(&["headers", &name], place)),
            };
            (name, value)
        })
        .collect()
}

/// One of the four kinds; several or none is a fault.
fn airflow_auth(section: &Section<'_, '_>, written: written::AirflowAuth) -> AirflowAuth {
    const KINDS: [(&str, &[&str]); 4] = [
        ("username and password", &["username", "password"]),
        ("token", &["token"]),
        ("oauth2", &["oauth2"]),
        ("command", &["command"]),
    ];
    let present: Vec<&str> = KINDS
        .iter()
        .filter(|(_, keys)| keys.iter().any(|key| section.value(&["auth", key]).is_some()))
        .map(|(kind, _)| *kind)
        .collect();
    match present.as_slice() {
        [] => {
            section.error(
                &["auth"],
                "`auth` names no way to authenticate",
                "write `username` and `password`, `token`, `oauth2` or `command`; or take `auth` out",
            );
            return AirflowAuth::None;
        }
        [_] => {}
        several => {
            section.error(&["auth"], format!("`auth` names several ways: {}", several.join("; ")), "keep one of them");
            return AirflowAuth::None;
        }
    }
    if written.ttl.is_some() && written.command.is_none() && section.value(&["auth", "command"]).is_none() {
        section.error(&["auth", "ttl"], "`ttl` goes with `command`", "take it out");
    }
    password(section, &written)
        .or_else(|| written.token.map(|token| AirflowAuth::Token(section.secret(&["auth", "token"], token))))
        .or_else(|| written.oauth2.and_then(|oauth2| client_credentials(section, oauth2)))
        .or_else(|| {
            let command = written.command?;
            if command.first().is_none_or(String::is_empty) {
                section.error(&["auth", "command"], "no program is named", "write [\"program\", \"argument\"]");
            }
            section.judge(&["auth", "command"], |guard| guard.command(&command));
            // Arguments may be secrets; the program is none.
            for index in 1..command.len() {
                section.source.hide(section.span(&["auth", "command", &index.to_string()]));
            }
            let ttl = written
                .ttl
                .map_or(DEFAULT_TOKEN_LIFE, |ttl| section.between(&["auth", "ttl"], ttl.0, SECOND, 365 * 24 * HOUR));
            Some(AirflowAuth::Command { command: CommandLine::new(command), ttl })
        })
        .unwrap_or(AirflowAuth::None)
}

fn password(section: &Section<'_, '_>, written: &written::AirflowAuth) -> Option<AirflowAuth> {
    let has = |key| section.value(&["auth", key]).is_some();
    if !has("username") && !has("password") {
        return None;
    }
    let username = section.required(&["auth", "username"], written.username.clone(), "name the user");
    let password = section.required(
        &["auth", "password"],
        written.password.clone(),
        "write password = { env = \"AIRFLOW_PASSWORD\" }, for example",
    );
    Some(AirflowAuth::Password { username: username?, password: section.secret(&["auth", "password"], password?) })
}

fn client_credentials(section: &Section<'_, '_>, written: written::OAuth2) -> Option<AirflowAuth> {
    let at = |key| ["auth", "oauth2", key];
    let token_url = section.required(&at("token_url"), written.token_url, "name where tokens are issued");
    let client_id = section.required(&at("client_id"), written.client_id, "name the client");
    let secret =
        section.required(&at("client_secret"), written.client_secret, "write client_secret = { env = \"NAME\" }");
    let token_url = token_url?;
    section.check_url(&at("token_url"), &token_url);
    Some(AirflowAuth::OAuth2 {
        token_url,
        client_id: client_id?,
        client_secret: section.secret(&at("client_secret"), secret?),
        scope: written.scope,
        audience: written.audience,
    })
}

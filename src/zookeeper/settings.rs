//! How an ensemble is reached, as plain values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::session::NewNodeAcl;
use tokio_rustls::rustls::pki_types::ServerName;
use zookeeper_client::{Connector, SaslOptions, TlsOptions};

/// Where ZooKeeper listens unless it is told otherwise.
const CLIENT_PORT: u16 = 2181;

/// How often the settings of an open connection are read again.
const SETTINGS_INTERVAL: Duration = Duration::from_secs(5);

/// Gives the settings for the next connection. It is asked each time, so that rotated passwords
/// and certificates are taken up; its error is for a person and holds no secret.
pub type SettingsSource = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// How an ensemble is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port,host:port/chroot`.
    pub connect: String,
    /// The session timeout to ask for; the servers have the last word.
    pub session_timeout: Duration,
    /// Scheme and credential, `digest` and `user:password` for example.
    pub auth: Option<(String, String)>,
    /// Encryption.
    pub tls: Option<Tls>,
    /// SASL with DIGEST-MD5.
    pub sasl: Option<Sasl>,
}

/// Certificates, as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Who is trusted.
    pub ca: String,
    /// Certificate and key of this client.
    pub identity: Option<(String, String)>,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// The settings that a connection was opened with, beside what they are now.
#[derive(Clone)]
pub(super) struct SettingsInUse {
    source: SettingsSource,
    in_use: Settings,
    /// What they were at the last look, if that was something else.
    seen: Option<Settings>,
}

impl SettingsInUse {
    pub(super) fn new(source: SettingsSource, in_use: Settings) -> Self {
        Self { source, in_use, seen: None }
    }

    /// Waits until the settings are others than those in use: a password or a certificate was
    /// replaced. Cancel-safe.
    pub(super) async fn outdated(&mut self) {
        loop {
            tokio::time::sleep(SETTINGS_INTERVAL).await;
            if self.look((self.source)()) {
                return;
            }
        }
    }

    /// Whether these are others, and were so at the last look. Certificate and key are two files, and
    /// while somebody replaces them they do not belong together. What cannot be read now is no reason to
    /// give up a connection that works.
    fn look(&mut self, now: Result<Settings, String>) -> bool {
        let other = now.ok().filter(|now| *now != self.in_use);
        let settled = other.is_some() && other == self.seen;
        self.seen = other;
        settled
    }
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port for clients.
    pub port: u16,
    /// Whether connections to it are encrypted.
    pub tls: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.url_host(), self.port)
    }
}

impl Server {
    /// The host as it stands in a URL: an address of IPv6 has brackets.
    pub fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Reads a server as the client crate does: `host`, `host:port`, `[::1]:port`, each with or without
    /// a scheme.
    fn parse(text: &str, tls: bool) -> Self {
        let (address, tls) = if let Some(address) = text.strip_prefix("tcp+tls://") {
            (address, true)
        } else if let Some(address) = text.strip_prefix("tcp://") {
            (address, false)
        } else {
            (text, tls)
        };
        let port_at = address.rfind(':').filter(|&colon| !address[colon..].contains(']'));
        let (host, port) = port_at.map_or((address, ""), |colon| (&address[..colon], &address[colon + 1..]));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Self { host: host.to_owned(), port: port.parse().unwrap_or(CLIENT_PORT), tls }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("connect", &self.connect)
            .field("session_timeout", &self.session_timeout)
            .field("auth", &self.auth.as_ref().map(|(scheme, _)| scheme))
            .field("tls", &self.tls.is_some())
            .field("sasl", &self.sasl.as_ref().map(|sasl| &sasl.username))
            .finish()
    }
}

impl Settings {
    /// Servers and chroot; the chroot is empty or begins with `/` and does not end with it.
    pub(super) fn split_connect(&self) -> (&str, &str) {
        // The chroot follows the last server, and a server may be written `tcp+tls://host:port`.
        let last_server = self.connect.rfind(',').map_or(0, |comma| comma + 1);
        let after_scheme =
            self.connect[last_server..].find("://").map_or(last_server, |scheme| last_server + scheme + "://".len());
        match self.connect[after_scheme..].find('/') {
            None => (&self.connect, ""),
            Some(slash) => {
                let (servers, chroot) = self.connect.split_at(after_scheme + slash);
                (servers, chroot.trim_end_matches('/'))
            }
        }
    }

    /// The servers, one by one, in the order of [`Settings::server_names`].
    pub fn servers(&self) -> Vec<Server> {
        let (servers, _) = self.split_connect();
        servers
            .split(',')
            .filter(|server| !server.is_empty())
            .map(|server| Server::parse(server, self.tls.is_some()))
            .collect()
    }

    /// The servers as they are written, `host:port`.
    pub fn server_names(&self) -> impl Iterator<Item = &str> {
        self.split_connect().0.split(',').filter(|server| !server.is_empty())
    }

    /// The same way to one server alone.
    #[must_use]
    pub fn only(&self, server: &str) -> Self {
        Self { connect: format!("{server}{}", self.split_connect().1), ..self.clone() }
    }

    /// Who may touch what a session with these settings makes: only its like, if it has credentials.
    pub(super) fn new_node_acl(&self) -> NewNodeAcl {
        let has_identity = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        if self.auth.is_some() || self.sasl.is_some() || has_identity {
            NewNodeAcl::Creator
        } else {
            NewNodeAcl::Anyone
        }
    }

    /// A connector of the client crate that tries each server once. Its error is for a person.
    pub(super) fn connector(&self) -> Result<Connector, String> {
        let mut connector =
            zookeeper_client::Client::connector().with_session_timeout(self.session_timeout).with_fail_eagerly();
        if let Some((scheme, credential)) = &self.auth {
            connector = connector.with_auth(scheme, credential.as_bytes());
        }
        if let Some(tls) = &self.tls {
            // The client crate takes it for granted that a certificate can be for each name.
            if let Some(server) = self.servers().iter().find(|server| ServerName::try_from(&*server.host).is_err()) {
                return Err(format!("no certificate can be for the server name `{}`", server.host));
            }
            let mut options = TlsOptions::new().with_pem_ca(&tls.ca).map_err(|error| format!("`tls.ca`: {error}"))?;
            if let Some((cert, key)) = &tls.identity {
                let identity = options.with_pem_identity(cert, key);
                options = identity.map_err(|error| format!("`tls.cert` and `tls.key`: {error}"))?;
            }
            connector = connector.with_tls(options);
        }
        if let Some(sasl) = &self.sasl {
            connector = connector.with_sasl(SaslOptions::digest_md5(sasl.username.clone(), sasl.password.clone()));
        }
        Ok(connector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(connect: &str) -> Settings {
        Settings {
            connect: connect.to_owned(),
            session_timeout: Duration::from_secs(10),
            auth: Some(("digest".into(), "u:hunter2".into())),
            tls: None,
            sasl: Some(Sasl { username: "u".into(), password: "hunter2".into() }),
        }
    }

    #[test]
    fn the_chroot_follows_the_last_server() {
        for (connect, servers, chroot) in [
            ("a:1", "a:1", ""),
            ("a:1,b:2", "a:1,b:2", ""),
            ("a:1,b:2/x/y", "a:1,b:2", "/x/y"),
            ("a:1/", "a:1", ""),
            ("tcp+tls://a:1,tcp://b:2/x", "tcp+tls://a:1,tcp://b:2", "/x"),
            ("[::1]:2181/x", "[::1]:2181", "/x"),
        ] {
            assert_eq!(settings(connect).split_connect(), (servers, chroot), "{connect}");
        }
    }

    #[test]
    fn servers_are_told_apart() {
        let server = |host: &str, port, tls| Server { host: host.into(), port, tls };
        let named = settings("a,tcp+tls://b:1,tcp://c:2,[::1]:3,[::2]/chroot").servers();
        let expected = [
            server("a", 2181, false),
            server("b", 1, true),
            server("c", 2, false),
            server("::1", 3, false),
            server("::2", 2181, false),
        ];
        assert_eq!(named, expected);
        assert_eq!(named[3].to_string(), "[::1]:3");
        assert_eq!(named[0].to_string(), "a:2181");
    }

    #[test]
    fn settings_are_outdated_when_they_stay_others() {
        let (old, new, newer) = (settings("a:1"), settings("b:1"), settings("c:1"));
        let unreadable = || Err("no such file".to_owned());
        let mut watched = SettingsInUse::new(Arc::new(|| Err(String::new())), old.clone());
        for (step, (now, outdated)) in [
            (Ok(old.clone()), false),
            (Ok(new.clone()), false),
            (Ok(old), false),
            (Ok(new.clone()), false),
            (unreadable(), false),
            (Ok(new.clone()), false),
            (Ok(newer.clone()), false),
            (Ok(newer), true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(watched.look(now), outdated, "step {step}");
        }
    }

    #[test]
    fn one_server_is_reached_under_the_same_chroot() {
        let all = settings("a:1,[::1]:2/x/y");
        assert_eq!(all.server_names().collect::<Vec<_>>(), ["a:1", "[::1]:2"]);
        assert_eq!(all.only("[::1]:2").connect, "[::1]:2/x/y");
        assert_eq!(settings("a:1").only("a:1").connect, "a:1");
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", settings("a:1")).contains("hunter2"));
    }
}

//! How an ensemble is reached, as plain values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::session::NewNodeAcl;
use zookeeper_client::{Connector, Error, SaslOptions, TlsOptions};

/// Gives the settings for the next connection. It is asked each time, so that rotated passwords
/// and certificates are taken up; its error is for a person and holds no secret.
pub type SettingsSource = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// How an ensemble is reached.
#[derive(Clone)]
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
#[derive(Clone)]
pub struct Tls {
    /// Who is trusted.
    pub ca: String,
    /// Certificate and key of this client.
    pub identity: Option<(String, String)>,
}

/// A user and a password.
#[derive(Clone)]
pub struct Sasl {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
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

    /// Who may touch what a session with these settings makes: only its like, if it has credentials.
    pub(super) fn new_node_acl(&self) -> NewNodeAcl {
        let has_identity = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        if self.auth.is_some() || self.sasl.is_some() || has_identity {
            NewNodeAcl::Creator
        } else {
            NewNodeAcl::Anyone
        }
    }

    /// A connector of the client crate that tries each server once.
    pub(super) fn connector(&self) -> Result<Connector, Error> {
        let mut connector =
            zookeeper_client::Client::connector().with_session_timeout(self.session_timeout).with_fail_eagerly();
        if let Some((scheme, credential)) = &self.auth {
            connector = connector.with_auth(scheme, credential.as_bytes());
        }
        if let Some(tls) = &self.tls {
            let mut options = TlsOptions::new().with_pem_ca(&tls.ca)?;
            if let Some((cert, key)) = &tls.identity {
                options = options.with_pem_identity(cert, key)?;
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
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", settings("a:1")).contains("hunter2"));
    }
}

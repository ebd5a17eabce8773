//! Opening one connection with an ensemble, for a new session or for one that lives already.
//!
//! Each attempt reads the settings anew and tries each server once; how often it is repeated, and
//! when, is the caller's. The client crate would repeat by itself, with pauses that double beyond
//! the session's life.

use std::fmt;

use zookeeper_client::{Client, Error, SessionInfo};

use super::session::{NewNodeAcl, Session};
use super::settings::SettingsSource;

/// A session that lives across connections notices a silent server after this part of its timeout.
/// Noticing, meeting the same server once more and a first look at another one fit in its life.
const SILENCE_PART: u32 = 3;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The network, or servers without a quorum.
    Unreachable(String),
    /// Credentials, certificates, settings.
    Refused(String),
    /// The session that was to go on is over.
    Expired,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) | Self::Refused(reason) => f.write_str(reason),
            Self::Expired => f.write_str("the servers have ended the session"),
        }
    }
}

/// How long the session is meant to live.
pub(super) enum Life {
    /// As long as the connection.
    Connection,
    /// Across connections. It begins now, or goes on.
    Lasting(Option<SessionInfo>),
}

/// What came of an attempt that succeeded.
pub(super) struct Opened {
    pub(super) client: Client,
    chroot: String,
    acl: NewNodeAcl,
}

impl Opened {
    /// The way to send requests through this connection.
    pub(super) fn into_session(self, number: u64) -> Session {
        Session::new(number, &self.chroot, self.acl, self.client)
    }
}

/// Connects, for a session of this kind.
pub(super) async fn connect(settings: &SettingsSource, life: Life) -> Result<Opened, Failure> {
    let settings = settings().map_err(Failure::Refused)?;
    let mut connector = settings.connector().map_err(|error| Failure::Refused(error.to_string()))?;
    if let Life::Lasting(held) = life {
        connector = connector.with_connection_timeout(settings.session_timeout / SILENCE_PART);
        if let Some(held) = held {
            connector = connector.with_session(held);
        }
    }
    let (servers, chroot) = settings.split_connect();
    let connecting = async {
        if settings.tls.is_some() { connector.secure_connect(servers).await } else { connector.connect(servers).await }
    };
    // Each server may take 0.4 of the session timeout to turn out silent.
    let servers_count = u32::try_from(servers.split(',').count()).unwrap_or(u32::MAX);
    let limit = settings.session_timeout.saturating_mul(servers_count.max(2));
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(client)) => Ok(Opened { client, chroot: chroot.to_owned(), acl: settings.new_node_acl() }),
        Ok(Err(Error::SessionExpired)) => Err(Failure::Expired),
        Ok(Err(Error::AuthFailed)) => Err(Failure::Refused("the credentials were refused".to_owned())),
        Ok(Err(error @ Error::BadArguments(_))) => Err(Failure::Refused(error.to_string())),
        Ok(Err(Error::NoHosts)) => Err(Failure::Unreachable(format!("none of {servers} gave a session"))),
        Ok(Err(error)) => Err(Failure::Unreachable(format!("{servers}: {error}"))),
        Err(_) => Err(Failure::Unreachable(format!("no session with {servers} came about in {limit:?}"))),
    }
}

//! Opening one connection with an ensemble, for a new session or for one that lives already.
//!
//! Each attempt reads the settings anew and tries each server once; how often it is repeated, and
//! when, is the caller's. The client crate would repeat by itself, with pauses that double beyond
//! the session's life.

use std::fmt;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use zookeeper_client::{Client, Error, SessionInfo};

use super::diagnose::diagnose;
use super::one_shot::Attendance;
use super::session::{NewNodeAcl, Session};
use super::settings::{Settings, SettingsInUse, SettingsSource};

/// A session that lives across connections notices a silent server after this part of its timeout.
/// Noticing, meeting the same server once more and a first look at another one fit in its life.
const SILENCE_PART: u32 = 3;

/// The shortest and the longest pause between two attempts to connect. The longest is what changes of
/// znodes wait for at most once the servers are back; it is short against a session's life, so that
/// servers which come back in time find a member or the holder of a lock back in time.
pub(super) const RECONNECT_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// A connection that lasted this long was a good one: the next attempt follows without a pause.
pub(super) const STABLE_AFTER: Duration = Duration::from_secs(2);

/// The pauses between attempts to connect, each longer than the one before up to the longest.
pub(super) struct Pauses(ExponentialBackoff);

impl Pauses {
    /// Begins with the shortest.
    pub(super) fn new() -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(RECONNECT_AFTER.0)
            .with_max_delay(RECONNECT_AFTER.1)
            .without_max_times()
            .with_jitter();
        Self(builder.build())
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(RECONNECT_AFTER.1).min(RECONNECT_AFTER.1)
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The network, or servers without a quorum.
    Unreachable { reason: String, hint: &'static str },
    /// Credentials, certificates, settings.
    Refused { reason: String, hint: &'static str },
    /// The session that was to go on is over.
    Expired,
}

impl Failure {
    /// The session was there and is no more, for this reason.
    pub(super) fn lost(reason: String) -> Self {
        Self::Unreachable { reason, hint: "flowkeeper opens another one as soon as a server gives it" }
    }

    /// What a person can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { hint, .. } | Self::Refused { hint, .. } => hint,
            Self::Expired => "nothing, a new session follows",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { reason, .. } | Self::Refused { reason, .. } => f.write_str(reason),
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
    /// What it was opened with.
    pub(super) settings: SettingsInUse,
    chroot: String,
    acl: NewNodeAcl,
}

impl Opened {
    /// Whether the session has credentials, which the servers should take for an identity.
    pub(super) fn demands_identity(&self) -> bool {
        self.acl == NewNodeAcl::Creator
    }

    /// The way to send requests through this connection.
    pub(super) fn into_session(self, number: u64, attendance: Attendance) -> Session {
        Session::new(number, &self.chroot, self.acl, self.client, attendance)
    }
}

/// Connects, for a session of this kind. If `patient`, a failure takes up to two seconds longer and
/// says what is the matter with each server.
pub(super) async fn connect(source: &SettingsSource, life: Life, patient: bool) -> Result<Opened, Failure> {
    let unusable = |reason| Failure::Refused { reason, hint: "correct the settings, or the files that they name" };
    let settings = source().map_err(unusable)?;
    let mut connector = settings.connector().map_err(unusable)?;
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
    let servers_count = u32::try_from(settings.servers().len()).unwrap_or(u32::MAX);
    let limit = settings.session_timeout.saturating_mul(servers_count.max(2));
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(client)) => {
            let (chroot, acl) = (chroot.to_owned(), settings.new_node_acl());
            Ok(Opened { client, settings: SettingsInUse::new(SettingsSource::clone(source), settings), chroot, acl })
        }
        Ok(Err(Error::SessionExpired)) => Err(Failure::Expired),
        Ok(Err(Error::AuthFailed)) => Err(refused_credentials(&settings)),
        Ok(Err(error @ Error::BadArguments(_))) => Err(unusable(error.to_string())),
        _ if patient => Err(diagnose(&settings).await),
        Ok(Err(Error::NoHosts)) => Err(Failure::lost(format!("none of {servers} took the session up again"))),
        Ok(Err(error)) => Err(Failure::lost(format!("{servers}: {error}"))),
        Err(_) => Err(Failure::lost(format!("{servers}: no answer in {limit:?}"))),
    }
}

fn refused_credentials(settings: &Settings) -> Failure {
    let (reason, hint) = match (&settings.sasl, &settings.auth) {
        (Some(sasl), _) => (
            format!("the servers refused the user `{}` (SASL DIGEST-MD5)", sasl.username),
            "compare user and password with `user_NAME=\"password\"` in the servers' JAAS file",
        ),
        (None, Some((scheme, _))) => (
            format!("the servers refused the credential of the scheme `{scheme}`"),
            "do the servers know this scheme, and demand no other one (`enforce.auth.schemes`)?",
        ),
        (None, None) => (
            "the servers demand credentials, and none are configured".to_owned(),
            "set `sasl` or `auth`, whichever the servers ask for",
        ),
    };
    Failure::Refused { reason, hint }
}

//! One session with one server, for one errand: opened, used and closed.
//!
//! Nothing is repeated and nothing reconnects: a visit that breaks off is over, and the servers end
//! its session, with the ephemeral znodes that it made.

use std::time::Duration;

use super::connect::Failure;
use super::error::ZooKeeperError;
use super::lasting::{Connection, LastingSession};
use super::one_shot::OneShot;
use super::session::Session;
use super::settings::Settings;

/// A session with one server.
pub struct Visit(Connection);

/// Tells once that a znode was made, set or deleted.
pub struct Hint(OneShot);

impl Visit {
    /// Opens a session with the one server of `settings`, within `timeout`.
    pub async fn open(settings: Settings, timeout: Duration) -> Result<Self, ZooKeeperError> {
        let source = std::sync::Arc::new(move || Ok(settings.clone()));
        let mut session = LastingSession::new(source);
        match tokio::time::timeout(timeout, session.connect()).await {
            Ok(Ok(connection)) => Ok(Self(connection)),
            Ok(Err(Failure::Refused { reason, .. })) => Err(ZooKeeperError::Refused(reason)),
            Ok(Err(failure)) => Err(ZooKeeperError::Unknown(failure.to_string())),
            Err(_) => Err(ZooKeeperError::Unknown(format!("no session came about in {timeout:?}"))),
        }
    }

    /// The way to send requests.
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    /// Whether a znode is there, and who tells when that changes.
    pub async fn watch(&self, path: &str) -> Result<(bool, Hint), ZooKeeperError> {
        let (exists, watcher) = self.0.session.exists_and_watch(path).await?;
        Ok((exists, Hint(watcher)))
    }

    /// Ends the session; whether the servers confirmed within a second that its znodes are gone.
    pub async fn close(self) -> bool {
        self.0.close().await
    }
}

impl Hint {
    /// Waits for the event; the end of the session is one as well.
    pub async fn changed(self) {
        self.0.changed().await;
    }
}

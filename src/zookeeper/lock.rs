//! A lock that a session holds, in the layout of Curator's `InterProcessMutex`: an ephemeral sequential
//! znode below the lock's, the lowest number holds it.
//!
//! Its holder must stop before somebody else can begin. The servers end a session that they have not
//! heard of for its timeout, so each proof of life is good for the timeout from the moment at which the
//! request for it was *sent*, by a clock that counts suspends; [`Holding::Held`] says until when. The
//! client's own idea of expiry comes later (1.4 timeouts) and is not used. Nothing here ends a program.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connect::{Failure, Pauses, RECONNECT_AFTER};
use super::contender::{LOCK, in_order, prefix};
use super::error::ZooKeeperError;
use super::lasting::{Connection, LastingSession};
use super::one_shot::OneShot;
use super::session::{Lifetime, Session};
use super::settings::SettingsSource;
use crate::clock::boot_time;

/// How often a queue is looked at beside the watch on the one before.
const WAIT_INTERVAL: Duration = Duration::from_secs(2);

/// How many proofs of life are asked for in the time that one is good for.
const PROOFS: u32 = 8;

/// The part of the session's timeout that is kept back, for clocks that go at another pace than the
/// servers' and for the time that ending a program takes.
const MARGIN_PART: u32 = 10;

/// How long giving a lock back may take before it is left to the end of the session.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The version that stands for any.
const ANY_VERSION: i32 = -1;

/// What a lock is taken with.
pub struct LockParts {
    /// How the ensemble is reached.
    pub settings: SettingsSource,
    /// The znode of the lock; made if there is none.
    pub path: String,
    /// What others read in the znode that queues.
    pub data: Vec<u8>,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Not in the queue, as far as is known.
    Connecting {
        /// Why not, when an attempt has failed.
        reason: Option<String>,
    },
    /// The servers refuse this client, or what it asks for; attempts go on.
    Refused {
        /// Why.
        reason: String,
    },
    /// In the queue.
    Waiting {
        /// How many come before.
        ahead: usize,
    },
    /// It holds the lock.
    Held {
        /// Nobody else can have it before this moment of [`boot_time`].
        until: Duration,
        /// How long a proof of life is good for, the margin taken off.
        validity: Duration,
        /// Why no further proof has come, while that is so.
        doubt: Option<String>,
    },
    /// It held the lock, and others may hold it now. The last word.
    Lost {
        /// Why.
        reason: String,
    },
}

/// A lock, or the wish for one. Dropped, the wish ends with the process; call [`Self::release`].
pub struct SessionLock {
    holding: watch::Receiver<Holding>,
    leaving: CancellationToken,
    keeper: JoinHandle<()>,
}

impl SessionLock {
    /// Joins the queue, and stays in it or holds the lock until [`Self::release`].
    pub fn acquire(parts: LockParts) -> Self {
        let (sender, holding) = watch::channel(Holding::Connecting { reason: None });
        let leaving = CancellationToken::new();
        let keeper = Keeper {
            lasting: LastingSession::new(parts.settings),
            path: parts.path,
            data: parts.data.into(),
            guid: uuid::Uuid::new_v4().to_string(),
            own: None,
            holding: sender,
            leaving: leaving.clone(),
        };
        Self { holding, leaving, keeper: tokio::spawn(keeper.run()) }
    }

    /// How things stand, now and from now on.
    pub fn holding(&self) -> watch::Receiver<Holding> {
        self.holding.clone()
    }

    /// Leaves the queue, or gives the lock back, at once if the servers can be reached.
    pub async fn release(self) {
        self.leaving.cancel();
        // The session ends by itself if this does not get through.
        let _ = tokio::time::timeout(RELEASE_TIMEOUT, self.keeper).await;
    }
}

struct Keeper {
    lasting: LastingSession,
    path: String,
    data: Arc<[u8]>,
    /// The same over all sessions, so that a znode of the one before is recognised.
    guid: String,
    /// The znode that holds the lock.
    own: Option<String>,
    holding: watch::Sender<Holding>,
    leaving: CancellationToken,
}

/// Why a connection is no longer used.
enum End {
    Leaving,
    Broken(String),
    Lost(String),
}

impl Keeper {
    async fn run(mut self) {
        let mut pauses = Pauses::new();
        loop {
            let attempt = tokio::select! {
                () = self.leaving.cancelled() => return,
                attempt = self.lasting.connect() => attempt,
            };
            match attempt {
                Ok(mut connection) => match self.serve(&mut connection).await {
                    End::Broken(reason) => {
                        connection.session.close();
                        self.doubt(reason);
                        pauses = Pauses::new();
                    }
                    End::Leaving => {
                        connection.close().await;
                        return;
                    }
                    End::Lost(reason) => {
                        self.holding.send_replace(Holding::Lost { reason });
                        connection.close().await;
                        return;
                    }
                },
                Err(Failure::Expired) if self.own.is_some() => {
                    self.holding
                        .send_replace(Holding::Lost { reason: "the servers have ended the session".to_owned() });
                    return;
                }
                Err(Failure::Expired) => continue,
                Err(Failure::Refused { reason, .. }) if self.own.is_none() => {
                    self.holding.send_replace(Holding::Refused { reason });
                }
                Err(failure) => self.doubt(failure.to_string()),
            }
            let pause = pauses.next();
            tokio::select! {
                () = self.leaving.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// There is no connection; what was proven before is still good for a while.
    fn doubt(&self, reason: String) {
        self.holding.send_modify(|holding| match holding {
            Holding::Held { doubt, .. } => *doubt = Some(reason),
            Holding::Lost { .. } => {}
            _ => *holding = Holding::Connecting { reason: Some(reason) },
        });
    }

    async fn serve(&mut self, connection: &mut Connection) -> End {
        if connection.begins && self.own.is_some() {
            return End::Lost("the servers have ended the session".to_owned());
        }
        let (session, timeout) = (connection.session.clone(), connection.timeout);
        let leaving = self.leaving.clone();
        let end = tokio::select! {
            biased;
            () = leaving.cancelled() => End::Leaving,
            reason = connection.lost() => End::Broken(reason),
            end = self.attend(&session, timeout) => end,
        };
        if matches!(end, End::Leaving) {
            let own = self.own.take();
            if let Some(own) = own {
                // Closing the session deletes it as well, a little later.
                let _ = session.delete(&self.below(&own), ANY_VERSION).await;
            }
        }
        end
    }

    /// Queues and holds, until the connection makes no sense any more or the lock is lost.
    async fn attend(&mut self, session: &Session, timeout: Duration) -> End {
        loop {
            let sent = boot_time();
            let looked = if let Some(own) = self.own.clone() {
                self.prove(session, &own).await
            } else {
                self.queue(session).await
            };
            let (watched, pause) = match looked {
                Ok(Look::First { watched }) => {
                    let validity = timeout.saturating_sub(timeout / MARGIN_PART);
                    self.holding.send_replace(Holding::Held { until: sent + validity, validity, doubt: None });
                    (watched, timeout / PROOFS)
                }
                Ok(Look::Behind { ahead, watched }) => {
                    let holding = Holding::Waiting { ahead };
                    self.holding.send_if_modified(|known| {
                        let news = *known != holding;
                        *known = holding;
                        news
                    });
                    (watched, WAIT_INTERVAL.min(timeout / 4))
                }
                Ok(Look::Again) => continue,
                Ok(Look::Gone) => return End::Lost("its znode was deleted".to_owned()),
                Err(error) if error.ends_session() => return End::Broken(error.to_string()),
                Err(error) => {
                    if self.own.is_none() {
                        self.holding.send_replace(Holding::Refused { reason: format!("{}: {error}", self.path) });
                    }
                    tokio::time::sleep(RECONNECT_AFTER.1).await;
                    continue;
                }
            };
            tokio::select! {
                () = watched.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether the znode that holds the lock is still there, and this session's.
    async fn prove(&self, session: &Session, own: &str) -> Result<Look, ZooKeeperError> {
        let path = self.below(own);
        let (exists, watched) = session.exists_and_watch(&path).await?;
        let ours = exists && session.owns(&path).await? == Some(true);
        Ok(if ours { Look::First { watched } } else { Look::Gone })
    }

    /// Takes a place in the queue, or looks how it stands.
    async fn queue(&mut self, session: &Session) -> Result<Look, ZooKeeperError> {
        let Some((children, _)) = session.get_children(&self.path).await? else {
            session.make_path(&self.path).await?;
            return Ok(Look::Again);
        };
        let queue = in_order(children.iter().map(String::as_str));
        let mut own = None;
        for (ahead, contender) in queue.iter().enumerate().filter(|(_, contender)| contender.is_of(&self.guid)) {
            // One of a session before, or the second one of a request that was repeated, would only be waited for.
            let path = self.below(&contender.name);
            if own.is_some() || session.owns(&path).await? != Some(true) {
                session.delete(&path, ANY_VERSION).await?;
                return Ok(Look::Again);
            }
            own = Some((ahead, contender));
        }
        let Some((ahead, contender)) = own else {
            let place = self.below(&prefix(&self.guid, LOCK));
            match session.create_sequential(&place, &self.data, Lifetime::Ephemeral).await {
                Ok(_) | Err(ZooKeeperError::NoParent) => return Ok(Look::Again),
                Err(error) => return Err(error),
            }
        };
        let before = ahead.checked_sub(1).and_then(|before| queue.get(before)).unwrap_or(contender);
        let (exists, watched) = session.exists_and_watch(&self.below(&before.name)).await?;
        if !exists {
            return Ok(Look::Again);
        }
        if ahead > 0 {
            return Ok(Look::Behind { ahead, watched });
        }
        self.own = Some(contender.name.clone());
        Ok(Look::First { watched })
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// What a look has shown.
enum Look {
    /// It holds the lock.
    First { watched: OneShot },
    /// It waits for those before.
    Behind { ahead: usize, watched: OneShot },
    /// Something moved meanwhile.
    Again,
    /// It held the lock, and its znode is gone.
    Gone,
}

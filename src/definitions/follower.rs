//! The znode `config` as a source: read at the start and whenever it may have changed.
//!
//! What was read last stays in force: through a loss of ZooKeeper, through rubbish in the znode, and when
//! the znode is gone. A member that starts while ZooKeeper is away takes up the latest set that the
//! ledger has, so that cron goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::bundle::Bundle;
use super::znodes::{self, Found};
use super::{Candidate, Provenance, Refusal, Set, Source, history};
use crate::clock::Clock;
use crate::config::{self, Document, Environment, Fault, Faults, Severity};
use crate::store::{Ledger, StoreError};
use crate::zookeeper::{Ensemble, Interest, Session, ZooKeeperError};

/// The znode below the root that holds the definitions.
pub const ZNODE: &str = "config";

/// How long a start waits for ZooKeeper before it takes up what the ledger has.
const OPENING_PATIENCE: Duration = Duration::from_secs(5);

/// How often the znode is looked at although nothing hinted at a change.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How often parts that nobody needs are looked for.
const CLEAN_INTERVAL: Duration = Duration::from_hours(1);

/// What a follower works with. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The home ensemble.
    pub ensemble: Ensemble,
    /// Path of the znode.
    pub path: Arc<str>,
    /// The main file, whose sections are part of each set.
    pub main_file: Arc<PathBuf>,
    /// The variables that override single values of it.
    pub environment: Arc<Environment>,
    /// The sets that were in force.
    pub ledger: Ledger,
    /// The time.
    pub clock: Clock,
    /// Has the znode read again, and a candidate sent in any case: somebody asked for a reload.
    pub again: Arc<Notify>,
}

impl Parts {
    /// The set to begin with: the one in ZooKeeper, or if that does not answer at once, or has none that
    /// can be used, the latest in the ledger; with nothing anywhere, a set without schedules. The error is
    /// that of the main file alone.
    pub async fn opening(&self) -> Candidate {
        let session = tokio::time::timeout(OPENING_PATIENCE, self.session()).await;
        let found = match session {
            Ok(session) => tokio::time::timeout(OPENING_PATIENCE, znodes::read(&session, &self.path)).await,
            Err(_) => Ok(Err(ZooKeeperError::Unknown("there is no session yet".to_owned()))),
        };
        let found = found.unwrap_or_else(|_| Err(ZooKeeperError::Unknown("no answer in time".to_owned())));
        match found {
            Ok(Found::Set(bundle, stat)) => match self.candidate(*bundle, stat.version, stat.mtime_ms).await {
                Ok(set) => return Ok(set),
                // The follower reads it again, and the member is told why it is refused.
                Err(refusal) => tracing::error!(
                    version = refusal.provenance.version,
                    faults = refusal.faults.faults.len(),
                    "the definitions in ZooKeeper are refused, so the last ones that were in force are taken up"
                ),
            },
            Ok(Found::Nothing { .. }) => {}
            Ok(Found::Rubbish(rubbish, _)) => {
                tracing::error!(path = %self.path, reason = %rubbish, "there are no definitions in the znode");
            }
            Err(error) => tracing::warn!(
                reason = %error,
                "ZooKeeper cannot be asked for the definitions, so the last ones that were in force are taken up"
            ),
        }
        match self.remembered().await {
            Ok(Some(candidate)) => match candidate {
                Ok(set) => return Ok(set),
                Err(refusal) => tracing::error!(
                    faults = refusal.faults.faults.len(),
                    "the last definitions in force cannot be taken up by this version or this main file"
                ),
            },
            Ok(None) => tracing::warn!(
                path = %self.path,
                hint = "write some with `flowkeeper config push FILE`",
                "there are no definitions yet, so there are no schedules"
            ),
            Err(error) => tracing::error!(%error, "the last definitions in force cannot be read"),
        }
        self.nothing().await
    }

    /// A set with nothing in it, as it is before the first push.
    async fn nothing(&self) -> Candidate {
        let none = Provenance {
            source: Source::Zookeeper,
            version: config::version_of(&[]),
            zookeeper_version: None,
            author: None,
            message: None,
            at: self.clock.now(),
        };
        self.check(none, Vec::new()).await
    }

    /// The latest set that was in force from ZooKeeper.
    async fn remembered(&self) -> Result<Option<Candidate>, StoreError> {
        let Some((entry, text)) = self.ledger.latest_definitions(Some(Source::Zookeeper.as_str())).await? else {
            return Ok(None);
        };
        let documents = history::documents(&entry, &text)?;
        let provenance = Provenance {
            source: Source::Ledger,
            version: entry.version,
            zookeeper_version: entry.zookeeper_version,
            author: entry.author,
            message: entry.message,
            at: entry.pushed_at,
        };
        Ok(Some(self.check(provenance, documents).await))
    }

    /// Sends what it finds for as long as somebody receives it: what the znode holds when it is first read,
    /// and whenever that has changed or [`Self::again`] asks for it. What is in force already may come
    /// again.
    pub async fn follow(self, candidates: mpsc::Sender<Candidate>) {
        let hints = self.ensemble.subscribe(Arc::clone(&self.path), Interest::Node);
        let mut status = self.ensemble.status();
        let mut seen = Seen::default();
        let mut cleaned: Option<Instant> = None;
        let mut asked = false;
        while !candidates.is_closed() {
            status.mark_unchanged();
            hints.take(usize::MAX);
            if let Some(session) = self.ensemble.session() {
                match self.look(&session, &mut seen, asked).await {
                    Ok(Some(candidate)) => {
                        asked = false;
                        if candidates.send(candidate).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(path = %self.path, %error, "the definitions cannot be read at the moment");
                        session.give_up();
                    }
                }
                if cleaned.is_none_or(|cleaned| cleaned.elapsed() >= CLEAN_INTERVAL) {
                    cleaned = Some(Instant::now());
                    self.clean(&session).await;
                }
            }
            tokio::select! {
                // The sender lives as long as the ensemble, which lives as long as we hold it.
                _ = status.changed() => {}
                () = hints.changed() => {}
                () = self.again.notified() => asked = true,
                () = candidates.closed() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// What is new in the znode, or all of it if that was `asked` for. The error is one of the session.
    async fn look(&self, session: &Session, seen: &mut Seen, asked: bool) -> Result<Option<Candidate>, ZooKeeperError> {
        let read = async {
            let stat = session.stat(&self.path).await?;
            let present = stat.map(|stat| (stat.czxid, stat.mzxid));
            if !asked && seen.state == Some(State::Read(present)) {
                return Ok(None);
            }
            znodes::read(session, &self.path).await.map(Some)
        };
        let found = match read.await {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => found,
            Err(error) if error.ends_session() => return Err(error),
            Err(error) => {
                let reason = error.to_string();
                let known = seen.state.replace(State::Unreadable(reason.clone())) == Some(State::Unreadable(reason));
                let message = format!("the znode {} cannot be read: {error}", self.path);
                return Ok((asked || !known).then(|| Err(self.refusal(None, message, error.hint()))));
            }
        };
        seen.state = Some(State::Read(found.stat().map(|stat| (stat.czxid, stat.mzxid))));
        seen.a_set |= matches!(found, Found::Set(..));
        Ok(match found {
            Found::Set(bundle, stat) => Some(self.candidate(*bundle, stat.version, stat.mtime_ms).await),
            Found::Rubbish(rubbish, stat) => {
                let message = format!("the znode {} {rubbish}", self.path);
                Some(Err(self.refusal(Some(stat.version), message, rubbish.hint())))
            }
            Found::Nothing { stat } => {
                // Before the first push that is as it should be.
                let was_pushed = seen.a_set || self.was_pushed().await;
                let message = match stat {
                    Some(_) => format!("the znode {} is empty", self.path),
                    None => format!("the znode {} is gone", self.path),
                };
                let hint = "`flowkeeper config rollback VERSION` or `flowkeeper config push FILE` writes it again";
                match (was_pushed, asked) {
                    (true, _) => Some(Err(self.refusal(None, message, hint))),
                    (false, true) => Some(self.nothing().await),
                    (false, false) => None,
                }
            }
        })
    }

    async fn was_pushed(&self) -> bool {
        matches!(self.ledger.latest_definitions(Some(Source::Zookeeper.as_str())).await, Ok(Some(_)))
    }

    /// Deletes parts that nobody needs. It can wait until the next time.
    async fn clean(&self, session: &Session) {
        match znodes::clean(session, &self.path, self.clock.now().as_millisecond()).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(path = %self.path, deleted, "deleted parts of definitions that nobody needs"),
            Err(error) => tracing::debug!(path = %self.path, %error, "parts of definitions were not cleaned up"),
        }
    }

    /// The session, as soon as there is one.
    async fn session(&self) -> Session {
        let mut status = self.ensemble.status();
        loop {
            status.mark_unchanged();
            if let Some(session) = self.ensemble.session() {
                return session;
            }
            // The sender lives as long as the ensemble, which lives as long as we hold it.
            drop(status.changed().await);
        }
    }

    async fn candidate(&self, bundle: Bundle, zookeeper_version: i32, mtime_ms: i64) -> Candidate {
        let written = Timestamp::from_millisecond(mtime_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let provenance = Provenance {
            source: Source::Zookeeper,
            version: bundle.version,
            zookeeper_version: Some(zookeeper_version),
            author: bundle.author,
            message: bundle.message,
            at: bundle.at.unwrap_or(written),
        };
        self.check(provenance, bundle.documents).await
    }

    /// Checks a set on a thread of its own, since that takes long for many schedules.
    async fn check(&self, provenance: Provenance, documents: Vec<Document>) -> Candidate {
        let (main_file, environment) = (Arc::clone(&self.main_file), Arc::clone(&self.environment));
        let version = provenance.version.clone();
        let checking = tokio::task::spawn_blocking(move || {
            match config::check_definitions(&main_file, &documents, &environment) {
                Ok((config, warnings)) => {
                    Ok(Set { config: Arc::new(config), provenance, warnings, documents: documents.into() })
                }
                Err(faults) => Err(Box::new(Refusal { provenance, faults })),
            }
        });
        checking.await.unwrap_or_else(|panic| {
            let message = format!("checking the definitions of version {version} failed: {panic}");
            Err(self.refusal(None, message, "please report this, with the definitions"))
        })
    }

    /// Refuses a znode as a whole.
    fn refusal(&self, zookeeper_version: Option<i32>, message: String, hint: &str) -> Box<Refusal> {
        let fault = Fault {
            file: self.path.to_string(),
            line: 0,
            column: 0,
            key: String::new(),
            message,
            hint: Some(hint.to_owned()),
            severity: Severity::Error,
            excerpt: None,
        };
        let provenance = Provenance {
            source: Source::Zookeeper,
            version: String::new(),
            zookeeper_version,
            author: None,
            message: None,
            at: self.clock.now(),
        };
        Box::new(Refusal { provenance, faults: Faults { file: self.path.to_string().into(), faults: vec![fault] } })
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Seen {
    /// The last time.
    state: Option<State>,
    /// Whether there ever was a set.
    a_set: bool,
}

/// What was read last.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The znode with this (czxid, mzxid), or that there is none.
    Read(Option<(i64, i64)>),
    /// It could not be read, for this reason.
    Unreadable(String),
}

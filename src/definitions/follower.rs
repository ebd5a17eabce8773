//! The znode `config` as a source: read at the start and whenever it may have changed.
//!
//! What was read last stays in force: through a loss of ZooKeeper, through rubbish in the znode, and when
//! the znode is gone. A member that starts while ZooKeeper is away, or cannot use what is there, takes up
//! the latest set of the ledger that it can use, so that cron goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bundle::Bundle;
use super::reloads::{Look, Proposal, Wanted};
use super::znodes::{self, Found};
use super::{Candidate, Provenance, Refusal, Set, Source, history};
use crate::clock::Clock;
use crate::config::{self, Document, Environment, Fault, Faults};
use crate::store::model::DefinitionsVersion;
use crate::store::{Ledger, StoreError};
use crate::zookeeper::{Ensemble, Interest, Session, ZooKeeperError};

/// The znode below the root that holds the definitions.
pub const ZNODE: &str = "config";

/// How many of the latest sets in the ledger a start tries.
const REMEMBERED: usize = 10;

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
}

impl Parts {
    /// What a member begins with: the newest set that `equip` finds everything for. That is the one in
    /// ZooKeeper; where it does not answer at once, or has none that can be used here, the latest in the
    /// ledger, or one before that; with nothing anywhere, a set without schedules. A refused set must not
    /// end a member that would have gone on with the set before, had it not been restarted.
    pub async fn opening<T>(&self, equip: impl Fn(Set) -> Result<T, Box<Refusal>>) -> Result<Opening<T>, OpeningError> {
        let mut refused = None;
        match self.newest().await.map(|newest| newest.and_then(&equip)) {
            Some(Ok(begun)) => return Ok(Opening { begun, refused }),
            Some(Err(refusal)) => refused = Some(refusal),
            None => {}
        }
        let mut tried: Vec<String> = refused.iter().map(|refusal| refusal.provenance.version.clone()).collect();
        let mut before = i64::MAX;
        for _ in 0..REMEMBERED {
            let Some((entry, text)) = self.ledger.definitions_before(Source::Zookeeper.as_str(), before).await? else {
                break;
            };
            before = entry.number;
            if tried.contains(&entry.version) {
                continue;
            }
            tried.push(entry.version.clone());
            let version = entry.version.clone();
            match self.remembered(entry, &text).await?.and_then(&equip) {
                Ok(begun) => {
                    tracing::warn!(version, "begins with definitions of the ledger, which were in force before");
                    return Ok(Opening { begun, refused });
                }
                Err(refusal) => tracing::error!(
                    version,
                    faults = refusal.faults.faults.len(),
                    "definitions of the ledger cannot be taken up any more: {}",
                    refusal.summary()
                ),
            }
        }
        if tried.is_empty() {
            tracing::warn!(
                path = %self.path,
                hint = "write some with `flowkeeper config push FILE`",
                "there are no definitions yet, so there are no schedules"
            );
        }
        self.ends_nothing(refused.as_deref()).await?;
        let nothing = self.nothing().await.and_then(&equip);
        nothing.map(|begun| Opening { begun, refused }).map_err(|refusal| OpeningError::Faults(refusal.faults))
    }

    /// Fails where a start without definitions would end the schedules of files, which were in force until now.
    async fn ends_nothing(&self, refused: Option<&Refusal>) -> Result<(), OpeningError> {
        match self.ledger.latest_definitions(None).await? {
            Some((entry, _)) if entry.source == Source::File.as_str() && entry.schedules > 0 => {
                let reason = refused.map_or_else(|| "no set was found there".to_owned(), Refusal::summary);
                Err(OpeningError::WouldEnd { reason, version: entry.version, schedules: entry.schedules })
            }
            _ => Ok(()),
        }
    }

    /// What the znode holds, if ZooKeeper answers at once.
    async fn newest(&self) -> Option<Candidate> {
        let asked = async {
            let session = timeout(OPENING_PATIENCE, self.session()).await.map_err(|_| "there is no session yet")?;
            timeout(OPENING_PATIENCE, znodes::read(&session, &self.path)).await.map_err(|_| "no answer in time")
        };
        let reason = match asked.await {
            Ok(Ok(found)) => return self.candidate_of(found).await,
            Ok(Err(error)) => error.to_string(),
            Err(reason) => reason.to_owned(),
        };
        tracing::warn!(
            reason,
            "ZooKeeper cannot be asked for the definitions, so the last ones that were in force are taken up"
        );
        None
    }

    /// The candidate that was found, if there is something.
    async fn candidate_of(&self, found: Found) -> Option<Candidate> {
        match found {
            Found::Set(bundle, stat) => Some(self.candidate(*bundle, stat.version, stat.mtime_ms).await),
            Found::Rubbish(rubbish, stat) => {
                let message = format!("the znode {} {rubbish}", self.path);
                Some(Err(self.refusal(Some(stat.version), message, rubbish.hint())))
            }
            Found::Nothing { .. } => None,
        }
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

    /// A set that was in force, from the ledger.
    async fn remembered(&self, entry: DefinitionsVersion, text: &str) -> Result<Candidate, StoreError> {
        let documents = history::documents(&entry, text)?;
        let provenance = Provenance {
            source: Source::Ledger,
            version: entry.version,
            zookeeper_version: entry.zookeeper_version,
            author: entry.author,
            message: entry.message,
            at: entry.pushed_at,
        };
        Ok(self.check(provenance, documents).await)
    }

    /// Proposes what it finds for as long as somebody takes it: what the znode holds when it is first read,
    /// and whenever that has changed or somebody asks. Who asks hears of what was read after that, and no
    /// older than what anybody had written by then, or that nothing is new; as long as `ZooKeeper` does not
    /// answer, nothing. What is in force already may come again. Who `has_definitions` already never takes an empty place for the time
    /// before the first push.
    pub async fn follow(
        self,
        has_definitions: bool,
        mut looks: mpsc::Receiver<Look>,
        proposals: mpsc::Sender<Proposal>,
    ) {
        let hints = self.ensemble.subscribe(Arc::clone(&self.path), Interest::Node);
        let mut status = self.ensemble.status();
        let mut seen = Seen { state: None, a_set: has_definitions };
        let mut asked: Vec<Look> = Vec::new();
        while !proposals.is_closed() {
            status.mark_unchanged();
            hints.take(usize::MAX);
            if let Some(session) = self.ensemble.session() {
                let wanted = asked.iter().map(|look| look.wanted);
                let wanted = wanted.reduce(|one, other| if one == Wanted::Everything { one } else { other });
                match self.look(&session, &mut seen, wanted).await {
                    Ok(None) if asked.is_empty() => {}
                    Ok(candidate) => {
                        let replies = asked.drain(..).filter_map(|look| look.reply).collect();
                        if proposals.send(Proposal { candidate, replies }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(path = %self.path, %error, "the definitions cannot be read at the moment");
                        session.give_up();
                    }
                }
            }
            tokio::select! {
                // The sender lives as long as the ensemble, which lives as long as we hold it.
                _ = status.changed() => {}
                () = hints.changed() => {}
                look = looks.recv() => match look {
                    Some(look) => asked.push(look),
                    None => return,
                },
                () = proposals.closed() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// What is new in the znode, or all of it if that is `wanted`; `None` is wanted where nobody asks. The
    /// error is one of the session.
    async fn look(
        &self,
        session: &Session,
        seen: &mut Seen,
        wanted: Option<Wanted>,
    ) -> Result<Option<Candidate>, ZooKeeperError> {
        let anew = wanted == Some(Wanted::Everything);
        let read = async {
            if wanted.is_some() {
                session.sync().await?;
            }
            let stat = session.stat(&self.path).await?;
            let present = stat.map(|stat| (stat.czxid, stat.mzxid));
            if !anew && seen.state == Some(State::Read(present)) {
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
                return Ok((anew || !known).then(|| Err(self.refusal(None, message, error.hint()))));
            }
        };
        seen.state = Some(State::Read(found.stat().map(|stat| (stat.czxid, stat.mzxid))));
        seen.a_set |= matches!(found, Found::Set(..));
        let Found::Nothing { stat } = &found else { return Ok(self.candidate_of(found).await) };
        // Before the first push that is as it should be.
        let was_pushed = seen.a_set || self.was_pushed().await;
        let message = match stat {
            Some(_) => format!("the znode {} is empty", self.path),
            None => format!("the znode {} is gone", self.path),
        };
        let hint = "`flowkeeper config rollback VERSION` or `flowkeeper config push FILE` writes it again";
        Ok(match (was_pushed, anew) {
            (true, _) => Some(Err(self.refusal(None, message, hint))),
            (false, true) => Some(self.nothing().await),
            (false, false) => None,
        })
    }

    /// Whether there was a set before. A ledger that cannot tell is no proof that there was none.
    async fn was_pushed(&self) -> bool {
        !matches!(self.ledger.latest_definitions(Some(Source::Zookeeper.as_str())).await, Ok(None))
    }

    /// Deletes what nobody needs, again and again. One member does it, the one that leads: of several, a
    /// clock that is wrong is enough to take the parts of a push that is under way for abandoned ones.
    pub async fn keep_clean(self) {
        loop {
            let session = self.session().await;
            self.clean(&session).await;
            tokio::time::sleep(CLEAN_INTERVAL).await;
        }
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
        let fault = Fault::without_place(&*self.path, "", message, hint);
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

/// What a member begins with.
#[derive(Debug)]
pub struct Opening<T> {
    /// The set, with what it needs.
    pub begun: T,
    /// The newest one, where it cannot be used.
    pub refused: Option<Box<Refusal>>,
}

/// Why there is nothing to begin with; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// Not even a set without schedules can be used: the main file is wrong.
    #[error("begin with definitions from ZooKeeper: {0}")]
    Faults(Faults),
    /// Until now definitions were files, and there is no set in ZooKeeper that could go on with them.
    #[error(
        "begin with definitions from ZooKeeper: {reason}; {schedules} of the schedules in files ({version}) would end"
    )]
    WouldEnd {
        /// Why none can be used.
        reason: String,
        /// The set of files that was in force.
        version: String,
        /// How many schedules it has.
        schedules: i64,
    },
    /// The ledger does not tell which sets were in force. Beginning with none would end schedules.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was read so far.
#[derive(Debug)]
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

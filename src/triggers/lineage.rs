//! Watches over the one history of ledger and ensemble, and stops the triggers when there are two.
//!
//! A [`Keeper`] works in each term and for each ensemble that is watched. For the home ensemble it reads
//! the znode `store` when the term begins, in every new session and each minute, has it judged, and
//! raises its mark: first in the ledger, then in the znode, then noting what the znode holds. Other
//! ensembles hold nothing of flowkeeper's, and are known by where they are; there, and beside the znode, a
//! trigger that meets a zxid of another history says so. Triggers compare nothing in a session that was not cleared here.
//!
//! Two keepers at once, of which one has lost the lead without knowing it, do no harm: the ledger
//! refuses what the old one wants to write, and the znode is written in the version that was read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::domain::lineage::{
    Break, Confirmed, Found, FoundNode, Incarnation, Memory, StoreNode, Verdict, judge, judge_whereabouts,
};
use crate::domain::whereabouts::Whereabouts;
use crate::metrics;
use crate::store::{Leadership, Ledger, StoreError};
use crate::zookeeper::{Ensemble, Lifetime, Session, ZooKeeperError};

/// How often the mark is raised.
const RAISE_INTERVAL: Duration = Duration::from_mins(1);

/// When to try again what was refused or could not be written down.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How often one check reads again what somebody wrote meanwhile.
const READS: u32 = 5;

/// How the ledger and an ensemble stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Not known, or not yet: triggers wait.
    Unchecked {
        /// Why it cannot be known at present.
        reason: Option<String>,
    },
    /// One history. Sessions up to this one may be compared with the cursors.
    One {
        /// How often a rebuilt ensemble was adopted.
        generation: u32,
        /// The number of the session.
        session: u64,
    },
    /// Two histories: triggers stand still until an operator adopts what is there.
    Two(Arc<TwoHistories>),
}

/// What an operator has to decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoHistories {
    /// What was found.
    pub broken: Break,
    /// The ledger's generation then.
    pub generation: u32,
    /// What was found and what is remembered, for a person.
    pub message: String,
    /// What the person can do.
    pub hint: String,
}

/// How each watched ensemble stands, by name; `None` is the home ensemble.
pub type Lineages = HashMap<Option<Arc<str>>, Lineage>;

/// How one ensemble stands, shared by its keeper, its triggers and operators. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lineage(Arc<Inner>);

/// By what an ensemble is known again.
#[derive(Debug)]
enum Sign {
    /// The znode `store` at this path.
    Node(Arc<str>),
    /// Where it is.
    Whereabouts(Whereabouts),
    /// Nothing but the zxids that triggers meet.
    Nothing,
}

#[derive(Debug)]
struct Inner {
    ensemble: Option<Arc<str>>,
    /// By what it is known.
    sign: Sign,
    standing: watch::Sender<Standing>,
    /// Wakes the keeper.
    check: Notify,
    /// Held for reading by whoever compares, and for writing while cursors end.
    comparing: Arc<RwLock<()>>,
}

impl Lineage {
    /// Of the home ensemble, whose znode `store` lies at `node`.
    pub fn home(node: &str) -> Self {
        Self::new(None, Sign::Node(node.into()))
    }

    /// Of an ensemble in which nothing of flowkeeper's is written, and which is at `connect`; `None` is the
    /// home ensemble.
    pub fn at(ensemble: Option<Arc<str>>, connect: &str) -> Self {
        Self::new(ensemble, Sign::Whereabouts(Whereabouts::of(connect)))
    }

    /// Of an ensemble of which nothing is known.
    pub fn unwritten(ensemble: Option<Arc<str>>) -> Self {
        Self::new(ensemble, Sign::Nothing)
    }

    fn new(ensemble: Option<Arc<str>>, sign: Sign) -> Self {
        Self(Arc::new(Inner {
            ensemble,
            sign,
            standing: watch::Sender::new(Standing::Unchecked { reason: None }),
            check: Notify::new(),
            comparing: Arc::default(),
        }))
    }

    /// Name of the ensemble; `None` is the home ensemble.
    pub fn ensemble(&self) -> Option<&str> {
        self.0.ensemble.as_deref()
    }

    /// How it stands, now and from now on.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// Allows to compare znodes with cursors: as long as the guard is held, no cursor ends.
    pub async fn compare(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0.comparing).read_owned().await
    }

    /// Waits until nobody compares, and keeps everybody from it.
    pub async fn quiet(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.0.comparing).write_owned().await
    }

    /// Forgets what is known, before a term whose keeper finds out anew. Not while a keeper works: it would
    /// not look again before its ensemble has another session.
    pub fn forget(&self) {
        self.publish(&Standing::Unchecked { reason: None });
    }

    /// Forgets what is known, and asks the keeper to look again.
    pub fn look_again(&self) {
        self.forget();
        self.0.check.notify_one();
    }

    /// A trigger has met what cannot be of its history. Changes nothing unless the triggers work.
    pub fn contradict(&self, broken: Break) {
        let Standing::One { generation, .. } = *self.0.standing.borrow() else { return };
        // What such a break says is not about the znode `store`.
        let message = broken.describe("", "", &Memory::default());
        self.stop(broken, generation, message);
    }

    fn stop(&self, broken: Break, generation: u32, message: String) {
        let hint = broken.hint(self.ensemble());
        self.publish(&Standing::Two(Arc::new(TwoHistories { broken, generation, message, hint })));
    }

    /// Whether a trigger has objected, whatever the znode `store` says. That holds in later sessions, too:
    /// the other triggers may have no way to notice.
    fn is_contradicted(&self, generation: u32) -> bool {
        matches!(&*self.0.standing.borrow(), Standing::Two(two)
            if matches!(two.broken, Break::Contradicted { .. }) && two.generation == generation)
    }

    fn publish(&self, standing: &Standing) {
        let label = self.ensemble().unwrap_or("home");
        let mut before = None;
        self.0.standing.send_if_modified(|known| {
            let news = known != standing;
            if news {
                before = Some(std::mem::replace(known, standing.clone()));
            }
            news
        });
        let Some(before) = before else { return };
        metrics::adoption_needed(label, matches!(standing, Standing::Two(_)));
        match (&before, standing) {
            (Standing::Two(before), Standing::Two(now)) if before.broken == now.broken => {}
            (_, Standing::Two(two)) => error!(
                ensemble = label,
                cause = two.broken.as_str(),
                hint = two.hint,
                "failed to go on with the znode triggers of this ensemble: {}; everything else goes on",
                two.message
            ),
            (_, Standing::Unchecked { reason: Some(reason) }) => warn!(
                ensemble = label,
                reason, "the znode triggers of this ensemble wait: it is not known whether it has the ledger's history"
            ),
            (_, Standing::One { generation, session }) => {
                metrics::zookeeper_generation(label, *generation);
                debug!(ensemble = label, generation, session, "the ensemble has the ledger's history");
            }
            (_, Standing::Unchecked { reason: None }) => {}
        }
    }
}

/// Checks one ensemble for as long as a term lasts.
pub struct Keeper {
    lineage: Lineage,
    ensemble: Ensemble,
    ledger: Ledger,
    leadership: Leadership,
}

/// When to check again.
enum Next {
    /// When there is a session.
    Session,
    /// After so long.
    After(Duration),
}

impl Keeper {
    /// Of this ensemble in a term. What was known in another term is to be forgotten before any trigger of this
    /// one starts.
    pub fn new(lineage: Lineage, ensemble: Ensemble, ledger: Ledger, leadership: Leadership) -> Self {
        Self { lineage, ensemble, ledger, leadership }
    }

    /// Works until `shutdown`, or until the lead is lost.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = self.leadership.lost().cancelled() => Ok(()),
            ended = self.keep() => ended,
        };
        self.lineage.forget();
        ended
    }

    async fn keep(&self) -> Result<(), StoreError> {
        let mut status = self.ensemble.status();
        loop {
            status.mark_unchanged();
            let next = match self.check().await {
                Ok(next) => next,
                Err(error) if error.is_transient() => {
                    warn!(%error, "what the ledger remembers of ZooKeeper could not be read or written, trying again");
                    Next::After(TRY_AGAIN_AFTER)
                }
                Err(error) => return Err(error),
            };
            let pause = async {
                match next {
                    Next::After(pause) => tokio::time::sleep(pause).await,
                    Next::Session => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as the ensemble, which lives as long as we hold it.
                _ = status.changed() => {}
                () = self.lineage.0.check.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Reads, judges and raises, once; again where somebody wrote in between.
    async fn check(&self) -> Result<Next, StoreError> {
        let Some(session) = self.ensemble.session() else { return Ok(Next::Session) };
        let name = self.lineage.ensemble();
        for _ in 0..READS {
            let memory = self.ledger.lineage(name).await?;
            let path = match &self.lineage.0.sign {
                Sign::Node(path) => Arc::clone(path),
                Sign::Whereabouts(now) => return self.locate(&memory, now, &session).await,
                Sign::Nothing => {
                    self.clear(memory.generation, &session);
                    return Ok(Next::Session);
                }
            };
            let found = match read(&session, &path).await {
                Ok(found) => found,
                Err(error) => return Ok(self.unread(&session, &format!("{path} cannot be read: {error}"), &error)),
            };
            match judge(self.ledger.store_id(), &memory, found) {
                Verdict::Broken(broken) => {
                    let message = broken.describe(&path, self.ledger.store_id(), &memory);
                    self.lineage.stop(broken, memory.generation, message);
                    return Ok(Next::After(RAISE_INTERVAL));
                }
                Verdict::Create => {
                    if let Err(error) = self.create(&session, &path).await? {
                        return Ok(self.unread(&session, &format!("{path} cannot be created: {error}"), &error));
                    }
                }
                Verdict::Fine(place) => {
                    self.clear(memory.generation, &session);
                    match self.raise(&session, &path, place).await? {
                        Ok(true) => return Ok(Next::After(RAISE_INTERVAL)),
                        // Somebody else wrote it since: what came of that is read.
                        Ok(false) => {}
                        Err(error) if error.ends_session() => {
                            debug!(%path, %error, "it is not known whether the mark was raised; the next session reads it");
                            session.give_up();
                            return Ok(Next::Session);
                        }
                        Err(error) => {
                            warn!(%path, reason = %error, "the mark cannot be raised, trying again; a rebuilt ZooKeeper may be noticed late");
                            return Ok(Next::After(TRY_AGAIN_AFTER));
                        }
                    }
                }
            }
        }
        Ok(Next::After(TRY_AGAIN_AFTER))
    }

    /// Whether an ensemble that is known by its servers is the one that it was.
    async fn locate(&self, memory: &Memory, now: &Whereabouts, session: &Session) -> Result<Next, StoreError> {
        match judge_whereabouts(memory, now) {
            Ok(is_news) => {
                if is_news {
                    self.ledger.note_whereabouts(&self.leadership, self.lineage.ensemble(), now).await?;
                }
                self.clear(memory.generation, session);
            }
            Err(broken) => {
                let message = broken.describe("", "", memory);
                self.lineage.stop(broken, memory.generation, message);
            }
        }
        Ok(Next::Session)
    }

    fn clear(&self, generation: u32, session: &Session) {
        if !self.lineage.is_contradicted(generation) {
            let recovered = matches!(&*self.lineage.0.standing.borrow(), Standing::Two(_));
            self.lineage.publish(&Standing::One { generation, session: session.number() });
            if recovered {
                info!(ensemble = self.ensemble.label(), "the ensemble has the ledger's history again");
            }
        }
    }

    /// Nothing is known: after a broken session the next one tells, after a refusal somebody has to act.
    fn unread(&self, session: &Session, what: &str, error: &ZooKeeperError) -> Next {
        if error.ends_session() {
            session.give_up();
            return Next::Session;
        }
        self.lineage.publish(&Standing::Unchecked { reason: Some(what.to_owned()) });
        Next::After(TRY_AGAIN_AFTER)
    }

    /// Makes the znode; whoever made it meanwhile is read next.
    async fn create(&self, session: &Session, path: &str) -> Result<Result<(), ZooKeeperError>, StoreError> {
        let memory = self.ledger.raise_mark(&self.leadership, self.lineage.ensemble()).await?;
        let data = self.data(memory.generation, memory.mark);
        let make = async {
            if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
                session.make_path(parent).await?;
            }
            session.create(path, data.as_bytes(), Lifetime::Persistent).await
        };
        Ok(make.await.map(|_| ()))
    }

    /// Raises the mark in the ledger, in the znode, and in what the ledger knows of the znode; `false`
    /// when the znode is no longer the one that was read.
    async fn raise(
        &self,
        session: &Session,
        path: &str,
        place: Incarnation,
    ) -> Result<Result<bool, ZooKeeperError>, StoreError> {
        let name = self.lineage.ensemble();
        let memory = self.ledger.raise_mark(&self.leadership, name).await?;
        let data = self.data(memory.generation, memory.mark);
        match session.set_data(path, data.as_bytes(), Some(place.version)).await {
            Ok(Some(_)) => {
                let held = Confirmed { generation: memory.generation, mark: memory.mark, czxid: place.czxid };
                self.ledger.confirm_mark(&self.leadership, name, held).await?;
                Ok(Ok(true))
            }
            Ok(None) | Err(ZooKeeperError::BadVersion) => Ok(Ok(false)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn data(&self, generation: u32, mark: i64) -> String {
        StoreNode { generation, store_id: self.ledger.store_id().to_owned(), mark }.to_json()
    }
}

async fn read(session: &Session, path: &str) -> Result<Found, ZooKeeperError> {
    Ok(match session.get_data(path).await? {
        None => Found::Absent,
        Some((data, stat)) => {
            let place = Incarnation { czxid: stat.czxid, version: stat.version };
            match StoreNode::parse(&data) {
                Ok(node) => Found::Node(FoundNode { node, place }),
                Err(reason) => Found::Unreadable { reason, place },
            }
        }
    })
}

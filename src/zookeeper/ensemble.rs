//! An ensemble: one task that keeps a session up, and the watches of those that subscribed.
//!
//! **A connection is a session.** As soon as the client is disconnected, for whatever reason, its
//! session is dropped and a new one is opened. flowkeeper's sessions here own no znodes, so nothing
//! is lost by that, and much is won: opening a session is itself a write that the quorum commits,
//! so the server that confirms it has seen all that was written before, and two sessions in a row
//! never show time going back. The client crate's own re-arming of watches, which does not work for
//! recursive watches and breaks when their paths exceed 128 KiB, is never used. Waiting times, the
//! server list and credentials are ours, anew for each connection.
//!
//! A watch only hints: after each new session a subscriber is armed again and reads everything.
//!
//! A watch that nobody wants any more stays for a while. A trigger that is edited ends, and the one in its
//! place mostly watches the same path a moment later: thousands at once would otherwise have as many
//! watches taken back and set again, which is most of what they wait for until they are armed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use zookeeper_client::{EventType, PersistentWatcher, SessionState, StateWatcher};

use super::connect::{Failure, Life, Pauses, STABLE_AFTER, connect};
use super::error::ZooKeeperError;
use super::mailbox::{Arming, Interest, Mailbox, Touched};
use super::one_shot::Attendance;
use super::session::Session;
use super::settings::{SettingsInUse, SettingsSource};
use crate::clock::{Clock, sleep_until};
use crate::metrics;
use crate::vigil::Vigil;

/// How often an idle session is asked whether it still answers.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a watch stays when nobody wants it any more: longer than an edit of many schedules takes.
const UNWANTED_FOR: Duration = Duration::from_secs(10);

/// How often in a row setting a watch may end the session before it is no longer tried: a server
/// that does not know the request may hang up instead of saying so.
const BROKEN_WATCHES_MAX: u32 = 3;

/// Whether an ensemble can be used, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionStatus {
    /// No session yet.
    Connecting,
    /// There is a session.
    Connected {
        /// Counts the sessions.
        session: u64,
    },
    /// The session is gone, or none could be opened; attempts go on.
    Disconnected {
        /// Since when there is none.
        since: Timestamp,
        /// What the latest attempt said.
        reason: String,
    },
    /// The servers refuse this client, or the settings cannot be used; attempts go on.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A handle on an ensemble. Cheap to clone; the session is closed by `shutdown` of
/// [`Self::start`].
#[derive(Clone)]
pub struct Ensemble(Arc<Inner>);

struct Inner {
    name: Option<Arc<str>>,
    status: watch::Sender<SessionStatus>,
    session: RwLock<Option<Session>>,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
    commands: mpsc::UnboundedSender<Command>,
    vigil: Vigil,
}

/// A path with a watch on it, and those that want to know.
#[derive(Default)]
struct Topic {
    mailboxes: Vec<Arc<Mailbox>>,
    armed: Option<Arming>,
}

enum Command {
    Watch(Arc<str>),
    /// Nobody wants this watch at present.
    Unwanted(Arc<str>),
}

impl std::fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ensemble").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Ensemble {
    /// Starts to connect, and keeps a session up until `shutdown`. Without a name it is the home
    /// ensemble.
    pub fn start(name: Option<Arc<str>>, settings: SettingsSource, clock: Clock, shutdown: CancellationToken) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let ensemble = Self(Arc::new(Inner {
            name,
            status: watch::Sender::new(SessionStatus::Connecting),
            session: RwLock::default(),
            topics: Mutex::default(),
            commands,
            vigil: Vigil::default(),
        }));
        let keeper =
            Keeper { ensemble: ensemble.clone(), settings, clock, sessions: 0, broken_watches: 0, commands: receiver };
        ensemble.0.vigil.clone().spawn(keeper.run(shutdown));
        ensemble
    }

    /// Its name; `None` for the home ensemble.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.0.name.as_ref()
    }

    /// Its name for a person.
    pub fn label(&self) -> &str {
        self.name().map_or("home", |name| name)
    }

    /// Watches over the task behind it: should that panic, nothing here is true any more.
    pub fn vigil(&self) -> Vigil {
        self.0.vigil.clone()
    }

    /// Whether it can be used, now and from now on.
    pub fn status(&self) -> watch::Receiver<SessionStatus> {
        self.0.status.subscribe()
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<Session> {
        self.0.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for hints on `path`, which need not exist, on this session and all later ones.
    pub fn subscribe(&self, path: Arc<str>, interest: Interest) -> Subscription {
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&path), interest));
        let mut topics = self.topics();
        let topic = topics.entry(Arc::clone(&path)).or_default();
        topic.mailboxes.push(Arc::clone(&mailbox));
        match &topic.armed {
            Some(arming) => mailbox.arm(arming.clone()),
            // The keeper is gone only after shutdown, and then there is nothing to watch.
            None if topic.mailboxes.len() == 1 => drop(self.0.commands.send(Command::Watch(Arc::clone(&path)))),
            None => {}
        }
        drop(topics);
        Subscription { ensemble: self.clone(), path, mailbox }
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Topic>> {
        self.0.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a watched path's event on to those that subscribed to the watch.
    fn pass_on(&self, watched: &str, touched: &Arc<str>) {
        if let Some(topic) = self.topics().get(watched) {
            for mailbox in &topic.mailboxes {
                mailbox.offer(touched);
            }
        }
    }

    fn arm(&self, watched: &str, arming: &Arming) {
        if let Some(topic) = self.topics().get_mut(watched) {
            topic.armed = Some(arming.clone());
            for mailbox in &topic.mailboxes {
                mailbox.arm(arming.clone());
            }
        }
    }

    /// The paths on which a watch is wanted; the others are forgotten.
    fn wanted(&self) -> Vec<Arc<str>> {
        let mut topics = self.topics();
        topics.retain(|_, topic| !topic.mailboxes.is_empty());
        topics.keys().cloned().collect()
    }

    /// Forgets a path if nobody wants a watch on it; whether that is so.
    fn forget_unwanted(&self, path: &str) -> bool {
        let mut topics = self.topics();
        let is_unwanted = topics.get(path).is_none_or(|topic| topic.mailboxes.is_empty());
        if is_unwanted {
            topics.remove(path);
        }
        is_unwanted
    }

    fn disarm_all(&self) {
        for topic in self.topics().values_mut() {
            topic.armed = None;
            for mailbox in &topic.mailboxes {
                mailbox.disarm();
            }
        }
    }
}

/// A standing wish for hints on a path; ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    ensemble: Ensemble,
    path: Arc<str>,
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    /// How hints come at present; `None` while there is no session.
    pub fn arming(&self) -> Option<Arming> {
        self.mailbox.arming()
    }

    /// Takes up to `limit` hints, oldest first.
    pub fn take(&self, limit: usize) -> Touched {
        self.mailbox.take(limit)
    }

    /// Waits until the arming or the hints may have changed. Cancel-safe.
    pub async fn changed(&self) {
        self.mailbox.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut topics = self.ensemble.topics();
        let Some(topic) = topics.get_mut(&self.path) else { return };
        topic.mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
        if topic.mailboxes.is_empty() {
            drop(self.ensemble.0.commands.send(Command::Unwanted(Arc::clone(&self.path))));
        }
    }
}

/// The task behind an ensemble.
struct Keeper {
    ensemble: Ensemble,
    settings: SettingsSource,
    clock: Clock,
    sessions: u64,
    broken_watches: u32,
    commands: mpsc::UnboundedReceiver<Command>,
}

type Watching = BoxFuture<'static, (Arc<str>, Result<PersistentWatcher, ZooKeeperError>)>;

/// What ended, or moved on, a session.
enum SessionEvent {
    Command(Option<Command>),
    /// The oldest of the unwanted watches has stayed long enough.
    Outstayed,
    Watched(Arc<str>, Result<PersistentWatcher, ZooKeeperError>),
    Lost(String),
    Probe,
    Probed(Result<(), ZooKeeperError>),
    Shutdown,
}

impl Keeper {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut pauses = Pauses::new();
        while !shutdown.is_cancelled() {
            let failure = tokio::select! {
                () = shutdown.cancelled() => return,
                session = self.open() => match session {
                    Ok((session, client_state, mut settings)) => {
                        let opened = Instant::now();
                        let reason = tokio::select! {
                            reason = self.serve(&session, client_state, &shutdown) => reason,
                            () = settings.outdated() => Some("the settings have changed".to_owned()),
                        };
                        self.end(&session);
                        // Should it be watched under other settings from now on, others tell whether it is connected.
                        let Some(reason) = reason else { return };
                        metrics::zookeeper_connected(self.ensemble.label(), false);
                        warn!(ensemble = self.ensemble.label(), reason, "lost the session with ZooKeeper, opening another");
                        if opened.elapsed() >= STABLE_AFTER {
                            pauses = Pauses::new();
                            self.report(&Failure::lost(reason));
                            continue;
                        }
                        Failure::lost(reason)
                    }
                    Err(failure) => failure,
                },
            };
            self.report(&failure);
            let pause = pauses.next();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Opens a session and makes sure that its server is not behind.
    async fn open(&mut self) -> Result<(Session, StateWatcher, SettingsInUse), Failure> {
        let opened = connect(&self.settings, Life::Connection, true).await?;
        let (state, in_use) = (opened.client.state_watcher(), opened.settings.clone());
        self.sessions += 1;
        let session = opened.into_session(self.sessions, Attendance::default());
        match session.sync().await {
            Ok(()) => Ok((session, state, in_use)),
            Err(error) => {
                session.close();
                Err(Failure::lost(format!("its first request failed: {error}")))
            }
        }
    }

    /// Serves subscriptions until the session ends; `None` at shutdown.
    async fn serve(
        &mut self,
        session: &Session,
        mut state: StateWatcher,
        shutdown: &CancellationToken,
    ) -> Option<String> {
        let (lost, mut losses) = mpsc::unbounded_channel();
        let mut forwarders = JoinSet::new();
        let mut forwarding: HashMap<Arc<str>, tokio::task::AbortHandle> = HashMap::new();
        let mut watching: FuturesUnordered<Watching> = FuturesUnordered::new();
        let mut probing: FuturesUnordered<BoxFuture<'static, Result<(), ZooKeeperError>>> = FuturesUnordered::new();
        let mut probe = tokio::time::interval_at(Instant::now() + PROBE_INTERVAL, PROBE_INTERVAL);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

        let mut unwanted: VecDeque<(Instant, Arc<str>)> = VecDeque::new();

        *self.ensemble.0.session.write().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        for path in self.ensemble.wanted() {
            self.watch(session, path, &watching);
        }
        self.ensemble.0.status.send_replace(SessionStatus::Connected { session: session.number() });
        metrics::zookeeper_session(self.ensemble.label());
        metrics::zookeeper_connected(self.ensemble.label(), true);
        info!(
            ensemble = self.ensemble.label(),
            session = session.number(),
            watches = watching.len(),
            "opened a session with ZooKeeper"
        );

        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => SessionEvent::Shutdown,
                Some(reason) = losses.recv() => SessionEvent::Lost(reason),
                () = session.given_up() => SessionEvent::Lost("a request was not answered".to_owned()),
                state = state.changed() => SessionEvent::Lost(format!("the client is {state}")),
                Some((path, result)) = watching.next() => SessionEvent::Watched(path, result),
                command = self.commands.recv() => SessionEvent::Command(command),
                Some(result) = probing.next() => SessionEvent::Probed(result),
                () = sleep_until(unwanted.front().map(|(until, _)| *until)) => SessionEvent::Outstayed,
                _ = probe.tick() => SessionEvent::Probe,
            };
            match event {
                SessionEvent::Shutdown | SessionEvent::Command(None) => return None,
                SessionEvent::Lost(reason) => return Some(reason),
                SessionEvent::Command(Some(Command::Watch(path))) => self.watch(session, path, &watching),
                SessionEvent::Command(Some(Command::Unwanted(path))) => {
                    unwanted.push_back((Instant::now() + UNWANTED_FOR, path));
                }
                SessionEvent::Outstayed => {
                    // Somebody may have subscribed again since.
                    if let Some((_, path)) = unwanted.pop_front()
                        && self.ensemble.forget_unwanted(&path)
                        && let Some(forwarder) = forwarding.remove(&path)
                    {
                        forwarder.abort();
                    }
                }
                SessionEvent::Watched(path, Ok(watcher)) => {
                    self.broken_watches = 0;
                    let forwarder =
                        forward(self.ensemble.clone(), session.clone(), Arc::clone(&path), watcher, lost.clone());
                    if let Some(old) = forwarding.insert(Arc::clone(&path), forwarders.spawn(forwarder)) {
                        old.abort();
                    }
                    self.ensemble.arm(&path, &Arming { session: session.clone(), watched: true });
                }
                SessionEvent::Watched(path, Err(error)) if !error.ends_session() => {
                    self.poll_instead(session, &path, &error);
                }
                SessionEvent::Watched(_, Err(error)) => {
                    self.broken_watches = self.broken_watches.saturating_add(1);
                    return Some(format!("setting a watch failed: {error}"));
                }
                SessionEvent::Probe if probing.is_empty() => {
                    let answer = session.stat("/");
                    probing.push(Box::pin(async move { answer.await.map(|_| ()) }));
                }
                SessionEvent::Probed(Err(error)) if error.ends_session() => return Some(error.to_string()),
                SessionEvent::Probe | SessionEvent::Probed(_) => {}
            }
        }
    }

    fn watch(&self, session: &Session, path: Arc<str>, watching: &FuturesUnordered<Watching>) {
        if self.broken_watches >= BROKEN_WATCHES_MAX {
            self.poll_instead(session, &path, &ZooKeeperError::Unsupported);
            return;
        }
        let watcher = session.watch(&path);
        watching.push(Box::pin(async move { (path, watcher.await) }));
    }

    /// Arms a path without a watch.
    fn poll_instead(&self, session: &Session, path: &str, error: &ZooKeeperError) {
        // A refused path is one path; old servers are all of them, and are said once.
        let first = self.ensemble.topics().values().all(|topic| topic.armed.is_none());
        if first || *error != ZooKeeperError::Unsupported {
            warn!(
                ensemble = self.ensemble.label(),
                path,
                reason = %error,
                "ZooKeeper sets no recursive watch (servers before 3.6 do not know it), so flowkeeper looks every second"
            );
        }
        self.ensemble.arm(path, &Arming { session: session.clone(), watched: false });
    }

    fn end(&self, session: &Session) {
        *self.ensemble.0.session.write().unwrap_or_else(PoisonError::into_inner) = None;
        session.close();
        self.ensemble.disarm_all();
    }

    /// Tells the status, and the log when it is news.
    fn report(&self, failure: &Failure) {
        let status = match failure {
            Failure::Refused { reason, .. } => SessionStatus::Refused { reason: reason.clone() },
            Failure::Unreachable { .. } | Failure::Expired => {
                let reason = failure.to_string();
                let since = match &*self.ensemble.0.status.borrow() {
                    SessionStatus::Disconnected { since, .. } => *since,
                    _ => self.clock.now(),
                };
                SessionStatus::Disconnected { since, reason }
            }
        };
        let previous = self.ensemble.0.status.send_replace(status.clone());
        let (label, hint) = (self.ensemble.label(), failure.hint());
        match (&previous, &status) {
            (SessionStatus::Refused { reason: before }, SessionStatus::Refused { reason }) if before == reason => {}
            (_, SessionStatus::Refused { reason }) => {
                warn!(ensemble = label, reason, hint, "ZooKeeper cannot be used, trying again every few seconds");
            }
            (SessionStatus::Connecting | SessionStatus::Refused { .. }, SessionStatus::Disconnected { reason, .. }) => {
                warn!(ensemble = label, reason, hint, "ZooKeeper cannot be reached, trying again every few seconds");
            }
            (_, status) => debug!(ensemble = label, ?status, "no session with ZooKeeper yet"),
        }
    }
}

/// Passes the events of one watch on, until the session ends. Ends at the first word of a
/// disconnection, since the client's watcher must not be asked again after a terminal event.
async fn forward(
    ensemble: Ensemble,
    session: Session,
    watched: Arc<str>,
    mut events: PersistentWatcher,
    lost: mpsc::UnboundedSender<String>,
) {
    loop {
        let event = events.changed().await;
        if event.event_type != EventType::Session {
            if let Some(path) = session.relative(&event.path) {
                ensemble.pass_on(&watched, &path.into());
            }
        } else if event.session_state != SessionState::SyncConnected {
            // The receiver is gone only when the session is already given up.
            drop(lost.send(format!("the client is {}", event.session_state)));
            return;
        }
    }
}

//! A session that lives across connections, for those who own ephemeral znodes.
//!
//! A short cut of the network must not cost a member its place in the queue, so a new connection
//! goes on with the session of the one before, for as long as the servers know it: after an outage
//! of the whole ensemble they may do so long beyond the timeout. When they have ended it, the next
//! connection begins a new session and says so.
//!
//! The client crate would reconnect by itself. It is not let: its pauses double until they exceed
//! what is left of the session, it keeps the list of servers and the credentials of the start, and
//! it sends requests whose callers gave up long ago. Its task is ended with the connection instead,
//! and with it everything that was not sent. What was sent has taken effect or never will once the
//! next connection has synced: the servers refuse what reaches them over a connection that the
//! session has left.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use spawns_core::{Spawn, Task};
use tokio::task::AbortHandle;
use zookeeper_client::{SessionInfo, SessionState, StateWatcher};

use super::connect::{Failure, Life, connect};
use super::one_shot::Attendance;
use super::session::Session;
use super::settings::{SettingsInUse, SettingsSource};

/// How long the servers may take to confirm that a session is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many attempts are made to save a session before one of them is explained. With the pauses
/// between them they take longer than most sessions live.
const HASTY_ATTEMPTS: u32 = 20;

/// Opens connections of one session after another.
pub(super) struct LastingSession {
    settings: SettingsSource,
    held: Option<SessionInfo>,
    connections: u64,
    /// The session that is held was begun by a connection that nobody was given.
    unannounced: bool,
    /// Attempts in a row that failed.
    failures: u32,
}

/// One connection of a session that may have had others. Dropped, the session goes on.
pub(super) struct Connection {
    /// The way to send requests.
    pub(super) session: Session,
    /// No connection of this session was handed out before: it owns no znodes yet, and those of the one before
    /// may still be there.
    pub(super) begins: bool,
    /// After this time without a word the servers end the session.
    pub(super) timeout: Duration,
    /// What the connection was opened with.
    pub(super) settings: SettingsInUse,
    state: StateWatcher,
    _tasks: Tasks,
}

impl LastingSession {
    pub(super) fn new(settings: SettingsSource) -> Self {
        Self { settings, held: None, connections: 0, unannounced: false, failures: 0 }
    }

    /// Tries to connect, once. What is read through the connection is never older than what was
    /// read before.
    pub(super) async fn connect(&mut self) -> Result<Connection, Failure> {
        let tasks = Tasks::default();
        // While there is a session to save, the next attempt is worth more than an explanation.
        let patient = self.held.is_none() || self.failures >= HASTY_ATTEMPTS;
        let opening = connect(&self.settings, Life::Lasting(self.held.clone()), patient);
        let opened = match tasks.scope(opening).await {
            Ok(opened) => opened,
            Err(failure) => {
                if matches!(failure, Failure::Expired) {
                    self.held = None;
                }
                self.failures = self.failures.saturating_add(1);
                return Err(failure);
            }
        };
        self.failures = 0;
        let info = opened.client.session().clone();
        // Some servers begin a new session where the old one is over, without a word.
        self.unannounced |= self.held.as_ref().is_none_or(|held| held.id() != info.id());
        self.held = Some(info);
        self.connections += 1;
        let (timeout, state) = (opened.client.session_timeout(), opened.client.state_watcher());
        tasks.end_with(state.clone());
        let settings = opened.settings.clone();
        let session = opened.into_session(self.connections, tasks.attendance.clone());
        session.sync().await.map_err(|error| Failure::lost(format!("its first request failed: {error}")))?;
        let begins = std::mem::take(&mut self.unannounced);
        Ok(Connection { session, begins, timeout, settings, state, _tasks: tasks })
    }
}

impl Connection {
    /// Waits for the end of the connection, and tells the reason.
    pub(super) async fn lost(&mut self) -> String {
        tokio::select! {
            biased;
            state = self.state.changed() => format!("the client is {state}"),
            () = self.session.given_up() => "a request was not answered".to_owned(),
        }
    }

    /// Ends the session; whether the servers confirmed in time that its ephemeral znodes are gone.
    pub(super) async fn close(mut self) -> bool {
        self.session.close();
        matches!(tokio::time::timeout(CLOSE_TIMEOUT, self.state.changed()).await, Ok(SessionState::Closed))
    }
}

/// The client crate's tasks of one connection. They end with the connection, or when this is dropped.
#[derive(Default)]
struct Tasks {
    handles: Mutex<Vec<AbortHandle>>,
    state: Arc<OnceLock<StateWatcher>>,
    attendance: Attendance,
}

/// A task of the client crate. Whoever waits for its watches hears before it goes, whoever drops it.
struct Attended {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    attendance: Attendance,
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.attendance.end();
    }
}

impl Tasks {
    /// Runs a future whose tasks are to be these.
    async fn scope<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| -> Poll<T> {
            let _scope = spawns_core::enter(self);
            future.as_mut().poll(context)
        })
        .await
    }

    /// Ends them as soon as this state is another one than connected.
    fn end_with(&self, state: StateWatcher) {
        drop(self.state.set(state));
    }
}

impl Spawn for Tasks {
    fn spawn(&self, task: Task) {
        let mut attended = Attended { task: Box::into_pin(task.future), attendance: self.attendance.clone() };
        let state = Arc::clone(&self.state);
        let until_disconnected = std::future::poll_fn(move |context| match attended.task.as_mut().poll(context) {
            // It has begun to connect again. Nothing may be sent that way: the servers would give the
            // session to it, and end the connection that is to follow.
            Poll::Pending if state.get().is_some_and(|state| state.peek_state() != SessionState::SyncConnected) => {
                Poll::Ready(())
            }
            polled => polled,
        });
        let handle = tokio::spawn(until_disconnected);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).push(handle.abort_handle());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.handles.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

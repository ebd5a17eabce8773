//! One-shot watches on a connection whose end may come before their event.
//!
//! A watch that never fires belongs to the client crate's task of its connection, and goes with it. The
//! crate tells those who wait when a session ends; of a task that was dropped before it could, it makes a
//! panic in whoever waits. A lasting session drops that task at every disconnection (`lasting`), so nobody
//! waits for the crate's watcher but through a [`OneShot`], which does not ask it once the task is gone.

use std::sync::{Arc, PoisonError, RwLock};

use zookeeper_client::OneshotWatcher;

/// Whether the client crate's task behind a connection is still there to tell of events. Cheap to clone;
/// all clones are of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Attendance {
    is_over: Arc<RwLock<bool>>,
}

impl Attendance {
    /// The task is about to be dropped. Returns when nobody is asking a watcher, and nobody does any more.
    pub(super) fn end(&self) {
        *self.is_over.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// A watch that tells once.
pub(super) struct OneShot {
    watcher: OneshotWatcher,
    attendance: Attendance,
}

impl OneShot {
    /// `attendance` is that of the connection on which the watch was set.
    pub(super) fn new(watcher: OneshotWatcher, attendance: Attendance) -> Self {
        Self { watcher, attendance }
    }

    /// Waits for the event; the end of the connection is one as well.
    pub(super) async fn changed(self) {
        let Self { watcher, attendance } = self;
        let mut event = std::pin::pin!(watcher.changed());
        std::future::poll_fn(|context| {
            // Held while the watcher is asked, so that its task is not dropped between the two.
            let is_over = attendance.is_over.read().unwrap_or_else(PoisonError::into_inner);
            if *is_over { std::task::Poll::Ready(()) } else { event.as_mut().poll(context).map(drop) }
        })
        .await;
    }
}

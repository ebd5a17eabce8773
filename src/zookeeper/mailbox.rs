//! What one subscriber has been told by its watch and has not looked at yet.
//!
//! A mailbox holds paths, not events: however often a znode changes before its subscriber reads
//! it, there is one entry, because reading it once shows it all. That bounds the memory which a
//! burst can take; beyond [`CAPACITY`] paths the subscriber is told to look at everything.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::session::Session;

/// How many different paths a mailbox holds before it gives up on naming them.
const CAPACITY: usize = 100_000;

/// Which events of a recursive watch on a path a subscriber wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Those of the path itself.
    Node,
    /// Those of the path and its direct children.
    Children,
    /// Those of the path and everything below it.
    Subtree,
}

impl Interest {
    /// Whether `touched`, which is `path` or below it, is of interest.
    fn covers(self, path: &str, touched: &str) -> bool {
        match self {
            Self::Subtree => true,
            Self::Node => touched.len() == path.len(),
            Self::Children => {
                let prefix = if path == "/" { 0 } else { path.len() };
                touched.len() <= prefix + 1 || !touched[prefix + 1..].contains('/')
            }
        }
    }
}

/// How a subscriber learns of changes on the present session.
#[derive(Debug, Clone)]
pub struct Arming {
    /// The session; whatever was read on an earlier one has to be read again.
    pub session: Session,
    /// `false` when the servers know no such watch, and looking again is the only way.
    pub watched: bool,
}

/// What was touched since the last time that the mailbox was emptied.
#[derive(Debug, Default)]
pub struct Touched {
    /// Read these.
    pub paths: Vec<Arc<str>>,
    /// So many were touched that not all are named: look at everything.
    pub overflowed: bool,
}

#[derive(Debug, Default)]
struct State {
    arming: Option<Arming>,
    queue: VecDeque<Arc<str>>,
    queued: HashSet<Arc<str>>,
    overflowed: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    path: Arc<str>,
    interest: Interest,
    state: Mutex<State>,
    wake: Notify,
}

impl Mailbox {
    pub(super) fn new(path: Arc<str>, interest: Interest) -> Self {
        Self { path, interest, state: Mutex::default(), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch is set (or will never be) on this session.
    pub(super) fn arm(&self, arming: Arming) {
        self.state().arming = Some(arming);
        self.wake.notify_one();
    }

    /// The session is gone, and with it the meaning of what was touched.
    pub(super) fn disarm(&self) {
        *self.state() = State::default();
        self.wake.notify_one();
    }

    /// Something happened to `touched`.
    pub(super) fn offer(&self, touched: &Arc<str>) {
        if !self.interest.covers(&self.path, touched) {
            return;
        }
        let mut state = self.state();
        if state.overflowed || !state.queued.insert(Arc::clone(touched)) {
            return;
        }
        if state.queued.len() > CAPACITY {
            state.queued.clear();
            state.queue.clear();
            state.overflowed = true;
        } else {
            state.queue.push_back(Arc::clone(touched));
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn arming(&self) -> Option<Arming> {
        self.state().arming.clone()
    }

    /// Takes up to `limit` paths, oldest first.
    pub(super) fn take(&self, limit: usize) -> Touched {
        let mut state = self.state();
        let count = limit.min(state.queue.len());
        let paths: Vec<_> = state.queue.drain(..count).collect();
        for path in &paths {
            state.queued.remove(path);
        }
        Touched { paths, overflowed: std::mem::take(&mut state.overflowed) }
    }

    /// Waits until something may have changed since the last call. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interest_is_a_matter_of_depth() {
        let cases = [
            (Interest::Node, "/a", "/a", true),
            (Interest::Node, "/a", "/a/b", false),
            (Interest::Node, "/", "/a", false),
            (Interest::Node, "/", "/", true),
            (Interest::Children, "/a", "/a", true),
            (Interest::Children, "/a", "/a/b", true),
            (Interest::Children, "/a", "/a/b/c", false),
            (Interest::Children, "/", "/", true),
            (Interest::Children, "/", "/b", true),
            (Interest::Children, "/", "/b/c", false),
            (Interest::Subtree, "/a", "/a/b/c", true),
        ];
        for (interest, path, touched, expected) in cases {
            assert_eq!(interest.covers(path, touched), expected, "{interest:?} on {path}: {touched}");
        }
    }

    #[test]
    fn a_path_waits_once_however_often_it_changes() {
        let mailbox = Mailbox::new("/a".into(), Interest::Subtree);
        for path in ["/a/1", "/a/2", "/a/1"] {
            mailbox.offer(&path.into());
        }
        let touched = mailbox.take(1);
        assert_eq!(touched.paths, ["/a/1".into()]);
        // It was taken, so a change from here on is news.
        mailbox.offer(&"/a/1".into());
        assert_eq!(mailbox.take(10).paths, ["/a/2".into(), "/a/1".into()]);
        assert!(mailbox.take(10).paths.is_empty());
    }

    #[test]
    fn a_flood_turns_into_a_look_at_everything() {
        let mailbox = Mailbox::new("/a".into(), Interest::Subtree);
        for number in 0..=CAPACITY {
            mailbox.offer(&format!("/a/{number}").into());
        }
        let touched = mailbox.take(10);
        assert!(touched.overflowed && touched.paths.is_empty());
        mailbox.offer(&"/a/b".into());
        assert_eq!(mailbox.take(10).paths.len(), 1);
    }
}

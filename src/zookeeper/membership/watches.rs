//! The watches of one connection: one-shot ones, at most one on a path.
//!
//! ZooKeeper 3.8.0 keeps one kind of watch for a path and session, and servers before 3.6 know no
//! other kind than this. A watch only hints, and what is watched is looked at once a second besides.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::zookeeper::one_shot::OneShot;

/// Watches that have not fired. Dropped, they are taken back from the servers.
pub(super) struct Watches {
    set: HashMap<String, AbortOnDropHandle<()>>,
    fired: mpsc::UnboundedSender<String>,
    firings: mpsc::UnboundedReceiver<String>,
}

impl Watches {
    pub(super) fn new() -> Self {
        let (fired, firings) = mpsc::unbounded_channel();
        Self { set: HashMap::new(), fired, firings }
    }

    /// Whether a watch on this path may still fire, or has fired unheard.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.set.contains_key(path)
    }

    /// Listens to a watch on this path.
    pub(super) fn listen(&mut self, path: String, watcher: OneShot) {
        let (fired, touched) = (self.fired.clone(), path.clone());
        let listening = tokio::spawn(async move {
            watcher.changed().await;
            // The receiver is gone only when the connection is, and this task with it.
            drop(fired.send(touched));
        });
        self.set.insert(path, AbortOnDropHandle::new(listening));
    }

    /// Gives up all watches but those on these paths.
    pub(super) fn keep_only(&mut self, paths: &[&str]) {
        self.set.retain(|path, _| paths.contains(&path.as_str()));
    }

    /// Waits until a watch fires. Cancel-safe.
    pub(super) async fn fired(&mut self) {
        // This end holds a sender, so the channel does not close.
        if let Some(path) = self.firings.recv().await {
            self.set.remove(&path);
        }
    }
}

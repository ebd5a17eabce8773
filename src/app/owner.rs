//! Whose root it is: the store that the znode `store` names, read whenever it may have changed.
//!
//! [`super::join`] decides what follows from it; whether the ledger and the ensemble are of one history
//! is for [`crate::triggers::lineage`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::lineage::StoreNode;
use crate::zookeeper::{Ensemble, Interest};

/// How often it is read although nothing hinted at a change.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What is known of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// It was not read yet.
    Unread,
    /// The znode is not there, may not be read, or holds nothing of flowkeeper's.
    Nobody,
    /// The identity of the store.
    Store(String),
}

/// Reads until the process ends, which ends this task.
pub(super) async fn follow(ensemble: Ensemble, path: Arc<str>, owner: watch::Sender<Owner>) {
    let hints = ensemble.subscribe(Arc::clone(&path), Interest::Node);
    let mut status = ensemble.status();
    loop {
        status.mark_unchanged();
        hints.take(usize::MAX);
        if let Some(session) = ensemble.session() {
            let read = match session.get_data(&path).await {
                Ok(Some((data, _))) => {
                    StoreNode::parse(&data).map_or(Owner::Nobody, |node| Owner::Store(node.store_id))
                }
                Ok(None) => Owner::Nobody,
                // The next session tells; until then what was read last holds.
                Err(error) if error.ends_session() => {
                    session.give_up();
                    owner.borrow().clone()
                }
                Err(error) => {
                    tracing::debug!(%path, %error, "it cannot be read whose root this is");
                    Owner::Nobody
                }
            };
            owner.send_if_modified(|known| {
                let changed = *known != read;
                *known = read;
                changed
            });
        }
        tokio::select! {
            // The sender lives as long as the ensemble, which lives as long as we hold it.
            _ = status.changed() => {}
            () = hints.changed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

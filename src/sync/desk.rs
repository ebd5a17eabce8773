//! Where operators hand in what a sync is to do now. A sync does one thing at a time, so it alone compares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::pass::Options;
use super::report::PassReport;

/// How many orders may wait for a sync.
const ORDERS: usize = 16;

/// What somebody wants a sync to do.
pub(super) struct Order {
    pub(super) options: Options,
    pub(super) reply: oneshot::Sender<PassReport>,
}

/// Nobody hears an order: the sync does not run here, or it ended meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unheard;

/// The desks of the syncs that run in this process, by name. Cheap to clone; lives as long as the process.
#[derive(Clone, Default)]
pub struct Desks(Arc<Mutex<HashMap<Arc<str>, mpsc::Sender<Order>>>>);

impl Desks {
    /// Has a sync compare now, and waits for what came of it.
    pub async fn ask(&self, sync: &str, options: Options) -> Result<PassReport, Unheard> {
        let desk = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(sync).cloned().ok_or(Unheard)?;
        let (reply, answer) = oneshot::channel();
        desk.send(Order { options, reply }).await.map_err(|_| Unheard)?;
        answer.await.map_err(|_| Unheard)
    }

    /// Opens the desk of a sync, in place of an earlier one.
    pub(super) fn open(&self, sync: &Arc<str>) -> Desk {
        let (sender, orders) = mpsc::channel(ORDERS);
        let own = sender.downgrade();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(sync), sender);
        Desk { desks: self.clone(), sync: Arc::clone(sync), own, orders }
    }
}

/// An open desk; closed when it is dropped.
pub(super) struct Desk {
    desks: Desks,
    sync: Arc<str>,
    own: mpsc::WeakSender<Order>,
    pub(super) orders: mpsc::Receiver<Order>,
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut desks = self.desks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |sender: &mpsc::Sender<Order>| self.own.upgrade().is_some_and(|own| own.same_channel(sender));
        if desks.get(&self.sync).is_some_and(is_own) {
            desks.remove(&self.sync);
        }
    }
}

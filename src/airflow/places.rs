//! Places in the pace of an Airflow for requests that are no submissions.
//!
//! An Airflow bears only so many writing requests at once: on SQLite one, and a second that overlaps stops
//! its whole API server for five seconds. How many it bears the submitter knows, so whoever else writes
//! much asks it for a place first, and is given one when no run would take it.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where places are asked for. Cheap to clone.
#[derive(Clone)]
pub struct Places(mpsc::UnboundedSender<Ask>);

/// Somebody asks for a place, and waits.
pub struct Ask {
    /// The name of the Airflow.
    pub airflow: Arc<str>,
    /// Since when they wait.
    pub since: Instant,
    reply: oneshot::Sender<Place>,
}

/// A place; free when it is dropped.
#[must_use]
pub struct Place {
    _over: DropGuard,
}

/// Where places are asked for, and where whoever gives them hears of it.
pub fn open() -> (Places, mpsc::UnboundedReceiver<Ask>) {
    let (sender, asks) = mpsc::unbounded_channel();
    (Places(sender), asks)
}

impl Places {
    /// Waits for a place in the pace of an Airflow, for one request. `None` when nobody gives any more.
    pub async fn take(&self, airflow: &Arc<str>) -> Option<Place> {
        let (reply, place) = oneshot::channel();
        self.0.send(Ask { airflow: Arc::clone(airflow), since: Instant::now(), reply }).ok()?;
        place.await.ok()
    }
}

impl Ask {
    /// Gives a place; what is returned is cancelled when it is free. `None` when nobody waits any more.
    pub fn grant(self) -> Option<CancellationToken> {
        let over = CancellationToken::new();
        self.reply.send(Place { _over: over.clone().drop_guard() }).ok()?;
        Some(over)
    }
}

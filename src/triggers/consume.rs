//! Consuming: deletes the children whose runs got far enough.
//!
//! What is owed is in the ledger, so a crash or a lost answer costs nothing: it is looked up again,
//! and the child's stat tells what became of it. A child is deleted in the version that was just
//! read, and only if it is the incarnation that the run is for.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::lineage::{Lineage, Standing};
use crate::domain::run::RunId;
use crate::store::model::{ConsumeDue, LedgerEvent};
use crate::store::{Leadership, Ledger, StoreError};
use crate::zookeeper::{Ensemble, Session, SessionStatus, ZooKeeperError};

/// How many children are read and deleted at once.
const PIPELINE: usize = 256;

/// How long news from the ledger is gathered before it is looked up.
const GATHER: Duration = Duration::from_millis(20);

/// When to look again at what could not be deleted, and at what news may have been missed about.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// How often a child that is set just when it is deleted is tried before it waits for the next look.
const VERSION_TRIES: u32 = 5;

/// What became of a child.
enum Outcome {
    /// Nothing is owed any more.
    Settled(&'static str),
    /// It is still owed, since the servers refused.
    Refused(ZooKeeperError),
    /// The session broke.
    Unknown,
}

/// Deletes what is due in `ensemble`, until `shutdown` or until the lead is lost. While the ensemble is
/// not known to have the ledger's history, nothing is deleted.
pub async fn run(
    ensemble: Ensemble,
    lineage: Lineage,
    ledger: Ledger,
    leadership: Leadership,
    shutdown: CancellationToken,
) {
    let consumer = Consumer { ensemble, lineage, ledger, leadership };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = consumer.leadership.lost().cancelled() => {}
        result = consumer.run() => match result {
            Ok(()) | Err(StoreError::Fenced { .. } | StoreError::Closed) => {}
            Err(failure) => error!(
                ensemble = consumer.ensemble.label(),
                hint = failure.hint().unwrap_or_default(),
                "failed to {failure}; consumed children are no longer deleted"
            ),
        },
    }
}

struct Consumer {
    ensemble: Ensemble,
    lineage: Lineage,
    ledger: Ledger,
    leadership: Leadership,
}

impl Consumer {
    async fn run(&self) -> Result<(), StoreError> {
        let mut news = self.ledger.subscribe();
        let mut status = self.ensemble.status();
        let mut standing = self.lineage.standing();
        loop {
            status.borrow_and_update();
            standing.borrow_and_update();
            let no_cursor_ends = self.lineage.compare().await;
            if let Some(session) = self.ensemble.session().filter(|session| self.may_delete(session)) {
                match self.delete_due(&session).await {
                    Ok(()) => {}
                    // What is owed stays owed.
                    Err(error) if error.is_transient() => {
                        warn!(
                            ensemble = self.ensemble.label(), %error,
                            "what is to be deleted could not be read or noted, trying again in a minute"
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
            drop(no_cursor_ends);
            loop {
                tokio::select! {
                    event = news.recv() => match event {
                        Ok(event) if !may_owe(&event) => continue,
                        Ok(_) | Err(RecvError::Lagged(_)) => {
                            tokio::time::sleep(GATHER).await;
                            while !matches!(news.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
                        }
                        Err(RecvError::Closed) => return Ok(()),
                    },
                    // The sender lives as long as the ensemble, which lives as long as we hold it.
                    _ = status.changed() => {
                        if !matches!(*status.borrow_and_update(), SessionStatus::Connected { .. }) {
                            continue;
                        }
                    }
                    // Whoever tells it lives as long as the lineage, which lives as long as we hold it.
                    _ = standing.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                break;
            }
        }
    }

    /// Whether a czxid of the ledger means in this session what it meant when it was noted.
    fn may_delete(&self, session: &Session) -> bool {
        matches!(*self.lineage.standing().borrow(), Standing::One { session: cleared, .. } if session.number() <= cleared)
    }

    /// Deletes page after page. What the servers refuse is passed over, so that nothing waits behind it.
    async fn delete_due(&self, session: &Session) -> Result<(), StoreError> {
        let name = self.ensemble.name().map(|name| &**name);
        let mut after = RunId(0);
        loop {
            let due = self.ledger.consume_due(name, after).await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = last.run;
            let (settled, broken) = self.delete(session, due).await;
            if !settled.is_empty() {
                self.ledger.consumes_settled(&self.leadership, &settled).await?;
            }
            if broken || self.leadership.lost().is_cancelled() || !self.may_delete(session) {
                return Ok(());
            }
        }
    }

    async fn delete(&self, session: &Session, due: Vec<ConsumeDue>) -> (Vec<(RunId, &'static str)>, bool) {
        let mut settled = Vec::with_capacity(due.len());
        let mut refused = 0_usize;
        let mut due = due.into_iter();
        let mut deletions = FuturesUnordered::new();
        loop {
            while deletions.len() < PIPELINE
                && !self.leadership.lost().is_cancelled()
                && self.may_delete(session)
                && let Some(due) = due.next()
            {
                let session = session.clone();
                deletions.push(async move {
                    let outcome = delete_one(&session, &due).await;
                    (due, outcome)
                });
            }
            match deletions.next().await {
                None => break,
                Some((due, Outcome::Settled(note))) => {
                    debug!(run.id = %due.run, schedule = %due.schedule, path = due.work.path, note, "consumed");
                    settled.push((due.run, note));
                }
                Some((due, Outcome::Refused(error))) => {
                    if refused == 0 {
                        warn!(
                            run.id = %due.run, schedule = %due.schedule, path = due.work.path, reason = %error,
                            "failed to delete a consumed child, trying again in a minute"
                        );
                    }
                    refused += 1;
                }
                Some((_, Outcome::Unknown)) => {
                    // The next session reads again what came of those under way.
                    session.give_up();
                    return (settled, true);
                }
            }
        }
        (settled, false)
    }
}

/// Whether an event may be news of a consume.
fn may_owe(event: &LedgerEvent) -> bool {
    event.state.was_accepted()
}

async fn delete_one(session: &Session, due: &ConsumeDue) -> Outcome {
    for _ in 0..VERSION_TRIES {
        let stat = match session.stat(&due.work.path).await {
            Ok(Some(stat)) => stat,
            Ok(None) => return Outcome::Settled("it was gone already"),
            Err(error) if error.ends_session() => return Outcome::Unknown,
            Err(error) => return Outcome::Refused(error),
        };
        if stat.czxid != due.work.czxid {
            return Outcome::Settled("it was gone already, and another one has its name");
        }
        match session.delete(&due.work.path, stat.version).await {
            Ok(true) => return Outcome::Settled("deleted"),
            Ok(false) => return Outcome::Settled("it was gone already"),
            // Set since the stat was read; it is still the same child.
            Err(ZooKeeperError::BadVersion) => {}
            Err(error) if error.ends_session() => return Outcome::Unknown,
            Err(error) => return Outcome::Refused(error),
        }
    }
    Outcome::Refused(ZooKeeperError::BadVersion)
}

//! The dispatcher's side of locks: which runs have asked for theirs or hold it.
//!
//! A run asks when nothing but its lock stands in its way, and gives it back when its row is closed and
//! no request for it is on its way. Who gets a lock is decided by ZooKeeper alone, behind the [`Desk`].

use std::collections::HashSet;
use std::sync::Arc;

use crate::domain::run::RunId;
use crate::locks::keeper::Desk;
use crate::store::LockOwner;
use crate::store::model::Ticket;

pub(super) struct Locks {
    desk: Option<Desk>,
    /// Runs that stand in the queue for their lock, or hold it.
    owners: HashSet<RunId>,
    /// Those of an earlier life: they may have been submitted without a trace, so that they keep their
    /// lock through a pause.
    earlier: HashSet<RunId>,
    /// Whether it was said that there is nowhere to ask.
    complained: bool,
}

impl Locks {
    pub(super) fn new(desk: Option<Desk>) -> Self {
        Self { desk, owners: HashSet::new(), earlier: HashSet::new(), complained: false }
    }

    /// Whether there is a home ensemble to ask.
    pub(super) fn are_there(&self) -> bool {
        self.desk.is_some()
    }

    /// Takes over runs that the ledger knows to hold a lock.
    pub(super) fn load(&mut self, owners: Vec<LockOwner>) {
        let Some(desk) = &self.desk else { return };
        for LockOwner { run, lock, asked_at } in owners {
            if self.owners.insert(run) {
                self.earlier.insert(run);
                desk.hold(run, lock, asked_at);
            }
        }
    }

    /// All runs of earlier lives have been loaded.
    pub(super) fn ready(&self) {
        if let Some(desk) = &self.desk {
            desk.ready();
        }
    }

    /// A run asks for its lock.
    pub(super) fn ask(&mut self, ticket: &Ticket) {
        let Some(lock) = &ticket.lock else { return };
        match &mut self.desk {
            Some(desk) => {
                self.owners.insert(ticket.id);
                desk.ask(ticket.id, Arc::clone(lock));
            }
            None if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    run.id = ticket.id.0,
                    schedule = %ticket.schedule,
                    lock = &**lock,
                    "a run owns a lock, and there is no home ensemble any more to ask for it; it stays pending until \
                     [zookeeper] is configured again, or `flowkeeper runs cancel` gives it up"
                );
            }
            None => {}
        }
    }

    /// A run that is in Airflow owns a lock.
    pub(super) fn owns(&mut self, run: RunId, lock: Arc<str>) {
        if let Some(desk) = &self.desk
            && self.owners.insert(run)
        {
            desk.hold(run, lock, None);
        }
    }

    /// These runs do not need their lock, if they have one.
    pub(super) fn give_back(&mut self, runs: impl IntoIterator<Item = RunId>) {
        for run in runs {
            self.earlier.remove(&run);
            if let Some(desk) = self.desk.as_mut().filter(|_| self.owners.remove(&run)) {
                desk.give_back(run);
            }
        }
    }

    /// Every run that stands in a queue or holds a lock.
    pub(super) fn owners(&self) -> Vec<RunId> {
        self.owners.iter().copied().collect()
    }

    /// Those that may have been submitted in an earlier life.
    pub(super) fn earlier(&self) -> &HashSet<RunId> {
        &self.earlier
    }

    /// Waits for the next run that has its lock. Cancel-safe.
    pub(super) async fn granted(&mut self) -> RunId {
        if let Some(desk) = &mut self.desk
            && let Some(run) = desk.granted().await
        {
            return run;
        }
        // Nobody grants any more: the term is over, or there are no locks.
        std::future::pending().await
    }
}

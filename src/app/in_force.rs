//! The set in force: the definitions that this member goes by now, with what they need.
//!
//! Everybody who reads definitions reads them here, so that all change over together. A set is proposed
//! first. Where this member leads, the term puts it in force once the ledger has taken it; a member that
//! stands by goes over at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::resources::Resources;
use crate::config::Config;
use crate::definitions::Set;
use crate::domain::schedule::{Schedule, Trigger, TriggerKind};
use crate::domain::team::Teams;
use crate::health::Inspector;
use crate::metrics;
use crate::operations::{Airflows, Schedules};
use crate::triggers::lineage::Lineages;

/// A set of definitions, and what it needs.
pub(super) struct InForce {
    /// Counts the sets of this process.
    pub(super) number: u64,
    /// With the sections of the main file that the process began with.
    pub(super) config: Arc<Config>,
    pub(super) schedules: Schedules,
    pub(super) resources: Resources,
    /// As it was found.
    pub(super) set: Set,
}

impl InForce {
    /// The schedules with a znode trigger, and the ensemble of each.
    pub(super) fn znode_schedules(&self) -> impl Iterator<Item = (&Arc<Schedule>, &Option<Arc<str>>)> {
        self.schedules.iter().filter_map(|schedule| match &schedule.trigger {
            Trigger::Znode(trigger) => Some((schedule, &trigger.ensemble)),
            Trigger::Cron(_) | Trigger::Ensemble(_) => None,
        })
    }
}

/// The set in force as others read it: each its own piece.
pub(super) struct Board {
    /// The newest that can be taken.
    wanted: watch::Sender<Arc<InForce>>,
    in_force: watch::Sender<Arc<InForce>>,
    since: watch::Sender<Timestamp>,
    /// Whether a term decides what is in force. Held while either changes.
    leading: Mutex<bool>,
    config: watch::Sender<Arc<Config>>,
    inspector: watch::Sender<Arc<Inspector>>,
    schedules: watch::Sender<Schedules>,
    teams: watch::Sender<Teams>,
    airflows: watch::Sender<Airflows>,
    lineages: watch::Sender<Arc<Lineages>>,
}

impl Board {
    pub(super) fn new(in_force: Arc<InForce>, now: Timestamp) -> Self {
        count(&in_force);
        Self {
            wanted: watch::Sender::new(Arc::clone(&in_force)),
            since: watch::Sender::new(now),
            leading: Mutex::default(),
            config: watch::Sender::new(Arc::clone(&in_force.config)),
            inspector: watch::Sender::new(Arc::clone(&in_force.resources.inspector)),
            schedules: watch::Sender::new(Arc::clone(&in_force.schedules)),
            teams: watch::Sender::new(Arc::clone(&in_force.config.teams)),
            airflows: watch::Sender::new(in_force.resources.clients()),
            lineages: watch::Sender::new(in_force.resources.lineages()),
            in_force: watch::Sender::new(in_force),
        }
    }

    /// The set in force now.
    pub(super) fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.borrow())
    }

    /// The set in force, now and from now on.
    pub(super) fn in_force(&self) -> watch::Receiver<Arc<InForce>> {
        self.in_force.subscribe()
    }

    /// Since when it is.
    pub(super) fn since(&self) -> Timestamp {
        *self.since.borrow()
    }

    /// The newest set that can be taken, now and from now on.
    pub(super) fn wanted(&self) -> watch::Receiver<Arc<InForce>> {
        self.wanted.subscribe()
    }

    /// A newer set can be taken.
    pub(super) fn propose(&self, set: &Arc<InForce>, now: Timestamp) {
        let leading = self.leading();
        self.wanted.send_replace(Arc::clone(set));
        if !*leading {
            self.put_in_force(set, now);
        }
    }

    /// From now on a term decides. The set that it begins with, and those that come.
    pub(super) fn term_begins(&self) -> (Arc<InForce>, watch::Receiver<Arc<InForce>>) {
        let mut leading = self.leading();
        *leading = true;
        let mut wanted = self.wanted();
        let set = Arc::clone(&wanted.borrow_and_update());
        (set, wanted)
    }

    /// The term has gone over to a set.
    pub(super) fn taken(&self, set: &Arc<InForce>, now: Timestamp) {
        let leading = self.leading();
        if *leading {
            self.put_in_force(set, now);
        }
    }

    /// No term decides any more: what is wanted is in force.
    pub(super) fn term_ends(&self, now: Timestamp) {
        let mut leading = self.leading();
        if std::mem::take(&mut *leading) {
            let wanted = Arc::clone(&self.wanted.borrow());
            self.put_in_force(&wanted, now);
        }
    }

    fn put_in_force(&self, set: &Arc<InForce>, now: Timestamp) {
        let before = self.now();
        if before.number == set.number {
            return;
        }
        self.since.send_replace(now);
        self.config.send_replace(Arc::clone(&set.config));
        self.inspector.send_replace(Arc::clone(&set.resources.inspector));
        self.teams.send_replace(Arc::clone(&set.config.teams));
        self.schedules.send_replace(Arc::clone(&set.schedules));
        self.airflows.send_replace(set.resources.clients());
        self.lineages.send_replace(set.resources.lineages());
        self.in_force.send_replace(Arc::clone(set));
        count(set);
        let watched = |set: &InForce, name: &Option<Arc<str>>| set.resources.ensembles.contains_key(name);
        for ensemble in before.resources.ensembles.keys().filter(|name| !watched(set, name)).flatten() {
            metrics::ensemble_unwatched(ensemble);
        }
        for airflow in before.config.airflows.keys().filter(|name| !set.config.airflows.contains_key(*name)) {
            metrics::term_ended(airflow);
        }
    }

    fn leading(&self) -> MutexGuard<'_, bool> {
        self.leading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its configuration.
    pub(super) fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// What looks at the health of its ensembles.
    pub(super) fn inspector(&self) -> watch::Receiver<Arc<Inspector>> {
        self.inspector.subscribe()
    }

    /// Its schedules, now and from now on.
    pub(super) fn schedules(&self) -> watch::Receiver<Schedules> {
        self.schedules.subscribe()
    }

    /// Its teams.
    pub(super) fn teams(&self) -> watch::Receiver<Teams> {
        self.teams.subscribe()
    }

    /// The clients of its Airflows.
    pub(super) fn airflows(&self) -> watch::Receiver<Airflows> {
        self.airflows.subscribe()
    }

    /// How the ledger and its ensembles stand to each other.
    pub(super) fn lineages(&self) -> watch::Receiver<Arc<Lineages>> {
        self.lineages.subscribe()
    }
}

fn count(in_force: &InForce) {
    for kind in [TriggerKind::Cron, TriggerKind::Znode, TriggerKind::Ensemble] {
        let count = in_force.schedules.iter().filter(|schedule| schedule.trigger.kind() == kind).count();
        metrics::schedules(kind, count);
    }
}

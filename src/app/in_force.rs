//! The set in force: the definitions that this member goes by now, with what they need.
//!
//! Everybody who reads definitions reads them here, so that all change over together.

use std::sync::Arc;

use tokio::sync::watch;

use super::resources::Resources;
use crate::config::Config;
use crate::domain::schedule::{Schedule, Trigger, TriggerKind};
use crate::domain::team::Teams;
use crate::health::Inspector;
use crate::metrics;
use crate::operations::{Airflows, Schedules};
use crate::triggers::lineage::Lineages;

/// A set of definitions, and what it needs.
pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    pub(super) schedules: Schedules,
    pub(super) resources: Resources,
}

impl InForce {
    pub(super) fn new(config: Arc<Config>, resources: Resources) -> Self {
        Self { schedules: Arc::new(config.schedules.clone()), config, resources }
    }

    /// The schedules with a znode trigger, and the ensemble of each.
    pub(super) fn znode_schedules(&self) -> impl Iterator<Item = (&Arc<Schedule>, &Option<Arc<str>>)> {
        self.schedules.iter().filter_map(|schedule| match &schedule.trigger {
            Trigger::Znode(trigger) => Some((schedule, &trigger.ensemble)),
            Trigger::Cron(_) => None,
        })
    }
}

/// The set in force as others read it: each its own piece.
pub(super) struct Board {
    in_force: watch::Sender<Arc<InForce>>,
    config: watch::Sender<Arc<Config>>,
    inspector: watch::Sender<Arc<Inspector>>,
    schedules: watch::Sender<Schedules>,
    teams: watch::Sender<Teams>,
    airflows: watch::Sender<Airflows>,
    lineages: watch::Sender<Arc<Lineages>>,
}

impl Board {
    pub(super) fn new(in_force: Arc<InForce>) -> Self {
        count(&in_force);
        Self {
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
    for kind in [TriggerKind::Cron, TriggerKind::Znode] {
        let count = in_force.schedules.iter().filter(|schedule| schedule.trigger.kind() == kind).count();
        metrics::schedules(kind, count);
    }
}

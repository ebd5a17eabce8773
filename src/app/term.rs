//! A term: what runs while this member leads, from taking the lead to losing it or giving it up.
//!
//! Each part takes the [`Leadership`] and ends when it is lost. `crew` has the tasks and what follows when
//! one fails, [`super::duties`] which parts there are.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{mpsc, watch};

use super::crew::Crew;
use super::duties;
use super::in_force::InForce;
use super::member::Member;
use super::witness::AirflowClocks;
use crate::chores::Chores;
use crate::dispatcher::{self, Supply, Target};
use crate::domain::policy::{ON_TIME, on_time_after_a_failover};
use crate::domain::schedule::Schedule;
use crate::locks::{self, keeper::Desk};
use crate::metrics;
use crate::publisher;
use crate::store::model::ScheduleStates;
use crate::store::{Leadership, StoreError, TriggerIdentity};
use crate::triggers::cron::{Cron, settle_edited};
use crate::triggers::gate::Gates;
use crate::triggers::gatekeeper::{self, Guarded};

/// The parts of a leader at work.
pub(super) struct Term {
    crew: Crew,
    gates: watch::Sender<Gates>,
    guarded: watch::Sender<Guarded>,
    supply: watch::Sender<Arc<Supply>>,
    /// Counts the full comparisons with Airflow that were asked for.
    reconcile: watch::Sender<u64>,
}

impl Term {
    /// Starts everything that leads. An error leaves nothing running.
    pub(super) async fn begin(member: &Arc<Member>, leadership: Leadership) -> Result<Self, StoreError> {
        let set = member.board.now();
        let term = Self {
            crew: Crew::new(member, leadership),
            gates: watch::Sender::default(),
            guarded: watch::Sender::new(guarded(&set)),
            supply: watch::Sender::new(supply(&set)),
            reconcile: watch::Sender::default(),
        };
        member.status.set_leading(true);
        metrics::leader(true);
        if let Err(error) = term.start(&set).await {
            term.end(Duration::ZERO).await;
            return Err(error);
        }
        Ok(term)
    }

    /// Proof of leading, for as long as the term lasts.
    pub(super) fn leadership(&self) -> &Leadership {
        &self.crew.leadership
    }

    /// Whether it ended since the store failed for the moment, and not for a newer leader.
    pub(super) fn has_faltered(&self) -> bool {
        self.crew.faltered.is_cancelled()
    }

    /// Gives the lead up and waits until the parts have finished what they had begun, but no longer
    /// than `patience`: what is left then can no longer write, and ends by itself.
    pub(super) async fn end(self, patience: Duration) {
        self.resign();
        self.crew.tasks.close();
        if tokio::time::timeout(patience, self.crew.tasks.wait()).await.is_err() && !patience.is_zero() {
            tracing::info!(
                epoch = self.crew.leadership.epoch(),
                "requests of the last term are still under way; whoever leads asks Airflow what became of them"
            );
        }
        // Parts that were ending may have told something meanwhile.
        self.crew.member.status.set_leading(false);
        for airflow in self.crew.member.board.now().config.airflows.keys() {
            metrics::term_ended(airflow);
        }
    }

    /// Gives the lead up, and has every part end.
    fn resign(&self) {
        self.crew.leadership.give_up();
        self.crew.ending.cancel();
        self.crew.member.lead.send_replace(None);
        self.crew.member.status.set_leading(false);
        metrics::leader(false);
    }

    async fn start(&self, set: &InForce) -> Result<(), StoreError> {
        let (member, leadership) = (&self.crew.member, &self.crew.leadership);
        // Before anything starts, the gates must be where they belong: what is paused must not fire.
        let states = member.ledger.schedule_states().await?;
        let now = member.clock.now();
        let first = guarded(set).gates(&states, now);
        let identities: Vec<_> = set.schedules.iter().map(identity).collect();
        let states = if TriggerIdentity::all_known(&identities, &states) {
            states
        } else {
            settle_edited(&member.ledger, leadership, &set.schedules, &states, &first, now).await?;
            member.ledger.adopt_schedules(leadership, &identities, now).await?;
            member.ledger.schedule_states().await?
        };
        self.gates.send_replace(first);
        self.spawn_gatekeeper();
        if !member.shadow {
            self.spawn_publisher();
            self.spawn_dispatcher();
        }
        self.spawn_cron(set, states);
        self.crew.change_to(duties::declare(&self.crew, set, &self.gates, &self.reconcile)).await;
        self.spawn_chores();
        member.lead.send_replace(Some(leadership.clone()));
        Ok(())
    }

    fn spawn_gatekeeper(&self) {
        let Crew { member, leadership, .. } = &self.crew;
        self.crew.spawn(
            "gatekeeper",
            gatekeeper::run(
                member.ledger.clone(),
                leadership.clone(),
                self.guarded.subscribe(),
                self.gates.clone(),
                member.clock.clone(),
            ),
        );
    }

    /// Starts to write what parts publish; a shadow tells nobody, and without a home ensemble there is nobody.
    fn spawn_publisher(&self) {
        let Crew { member, leadership, publisher, .. } = &self.crew;
        let Some((ensemble, root)) = member.home().filter(|_| !member.shadow) else { return };
        let (ledger, leadership) = (member.ledger.clone(), leadership.clone());
        let parts = publisher::Parts { ensemble, root, ledger, leadership };
        self.crew.spawn("publisher", publisher::write(publisher.clone(), parts));
    }

    fn spawn_dispatcher(&self) {
        let Crew { member, leadership, .. } = &self.crew;
        self.crew.spawn(
            "dispatcher",
            dispatcher::run(dispatcher::Parts {
                ledger: member.ledger.clone(),
                leadership: leadership.clone(),
                supply: self.supply.subscribe(),
                gates: self.gates.subscribe(),
                clock: member.clock.clone(),
                link: member.link(),
                locks: self.spawn_locks(),
                reconcile: self.reconcile.subscribe(),
            }),
        );
    }

    /// Starts to keep the locks of runs; `None` without a home ensemble.
    fn spawn_locks(&self) -> Option<Desk> {
        let Crew { member, leadership, .. } = &self.crew;
        let (ensemble, root) = member.home()?;
        let (desk, keeper) = locks::keeper::open(locks::keeper::Parts {
            ensemble,
            ledger: member.ledger.clone(),
            leadership: leadership.clone(),
            root,
            member: member.card.id.clone(),
            clock: member.clock.clone(),
        });
        self.crew.spawn("locks", keeper);
        Some(desk)
    }

    /// How long after its due time an occurrence is on time when a term begins.
    fn on_time(&self) -> SignedDuration {
        let home = self.crew.member.main.zookeeper.as_ref();
        home.map_or(ON_TIME, |home| on_time_after_a_failover(home.connection.session_timeout))
    }

    fn spawn_cron(&self, set: &InForce, states: ScheduleStates) {
        let Crew { member, leadership, ending, .. } = &self.crew;
        // The configuration is read once, so nothing is ever sent.
        let (edits_sender, edits) = mpsc::channel(1);
        let cron = Cron {
            ledger: member.ledger.clone(),
            leadership: leadership.clone(),
            clock: member.clock.clone(),
            witness: AirflowClocks::new(member.board.airflows()),
            gates: self.gates.subscribe(),
            edits,
            status: member.status.clone(),
            on_time: self.on_time(),
            shutdown: ending.clone(),
        };
        let schedules = Arc::clone(&set.schedules);
        self.crew.spawn("cron trigger", async move {
            let ended = cron.run(schedules.iter().cloned(), &states).await;
            drop(edits_sender);
            ended
        });
    }

    fn spawn_chores(&self) {
        let Crew { member, leadership, .. } = &self.crew;
        let chores = Chores {
            ledger: member.ledger.clone(),
            leadership: leadership.clone(),
            retention: member.main.store.retention,
            reconcile: self.reconcile.clone(),
        };
        self.crew.spawn("chores", chores.run());
    }
}

/// A term that is dropped before it was ended, half started, leaves no part running.
impl Drop for Term {
    fn drop(&mut self) {
        self.resign();
    }
}

/// What the gatekeeper watches over.
fn guarded(set: &InForce) -> Guarded {
    Guarded { schedules: Arc::clone(&set.schedules), directories: set.resources.directories() }
}

/// What the dispatcher works with.
fn supply(set: &InForce) -> Arc<Supply> {
    let target = |name, kept: &super::resources::KeptAirflow| {
        let in_flight = set.config.airflows.get(name)?.in_flight;
        Some((Arc::clone(name), Target { airflow: kept.client.clone(), incarnation: kept.incarnation, in_flight }))
    };
    Arc::new(Supply {
        targets: set.resources.airflows.iter().filter_map(|(name, kept)| target(name, kept)).collect(),
        schedules: set.schedules.iter().map(|schedule| (schedule.name.clone(), Arc::clone(schedule))).collect(),
    })
}

/// What the ledger goes by to tell whether a trigger was edited.
fn identity(schedule: &Arc<Schedule>) -> TriggerIdentity {
    TriggerIdentity { name: schedule.name.clone(), was: schedule.was.clone(), key: schedule.trigger.identity() }
}

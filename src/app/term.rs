//! A term: what runs while this member leads, from taking the lead to losing it or giving it up.
//!
//! Each part takes the [`Leadership`] and ends when it is lost. A part whose writes the ledger refuses,
//! since a newer leader has taken over, ends quietly: the term is over, and the member stands by. A store
//! that is away for the moment ends the term as well, and a later one goes on. Any other failure of a
//! part ends the process, since a scheduler with one limb missing looks healthy and is not.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::{Notify, mpsc, watch};
use tokio_cron_scheduler::JobSchedulerError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::member::Member;
use super::witness::AirflowClocks;
use crate::airflow::pace::Pace;
use crate::chores::Chores;
use crate::config::model::InFlight;
use crate::dispatcher::{self, Target};
use crate::domain::policy::{ON_TIME, on_time_after_a_failover};
use crate::domain::schedule::{Schedule, Trigger};
use crate::locks::{self, keeper::Desk};
use crate::metrics;
use crate::monitor;
use crate::publisher::{self, Publisher};
use crate::store::model::ScheduleStates;
use crate::store::{Leadership, StoreError, TriggerIdentity};
use crate::triggers::cron::{Cron, settle_edited};
use crate::triggers::gate::Gates;
use crate::triggers::znode::ZnodeTriggerParts;
use crate::triggers::{consume, gatekeeper, lineage, znode};

/// Why a part of a term ended.
#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Chores(#[from] JobSchedulerError),
}

/// What follows when a part ends with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consequence {
    /// Nothing: the term is ending anyway.
    Nothing,
    /// The term ends: a newer leader has taken over.
    EndOfTerm,
    /// The term ends, and a later one, of this member or another, begins again where it stood: the
    /// store is away for the moment.
    Rest,
    /// The process ends.
    EndOfProcess,
}

impl PartError {
    /// A ledger that is closed while nothing is ending has lost its writer. Taken for the end of a term,
    /// that would lead to one term after another in which nothing is recorded.
    fn consequence(&self, is_ending: bool) -> Consequence {
        match self {
            Self::Store(StoreError::Fenced { .. }) => Consequence::EndOfTerm,
            _ if is_ending => Consequence::Nothing,
            Self::Store(error) if error.is_transient() => Consequence::Rest,
            Self::Store(_) | Self::Chores(_) => Consequence::EndOfProcess,
        }
    }
}

/// The parts of a leader at work.
pub(super) struct Term {
    member: Arc<Member>,
    leadership: Leadership,
    /// Where parts tell something in the home ensemble; a shadow's tells nobody.
    publisher: Publisher,
    /// A child of the process's ending.
    ending: CancellationToken,
    tasks: TaskTracker,
    /// Cancelled when the store failed a part of it for the moment.
    faltered: CancellationToken,
}

impl Term {
    /// Starts everything that leads. An error leaves nothing running.
    pub(super) async fn begin(member: &Arc<Member>, leadership: Leadership) -> Result<Self, StoreError> {
        let term = Self {
            member: Arc::clone(member),
            leadership,
            publisher: Publisher::default(),
            ending: member.lifecycle.ending().child_token(),
            tasks: TaskTracker::new(),
            faltered: CancellationToken::new(),
        };
        member.status.set_leading(true);
        metrics::leader(true);
        if let Err(error) = term.start().await {
            term.end(Duration::ZERO).await;
            return Err(error);
        }
        Ok(term)
    }

    /// Proof of leading, for as long as the term lasts.
    pub(super) fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Whether it ended since the store failed for the moment, and not for a newer leader.
    pub(super) fn has_faltered(&self) -> bool {
        self.faltered.is_cancelled()
    }

    /// Gives the lead up and waits until the parts have finished what they had begun, but no longer
    /// than `patience`: what is left then can no longer write, and ends by itself.
    pub(super) async fn end(self, patience: Duration) {
        self.resign();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() && !patience.is_zero() {
            tracing::info!(
                epoch = self.leadership.epoch(),
                "requests of the last term are still under way; whoever leads asks Airflow what became of them"
            );
        }
        // Parts that were ending may have told something meanwhile.
        self.member.status.set_leading(false);
        for airflow in self.member.airflows.keys() {
            metrics::term_ended(airflow);
        }
    }

    /// Gives the lead up, and has every part end.
    fn resign(&self) {
        self.leadership.give_up();
        self.ending.cancel();
        self.member.lead.send_replace(None);
        self.member.status.set_leading(false);
        metrics::leader(false);
    }

    async fn start(&self) -> Result<(), StoreError> {
        let member = &self.member;
        // Before anything starts, the gates must be where they belong: what is paused must not fire.
        let mut directories = member.directories.clone();
        let states = member.ledger.schedule_states().await?;
        let now = member.clock.now();
        let first = gatekeeper::first(&member.schedules, &states, &mut directories, now);
        let identities: Vec<_> = member.schedules.iter().map(identity).collect();
        let states = if TriggerIdentity::all_known(&identities, &states) {
            states
        } else {
            settle_edited(&member.ledger, &self.leadership, &member.schedules, &states, &first, now).await?;
            member.ledger.adopt_schedules(&self.leadership, &identities, now).await?;
            member.ledger.schedule_states().await?
        };
        let (gates_sender, gates) = watch::channel(first);
        self.spawn_gatekeeper(directories, gates_sender);
        let mut reconcile = Vec::new();
        if !member.shadow {
            self.spawn_publisher();
            reconcile.push(self.spawn_dispatcher(gates.clone()));
        }
        reconcile.extend(self.spawn_monitors());
        self.spawn_cron(gates.clone(), states);
        self.spawn_lineage_keepers();
        self.spawn_znode_triggers(&gates);
        if !member.shadow {
            self.spawn_consumers();
        }
        self.spawn_chores(reconcile);
        member.lead.send_replace(Some(self.leadership.clone()));
        Ok(())
    }

    /// Runs a part of the term; its error, unless it says that the term is over, is the process's.
    fn spawn<E: Into<PartError>>(
        &self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (lifecycle, leadership) = (self.member.lifecycle.clone(), self.leadership.clone());
        let faltered = self.faltered.clone();
        let part = tokio::spawn(async move { part.await.map_err(Into::into) });
        self.tasks.spawn(async move {
            let error = match part.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => return lifecycle.fail(name, &format!("it panicked: {panic}")),
            };
            match error.consequence(leadership.lost().is_cancelled()) {
                Consequence::Nothing => {
                    tracing::debug!(task = name, error = %error, "a part ended with an error while its term was ending");
                }
                Consequence::EndOfTerm => leadership.give_up(),
                Consequence::Rest => {
                    tracing::warn!(task = name, error = %error, "a part failed for the moment, so the term ends");
                    faltered.cancel();
                    leadership.give_up();
                }
                Consequence::EndOfProcess => lifecycle.fail(name, &error),
            }
        });
    }

    fn spawn_gatekeeper(&self, directories: gatekeeper::Directories, gates: watch::Sender<Gates>) {
        self.spawn(
            "gatekeeper",
            gatekeeper::run(
                self.member.ledger.clone(),
                self.leadership.clone(),
                Arc::clone(&self.member.schedules),
                directories,
                gates,
                self.member.clock.clone(),
            ),
        );
    }

    /// Starts to write what parts publish; without a home ensemble nobody is told.
    fn spawn_publisher(&self) {
        let Some((ensemble, root)) = self.member.home() else { return };
        let (ledger, leadership) = (self.member.ledger.clone(), self.leadership.clone());
        let parts = publisher::Parts { ensemble, root, ledger, leadership };
        self.spawn("publisher", publisher::write(self.publisher.clone(), parts));
    }

    /// Starts the dispatcher; what wakes it for a comparison with the ledger.
    fn spawn_dispatcher(&self, gates: watch::Receiver<Gates>) -> Arc<Notify> {
        let member = &self.member;
        let reconcile = Arc::new(Notify::new());
        let targets = member
            .airflows
            .iter()
            .map(|(name, airflow)| {
                let in_flight = member.config.airflows.get(name).map_or(InFlight::Auto, |airflow| airflow.in_flight);
                let pace = match in_flight {
                    InFlight::Auto => Pace::auto(),
                    InFlight::Fixed(limit) => Pace::fixed(limit),
                };
                (Arc::clone(name), Target { airflow: airflow.clone(), pace })
            })
            .collect();
        let schedules = member.schedules.iter().map(|schedule| (schedule.name.clone(), Arc::clone(schedule))).collect();
        self.spawn(
            "dispatcher",
            dispatcher::run(dispatcher::Parts {
                ledger: member.ledger.clone(),
                leadership: self.leadership.clone(),
                targets,
                schedules,
                gates,
                clock: member.clock.clone(),
                link: member.link(),
                locks: self.spawn_locks(),
                reconcile: Arc::clone(&reconcile),
            }),
        );
        reconcile
    }

    /// Starts to keep the locks of runs; `None` without a home ensemble.
    fn spawn_locks(&self) -> Option<Desk> {
        let member = &self.member;
        let (ensemble, root) = member.home()?;
        let (desk, keeper) = locks::keeper::open(locks::keeper::Parts {
            ensemble,
            ledger: member.ledger.clone(),
            leadership: self.leadership.clone(),
            root,
            member: member.card.id.clone(),
            clock: member.clock.clone(),
        });
        self.spawn("locks", keeper);
        Some(desk)
    }
}

impl Term {
    /// Starts a monitor for each Airflow; what wakes each of them for a full comparison.
    fn spawn_monitors(&self) -> Vec<Arc<Notify>> {
        let member = &self.member;
        let mut wakers = Vec::new();
        for (name, airflow) in &member.airflows {
            let Some(settings) = member.config.airflows.get(name) else { continue };
            let reconcile = Arc::new(Notify::new());
            wakers.push(Arc::clone(&reconcile));
            self.spawn(
                "monitor",
                monitor::run(monitor::Parts {
                    airflow: airflow.clone(),
                    ledger: member.ledger.clone(),
                    leadership: self.leadership.clone(),
                    keep: settings.monitor.clone(),
                    clock: member.clock.clone(),
                    reconcile,
                }),
            );
        }
        wakers
    }

    /// How long after its due time an occurrence is on time when a term begins.
    fn on_time(&self) -> SignedDuration {
        let home = self.member.config.zookeeper.as_ref();
        home.map_or(ON_TIME, |home| on_time_after_a_failover(home.connection.session_timeout))
    }

    fn spawn_cron(&self, gates: watch::Receiver<Gates>, states: ScheduleStates) {
        let member = &self.member;
        // The configuration is read once, so nothing is ever sent.
        let (edits_sender, edits) = mpsc::channel(1);
        let cron = Cron {
            ledger: member.ledger.clone(),
            leadership: self.leadership.clone(),
            clock: member.clock.clone(),
            witness: AirflowClocks::new(member.airflows.values().cloned().collect()),
            gates,
            edits,
            status: member.status.clone(),
            on_time: self.on_time(),
            shutdown: self.ending.clone(),
        };
        let schedules = Arc::clone(&member.schedules);
        self.spawn("cron trigger", async move {
            let ended = cron.run(schedules.iter().cloned(), &states).await;
            drop(edits_sender);
            ended
        });
    }

    /// Before any trigger: from here on nothing is compared in a session that was not cleared.
    fn spawn_lineage_keepers(&self) {
        let member = &self.member;
        for (name, lineage) in &member.lineages {
            let Some(ensemble) = member.ensembles.get(name) else { continue };
            let (ledger, leadership) = (member.ledger.clone(), self.leadership.clone());
            let keeper = lineage::Keeper::new(lineage.clone(), ensemble.clone(), ledger, leadership);
            self.spawn("keeper of the history", keeper.run(self.ending.clone()));
        }
    }

    fn spawn_znode_triggers(&self, gates: &watch::Receiver<Gates>) {
        let member = &self.member;
        for schedule in member.schedules.iter() {
            let Trigger::Znode(trigger) = &schedule.trigger else { continue };
            let ensemble = member.ensembles.get(&trigger.ensemble);
            let Some((ensemble, lineage)) = ensemble.zip(member.lineages.get(&trigger.ensemble)) else { continue };
            let parts = ZnodeTriggerParts {
                schedule: Arc::clone(schedule),
                ensemble: ensemble.clone(),
                ledger: member.ledger.clone(),
                leadership: self.leadership.clone(),
                gates: gates.clone(),
                clock: member.clock.clone(),
                status: member.status.clone(),
                lineage: lineage.clone(),
            };
            let trigger = znode::run(parts, self.ending.clone());
            self.spawn("znode trigger", async move {
                trigger.await;
                Ok::<(), StoreError>(())
            });
        }
    }

    fn spawn_consumers(&self) {
        for ensemble in self.member.watched_ensembles() {
            let Some(lineage) = self.member.lineages.get(&ensemble.name().cloned()) else { continue };
            let (ledger, leadership) = (self.member.ledger.clone(), self.leadership.clone());
            let consumer = consume::run(ensemble.clone(), lineage.clone(), ledger, leadership, self.ending.clone());
            self.spawn("consumer of znodes", async move {
                consumer.await;
                Ok::<(), StoreError>(())
            });
        }
    }

    fn spawn_chores(&self, reconcile: Vec<Arc<Notify>>) {
        let chores = Chores {
            ledger: self.member.ledger.clone(),
            leadership: self.leadership.clone(),
            retention: self.member.config.store.retention,
            reconcile,
        };
        self.spawn("chores", chores.run());
    }
}

/// A term that is dropped before it was ended, half started, leaves no part running.
impl Drop for Term {
    fn drop(&mut self) {
        self.resign();
    }
}

/// What the ledger goes by to tell whether a trigger was edited.
fn identity(schedule: &Arc<Schedule>) -> TriggerIdentity {
    TriggerIdentity { name: schedule.name.clone(), was: schedule.was.clone(), key: schedule.trigger.identity() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_pass_ends_the_process() {
        let cases: [(StoreError, Consequence, Consequence); 4] = [
            (StoreError::Fenced { held: 1, current: 2 }, Consequence::EndOfTerm, Consequence::EndOfTerm),
            (StoreError::Closed, Consequence::EndOfProcess, Consequence::Nothing),
            (StoreError::OutcomeUnknown, Consequence::Rest, Consequence::Nothing),
            (StoreError::Corrupt { what: "a row".into() }, Consequence::EndOfProcess, Consequence::Nothing),
        ];
        for (error, expected, while_ending) in cases {
            let error = PartError::from(error);
            assert_eq!(error.consequence(false), expected, "{error}");
            assert_eq!(error.consequence(true), while_ending, "{error}, while the term ends");
        }
    }
}

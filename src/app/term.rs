//! A term: what runs while this member leads, from taking the lead to losing it or giving it up.
//!
//! Each part takes the [`Leadership`] and ends when it is lost. `crew` has the tasks and what follows when
//! one fails, [`super::duties`] which parts there are.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::crew::Crew;
use super::duties;
use super::in_force::InForce;
use super::member::Member;
use super::witness::AirflowWitness;
use crate::airflow::places::{self, Ask, Places};
use crate::chores::Chores;
use crate::definitions::changes::Changes;
use crate::definitions::history;
use crate::dispatcher::{self, Renames, Supply, Target};
use crate::domain::edit::{Fates, Leaving, Origin, Standing};
use crate::domain::policy::{ON_TIME, on_time_after_a_failover};
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::health;
use crate::locks::{self, keeper::Desk};
use crate::metrics;
use crate::publisher::{self, AIRFLOW, HEALTH};
use crate::store::model::ScheduleStates;
use crate::store::patience::answer;
use crate::store::{KnownSchedules, Leadership, StoreError, TriggerIdentity};
use crate::sync::turns::Turns;
use crate::triggers::cron::{Cron, Edit, settle_edited};
use crate::triggers::gate::Gates;
use crate::triggers::gatekeeper::{self, Guarded};
use crate::triggers::znode::{Announcements, Handover};

/// How long an edit waits for what Airflow says of DAGs that are new.
const FIRST_LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// The parts of a leader at work.
pub(super) struct Term(Arc<Work>);

/// What they work with.
pub(super) struct Work {
    pub(super) crew: Crew,
    pub(super) gates: watch::Sender<Gates>,
    guarded: watch::Sender<Guarded>,
    supply: watch::Sender<Arc<Supply>>,
    /// Counts the full comparisons with Airflow that were asked for.
    pub(super) reconcile: watch::Sender<u64>,
    /// To the timer of cron.
    edits: mpsc::Sender<Edit>,
    /// Between znode triggers and those that take their place.
    pub(super) handover: Handover,
    /// Where znode triggers tell that they watch, for the log.
    pub(super) announcements: Announcements,
    /// Where the dispatcher is asked for places.
    pub(super) places: Places,
    /// Where syncs take turns.
    pub(super) turns: Turns,
}

impl Term {
    /// Starts everything that leads. An error leaves nothing running.
    pub(super) async fn begin(member: &Arc<Member>, leadership: Leadership) -> Result<Self, StoreError> {
        let (set, wanted) = member.board.term_begins();
        let (edits, edits_of_cron) = mpsc::channel(1);
        let (places, asks) = places::open();
        let term = Self(Arc::new(Work {
            crew: Crew::new(member, leadership),
            gates: watch::Sender::default(),
            guarded: watch::Sender::new(guarded(&set)),
            supply: watch::Sender::new(supply(&set, Arc::default())),
            reconcile: watch::Sender::default(),
            edits,
            handover: Handover::default(),
            announcements: Announcements::default(),
            places,
            turns: Turns::default(),
        }));
        if let Err(error) = term.0.start(&set, edits_of_cron, asks).await {
            term.end(Duration::ZERO).await;
            return Err(error);
        }
        let work = Arc::clone(&term.0);
        term.0.crew.spawn("definitions of the term", work.follow(set, wanted));
        Ok(term)
    }

    /// Proof of leading, for as long as the term lasts.
    pub(super) fn leadership(&self) -> &Leadership {
        &self.0.crew.leadership
    }

    /// Whether it ended since the store failed for the moment, and not for a newer leader.
    pub(super) fn has_faltered(&self) -> bool {
        self.0.crew.faltered.is_cancelled()
    }

    /// Gives the lead up and waits until the parts have finished what they had begun, but no longer
    /// than `patience`: what is left then can no longer write, and ends by itself.
    pub(super) async fn end(self, patience: Duration) {
        self.resign();
        let crew = &self.0.crew;
        crew.tasks.close();
        if tokio::time::timeout(patience, crew.tasks.wait()).await.is_err() && !patience.is_zero() {
            tracing::info!(
                epoch = crew.leadership.epoch(),
                "requests of the last term are still under way; whoever leads asks Airflow what became of them"
            );
        }
        // Parts that were ending may have told something meanwhile.
        crew.member.status.set_leading(false);
        for airflow in crew.member.board.now().config.airflows.keys() {
            metrics::term_ended(airflow);
        }
    }

    /// Gives the lead up, and has every part end.
    fn resign(&self) {
        let Crew { member, leadership, ending, .. } = &self.0.crew;
        leadership.give_up();
        ending.cancel();
        member.lead.send_replace(None);
        member.status.set_leading(false);
        member.board.term_ends(member.clock.now());
        metrics::leader(false);
    }
}

impl Work {
    async fn start(
        &self,
        set: &Arc<InForce>,
        edits: mpsc::Receiver<Edit>,
        asks: mpsc::UnboundedReceiver<Ask>,
    ) -> Result<(), StoreError> {
        let (member, leadership) = (&self.crew.member, &self.crew.leadership);
        let now = member.clock.now();
        let before = member.ledger.known_schedules().await?;
        let identities = identities(set);
        let fates = before.fates(&identities, Leaving::Rests);
        let states = if before.are_in_force(&identities, &fates) {
            fates.carried(&before.states)
        } else {
            self.settle(set, &set.schedules, &fates.carried(&before.states), now).await?;
            member.ledger.adopt_schedules(leadership, &identities, now).await?;
            member.ledger.schedule_states().await?
        };
        // Before anything starts, the gates must be where they belong: what is paused must not fire, also what
        // comes back with its pause just now.
        self.gates.send_replace(guarded(set).gates(&states, now));
        self.spawn_gatekeeper();
        if !member.shadow {
            self.spawn_publisher();
            self.spawn_teller();
            self.spawn_dispatcher(asks);
            self.spawn_cleaner();
        }
        self.spawn_cron(set, states, edits);
        // Before any trigger: from here on nothing is compared in a session that was not cleared in this term.
        for kept in set.resources.ensembles.values() {
            kept.lineage.forget();
        }
        self.declare_published(set);
        self.crew.begin(self.crew.plan(duties::declare(self, set)).begin);
        self.spawn_chores();
        member.board.taken(set, now);
        member.lead.send_replace(Some(leadership.clone()));
        // Last: whoever is told that it leads may give it orders.
        member.status.set_leading(true);
        metrics::leader(true);
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

    /// Starts to write what parts publish; without a home ensemble there is nobody to tell.
    fn spawn_publisher(&self) {
        let Crew { member, leadership, publisher, .. } = &self.crew;
        let Some((ensemble, root)) = member.home() else { return };
        let (ledger, leadership) = (member.ledger.clone(), leadership.clone());
        let parts = publisher::Parts { ensemble, root, ledger, leadership };
        self.crew.spawn("publisher", publisher::write(publisher.clone(), parts));
    }

    /// Says of what is published from now on; what was told of anything else is taken back.
    fn declare_published(&self, set: &InForce) {
        let publisher = &self.crew.publisher;
        publisher.declare(HEALTH, set.resources.watched.iter().map(|watched| Arc::clone(&watched.target.name)));
        publisher.declare(AIRFLOW, set.config.airflows.keys().cloned());
    }

    /// Starts to publish what the rounds see of ensembles.
    fn spawn_teller(&self) {
        let Crew { member, publisher, .. } = &self.crew;
        let telling = health::tell(member.inspections.subscribe(), publisher.clone(), member.card.id.clone());
        self.spawn_endless("teller of health", telling);
    }

    /// Starts to delete what pushes have left of definitions in ZooKeeper.
    fn spawn_cleaner(&self) {
        if let Some(znode) = self.crew.member.znode.clone() {
            self.spawn_endless("cleaner of definitions", znode.keep_clean());
        }
    }

    /// Starts what has no end of its own, until the lead is lost.
    fn spawn_endless(&self, part: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let lost = self.crew.leadership.lost().clone();
        self.crew.spawn(part, async move {
            let () = lost.run_until_cancelled(task).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
    }

    fn spawn_dispatcher(&self, asks: mpsc::UnboundedReceiver<Ask>) {
        let Crew { member, leadership, .. } = &self.crew;
        let parts = dispatcher::Parts {
            ledger: member.ledger.clone(),
            leadership: leadership.clone(),
            supply: self.supply.subscribe(),
            gates: self.gates.subscribe(),
            clock: member.clock.clone(),
            link: member.link(),
            locks: self.spawn_locks(),
            reconcile: self.reconcile.subscribe(),
        };
        self.crew.spawn("dispatcher", dispatcher::run(parts, asks));
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

    fn spawn_cron(&self, set: &InForce, states: ScheduleStates, edits: mpsc::Receiver<Edit>) {
        let Crew { member, leadership, ending, .. } = &self.crew;
        let cron = Cron {
            ledger: member.ledger.clone(),
            leadership: leadership.clone(),
            clock: member.clock.clone(),
            witness: AirflowWitness::new(member.board.airflows()),
            gates: self.gates.subscribe(),
            edits,
            status: member.status.clone(),
            on_time: self.on_time(),
            shutdown: ending.clone(),
        };
        let schedules = Arc::clone(&set.schedules);
        self.crew.spawn("cron trigger", async move { cron.run(schedules.iter().cloned(), &states).await });
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

/// Going over to other definitions, in step with the ledger.
impl Work {
    /// Keeps the set in the ledger's history, and goes over to each that is wanted after it, one after the
    /// other, until the term ends.
    async fn follow(
        self: Arc<Self>,
        mut set: Arc<InForce>,
        mut wanted: watch::Receiver<Arc<InForce>>,
    ) -> Result<(), StoreError> {
        let (ending, lost) = (self.crew.ending.clone(), self.crew.leadership.lost().clone());
        let following = async {
            self.keep(&set).await?;
            // The sender lives as long as the member.
            while wanted.changed().await.is_ok() {
                self.ledger_answers().await?;
                let next = Arc::clone(&wanted.borrow_and_update());
                if next.number != set.number {
                    if !self.go_over(&set, &next).await? {
                        return Ok(());
                    }
                    set = next;
                    self.keep(&set).await?;
                }
            }
            Ok(())
        };
        tokio::select! {
            () = ending.cancelled() => Ok(()),
            () = lost.cancelled() => Ok(()),
            followed = following => followed,
        }
    }

    /// Waits until the ledger answers. A set that is begun is seen through, so none is begun before: until
    /// then the one before stays in force, and of several that come meanwhile the last one takes its place.
    async fn ledger_answers(&self) -> Result<(), StoreError> {
        let (ledger, leadership) = (&self.crew.member.ledger, &self.crew.leadership);
        answer("beginning with other definitions", || ledger.confirm_lead(leadership)).await
    }

    /// Goes over from one set to another: what ends is settled, the ledger adopts the schedules at that
    /// moment, and what is new begins. If the process dies on the way, the ledger has the cursors of before
    /// or of after, and the next term finds out what is due. `false` where the term is about to end, and the
    /// set never was in force in it.
    async fn go_over(&self, before: &InForce, after: &Arc<InForce>) -> Result<bool, StoreError> {
        let member = &self.crew.member;
        let began = Instant::now();
        let identities = identities(after);
        let known = self.known().await?;
        let fates = known.fates(&identities, Leaving::Ends);
        let touched = touched(before, after, &known, &fates);
        // Should an Airflow not tell in time, what the ledger remembers of its DAGs holds.
        drop(tokio::time::timeout(FIRST_LOOK_PATIENCE, after.resources.asked()).await);
        let plan = self.crew.plan(duties::declare(self, after));
        self.handover.ending(edited_znode_triggers(before, after, &fates));
        self.crew.end(&plan.end).await;

        let (settled, moment) = oneshot::channel();
        let (adopt, adopted) = oneshot::channel();
        let edit = Edit { schedules: Arc::clone(&after.schedules), fates: fates.clone(), settled, adopted };
        // Without the timer the term is about to end. The next one begins with what is wanted, and keeps it.
        if self.edits.send(edit).await.is_err() {
            return Ok(false);
        }
        let Ok(moment) = moment.await else { return Ok(false) };
        let states = self.adopt(after, &identities, known, &touched, moment).await?;

        let renames = fates.moves().map(|(old, new)| (old.clone(), new.clone())).collect();
        // The dispatcher must know the names before it meets them in the gates.
        self.supply.send_modify(|supplied| {
            let earlier = supplied.renames.iter().cloned();
            *supplied = supply(after, Arc::new(earlier.chain([renames]).collect()));
        });
        let guarded = guarded(after);
        let gates = guarded.gates(&states, moment);
        // Every trigger looks up when they are told of others.
        self.gates.send_if_modified(|before| {
            // Nobody publishes gates meanwhile: who read the ledger for the set before does not any more, and who
            // reads it for this one does so afterwards.
            self.guarded.send_replace(guarded);
            let other = *before != gates;
            *before = gates;
            other
        });
        // Gone only with the term.
        let _ = adopt.send(Arc::new(states));
        let Changes { added, changed, removed, renamed } = Changes::by(&fates, &before.schedules, &after.schedules);
        for gone in removed.iter().chain(renamed.keys()).filter_map(|name| ScheduleName::new(name)) {
            member.status.set_armed(&gone, false);
            member.status.set_trouble(&gone, None);
        }
        self.declare_published(after);
        self.crew.begin(plan.begin);
        member.board.taken(after, member.clock.now());
        let took = began.elapsed();
        metrics::definitions_applied(took);
        tracing::info!(
            version = after.set.provenance.version,
            source = after.set.provenance.source.as_str(),
            added = added.len(),
            changed = changed.len(),
            removed = removed.len(),
            renamed = renamed.len(),
            took_ms = took.as_millis(),
            "other definitions are in force"
        );
        Ok(true)
    }

    /// What the ledger knows of all schedules before a set comes into force.
    async fn known(&self) -> Result<KnownSchedules, StoreError> {
        let ledger = &self.crew.member.ledger;
        answer("taking other definitions", || ledger.known_schedules()).await
    }

    /// Has the ledger adopt the schedules at the moment of an edit; what it has of those that are `touched` then,
    /// and of all that are paused. As long as it cannot be written, the set before stays in force.
    ///
    /// Reading all of many schedules takes most of the time of a small edit, so what is `known` is read again
    /// only where an attempt has failed: nobody but this term says in the meantime which are in force.
    async fn adopt(
        &self,
        set: &InForce,
        identities: &[TriggerIdentity],
        known: KnownSchedules,
        touched: &[ScheduleName],
        moment: Timestamp,
    ) -> Result<ScheduleStates, StoreError> {
        let ledger = &self.crew.member.ledger;
        let compared = self.handover.compared();
        let first = Mutex::new(Some(known));
        answer("taking other definitions", || async {
            let known = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let known = match known {
                Some(known) => known,
                None => ledger.known_schedules().await?,
            };
            let fates = known.fates(identities, Leaving::Ends);
            if !known.are_in_force(identities, &fates) {
                // Of what was not in force until now, the timer has nothing to settle.
                let rested = |schedule: &&Arc<Schedule>| {
                    let known = fates.known_as(&schedule.name).and_then(|name| known.known.get(name));
                    known.is_some_and(|known| known.standing == Standing::Rests)
                };
                let rested: Vec<_> = set.schedules.iter().filter(rested).cloned().collect();
                self.settle(set, &rested, &fates.carried(&known.states), moment).await?;
                ledger.edit_schedules(&self.crew.leadership, identities, moment, &compared).await?;
            }
            ledger.schedule_states_of_and_paused(touched).await
        })
        .await
    }

    /// Settles what schedules that were edited meanwhile had due by the rule that the ledger remembers. `states`
    /// are those before the edit, by the names after it.
    async fn settle(
        &self,
        set: &InForce,
        schedules: &[Arc<Schedule>],
        states: &ScheduleStates,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Crew { member, leadership, .. } = &self.crew;
        let gates = guarded(set).gates(states, now);
        settle_edited(&member.ledger, leadership, schedules, states, &gates, self.on_time(), now).await
    }

    /// Keeps a set that is in force in the history.
    async fn keep(&self, set: &InForce) -> Result<(), StoreError> {
        let (ledger, leadership) = (&self.crew.member.ledger, &self.crew.leadership);
        answer("keeping the definitions in force", || history::keep(ledger, leadership, &set.set)).await?;
        Ok(())
    }
}

/// The schedules of the next set that begin, are edited or have another name: all but those that were in force
/// as they are.
fn touched(before: &InForce, after: &InForce, known: &KnownSchedules, fates: &Fates) -> Vec<ScheduleName> {
    let stayed: HashSet<*const Schedule> = before.schedules.iter().map(Arc::as_ptr).collect();
    let was_in_force = |name: &ScheduleName| {
        *fates.origin(name) == Origin::GoesOn
            && known.known.get(name).is_some_and(|known| known.standing == Standing::InForce)
    };
    let is_touched =
        |schedule: &&Arc<Schedule>| !stayed.contains(&Arc::as_ptr(schedule)) || !was_in_force(&schedule.name);
    after.schedules.iter().filter(is_touched).map(|schedule| schedule.name.clone()).collect()
}

/// The znode triggers whose rule, or whose name, ends with an edit.
fn edited_znode_triggers(before: &InForce, after: &InForce, fates: &Fates) -> Vec<ScheduleName> {
    let rules: HashMap<&ScheduleName, String> =
        after.znode_schedules().map(|(schedule, _)| (&schedule.name, schedule.trigger.identity())).collect();
    before
        .znode_schedules()
        .filter(|(schedule, _)| {
            fates.goes_on_as(&schedule.name) != Some(&schedule.name)
                || rules.get(&schedule.name) != Some(&schedule.trigger.identity())
        })
        .map(|(schedule, _)| schedule.name.clone())
        .collect()
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
fn supply(set: &InForce, renames: Arc<Vec<Renames>>) -> Arc<Supply> {
    let target = |name, kept: &super::resources::KeptAirflow| {
        let in_flight = set.config.airflows.get(name)?.in_flight;
        Some((Arc::clone(name), Target { airflow: kept.client.clone(), incarnation: kept.incarnation, in_flight }))
    };
    Arc::new(Supply {
        targets: set.resources.airflows.iter().filter_map(|(name, kept)| target(name, kept)).collect(),
        schedules: set.schedules.iter().map(|schedule| (schedule.name.clone(), Arc::clone(schedule))).collect(),
        renames,
    })
}

/// What the ledger goes by to tell schedules from each other, and whether a trigger was edited.
fn identities(set: &InForce) -> Vec<TriggerIdentity> {
    let identity = |schedule: &Arc<Schedule>| TriggerIdentity {
        name: schedule.name.clone(),
        was: schedule.was.clone(),
        key: schedule.trigger.identity(),
    };
    set.schedules.iter().map(identity).collect()
}

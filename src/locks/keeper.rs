//! Keeps the znodes of the runs that own locks, and tells the dispatcher who has been granted one.
//!
//! One task of a leader's term. The dispatcher orders: this run asks for its lock, that one gives it
//! back. The keeper looks at the queues, lets [`plan`](super::plan) judge, makes and deletes znodes, and
//! grants. It never submits and never decides who is to ask. Every look begins at what ZooKeeper shows,
//! so a lost answer, a broken session or a former life of this process costs a look and nothing else:
//! what is still to be deleted is found again.
//!
//! Without a session nobody is granted a lock; what is held stays held, since the znodes are persistent.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::node::{NodeData, OurRuns};
use super::plan::{Claim, Plan, plan};
use super::{lock_path, locks_path};
use crate::clock::{Clock, sleep_until};
use crate::domain::run::RunId;
use crate::metrics;
use crate::store::{Leadership, Ledger, LockNote, StoreError};
use crate::zookeeper::{Arming, Ensemble, Interest, Lifetime, Session, Subscription, ZooKeeperError};

/// How many orders are taken up together.
const BATCH: usize = 1024;

/// The shortest time between two looks: bounds how often a busy queue is listed.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How often everything under `locks/` is looked at, for znodes of ours that nobody needs.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// When to look again at what ZooKeeper or the ledger refused.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How often locks that somebody waits for are looked at where ZooKeeper gives no hints.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How many locks are looked at beside each other.
const BESIDE: usize = 16;

/// How many znodes are made or deleted before their answers are awaited.
const PIPELINE: usize = 256;

/// How many hints are taken at once.
const HINTS: usize = 4096;

/// How often a look that makes znodes lists the queue before it is left to the next one.
const ROUNDS: usize = 4;

/// What the keeper works with.
pub struct Parts {
    /// The home ensemble.
    pub ensemble: Ensemble,
    /// Where it is noted who asks and who holds.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// The root of flowkeeper's own znodes.
    pub root: Arc<str>,
    /// Name of this member, for the data of the znodes.
    pub member: String,
    /// Where the time comes from.
    pub clock: Clock,
}

/// What the dispatcher tells.
#[derive(Debug)]
enum Order {
    Ask { run: RunId, lock: Arc<str>, number: u64 },
    Hold { run: RunId, lock: Arc<str>, asked_at: Option<Timestamp> },
    GiveBack { run: RunId },
    Ready,
}

/// Where the dispatcher orders locks, and hears of those that it has.
#[derive(Debug)]
pub struct Desk {
    orders: mpsc::UnboundedSender<Order>,
    grants: mpsc::UnboundedReceiver<(RunId, u64)>,
    /// The latest ask of each run that waits: a grant that was on its way when the run gave its place back
    /// is not one for its next ask.
    asks: HashMap<RunId, u64>,
    asked: u64,
}

impl Desk {
    /// This run waits for its lock from now on; [`Self::granted`] tells when it has it.
    pub fn ask(&mut self, run: RunId, lock: Arc<str>) {
        self.asked += 1;
        self.asks.insert(run, self.asked);
        self.order(Order::Ask { run, lock, number: self.asked });
    }

    /// This run may be in Airflow, so it holds its lock, whatever ZooKeeper says.
    pub fn hold(&self, run: RunId, lock: Arc<str>, asked_at: Option<Timestamp>) {
        self.order(Order::Hold { run, lock, asked_at });
    }

    /// This run does not need its lock any more, or not now.
    pub fn give_back(&mut self, run: RunId) {
        self.asks.remove(&run);
        self.order(Order::GiveBack { run });
    }

    /// All runs that may hold a lock have been told. Before this nothing is done.
    pub fn ready(&self) {
        self.order(Order::Ready);
    }

    /// Waits for the next run that has its lock; `None` when the keeper has ended. Cancel-safe.
    pub async fn granted(&mut self) -> Option<RunId> {
        loop {
            let (run, number) = self.grants.recv().await?;
            if self.asks.get(&run) == Some(&number) {
                self.asks.remove(&run);
                return Some(run);
            }
        }
    }

    fn order(&self, order: Order) {
        // The keeper has ended with the term; whoever leads next asks again.
        let _ = self.orders.send(order);
    }
}

/// A desk, and the task behind it, which runs until the lead is lost.
pub fn open(parts: Parts) -> (Desk, impl Future<Output = Result<(), StoreError>> + Send) {
    let (orders, receiver) = mpsc::unbounded_channel();
    let (sender, grants) = mpsc::unbounded_channel();
    let ours = OurRuns::new(parts.ledger.store_id());
    let subscription = parts.ensemble.subscribe(locks_path(&parts.root).into(), Interest::Subtree);
    let keeper = Keeper {
        parts,
        ours,
        claims: HashMap::new(),
        lock_of: HashMap::new(),
        dirty: BTreeSet::new(),
        notes: Vec::new(),
        grants: sender,
        ready: false,
        sweep: true,
        session: None,
        beside: HashSet::new(),
        refused: HashMap::new(),
    };
    (Desk { orders, grants, asks: HashMap::new(), asked: 0 }, keeper.run(receiver, subscription))
}

struct Keeper {
    parts: Parts,
    ours: OurRuns,
    /// Who owns which lock, in the order of asking.
    claims: HashMap<Arc<str>, Vec<Claim>>,
    lock_of: HashMap<RunId, Arc<str>>,
    /// Locks to be looked at.
    dirty: BTreeSet<Arc<str>>,
    /// What the ledger does not know yet of runs that left a queue.
    notes: Vec<LockNote>,
    grants: mpsc::UnboundedSender<(RunId, u64)>,
    ready: bool,
    /// Whether everything under `locks/` is to be looked at.
    sweep: bool,
    /// The session that the latest look was on.
    session: Option<u64>,
    /// Runs of which it was said that they hold a lock beside somebody else.
    beside: HashSet<RunId>,
    /// Paths at which ZooKeeper refuses something: what it says, and when to try again.
    refused: HashMap<String, (String, Instant)>,
}

/// Why a look was not finished.
enum Trouble {
    ZooKeeper(ZooKeeperError),
    Store(StoreError),
}

impl From<ZooKeeperError> for Trouble {
    fn from(error: ZooKeeperError) -> Self {
        Self::ZooKeeper(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Keeper {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        subscription: Subscription,
    ) -> Result<(), StoreError> {
        let lost = self.parts.leadership.lost().clone();
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        let mut batch = Vec::with_capacity(BATCH);
        let mut looked = Instant::now();
        loop {
            let arming = subscription.arming();
            let next = self.next_look(arming.as_ref(), looked);
            tokio::select! {
                biased;
                () = lost.cancelled() => return Ok(()),
                count = orders.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    batch.drain(..).for_each(|order| self.take(order));
                }
                () = sleep_until(next) => {
                    if arming.as_ref().is_some_and(|arming| !arming.watched) {
                        self.dirty.extend(self.claims.keys().cloned());
                    }
                    let done = lost.run_until_cancelled(self.step(arming.as_ref())).await;
                    looked = Instant::now();
                    match done {
                        None | Some(Err(StoreError::Fenced { .. } | StoreError::Closed)) => return Ok(()),
                        Some(Err(error)) if !error.is_transient() => return Err(error),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "locks wait for the ledger; tried again in a moment");
                            looked += RETRY_PAUSE;
                        }
                        Some(Ok(true)) => {}
                        Some(Ok(false)) => looked += RETRY_PAUSE,
                    }
                }
                () = subscription.changed() => self.heed(&subscription),
                _ = sweeps.tick() => self.sweep = true,
            }
        }
    }

    /// When to look next; never while there is nothing to do or nothing can be done.
    fn next_look(&self, arming: Option<&Arming>, looked: Instant) -> Option<Instant> {
        let soon = looked + LOOK_PAUSE;
        if !self.ready {
            return None;
        }
        let unnoted = || self.claims.values().flatten().any(|claim| !claim.noted);
        match arming {
            None => (!self.notes.is_empty() || unnoted()).then_some(soon),
            Some(arming) => {
                let new = self.session != Some(arming.session.number());
                let path = |lock: &Arc<str>| lock_path(&self.parts.root, lock);
                let sweep = self.sweep && !self.is_refused(&locks_path(&self.parts.root));
                let look = self.dirty.iter().any(|lock| !self.is_refused(&path(lock)));
                if new || sweep || look || !self.notes.is_empty() {
                    return Some(soon);
                }
                if let Some(again) = self.refused.values().map(|(_, again)| *again).min() {
                    return Some(again.max(soon));
                }
                (!arming.watched && !self.claims.is_empty()).then(|| looked + POLL_INTERVAL)
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Ready => self.ready = true,
            Order::Ask { run, lock, number } => {
                let claim = self.claim(run, lock, None);
                (claim.waits, claim.ask) = (true, number);
            }
            Order::Hold { run, lock, asked_at } => {
                let claim = self.claim(run, lock, asked_at);
                (claim.holding, claim.noted) = (true, true);
            }
            Order::GiveBack { run } => {
                let Some(lock) = self.lock_of.remove(&run) else { return };
                if let Some(claims) = self.claims.get_mut(&lock) {
                    claims.retain(|claim| claim.run != run);
                }
                self.beside.remove(&run);
                self.notes.push(LockNote { run, asked_at: None, held_at: None });
                self.dirty.insert(lock);
            }
        }
    }

    /// The claim of a run, which is looked at soon.
    fn claim(&mut self, run: RunId, lock: Arc<str>, asked_at: Option<Timestamp>) -> &mut Claim {
        // A run that was given back a moment ago has left the queue in the ledger's eyes only.
        self.notes.retain(|note| note.run != run);
        self.dirty.insert(Arc::clone(&lock));
        self.lock_of.insert(run, Arc::clone(&lock));
        let claims = self.claims.entry(lock).or_default();
        let position = claims.iter().position(|claim| claim.run == run).unwrap_or_else(|| {
            let asked_at = asked_at.unwrap_or_else(|| self.parts.clock.now());
            claims.push(Claim { run, holding: false, waits: false, ask: 0, asked_at, noted: false });
            claims.len() - 1
        });
        &mut claims[position]
    }

    /// Hints say which locks to look at.
    fn heed(&mut self, subscription: &Subscription) {
        let touched = subscription.take(HINTS);
        if touched.overflowed {
            self.dirty.extend(self.claims.keys().cloned());
        }
        let above = locks_path(&self.parts.root);
        for path in touched.paths {
            let name = path.strip_prefix(above.as_str()).and_then(|rest| rest.strip_prefix('/'));
            let Some(lock) = name.and_then(|rest| rest.split('/').next()) else { continue };
            if let Some((lock, _)) = self.claims.get_key_value(lock).filter(|(_, claims)| !claims.is_empty()) {
                self.dirty.insert(Arc::clone(lock));
            }
        }
    }

    /// Notes, looks, and grants; `false` when something was left for later.
    async fn step(&mut self, arming: Option<&Arming>) -> Result<bool, StoreError> {
        // The ledger first: a run of which it says that it holds its lock may be in Airflow.
        self.note(HashMap::new()).await?;
        let Some(Arming { session, .. }) = arming else { return Ok(true) };
        if self.session != Some(session.number()) {
            self.session = Some(session.number());
            self.sweep = true;
        }
        if self.sweep && !self.is_refused(&locks_path(&self.parts.root)) {
            match session.get_children(&locks_path(&self.parts.root)).await {
                Ok(found) => {
                    self.refused.remove(&locks_path(&self.parts.root));
                    self.dirty.extend(found.into_iter().flat_map(|(names, _)| names).map(Into::into));
                }
                Err(error) if error.ends_session() => {
                    session.give_up();
                    return Ok(false);
                }
                Err(error) => self.refuse(locks_path(&self.parts.root), &error),
            }
            self.dirty.extend(self.claims.keys().cloned());
            self.sweep = self.is_refused(&locks_path(&self.parts.root));
        }
        let mut dirty = self.dirty.clone();
        dirty.retain(|lock| !self.is_refused(&lock_path(&self.parts.root, lock)));
        let keeper = &*self;
        let looks: Vec<_> = stream::iter(dirty)
            .map(|lock| async move {
                let look = keeper.look(session, &lock).await;
                (lock, look)
            })
            .buffer_unordered(BESIDE)
            .collect()
            .await;
        let (mut granted, mut settled) = (HashMap::new(), Vec::new());
        let mut complete = true;
        for (lock, look) in looks {
            match look {
                Ok(plan) => {
                    self.refused.remove(&lock_path(&self.parts.root, &lock));
                    self.tell_beside(&lock, &plan);
                    granted.extend(plan.granted.map(|run| (run, self.parts.clock.now())));
                    if plan.create.is_empty() && plan.delete.is_empty() {
                        settled.push(lock);
                    } else {
                        complete = false;
                    }
                }
                Err(Trouble::ZooKeeper(error)) if error.ends_session() => {
                    session.give_up();
                    complete = false;
                }
                Err(Trouble::ZooKeeper(error)) => self.refuse(lock_path(&self.parts.root, &lock), &error),
                Err(Trouble::Store(error)) => return Err(error),
            }
        }
        // What is not written down is not granted, and looked at again.
        self.note(granted).await?;
        for lock in settled {
            self.dirty.remove(&lock);
        }
        self.report();
        Ok(complete)
    }

    /// One lock: lists its queue, deletes and makes what the plan says; the plan that is left.
    async fn look(&self, session: &Session, lock: &str) -> Result<Plan, Trouble> {
        let path = lock_path(&self.parts.root, lock);
        let claims = self.claims.get(lock).map(Vec::as_slice).unwrap_or_default();
        let mut left = Plan::default();
        for _ in 0..ROUNDS {
            let mut children = session.get_children(&path).await?.map(|(names, _)| names).unwrap_or_default();
            left = plan(&children, &self.ours, claims);
            if left.create.is_empty() && left.delete.is_empty() {
                break;
            }
            // What was seen before this is of our own making, or of those who led before us.
            self.parts.ledger.confirm_lead(&self.parts.leadership).await?;
            for names in left.delete.chunks(PIPELINE) {
                let deleting = names.iter().map(|name| session.delete(&format!("{path}/{name}"), ANY_VERSION));
                for answer in join_all(deleting).await {
                    answer?;
                }
            }
            if left.create.is_empty() {
                // Who is behind may be first now; nobody can have come in before them.
                children.retain(|name| !left.delete.contains(name));
                left = plan(&children, &self.ours, claims);
                break;
            }
            self.make(session, &path, &left.create).await?;
        }
        Ok(left)
    }

    /// Puts runs into the queue, in this order.
    async fn make(&self, session: &Session, path: &str, runs: &[RunId]) -> Result<(), Trouble> {
        let known = self.parts.ledger.lock_runs(runs).await?;
        let known: HashMap<RunId, _> = known.into_iter().map(|known| (known.run, known)).collect();
        // Rows that are gone were given back, or will be in a moment.
        let nodes: Vec<_> = runs.iter().filter_map(|run| known.get(run)).collect();
        for nodes in nodes.chunks(PIPELINE) {
            let making = nodes.iter().map(|known| {
                let data = NodeData {
                    store_id: Some(self.parts.ledger.store_id().to_owned()),
                    run: Some(known.run),
                    dag_run_id: Some(known.dag_run_id.clone()),
                    schedule: Some(known.schedule.clone()),
                    member: Some(self.parts.member.clone()),
                    at: Some(self.parts.clock.now()),
                    ..NodeData::default()
                };
                // A struct of texts and numbers has a JSON form.
                let data = serde_json::to_vec(&data).unwrap_or_default();
                session.create_sequential(
                    &format!("{path}/{}", self.ours.prefix(known.run)),
                    &data,
                    Lifetime::Persistent,
                )
            });
            for answer in join_all(making).await {
                match answer {
                    Ok(_) => {}
                    Err(ZooKeeperError::NoParent) => {
                        session.make_path(path).await?;
                        // All of them are missing still; the next round makes them.
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Writes down who asks, who holds from now on and who has left, and then tells of the grants.
    async fn note(&mut self, granted: HashMap<RunId, Timestamp>) -> Result<(), StoreError> {
        let mut notes = self.notes.clone();
        for claim in self.claims.values().flatten() {
            let held_at = granted.get(&claim.run).copied();
            if !claim.noted || held_at.is_some() {
                notes.push(LockNote { run: claim.run, asked_at: Some(claim.asked_at), held_at });
            }
        }
        if !notes.is_empty() {
            self.parts.ledger.note_locks(&self.parts.leadership, &notes).await?;
        }
        self.notes.clear();
        for (lock, claims) in &mut self.claims {
            for claim in claims {
                claim.noted = true;
                let Some(held_at) = granted.get(&claim.run) else { continue };
                (claim.holding, claim.waits) = (true, false);
                metrics::lock_granted(lock, held_at.duration_since(claim.asked_at));
                // The dispatcher has gone: whoever leads next grants again.
                let _ = self.grants.send((claim.run, claim.ask));
            }
        }
        Ok(())
    }

    /// Whether ZooKeeper has refused something at this path a moment ago.
    fn is_refused(&self, path: &str) -> bool {
        self.refused.get(path).is_some_and(|(_, again)| Instant::now() < *again)
    }

    /// Notes that ZooKeeper refuses something at a path, and tells the log when that is news. Nothing else
    /// waits for it.
    fn refuse(&mut self, path: String, error: &ZooKeeperError) {
        let (reason, again) = (error.to_string(), Instant::now() + RETRY_PAUSE);
        if self.refused.get(&path).is_none_or(|(known, _)| *known != reason) {
            tracing::warn!(
                path,
                reason,
                "ZooKeeper refuses a request for a lock, so its runs wait; tried again every few seconds"
            );
        }
        self.refused.insert(path, (reason, again));
    }

    /// Says once of each run that somebody else may hold its lock as well.
    fn tell_beside(&mut self, lock: &str, plan: &Plan) {
        for &run in &plan.beside {
            if self.beside.insert(run) {
                tracing::warn!(
                    run.id = run.0,
                    lock,
                    "a run is in Airflow without standing first in the queue for its lock: its DAG run was cleared after \
                     it had ended, or somebody deleted its znode; it stands in the queue again, and others may run beside it"
                );
            }
        }
        let claims = self.claims.get(lock).map(Vec::as_slice).unwrap_or_default();
        for claim in claims.iter().filter(|claim| claim.holding && !plan.beside.contains(&claim.run)) {
            self.beside.remove(&claim.run);
        }
    }

    fn report(&mut self) {
        for (lock, claims) in &self.claims {
            let held = claims.iter().filter(|claim| claim.holding).count();
            metrics::lock_runs(lock, held, claims.len() - held);
        }
        self.claims.retain(|_, claims| !claims.is_empty());
    }
}

/// The version that stands for any.
const ANY_VERSION: i32 = -1;

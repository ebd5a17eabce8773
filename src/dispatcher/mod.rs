//! The only submitter: takes recorded runs to Airflow, a few at a time, fairly, until each is proven.
//!
//! It reads pending rows, asks `queue` who goes next, lets the client submit, and records what came
//! of it. It never closes a run that Airflow has (the monitor does) and never decides that something
//! is due (the triggers do). After a crash it starts from the open rows: the same ids are submitted
//! again, and Airflow's unique key makes that harmless. The loop is here; what it goes by is in `supply`,
//! what it hears in `news`, what it begins in `start`.

mod compare;
mod guests;
mod locks;
mod news;
mod queue;
mod request;
mod retry;
mod start;
mod supply;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::airflow::pace::{Load, Pace};
use crate::airflow::places::Ask;
use crate::clock::{Clock, boot_time};
use crate::domain::run::RunId;
use crate::domain::schedule::ScheduleName;
use crate::locks::keeper::Desk;
use crate::metrics;
use crate::store::model::{AttemptOutcome, LedgerEvent, Ticket};
use crate::store::patience::answer_while_leading;
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::gate::Gates;
use compare::Compare;
use guests::Guests;
use locks::Locks;
use queue::{Hold, Queue};
pub use supply::{Renames, Supply, Target};

/// How many messages are handled before the queues are asked again.
const BATCH: usize = 256;

/// How often lanes that hold nothing are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// How often the state of the queues is told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The loop wakes with each report. After a longer gap the process was stopped or asleep, and somebody
/// else may have taken the lead.
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// How many pending rows are read at once when the dispatcher starts.
const PAGE: u32 = 1000;

/// What the dispatcher needs.
pub struct Parts {
    /// Where runs come from and outcomes go.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// The definitions in force.
    pub supply: watch::Receiver<Arc<Supply>>,
    /// Which schedules are held back.
    pub gates: watch::Receiver<Gates>,
    /// Where the time comes from.
    pub clock: Clock,
    /// Address of this member for the notes of DAG runs.
    pub link: Option<String>,
    /// Where runs get their locks; `None` without a home ensemble.
    pub locks: Option<Desk>,
    /// Changes when a comparison of all that is known with the ledger is asked for.
    pub reconcile: watch::Receiver<u64>,
}

/// What the loop is told.
enum Message {
    /// A request has its answer: its place is free.
    Answered { airflow: Arc<str>, load: Load },
    /// The place that somebody else had is free.
    GuestLeft { airflow: Arc<str> },
    /// The outcome of an attempt is in the ledger.
    Recorded { ticket: Box<Ticket>, outcome: Result<AttemptOutcome, StoreError> },
    /// Airflow could not be told to end a run that a newer one replaces; it is told again.
    NotEnded { airflow: Arc<str>, run: RunId },
    /// Runs read from the ledger for a lane that had overflowed.
    Refilled { airflow: Arc<str>, schedule: ScheduleName, tickets: Result<Vec<Ticket>, StoreError> },
    /// A run that was not known here is in Airflow, and owns this lock.
    OwnsLock { airflow: String, schedule: ScheduleName, run: RunId, lock: Arc<str> },
}

struct Lanes {
    /// `None` while the configuration has no such Airflow: its runs wait.
    target: Option<Target>,
    pace: Pace,
    queue: Queue,
    in_flight: usize,
    /// Runs that Airflow has been told to end for a newer one.
    cancelling: HashSet<RunId>,
}

impl Lanes {
    /// How many requests may be begun now.
    fn room(&self) -> usize {
        if self.target.is_some() { self.pace.room(self.in_flight) } else { 0 }
    }
}

/// Submits runs until `leadership` is lost or given up, then waits for requests in flight. Those who send
/// `asks` get places that no run wants.
pub async fn run(parts: Parts, asks: mpsc::UnboundedReceiver<Ask>) -> Result<(), StoreError> {
    let (to_loop, messages) = mpsc::unbounded_channel();
    let (sender, tickets) = mpsc::unbounded_channel();
    // Subscribed before the first read, so that nothing falls between the two.
    let events = parts.ledger.subscribe();
    parts.ledger.deliver_to(sender);
    let mut dispatcher = Dispatcher::new(parts, to_loop);
    if dispatcher.load().await? { dispatcher.run(messages, tickets, events, asks).await } else { Ok(()) }
}

struct Dispatcher {
    ledger: Ledger,
    leadership: Leadership,
    supply: watch::Receiver<Arc<Supply>>,
    /// As last read.
    in_force: Arc<Supply>,
    /// The names that schedules have now, by those that they had.
    renamed: HashMap<ScheduleName, ScheduleName>,
    gates: watch::Receiver<Gates>,
    clock: Clock,
    link: Option<Arc<str>>,
    airflows: HashMap<Arc<str>, Lanes>,
    holds: HashMap<ScheduleName, Hold>,
    locks: Locks,
    /// Schedules whose runs are skipped, and why.
    skipping: HashMap<ScheduleName, Arc<str>>,
    to_loop: mpsc::UnboundedSender<Message>,
    requests: TaskTracker,
    reconcile: watch::Receiver<u64>,
    /// Others who take a place.
    guests: Guests,
    /// What is to be compared with the ledger at the next report.
    owes: Option<Compare>,
}

impl Dispatcher {
    fn new(parts: Parts, to_loop: mpsc::UnboundedSender<Message>) -> Self {
        let mut dispatcher = Self {
            ledger: parts.ledger,
            leadership: parts.leadership,
            supply: parts.supply,
            in_force: Arc::default(),
            renamed: HashMap::new(),
            gates: parts.gates,
            clock: parts.clock,
            link: parts.link.map(Into::into),
            airflows: HashMap::new(),
            holds: HashMap::new(),
            locks: Locks::new(parts.locks),
            skipping: HashMap::new(),
            to_loop,
            requests: TaskTracker::new(),
            reconcile: parts.reconcile,
            guests: Guests::default(),
            owes: None,
        };
        dispatcher.take_in_force();
        // All of it is about to be read.
        dispatcher.owes = None;
        dispatcher
    }

    async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        mut tickets: mpsc::UnboundedReceiver<Ticket>,
        mut events: broadcast::Receiver<LedgerEvent>,
        mut asks: mpsc::UnboundedReceiver<Ask>,
    ) -> Result<(), StoreError> {
        let mut tidy = tokio::time::interval(TIDY_INTERVAL);
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        let mut arrived = Vec::with_capacity(BATCH);
        let mut told = Vec::with_capacity(BATCH);
        let lost = self.leadership.lost().clone();
        let mut reconcile = self.reconcile.clone();
        let mut awake = boot_time();
        loop {
            let woke = boot_time();
            if woke.saturating_sub(awake) > LONGEST_GAP {
                self.confirm_lead().await?;
            }
            awake = woke;
            if lost.is_cancelled() {
                break;
            }
            self.pump();
            let next_try = self.next_try();
            tokio::select! {
                biased;
                () = lost.cancelled() => break,
                _ = messages.recv_many(&mut told, BATCH) => told.drain(..).for_each(|message| self.handle(message)),
                _ = tickets.recv_many(&mut arrived, BATCH) => self.offer(std::mem::take(&mut arrived)),
                event = events.recv() => self.follow(event, &mut events, &mut tickets).await,
                run = self.locks.granted() => self.has_lock(run),
                Some(ask) = asks.recv() => self.guests.ask(ask),
                changed = self.gates.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.take_in_force();
                }
                Ok(()) = self.supply.changed() => self.take_in_force(),
                () = sleep_until(next_try, &self.clock) => {}
                Ok(()) = reconcile.changed() => self.compare_soon(Compare::All),
                _ = tidy.tick() => self.tidy(),
                _ = report.tick() => {
                    self.report();
                    if self.airflows.values_mut().any(|lanes| lanes.queue.take_doubt()) {
                        self.compare_soon(Compare::All);
                    }
                    if let Some(compare) = self.owes {
                        self.compare(compare).await;
                    }
                }
            }
        }
        // Requests in flight are finished and recorded; what waits is found again in the ledger.
        self.requests.close();
        self.requests.wait().await;
        Ok(())
    }

    /// Waits until the ledger has said that nobody else leads.
    async fn confirm_lead(&self) -> Result<(), StoreError> {
        tracing::debug!("the dispatcher was stopped or asleep; it goes on when the ledger says that it still leads");
        let confirmed =
            answer_while_leading(&self.leadership, "the lead", || self.ledger.confirm_lead(&self.leadership));
        confirmed.await.unwrap_or(Ok(()))
    }

    fn next_try(&self) -> Option<Timestamp> {
        let free = |lanes: &&Lanes| lanes.room() > 0;
        self.airflows.values().filter(free).filter_map(|lanes| lanes.queue.next_try()).min()
    }

    fn report(&self) {
        for (name, lanes) in &self.airflows {
            metrics::airflow_pace(name, lanes.in_flight, lanes.pace.limit());
            metrics::pending_runs(name, lanes.queue.len());
        }
    }

    fn tidy(&mut self) {
        for lanes in self.airflows.values_mut() {
            lanes.queue.tidy();
        }
    }
}

/// Sleeps until the wall clock says `at`; for ever without one.
async fn sleep_until(at: Option<Timestamp>, clock: &Clock) {
    match at {
        Some(at) => {
            let pause = at.duration_since(clock.now());
            tokio::time::sleep(Duration::try_from(pause).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

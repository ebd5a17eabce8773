//! The only submitter: takes recorded runs to Airflow, a few at a time, fairly, until each is proven.
//!
//! It reads pending rows, asks `queue` who goes next, lets the client submit, and records what came
//! of it. It never closes a run that Airflow has (the monitor does) and never decides that something
//! is due (the triggers do). After a crash it starts from the open rows: the same ids are submitted
//! again, and Airflow's unique key makes that harmless.

mod compare;
mod locks;
mod patience;
mod queue;
mod request;
mod retry;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::airflow::Airflow;
use crate::airflow::pace::{Load, Pace};
use crate::clock::{Clock, boot_time};
use crate::config::model::InFlight;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{Overlap, RetryPolicy, Schedule, ScheduleName, TriggerKind};
use crate::locks::keeper::Desk;
use crate::metrics;
use crate::store::model::{AttemptOutcome, LedgerEvent, Ticket};
use crate::store::{ActiveRun, Leadership, Ledger, StoreError};
use crate::triggers::gate::{Gate, Gates};
use compare::Compare;
use locks::Locks;
use patience::answer_of;
use queue::{Answer, Hold, LANE_LENGTH, Queue, Stage, Turn, Word};
use request::Request;

/// How many messages are handled before the queues are asked again.
const BATCH: usize = 256;

/// How often lanes that hold nothing are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// How often the state of the queues is told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// When Airflow is told again to end a run that a newer one replaces.
const END_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// When a run is tried again whose outcome the ledger would not take.
const RECORD_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// The loop wakes with each report. After a longer gap the process was stopped or asleep, and somebody
/// else may have taken the lead.
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// How many pending rows are read at once when the dispatcher starts.
const PAGE: u32 = 1000;

/// One Airflow that runs go to.
#[derive(Clone)]
pub struct Target {
    /// The client.
    pub airflow: Airflow,
    /// Tells it from others that had the same name.
    pub incarnation: u64,
    /// How many requests may be in flight.
    pub in_flight: InFlight,
}

/// What the dispatcher reads of the definitions in force.
#[derive(Clone, Default)]
pub struct Supply {
    /// By name.
    pub targets: BTreeMap<Arc<str>, Target>,
    /// By name.
    pub schedules: HashMap<ScheduleName, Arc<Schedule>>,
}

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

impl Target {
    fn pace(&self) -> Pace {
        match self.in_flight {
            InFlight::Auto => Pace::auto(),
            InFlight::Fixed(limit) => Pace::fixed(limit),
        }
    }

    /// Whether what was learnt of its speed holds for `other`.
    fn is_as_fast_as(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation && self.in_flight == other.in_flight
    }
}

impl Lanes {
    /// How many requests may be begun now.
    fn room(&self) -> usize {
        if self.target.is_some() { self.pace.room(self.in_flight) } else { 0 }
    }
}

/// What the loop is told.
enum Message {
    /// A request has its answer: its place is free.
    Answered { airflow: Arc<str>, load: Load },
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

/// Submits runs until `leadership` is lost or given up, then waits for requests in flight.
pub async fn run(parts: Parts) -> Result<(), StoreError> {
    let (to_loop, messages) = mpsc::unbounded_channel();
    let (sender, tickets) = mpsc::unbounded_channel();
    // Subscribed before the first read, so that nothing falls between the two.
    let events = parts.ledger.subscribe();
    parts.ledger.deliver_to(sender);
    let mut dispatcher = Dispatcher::new(parts, to_loop);
    if dispatcher.load().await? { dispatcher.run(messages, tickets, events).await } else { Ok(()) }
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
            owes: None,
        };
        dispatcher.take_supply();
        // All of it is about to be read.
        dispatcher.owes = None;
        dispatcher
    }

    /// Goes over to the definitions that are in force now. Runs of an Airflow that is gone stay where they
    /// are until it is back.
    fn take_supply(&mut self) {
        let supply = Arc::clone(&self.supply.borrow_and_update());
        for (name, target) in &supply.targets {
            let lanes = self.airflows.entry(Arc::clone(name)).or_insert_with(|| Lanes {
                target: None,
                pace: target.pace(),
                queue: Queue::default(),
                in_flight: 0,
                cancelling: HashSet::new(),
            });
            match lanes.target.replace(target.clone()) {
                Some(before) if before.is_as_fast_as(target) => {}
                Some(_) => lanes.pace = target.pace(),
                None => {
                    lanes.pace = target.pace();
                    // There may be runs from when it was there before.
                    self.owes = Some(Compare::All);
                }
            }
        }
        for (old, new) in renamed(&self.in_force, &supply) {
            let hold = self.holds.get(&new).copied().unwrap_or_default();
            for lanes in self.airflows.values_mut() {
                lanes.queue.rename(&old, &new);
                let given_back = lanes.queue.hold(&new, hold, self.locks.earlier());
                self.locks.give_back(given_back);
            }
            self.renamed.values_mut().filter(|name| **name == old).for_each(|name| *name = new.clone());
            self.renamed.insert(old, new);
        }
        self.renamed.retain(|old, _| !supply.schedules.contains_key(old));
        for (name, lanes) in &mut self.airflows {
            if !supply.targets.contains_key(name) {
                lanes.target = None;
            }
            let turn = |schedule: &ScheduleName| Some(supply.schedules.get(schedule)?.overlap.into());
            lanes.queue.set_turns(turn);
        }
        self.in_force = supply;
    }

    async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Message>,
        mut tickets: mpsc::UnboundedReceiver<Ticket>,
        mut events: broadcast::Receiver<LedgerEvent>,
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
                changed = self.gates.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.apply_gates();
                }
                Ok(()) = self.supply.changed() => self.take_supply(),
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
        let confirmed = answer_of(&self.leadership, "the lead", || self.ledger.confirm_lead(&self.leadership));
        confirmed.await.unwrap_or(Ok(()))
    }

    fn turn(&self, schedule: &ScheduleName) -> Turn {
        self.in_force.schedules.get(schedule).map_or(Overlap::Allow, |schedule| schedule.overlap).into()
    }

    fn offer(&mut self, tickets: Vec<Ticket>) {
        let now = self.clock.now();
        for mut ticket in tickets {
            ticket.schedule = self.name_now(ticket.schedule);
            let turn = self.turn(&ticket.schedule);
            if let Some(lanes) = self.airflows.get_mut(ticket.airflow.as_str()) {
                let schedule = ticket.schedule.clone();
                lanes.queue.offer(ticket, turn, now);
                if let Some(hold) = self.holds.get(&schedule) {
                    let given_back = lanes.queue.hold(&schedule, *hold, self.locks.earlier());
                    self.locks.give_back(given_back);
                }
            } else {
                tracing::warn!(
                    run.id = ticket.id.0,
                    schedule = %ticket.schedule,
                    airflow = %ticket.airflow,
                    "a run waits for an Airflow that is not configured any more; it stays pending until that is back"
                );
            }
        }
    }

    /// What a schedule is called now that had this name when it was recorded or sent.
    fn name_now(&self, name: ScheduleName) -> ScheduleName {
        self.renamed.get(&name).cloned().unwrap_or(name)
    }

    fn opened(&mut self, mut active: ActiveRun) {
        active.schedule = self.name_now(active.schedule);
        let turn = self.turn(&active.schedule);
        if let Some(lanes) = self.airflows.get_mut(active.airflow.as_str()) {
            lanes.queue.opened(active, turn);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Answered { airflow, load } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.pace.on_answer(load, lanes.in_flight, Instant::now());
                    lanes.in_flight -= 1;
                }
            }
            Message::Recorded { mut ticket, outcome } => {
                ticket.schedule = self.name_now(ticket.schedule);
                let Some(lanes) = self.airflows.get_mut(ticket.airflow.as_str()) else { return };
                let (schedule, run) = (ticket.schedule.clone(), ticket.id);
                let known = match outcome {
                    Ok(AttemptOutcome::Accepted(state)) if state.as_run_state().is_open() => {
                        let active = ActiveRun {
                            id: ticket.id,
                            schedule: ticket.schedule,
                            airflow: ticket.airflow,
                            dag_id: ticket.dag_id,
                            dag_run_id: ticket.dag_run_id,
                        };
                        lanes.queue.answered(&schedule, run, Answer::Open(active))
                    }
                    Ok(AttemptOutcome::Accepted(_) | AttemptOutcome::Rejected) => {
                        lanes.queue.answered(&schedule, run, Answer::Done)
                    }
                    Ok(AttemptOutcome::Retry { at } | AttemptOutcome::Unknown { at }) => {
                        lanes.queue.try_again(*ticket, at)
                    }
                    // Whoever leads next finds the row as it was.
                    Err(StoreError::Fenced { .. } | StoreError::Closed) => true,
                    Err(error) => {
                        tracing::warn!(
                            run.id = run.0,
                            schedule = %schedule,
                            error = %error,
                            "the outcome of a request could not be recorded; Airflow is asked again in a moment"
                        );
                        let at = self.clock.now().saturating_add(RECORD_AGAIN_AFTER).unwrap_or(Timestamp::MAX);
                        lanes.queue.try_again(*ticket, at)
                    }
                };
                if !known {
                    self.locks.give_back([run]);
                }
            }
            Message::NotEnded { airflow, run } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.cancelling.remove(&run);
                }
            }
            Message::OwnsLock { airflow, schedule, run, lock } => {
                let schedule = self.name_now(schedule);
                // It may have ended while the ledger was read.
                let stage = self.airflows.get(airflow.as_str()).and_then(|lanes| lanes.queue.stage(&schedule, run));
                if matches!(stage, Some(Stage::Open(_) | Stage::Handed(Word::Open(_)))) {
                    self.locks.owns(run, lock);
                }
            }
            Message::Refilled { airflow, schedule, tickets } => {
                let schedule = self.name_now(schedule);
                let Some(lanes) = self.airflows.get_mut(&airflow) else { return };
                let (tickets, full) = match tickets {
                    Ok(tickets) => {
                        let full = tickets.len() >= LANE_LENGTH;
                        (tickets, full)
                    }
                    Err(error) => {
                        tracing::warn!(schedule = %schedule, error = %error, "waiting runs could not be read; tried again");
                        (Vec::new(), true)
                    }
                };
                let news = lanes.queue.refilled(&schedule, tickets);
                self.offer(news);
                if full && let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.queue.refill_later(&schedule);
                }
            }
        }
    }

    /// Follows what others did to runs: the monitor closed one, an operator gave one up.
    async fn follow(
        &mut self,
        event: Result<LedgerEvent, RecvError>,
        events: &mut broadcast::Receiver<LedgerEvent>,
        tickets: &mut mpsc::UnboundedReceiver<Ticket>,
    ) {
        let mut next = Some(event);
        while let Some(event) = next {
            // A run is delivered before anything is told of it, so it must not be taken in after that.
            self.offer(std::iter::from_fn(|| tickets.try_recv().ok()).collect());
            match event {
                Ok(event) => self.follow_one(&event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "too many changes at once; the open rows are read again");
                    self.compare(Compare::Known).await;
                }
                Err(RecvError::Closed) => return,
            }
            next = match events.try_recv() {
                Ok(event) => Some(Ok(event)),
                Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
                Err(TryRecvError::Empty | TryRecvError::Closed) => None,
            };
        }
    }

    fn follow_one(&mut self, event: &LedgerEvent) {
        let Some(schedule) = ScheduleName::new(&event.schedule).map(|name| self.name_now(name)) else { return };
        if matches!(event.state, RunState::Queued | RunState::Running) {
            let active = ActiveRun {
                id: event.run,
                schedule,
                airflow: event.airflow.clone(),
                dag_id: event.dag_id.clone(),
                dag_run_id: event.dag_run_id.clone(),
            };
            self.look_for_lock(&active);
            self.opened(active);
        } else if !event.state.is_open() {
            let mut known = false;
            if let Some(lanes) = self.airflows.get_mut(event.airflow.as_str()) {
                lanes.cancelling.remove(&event.run);
                known = lanes.queue.closed(&schedule, event.run, event.state.was_accepted());
            }
            // While a request is on its way, its DAG run may still come about.
            if !known {
                self.locks.give_back([event.run]);
            }
        }
    }

    /// A run that is in Airflow and was not sent there just now (somebody cleared its DAG run) may own a
    /// lock that it has given back.
    fn look_for_lock(&self, active: &ActiveRun) {
        let stage =
            self.airflows.get(active.airflow.as_str()).and_then(|lanes| lanes.queue.stage(&active.schedule, active.id));
        // Those that wait in line have not asked for theirs.
        let asked = stage.is_some_and(|stage| *stage != Stage::Waiting);
        if asked || !self.locks.are_there() {
            return;
        }
        let (ledger, leadership, to_loop) = (self.ledger.clone(), self.leadership.clone(), self.to_loop.clone());
        let (airflow, schedule, run) = (active.airflow.clone(), active.schedule.clone(), active.id);
        self.requests.spawn(async move {
            let what = "the lock of a run that is in Airflow again";
            match answer_of(&leadership, what, || ledger.lock_of(run)).await {
                Some(Ok(Some(lock))) => drop(to_loop.send(Message::OwnsLock { airflow, schedule, run, lock })),
                Some(Ok(None)) | None => {}
                Some(Err(error)) => tracing::warn!(
                    run.id = run.0,
                    error = %error,
                    "whether a run that was taken up again owns a lock could not be read; it runs without it"
                ),
            }
        });
    }

    /// A run has its lock: it goes as soon as there is a place.
    fn has_lock(&mut self, run: RunId) {
        if !self.airflows.values_mut().any(|lanes| lanes.queue.has_lock(run)) {
            tracing::debug!(run.id = run.0, "a run got a lock that it does not wait for any more");
        }
    }

    fn apply_gates(&mut self) {
        let gates = Arc::clone(&self.gates.borrow_and_update());
        let holds: HashMap<ScheduleName, Hold> =
            gates.iter().map(|(schedule, gate)| (schedule.clone(), hold_of(gate))).collect();
        self.skipping = gates
            .iter()
            .filter_map(|(schedule, gate)| match gate {
                Gate::Skipping { reason } => Some((schedule.clone(), Arc::clone(reason))),
                Gate::Open | Gate::Submitting | Gate::Paused { .. } => None,
            })
            .collect();
        for lanes in self.airflows.values_mut() {
            for schedule in self.holds.keys().filter(|schedule| !holds.contains_key(*schedule)) {
                lanes.queue.hold(schedule, Hold::default(), self.locks.earlier());
            }
            for (schedule, hold) in &holds {
                let given_back = lanes.queue.hold(schedule, *hold, self.locks.earlier());
                self.locks.give_back(given_back);
            }
        }
        self.holds = holds;
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

    /// Starts as many requests as may be in flight.
    fn pump(&mut self) {
        let now = self.clock.now();
        let names: Vec<Arc<str>> = self.airflows.keys().cloned().collect();
        for name in names {
            if self.airflows.get(&name).is_none_or(|lanes| lanes.target.is_none()) {
                continue;
            }
            while let Some(ticket) = self.airflows.get_mut(&name).and_then(|lanes| lanes.queue.next_to_lock()) {
                self.lock(&name, ticket);
            }
            // Asked once: what may start together must not start one by one.
            let full = self.airflows.get(&name).map_or(0, |lanes| lanes.in_flight + lanes.room());
            while let Some(ticket) = self
                .airflows
                .get_mut(&name)
                .and_then(|lanes| (lanes.in_flight < full).then(|| lanes.queue.take(now)).flatten())
            {
                self.submit(&name, ticket);
            }
            self.replace_running(&name);
            self.refill(&name);
        }
    }

    /// Why a run is to be skipped, if it is. A run by hand goes all the same, and one that was tried
    /// before may be in Airflow already.
    fn skip_reason(&self, ticket: &Ticket) -> Option<Arc<str>> {
        let new = ticket.attempts == 0 && !self.locks.earlier().contains(&ticket.id);
        let reason = self.skipping.get(&ticket.schedule)?;
        (new && ticket.trigger != TriggerKind::Manual).then(|| Arc::clone(reason))
    }

    /// Asks for the lock of a run that nothing else stands in the way of.
    fn lock(&mut self, name: &Arc<str>, ticket: Ticket) {
        if let Some(reason) = self.skip_reason(&ticket) {
            self.skip(ticket, reason);
        } else if let Some(lanes) = self.airflows.get_mut(name) {
            self.locks.ask(&ticket);
            lanes.queue.wait_for_lock(ticket);
        }
    }

    fn submit(&mut self, name: &Arc<str>, ticket: Ticket) {
        if let Some(reason) = self.skip_reason(&ticket) {
            self.skip(ticket, reason);
            return;
        }
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        // Nobody is handed out while there is no room, and without a target there is none.
        let Some(target) = &lanes.target else { return };
        lanes.in_flight += 1;
        let schedule = self.in_force.schedules.get(&ticket.schedule);
        let request = Request {
            airflow: target.airflow.clone(),
            name: Arc::clone(name),
            ledger: self.ledger.clone(),
            leadership: self.leadership.clone(),
            clock: self.clock.clone(),
            policy: schedule.map_or_else(RetryPolicy::default, |schedule| schedule.retry),
            link: self.link.clone(),
            to_loop: self.to_loop.clone(),
        };
        self.requests.spawn(request.make(ticket));
    }

    /// Lets a policy close a run instead of submitting it.
    fn skip(&self, ticket: Ticket, reason: Arc<str>) {
        let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
        let to_loop = self.to_loop.clone();
        self.requests.spawn(async move {
            let skipping =
                answer_of(&leadership, "a run to be skipped", || ledger.skip(&leadership, ticket.id, &reason));
            // Without the lead it is left to whoever has it.
            let Some(skipped) = skipping.await else { return };
            let outcome = skipped.map(|_| AttemptOutcome::Rejected);
            // The loop outlives what it spawns.
            let _ = to_loop.send(Message::Recorded { ticket: Box::new(ticket), outcome });
        });
    }

    /// Ends the runs that a newer one is waiting to replace, each once.
    fn replace_running(&mut self, name: &Arc<str>) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        let Some(target) = &lanes.target else { return };
        for active in lanes.queue.to_cancel() {
            if !lanes.cancelling.insert(active.id) {
                continue;
            }
            let (active, airflow, name) = (active.clone(), target.airflow.clone(), Arc::clone(name));
            let (ledger, leadership, to_loop) = (self.ledger.clone(), self.leadership.clone(), self.to_loop.clone());
            self.requests.spawn(async move {
                // A newer leader may be starting what this one would end.
                let confirming = answer_of(&leadership, "the end of a run", || ledger.confirm_lead(&leadership));
                if !matches!(confirming.await, Some(Ok(()))) {
                    return;
                }
                match airflow.fail_run(&active.dag_id, &active.dag_run_id).await {
                    Ok(()) => tracing::info!(
                        run.id = active.id.0,
                        schedule = %active.schedule,
                        "ended a DAG run for a newer occurrence (overlap = \"cancel_running\")"
                    ),
                    Err(error) => {
                        tracing::warn!(
                            run.id = active.id.0,
                            schedule = %active.schedule,
                            error = %error,
                            "a DAG run could not be ended for a newer occurrence, which waits; tried again soon"
                        );
                        // Nobody waits for it once the lead is given up.
                        let pause = tokio::time::sleep(END_AGAIN_AFTER);
                        if leadership.lost().run_until_cancelled(pause).await.is_some() {
                            let _ = to_loop.send(Message::NotEnded { airflow: name, run: active.id });
                        }
                    }
                }
            });
        }
    }

    fn refill(&mut self, name: &Arc<str>) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        for schedule in lanes.queue.take_overflowed() {
            let (ledger, to_loop, airflow) = (self.ledger.clone(), self.to_loop.clone(), Arc::clone(name));
            self.requests.spawn(async move {
                let limit = u32::try_from(LANE_LENGTH).unwrap_or(PAGE);
                let tickets = ledger.pending(Some(schedule.as_str()), RunId(0), limit).await;
                // The loop has ended: the rows are read again by whoever leads next.
                let _ = to_loop.send(Message::Refilled { airflow, schedule, tickets });
            });
        }
    }
}

/// Schedules with another name than before, by that.
fn renamed(before: &Supply, after: &Supply) -> Vec<(ScheduleName, ScheduleName)> {
    let renamed = |schedule: &Arc<Schedule>| {
        let was = schedule.was.as_ref()?;
        let moved = before.schedules.contains_key(was)
            && !after.schedules.contains_key(was)
            && !before.schedules.contains_key(&schedule.name);
        moved.then(|| (was.clone(), schedule.name.clone()))
    };
    after.schedules.values().filter_map(renamed).collect()
}

/// What a gate holds back here.
fn hold_of(gate: &Gate) -> Hold {
    match gate {
        Gate::Open => Hold::default(),
        Gate::Paused { dag, .. } => Hold { triggered: true, locked: *dag, skipping: false },
        Gate::Submitting => Hold { locked: true, ..Hold::default() },
        Gate::Skipping { .. } => Hold { locked: true, skipping: true, ..Hold::default() },
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

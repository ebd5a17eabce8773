//! The only submitter: takes recorded runs to Airflow, a few at a time, fairly, until each is proven.
//!
//! It reads pending rows, asks `queue` who goes next, lets the client submit, and records what came
//! of it. It never closes a run that Airflow has (the monitor does) and never decides that something
//! is due (the triggers do). After a crash it starts from the open rows: the same ids are submitted
//! again, and Airflow's unique key makes that harmless.

mod locks;
mod queue;
mod request;
mod retry;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::airflow::Airflow;
use crate::airflow::pace::{Load, Pace};
use crate::clock::Clock;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{Overlap, RetryPolicy, Schedule, ScheduleName, TriggerKind};
use crate::locks::keeper::Desk;
use crate::metrics;
use crate::store::model::{AttemptOutcome, LedgerEvent, Ticket};
use crate::store::{ActiveRun, Leadership, Ledger, StoreError};
use crate::triggers::gate::{Gate, Gates};
use locks::Locks;
use queue::{Hold, LANE_LENGTH, Queue, Turn};
use request::Request;

/// How many messages are handled before the queues are asked again.
const BATCH: usize = 256;

/// How often lanes that hold nothing are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// How often the state of the queues is told to the metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// When Airflow is told again to end a run that a newer one replaces.
const END_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How many pending rows are read at once when the dispatcher starts.
const PAGE: u32 = 1000;

/// One Airflow and how fast it takes runs.
pub struct Target {
    /// The client.
    pub airflow: Airflow,
    /// Its limit of requests in flight.
    pub pace: Pace,
}

/// What the dispatcher needs.
pub struct Parts {
    /// Where runs come from and outcomes go.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// By name.
    pub targets: HashMap<Arc<str>, Target>,
    /// The schedules in force.
    pub schedules: HashMap<ScheduleName, Arc<Schedule>>,
    /// Which schedules are held back.
    pub gates: watch::Receiver<Gates>,
    /// Where the time comes from.
    pub clock: Clock,
    /// Address of this member for the notes of DAG runs.
    pub link: Option<String>,
    /// Where runs get their locks; `None` without a home ensemble.
    pub locks: Option<Desk>,
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
    OwnsLock { run: RunId, lock: Arc<str> },
}

struct Lanes {
    target: Target,
    queue: Queue,
    in_flight: usize,
    /// Active runs, for ending them under `cancel_running`.
    active: HashMap<RunId, ActiveRun>,
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
    dispatcher.load().await?;
    dispatcher.run(messages, tickets, events).await
}

struct Dispatcher {
    ledger: Ledger,
    leadership: Leadership,
    schedules: HashMap<ScheduleName, Arc<Schedule>>,
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
    /// Whether what others did to runs has still to be read from the ledger.
    missed_events: bool,
}

impl Dispatcher {
    fn new(parts: Parts, to_loop: mpsc::UnboundedSender<Message>) -> Self {
        let airflows = parts
            .targets
            .into_iter()
            .map(|(name, target)| {
                let lanes = Lanes {
                    target,
                    queue: Queue::default(),
                    in_flight: 0,
                    active: HashMap::new(),
                    cancelling: HashSet::new(),
                };
                (name, lanes)
            })
            .collect();
        Self {
            ledger: parts.ledger,
            leadership: parts.leadership,
            schedules: parts.schedules,
            gates: parts.gates,
            clock: parts.clock,
            link: parts.link.map(Into::into),
            airflows,
            holds: HashMap::new(),
            locks: Locks::new(parts.locks),
            skipping: HashMap::new(),
            to_loop,
            requests: TaskTracker::new(),
            missed_events: false,
        }
    }

    /// Reads the open rows, of this life or an earlier one.
    async fn load(&mut self) -> Result<(), StoreError> {
        for active in self.ledger.active().await? {
            self.opened(active);
        }
        self.locks.load(self.ledger.lock_owners().await?);
        let mut after = RunId(0);
        loop {
            let page = self.ledger.pending(None, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            self.offer(page);
        }
        self.apply_gates();
        self.locks.ready();
        Ok(())
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
        loop {
            self.pump();
            let next_try = self.next_try();
            tokio::select! {
                biased;
                () = lost.cancelled() => break,
                _ = messages.recv_many(&mut told, BATCH) => told.drain(..).for_each(|message| self.handle(message)),
                _ = tickets.recv_many(&mut arrived, BATCH) => self.offer(std::mem::take(&mut arrived)),
                event = events.recv() => self.follow(event, &mut events).await,
                run = self.locks.granted() => self.has_lock(run),
                changed = self.gates.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.apply_gates();
                }
                () = sleep_until(next_try, &self.clock) => {}
                _ = tidy.tick() => self.tidy(),
                _ = report.tick() => {
                    self.report();
                    if self.missed_events {
                        self.reload().await;
                    }
                }
            }
        }
        // Requests in flight are finished and recorded; what waits is found again in the ledger.
        self.requests.close();
        self.requests.wait().await;
        Ok(())
    }

    fn turn(&self, schedule: &ScheduleName) -> Turn {
        self.schedules.get(schedule).map_or(Overlap::Allow, |schedule| schedule.overlap).into()
    }

    fn offer(&mut self, tickets: Vec<Ticket>) {
        let now = self.clock.now();
        for ticket in tickets {
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
                    "a run waits for an Airflow that is not configured any more; it stays pending"
                );
            }
        }
    }

    fn opened(&mut self, active: ActiveRun) {
        let turn = self.turn(&active.schedule);
        if let Some(lanes) = self.airflows.get_mut(active.airflow.as_str()) {
            lanes.queue.opened(&active.schedule, active.id, turn);
            lanes.active.insert(active.id, active);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Answered { airflow, load } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.target.pace.on_answer(load, lanes.in_flight, Instant::now());
                    lanes.in_flight -= 1;
                }
            }
            Message::Recorded { ticket, outcome } => {
                let Some(lanes) = self.airflows.get_mut(ticket.airflow.as_str()) else { return };
                match outcome {
                    Ok(AttemptOutcome::Accepted(state)) => {
                        let open = state.as_run_state().is_open();
                        lanes.queue.settled(&ticket.schedule, ticket.id, open);
                        if open {
                            let active = ActiveRun {
                                id: ticket.id,
                                schedule: ticket.schedule,
                                airflow: ticket.airflow,
                                dag_id: ticket.dag_id,
                                dag_run_id: ticket.dag_run_id,
                            };
                            lanes.active.insert(active.id, active);
                        } else {
                            self.locks.give_back([ticket.id]);
                        }
                    }
                    Ok(AttemptOutcome::Retry { at } | AttemptOutcome::Unknown { at }) => {
                        let run = ticket.id;
                        if !lanes.queue.try_again(*ticket, at) {
                            self.locks.give_back([run]);
                        }
                    }
                    Ok(AttemptOutcome::Rejected) => {
                        lanes.queue.settled(&ticket.schedule, ticket.id, false);
                        self.locks.give_back([ticket.id]);
                    }
                    // Fenced or closing: whoever leads next finds the row as it was.
                    Err(error) => tracing::warn!(
                        run.id = ticket.id.0,
                        schedule = %ticket.schedule,
                        error = %error,
                        "the outcome of a request could not be recorded; the next leader asks Airflow again"
                    ),
                }
            }
            Message::NotEnded { airflow, run } => {
                if let Some(lanes) = self.airflows.get_mut(&airflow) {
                    lanes.cancelling.remove(&run);
                }
            }
            Message::OwnsLock { run, lock } => self.locks.owns(run, lock),
            Message::Refilled { airflow, schedule, tickets } => match tickets {
                Ok(tickets) => {
                    let full = tickets.len() >= LANE_LENGTH;
                    self.offer(tickets);
                    if full && let Some(lanes) = self.airflows.get_mut(&airflow) {
                        lanes.queue.refill_later(&schedule);
                    }
                }
                Err(error) => {
                    tracing::warn!(schedule = %schedule, error = %error, "waiting runs could not be read; tried again");
                    if let Some(lanes) = self.airflows.get_mut(&airflow) {
                        lanes.queue.refill_later(&schedule);
                    }
                }
            },
        }
    }

    /// Follows what others did to runs: the monitor closed one, an operator gave one up.
    async fn follow(
        &mut self,
        event: Result<LedgerEvent, broadcast::error::RecvError>,
        events: &mut broadcast::Receiver<LedgerEvent>,
    ) {
        let mut next = event;
        loop {
            match next {
                Ok(event) => self.follow_one(&event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "too many changes at once; the open rows are read again");
                    self.reload().await;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
            match events.try_recv() {
                Ok(event) => next = Ok(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    next = Err(broadcast::error::RecvError::Lagged(missed));
                }
                Err(_) => return,
            }
        }
    }

    fn follow_one(&mut self, event: &LedgerEvent) {
        let Some(schedule) = ScheduleName::new(&event.schedule) else { return };
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
            let mut requesting = false;
            if let Some(lanes) = self.airflows.get_mut(event.airflow.as_str()) {
                lanes.active.remove(&event.run);
                lanes.cancelling.remove(&event.run);
                requesting = lanes.queue.closed(&schedule, event.run);
            }
            // While a request is on its way, its DAG run may still come about.
            if !requesting {
                self.locks.give_back([event.run]);
            }
        }
    }

    /// A run that is in Airflow and was not sent there just now (somebody cleared its DAG run) may own a
    /// lock that it has given back.
    fn look_for_lock(&self, active: &ActiveRun) {
        let known = self.airflows.get(active.airflow.as_str()).is_some_and(|lanes| {
            lanes.active.contains_key(&active.id) || lanes.queue.is_under_way(&active.schedule, active.id)
        });
        if known || !self.locks.are_there() {
            return;
        }
        let (ledger, to_loop, run) = (self.ledger.clone(), self.to_loop.clone(), active.id);
        self.requests.spawn(async move {
            match ledger.lock_of(run).await {
                Ok(Some(lock)) => drop(to_loop.send(Message::OwnsLock { run, lock })),
                Ok(None) => {}
                Err(error) => tracing::warn!(
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

    /// Events were missed: compares what is held here with the ledger.
    async fn reload(&mut self) {
        self.missed_events = true;
        match self.compare_with_ledger().await {
            Ok(()) => self.missed_events = false,
            Err(error) => tracing::warn!(error = %error, "the open rows could not be read; tried again in a second"),
        }
    }

    async fn compare_with_ledger(&mut self) -> Result<(), StoreError> {
        let open = self.ledger.active().await?;
        let ids: HashSet<RunId> = open.iter().map(|active| active.id).collect();
        let waiting: Vec<RunId> =
            self.airflows.values().flat_map(|lanes| lanes.queue.waiting()).map(|(_, run)| run).collect();
        let given_up = self.ledger.not_pending(&waiting).await?;
        for lanes in self.airflows.values_mut() {
            let gone: Vec<_> = lanes.active.values().filter(|active| !ids.contains(&active.id)).cloned().collect();
            for active in gone {
                lanes.active.remove(&active.id);
                lanes.cancelling.remove(&active.id);
                lanes.queue.closed(&active.schedule, active.id);
            }
            let waiting = lanes.queue.waiting().filter(|(_, run)| given_up.contains(run));
            let gone: Vec<_> = waiting.map(|(schedule, run)| (schedule.clone(), run)).collect();
            for (schedule, run) in gone {
                lanes.queue.closed(&schedule, run);
            }
        }
        self.locks.load(self.ledger.lock_owners().await?);
        for active in open {
            self.opened(active);
        }
        let owners = self.locks.owners();
        let still_open = self.ledger.open_among(&owners).await?;
        // What is over and on its way still is being requested: the answer decides.
        let requested = |run: &RunId| self.airflows.values().any(|lanes| lanes.queue.has_under_way(*run));
        let over: Vec<RunId> = owners.into_iter().filter(|run| !still_open.contains(run) && !requested(run)).collect();
        self.locks.give_back(over);
        Ok(())
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
        let free = |lanes: &&Lanes| lanes.target.pace.room(lanes.in_flight) > 0;
        self.airflows.values().filter(free).filter_map(|lanes| lanes.queue.next_try()).min()
    }

    fn report(&self) {
        for (name, lanes) in &self.airflows {
            metrics::airflow_pace(name, lanes.in_flight, lanes.target.pace.limit());
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
            while let Some(ticket) = self.airflows.get_mut(&name).and_then(|lanes| lanes.queue.next_to_lock()) {
                self.lock(&name, ticket);
            }
            // Asked once: what may start together must not start one by one.
            let full =
                self.airflows.get(&name).map_or(0, |lanes| lanes.in_flight + lanes.target.pace.room(lanes.in_flight));
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
        lanes.in_flight += 1;
        let schedule = self.schedules.get(&ticket.schedule);
        let request = Request {
            airflow: lanes.target.airflow.clone(),
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
            let outcome = ledger.skip(&leadership, ticket.id, &reason).await.map(|_| AttemptOutcome::Rejected);
            // The loop outlives what it spawns.
            let _ = to_loop.send(Message::Recorded { ticket: Box::new(ticket), outcome });
        });
    }

    /// Ends the runs that a newer one is waiting to replace, each once.
    fn replace_running(&mut self, name: &Arc<str>) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        for (schedule, runs) in lanes.queue.to_cancel() {
            for run in runs {
                let Some(active) = lanes.active.get(&run).cloned().filter(|_| lanes.cancelling.insert(run)) else {
                    continue;
                };
                let airflow = lanes.target.airflow.clone();
                let (schedule, name) = (schedule.clone(), Arc::clone(name));
                let (to_loop, lost) = (self.to_loop.clone(), self.leadership.lost().clone());
                self.requests.spawn(async move {
                    match airflow.fail_run(&active.dag_id, &active.dag_run_id).await {
                        Ok(()) => tracing::info!(
                            run.id = run.0,
                            schedule = %schedule,
                            "ended a DAG run for a newer occurrence (overlap = \"cancel_running\")"
                        ),
                        Err(error) => {
                            tracing::warn!(
                                run.id = run.0,
                                schedule = %schedule,
                                error = %error,
                                "a DAG run could not be ended for a newer occurrence, which waits; tried again soon"
                            );
                            // Nobody waits for it once the lead is given up.
                            if lost.run_until_cancelled(tokio::time::sleep(END_AGAIN_AFTER)).await.is_some() {
                                let _ = to_loop.send(Message::NotEnded { airflow: name, run });
                            }
                        }
                    }
                });
            }
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

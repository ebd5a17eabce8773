//! The cron trigger: one timer for all cron schedules.
//!
//! [`wheel`] decides what is due, [`timekeeper`] what time it is, [`recording`] what the ledger
//! takes; the loop here only waits and calls. Everything that is due at once becomes one recording,
//! so one transaction. Recordings are sent in order and not waited for: the next nominal time does
//! not wait for the disk. When the ledger refuses one, the loop ends.

mod edit;
mod edited;
mod recording;
mod timekeeper;
mod wheel;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use edit::Prepared;
pub use edited::settle_edited;
pub use timekeeper::{Reading, TimeEvent, TimeWitness, Timekeeper, Verdict};
pub use wheel::{CronWheel, Due};

use crate::clock::Clock;
use crate::domain::edit::Fates;
use crate::domain::policy::Blindness;
use crate::domain::schedule::{Schedule, ScheduleName, Trigger};
use crate::status::Status;
use crate::store::model::{RecordedRun, ScheduleStates};
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::gate::{Gate, Gates};

/// The longest sleep: the clocks are compared at least this often.
const TICK: Duration = Duration::from_secs(1);

/// The runtime's timers are this coarse: the last stretch before a nominal time is slept by a
/// thread of its own, which wakes within a fraction of a millisecond.
const TIMER_COARSENESS: Duration = Duration::from_millis(3);

/// About how many rows share a recording: a thousand schedules that are due in the same second do,
/// and a long catch-up leaves room for others between its parts.
const ROWS_PER_RECORDING: usize = 4096;

/// How many schedules share a recording when they are settled: each may have a hundred rows.
const DUE_PER_RECORDING: usize = 256;

/// How many recordings may be on their way to the disk; bounds memory while it does not answer.
const RECORDINGS_IN_FLIGHT: usize = 8;

/// How long a witness is left alone after it was asked.
const WITNESS_PAUSE: Duration = Duration::from_secs(10);

/// How long the end waits for recordings that are on their way.
const DRAIN: Duration = Duration::from_secs(5);

/// Other schedules come into force. Only one such edit is under way at a time.
#[derive(Debug)]
pub struct Edit {
    /// All schedules that are to be in force. Those that stay as they are are the same values as before.
    pub schedules: Arc<Vec<Arc<Schedule>>>,
    /// What becomes of each.
    pub fates: Fates,
    /// Told the moment of the edit, when everything that ends had due until then is in the ledger.
    pub settled: oneshot::Sender<Timestamp>,
    /// Tells what the ledger has of the schedules since it adopted them at that moment.
    pub adopted: oneshot::Receiver<Arc<ScheduleStates>>,
}

/// An edit that waits for the ledger to adopt the schedules; `None` when whoever was about to tell has gone.
type UnderWay = Boxed<Option<(Prepared, Arc<ScheduleStates>)>>;

/// What the cron trigger works with.
#[derive(Debug)]
pub struct Cron<W> {
    /// Takes what came due.
    pub ledger: Ledger,
    /// The right to record.
    pub leadership: Leadership,
    /// The wall clock.
    pub clock: Clock,
    /// Whom to ask when the wall clock leaps.
    pub witness: W,
    /// The schedules that are paused or skipping.
    pub gates: watch::Receiver<Gates>,
    /// Changes of the schedules.
    pub edits: mpsc::Receiver<Edit>,
    /// Where armed schedules are noted.
    pub status: Status,
    /// What came due at most this long before the loop begins is simply due, since another member may
    /// have led until then.
    pub on_time: SignedDuration,
    /// Ends the loop.
    pub shutdown: CancellationToken,
}

type Recorded = Result<Vec<RecordedRun>, StoreError>;
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the loop woke up for.
enum Event {
    /// Something may be due, or it is time to compare the clocks.
    Tick,
    Recorded(Recorded),
    Heard(Option<Timestamp>),
    Gates,
    Edit(Edit),
    /// `None` when the edit is given up.
    Adopted(Option<(Prepared, Arc<ScheduleStates>)>),
    Stop,
}

impl<W: TimeWitness + 'static> Cron<W> {
    /// Runs the cron schedules among `schedules` from where `states` says that they are, until
    /// `shutdown` or until the lead is lost. An error of the ledger ends it as well.
    pub async fn run(
        self,
        schedules: impl IntoIterator<Item = Arc<Schedule>>,
        states: &ScheduleStates,
    ) -> Result<(), StoreError> {
        let keeper = Timekeeper::new(Reading::take(&self.clock), self.witness.heard());
        if keeper.is_in_doubt() {
            let ahead = self.clock.now().duration_since(keeper.now());
            crate::metrics::clock_jumped();
            tracing::warn!(
                hint = "set the clock of this machine, or that of Airflow's",
                "the clock is {ahead:#} ahead of Airflow's; cron schedules go by Airflow's until the two agree"
            );
        }
        let mut driver = Driver {
            wheel: CronWheel::after_a_gap(self.on_time),
            keeper,
            in_flight: FuturesOrdered::new(),
            handed_over: VecDeque::new(),
            questions: FuturesUnordered::new(),
            asked_at: None,
            witness: Arc::new(self.witness),
            ledger: self.ledger,
            leadership: self.leadership,
            clock: self.clock,
            gates: self.gates,
            edits: self.edits,
            editing: None,
            status: self.status,
            shutdown: self.shutdown,
        };
        driver.arm(schedules, states);
        driver.run().await
    }
}

struct Driver<W> {
    wheel: CronWheel,
    keeper: Timekeeper,
    in_flight: FuturesOrdered<Boxed<Recorded>>,
    /// When each of them was handed to the ledger.
    handed_over: VecDeque<Timestamp>,
    /// At most one question to the witness.
    questions: FuturesUnordered<Boxed<Option<Timestamp>>>,
    asked_at: Option<Instant>,
    witness: Arc<W>,
    ledger: Ledger,
    leadership: Leadership,
    clock: Clock,
    gates: watch::Receiver<Gates>,
    edits: mpsc::Receiver<Edit>,
    editing: Option<UnderWay>,
    status: Status,
    shutdown: CancellationToken,
}

impl<W: TimeWitness + 'static> Driver<W> {
    fn arm(&mut self, schedules: impl IntoIterator<Item = Arc<Schedule>>, states: &ScheduleStates) {
        let now = self.keeper.now();
        let gates = Arc::clone(&self.gates.borrow_and_update());
        for schedule in schedules {
            let name = schedule.name.clone();
            // The other kinds of trigger note for themselves what is armed.
            if !matches!(schedule.trigger, Trigger::Cron(_)) {
                continue;
            }
            let cursor = states.get(&name).map_or(now, |state| state.cron_cursor);
            let gate = gates.get(&name).cloned().unwrap_or_default();
            if let Some(ahead) = self.wheel.insert(schedule, cursor, gate, Blindness::Down, now) {
                tracing::warn!(
                    schedule = %name,
                    ahead = %format_args!("{ahead:#}"),
                    "the ledger has handled nominal times that are still in the future; the schedule goes on from now \
                     (was the clock set back?)"
                );
            }
            self.status.set_armed(&name, self.wheel.is_armed(&name));
        }
    }

    async fn run(mut self) -> Result<(), StoreError> {
        loop {
            self.observe();
            if self.record_due().await? {
                // Building it took its time: look at the clocks again, more may have come due.
                continue;
            }
            self.ask_witness();
            match self.next_event().await {
                Event::Tick => {}
                Event::Recorded(recorded) => {
                    drop(recorded?);
                    self.is_recorded();
                }
                Event::Heard(answer) => self.hear(answer),
                Event::Gates => self.apply_gates(),
                Event::Edit(edit) => self.prepare(edit).await?,
                Event::Adopted(adopted) => self.make(adopted),
                Event::Stop => return self.drain().await,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let has_room = self.in_flight.len() < RECORDINGS_IN_FLIGHT;
        let wake = self.wheel.next_wake().filter(|_| has_room);
        let until_wake = wake.map(|wake| wake.duration_since(self.keeper.now()));
        tokio::select! {
            () = self.shutdown.cancelled() => Event::Stop,
            () = self.leadership.lost().cancelled() => Event::Stop,
            Some(recorded) = self.in_flight.next(), if !self.in_flight.is_empty() => Event::Recorded(recorded),
            Some(answer) = self.questions.next(), if !self.questions.is_empty() => Event::Heard(answer),
            Ok(()) = self.gates.changed() => Event::Gates,
            Some(edit) = self.edits.recv() => Event::Edit(edit),
            adopted = adopted(&mut self.editing) => Event::Adopted(adopted),
            () = sleep(until_wake) => Event::Tick,
        }
    }

    /// Compares the clocks, before anything is decided by them.
    fn observe(&mut self) {
        let Some(event) = self.keeper.observe(Reading::take(&self.clock)) else { return };
        let now = self.keeper.now();
        if !matches!(event, TimeEvent::Suspended(_)) {
            crate::metrics::clock_jumped();
        }
        match event {
            TimeEvent::Suspended(by) => {
                tracing::info!("the machine slept for {by:#}; catching up");
                self.wheel.interrupted(&Blindness::Suspended, now);
            }
            TimeEvent::Forward(by) => {
                tracing::warn!("the clock was set forward by {by:#}; catching up");
                self.wheel.interrupted(&Blindness::ClockJump, now);
            }
            TimeEvent::Doubted(by) => {
                tracing::warn!(
                    "the clock was set forward by {by:#}; cron schedules go on by the time before that until Airflow's \
                     clock agrees"
                );
            }
            TimeEvent::Back(by) => {
                let repeated = self.wheel.rewind(now);
                tracing::warn!(
                    "the clock was set back by {by:#}; {repeated} schedules go on from now, what has run does not run \
                     again"
                );
            }
        }
    }

    /// Sends what is due to the ledger, if that keeps up; whether there was something to send.
    async fn record_due(&mut self) -> Result<bool, StoreError> {
        if self.in_flight.len() >= RECORDINGS_IN_FLIGHT {
            return Ok(false);
        }
        let due = self.wheel.due(self.keeper.now(), ROWS_PER_RECORDING);
        if !due.is_empty() {
            self.record(&due).await?;
        }
        Ok(!due.is_empty())
    }

    async fn record(&mut self, due: &[Due]) -> Result<(), StoreError> {
        for Due { schedule, plan, .. } in due {
            for closed in &plan.closed {
                let (from, to, count) = (closed.span.first, closed.span.last, closed.span.count);
                tracing::info!(
                    schedule = %schedule.name, count, %from, %to,
                    "nominal times end as {} without a run: {}", closed.state, closed.reason
                );
            }
        }
        let recording = recording::recording(due, self.keeper.now());
        let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
        let mut recorded: Boxed<Recorded> = Box::pin(async move { ledger.record(&leadership, recording).await });
        // The first poll hands it to the ledger, so that recordings arrive there in order.
        match std::future::poll_fn(|context| Poll::Ready(recorded.as_mut().poll(context))).await {
            Poll::Ready(recorded) => drop(recorded?),
            Poll::Pending => {
                self.in_flight.push_back(recorded);
                self.handed_over.push_back(self.clock.now());
                self.status.set_unrecorded_since(self.handed_over.front().copied());
            }
        }
        Ok(())
    }

    /// Notes that the oldest of the recordings that are on their way has arrived.
    fn is_recorded(&mut self) {
        self.handed_over.pop_front();
        self.status.set_unrecorded_since(self.handed_over.front().copied());
    }

    fn ask_witness(&mut self) {
        let may_ask = self.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= WITNESS_PAUSE);
        if self.keeper.is_in_doubt() && self.questions.is_empty() && may_ask {
            self.asked_at = Some(Instant::now());
            let witness = Arc::clone(&self.witness);
            self.questions.push(Box::pin(async move { witness.time().await }));
        }
    }

    fn hear(&mut self, answer: Option<Timestamp>) {
        // The answer is compared with clocks that are read after it.
        self.observe();
        let Some(witness) = answer.filter(|_| self.keeper.is_in_doubt()) else { return };
        match self.keeper.hear(witness) {
            Verdict::Believed => {
                tracing::warn!("Airflow's clock agrees with the one that was set forward; catching up");
                self.wheel.interrupted(&Blindness::ClockJump, self.keeper.now());
            }
            Verdict::Doubted => tracing::error!(
                hint = "correct this machine's clock",
                "the clock does not agree with Airflow's: it says {}, Airflow {witness}; cron schedules go on by {}",
                self.clock.now(),
                self.keeper.now(),
            ),
        }
    }

    fn apply_gates(&mut self) {
        let gates = Arc::clone(&self.gates.borrow_and_update());
        let now = self.keeper.now();
        let changed: Vec<(ScheduleName, Gate)> = self
            .wheel
            .gates()
            .map(|(name, gate)| (name, gate, gates.get(name).unwrap_or(&Gate::Open)))
            .filter(|(_, gate, wanted)| gate != wanted)
            .map(|(name, _, wanted)| (name.clone(), wanted.clone()))
            .collect();
        for (name, gate) in changed {
            self.wheel.set_gate(&name, gate, now);
            self.status.set_armed(&name, self.wheel.is_armed(&name));
        }
    }

    /// Settles what ends with an edit; everything else goes on meanwhile.
    async fn prepare(&mut self, edit: Edit) -> Result<(), StoreError> {
        let now = self.keeper.now();
        let (prepared, due) = self.wheel.prepare(&edit.schedules, &edit.fates, now);
        for due in due.chunks(DUE_PER_RECORDING) {
            self.record(due).await?;
        }
        // A cursor that is on its way must not overtake the one that the ledger gives the edited schedule.
        while !self.in_flight.is_empty() {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                () = self.leadership.lost().cancelled() => return Ok(()),
                Some(recorded) = self.in_flight.next() => {
                    recorded?;
                    self.is_recorded();
                }
            }
        }
        // Who asked may have gone with the term.
        let _ = edit.settled.send(now);
        let looking_ahead = tokio::task::spawn_blocking(move || {
            let mut prepared = prepared;
            prepared.look_ahead();
            prepared
        });
        // Looking ahead fails only when the process ends.
        self.editing = Some(Box::pin(async move { looking_ahead.await.ok().zip(edit.adopted.await.ok()) }));
        Ok(())
    }

    /// Goes over to what the ledger has adopted.
    fn make(&mut self, adopted: Option<(Prepared, Arc<ScheduleStates>)>) {
        self.editing = None;
        let Some((prepared, states)) = adopted else { return };
        let gates = Arc::clone(&self.gates.borrow());
        for name in self.wheel.make(prepared, &states, &gates, self.keeper.now()) {
            self.status.set_armed(&name, self.wheel.is_armed(&name));
        }
        self.apply_gates();
    }

    /// Waits for what was handed to the ledger; what does not get there is found again at the next
    /// start, since its cursor has not moved.
    async fn drain(mut self) -> Result<(), StoreError> {
        let all = async {
            while let Some(recorded) = self.in_flight.next().await {
                recorded?;
            }
            Ok(())
        };
        tokio::time::timeout(DRAIN, all).await.unwrap_or(Ok(()))
    }
}

/// Waits until the ledger has adopted the edit that is under way. Cancel-safe.
async fn adopted(editing: &mut Option<UnderWay>) -> Option<(Prepared, Arc<ScheduleStates>)> {
    match editing {
        Some(editing) => editing.await,
        None => std::future::pending().await,
    }
}

/// Sleeps until a nominal time, precisely, and at most for a tick.
async fn sleep(until_wake: Option<SignedDuration>) {
    let wait = until_wake.map_or(TICK, |wait| Duration::try_from(wait).unwrap_or_default());
    if wait >= TICK {
        tokio::time::sleep(TICK.saturating_sub(TIMER_COARSENESS)).await;
        return;
    }
    let deadline = Instant::now() + wait;
    if wait > TIMER_COARSENESS {
        tokio::time::sleep(wait.saturating_sub(TIMER_COARSENESS)).await;
    }
    let rest = deadline.saturating_duration_since(Instant::now());
    if !rest.is_zero() {
        // Fails only when the runtime is going down, and then it does not matter.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(rest)).await;
    }
}

#[cfg(test)]
mod tests;

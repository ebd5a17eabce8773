//! The nominal times that come next, of all cron schedules together.
//!
//! A plain value: it is told the time and answers what is due and when to wake. An idle schedule is
//! one entry in an ordered set, so ten thousand of them cost as much as one timer. The cursor in
//! here runs ahead of the ledger's: it moves when an occurrence is handed out, not when it is
//! recorded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::domain::policy::{Blindness, CatchUp, DuePlan, ON_TIME, due_at, plan_due};
use crate::domain::schedule::{CronTrigger, Schedule, ScheduleName, Trigger};
use crate::triggers::gate::Gate;

/// The most runs of one schedule that one look plans, so that a long catch-up does not hold the
/// others up.
const RUNS_PER_LOOK: usize = 100;

/// A cursor this little ahead of the clock is the clock's own unrest, not a fault.
const CURSOR_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// The cron schedules, and when each is due next.
#[derive(Debug)]
pub struct CronWheel {
    entries: HashMap<ScheduleName, Entry>,
    queue: BTreeSet<(Timestamp, ScheduleName)>,
    /// What came due at most this long before while nobody led is simply due.
    on_time_after_downtime: SignedDuration,
}

impl Default for CronWheel {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug)]
struct Entry {
    schedule: Arc<Schedule>,
    /// All nominal times up to here have been handed out.
    cursor: Timestamp,
    gate: Gate,
    /// The first nominal time after the cursor.
    next: Option<Timestamp>,
    /// Why nominal times up to a moment may have gone by unseen.
    blind: Option<(Blindness, Timestamp)>,
    /// Its place in the queue.
    wake: Option<Timestamp>,
    /// It has no place there, whatever comes due: an edit of it is under way.
    held: bool,
}

/// What one schedule has due.
#[derive(Debug)]
pub struct Due {
    /// The schedule.
    pub schedule: Arc<Schedule>,
    /// Whether its runs are to be skipped.
    pub gate: Gate,
    /// What becomes of its nominal times.
    pub plan: DuePlan,
}

impl CronWheel {
    /// No schedules. What came due unseen is late after the usual time.
    pub fn new() -> Self {
        Self::after_a_gap(ON_TIME)
    }

    /// The same at the beginning of a term: what came due at most `on_time` before, while nobody led, is
    /// simply due.
    pub fn after_a_gap(on_time: SignedDuration) -> Self {
        Self { entries: HashMap::new(), queue: BTreeSet::new(), on_time_after_downtime: on_time }
    }

    /// Adds a schedule, or puts it in the place of one with the same name. What came due since
    /// `cursor` is caught up with as its policy says; `why` is the reason that it was not seen.
    ///
    /// A schedule without a cron trigger is left out. Returns how far the cursor was ahead of `now`
    /// when that is worth a report; it is then taken to be `now`, as the ids make repeats harmless.
    pub fn insert(
        &mut self,
        schedule: Arc<Schedule>,
        cursor: Timestamp,
        gate: Gate,
        why: Blindness,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        self.insert_with_next(schedule, cursor, gate, why, now, None)
    }

    /// The same where the caller knows the first nominal time after the cursor, if that is not ahead of
    /// `now`: to search for it is what takes long.
    pub(super) fn insert_with_next(
        &mut self,
        schedule: Arc<Schedule>,
        cursor: Timestamp,
        gate: Gate,
        why: Blindness,
        now: Timestamp,
        next: Option<Timestamp>,
    ) -> Option<SignedDuration> {
        let name = schedule.name.clone();
        self.remove(&name);
        cron(&schedule)?;
        let ahead = cursor.duration_since(now);
        let entry = Entry {
            schedule,
            cursor: cursor.min(now),
            gate,
            next: None,
            blind: Some((why, now)),
            wake: None,
            held: false,
        };
        self.entries.insert(name.clone(), entry);
        self.queue(&name, next.filter(|_| cursor <= now));
        (ahead > CURSOR_TOLERANCE).then_some(ahead)
    }

    /// Takes a schedule out.
    pub fn remove(&mut self, name: &ScheduleName) {
        if let Some(Entry { wake: Some(wake), .. }) = self.entries.remove(name) {
            self.queue.remove(&(wake, name.clone()));
        }
    }

    /// The schedule of this name.
    pub(super) fn schedule(&self, name: &ScheduleName) -> Option<&Arc<Schedule>> {
        self.entries.get(name).map(|entry| &entry.schedule)
    }

    /// Has a schedule wait, whatever comes due.
    pub(super) fn hold(&mut self, name: &ScheduleName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.held = true;
        if let Some(wake) = entry.wake.take() {
            self.queue.remove(&(wake, name.clone()));
        }
    }

    /// Ends a trigger at `now`: what it had due until then, to be settled. It waits from here on.
    ///
    /// A nominal time belongs to the rule that was in force at that time, so one that waits for its jitter is
    /// settled as well.
    ///
    /// What a pause holds back is decided as at its end, and what is to run waits for that end. Where
    /// nobody could wait any more, since the schedule `leaves` its name, it is skipped.
    pub(super) fn end(&mut self, name: &ScheduleName, now: Timestamp, leaves: Option<&str>) -> Vec<Due> {
        self.hold(name);
        let Some(entry) = self.entries.get_mut(name) else { return Vec::new() };
        if let Gate::Paused { reason, .. } = entry.gate.clone() {
            entry.blind = Some((Blindness::Paused(reason.to_string()), now));
            entry.gate = match leaves {
                Some(how) => Gate::Skipping { reason: format!("the schedule {how} while paused: {reason}").into() },
                None => Gate::Open,
            };
        }
        let mut settled = Vec::new();
        while let Some(due) = entry.look(now, self.on_time_after_downtime, true) {
            let more = due.plan.more;
            settled.push(due);
            if !more {
                break;
            }
        }
        settled
    }

    /// Gives a schedule other policies, and the same nominal times as before.
    pub(super) fn go_on_as(&mut self, schedule: Arc<Schedule>) {
        let name = schedule.name.clone();
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.schedule = schedule;
            let next = entry.next;
            self.queue(&name, next);
        }
    }

    /// Opens or closes the gate of a schedule. What came due behind a closed gate is caught up with
    /// when it opens.
    pub fn set_gate(&mut self, name: &ScheduleName, gate: Gate, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let (Gate::Paused { reason, .. }, true) = (&entry.gate, gate.is_open()) {
            entry.blind = Some((Blindness::Paused(reason.to_string()), now));
        }
        entry.gate = gate;
        let next = entry.next;
        self.queue(name, next);
    }

    /// Notes that the time up to `now` went by unseen, for those who have something due in it.
    pub fn interrupted(&mut self, why: &Blindness, now: Timestamp) {
        for (_, name) in self.queue.iter().take_while(|(wake, _)| *wake <= now) {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.blind = entry.blindness().or_else(|| Some((why.clone(), now)));
            }
        }
    }

    /// Takes cursors that are ahead of `now` back to it, after the clock was set back. Returns how
    /// many there were.
    pub fn rewind(&mut self, now: Timestamp) -> usize {
        let ahead: Vec<ScheduleName> =
            self.entries.iter().filter(|(_, entry)| entry.cursor > now).map(|(name, _)| name.clone()).collect();
        for name in &ahead {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.cursor = now;
            }
            self.queue(name, None);
        }
        ahead.len()
    }

    /// What is due now, at most about `limit` rows of it; what is left is due at the next call.
    pub fn due(&mut self, now: Timestamp, limit: usize) -> Vec<Due> {
        let mut due = Vec::new();
        let mut rows = 0;
        // A schedule with more to come waits behind those that have not had their turn.
        let mut unfinished = Vec::new();
        while rows < limit
            && let Some((wake, _)) = self.queue.first()
            && *wake <= now
            && let Some((_, name)) = self.queue.pop_first()
        {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.wake = None;
            let Some(found) = entry.look(now, self.on_time_after_downtime, false) else {
                self.queue(&name, None);
                continue;
            };
            rows += found.plan.runs.len() + found.plan.closed.len();
            let next = found.plan.next.map(|next| next.at);
            if found.plan.more {
                unfinished.push((name, next));
            } else {
                self.queue(&name, next);
            }
            due.push(found);
        }
        for (name, next) in unfinished {
            self.queue(&name, next);
            self.enqueue_at(&name, now);
        }
        due
    }

    /// When [`Self::due`] has something next; `None` when no schedule is waiting.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.queue.first().map(|(wake, _)| *wake)
    }

    /// Whether a schedule is waiting for its next time.
    pub fn is_armed(&self, name: &ScheduleName) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.wake.is_some())
    }

    /// The names and gates of all schedules.
    pub fn gates(&self) -> impl Iterator<Item = (&ScheduleName, &Gate)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.gate))
    }

    /// How many schedules there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives a schedule its place in the queue, or none: paused, or never due again. `next` saves
    /// the search for its next time where the caller knows it.
    fn queue(&mut self, name: &ScheduleName, next: Option<Timestamp>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(wake) = entry.wake.take() {
            self.queue.remove(&(wake, name.clone()));
        }
        let Some(trigger) = cron(&entry.schedule) else { return };
        entry.next = next.or_else(|| trigger.next_after(entry.cursor).map(|next| next.at));
        if !entry.gate.is_open() || entry.held {
            return;
        }
        if let Some(next) = entry.next {
            let wake = due_at(&entry.schedule.name, trigger, next);
            entry.wake = Some(wake);
            self.queue.insert((wake, name.clone()));
        }
    }

    fn enqueue_at(&mut self, name: &ScheduleName, wake: Timestamp) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(old) = entry.wake.replace(wake) {
            self.queue.remove(&(old, name.clone()));
        }
        self.queue.insert((wake, name.clone()));
    }
}

impl Entry {
    /// Why its next nominal time may not have been seen; nothing that ended before that time counts.
    fn blindness(&mut self) -> Option<(Blindness, Timestamp)> {
        let next = self.next?;
        self.blind.take().filter(|(_, until)| next <= *until)
    }

    /// What is due, and the cursor moved past it; `None` when nothing is. Where the trigger `ends`, nothing
    /// waits for its jitter.
    fn look(&mut self, now: Timestamp, on_time_after_downtime: SignedDuration, ends: bool) -> Option<Due> {
        if self.next.is_none_or(|next| next > now) {
            // Nothing came due unseen either.
            self.blind = None;
            return None;
        }
        let (blindness, seeing_since) = self.blindness().unwrap_or((Blindness::HeldUp, now));
        let plan = plan_due(&CatchUp {
            schedule: &self.schedule.name,
            trigger: cron(&self.schedule)?,
            catchup: self.schedule.catchup,
            window: self.schedule.catchup_window,
            cursor: self.cursor,
            now,
            blindness: &blindness,
            seeing_since,
            on_time: if blindness == Blindness::Down { on_time_after_downtime } else { ON_TIME },
            ends,
            limit: RUNS_PER_LOOK,
        });
        self.blind = plan.more.then_some((blindness, seeing_since));
        self.cursor = plan.cursor?;
        Some(Due { schedule: Arc::clone(&self.schedule), gate: self.gate.clone(), plan })
    }
}

pub(super) fn cron(schedule: &Schedule) -> Option<&CronTrigger> {
    match &schedule.trigger {
        Trigger::Cron(trigger) => Some(trigger),
        Trigger::Znode(_) | Trigger::Ensemble(_) => None,
    }
}

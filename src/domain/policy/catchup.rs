//! Catch-up: what becomes of nominal times that were not seen when they came due.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::calendar::{NominalTime, Span, jitter};
use crate::domain::run::RunState;
use crate::domain::schedule::{Catchup, CronTrigger, ScheduleName};

/// An occurrence that is found at most this long after it came due is simply due: catch-up is not
/// asked. Long enough for a quick restart, a busy machine or a leap of the clock that nobody
/// notices; short enough that nobody would call the run a late one.
pub const ON_TIME: SignedDuration = SignedDuration::from_secs(10);

/// The same where another member may have led before: a leader that was killed is missed for the
/// session's timeout, and its successor needs a moment to begin. What comes due in between is not late.
pub fn on_time_after_a_failover(session_timeout: Duration) -> SignedDuration {
    SignedDuration::try_from(session_timeout.saturating_mul(2)).unwrap_or(SignedDuration::MAX).max(ON_TIME)
}

/// Why nominal times went by unseen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blindness {
    /// flowkeeper was not running, or did not lead.
    Down,
    /// The schedule was paused, by whom or why.
    Paused(String),
    /// The wall clock was set forward.
    ClockJump,
    /// The machine slept.
    Suspended,
    /// None of these: flowkeeper got no processor time, or its store did not take writes.
    HeldUp,
}

impl fmt::Display for Blindness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("came due while flowkeeper was not running"),
            Self::Paused(reason) if reason.is_empty() => f.write_str("came due while the schedule was paused"),
            Self::Paused(reason) => write!(f, "came due while the schedule was paused: {reason}"),
            Self::ClockJump => f.write_str("the clock was set forward past it"),
            Self::Suspended => f.write_str("came due while the machine was suspended"),
            Self::HeldUp => f.write_str("came due while flowkeeper was held up"),
        }
    }
}

/// What [`plan_due`] is asked.
#[derive(Debug, Clone, Copy)]
pub struct CatchUp<'a> {
    /// Whose, for the jitter.
    pub schedule: &'a ScheduleName,
    /// Its trigger.
    pub trigger: &'a CronTrigger,
    /// Its policy.
    pub catchup: Catchup,
    /// How far back the policy reaches from `seeing_since`; `None` is without limit.
    pub window: Option<Duration>,
    /// All nominal times up to here are covered.
    pub cursor: Timestamp,
    /// The time now.
    pub now: Timestamp,
    /// Why some may have gone by unseen.
    pub blindness: &'a Blindness,
    /// When that ended: the start, the end of the pause, the moment the jump was noticed. Stays the
    /// same while a long catch-up is worked off in parts.
    pub seeing_since: Timestamp,
    /// What came due at most this long before `seeing_since` is simply due.
    pub on_time: SignedDuration,
    /// Whether the trigger ends now: what has its nominal time behind it is due, however much of its jitter is
    /// left, since nobody waits for it any more.
    pub ends: bool,
    /// The most runs to plan at once.
    pub limit: usize,
}

/// Nominal times that end without a run, as one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Which.
    pub span: Span,
    /// [`RunState::Skipped`] or [`RunState::Missed`].
    pub state: RunState,
    /// Why; the same words for the same cause, so that rows which follow each other can be merged.
    pub reason: String,
}

/// What is due, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DuePlan {
    /// Those that end without a run; earlier than all of `runs`, except that newer ones may have
    /// been preferred.
    pub closed: Vec<Closed>,
    /// Those that run.
    pub runs: Vec<NominalTime>,
    /// All nominal times up to here are covered by this plan; `None` when nothing was due.
    pub cursor: Option<Timestamp>,
    /// The limit was reached: ask again from `cursor`.
    pub more: bool,
    /// The first nominal time after `cursor`, whether due or not; `None` when there is none.
    pub next: Option<NominalTime>,
}

/// What is due between the cursor and now: those that are on time run, the others as the catch-up
/// policy has it. Each nominal time in between is in exactly one part of the plan.
///
/// An occurrence with jitter is due when its delay is over, and never before the one ahead of it.
pub fn plan_due(ask: &CatchUp<'_>) -> DuePlan {
    // The clock may have been set back since: what lies ahead of it is not due.
    let ask = &CatchUp { seeing_since: ask.seeing_since.min(ask.now), ..*ask };
    let mut plan = DuePlan::default();
    let late_until = late_until(ask);
    let mut times = ask.trigger.times_after(ask.cursor);
    let mut next = times.next();
    if next.is_some_and(|next| next.at <= late_until) {
        plan_late(ask, late_until, &mut plan);
        times = ask.trigger.times_after(plan.cursor.unwrap_or(late_until));
        next = times.next();
    }
    while !plan.more
        && let Some(nominal) = next
        && nominal.at <= ask.now
        && (ask.ends || due_at(ask.schedule, ask.trigger, nominal.at) <= ask.now)
        && !plan.is_full(ask)
    {
        plan.run(nominal);
        next = times.next();
    }
    plan.next = next;
    plan
}

/// Nominal times up to here are late, those after it on time.
fn late_until(ask: &CatchUp<'_>) -> Timestamp {
    if let Blindness::Paused(_) = ask.blindness {
        // What came due during a pause is never on time, however short the pause was.
        return ask.seeing_since;
    }
    let jitter = SignedDuration::try_from(ask.trigger.jitter).unwrap_or(SignedDuration::MAX);
    earlier(ask.seeing_since, ask.on_time.saturating_add(jitter))
}

fn plan_late(ask: &CatchUp<'_>, late_until: Timestamp, plan: &mut DuePlan) {
    let mut from = ask.cursor;
    if let Some(window) = ask.window {
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        // The window's first instant still belongs to it.
        let outside = earlier(earlier(ask.seeing_since, window), SignedDuration::from_nanos(1)).min(late_until);
        if from < outside {
            plan.close(ask, from, outside, Refusal::OutsideWindow);
            from = outside;
        }
    }
    match ask.catchup {
        Catchup::None => plan.close(ask, from, late_until, Refusal::Off),
        Catchup::Latest => {
            let Some(late) = ask.trigger.span(from, late_until) else { return };
            let on_time = ask.trigger.next_after(late_until).is_some_and(|next| next.at <= ask.seeing_since);
            if on_time {
                plan.close(ask, from, late_until, Refusal::Superseded);
                return;
            }
            let before_last = earlier(late.last, SignedDuration::from_nanos(1));
            plan.close(ask, from, before_last, Refusal::Superseded);
            if let Some(last) = ask.trigger.next_after(before_last) {
                plan.run(last);
            }
        }
        Catchup::All => {
            for nominal in ask.trigger.times_after(from).take_while(|nominal| nominal.at <= late_until) {
                if plan.is_full(ask) {
                    return;
                }
                plan.run(nominal);
            }
        }
    }
}

/// When an occurrence is due: its nominal time and its jitter.
pub fn due_at(schedule: &ScheduleName, trigger: &CronTrigger, nominal: Timestamp) -> Timestamp {
    let delay = jitter(schedule, nominal, trigger.jitter);
    SignedDuration::try_from(delay).ok().and_then(|delay| nominal.checked_add(delay).ok()).unwrap_or(nominal)
}

/// Why an occurrence does not run.
#[derive(Clone, Copy)]
enum Refusal {
    Off,
    OutsideWindow,
    Superseded,
}

impl DuePlan {
    fn is_full(&mut self, ask: &CatchUp<'_>) -> bool {
        self.more = self.runs.len() >= ask.limit;
        self.more
    }

    fn run(&mut self, nominal: NominalTime) {
        self.cursor = Some(nominal.at);
        self.runs.push(nominal);
    }

    fn close(&mut self, ask: &CatchUp<'_>, after: Timestamp, until: Timestamp, refusal: Refusal) {
        let Some(span) = ask.trigger.span(after, until) else { return };
        let policy = match refusal {
            Refusal::Off => "catchup = \"none\"",
            Refusal::OutsideWindow => "outside catchup_window",
            Refusal::Superseded => "catchup = \"latest\" runs only the newest",
        };
        let state = match (ask.blindness, refusal) {
            (Blindness::Paused(_), _) | (_, Refusal::Superseded) => RunState::Skipped,
            (_, Refusal::Off | Refusal::OutsideWindow) => RunState::Missed,
        };
        self.cursor = Some(span.last);
        self.closed.push(Closed { span, state, reason: format!("{} ({policy})", ask.blindness) });
    }
}

fn earlier(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;

//! How many requests one Airflow gets at once, found by watching its answers.
//!
//! Limiters that read latency (Vegas and Gradient2, of the crate `tower-acc`) or errors (AIMD) were
//! looked at first. They find a limit by going past it, and an Airflow on `SQLite` does not forgive that:
//! two requests that overlap by chance stop its whole API server for five seconds. Measured there, two
//! requests that *start at the same instant* only take their turns. So the step from one to two is
//! tried with such pairs, in turn with single requests, and taken only if a pair is clearly cheaper
//! than two singles. From two on, throughput decides: the limit climbs while it pays, errors and
//! stalls halve it, and from time to time the neighbours are tried again, ever more rarely.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Never more than this many at once.
const MAX_LIMIT: usize = 64;
/// Singles and pairs that are compared, at least and at most.
const ROUNDS: (usize, usize) = (3, 6);
/// How much faster pairs must be than singles; measured 0.7 on `SQLite`, 1.7 on `PostgreSQL`.
const PAIR_GAIN: f64 = 1.05;
/// Comparisons beyond this gain, or below its loss, end early.
const CLEAR: (f64, f64) = (0.9, 1.3);
/// How much more throughput a higher limit must bring.
const CLIMB_GAIN: f64 = 1.06;
/// Answers in a measurement, per request in flight and at least; and how long it takes at least.
const WINDOW: (usize, usize, Duration) = (4, 8, Duration::from_millis(5));
/// An answer that takes this many times the usual, and this long, is a stall.
const STALL: (u32, Duration) = (10, Duration::from_secs(1));
/// The first and the longest pause before other limits are tried again.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));

/// What an answer says about Airflow's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It answered in its own time.
    Fine {
        /// From sending the request to the last byte of its answer, without logins and look-ups.
        round_trip: Duration,
    },
    /// It failed, timed out or asked for less.
    Overloaded,
    /// Nothing: there was no answer, or none that Airflow worked for.
    Unknown,
}

/// The limit of requests in flight.
#[derive(Debug)]
pub struct Pace(Mode);

#[derive(Debug)]
enum Mode {
    Fixed(usize),
    Auto(Search),
}

#[derive(Debug)]
struct Search {
    phase: Phase,
    /// The best limit so far, and its throughput in answers a second.
    best: (usize, f64),
    /// Not above this until then.
    ceiling: Option<(usize, Instant)>,
    /// Other limits are tried again at.
    again_at: Option<Instant>,
    patience: Duration,
    window: Option<Window>,
    /// A usual round trip, as a moving average.
    usual: Option<Duration>,
    /// Answers of requests that were sent before the limit last fell.
    stale: usize,
}

#[derive(Debug)]
enum Phase {
    /// One at a time, and pairs that start together in turn with singles.
    Rounds { singles: Vec<Duration>, pairs: Vec<Duration>, first_of_pair: Option<Duration> },
    /// One at a time.
    Single,
    /// Several, to see whether that is better than `best`. `climbing` goes on upwards if it is.
    Try { limit: usize, climbing: bool, then: Vec<usize> },
    /// The best limit.
    Hold,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    answers: usize,
}

impl Pace {
    /// A limit that is found.
    pub fn auto() -> Self {
        Self(Mode::Auto(Search {
            phase: Phase::rounds(),
            best: (1, 0.0),
            ceiling: None,
            again_at: None,
            patience: PATIENCE.0,
            window: None,
            usual: None,
            stale: 0,
        }))
    }

    /// A limit that is given.
    pub fn fixed(limit: NonZeroU32) -> Self {
        Self(Mode::Fixed(usize::try_from(limit.get()).unwrap_or(usize::MAX)))
    }

    /// How many requests may be in flight.
    pub fn limit(&self) -> usize {
        match &self.0 {
            Mode::Fixed(limit) => *limit,
            Mode::Auto(search) => search.limit(),
        }
    }

    /// How many requests may start now, all in one go, while `in_flight` are under way.
    ///
    /// What is not used now is not kept for later: a pair that does not start together is no pair.
    pub fn room(&self, in_flight: usize) -> usize {
        match &self.0 {
            Mode::Auto(Search { phase: Phase::Rounds { .. }, .. }) if in_flight > 0 => 0,
            _ => self.limit().saturating_sub(in_flight),
        }
    }

    /// An answer came in while `in_flight` requests, its own included, were under way.
    pub fn on_answer(&mut self, load: Load, in_flight: usize, now: Instant) {
        if let Mode::Auto(search) = &mut self.0 {
            search.on_answer(load, in_flight, now);
        }
    }
}

impl Phase {
    fn rounds() -> Self {
        Self::Rounds { singles: Vec::new(), pairs: Vec::new(), first_of_pair: None }
    }
}

impl Search {
    fn limit(&self) -> usize {
        match &self.phase {
            Phase::Rounds { singles, pairs, .. } if singles.len() > pairs.len() => 2,
            Phase::Rounds { .. } | Phase::Single => 1,
            Phase::Try { limit, .. } => *limit,
            Phase::Hold => self.best.0,
        }
    }

    fn on_answer(&mut self, load: Load, in_flight: usize, now: Instant) {
        if self.stale > 0 {
            // Sent under an earlier, higher limit; what it suffered is known already.
            self.stale -= 1;
            return;
        }
        let round_trip = match load {
            Load::Unknown => {
                if let Phase::Rounds { first_of_pair, .. } = &mut self.phase {
                    *first_of_pair = None;
                }
                return;
            }
            Load::Overloaded => return self.too_much(in_flight, now),
            Load::Fine { round_trip } => round_trip,
        };
        let usual = self.usual.unwrap_or(round_trip);
        if in_flight > 1 && round_trip >= STALL.1 && round_trip >= usual * STALL.0 {
            return self.too_much(in_flight, now);
        }
        self.usual = Some((usual * 7 + round_trip) / 8);
        match &self.phase {
            Phase::Rounds { .. } => self.compare(round_trip, in_flight, now),
            Phase::Single => {
                if self.again_at.is_none_or(|at| now >= at) {
                    self.phase = Phase::rounds();
                }
            }
            Phase::Try { .. } | Phase::Hold => self.measure(in_flight, now),
        }
    }

    /// Errors or a stall: less at once, and not so much again for a while.
    fn too_much(&mut self, in_flight: usize, now: Instant) {
        let limit = self.limit();
        if limit == 1 || in_flight <= 1 && matches!(self.phase, Phase::Rounds { first_of_pair: None, .. }) {
            // One at a time is the least there is; what fails then has other causes.
            return;
        }
        self.ceiling = Some((limit - 1, now + self.patience));
        self.stale = in_flight.saturating_sub(1);
        let fallback = if limit > self.best.0 { self.best.0 } else { limit / 2 };
        // What was measured before the trouble says nothing of the time after it.
        self.settle((fallback.max(1), 0.0), now);
    }

    fn settle(&mut self, best: (usize, f64), now: Instant) {
        self.patience = if best.0 == self.best.0 { (self.patience * 2).min(PATIENCE.1) } else { PATIENCE.0 };
        self.again_at = Some(now + self.patience);
        self.best = best;
        self.window = None;
        self.phase = if best.0 == 1 { Phase::Single } else { Phase::Hold };
    }

    fn try_next(&mut self, limit: usize, climbing: bool, then: Vec<usize>) {
        self.window = None;
        self.phase = Phase::Try { limit, climbing, then };
    }

    fn allowed(&mut self, limit: usize, now: Instant) -> bool {
        self.ceiling = self.ceiling.filter(|(_, until)| now < *until);
        limit <= MAX_LIMIT && self.ceiling.is_none_or(|(ceiling, _)| limit <= ceiling)
    }

    /// Singles against pairs that start together.
    fn compare(&mut self, round_trip: Duration, in_flight: usize, now: Instant) {
        let Phase::Rounds { singles, pairs, first_of_pair } = &mut self.phase else { return };
        match (first_of_pair.take(), in_flight) {
            (None, 1) => {
                singles.push(round_trip);
                // Enough was seen of singles when there is never a second request at hand.
                if singles.len() > 4 * ROUNDS.1 {
                    singles.drain(..ROUNDS.1);
                }
            }
            (Some(first), 1) => pairs.push(first.max(round_trip)),
            (_, _) => *first_of_pair = Some(round_trip),
        }
        if pairs.len() < ROUNDS.0 {
            return;
        }
        let (single, pair) = (median(singles).as_secs_f64(), median(pairs).as_secs_f64());
        let gain = 2.0 * single / pair.max(1e-9);
        if pairs.len() < ROUNDS.1 && gain > CLEAR.0 && gain < CLEAR.1 {
            return;
        }
        let alone = (1, 1.0 / single.max(1e-9));
        if gain >= PAIR_GAIN && self.allowed(2, now) {
            // Throughput one at a time, as if nothing were lost between the requests.
            self.best = alone;
            self.try_next(2, true, Vec::new());
        } else {
            self.settle(alone, now);
        }
    }

    /// Throughput of the limit in force, while there is enough to do.
    fn measure(&mut self, in_flight: usize, now: Instant) {
        let limit = self.limit();
        if in_flight != limit {
            // Too little to do, or still coming down from a higher limit.
            self.window = None;
            return;
        }
        let Some(window) = &mut self.window else {
            self.window = Some(Window { since: now, answers: 0 });
            return;
        };
        window.answers += 1;
        let elapsed = now.saturating_duration_since(window.since);
        if window.answers < (WINDOW.0 * limit).max(WINDOW.1) || elapsed < WINDOW.2 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a window has a few hundred answers")]
        let rate = window.answers as f64 / elapsed.as_secs_f64();
        self.window = None;
        match std::mem::replace(&mut self.phase, Phase::Hold) {
            Phase::Try { limit, climbing, then } => self.judge(limit, rate, climbing, then, now),
            hold => {
                self.phase = hold;
                self.best.1 = if self.best.1 > 0.0 { self.best.1.mul_add(0.7, rate * 0.3) } else { rate };
                if self.again_at.is_none_or(|at| now >= at) {
                    self.best.1 = rate;
                    self.neighbours(now);
                }
            }
        }
    }

    /// What a try has brought.
    fn judge(&mut self, limit: usize, rate: f64, climbing: bool, mut then: Vec<usize>, now: Instant) {
        // A lower limit that is as good is better: it leaves Airflow room for others.
        let needed = if limit > self.best.0 { CLIMB_GAIN } else { 1.0 };
        let before = self.best.0;
        let better = rate > self.best.1 * needed;
        if better {
            let patience = PATIENCE.0;
            (self.best, self.patience) = ((limit, rate), patience);
            if climbing && self.allowed(limit * 2, now) {
                return self.try_next(limit * 2, true, then);
            }
        }
        if climbing && !better && limit > before + 1 {
            // Between the last good one and the first that was not.
            then.push(before + (limit - before) / 2);
        }
        match then.pop().filter(|next| *next != self.best.0) {
            Some(next) if self.allowed(next, now) => self.try_next(next, false, then),
            _ => self.settle(self.best, now),
        }
    }

    /// Looks whether Airflow has changed: one step down, then one step up.
    fn neighbours(&mut self, now: Instant) {
        let limit = self.best.0;
        let up = limit + (limit / 2).max(1);
        let mut then = Vec::new();
        if self.allowed(up, now) {
            then.push(up);
        }
        self.try_next((limit * 2 / 3).max(1), false, then);
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! When a sync compares next: shortly after a hint, at its interval, and with growing pauses while that
//! fails.

use std::time::Duration;

use tokio::time::Instant;

/// How long it must be quiet after a hint: changes come in groups, and one comparison shows them all.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the first comparison waits for the watch to be set, which is a hint by itself.
const ARMING: Duration = Duration::from_secs(1);
/// The longest wait after the first hint of a group.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The times of one sync.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    due: Instant,
    /// Hints do not shorten the pause after a failure.
    not_before: Instant,
    first_hint: Option<Instant>,
    failures: u32,
}

impl Timing {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + ARMING, not_before: now, first_hint: None, failures: 0 }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Something changed in ZooKeeper.
    pub(super) fn hint(&mut self, now: Instant) {
        let first = *self.first_hint.get_or_insert(now);
        let settled = (now + SETTLE).min(first + SETTLE_MAX);
        // A comparison that is due at the interval anyway is not put off.
        self.due = if first == now { self.due.min(settled) } else { settled };
        self.due = self.due.max(self.not_before);
    }

    /// There is a new session: whatever failed before may work now.
    pub(super) fn connected(&mut self, now: Instant) {
        self.not_before = now;
        self.hint(now);
    }

    /// A comparison begins: what is hinted from now on is news.
    pub(super) fn begin(&mut self) {
        self.first_hint = None;
    }

    /// It went well.
    pub(super) fn done(&mut self, now: Instant, interval: Duration) {
        self.failures = 0;
        self.not_before = now;
        self.due = now + interval;
    }

    /// It did not.
    pub(super) fn failed(&mut self, now: Instant, interval: Duration) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE).min(interval);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause;
        self.due = self.not_before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_group_of_hints_is_one_comparison_and_not_put_off_for_ever() {
        let start = Instant::now();
        let mut timing = Timing::new(start);
        assert_eq!(timing.due(), start + ms(1000), "the first comparison waits for nothing but the watch");
        timing.connected(start);
        assert_eq!(timing.due(), start + ms(200));
        timing.begin();
        timing.done(start, Duration::from_mins(5));
        assert_eq!(timing.due(), start + Duration::from_mins(5));
        let mut now = start + ms(1000);
        timing.hint(now);
        assert_eq!(timing.due(), now + ms(200));
        for _ in 0..50 {
            now += ms(100);
            timing.hint(now);
        }
        assert_eq!(timing.due(), start + ms(3000));
    }

    #[test]
    fn failures_pause_longer_and_longer_whatever_is_hinted() {
        let start = Instant::now();
        let mut timing = Timing::new(start);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            timing.begin();
            timing.failed(start, Duration::from_mins(5));
            timing.hint(start);
            pauses.push(timing.due().duration_since(start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        timing.connected(start + ms(10));
        assert_eq!(timing.due(), start + ms(210));
        timing.begin();
        timing.done(start, Duration::from_mins(5));
        timing.failed(start, Duration::from_mins(5));
        assert_eq!(timing.due(), start + ms(1000));
    }
}

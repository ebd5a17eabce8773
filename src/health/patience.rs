//! How long a look at an ensemble may take, altogether and for each answer.
//!
//! A server that drips its answers, or whose every answer comes just in time, would hold a look up for
//! many times what one answer may take: it is asked a dozen questions, one after the other. So a sample and
//! the canary have a limit each, and what was not learned in time is not known, for that reason.

use std::time::Duration;

use tokio::time::Instant;

/// How long a sample may take, in times of what one answer may.
const ANSWERS_IN_SAMPLE: u32 = 4;

/// The same for the canary.
const ANSWERS_IN_CANARY: u32 = 2;

/// How long a look that takes one sample may take, in times of what one answer may.
pub(super) const ANSWERS_IN_LOOK: u32 = ANSWERS_IN_SAMPLE + ANSWERS_IN_CANARY;

/// How long one answer may take, and until when all of them are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    answer: Duration,
    until: Instant,
}

impl Patience {
    /// For a sample that begins at `now`.
    pub(super) fn for_sample(answer: Duration, now: Instant) -> Self {
        Self { answer, until: now + answer * ANSWERS_IN_SAMPLE }
    }

    /// For a canary that starts at `now`.
    pub(super) fn for_canary(answer: Duration, now: Instant) -> Self {
        Self { answer, until: now + answer * ANSWERS_IN_CANARY }
    }

    /// How long the answer to a question that is asked `now` may take; `None` when it is too late to ask.
    pub(super) fn at(self, now: Instant) -> Option<Wait> {
        let left = self.until.saturating_duration_since(now);
        if left.is_zero() {
            return None;
        }
        Some(Wait { time: left.min(self.answer), is_cut: left < self.answer })
    }
}

/// How long one answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// So long.
    pub(super) time: Duration,
    /// Whether that is less than an answer may take: one that does not come then says nothing of the server.
    pub(super) is_cut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_time_until_the_time_for_all_of_them_is_over() {
        let start = Instant::now();
        let sample = Patience::for_sample(Duration::from_secs(2), start);
        for (after_ms, wait) in [
            (0, Some((2000, false))),
            (5999, Some((2000, false))),
            (6000, Some((2000, false))),
            (6001, Some((1999, true))),
            (7999, Some((1, true))),
            (8000, None),
            (9000, None),
        ] {
            let found = sample.at(start + Duration::from_millis(after_ms));
            let wait = wait.map(|(ms, is_cut)| Wait { time: Duration::from_millis(ms), is_cut });
            assert_eq!(found, wait, "after {after_ms} ms");
        }
        let canary = Patience::for_canary(Duration::from_secs(2), start);
        assert_eq!(canary.at(start + Duration::from_secs(4)), None);
    }
}

//! What Airflow refused, or failed at alone, is not asked again at each comparison: it rests, longer each time,
//! until its znode wants something else or an operator asks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The first rest of what Airflow failed at, which may have been about the moment.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The first rest of what it refused.
const AFTER_REFUSAL: Duration = Duration::from_mins(1);
/// The longest rest; each is twice the one before.
const LONGEST: Duration = Duration::from_hours(1);

/// How Airflow did not take an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setback {
    /// Why, without the value.
    pub(super) reason: String,
    /// It was refused in words; otherwise Airflow failed at it.
    pub(super) is_refusal: bool,
    /// The digest of what it was to hold; `None` for one that was to be deleted.
    pub(super) digest: Option<String>,
}

#[derive(Debug)]
struct Rest {
    setback: Setback,
    times: u32,
    until: Instant,
}

/// The entries of a sync that rest.
#[derive(Debug, Default)]
pub(super) struct Resting(BTreeMap<String, Rest>);

impl Resting {
    /// Airflow did not take an entry.
    pub(super) fn note(&mut self, key: String, setback: Setback, now: Instant) {
        let before = self.0.get(&key).filter(|rest| rest.setback.digest == setback.digest);
        let times = before.map_or(0, |rest| rest.times);
        let first = if setback.is_refusal { AFTER_REFUSAL } else { AFTER_FAILURE };
        let until = now + first.saturating_mul(1 << times.min(16)).min(LONGEST);
        self.0.insert(key, Rest { setback, times: times.saturating_add(1), until });
    }

    /// Forgets what was taken since, or is wanted no more.
    pub(super) fn keep(&mut self, is_refused: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| is_refused(key));
    }

    /// Those that rest now: why, and what they were to hold.
    pub(super) fn now(&self, now: Instant) -> BTreeMap<String, (String, Option<String>)> {
        let resting = self.0.iter().filter(|(_, rest)| now < rest.until);
        let told = |rest: &Rest| (rest.setback.reason.clone(), rest.setback.digest.clone());
        resting.map(|(key, rest)| (key.clone(), told(rest))).collect()
    }

    /// Whether Airflow failed at one of them, rested or not.
    pub(super) fn any_failure(&self) -> bool {
        self.0.values().any(|rest| !rest.setback.is_refusal)
    }

    /// How long until the next one has rested.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|rest| rest.until.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setback(is_refusal: bool, digest: &str) -> Setback {
        Setback { reason: "422".to_owned(), is_refusal, digest: Some(digest.to_owned()) }
    }

    #[test]
    fn what_is_refused_again_rests_longer_until_something_else_is_wanted() {
        let now = Instant::now();
        let rest = |resting: &Resting| resting.next(now).map(|rest| rest.as_secs());
        for (is_refusal, expected) in
            [(true, [60, 120, 240, 480, 960, 1920, 3600, 3600]), (false, [5, 10, 20, 40, 80, 160, 320, 640])]
        {
            let mut resting = Resting::default();
            assert_eq!(rest(&resting), None);
            for seconds in expected {
                resting.note("k".to_owned(), setback(is_refusal, "d"), now);
                assert_eq!(rest(&resting), Some(seconds));
            }
            assert!(resting.now(now).contains_key("k"));
            assert!(resting.now(now + Duration::from_hours(2)).is_empty(), "it has rested, and is asked again");
            resting.note("k".to_owned(), setback(is_refusal, "another"), now);
            assert_eq!(rest(&resting), Some(expected[0]));
            assert_eq!(resting.any_failure(), !is_refusal);
            resting.keep(|key| key != "k");
            assert_eq!(rest(&resting), None);
        }
    }
}

//! From which value on a check is bad.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::catalogue::Check;
use super::report::Verdict;

/// Which side of a limit is the bad one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The limit and what is above it.
    Above,
    /// The limit and what is below it.
    Below,
}

impl Direction {
    /// Whether `value` has reached `limit`.
    fn reaches(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Above => value >= limit,
            Self::Below => value <= limit,
        }
    }
}

/// The two limits of a check, in the check's unit. A limit that is not there is never reached.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Limits {
    /// From here on, a warning.
    #[serde(serialize_with = "plain_number")]
    pub warn: Option<f64>,
    /// From here on, critical.
    #[serde(serialize_with = "plain_number")]
    pub critical: Option<f64>,
}

impl Limits {
    /// What a value comes to.
    pub fn judge(self, value: f64, direction: Direction) -> Verdict {
        let reached = |limit: Option<f64>| limit.is_some_and(|limit| direction.reaches(value, limit));
        if reached(self.critical) {
            Verdict::Critical
        } else if reached(self.warn) {
            Verdict::Warning
        } else {
            Verdict::Ok
        }
    }

    /// Whether a value becomes critical before it becomes a warning.
    pub fn contradict(self, direction: Direction) -> bool {
        match (self.warn, self.critical, direction) {
            (Some(warn), Some(critical), Direction::Above) => warn > critical,
            (Some(warn), Some(critical), Direction::Below) => warn < critical,
            _ => false,
        }
    }
}

/// Writes 3 and not 3.0: most values are counts.
#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
pub(super) fn plain_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    /// Beyond this not every whole number is a floating-point number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match *value {
        None => serializer.serialize_none(),
        #[expect(clippy::cast_possible_truncation, reason = "whole, and far below the largest i64")]
        Some(value) if value.fract() == 0.0 && value.abs() <= EXACT => serializer.serialize_i64(value as i64),
        Some(value) => serializer.serialize_f64(value),
    }
}

/// The limits of an ensemble's checks: the usual ones, and what the configuration says instead.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thresholds(BTreeMap<Check, Limits>);

impl Thresholds {
    /// Replaces limits of a check; those that `limits` leaves out stay. Returns what they are then.
    pub fn set(&mut self, check: Check, limits: Limits) -> Limits {
        let usual = self.of(check);
        let limits = Limits { warn: limits.warn.or(usual.warn), critical: limits.critical.or(usual.critical) };
        self.0.insert(check, limits);
        limits
    }

    /// The limits of a check.
    pub fn of(&self, check: Check) -> Limits {
        self.0.get(&check).copied().unwrap_or(check.info().limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bad_from_the_limit_on() {
        let both = Limits { warn: Some(10.0), critical: Some(50.0) };
        let below = Limits { warn: Some(30.0), critical: Some(7.0) };
        for (limits, direction, value, verdict) in [
            (both, Direction::Above, 9.9, Verdict::Ok),
            (both, Direction::Above, 10.0, Verdict::Warning),
            (both, Direction::Above, 50.0, Verdict::Critical),
            (below, Direction::Below, 31.0, Verdict::Ok),
            (below, Direction::Below, 30.0, Verdict::Warning),
            (below, Direction::Below, -1.0, Verdict::Critical),
            (Limits::default(), Direction::Above, 1e18, Verdict::Ok),
            (Limits { warn: None, critical: Some(1.0) }, Direction::Above, 1.0, Verdict::Critical),
        ] {
            assert_eq!(limits.judge(value, direction), verdict, "{limits:?} {direction:?} {value}");
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_seen() {
        let limits = |warn, critical| Limits { warn: Some(warn), critical: Some(critical) };
        assert!(limits(50.0, 10.0).contradict(Direction::Above));
        assert!(!limits(10.0, 50.0).contradict(Direction::Above));
        assert!(limits(7.0, 30.0).contradict(Direction::Below));
        assert!(!limits(10.0, 10.0).contradict(Direction::Above), "straight to critical");
        assert!(!Limits { warn: Some(1.0), critical: None }.contradict(Direction::Above));
    }

    #[test]
    fn what_the_configuration_leaves_out_stays_as_usual() {
        let mut thresholds = Thresholds::default();
        let usual = Check::OutstandingRequests.info().limits;
        let set = thresholds.set(Check::OutstandingRequests, Limits { warn: Some(3.0), critical: None });
        assert_eq!(set, Limits { warn: Some(3.0), critical: usual.critical });
        assert_eq!(thresholds.of(Check::OutstandingRequests), set);
        assert_eq!(thresholds.of(Check::Latency), Check::Latency.info().limits);
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let limits = Limits { warn: Some(0.5), critical: Some(1_073_741_824.0) };
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"warn":0.5,"critical":1073741824}"#);
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), r#"{"warn":null,"critical":null}"#);
    }
}

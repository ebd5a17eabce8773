//! A delay that spreads schedules which share a nominal time, the same after every restart.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::domain::schedule::ScheduleName;

/// The delay of one occurrence: at least zero, below `limit`, and a function of the schedule's name
/// and the nominal time alone. In whole microseconds, the resolution of the ledger.
pub fn jitter(schedule: &ScheduleName, nominal: Timestamp, limit: Duration) -> Duration {
    if limit.is_zero() {
        return Duration::ZERO;
    }
    let mut hasher = Sha256::new();
    hasher.update(schedule.as_str().as_bytes());
    // No name holds a NUL, so name and time cannot run into each other.
    hasher.update([0]);
    hasher.update(nominal.as_microsecond().to_be_bytes());
    let hash = hasher.finalize().iter().take(8).fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    // The hash as a fraction of the limit; below it, because the hash is below 2^64.
    let delay_us = (limit.as_micros().saturating_mul(u128::from(hash))) >> 64;
    Duration::from_micros(u64::try_from(delay_us).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_below_its_limit_the_same_again_and_spread_out() {
        let limit = Duration::from_secs(30);
        let nominal: Timestamp = "2026-11-22T02:30:00Z".parse().expect("a time");
        let delays: Vec<_> = (0..1_000)
            .map(|n| {
                let name = ScheduleName::new(&format!("job-{n}")).expect("a legal name");
                let delay = jitter(&name, nominal, limit);
                assert_eq!(delay, jitter(&name, nominal, limit));
                assert!(delay < limit);
                delay
            })
            .collect();
        for third in 0..3_u32 {
            let share = delays.iter().filter(|d| (limit / 3 * third..limit / 3 * (third + 1)).contains(d)).count();
            assert!((250..420).contains(&share), "{share} of 1,000 delays in third {third}");
        }
        let name = ScheduleName::new("job").expect("a legal name");
        assert_eq!(jitter(&name, nominal, Duration::ZERO), Duration::ZERO);
        // Fixed for good: another value would move the runs of everyone who upgrades.
        assert_eq!(jitter(&name, nominal, limit), Duration::from_micros(29_203_677));
    }
}

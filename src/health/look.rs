//! Looking at an ensemble: a sample, the canary, and a judgement against the sample before.
//!
//! Whoever looks once takes two samples and a canary in between. Whoever looks again and again keeps
//! the last sample, so that each look takes one, and judges what happened since the look before. How long it
//! may take is in `patience`.

use std::time::Duration;

use tokio::time::Instant;

use super::Target;
use super::canary::Canary;
use super::checks::{self, Evidence};
use super::facts::Sample;
use super::patience::Patience;
use crate::clock::Clock;
use crate::domain::health::Report;
use crate::metrics;

/// Looks at an ensemble, once or again and again.
pub(super) struct Looker<'t> {
    target: &'t Target,
    timeout: Duration,
    clock: Clock,
    before: Option<Sample>,
}

impl<'t> Looker<'t> {
    /// Waits `timeout` for each answer.
    pub(super) fn new(target: &'t Target, timeout: Duration, clock: Clock) -> Self {
        Self { target, timeout, clock, before: None }
    }

    /// Looks, and compares with the look before. The first one takes two samples, `first_pause` apart;
    /// zero takes one, which is compared with nothing.
    ///
    /// The error, for a person, is about settings that cannot be used.
    pub(super) async fn look(&mut self, first_pause: Duration) -> Result<Report, String> {
        let target = self.target;
        let (settings, sampler) = target.sampler(&self.clock)?;
        let (before, pause) = match self.before.take() {
            Some(before) => (before, None),
            None => (sampler.take(self.timeout).await, Some(first_pause)),
        };
        let flying = async {
            let parent = target.canary.as_ref()?;
            let patience = Patience::for_canary(self.timeout, Instant::now());
            Some(Canary::new(&settings, parent, patience, self.clock.clone()).fly(&before).await)
        };
        // Its writes are behind the canary by the time of the sample that is judged.
        let (canary, ()) = tokio::join!(flying, tokio::time::sleep(pause.unwrap_or_default()));
        for (step, took) in canary.iter().flat_map(|canary| &canary.trips).flat_map(|trip| &trip.steps) {
            metrics::canary_stepped(&target.name, step.name(), *took);
        }
        let (before, now) = match pause {
            Some(Duration::ZERO) => (None, before),
            _ => (Some(before), sampler.take(self.timeout).await),
        };
        let evidence = Evidence {
            before: before.as_ref(),
            now: &now,
            canary: canary.as_ref(),
            thresholds: &target.thresholds,
            at: self.clock.now(),
        };
        let report = checks::report(target.name.to_string(), &evidence);
        self.before = Some(now);
        Ok(report)
    }
}

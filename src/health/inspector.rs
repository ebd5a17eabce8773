//! Inspects ensembles when somebody asks, on whichever member is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::owners::Owners;
use super::shared::SharedWork;
use super::{Effort, Target, inspect, owners_of_ephemerals};
use crate::clock::Clock;
use crate::domain::health::Report;
use crate::metrics;

/// How thoroughly an ensemble is looked at for somebody who waits for it: two samples, so that nothing
/// is unknown for want of a second one, and a server that stays silent holds it up for seconds.
pub const ON_DEMAND: Effort = Effort { interval: Duration::from_secs(2), timeout: Duration::from_secs(5) };

/// What an inspection found, and when.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// When it began: what it tells is not older.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What it found.
    pub report: Report,
}

/// Inspects ensembles by name. Those who ask while one is inspected share the next inspection.
#[derive(Default)]
pub struct Inspector {
    targets: BTreeMap<Arc<str>, Asked>,
}

struct Asked {
    target: Arc<Target>,
    inspection: SharedWork<Result<Inspection, String>>,
    owners: SharedWork<Result<Owners, String>>,
}

impl Inspector {
    /// For these ensembles.
    pub fn new(targets: impl IntoIterator<Item = Arc<Target>>) -> Self {
        let asked = |target: Arc<Target>| {
            (Arc::clone(&target.name), Asked { target, inspection: SharedWork::new(), owners: SharedWork::new() })
        };
        Self { targets: targets.into_iter().map(asked).collect() }
    }

    /// What an inspection of this ensemble finds that begins now or later; `None` when there is no such
    /// ensemble. The error, for a person, is about settings that cannot be used.
    pub async fn inspect(&self, ensemble: &str, clock: &Clock) -> Option<Result<Inspection, String>> {
        let Asked { target, inspection, .. } = self.targets.get(ensemble)?;
        let work = async || {
            let (began, started) = (clock.now(), Instant::now());
            let report = inspect(target, ON_DEMAND, clock).await?;
            let took = started.elapsed();
            metrics::ensemble_inspected(&target.name, took);
            Ok(Inspection { began, took, report })
        };
        Some(inspection.outcome(work).await)
    }

    /// Who owns the ephemeral znodes of this ensemble, asked now or later; otherwise as
    /// [`Inspector::inspect`].
    pub async fn owners_of_ephemerals(&self, ensemble: &str, clock: &Clock) -> Option<Result<Owners, String>> {
        let Asked { target, owners, .. } = self.targets.get(ensemble)?;
        let work = async || owners_of_ephemerals(target, ON_DEMAND.timeout, clock).await;
        Some(owners.outcome(work).await)
    }
}

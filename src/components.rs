//! Airflow's own parts: asks each Airflow how it is, remembers the answer and tells it.
//!
//! One loop an Airflow, which only waits and calls: [`crate::domain::component`] judges, the ledger
//! remembers, metrics and the home ensemble are told. Its requests are two an interval, whatever there is
//! to submit, and are given up after [`PATIENCE`]: they neither wait for the dispatcher's pace nor take a
//! place in it. It never decides when something runs; that an Airflow is away stops nothing here.

pub mod overview;

use std::time::Duration;

use tokio::time::Instant;

use crate::airflow::{Airflow, Error};
use crate::clock::Clock;
use crate::domain::component::{Component, ComponentKind, ComponentState, Jobs, Judgement, Look, Reach, Report, judge};
use crate::metrics;
use crate::publisher::{AIRFLOW, Publisher};
use crate::store::{Leadership, Ledger, StoreError};
use overview::AirflowOverview;

/// How long an Airflow may take for one answer, however long its `timeout` is: who cannot say in this time
/// how it is, is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the loop of one Airflow works with.
pub struct Parts {
    /// The Airflow.
    pub airflow: Airflow,
    /// How often it is asked.
    pub interval: Duration,
    /// From which age on a heartbeat is old.
    pub heartbeat_threshold: Duration,
    /// Remembers.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// Tells in the home ensemble.
    pub publisher: Publisher,
    /// The time.
    pub clock: Clock,
}

/// Asks until the leadership is lost.
pub async fn run(parts: Parts) -> Result<(), StoreError> {
    let lost = parts.leadership.lost().clone();
    let interval = parts.interval;
    let mut watcher = Watcher { parts, before: None, known: None };
    loop {
        let next = Instant::now() + interval;
        match lost.run_until_cancelled(watcher.tick()).await {
            None => return Ok(()),
            Some(Ok(())) => {}
            Some(Err(error @ (StoreError::Fenced { .. } | StoreError::Closed))) => return Err(error),
            Some(Err(error)) => {
                let airflow = watcher.parts.airflow.name();
                tracing::warn!(airflow, error = %error, "how Airflow is could not be recorded; it is asked again");
            }
        }
        if lost.run_until_cancelled(tokio::time::sleep_until(next)).await.is_none() {
            return Ok(());
        }
    }
}

struct Watcher {
    parts: Parts,
    /// The last report.
    before: Option<Report>,
    /// The parts that are not gone; `None` until the ledger was read.
    known: Option<Vec<Component>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        metrics::airflow_unwatched(self.parts.airflow.name());
    }
}

impl Watcher {
    /// One look, from the question to what is told of the answer.
    async fn tick(&mut self) -> Result<(), StoreError> {
        if self.known.is_none() {
            self.remember().await?;
        }
        let known = self.known.take().unwrap_or_default();
        let (report, judgement) = self.look(&known).await;
        // What is known is read again after an error: it may have been noted all the same.
        self.parts.ledger.note_airflow(&self.parts.leadership, &report, &judgement).await?;
        self.tell(&report, &known, &judgement).await?;
        self.known = Some(match report.reach {
            Reach::Up => judgement.components.into_iter().filter(Component::is_there).collect(),
            Reach::Unreachable | Reach::Unknown => known,
        });
        self.before = Some(report);
        Ok(())
    }

    /// Reads what an earlier leader noted.
    async fn remember(&mut self) -> Result<(), StoreError> {
        let (ledger, name) = (&self.parts.ledger, self.parts.airflow.name());
        let mut known = ledger.airflows().await?.into_iter().find(|(report, _)| report.airflow == name);
        if known.as_ref().is_some_and(|(before, _)| before.url != self.parts.airflow.address()) {
            ledger.forget_airflow(&self.parts.leadership, name).await?;
            known = None;
        }
        let (before, components) = known.unzip();
        self.known = Some(components.into_iter().flatten().filter(Component::is_there).collect());
        self.before = before;
        Ok(())
    }

    async fn look(&self, known: &[Component]) -> (Report, Judgement) {
        let (airflow, before) = (&self.parts.airflow, self.before.as_ref());
        let (name, url) = (airflow.name(), airflow.address());
        let health = within(airflow, "read the health", airflow.health()).await;
        let at = self.parts.clock.now();
        let health = match health {
            Ok(health) => health,
            Err(reason) => return (Report::unreachable(before, name, url, at, reason), Judgement::default()),
        };
        // The answer itself says what time it is there.
        let airflow_time = airflow.server_date().unwrap_or(at);
        let (jobs, jobs_reason) = match within(airflow, "list the jobs", airflow.jobs()).await {
            Ok(jobs) => (jobs, None),
            Err(reason) => (Jobs::Untold, Some(reason)),
        };
        let look = Look { at, airflow_time, health, jobs };
        let judgement = judge(known, &look, self.parts.heartbeat_threshold);
        let report = Report::answered(before, name, url, &look, judgement.warnings.clone());
        (Report { version: airflow.version(), jobs_reason, ..report }, judgement)
    }

    /// Tells what is new in the log, and everything in metrics and in the home ensemble.
    async fn tell(&self, report: &Report, known: &[Component], judgement: &Judgement) -> Result<(), StoreError> {
        let airflow = report.airflow.as_str();
        let reach_before = self.before.as_ref().map(|before| before.reach);
        match (report.reach, reach_before) {
            (Reach::Unreachable, Some(Reach::Unreachable)) => {}
            (Reach::Unreachable, _) => {
                let reason = report.reason.as_deref().unwrap_or_default();
                tracing::warn!(airflow, reason, "it is not known how Airflow's components are; it is asked again");
            }
            _ => self.tell_warnings(report),
        }
        let is_new = |gone: &&Component| known.iter().any(|before| before.key() == gone.key());
        for gone in judgement.components.iter().filter(|component| !component.is_there()).filter(is_new) {
            let (reason, hostname) = (gone.reason.as_deref(), gone.hostname.as_deref());
            tracing::info!(
                airflow,
                component = gone.kind.as_str(),
                job = gone.job,
                hostname,
                reason,
                "a component of Airflow is gone"
            );
        }
        let noted = self.parts.ledger.airflows().await?.into_iter().find(|(noted, _)| noted.airflow == airflow);
        let parts = noted.map(|(_, parts)| parts).unwrap_or_default();
        let overview = overview::of(airflow, &report.url, Some(report), &parts);
        measure(&overview);
        self.parts.publisher.publish(&format!("{}/{airflow}", AIRFLOW.name), &overview);
        Ok(())
    }

    fn tell_warnings(&self, report: &Report) {
        let airflow = report.airflow.as_str();
        let before = self.before.as_ref().filter(|before| before.reach == Reach::Up);
        let before = before.map(|before| before.warnings.as_slice()).unwrap_or_default();
        for warning in report.warnings.iter().filter(|warning| !before.contains(warning)) {
            tracing::warn!(airflow, "{warning}");
        }
        for warning in before.iter().filter(|warning| !report.warnings.contains(warning)) {
            tracing::info!(airflow, "no longer so: {warning}");
        }
    }
}

fn measure(airflow: &AirflowOverview) {
    for kind in ComponentKind::ALL {
        let parts = || airflow.components.iter().filter(move |part| part.kind == kind && part.gone_at.is_none());
        for state in ComponentState::OF_THOSE_THERE {
            let count = parts().filter(|part| part.state == state).count();
            metrics::airflow_components(&airflow.name, kind, state, count);
        }
        let age_ms = parts().filter_map(|part| part.heartbeat_age_ms).min();
        if let Some(age_ms) = age_ms.and_then(|age_ms| u64::try_from(age_ms).ok()) {
            metrics::airflow_heartbeat_age(&airflow.name, kind, Duration::from_millis(age_ms));
        }
    }
    metrics::airflow_warnings(&airflow.name, airflow.warnings.len());
}

/// The answer to a question, or why there is none that can be used, for people.
async fn within<T>(
    airflow: &Airflow,
    tried: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("failed to {error}")),
        Err(_) => {
            let (name, url, waited) = (airflow.name(), airflow.address(), PATIENCE.as_secs());
            Err(format!("failed to {tried} of Airflow {name} at {url}: no answer within {waited} s"))
        }
    }
}

//! The rounds: looks at an ensemble again and again for as long as this member leads, tells what was
//! seen, and records what became of it.
//!
//! Two loops beside each other. One looks, at the interval and never twice at a time, and publishes what
//! it saw at once; the other takes the looks one after the other, judges each from what the ledger last
//! kept, and writes it with the transition and the runs that follow from it in one transaction. While
//! the ledger is away looks are published all the same, and wait to be judged: what they amount to is
//! recorded, with their own times, when it is back. So nothing is told that the ledger does not have,
//! and a leader that takes over goes on from where the last one was. ZooKeeper is not needed for any of
//! it, since a quorum that is lost cannot be written to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::look::Looker;
use super::patience::ANSWERS_IN_LOOK;
use super::{Inspection, Latest, Target};
use crate::clock::Clock;
use crate::domain::ensemble::{Judged, Observation, Pace, Standing, Transition};
use crate::domain::health::{Report, Verdict};
use crate::domain::schedule::Schedule;
use crate::metrics;
use crate::status::Status;
use crate::store::model::{HealthRecord, Recording};
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::ensemble::{is_about, recording};
use crate::triggers::gate::Gates;

/// How far apart the two samples of the first look are.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// A look is to be over when the next one is due, so that one answer may take a sixth of the interval, within
/// these bounds.
const TIMEOUT_LEAST: Duration = Duration::from_millis(500);
const TIMEOUT_MOST: Duration = Duration::from_secs(3);

/// How long to wait before the ledger is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How many looks wait for the ledger; beyond that the oldest are given up. An hour at the usual interval.
const WAITING_MAX: usize = 240;

/// How long somebody else may take to show that the network works.
const WITNESS_PATIENCE: Duration = Duration::from_secs(5);

/// What is in the way of schedules while nothing is in sight.
const BLIND: &str = "nothing of its ensemble can be reached, nor can any Airflow: the network of this host may be away";

/// Somebody else on the network, to tell an ensemble that is gone from a network that is.
pub trait NetworkWitness: Send + Sync {
    /// Whether anybody else answers.
    fn answers(&self) -> impl Future<Output = bool> + Send;
}

/// What the rounds work with.
pub struct Parts<W> {
    /// The ensemble.
    pub target: Arc<Target>,
    /// How often it is looked at.
    pub interval: Duration,
    /// Where it is recorded.
    pub ledger: Ledger,
    /// Under which lead.
    pub leadership: Leadership,
    /// The schedules in force.
    pub schedules: watch::Receiver<Arc<Vec<Arc<Schedule>>>>,
    /// Which of them may act.
    pub gates: watch::Receiver<Gates>,
    /// Where it is told which of them are armed.
    pub status: Status,
    /// Who else is on the network.
    pub witness: W,
    /// Where what was seen is told.
    pub latest: Latest,
    /// The time.
    pub clock: Clock,
}

/// A look that is to be judged.
struct Look {
    report: Arc<Inspection>,
    at: Timestamp,
    network_works: bool,
}

/// Looks that wait to be judged, oldest first.
#[derive(Default)]
struct Waiting {
    looks: Mutex<VecDeque<Look>>,
    more: Notify,
}

impl Waiting {
    /// Adds one; whether the oldest had to make room for it.
    fn push(&self, look: Look) -> bool {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = looks.len() >= WAITING_MAX;
        if is_full {
            looks.pop_front();
        }
        looks.push_back(look);
        self.more.notify_one();
        is_full
    }

    async fn next(&self) -> Look {
        loop {
            if let Some(look) = self.looks.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return look;
            }
            self.more.notified().await;
        }
    }
}

/// Makes the rounds until the leadership is lost.
pub async fn run<W: NetworkWitness>(parts: Parts<W>) -> Result<(), StoreError> {
    let rounds = Rounds {
        pace: Pace::of(parts.interval),
        waiting: Waiting::default(),
        in_doubt: watch::Sender::new(false),
        parts,
    };
    let lost = rounds.parts.leadership.lost().clone();
    // Whatever ends this, also being dropped: nobody shows what nobody looks at.
    let _forgotten = Forgotten(&rounds);
    tokio::select! {
        () = lost.cancelled() => Ok(()),
        () = rounds.look() => Ok(()),
        ended = rounds.record() => ended,
    }
}

struct Forgotten<'r, W: NetworkWitness>(&'r Rounds<W>);

impl<W: NetworkWitness> Drop for Forgotten<'_, W> {
    fn drop(&mut self) {
        self.0.parts.latest.forget(&self.0.parts.target.name);
        self.0.tell_schedules(false, None);
    }
}

struct Rounds<W> {
    parts: Parts<W>,
    pace: Pace,
    waiting: Waiting,
    /// Whether something was seen that another look soon must confirm.
    in_doubt: watch::Sender<bool>,
}

impl<W: NetworkWitness> Rounds<W> {
    /// Looks at the interval; sooner where something is in doubt.
    async fn look(&self) {
        let Parts { target, interval, clock, latest, .. } = &self.parts;
        let timeout = (*interval / ANSWERS_IN_LOOK).clamp(TIMEOUT_LEAST, TIMEOUT_MOST);
        let mut looker = Looker::new(target, timeout, clock.clone());
        let mut in_doubt = self.in_doubt.subscribe();
        let (mut is_late, mut refused) = (false, None);
        loop {
            let (began, started) = (clock.now(), Instant::now());
            match looker.look(FIRST_PAUSE.min(*interval)).await {
                Ok(report) => {
                    let took = started.elapsed();
                    metrics::ensemble_inspected(&target.name, took);
                    is_late = self.note_lateness(took, is_late);
                    refused = None;
                    let inspection = Arc::new(Inspection { began, took, report });
                    latest.put(&target.name, Arc::clone(&inspection));
                    self.hand_on(inspection).await;
                }
                Err(reason) => {
                    if refused.as_ref() != Some(&reason) {
                        tracing::error!(
                            ensemble = %target.name, %reason,
                            "the health of an ensemble cannot be checked; it is tried again at each interval"
                        );
                    }
                    self.tell_schedules(false, Some(&format!("its ensemble cannot be looked at: {reason}")));
                    refused = Some(reason);
                }
            }
            let ended = Instant::now();
            let next = (started + *interval).max(ended);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = until_in_doubt(&mut in_doubt) => {
                    tokio::time::sleep_until(next.min(ended + self.pace.confirm())).await;
                }
            }
        }
    }

    async fn hand_on(&self, report: Arc<Inspection>) {
        let network_works = report.report.in_sight || {
            let asked = tokio::time::timeout(WITNESS_PATIENCE, self.parts.witness.answers());
            asked.await.unwrap_or(false)
        };
        // What the next look is to wait for is told by the judgement of this one.
        self.in_doubt.send_replace(false);
        if self.waiting.push(Look { report, at: self.parts.clock.now(), network_works }) {
            tracing::warn!(
                ensemble = %self.parts.target.name,
                "the ledger has been away for so long that the oldest look at an ensemble was given up"
            );
        }
    }

    /// Notes, once, that looks take longer than they are to be apart.
    fn note_lateness(&self, took: Duration, was_late: bool) -> bool {
        let is_late = took > self.parts.interval;
        if is_late && !was_late {
            tracing::warn!(
                ensemble = %self.parts.target.name,
                took_ms = took.as_millis(),
                interval_ms = self.parts.interval.as_millis(),
                "looking at an ensemble takes longer than its interval, so looks are further apart"
            );
        }
        is_late
    }

    /// Tells of the schedules that listen whether they are armed, and what is in their way.
    fn tell_schedules(&self, armed: bool, trouble: Option<&str>) {
        let name = &self.parts.target.name;
        for schedule in self.parts.schedules.borrow().iter().filter(|schedule| is_about(schedule, name)) {
            self.parts.status.set_armed(&schedule.name, armed);
            self.parts.status.set_trouble(&schedule.name, trouble.map(ToOwned::to_owned));
        }
    }

    /// Judges looks one after the other, and writes what follows.
    async fn record(&self) -> Result<(), StoreError> {
        let mut known = None;
        loop {
            let look = self.waiting.next().await;
            let mut is_stuck = false;
            loop {
                match self.record_one(&look, &mut known).await {
                    Ok(true) => break,
                    // Another has written since, or a write of ours whose answer was lost did: it is judged
                    // from there.
                    Ok(false) => tokio::time::sleep(RETRY_PAUSE).await,
                    Err(error) if error.is_transient() => {
                        if !is_stuck {
                            tracing::warn!(
                                ensemble = %self.parts.target.name, %error,
                                "a look at an ensemble could not be recorded; it is kept and tried again"
                            );
                        }
                        is_stuck = true;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Writes one look, unless it was judged from where the judgement does not stand any more. `known` is
    /// where it does; empty where the ledger must tell.
    async fn record_one(&self, look: &Look, known: &mut Option<(i64, Standing)>) -> Result<bool, StoreError> {
        let Parts { ledger, leadership, target, .. } = &self.parts;
        let (revision, standing) = match known.take() {
            Some(known) => known,
            None => ledger.ensemble_standing(&target.name).await?,
        };
        let health = self.judge(look, revision, &standing);
        let Some(revision) = ledger.record_health(leadership, &health).await? else { return Ok(false) };
        if let Some(transition) = &health.transition {
            tell(transition, health.recording.runs.len());
        }
        self.tell_schedules(true, (!look.network_works).then_some(BLIND));
        self.in_doubt.send_replace(health.standing.is_in_doubt());
        *known = Some((revision, health.standing));
        Ok(true)
    }

    fn judge(&self, look: &Look, expected_revision: i64, standing: &Standing) -> HealthRecord {
        let report = &look.report.report;
        let judged = standing.judge(&Observation::of(report, look.at, look.network_works), self.pace);
        let transition = transition(report, standing, &judged);
        let recording = transition.as_ref().map_or_else(Recording::default, |transition| {
            let schedules = self.parts.schedules.borrow().clone();
            recording(transition, &schedules, &self.parts.gates.borrow(), self.parts.clock.now())
        });
        HealthRecord {
            report: report.clone(),
            at: look.at,
            expected_revision,
            standing: judged.standing,
            recounts: judged.recounts,
            transition,
            recording,
        }
    }
}

async fn until_in_doubt(in_doubt: &mut watch::Receiver<bool>) {
    if in_doubt.wait_for(|in_doubt| *in_doubt).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is to be told of a look, if anything is.
fn transition(report: &Report, before: &Standing, judged: &Judged) -> Option<Transition> {
    if judged.events.is_empty() {
        return None;
    }
    let mut failing: Vec<_> = report.checks.iter().filter(|finding| finding.verdict.is_bad()).cloned().collect();
    failing.sort_by_key(|finding| finding.verdict != Verdict::Critical);
    failing.truncate(Transition::FAILING_MAX);
    Some(Transition {
        ensemble: report.ensemble.clone(),
        at: judged.at,
        events: judged.events.clone(),
        before: before.condition(),
        after: judged.standing.condition(),
        leader_before: judged.leader_before.clone(),
        leader_after: judged.leader_after.clone(),
        servers: report.servers.clone(),
        failing,
    })
}

fn tell(transition: &Transition, runs: usize) {
    let events: Vec<String> = transition
        .events
        .iter()
        .map(|happening| match &happening.server {
            Some(server) => format!("{} {server}", happening.event.as_str()),
            None => happening.event.as_str().to_owned(),
        })
        .collect();
    tracing::warn!(
        ensemble = %transition.ensemble,
        events = events.join(", "),
        condition = transition.after.as_str(),
        runs,
        "the health of an ensemble has changed"
    );
}

#[cfg(test)]
mod tests;

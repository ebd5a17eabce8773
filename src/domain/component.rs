//! The parts of an Airflow (schedulers, triggerers, DAG processors): which of them run, judged purely from
//! what Airflow says.
//!
//! Airflow tells in two ways. Its *health* has one status and one heartbeat for each kind of part. Its
//! *jobs*, which only API v2 lists, are the processes: a new row each time one starts, which a process
//! that ends in order closes and one that is killed leaves `running` for ever (measured on Airflow 3.3.2).
//! So a heartbeat decides, not a state. Heartbeats are by Airflow's clock and are compared with the time
//! that Airflow's own answer carries.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a process that has stopped beating is still waited for, when another of its kind runs.
const WAITED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// The kinds of part that beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComponentKind {
    /// Decides which tasks run.
    Scheduler,
    /// Runs deferred tasks.
    Triggerer,
    /// Parses DAG files.
    DagProcessor,
}

impl ComponentKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Scheduler, Self::Triggerer, Self::DagProcessor];

    /// Its name in Airflow's health.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Triggerer => "triggerer",
            Self::DagProcessor => "dag_processor",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind of a row of Airflow's jobs; `None` for rows that are no part of an Airflow.
    pub fn of_job(job_type: &str) -> Option<Self> {
        match job_type {
            "SchedulerJob" => Some(Self::Scheduler),
            "TriggererJob" => Some(Self::Triggerer),
            "DagProcessorJob" => Some(Self::DagProcessor),
            _ => None,
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheduler => "scheduler",
            Self::Triggerer => "triggerer",
            Self::DagProcessor => "DAG processor",
        })
    }
}

/// What is known of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// It beats.
    Healthy,
    /// Its heartbeat is old, or Airflow itself calls it unhealthy.
    Stale,
    /// It ended, or was replaced by another and beats no more.
    Gone,
    /// Airflow cannot be asked.
    Unknown,
}

impl ComponentState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Stale, Self::Gone, Self::Unknown];

    /// The states of parts that are not gone.
    pub const OF_THOSE_THERE: [Self; 3] = [Self::Healthy, Self::Stale, Self::Unknown];

    /// Its spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }

    /// The state of this spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A part of an Airflow, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub kind: ComponentKind,
    /// The number of its row among Airflow's jobs; `None` where Airflow tells of the kind only.
    pub job: Option<i64>,
    /// The host that it runs on.
    pub hostname: Option<String>,
    /// What is known of it.
    pub state: ComponentState,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Its latest heartbeat, by Airflow's clock.
    pub heartbeat_at: Option<Timestamp>,
    /// How old that was when Airflow was asked.
    pub heartbeat_age: Option<SignedDuration>,
    /// When flowkeeper first saw it.
    pub first_seen_at: Timestamp,
    /// When Airflow last told of it as one that has not ended.
    pub last_seen_at: Timestamp,
    /// When it went.
    pub gone_at: Option<Timestamp>,
    /// Why it is thought to be gone.
    pub reason: Option<String>,
}

impl Component {
    /// What tells it from the others of its Airflow.
    pub fn key(&self) -> (ComponentKind, Option<i64>) {
        (self.kind, self.job)
    }

    /// Whether it is not gone.
    pub fn is_there(&self) -> bool {
        self.state != ComponentState::Gone
    }

    /// In words, with what tells it from the others.
    fn named(&self) -> String {
        let host = self.hostname.as_deref().map(|host| format!(" on {host}")).unwrap_or_default();
        let job = self.job.map(|job| format!(" (job {job})")).unwrap_or_default();
        format!("{}{host}{job}", self.kind)
    }
}

/// One entry of Airflow's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPart {
    /// `metadatabase`, `scheduler`, `triggerer`, `dag_processor`.
    pub name: String,
    /// `healthy`, `unhealthy`; null for a part that this Airflow has not had.
    pub status: Option<String>,
    /// The latest heartbeat of any process of it, by Airflow's clock.
    pub heartbeat_at: Option<Timestamp>,
}

/// A row of Airflow's jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What it is.
    pub kind: ComponentKind,
    /// The host that it runs on.
    pub hostname: Option<String>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// Its latest heartbeat.
    pub heartbeat_at: Timestamp,
    /// When and how it ended, in Airflow's words; `None` while it runs, and for ever if it was killed.
    pub ended: Option<Ended>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When, if Airflow says.
    pub at: Option<Timestamp>,
    /// Airflow's state of the job.
    pub state: String,
}

/// What Airflow's jobs say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jobs {
    /// The jobs with the latest heartbeats.
    Listed {
        /// The jobs.
        jobs: Vec<Job>,
        /// Every job that has beaten since then is among them; `None`: all jobs are.
        since: Option<Timestamp>,
    },
    /// This Airflow's API does not list them.
    NotOffered,
    /// They could not be read this time: nothing follows for the processes that are known.
    Untold,
}

/// What one look at an Airflow brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When, by flowkeeper's clock.
    pub at: Timestamp,
    /// When, by Airflow's.
    pub airflow_time: Timestamp,
    /// Its health.
    pub health: Vec<HealthPart>,
    /// Its jobs.
    pub jobs: Jobs,
}

/// Whether an Airflow answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It answered when it was asked last.
    Up,
    /// It did not, or what answered was no Airflow.
    Unreachable,
    /// It was not asked yet.
    Unknown,
}

impl Reach {
    /// Its spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }

    /// What is spelled so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Up, Self::Unreachable, Self::Unknown].into_iter().find(|reach| reach.as_str() == text)
    }
}

/// What is remembered of an Airflow, beside its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name in the configuration.
    pub airflow: String,
    /// Its address, without anything secret.
    pub url: String,
    /// The version that it says it is.
    pub version: Option<String>,
    /// Whether it answers.
    pub reach: Reach,
    /// Since when that is so.
    pub since: Timestamp,
    /// Why it cannot be reached.
    pub reason: Option<String>,
    /// When it was asked last.
    pub checked_at: Timestamp,
    /// When it answered last.
    pub answered_at: Option<Timestamp>,
    /// Its last word on its health.
    pub health: Vec<HealthPart>,
    /// Why its jobs could not be read.
    pub jobs_reason: Option<String>,
    /// What somebody may want to look at.
    pub warnings: Vec<String>,
}

impl Report {
    /// The report of a look that was answered.
    pub fn answered(before: Option<&Self>, airflow: &str, url: String, look: &Look, warnings: Vec<String>) -> Self {
        Self {
            since: since(before, Reach::Up, look.at),
            airflow: airflow.to_owned(),
            url,
            version: None,
            reach: Reach::Up,
            reason: None,
            checked_at: look.at,
            answered_at: Some(look.at),
            health: look.health.clone(),
            jobs_reason: None,
            warnings,
        }
    }

    /// The report of one that was not: what was known before is the last word.
    pub fn unreachable(before: Option<&Self>, airflow: &str, url: String, at: Timestamp, reason: String) -> Self {
        let since = since(before, Reach::Unreachable, at);
        Self {
            airflow: airflow.to_owned(),
            url,
            version: before.and_then(|before| before.version.clone()),
            reach: Reach::Unreachable,
            since,
            warnings: vec![format!("it cannot be reached since {since:.0}")],
            reason: Some(reason),
            checked_at: at,
            answered_at: before.and_then(|before| before.answered_at),
            health: before.map(|before| before.health.clone()).unwrap_or_default(),
            jobs_reason: before.and_then(|before| before.jobs_reason.clone()),
        }
    }
}

/// Since when an Airflow is as it is now.
fn since(before: Option<&Report>, reach: Reach, now: Timestamp) -> Timestamp {
    before.filter(|before| before.reach == reach).map_or(now, |before| before.since)
}

/// What follows from a look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The parts that were looked at, those that have just gone among them.
    pub components: Vec<Component>,
    /// Rows of kinds that are told of by process from now on.
    pub forgotten: Vec<(ComponentKind, Option<i64>)>,
    /// What somebody may want to look at, a sentence each.
    pub warnings: Vec<String>,
}

/// Judges a look, given the parts that are known and not gone. A heartbeat older than `threshold` is old.
pub fn judge(known: &[Component], look: &Look, threshold: Duration) -> Judgement {
    let threshold = SignedDuration::try_from(threshold).unwrap_or(SignedDuration::MAX);
    let judge = Judge { known, look, threshold };
    let mut judgement = Judgement::default();
    for kind in ComponentKind::ALL {
        let (processes, by_kind): (Vec<_>, Vec<_>) = judge.known_of(kind).partition(|known| known.job.is_some());
        match &look.jobs {
            Jobs::Listed { jobs, since } => {
                judgement.forgotten.extend(by_kind.into_iter().map(Component::key));
                judgement.components.extend(judge.processes(kind, &processes, jobs, *since));
            }
            Jobs::Untold if !processes.is_empty() => {
                judgement.components.extend(processes.into_iter().map(|known| judge.aged(known)));
            }
            Jobs::Untold | Jobs::NotOffered => {
                let reason = "Airflow no longer lists it";
                judgement.components.extend(processes.into_iter().map(|known| gone(known.clone(), look.at, reason)));
                judgement.components.extend(judge.by_kind(kind, by_kind.first().copied()));
            }
        }
    }
    judgement.warnings = judge.warnings(&judgement.components);
    judgement
}

struct Judge<'a> {
    known: &'a [Component],
    look: &'a Look,
    threshold: SignedDuration,
}

impl<'a> Judge<'a> {
    fn known_of(&self, kind: ComponentKind) -> impl Iterator<Item = &'a Component> {
        self.known.iter().filter(move |component| component.kind == kind && component.is_there())
    }

    /// How old a heartbeat is; one of the future, by another host's clock, is new.
    fn age(&self, heartbeat: Timestamp) -> SignedDuration {
        self.look.airflow_time.duration_since(heartbeat).max(SignedDuration::ZERO)
    }

    /// A part of which nothing new is known.
    fn aged(&self, known: &Component) -> Component {
        Component { heartbeat_age: known.heartbeat_at.map(|heartbeat| self.age(heartbeat)), ..known.clone() }
    }

    fn part(&self, name: &str) -> Option<&HealthPart> {
        self.look.health.iter().find(|part| part.name == name)
    }

    fn is_unhealthy(&self, name: &str) -> bool {
        self.part(name).and_then(|part| part.status.as_deref()).is_some_and(|status| status != "healthy")
    }

    /// The processes of a kind: those that run, and those that have just gone.
    fn processes(
        &self,
        kind: ComponentKind,
        known: &[&Component],
        jobs: &[Job],
        since: Option<Timestamp>,
    ) -> Vec<Component> {
        let jobs: Vec<&Job> = jobs.iter().filter(|job| job.kind == kind).collect();
        let last_beat = jobs.iter().map(|job| job.heartbeat_at).max();
        let mut components = Vec::new();
        for job in &jobs {
            // A metadata database that was made anew counts its jobs from the beginning.
            let known =
                known.iter().find(|known| known.job == Some(job.id) && known.started_at == job.started_at).copied();
            let component = self.component(job, known);
            match self.fate(job, last_beat) {
                Fate::Runs(state) => components.push(Component { state, ..component }),
                Fate::Gone { at, reason } if known.is_some() => components.push(gone(component, at, &reason)),
                // One that went before it was ever seen is nobody's memory.
                Fate::Gone { .. } => {}
            }
        }
        let unlisted = known.iter().filter(|known| jobs.iter().all(|job| Some(job.id) != known.job));
        components.extend(unlisted.map(|known| {
            // Nothing follows from the absence of one that may stand on a page that was not read.
            let may_be_further_on = known.heartbeat_at.zip(since).is_some_and(|(beat, since)| beat <= since);
            if may_be_further_on {
                self.aged(known)
            } else {
                gone((*known).clone(), self.look.at, "Airflow no longer lists it")
            }
        }));
        components
    }

    fn fate(&self, job: &Job, last_beat: Option<Timestamp>) -> Fate {
        if let Some(ended) = &job.ended {
            return Fate::Gone {
                at: ended.at.unwrap_or(self.look.at),
                reason: format!("it ended, Airflow says: {}", ended.state),
            };
        }
        let age = self.age(job.heartbeat_at);
        if age <= self.threshold {
            return Fate::Runs(ComponentState::Healthy);
        }
        // The last of its kind is missed for as long as nobody takes its place.
        if age > self.threshold.max(WAITED_FOR) && last_beat.is_some_and(|last| last > job.heartbeat_at) {
            let reason = format!("it beats no more, and another {} came after it", job.kind);
            return Fate::Gone { at: self.look.at, reason };
        }
        Fate::Runs(ComponentState::Stale)
    }

    fn component(&self, job: &Job, known: Option<&Component>) -> Component {
        Component {
            kind: job.kind,
            job: Some(job.id),
            hostname: job.hostname.clone(),
            state: ComponentState::Healthy,
            started_at: job.started_at,
            heartbeat_at: Some(job.heartbeat_at),
            heartbeat_age: Some(self.age(job.heartbeat_at)),
            first_seen_at: known.map_or(self.look.at, |known| known.first_seen_at),
            last_seen_at: self.look.at,
            gone_at: None,
            reason: None,
        }
    }

    /// The one row of a kind, where that is all that Airflow tells.
    fn by_kind(&self, kind: ComponentKind, known: Option<&Component>) -> Option<Component> {
        let part = self.part(kind.as_str());
        let heartbeat = part.and_then(|part| part.heartbeat_at);
        let Some(heartbeat) = heartbeat else {
            return known.map(|known| gone(known.clone(), self.look.at, "Airflow no longer tells of one"));
        };
        let is_old = self.age(heartbeat) > self.threshold || self.is_unhealthy(kind.as_str());
        Some(Component {
            kind,
            job: None,
            hostname: None,
            state: if is_old { ComponentState::Stale } else { ComponentState::Healthy },
            started_at: None,
            heartbeat_at: Some(heartbeat),
            heartbeat_age: Some(self.age(heartbeat)),
            first_seen_at: known.map_or(self.look.at, |known| known.first_seen_at),
            last_seen_at: self.look.at,
            gone_at: None,
            reason: None,
        })
    }

    fn warnings(&self, components: &[Component]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_unhealthy("metadatabase") {
            warnings.push("Airflow cannot work with its metadata database".to_owned());
        }
        for component in components.iter().filter(|component| component.state == ComponentState::Stale) {
            warnings.push(match component.heartbeat_age {
                // The time of the last beat and not its age, so that the words stay while it is late.
                Some(age) if age > self.threshold => {
                    let beat = component.heartbeat_at.unwrap_or(component.last_seen_at);
                    format!("the {} has not beaten since {beat:.0}", component.named())
                }
                _ => format!("Airflow calls its {} unhealthy", component.kind),
            });
        }
        for kind in ComponentKind::ALL.into_iter().filter(|kind| self.is_unhealthy(kind.as_str())) {
            let states: Vec<_> = components.iter().filter(|one| one.kind == kind).map(|one| one.state).collect();
            if states.contains(&ComponentState::Stale) {
                continue;
            }
            let runs = states.contains(&ComponentState::Healthy);
            warnings.push(if runs { format!("Airflow calls its {kind} unhealthy") } else { format!("no {kind} runs") });
        }
        warnings
    }
}

/// What a job of Airflow's is.
enum Fate {
    Runs(ComponentState),
    Gone { at: Timestamp, reason: String },
}

fn gone(component: Component, at: Timestamp, reason: &str) -> Component {
    Component { state: ComponentState::Gone, gone_at: Some(at), reason: Some(reason.to_owned()), ..component }
}

//! How a schedule stands: its configuration, the ledger and this member's knowledge put together.
//!
//! A pure function, shared by the API and the commands so that both say the same.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Config;
use crate::domain::ensemble::EnsembleEvent;
use crate::domain::run::{RunId, RunState};
use crate::domain::schedule::{PausedDag, Schedule, Trigger, WatchScope};
use crate::domain::znode::ChangeKind;
use crate::store::model::{Run, ScheduleState, microseconds, optional_microseconds};

/// Who paused a schedule, where the configuration itself did.
pub const CONFIGURATION: &str = "configuration";

/// Who paused a schedule, where its DAG is paused in Airflow.
pub const AIRFLOW: &str = "airflow";

/// A schedule as the API and the commands show it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScheduleOverview {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The Airflow that has its DAG.
    pub airflow: String,
    /// The DAG that it runs.
    pub dag_id: String,
    /// What makes it due.
    pub trigger: TriggerOverview,
    /// Whether it is paused: by an operator, by the configuration, or with its DAG in Airflow.
    pub paused: bool,
    /// Who paused it, and why.
    pub pause: Option<PauseOverview>,
    /// Whether its timer is set, its watch is set and the first diff is done, or its ensemble was looked
    /// at; null when the leader was not asked.
    pub armed: Option<bool>,
    /// What keeps its trigger from seeing everything, or has stopped it; null when nothing does or the
    /// leader was not asked.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The next nominal time that would run; null for znode and ensemble triggers, and while paused
    /// without an end.
    #[serde(serialize_with = "optional_microseconds")]
    pub next_time: Option<Timestamp>,
    /// The newest run.
    pub last_run: Option<LastRun>,
}

/// What makes a schedule due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TriggerOverview {
    /// Wall-clock times.
    Cron {
        /// The expression.
        cron: String,
        /// The zone whose wall clock it reads.
        timezone: String,
    },
    /// A change in ZooKeeper.
    Znode {
        /// Absolute path.
        path: String,
        /// `node`, `children` or `subtree`.
        watch: String,
        /// The kinds of change that fire.
        on: Vec<String>,
        /// Name of the ensemble; null is the home ensemble.
        ensemble: Option<String>,
    },
    /// A change of an ensemble's health.
    Ensemble {
        /// Name of the ensemble.
        ensemble: String,
        /// What fires.
        on: Vec<String>,
    },
}

impl TriggerOverview {
    /// Describes a trigger.
    pub fn of(trigger: &Trigger) -> Self {
        match trigger {
            Trigger::Cron(cron) => Self::Cron {
                cron: cron.expression.as_str().to_owned(),
                timezone: cron.timezone.iana_name().unwrap_or("UTC").to_owned(),
            },
            Trigger::Znode(znode) => Self::Znode {
                path: znode.path.to_string(),
                watch: match znode.watch {
                    WatchScope::Node => "node",
                    WatchScope::Children => "children",
                    WatchScope::Subtree => "subtree",
                }
                .to_owned(),
                on: [ChangeKind::Created, ChangeKind::Changed, ChangeKind::Deleted]
                    .into_iter()
                    .filter(|kind| znode.on.contains(*kind))
                    .map(|kind| kind.as_str().to_owned())
                    .collect(),
                ensemble: znode.ensemble.as_deref().map(str::to_owned),
            },
            Trigger::Ensemble(trigger) => Self::Ensemble {
                ensemble: trigger.ensemble.to_string(),
                on: trigger.on.iter().map(EnsembleEvent::as_str).map(ToOwned::to_owned).collect(),
            },
        }
    }

    /// In a few words, for a column.
    pub fn summary(&self) -> String {
        match self {
            Self::Cron { cron, timezone } => format!("{cron} {timezone}"),
            Self::Znode { path, watch, ensemble, .. } => {
                let below = match watch.as_str() {
                    "children" => "/*",
                    "subtree" => "/**",
                    _ => "",
                };
                let at = ensemble.as_ref().map(|ensemble| format!(" at {ensemble}")).unwrap_or_default();
                format!("{}{below}{at}", path.trim_end_matches('/'))
            }
            Self::Ensemble { ensemble, on } => format!("{ensemble}: {}", on.join(", ")),
        }
    }
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseOverview {
    /// Who paused; `configuration` for `paused = true`, `airflow` for a DAG that is paused there.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it ends by itself.
    #[serde(serialize_with = "optional_microseconds")]
    pub until: Option<Timestamp>,
    /// When it began; null for `paused = true`.
    #[serde(serialize_with = "optional_microseconds")]
    pub at: Option<Timestamp>,
}

/// The newest run of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastRun {
    /// Number in the ledger.
    pub id: RunId,
    /// Identity in Airflow.
    pub dag_run_id: String,
    /// When it came due.
    #[serde(serialize_with = "microseconds")]
    pub due_at: Timestamp,
    /// What became of it.
    pub state: RunState,
    /// Why, for states that are not Airflow's own.
    pub reason: Option<String>,
    /// When it ended.
    #[serde(serialize_with = "optional_microseconds")]
    pub ended_at: Option<Timestamp>,
}

impl From<&Run> for LastRun {
    fn from(run: &Run) -> Self {
        Self {
            id: run.id,
            dag_run_id: run.dag_run_id.clone(),
            due_at: run.due_at,
            state: run.state,
            reason: run.reason.clone(),
            ended_at: run.ended_at,
        }
    }
}

/// What only the member that serves knows of a schedule; the default is that none was asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether its trigger is armed.
    pub armed: Option<bool>,
    /// What keeps its trigger from seeing everything, or has stopped it.
    pub trouble: Option<String>,
}

/// How `schedule` stands at `now`.
pub fn overview(
    schedule: &Schedule,
    state: Option<&ScheduleState>,
    last_run: Option<&Run>,
    standing: Standing,
    now: Timestamp,
) -> ScheduleOverview {
    let pause = pause_in_force(schedule, state, now);
    let next_time = match (&schedule.trigger, &pause) {
        (Trigger::Znode(_) | Trigger::Ensemble(_), _) | (_, Some(PauseOverview { until: None, .. })) => None,
        (Trigger::Cron(cron), pause) => {
            let after = pause.as_ref().and_then(|pause| pause.until).unwrap_or(now);
            cron.next_after(after).map(|next| next.at)
        }
    };
    ScheduleOverview {
        name: schedule.name.to_string(),
        owner: schedule.owner.clone(),
        airflow: schedule.airflow.to_string(),
        dag_id: schedule.dag_id.to_string(),
        trigger: TriggerOverview::of(&schedule.trigger),
        paused: pause.is_some(),
        pause,
        armed: standing.armed,
        trouble: standing.trouble,
        next_time,
        last_run: last_run.map(LastRun::from),
    }
}

/// Says of an open run whose Airflow is not configured any more that nobody submits or follows it.
#[must_use]
pub fn told_of_its_airflow(mut run: Run, config: &Config) -> Run {
    let airflow = &run.airflow;
    if !run.state.is_open() || config.airflows.contains_key(airflow.as_str()) {
        return run;
    }
    let (waits, instead) = match run.state {
        RunState::Pending => ("it is not submitted", "; or give it up with `flowkeeper runs cancel`"),
        _ => ("what became of it is not known here", ""),
    };
    run.reason = Some(format!("its Airflow `{airflow}` is not in the configuration any more, so {waits}"));
    run.hint = Some(format!("put [airflow.{airflow}] back, and it goes on by itself{instead}"));
    run
}

/// The pause that holds at `now`: the configuration's, which has no end, before an operator's before
/// that of the DAG.
pub fn pause_in_force(schedule: &Schedule, state: Option<&ScheduleState>, now: Timestamp) -> Option<PauseOverview> {
    if schedule.paused {
        let reason = Some("`paused = true` in the configuration".to_owned());
        return Some(PauseOverview { by: CONFIGURATION.to_owned(), reason, until: None, at: None });
    }
    let state = state?;
    if let Some(pause) = state.pause.as_ref().filter(|pause| pause.until.is_none_or(|until| now < until)) {
        return Some(PauseOverview {
            by: pause.by.clone(),
            reason: pause.reason.clone(),
            until: pause.until,
            at: Some(pause.at),
        });
    }
    let at = state.dag_paused_at.filter(|_| schedule.paused_dag == PausedDag::Hold)?;
    let reason = Some(format!("the DAG `{}` is paused in Airflow `{}`", schedule.dag_id, schedule.airflow));
    Some(PauseOverview { by: AIRFLOW.to_owned(), reason, until: None, at: Some(at) })
}

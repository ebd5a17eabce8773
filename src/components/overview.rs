//! What a person is shown of an Airflow and its parts: the fields of the API, of `-o json` and of the znode
//! `airflow/{name}`. Pure, and the same for all three.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::component::{Component, ComponentKind, ComponentState, Reach, Report};
use crate::store::model::{microseconds, optional_microseconds};
use crate::store::{Ledger, StoreError};

/// An Airflow and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AirflowOverview {
    /// Its name in the configuration.
    pub name: String,
    /// Its address.
    pub url: String,
    /// The version that it says it is.
    pub version: Option<String>,
    /// `up`, `unreachable`, or `unknown` before it was asked.
    pub state: Reach,
    /// Since when that is so.
    #[serde(serialize_with = "optional_microseconds")]
    pub since: Option<Timestamp>,
    /// Why it cannot be reached.
    pub reason: Option<String>,
    /// When it was asked last.
    #[serde(serialize_with = "optional_microseconds")]
    pub checked_at: Option<Timestamp>,
    /// When it answered last; everything below is from then.
    #[serde(serialize_with = "optional_microseconds")]
    pub answered_at: Option<Timestamp>,
    /// What somebody may want to look at, a sentence each; empty when all is well.
    pub warnings: Vec<String>,
    /// Airflow's own word on each part: `healthy`, `unhealthy`, or null for one that it has not had.
    pub health: BTreeMap<String, Option<String>>,
    /// Why the processes could not be read, and the components are what was known before or whole kinds.
    pub jobs_reason: Option<String>,
    /// Its parts; those that are gone come last.
    pub components: Vec<ComponentOverview>,
}

/// A part of an Airflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentOverview {
    /// `scheduler`, `triggerer` or `dag_processor`.
    pub kind: ComponentKind,
    /// The number of its process among Airflow's jobs; null where Airflow tells of the kind only.
    pub job: Option<i64>,
    /// The host that it runs on, as far as Airflow says.
    pub hostname: Option<String>,
    /// `healthy`, `stale`, `gone`, or `unknown` while Airflow cannot be asked.
    pub state: ComponentState,
    /// When it started.
    #[serde(serialize_with = "optional_microseconds")]
    pub started_at: Option<Timestamp>,
    /// Its latest heartbeat, by Airflow's clock.
    #[serde(serialize_with = "optional_microseconds")]
    pub heartbeat_at: Option<Timestamp>,
    /// How old that was when Airflow was asked, by Airflow's clock.
    pub heartbeat_age_ms: Option<i64>,
    /// When flowkeeper first saw it.
    #[serde(serialize_with = "microseconds")]
    pub first_seen_at: Timestamp,
    /// When Airflow last told of it as one that runs.
    #[serde(serialize_with = "microseconds")]
    pub last_seen_at: Timestamp,
    /// When it went.
    #[serde(serialize_with = "optional_microseconds")]
    pub gone_at: Option<Timestamp>,
    /// Why it is thought to be gone.
    pub reason: Option<String>,
}

/// All Airflows of the configuration, each with its address, as the ledger remembers them.
pub async fn read(
    ledger: &Ledger,
    airflows: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<AirflowOverview>, StoreError> {
    let known = ledger.airflows().await?;
    let mut overviews: Vec<_> = airflows
        .into_iter()
        .map(|(name, url)| {
            // What is remembered of another Airflow that had the name is not about this one.
            let known = known.iter().find(|(report, _)| report.airflow == name && report.url == url);
            let (report, components) = known.map(|(report, components)| (report, components.as_slice())).unzip();
            of(&name, &url, report, components.unwrap_or_default())
        })
        .collect();
    overviews.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(overviews)
}

/// One Airflow; without a report it was not asked yet.
pub fn of(name: &str, url: &str, report: Option<&Report>, components: &[Component]) -> AirflowOverview {
    let reach = report.map_or(Reach::Unknown, |report| report.reach);
    let mut components: Vec<_> = components.iter().map(|component| part(component, reach)).collect();
    components.sort_by_key(|part| (part.gone_at.is_some(), part.gone_at.map(std::cmp::Reverse), part.kind, part.job));
    AirflowOverview {
        name: name.to_owned(),
        url: url.to_owned(),
        version: report.and_then(|report| report.version.clone()),
        state: reach,
        since: report.map(|report| report.since),
        reason: report.and_then(|report| report.reason.clone()),
        checked_at: report.map(|report| report.checked_at),
        answered_at: report.and_then(|report| report.answered_at),
        warnings: report.map(|report| report.warnings.clone()).unwrap_or_default(),
        health: report
            .into_iter()
            .flat_map(|report| report.health.iter().map(|part| (part.name.clone(), part.status.clone())))
            .collect(),
        jobs_reason: report.and_then(|report| report.jobs_reason.clone()),
        components,
    }
}

fn part(component: &Component, reach: Reach) -> ComponentOverview {
    let is_known = reach == Reach::Up || !component.is_there();
    ComponentOverview {
        kind: component.kind,
        job: component.job,
        hostname: component.hostname.clone(),
        state: if is_known { component.state } else { ComponentState::Unknown },
        started_at: component.started_at,
        heartbeat_at: component.heartbeat_at,
        heartbeat_age_ms: component.heartbeat_age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
        first_seen_at: component.first_seen_at,
        last_seen_at: component.last_seen_at,
        gone_at: component.gone_at,
        reason: component.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::component::{HealthPart, Jobs, Look};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn component(job: i64, gone_at: Option<i64>) -> Component {
        Component {
            kind: ComponentKind::Scheduler,
            job: Some(job),
            hostname: None,
            state: if gone_at.is_some() { ComponentState::Gone } else { ComponentState::Healthy },
            started_at: None,
            heartbeat_at: Some(at(0)),
            heartbeat_age: Some(jiff::SignedDuration::from_millis(1500)),
            first_seen_at: at(0),
            last_seen_at: at(0),
            gone_at: gone_at.map(at),
            reason: None,
        }
    }

    #[test]
    fn what_is_there_comes_first_and_is_unknown_while_airflow_cannot_be_asked() {
        let health = vec![HealthPart { name: "scheduler".into(), status: Some("healthy".into()), heartbeat_at: None }];
        let look = Look { at: at(7), airflow_time: at(7), health, jobs: Jobs::NotOffered };
        let url = || "http://airflow.example".to_owned();
        let up = Report::answered(None, "main", url(), &look, vec![]);
        let components = [component(1, Some(3)), component(4, None), component(2, Some(5)), component(3, None)];
        let states = |overview: &AirflowOverview| -> Vec<_> {
            overview.components.iter().map(|part| (part.job.unwrap_or(0), part.state)).collect()
        };
        let (healthy, gone, unknown) = (ComponentState::Healthy, ComponentState::Gone, ComponentState::Unknown);
        let shown = of("main", &url(), Some(&up), &components);
        assert_eq!(states(&shown), [(3, healthy), (4, healthy), (2, gone), (1, gone)]);
        assert_eq!((shown.state, shown.health["scheduler"].as_deref()), (Reach::Up, Some("healthy")));
        assert_eq!(shown.components[0].heartbeat_age_ms, Some(1500));

        let away = Report::unreachable(Some(&up), "main", url(), at(9), "refused".into());
        let shown = of("main", &url(), Some(&away), &components);
        assert_eq!(states(&shown), [(3, unknown), (4, unknown), (2, gone), (1, gone)]);
        assert_eq!((shown.since, shown.answered_at), (Some(at(9)), Some(at(7))));
        assert_eq!(of("main", &url(), None, &[]).state, Reach::Unknown);
    }
}

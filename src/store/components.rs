//! What the ledger remembers of each Airflow: its last report, and its parts, also those that are gone.

use jiff::SignedDuration;

use super::sql::{Columns, Value, bind, bulk};
use super::{Leadership, Ledger, StoreError};
use crate::domain::component::{Component, ComponentKind, ComponentState, Judgement, Reach, Report};

/// How many parts that are gone are shown of each Airflow, those that went last.
const GONE_SHOWN: i64 = 50;

/// The number of a kind of which Airflow tells as a whole. Airflow counts its jobs from 1.
const WHOLE_KIND: i64 = 0;

impl Ledger {
    /// Notes what an Airflow said, and what follows for its parts, in one transaction.
    pub async fn note_airflow(
        &self,
        leadership: &Leadership,
        report: &Report,
        judgement: &Judgement,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        bind(
            "INSERT INTO airflow_reports (airflow, url, version, reach, since, reason, checked_at, answered_at, health, \
             jobs_reason, warnings) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (airflow) DO UPDATE SET url = excluded.url, version = excluded.version, reach = excluded.reach, \
             since = excluded.since, reason = excluded.reason, checked_at = excluded.checked_at, \
             answered_at = excluded.answered_at, health = excluded.health, jobs_reason = excluded.jobs_reason, \
             warnings = excluded.warnings",
            report_row(report),
        )
        .execute(transaction.connection())
        .await?;
        for (kind, job) in &judgement.forgotten {
            bind(
                "DELETE FROM airflow_components WHERE airflow = $1 AND kind = $2 AND job = $3",
                [report.airflow.as_str().into(), kind.as_str().into(), job.unwrap_or(WHOLE_KIND).into()],
            )
            .execute(transaction.connection())
            .await?;
        }
        let rows = judgement.components.iter().map(|component| component_row(&report.airflow, component)).collect();
        bulk(
            transaction.connection(),
            "INSERT INTO airflow_components (airflow, kind, job, hostname, state, started_at, heartbeat_at, \
             heartbeat_age_us, first_seen_at, last_seen_at, gone_at, reason) VALUES ",
            " ON CONFLICT (airflow, kind, job) DO UPDATE SET hostname = excluded.hostname, state = excluded.state, \
             started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, \
             heartbeat_age_us = excluded.heartbeat_age_us, first_seen_at = excluded.first_seen_at, \
             last_seen_at = excluded.last_seen_at, gone_at = excluded.gone_at, reason = excluded.reason",
            &[],
            rows,
        )
        .await?;
        transaction.commit().await
    }

    /// Forgets an Airflow with its parts, since its name stands for another one now.
    pub async fn forget_airflow(&self, leadership: &Leadership, airflow: &str) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        for sql in
            ["DELETE FROM airflow_reports WHERE airflow = $1", "DELETE FROM airflow_components WHERE airflow = $1"]
        {
            bind(sql, [airflow.into()]).execute(transaction.connection()).await?;
        }
        transaction.commit().await
    }

    /// Every Airflow that was ever asked: its last report, and its parts, those that are there and those that
    /// went last. One statement, since a report from before a look and parts from after it contradict each
    /// other.
    pub async fn airflows(&self) -> Result<Vec<(Report, Vec<Component>)>, StoreError> {
        let rows = self.fetch(
            "SELECT r.airflow, url, version, reach, since, r.reason, checked_at, answered_at, health, jobs_reason, \
             warnings, kind, job, hostname, state, started_at, heartbeat_at, heartbeat_age_us, first_seen_at, \
             last_seen_at, gone_at, placed.reason FROM airflow_reports r LEFT JOIN (SELECT c.*, ROW_NUMBER() OVER \
             (PARTITION BY airflow, CASE WHEN gone_at IS NULL THEN 0 ELSE 1 END ORDER BY gone_at DESC, job DESC) \
             AS place FROM airflow_components c) AS placed ON placed.airflow = r.airflow \
             AND (gone_at IS NULL OR place <= $1) ORDER BY r.airflow",
            [GONE_SHOWN.into()],
        );
        let mut airflows: Vec<(Report, Vec<Component>)> = Vec::new();
        for row in &rows.await? {
            let mut columns = Columns::of(row);
            let (report, component) = (report(&mut columns)?, component(&mut columns)?);
            match airflows.last_mut() {
                Some((before, components)) if before.airflow == report.airflow => components.extend(component),
                _ => airflows.push((report, component.into_iter().collect())),
            }
        }
        Ok(airflows)
    }
}

fn report_row(report: &Report) -> [Value; 11] {
    // Names, statuses and sentences always have a JSON form.
    let health = serde_json::to_string(&report.health).unwrap_or_else(|_| "[]".to_owned());
    let warnings = serde_json::to_string(&report.warnings).unwrap_or_else(|_| "[]".to_owned());
    [
        report.airflow.as_str().into(),
        report.url.as_str().into(),
        report.version.as_deref().into(),
        report.reach.as_str().into(),
        report.since.into(),
        report.reason.as_deref().into(),
        report.checked_at.into(),
        report.answered_at.into(),
        health.into(),
        report.jobs_reason.as_deref().into(),
        warnings.into(),
    ]
}

fn component_row(airflow: &str, component: &Component) -> Vec<Value> {
    let age = component.heartbeat_age.map(|age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    vec![
        airflow.into(),
        component.kind.as_str().into(),
        component.job.unwrap_or(WHOLE_KIND).into(),
        component.hostname.as_deref().into(),
        component.state.as_str().into(),
        component.started_at.into(),
        component.heartbeat_at.into(),
        age.into(),
        component.first_seen_at.into(),
        component.last_seen_at.into(),
        component.gone_at.into(),
        component.reason.as_deref().into(),
    ]
}

fn report(columns: &mut Columns<'_>) -> Result<Report, StoreError> {
    Ok(Report {
        airflow: columns.text()?,
        url: columns.text()?,
        version: columns.optional_text()?,
        reach: known(&columns.text()?, Reach::parse)?,
        since: columns.time()?,
        reason: columns.optional_text()?,
        checked_at: columns.time()?,
        answered_at: columns.optional_time()?,
        health: list(&columns.text()?)?,
        jobs_reason: columns.optional_text()?,
        warnings: list(&columns.text()?)?,
    })
}

/// The part in the columns after those of a report; `None` where they are empty, since there is none.
fn component(columns: &mut Columns<'_>) -> Result<Option<Component>, StoreError> {
    let Some(kind) = columns.optional_text()? else { return Ok(None) };
    Ok(Some(Component {
        kind: known(&kind, ComponentKind::parse)?,
        job: Some(columns.integer()?).filter(|job| *job != WHOLE_KIND),
        hostname: columns.optional_text()?,
        state: known(&columns.text()?, ComponentState::parse)?,
        started_at: columns.optional_time()?,
        heartbeat_at: columns.optional_time()?,
        heartbeat_age: columns.optional_integer()?.map(SignedDuration::from_micros),
        first_seen_at: columns.time()?,
        last_seen_at: columns.time()?,
        gone_at: columns.optional_time()?,
        reason: columns.optional_text()?,
    }))
}

fn known<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is nothing that an Airflow can be") })
}

fn list<T: serde::de::DeserializeOwned>(json: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Corrupt { what: format!("a list in the ledger: {error}") })
}

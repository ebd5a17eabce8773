//! The health of ensembles: the latest report on each, what changed in it, and what became of them.
//!
//! A look is written with everything that follows from it in one transaction: the report, the changes
//! of its verdicts, the standing, the transition, and the runs of all schedules that listen to it.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::conditions::Conditions;
use super::model::{EnsembleState, HealthChange, HealthFilter, HealthRecord, Page};
use super::record;
use super::sql::{Columns, Value, bind, bulk};
use super::{Leadership, Ledger, StoreError};
use crate::domain::ensemble::{Happening, Recount, Standing, Transition};
use crate::domain::health::{Check, Finding, Report, Verdict};

const STATE: &str = "SELECT report, reported_at, standing, revision FROM ensembles";

/// The types of a row of changes. Numbers go as text: the driver takes a missing number for one of another
/// size, and what is prepared for the one refuses the other.
const CHANGE_TYPES: [&str; 9] = ["TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "DOUBLE PRECISION", "TEXT", "TEXT"];

fn parsed<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what: format!("{what} cannot be read: {error}") })
}

fn written<T: serde::Serialize>(value: &T, what: &str) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Corrupt { what: format!("{what} has no JSON form: {error}") })
}

fn state(row: &AnyRow) -> Result<EnsembleState, StoreError> {
    let mut columns = Columns::of(row);
    Ok(EnsembleState {
        report: parsed(&columns.text()?, "the report on an ensemble")?,
        reported_at: columns.time()?,
        standing: parsed(&columns.text()?, "the standing of an ensemble")?,
        revision: columns.integer()?,
    })
}

impl Ledger {
    /// The latest that is known of an ensemble; `None` of one that was never seen.
    pub async fn ensemble_state(&self, ensemble: &str) -> Result<Option<EnsembleState>, StoreError> {
        let rows = self.fetch(format!("{STATE} WHERE name = $1"), [ensemble.into()]).await?;
        rows.first().map(state).transpose()
    }

    /// The revision of what is known of an ensemble, and from where it is judged next; 0 and nothing of one
    /// that was never seen. A standing that cannot be read is as good as none.
    pub async fn ensemble_standing(&self, ensemble: &str) -> Result<(i64, Standing), StoreError> {
        let sql = "SELECT revision, standing FROM ensembles WHERE name = $1";
        let rows = self.fetch(sql, [ensemble.into()]).await?;
        let Some(row) = rows.first() else { return Ok((0, Standing::default())) };
        let mut columns = Columns::of(row);
        let revision = columns.integer()?;
        let standing = parsed(&columns.text()?, "the standing of an ensemble").unwrap_or_else(|error| {
            tracing::error!(ensemble, %error, "an ensemble is judged as if it was seen for the first time");
            Standing::default()
        });
        Ok((revision, standing))
    }

    /// The latest that is known of every ensemble, by name.
    pub async fn ensemble_states(&self) -> Result<Vec<EnsembleState>, StoreError> {
        let rows = self.fetch(format!("{STATE} ORDER BY name"), []).await?;
        let mut states = rows.iter().map(state).collect::<Result<Vec<_>, _>>()?;
        // The collation of the database is anybody's.
        states.sort_by(|one, other| one.report.ensemble.cmp(&other.report.ensemble));
        Ok(states)
    }

    /// The changes of verdicts on an ensemble, newest first.
    pub async fn health_changes(
        &self,
        ensemble: &str,
        filter: &HealthFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<HealthChange>, StoreError> {
        let mut conditions = Conditions::default();
        conditions.add("ensemble = ?", ensemble);
        if let Some(check) = &filter.check {
            conditions.add("check_name = ?", check.as_str());
        }
        if let Some(server) = &filter.server {
            conditions.add("server = ?", server.as_str());
        }
        if let Some(since) = filter.since {
            conditions.add("at >= ?", since);
        }
        if let Some(until) = filter.until {
            conditions.add("at < ?", until);
        }
        let select = "SELECT id, at, ensemble, check_name, server, verdict_before, verdict_after, value, unit, meaning \
                      FROM health_changes";
        conditions.page(self, select, "id", limit, cursor, change).await
    }

    /// What became of an ensemble, or of all of them, newest first.
    pub async fn transitions(
        &self,
        ensemble: Option<&str>,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Page<Transition>, StoreError> {
        let mut conditions = Conditions::default();
        if let Some(ensemble) = ensemble {
            conditions.add("ensemble = ?", ensemble);
        }
        let read = |row: &AnyRow| {
            let mut columns = Columns::of(row);
            Ok((columns.integer()?, parsed(&columns.text()?, "a transition")?))
        };
        let select = "SELECT id, transition FROM ensemble_transitions";
        conditions.page(self, select, "id", limit, cursor, read).await
    }

    /// Writes a look at an ensemble with all that follows from it, if its standing is still the one that
    /// it was judged from; the new revision, or `None` if it is not, and nothing was written.
    ///
    /// Unlike [`Ledger::record`] it does not try again when the store is away: whoever looks decides
    /// what is still worth writing.
    pub async fn record_health(
        &self,
        leadership: &Leadership,
        health: &HealthRecord,
    ) -> Result<Option<i64>, StoreError> {
        let ensemble = health.report.ensemble.as_str();
        let mut transaction = self.begin(leadership).await?;
        let shadow = transaction.is_shadow();
        let (connection, at, changes) = transaction.parts();
        let sql = "SELECT revision, report FROM ensembles WHERE name = $1";
        let rows = bind(sql, [ensemble.into()]).fetch_all(&mut *connection).await?;
        let (revision, before) = match rows.first() {
            None => (0, None),
            Some(row) => {
                let mut columns = Columns::of(row);
                // One of another version of flowkeeper that cannot be read is compared with nothing.
                (columns.integer()?, parsed::<Report>(&columns.text()?, "a report").ok())
            }
        };
        if revision != health.expected_revision {
            return Ok(None);
        }
        write_state(connection, health, revision + 1).await?;
        write_changes(connection, before.as_ref(), health).await?;
        for recount in &health.recounts {
            count_again(connection, ensemble, recount).await?;
        }
        if let Some(transition) = &health.transition {
            bind(
                "INSERT INTO ensemble_transitions (ensemble, at, transition) VALUES ($1, $2, $3)",
                [ensemble.into(), transition.at.into(), written(transition, "a transition")?.into()],
            )
            .execute(&mut *connection)
            .await?;
        }
        // The runs that are known already are those of a transition that was written: it has its own time.
        for run in record::record(connection, at, &[&health.recording], shadow, changes).await? {
            run?;
        }
        transaction.commit().await?;
        Ok(Some(revision + 1))
    }
}

fn change(row: &AnyRow) -> Result<(i64, HealthChange), StoreError> {
    let verdict = |text: String| {
        Verdict::parse(&text).ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is not a verdict") })
    };
    let mut columns = Columns::of(row);
    let id = columns.integer()?;
    let change = HealthChange {
        at: columns.time()?,
        ensemble: columns.text()?,
        check: columns.text()?,
        server: columns.optional_text()?,
        before: columns.optional_text()?.map(verdict).transpose()?,
        after: verdict(columns.text()?)?,
        value: columns.optional_real()?,
        unit: columns.optional_text()?,
        meaning: columns.text()?,
    };
    Ok((id, change))
}

async fn write_state(connection: &mut AnyConnection, health: &HealthRecord, revision: i64) -> Result<(), StoreError> {
    bind(
        "INSERT INTO ensembles (name, revision, reported_at, report, standing) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, reported_at = excluded.reported_at, \
         report = excluded.report, standing = excluded.standing",
        [
            health.report.ensemble.as_str().into(),
            revision.into(),
            health.at.into(),
            written(&health.report, "a report")?.into(),
            written(&health.standing, "a standing")?.into(),
        ],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Enters what differs from the report before. At first sight, what is not well.
async fn write_changes(
    connection: &mut AnyConnection,
    before: Option<&Report>,
    health: &HealthRecord,
) -> Result<(), StoreError> {
    let known: HashMap<(Check, Option<&str>), Verdict> = before
        .iter()
        .flat_map(|report| &report.checks)
        .map(|finding| ((finding.check, finding.server.as_deref()), finding.verdict))
        .collect();
    let rows = health.report.checks.iter().filter_map(|finding| {
        let before = known.get(&(finding.check, finding.server.as_deref())).copied();
        let news = match before {
            Some(before) => before != finding.verdict,
            None => !matches!(finding.verdict, Verdict::Ok | Verdict::NotApplicable),
        };
        news.then(|| change_row(health, before, finding))
    });
    bulk(
        connection,
        "INSERT INTO health_changes (ensemble, at, check_name, server, verdict_before, verdict_after, value, unit, \
         meaning) VALUES ",
        "",
        &CHANGE_TYPES,
        rows.collect(),
    )
    .await?;
    Ok(())
}

fn change_row(health: &HealthRecord, before: Option<Verdict>, finding: &Finding) -> Vec<Value> {
    vec![
        health.report.ensemble.as_str().into(),
        health.at.into(),
        finding.check.as_str().into(),
        finding.server.clone().into(),
        before.map(Verdict::as_str).into(),
        finding.verdict.as_str().into(),
        finding.value.filter(|value| value.is_finite()).map(|value| value.to_string()).into(),
        finding.unit.as_deref().into(),
        finding.meaning.as_str().into(),
    ]
}

/// Raises the count of something that a transition told, and that has come again.
async fn count_again(connection: &mut AnyConnection, ensemble: &str, again: &Recount) -> Result<(), StoreError> {
    let rows = bind(
        "SELECT transition FROM ensemble_transitions WHERE ensemble = $1 AND at = $2",
        [ensemble.into(), again.at.into()],
    )
    .fetch_all(&mut *connection)
    .await?;
    // Old ones are deleted.
    let Some(row) = rows.first() else { return Ok(()) };
    let mut transition: Transition = parsed(&Columns::of(row).text()?, "a transition")?;
    let told = |event: &&mut Happening| event.event == again.event && event.server == again.server;
    for happening in transition.events.iter_mut().filter(told) {
        happening.count = again.count;
    }
    bind(
        "UPDATE ensemble_transitions SET transition = $1 WHERE ensemble = $2 AND at = $3",
        [written(&transition, "a transition")?.into(), ensemble.into(), again.at.into()],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes what is older, but for each ensemble's newest transition; how many rows.
pub(super) async fn retain(connection: &mut AnyConnection, oldest: Timestamp, block: i64) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for sql in [
        "DELETE FROM health_changes WHERE id IN (SELECT id FROM health_changes WHERE at < $1 ORDER BY at LIMIT $2)",
        "DELETE FROM ensemble_transitions WHERE id IN (SELECT id FROM ensemble_transitions t WHERE t.at < $1 AND EXISTS \
         (SELECT 1 FROM ensemble_transitions n WHERE n.ensemble = t.ensemble AND n.id > t.id) ORDER BY t.at LIMIT $2)",
        "DELETE FROM ensembles WHERE name IN (SELECT name FROM ensembles WHERE reported_at < $1 LIMIT $2)",
    ] {
        deleted += bind(sql, [oldest.into(), block.into()]).execute(&mut *connection).await?.rows_affected();
    }
    Ok(deleted)
}

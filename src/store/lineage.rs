//! What the ledger remembers of each ensemble: its generation, and the mark that only grows.
//!
//! The order is the caller's: the mark is raised here, then the znode is written, then what it holds
//! is noted here. An adoption changes memory, cursors and what is owed in one transaction.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::audit::write_audit;
use super::model::{Decision, NewAudit, Recording};
use super::record::note_decisions;
use super::sql::{Columns, bind, select_in};
use super::{Leadership, Ledger, StoreError, resting};
use crate::domain::lineage::{Adopt, Adoption, Confirmed, CursorsAfter, Incarnation, Memory};
use crate::domain::schedule::ScheduleName;
use crate::domain::whereabouts::Whereabouts;

const COLUMNS: &str = "generation, mark, confirmed_generation, confirmed_mark, confirmed_czxid, replaces_czxid, replaces_version, servers";

const REMEMBERED: &str = "SELECT generation, mark, confirmed_generation, confirmed_mark, confirmed_czxid, replaces_czxid, \
     replaces_version, servers FROM lineages WHERE ensemble = $1";

/// The kind of the decision of an adoption.
const ADOPTED: &str = "adopted";

/// What becomes of a child whose czxid means nothing any more.
const ABANDONED: &str = "left where it is: ZooKeeper was rebuilt before it was deleted";

/// The name under which the ledger keeps an ensemble.
fn key(ensemble: Option<&str>) -> &str {
    ensemble.unwrap_or("")
}

fn memory(row: &AnyRow) -> Result<Memory, StoreError> {
    let narrow = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| StoreError::Corrupt { what: format!("{value} is not {what}") })
    };
    let mut columns = Columns::of(row);
    let (generation, mark) = (narrow(columns.integer()?, "a generation")?, columns.integer()?);
    let confirmed = (columns.optional_integer()?, columns.optional_integer()?, columns.optional_integer()?);
    let replaces = (columns.optional_integer()?, columns.optional_integer()?);
    let confirmed = match confirmed {
        (Some(generation), Some(mark), Some(czxid)) => {
            Some(Confirmed { generation: narrow(generation, "a generation")?, mark, czxid })
        }
        _ => None,
    };
    let replaces = match replaces {
        (Some(czxid), Some(version)) => {
            let version = i32::try_from(version)
                .map_err(|_| StoreError::Corrupt { what: format!("{version} is not a data version") })?;
            Some(Incarnation { czxid, version })
        }
        _ => None,
    };
    let whereabouts = columns.optional_text()?.as_deref().map(Whereabouts::of);
    Ok(Memory { generation, mark, confirmed, replaces, whereabouts })
}

async fn remembered(connection: &mut AnyConnection, ensemble: Option<&str>) -> Result<Memory, StoreError> {
    let rows = bind(REMEMBERED.to_owned(), [key(ensemble).into()]).fetch_all(connection).await?;
    Ok(rows.first().map(memory).transpose()?.unwrap_or_default())
}

impl Ledger {
    /// What is remembered of an ensemble (`None`: the home ensemble); of one that was never met, nothing.
    pub async fn lineage(&self, ensemble: Option<&str>) -> Result<Memory, StoreError> {
        let rows = self.fetch(REMEMBERED, [key(ensemble).into()]).await?;
        Ok(rows.first().map(memory).transpose()?.unwrap_or_default())
    }

    /// Raises the mark that the znode `store` is to hold next; what is remembered from then on.
    pub async fn raise_mark(&self, leadership: &Leadership, ensemble: Option<&str>) -> Result<Memory, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let sql = format!(
            "INSERT INTO lineages (ensemble, generation, mark) VALUES ($1, 0, 1) \
             ON CONFLICT (ensemble) DO UPDATE SET mark = lineages.mark + 1 RETURNING {COLUMNS}"
        );
        let row = bind(sql, [key(ensemble).into()]).fetch_one(transaction.connection()).await?;
        let raised = memory(&row)?;
        transaction.commit().await?;
        Ok(raised)
    }

    /// Notes what the znode `store` is known to hold.
    pub async fn confirm_mark(
        &self,
        leadership: &Leadership,
        ensemble: Option<&str>,
        held: Confirmed,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        bind(
            "UPDATE lineages SET confirmed_generation = $1, confirmed_mark = $2, confirmed_czxid = $3, \
             replaces_czxid = NULL, replaces_version = NULL WHERE ensemble = $4",
            [i64::from(held.generation).into(), held.mark.into(), held.czxid.into(), key(ensemble).into()],
        )
        .execute(transaction.connection())
        .await?;
        transaction.commit().await
    }

    /// Notes where an ensemble is whose znodes are about to be compared.
    pub async fn note_whereabouts(
        &self,
        leadership: &Leadership,
        ensemble: Option<&str>,
        now: &Whereabouts,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        bind(
            "INSERT INTO lineages (ensemble, generation, mark, servers) VALUES ($1, 0, 0, $2) \
             ON CONFLICT (ensemble) DO UPDATE SET servers = excluded.servers",
            [key(ensemble).into(), now.to_string().into()],
        )
        .execute(transaction.connection())
        .await?;
        transaction.commit().await
    }

    /// Carries an adoption out, if what is remembered is still `expected`; `false` if it is not.
    ///
    /// `schedules` are those whose znode triggers watch the ensemble.
    pub async fn adopt(
        &self,
        leadership: &Leadership,
        ensemble: Option<&str>,
        expected: &Memory,
        adoption: &Adoption,
        schedules: &[ScheduleName],
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let connection = transaction.connection();
        if remembered(connection, ensemble).await? != *expected {
            return Ok(false);
        }
        remember(connection, ensemble, &adoption.memory).await?;
        if let CursorsAfter::Begin(decision) = adoption.cursors {
            let names = || schedules.iter().map(ScheduleName::as_str);
            select_in(connection, "DELETE FROM znode_cursors WHERE schedule IN", "", names()).await?;
            // Of what rests nothing can be compared any more, either; whoever takes it up begins anew.
            for table in resting::TABLES {
                bind(format!("DELETE FROM {table}"), []).execute(&mut *connection).await?;
            }
            let begin = format!(
                "UPDATE schedules SET znode_zxid = NULL, znode_after = NULL, first_look = '{}' WHERE name IN",
                decision.as_str()
            );
            select_in(connection, &begin, "", names()).await?;
        }
        if adoption.zxids_end {
            abandon_consumes(connection, ensemble).await?;
        }
        let detail = explained(adoption);
        let decision = |schedule: &ScheduleName| Decision {
            schedule: schedule.clone(),
            at,
            kind: ADOPTED,
            detail: detail.clone(),
        };
        let recording = Recording { decisions: schedules.iter().map(decision).collect(), ..Recording::default() };
        note_decisions(connection, &[&recording]).await?;
        write_audit(connection, at, &audit).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// An adoption, for those who ask later why a trigger did what it did.
fn explained(adoption: &Adoption) -> String {
    let znodes = match adoption.cursors {
        CursorsAfter::Kept => "the ledger was restored, and the trigger goes on from where it had been",
        CursorsAfter::Begin(Adopt::Fire) => "the znodes that exist come due",
        CursorsAfter::Begin(Adopt::Ignore) => "the znodes that exist are taken as handled",
    };
    format!("an operator has decided about a second history: {znodes} (generation {})", adoption.memory.generation)
}

async fn remember(connection: &mut AnyConnection, ensemble: Option<&str>, memory: &Memory) -> Result<(), StoreError> {
    let confirmed = memory.confirmed;
    bind(
        format!(
            "INSERT INTO lineages (ensemble, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (ensemble) \
             DO UPDATE SET generation = excluded.generation, mark = excluded.mark, \
             confirmed_generation = excluded.confirmed_generation, confirmed_mark = excluded.confirmed_mark, \
             confirmed_czxid = excluded.confirmed_czxid, replaces_czxid = excluded.replaces_czxid, \
             replaces_version = excluded.replaces_version, servers = excluded.servers"
        ),
        [
            key(ensemble).into(),
            i64::from(memory.generation).into(),
            memory.mark.into(),
            confirmed.map(|held| i64::from(held.generation)).into(),
            confirmed.map(|held| held.mark).into(),
            confirmed.map(|held| held.czxid).into(),
            memory.replaces.map(|place| place.czxid).into(),
            memory.replaces.map(|place| i64::from(place.version)).into(),
            memory.whereabouts.as_ref().map(ToString::to_string).into(),
        ],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Nothing is deleted in the new history on the word of the old one: the same path may have the same
/// czxid there by chance.
async fn abandon_consumes(connection: &mut AnyConnection, ensemble: Option<&str>) -> Result<(), StoreError> {
    let of_ensemble = if ensemble.is_some() { "consume_ensemble = $2" } else { "consume_ensemble IS NULL" };
    let sql = format!(
        "UPDATE runs SET consume_note = $1 WHERE consume_when IS NOT NULL AND consume_note IS NULL AND {of_ensemble}"
    );
    let values = std::iter::once(ABANDONED.into()).chain(ensemble.map(Into::into));
    bind(sql, values).execute(connection).await?;
    Ok(())
}

//! How far each schedule's trigger has got, its pauses, and what an edit does to both.
//!
//! A cursor belongs to a schedule's name and its trigger. When the trigger is edited, a new one
//! begins at that moment; when the schedule is removed while its leader works, its cursor ends with it.
//! But members may have different configurations, while a new one is rolled out for example. So what
//! another leader's does not have is kept for a day: when it comes back with the same trigger, it goes on
//! where it was. Znodes that a trigger watched before and after an edit keep their cursors, so that no
//! change of theirs falls between the two.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sqlx::AnyConnection;

use super::audit::write_audit;
use super::model::{NewAudit, Pause, ScheduleState, ScheduleStates, ZnodeCursor};
use super::sql::{Columns, bind, bulk, select_in};
use super::{Leadership, Ledger, StoreError, paths};
use crate::domain::lineage::Adopt;
use crate::domain::renames;
use crate::domain::schedule::{ScheduleName, Trigger};
use crate::domain::znode::ZnodeVersion;

/// A schedule as the ledger tells it from another: its name, and a text that changes with its
/// trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerIdentity {
    /// The name.
    pub name: ScheduleName,
    /// The name before a rename.
    pub was: Option<ScheduleName>,
    /// Changes exactly when the trigger does.
    pub key: String,
}

/// What becomes of the cursor of a schedule that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It is kept for a day.
    Rests,
    /// It ends.
    Ends,
}

const STATE_COLUMNS: &str = "name, trigger_key, since, cron_cursor, znode_zxid, paused_by, pause_reason, paused_at, pause_until, \
     dag_paused_at, first_look, znode_after";

fn state(row: &sqlx::any::AnyRow) -> Result<ScheduleState, StoreError> {
    let mut columns = Columns::of(row);
    let name = columns.schedule()?;
    let trigger_key = columns.text()?;
    let (since, cron_cursor, znode_initialized) = (columns.time()?, columns.time()?, columns.optional_integer()?);
    let (by, reason, at, until) =
        (columns.optional_text()?, columns.optional_text()?, columns.optional_time()?, columns.optional_time()?);
    let pause = by.zip(at).map(|(by, at)| Pause { by, reason, until, at });
    let dag_paused_at = columns.optional_time()?;
    let first_look = match columns.optional_text()? {
        Some(text) => Some(
            Adopt::parse(&text)
                .ok_or_else(|| StoreError::Corrupt { what: format!("`{text}` is not what a first look does") })?,
        ),
        None => None,
    };
    let znode_after = columns.optional_integer()?;
    Ok(ScheduleState {
        name,
        trigger_key,
        since,
        cron_cursor,
        znode_initialized,
        znode_after,
        first_look,
        pause,
        dag_paused_at,
    })
}

impl TriggerIdentity {
    /// Whether the ledger knows these schedules, with these triggers, and no others: there is nothing to
    /// adopt, as whenever one member takes over from another.
    pub fn all_known(schedules: &[Self], states: &ScheduleStates) -> bool {
        schedules.len() == states.len()
            && schedules
                .iter()
                .all(|schedule| states.get(&schedule.name).is_some_and(|state| state.trigger_key == schedule.key))
    }
}

/// What the ledger knows of all schedules when others come into force.
struct Known {
    /// The trigger of each.
    keys: HashMap<String, String>,
    /// Those that are not in force.
    absent: HashSet<String>,
    /// Up to which zxid each znode trigger is known to have compared everything.
    looked: HashMap<String, i64>,
}

impl Known {
    async fn read(connection: &mut AnyConnection, compared: &HashMap<ScheduleName, i64>) -> Result<Self, StoreError> {
        let sql = "SELECT name, trigger_key, gone_at, COALESCE(znode_zxid, znode_after) FROM schedules";
        let mut known = Self { keys: HashMap::new(), absent: HashSet::new(), looked: HashMap::new() };
        for row in bind(sql, []).fetch_all(&mut *connection).await? {
            let mut columns = Columns::of(&row);
            let (name, key) = (columns.text()?, columns.text()?);
            if columns.optional_integer()?.is_some() {
                known.absent.insert(name.clone());
            }
            let handed_over = ScheduleName::new(&name).and_then(|name| compared.get(&name).copied());
            if let Some(zxid) = columns.optional_integer()?.max(handed_over) {
                known.looked.insert(name.clone(), zxid);
            }
            known.keys.insert(name, key);
        }
        Ok(known)
    }

    /// Which of these go on under another name: old and new. What rests moves as well, but not over what
    /// was in force without it.
    fn renames<'s>(&self, schedules: &'s [TriggerIdentity]) -> Vec<(&'s str, &'s str)> {
        let names = schedules.iter().map(|schedule| (&schedule.name, schedule.was.as_ref()));
        let renames = renames::among(names, |was| self.keys.contains_key(was.as_str()));
        let present = |name: &str| self.keys.contains_key(name) && !self.absent.contains(name);
        let renames = renames.into_iter().map(|(new, old)| (old.as_str(), new.as_str()));
        renames.filter(|(old, new)| present(old) || !present(new)).collect()
    }

    /// The one has the name of the other, and what that had is no more.
    fn moved(&mut self, old: &str, new: &str) {
        self.absent.remove(new);
        if self.absent.remove(old) {
            self.absent.insert(new.to_owned());
        }
        self.looked.remove(new);
        if let Some(zxid) = self.looked.remove(old) {
            self.looked.insert(new.to_owned(), zxid);
        }
        if let Some(key) = self.keys.remove(old) {
            self.keys.insert(new.to_owned(), key);
        }
    }
}

/// Gives everything of a schedule another name, in the place of what had that name before.
async fn rename(connection: &mut AnyConnection, old: &str, new: &str) -> Result<(), StoreError> {
    for table in ["znode_cursors WHERE schedule", "schedules WHERE name"] {
        bind(format!("DELETE FROM {table} = $1"), [new.into()]).execute(&mut *connection).await?;
    }
    for (table, column) in [("schedules", "name"), ("znode_cursors", "schedule"), ("runs", "schedule")] {
        let sql = format!("UPDATE {table} SET {column} = $1 WHERE {column} = $2");
        bind(sql, [new.into(), old.into()]).execute(&mut *connection).await?;
    }
    Ok(())
}

impl Ledger {
    /// Brings the cursors into line with the schedules of a leader that begins, at the moment `now`.
    ///
    /// New and edited triggers begin at `now`, renamed ones keep their cursor, those of schedules that
    /// are gone end after a time, and those that come back before go on.
    pub async fn adopt_schedules(
        &self,
        leadership: &Leadership,
        schedules: &[TriggerIdentity],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.adopt_cursors(leadership, schedules, now, Leaving::Rests, &HashMap::new()).await
    }

    /// The same when the schedules of a working leader are edited: what is gone ends now, and begins anew
    /// should it come back. A pause by an operator outlives that. `compared` has the zxids up to which znode
    /// triggers that end have compared everything, by the names that they had.
    pub async fn edit_schedules(
        &self,
        leadership: &Leadership,
        schedules: &[TriggerIdentity],
        now: Timestamp,
        compared: &HashMap<ScheduleName, i64>,
    ) -> Result<(), StoreError> {
        self.adopt_cursors(leadership, schedules, now, Leaving::Ends, compared).await
    }

    async fn adopt_cursors(
        &self,
        leadership: &Leadership,
        schedules: &[TriggerIdentity],
        now: Timestamp,
        leaving: Leaving,
        compared: &HashMap<ScheduleName, i64>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let connection = transaction.connection();
        let mut known = Known::read(connection, compared).await?;
        for (old, new) in known.renames(schedules) {
            rename(connection, old, new).await?;
            known.moved(old, new);
        }
        let Known { keys, absent, looked } = known;
        let in_force: HashSet<&str> = schedules.iter().map(|schedule| schedule.name.as_str()).collect();

        let before = |schedule: &TriggerIdentity| keys.get(schedule.name.as_str()).map(String::as_str);
        let (respelled, edited): (Vec<_>, Vec<_>) = schedules
            .iter()
            .filter(|schedule| before(schedule) != Some(&schedule.key))
            .partition(|schedule| before(schedule).is_some_and(|before| Trigger::same_times(before, &schedule.key)));
        let stays = |schedule: &TriggerIdentity| {
            before(schedule).is_some_and(|before| Trigger::same_znodes(before, &schedule.key))
        };
        let restarted = edited
            .iter()
            .filter(|schedule| before(schedule).is_some() && !stays(schedule))
            .map(|schedule| schedule.name.as_str());
        let after =
            |schedule: &TriggerIdentity| looked.get(schedule.name.as_str()).copied().filter(|_| stays(schedule));
        let (present, gone): (Vec<&str>, Vec<&str>) =
            keys.keys().map(String::as_str).partition(|name| in_force.contains(name));
        let back = present.into_iter().filter(|name| absent.contains(*name));
        let left: Vec<&str> = gone.into_iter().filter(|name| !absent.contains(*name)).collect();
        let leave = match leaving {
            Leaving::Rests => format!("UPDATE schedules SET gone_at = {} WHERE name IN", now.as_microsecond()),
            Leaving::Ends => {
                format!("UPDATE schedules SET gone_at = {}, trigger_key = '' WHERE name IN", now.as_microsecond())
            }
        };
        if leaving == Leaving::Ends {
            let ended = left.iter().copied();
            select_in(connection, "DELETE FROM znode_cursors WHERE schedule IN", "", ended).await?;
        }
        select_in(connection, "DELETE FROM znode_cursors WHERE schedule IN", "", restarted).await?;
        select_in(connection, "UPDATE schedules SET gone_at = NULL WHERE name IN", "", back).await?;
        select_in(connection, &leave, "", left).await?;
        bulk(
            connection,
            "UPDATE schedules SET trigger_key = v.column2 FROM (VALUES ",
            ") AS v WHERE schedules.name = v.column1",
            &["TEXT", "TEXT"],
            respelled
                .iter()
                .map(|schedule| vec![schedule.name.as_str().into(), schedule.key.as_str().into()])
                .collect(),
        )
        .await?;
        bulk(
            connection,
            "INSERT INTO schedules (name, trigger_key, since, cron_cursor, znode_after) VALUES ",
            " ON CONFLICT (name) DO UPDATE SET trigger_key = excluded.trigger_key, since = excluded.since, \
             cron_cursor = excluded.cron_cursor, znode_zxid = NULL, znode_after = excluded.znode_after, first_look = NULL",
            &[],
            edited
                .iter()
                .map(|schedule| {
                    let (name, key) = (schedule.name.as_str().into(), schedule.key.as_str().into());
                    vec![name, key, now.into(), now.into(), after(schedule).into()]
                })
                .collect(),
        )
        .await?;
        transaction.commit().await
    }

    /// What the ledger knows of every schedule in force.
    pub async fn schedule_states(&self) -> Result<ScheduleStates, StoreError> {
        let rows =
            self.0.readers.fetch(format!("SELECT {STATE_COLUMNS} FROM schedules WHERE gone_at IS NULL"), []).await?;
        rows.iter().map(|row| state(row).map(|state| (state.name.clone(), state))).collect()
    }

    /// What the ledger knows of one schedule.
    pub async fn schedule_state(&self, schedule: &ScheduleName) -> Result<Option<ScheduleState>, StoreError> {
        let sql = format!("SELECT {STATE_COLUMNS} FROM schedules WHERE name = $1 AND gone_at IS NULL");
        let rows = self.0.readers.fetch(sql, [schedule.as_str().into()]).await?;
        rows.first().map(state).transpose()
    }

    /// Notes which schedules wait for a DAG that is paused in Airflow, and which do not any more.
    pub async fn note_paused_dags(
        &self,
        leadership: &Leadership,
        changes: Vec<(ScheduleName, bool)>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let row = |(name, paused): (ScheduleName, bool)| vec![name.as_str().into(), paused.then_some(at).into()];
        bulk(
            transaction.connection(),
            "UPDATE schedules SET dag_paused_at = v.column2 FROM (VALUES ",
            ") AS v WHERE schedules.name = v.column1",
            &["TEXT", "BIGINT"],
            changes.into_iter().map(row).collect(),
        )
        .await?;
        transaction.commit().await
    }

    /// The znodes that a trigger has handled.
    pub async fn znode_cursors(&self, schedule: &ScheduleName) -> Result<Vec<ZnodeCursor>, StoreError> {
        let rows = self
            .0
            .readers
            .fetch(
                "SELECT COALESCE(full_path, path), czxid, mzxid, version FROM znode_cursors WHERE schedule = $1",
                [schedule.as_str().into()],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let path = columns.text()?;
                let (czxid, mzxid, version) = (columns.integer()?, columns.integer()?, columns.integer()?);
                let version = i32::try_from(version)
                    .map_err(|_| StoreError::Corrupt { what: format!("{version} is not a data version") })?;
                Ok(ZnodeCursor { path, seen: ZnodeVersion { czxid, mzxid, version } })
            })
            .collect()
    }

    /// The data that a trigger last handled at `path`, where it keeps data.
    pub async fn previous_data(&self, schedule: &ScheduleName, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self
            .0
            .readers
            .fetch(
                "SELECT data FROM znode_cursors WHERE schedule = $1 AND path = $2",
                [schedule.as_str().into(), (*paths::key(path)).into()],
            )
            .await?;
        Ok(rows.first().map(|row| Columns::of(row).optional_blob()).transpose()?.flatten())
    }

    /// Pauses a schedule until it is resumed, or until the pause ends by itself.
    pub async fn pause(
        &self,
        leadership: &Leadership,
        schedule: &ScheduleName,
        pause: Pause,
        audit: NewAudit,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let done = bind(
            "UPDATE schedules SET paused_by = $1, pause_reason = $2, paused_at = $3, pause_until = $4 WHERE name = $5",
            [pause.by.into(), pause.reason.into(), pause.at.into(), pause.until.into(), schedule.as_str().into()],
        )
        .execute(transaction.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::NotFound { what: format!("the schedule `{schedule}`") });
        }
        write_audit(transaction.connection(), at, &audit).await?;
        transaction.paused_or_resumed();
        transaction.commit().await
    }

    /// Ends an operator's pause; `false` when there was none.
    pub async fn resume(
        &self,
        leadership: &Leadership,
        schedule: &ScheduleName,
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin(leadership).await?;
        let at = transaction.at();
        let done = bind(
            "UPDATE schedules SET paused_by = NULL, pause_reason = NULL, paused_at = NULL, pause_until = NULL \
             WHERE name = $1 AND paused_by IS NOT NULL",
            [schedule.as_str().into()],
        )
        .execute(transaction.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        write_audit(transaction.connection(), at, &audit).await?;
        transaction.paused_or_resumed();
        transaction.commit().await?;
        Ok(true)
    }
}

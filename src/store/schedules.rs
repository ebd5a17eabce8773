//! How far each schedule's trigger has got, its pauses, and what an edit does to both.
//!
//! A cursor belongs to a schedule's name and its trigger. When the trigger is edited, a new one
//! begins at that moment; when the schedule is removed while its leader works, its cursor ends with it.
//! But members may have different configurations, while a new one is rolled out for example. So what
//! another leader's does not have is kept for a day: when it comes back with the same trigger, it goes on
//! where it was. Znodes that a trigger watched before and after an edit keep their cursors, so that no
//! change of theirs falls between the two.

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::AnyConnection;

use super::audit::{self, write_audit};
use super::model::{NewAudit, Pause, ScheduleState, ScheduleStates, ZnodeCursor};
use super::sql::{Columns, bind, bulk, select_in};
use super::{Leadership, Ledger, StoreError, names, paths, resting};
use crate::domain::edit::{Departure, Fates, Known, Leaving, Origin, Rule, Standing, former_names};
use crate::domain::lineage::Adopt;
use crate::domain::schedule::ScheduleName;
use crate::domain::znode::ZnodeVersion;

/// A schedule as the ledger tells it from another: its name, and a text that changes with its
/// trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerIdentity {
    /// The name.
    pub name: ScheduleName,
    /// The names before a rename, the latest first.
    pub was: Vec<ScheduleName>,
    /// Changes exactly when the trigger does.
    pub key: String,
}

const STATE_COLUMNS: &str = "name, trigger_key, since, cron_cursor, znode_zxid, paused_by, pause_reason, paused_at, pause_until, \
     dag_paused_at, first_look, znode_after";

/// The same of all schedules, with how each stands and what it was called.
fn all_schedules() -> String {
    format!("SELECT {STATE_COLUMNS}, gone_at, renamed_from FROM schedules")
}

fn state(columns: &mut Columns<'_>) -> Result<ScheduleState, StoreError> {
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

/// What the ledger knows of all schedules: those in force, and those that left lately.
#[derive(Debug, Default)]
pub struct KnownSchedules {
    /// How each stands.
    pub known: HashMap<ScheduleName, Known>,
    /// How far its trigger has got, and its pause.
    pub states: ScheduleStates,
}

impl KnownSchedules {
    fn from_rows(rows: &[sqlx::any::AnyRow]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for row in rows {
            let mut columns = Columns::of(row);
            let state = state(&mut columns)?;
            let gone = columns.optional_time()?.is_some();
            let standing = match (gone, state.trigger_key.as_str()) {
                (false, _) => Standing::InForce,
                (true, "") => Standing::Ended,
                (true, _) => Standing::Rests,
            };
            let former = columns.optional_text()?.unwrap_or_default();
            let former = former.split_whitespace().map(|name| {
                ScheduleName::new(name)
                    .ok_or_else(|| StoreError::Corrupt { what: format!("`{name}` is not the name of a schedule") })
            });
            let known = Known { standing, former: former.collect::<Result<_, _>>()? };
            all.known.insert(state.name.clone(), known);
            all.states.insert(state.name.clone(), state);
        }
        Ok(all)
    }

    /// What becomes of them, and where those of the next set come from.
    pub fn fates(&self, schedules: &[TriggerIdentity], leaving: Leaving) -> Fates {
        let after = schedules.iter().map(|schedule| (&schedule.name, &*schedule.was));
        Fates::decide(&self.known, after, leaving)
    }

    /// Whether these are in force already, with these triggers, and no others: there is nothing to adopt, as
    /// whenever one member takes over from another.
    pub fn are_in_force(&self, schedules: &[TriggerIdentity], fates: &Fates) -> bool {
        let stays = |schedule: &TriggerIdentity| {
            *fates.origin(&schedule.name) == Origin::GoesOn
                && self.known.get(&schedule.name).is_some_and(|known| known.standing == Standing::InForce)
                && self.states.get(&schedule.name).is_some_and(|state| state.trigger_key == schedule.key)
        };
        fates.departures().next().is_none() && schedules.iter().all(stays)
    }
}

/// Gives everything of a schedule another name, in the place of what had that name before.
async fn rename(connection: &mut AnyConnection, old: &str, new: &str) -> Result<(), StoreError> {
    for table in ["znode_cursors WHERE schedule", "schedules WHERE name"] {
        bind(format!("DELETE FROM {table} = $1"), [new.into()]).execute(&mut *connection).await?;
    }
    resting::end(connection, std::iter::once(new)).await?;
    for table in resting::TABLES {
        let sql = format!("UPDATE {table} SET schedule = $1 WHERE schedule = $2");
        bind(sql, [new.into(), old.into()]).execute(&mut *connection).await?;
    }
    for (table, column) in [("schedules", "name"), ("znode_cursors", "schedule")] {
        let sql = format!("UPDATE {table} SET {column} = $1 WHERE {column} = $2");
        bind(sql, [new.into(), old.into()]).execute(&mut *connection).await?;
    }
    audit::move_decisions(connection, old, new).await?;
    names::move_runs(connection, old, new).await
}

/// Gives each schedule that has another name now everything that it had.
async fn rename_all(
    connection: &mut AnyConnection,
    before: &KnownSchedules,
    schedules: &[TriggerIdentity],
    fates: &Fates,
) -> Result<(), StoreError> {
    let was: HashMap<&ScheduleName, &[ScheduleName]> =
        schedules.iter().map(|schedule| (&schedule.name, &*schedule.was)).collect();
    for (old, new) in fates.moves() {
        rename(connection, old.as_str(), new.as_str()).await?;
        let was = was.get(new).copied().unwrap_or_default();
        let former = before.known.get(old).map(|known| former_names(old, &known.former, was, new)).unwrap_or_default();
        remember(connection, new.as_str(), &former).await?;
    }
    Ok(())
}

/// Has a schedule remember the names that it had.
async fn remember(connection: &mut AnyConnection, name: &str, former: &[ScheduleName]) -> Result<(), StoreError> {
    let former: Vec<&str> = former.iter().map(ScheduleName::as_str).collect();
    let sql = "UPDATE schedules SET renamed_from = $1 WHERE name = $2";
    bind(sql, [former.join(" ").into(), name.into()]).execute(connection).await?;
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
        let rows = bind(all_schedules(), []).fetch_all(&mut *connection).await?;
        let before = KnownSchedules::from_rows(&rows)?;
        let fates = before.fates(schedules, leaving);
        rename_all(connection, &before, schedules, &fates).await?;

        let state = |schedule: &TriggerIdentity| before.states.get(fates.known_as(&schedule.name)?);
        let rule = |schedule: &TriggerIdentity| {
            state(schedule).map_or(Rule::Other, |state| Rule::between(&state.trigger_key, &schedule.key))
        };
        let rules: Vec<_> = schedules.iter().map(|schedule| (schedule, rule(schedule))).collect();
        // Up to which zxid a znode trigger whose rule is edited has compared everything.
        let after = |schedule: &TriggerIdentity, rule| {
            let state = state(schedule).filter(|_| rule == Rule::SamePlace)?;
            state.znode_initialized.or(state.znode_after).max(compared.get(&state.name).copied())
        };
        let (back, anew): (Vec<_>, Vec<_>) = schedules
            .iter()
            .filter(|schedule| {
                let known = before.known.get(fates.known_as(&schedule.name).unwrap_or(&schedule.name));
                known.is_some_and(|known| known.standing != Standing::InForce)
            })
            .map(|schedule| &schedule.name)
            .partition(|name| *fates.origin(name) != Origin::Begins);
        let left: Vec<&str> = fates
            .departures()
            .filter(|(name, departure)| !matches!(departure, Departure::To(_)) && !fates.is_taken(name))
            .map(|(name, _)| name.as_str())
            .collect();
        let leave = match leaving {
            Leaving::Rests => format!("UPDATE schedules SET gone_at = {} WHERE name IN", now.as_microsecond()),
            Leaving::Ends => {
                format!("UPDATE schedules SET gone_at = {}, trigger_key = '' WHERE name IN", now.as_microsecond())
            }
        };
        let resting = resting::all(connection).await?;
        let moved_on: Vec<_> = rules
            .iter()
            .filter(|(_, rule)| *rule == Rule::Other)
            .filter_map(|(schedule, _)| Some((*schedule, state(schedule)?)))
            .collect();
        let restarted = || moved_on.iter().map(|(schedule, _)| schedule.name.as_str());
        match leaving {
            Leaving::Ends => {
                let ended = left.iter().copied();
                select_in(connection, "DELETE FROM znode_cursors WHERE schedule IN", "", ended).await?;
            }
            Leaving::Rests => {
                for (schedule, state) in &moved_on {
                    resting::put_aside(connection, &schedule.name, state, now).await?;
                }
            }
        }
        select_in(connection, "DELETE FROM znode_cursors WHERE schedule IN", "", restarted()).await?;
        select_in(
            connection,
            "UPDATE schedules SET gone_at = NULL WHERE name IN",
            "",
            back.into_iter().map(ScheduleName::as_str),
        )
        .await?;
        let begin_anew = "UPDATE schedules SET gone_at = NULL, renamed_from = NULL WHERE name IN";
        select_in(connection, begin_anew, "", anew.into_iter().map(ScheduleName::as_str)).await?;
        select_in(connection, &leave, "", left.iter().copied()).await?;
        bulk(
            connection,
            "UPDATE schedules SET trigger_key = v.column2 FROM (VALUES ",
            ") AS v WHERE schedules.name = v.column1",
            &["TEXT", "TEXT"],
            rules
                .iter()
                .filter(|(_, rule)| *rule == Rule::Respelled)
                .map(|(schedule, _)| vec![schedule.name.as_str().into(), schedule.key.as_str().into()])
                .collect(),
        )
        .await?;
        bulk(
            connection,
            "INSERT INTO schedules (name, trigger_key, since, cron_cursor, znode_after) VALUES ",
            " ON CONFLICT (name) DO UPDATE SET trigger_key = excluded.trigger_key, since = excluded.since, \
             cron_cursor = excluded.cron_cursor, znode_zxid = NULL, znode_after = excluded.znode_after, first_look = NULL",
            &[],
            rules
                .iter()
                .filter(|(_, rule)| rule.is_edited())
                .map(|(schedule, rule)| {
                    let (name, key) = (schedule.name.as_str().into(), schedule.key.as_str().into());
                    vec![name, key, now.into(), now.into(), after(schedule, *rule).into()]
                })
                .collect(),
        )
        .await?;
        let wanted = moved_on.iter().map(|(schedule, _)| (&schedule.name, schedule.key.as_str()));
        resting::take_up_all(connection, &resting, wanted).await?;
        if leaving == Leaving::Ends && !resting.is_empty() {
            resting::end(connection, restarted().chain(left.iter().copied())).await?;
        }
        transaction.commit().await
    }

    /// What the ledger knows of all schedules, also of those that left lately.
    pub async fn known_schedules(&self) -> Result<KnownSchedules, StoreError> {
        KnownSchedules::from_rows(&self.fetch(all_schedules(), []).await?)
    }

    /// What the ledger knows of every schedule in force.
    pub async fn schedule_states(&self) -> Result<ScheduleStates, StoreError> {
        let rows = self.fetch(format!("SELECT {STATE_COLUMNS} FROM schedules WHERE gone_at IS NULL"), []).await?;
        rows.iter().map(|row| state(&mut Columns::of(row)).map(|state| (state.name.clone(), state))).collect()
    }

    /// What the ledger knows of some schedules in force.
    pub async fn schedule_states_of(&self, schedules: &[ScheduleName]) -> Result<ScheduleStates, StoreError> {
        let head = format!("SELECT {STATE_COLUMNS} FROM schedules WHERE gone_at IS NULL AND name IN");
        let names: Vec<String> = schedules.iter().map(ToString::to_string).collect();
        let rows = self.fetch_in(&head, "", names).await?;
        rows.iter().map(|row| state(&mut Columns::of(row)).map(|state| (state.name.clone(), state))).collect()
    }

    /// What the ledger knows of some schedules in force, and of all of them that are paused, by whomever.
    pub async fn schedule_states_of_and_paused(
        &self,
        schedules: &[ScheduleName],
    ) -> Result<ScheduleStates, StoreError> {
        let mut states = self.schedule_states_of(schedules).await?;
        let sql = format!(
            "SELECT {STATE_COLUMNS} FROM schedules WHERE gone_at IS NULL \
             AND (paused_by IS NOT NULL OR dag_paused_at IS NOT NULL)"
        );
        for row in &self.fetch(sql, []).await? {
            let state = state(&mut Columns::of(row))?;
            states.insert(state.name.clone(), state);
        }
        Ok(states)
    }

    /// What the ledger knows of one schedule.
    pub async fn schedule_state(&self, schedule: &ScheduleName) -> Result<Option<ScheduleState>, StoreError> {
        let sql = format!("SELECT {STATE_COLUMNS} FROM schedules WHERE name = $1 AND gone_at IS NULL");
        let rows = self.fetch(sql, [schedule.as_str().into()]).await?;
        rows.first().map(|row| state(&mut Columns::of(row))).transpose()
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
        Ok(self.znode_cursors_of(std::slice::from_ref(schedule)).await?.into_iter().map(|(_, cursor)| cursor).collect())
    }

    /// The znodes that some triggers have handled, each with the trigger's schedule.
    pub(super) async fn znode_cursors_of(
        &self,
        schedules: &[ScheduleName],
    ) -> Result<Vec<(ScheduleName, ZnodeCursor)>, StoreError> {
        let head =
            "SELECT schedule, COALESCE(full_path, path), czxid, mzxid, version FROM znode_cursors WHERE schedule IN";
        let names: Vec<String> = schedules.iter().map(ToString::to_string).collect();
        let rows = self.fetch_in(head, "", names).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (schedule, path) = (columns.schedule()?, columns.text()?);
                let (czxid, mzxid, version) = (columns.integer()?, columns.integer()?, columns.integer()?);
                let version = i32::try_from(version)
                    .map_err(|_| StoreError::Corrupt { what: format!("{version} is not a data version") })?;
                Ok((schedule, ZnodeCursor { path, seen: ZnodeVersion { czxid, mzxid, version } }))
            })
            .collect()
    }

    /// The data that a trigger last handled at `path`, where it keeps data.
    pub async fn previous_data(&self, schedule: &ScheduleName, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self
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

//! Znode triggers that rest: where the rule of an earlier leader had got that the one of now does not have.
//!
//! A member that lags behind may lead for a moment, and watch for a schedule what was watched before. What
//! changes meanwhile where the newest rule looks must not fall between two leaders, so its cursors are put
//! aside for a day and taken up again with the rule. Of cron nothing is put aside: at each moment one rule is
//! in force, and what it makes due is settled when it ends.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::AnyConnection;

use super::model::ScheduleState;
use super::sql::{Columns, bind, select_in};
use super::{StoreError, paths};
use crate::domain::schedule::ScheduleName;

/// Both tables, those that hang on the other first.
pub(super) const TABLES: [&str; 2] = ["resting_cursors", "resting_triggers"];

const CURSOR: &str = "path, full_path, czxid, mzxid, version, data";

/// Which rest: name and key.
pub(super) async fn all(connection: &mut AnyConnection) -> Result<HashSet<(String, String)>, StoreError> {
    let rows = bind("SELECT schedule, trigger_key FROM resting_triggers", []).fetch_all(connection).await?;
    let read = |row| {
        let mut columns = Columns::of(row);
        Ok((columns.text()?, columns.text()?))
    };
    rows.iter().map(read).collect()
}

/// Puts a znode trigger aside, with all that it has handled. Others have nothing to put aside, nor has one that
/// has not looked yet.
pub(super) async fn put_aside(
    connection: &mut AnyConnection,
    name: &ScheduleName,
    state: &ScheduleState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let has_looked = state.znode_initialized.is_some() || state.znode_after.is_some();
    if !has_looked || !state.trigger_key.starts_with("znode ") {
        return Ok(());
    }
    let key = paths::key(&state.trigger_key).into_owned();
    forget(connection, name, &key).await?;
    bind(
        "INSERT INTO resting_triggers (schedule, trigger_key, gone_at, znode_zxid, znode_after, first_look) \
         SELECT name, $2, $3, znode_zxid, znode_after, first_look FROM schedules WHERE name = $1",
        [name.as_str().into(), key.as_str().into(), now.into()],
    )
    .execute(&mut *connection)
    .await?;
    bind(
        format!(
            "INSERT INTO resting_cursors (schedule, trigger_key, {CURSOR}) \
             SELECT schedule, $2, {CURSOR} FROM znode_cursors WHERE schedule = $1"
        ),
        [name.as_str().into(), key.into()],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes up again, where they were, those of the triggers `wanted` that are among `all`; each is a name and an
/// identity. Their schedules have no other cursors.
pub(super) async fn take_up_all<'t>(
    connection: &mut AnyConnection,
    all: &HashSet<(String, String)>,
    wanted: impl Iterator<Item = (&'t ScheduleName, &'t str)>,
) -> Result<(), StoreError> {
    for (name, identity) in wanted {
        let trigger = (name.as_str().to_owned(), paths::key(identity).into_owned());
        if all.contains(&trigger) {
            take_up(connection, name, &trigger.1).await?;
        }
    }
    Ok(())
}

async fn take_up(connection: &mut AnyConnection, name: &ScheduleName, key: &str) -> Result<(), StoreError> {
    bind(
        format!(
            "INSERT INTO znode_cursors (schedule, {CURSOR}) \
             SELECT schedule, {CURSOR} FROM resting_cursors WHERE schedule = $1 AND trigger_key = $2"
        ),
        [name.as_str().into(), key.into()],
    )
    .execute(&mut *connection)
    .await?;
    let rested = |column| {
        format!("(SELECT {column} FROM resting_triggers WHERE schedule = $1 AND resting_triggers.trigger_key = $2)")
    };
    bind(
        format!(
            "UPDATE schedules SET znode_zxid = {}, znode_after = {}, first_look = {} WHERE name = $1",
            rested("resting_triggers.znode_zxid"),
            rested("resting_triggers.znode_after"),
            rested("resting_triggers.first_look")
        ),
        [name.as_str().into(), key.into()],
    )
    .execute(&mut *connection)
    .await?;
    forget(connection, name, key).await
}

/// Ends those of schedules that a working leader has edited or removed.
pub(super) async fn end<'n>(
    connection: &mut AnyConnection,
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<(), StoreError> {
    for table in TABLES {
        select_in(connection, &format!("DELETE FROM {table} WHERE schedule IN"), "", names.clone()).await?;
    }
    Ok(())
}

async fn forget(connection: &mut AnyConnection, name: &ScheduleName, key: &str) -> Result<(), StoreError> {
    for table in TABLES {
        let sql = format!("DELETE FROM {table} WHERE schedule = $1 AND trigger_key = $2");
        bind(sql, [name.as_str().into(), key.into()]).execute(&mut *connection).await?;
    }
    Ok(())
}

//! The history of a schedule that was renamed: its runs get the new name.
//!
//! With the edit goes what is open, since the schedule goes on with it, and what is newest. The rest of a
//! long history is owed: it is noted in the same transaction and moved afterwards in blocks, so that an
//! edit takes no longer for a schedule with a million runs, and nobody waits long for the database. Rows
//! that are recorded after the edit are never moved: whoever has the old name then is another schedule.
//!
//! Until a row has moved, its column `schedule` has the name of before. Nobody outside of this file may go by
//! that: whoever reads rows asks for [`SCHEDULE`], and whoever looks for those of one schedule asks here under
//! which names they are. A row that is taken up again gets its name at once ([`take_along`]), since what is open
//! is looked for by the column.

use std::fmt::Write as _;

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::conditions::Conditions;
use super::sql::{Columns, Value, bind, select_in};
use super::{Leadership, Ledger, StoreError};

/// How many rows are moved in one step.
const BLOCK: i64 = 1_000;

/// The schedule of a row of `runs`, by the name that it has now. Mostly nothing is owed, which is found out once.
pub(super) const SCHEDULE: &str = "CASE WHEN EXISTS (SELECT 1 FROM renames) THEN COALESCE((SELECT o.new_name \
     FROM renames o WHERE o.old_name = runs.schedule AND runs.id <= o.last_run), runs.schedule) ELSE runs.schedule END";

const OWED: &str = "SELECT number, old_name, new_name, last_run FROM renames";

/// A history that has not followed yet. No name is given up twice before what is owed from it has followed, and
/// none that is owed to is given up: what is owed goes to the next one then.
#[derive(Debug)]
struct Owed {
    number: i64,
    from: String,
    to: String,
    /// The last row that was there at the edit.
    last_run: i64,
}

impl Owed {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let mut columns = Columns::of(row);
        let (number, from, to) = (columns.integer()?, columns.text()?, columns.text()?);
        Ok(Self { number, from, to, last_run: columns.integer()? })
    }

    /// Moves a block of it; whether that was the last one.
    async fn follow(&self, connection: &mut AnyConnection) -> Result<bool, StoreError> {
        let is_last = move_block(connection, &self.from, &self.to, self.last_run).await? < BLOCK.unsigned_abs();
        if is_last {
            bind("DELETE FROM renames WHERE number = $1", [self.number.into()]).execute(connection).await?;
        }
        Ok(is_last)
    }
}

/// All that is owed, in the order in which it is to follow.
async fn owed(connection: &mut AnyConnection) -> Result<Vec<Owed>, StoreError> {
    let rows = bind(format!("{OWED} ORDER BY number"), []).fetch_all(connection).await?;
    rows.iter().map(Owed::read).collect()
}

/// Moves the newest rows of `from` up to the row `last_run`; how many.
async fn move_block(connection: &mut AnyConnection, from: &str, to: &str, last_run: i64) -> Result<u64, StoreError> {
    let moved = bind(
        "UPDATE runs SET schedule = $1 WHERE id IN (SELECT id FROM runs WHERE schedule = $2 AND id <= $3 \
         ORDER BY due_at DESC, id DESC LIMIT $4)",
        [to.into(), from.into(), last_run.into(), BLOCK.into()],
    );
    Ok(moved.execute(connection).await?.rows_affected())
}

/// Moves the runs of `old` to the name `new` as far as an edit does, and notes what is owed then.
pub(super) async fn move_runs(connection: &mut AnyConnection, old: &str, new: &str) -> Result<(), StoreError> {
    let mut owed = owed(connection).await?;
    // A name that was given up a moment ago and is used again by another schedule: what is owed under it comes
    // first, or the rows of two schedules would be mixed up. That may take long, and is rare.
    let mixes = |owed: &Owed| owed.from == old || (owed.from == new && owed.to != old);
    if let Some(last) = owed.iter().rposition(mixes) {
        for first in owed.drain(..=last) {
            while !first.follow(connection).await? {}
        }
    }
    bind("UPDATE renames SET new_name = $1 WHERE new_name = $2", [new.into(), old.into()])
        .execute(&mut *connection)
        .await?;
    // There and back: what has not followed yet is where it belongs.
    bind("DELETE FROM renames WHERE old_name = new_name", []).execute(&mut *connection).await?;
    bind("UPDATE runs SET schedule = $1 WHERE schedule = $2 AND is_open = 1", [new.into(), old.into()])
        .execute(&mut *connection)
        .await?;
    if move_block(connection, old, new, i64::MAX).await? == BLOCK.unsigned_abs() {
        bind(
            "INSERT INTO renames (number, old_name, new_name, last_run) VALUES \
             ((SELECT COALESCE(MAX(number), 0) + 1 FROM renames), $1, $2, (SELECT COALESCE(MAX(id), 0) FROM runs))",
            [old.into(), new.into()],
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Gives rows that are taken up again the name that their schedule has now.
pub(super) async fn take_along(
    connection: &mut AnyConnection,
    runs: impl Iterator<Item = i64>,
) -> Result<(), StoreError> {
    let sql =
        format!("UPDATE runs SET schedule = {SCHEDULE} WHERE schedule IN (SELECT old_name FROM renames) AND id IN");
    select_in(connection, &sql, "", runs).await?;
    Ok(())
}

impl Ledger {
    /// Has a piece of history follow a schedule that was renamed; `false` when there is none left.
    pub async fn move_renamed(&self, leadership: &Leadership) -> Result<bool, StoreError> {
        if self.fetch(format!("{OWED} LIMIT 1"), []).await?.is_empty() {
            return Ok(false);
        }
        let mut transaction = self.begin(leadership).await?;
        if let Some(first) = owed(transaction.connection()).await?.first() {
            first.follow(transaction.connection()).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Under which names the runs of a schedule are: its own, and those from which history has still to
    /// follow.
    pub(super) async fn names_of_runs(&self, schedule: &str) -> Result<NamesOfRuns, StoreError> {
        let sql = format!("{OWED} WHERE old_name = $1 OR new_name = $1 ORDER BY number");
        let rows = self.fetch(sql, [schedule.into()]).await?;
        let owed = rows.iter().map(Owed::read).collect::<Result<Vec<_>, _>>()?;
        Ok(names_of(schedule, &owed))
    }
}

/// The same within a transaction.
pub(super) async fn names_of_runs(connection: &mut AnyConnection, schedule: &str) -> Result<NamesOfRuns, StoreError> {
    Ok(names_of(schedule, &owed(connection).await?))
}

/// Under which names a schedule has runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamesOfRuns(Vec<NameOfRuns>);

/// A name under which a schedule has runs.
#[derive(Debug, PartialEq, Eq)]
struct NameOfRuns {
    name: String,
    /// Rows up to this one are another's.
    after: Option<i64>,
    /// The last row that is meant.
    last: Option<i64>,
}

impl NamesOfRuns {
    /// One statement over all of them, so that a row which moves meanwhile is met once. `select` writes it for one
    /// name, given the clause of `conditions` and of that name; `order` is of the whole, and of each part.
    pub(super) fn select(
        self,
        mut conditions: Conditions,
        select: impl Fn(&str) -> String,
        order: &str,
    ) -> (String, Vec<Value>) {
        let mut parts = self.0.into_iter().map(|NameOfRuns { name, after, last }| {
            let bounds = [("id > ?", after), ("id <= ?", last)];
            let bounds = bounds.into_iter().filter_map(|(bound, run)| Some((bound, run?.into())));
            let clause = conditions.also(std::iter::once(("schedule = ?", name.into())).chain(bounds));
            format!("{} {order}", select(&clause))
        });
        let mut sql = parts.next().unwrap_or_default();
        let others: Vec<String> = parts.collect();
        if !others.is_empty() {
            sql = format!("SELECT * FROM ({sql}) AS own");
            for (number, other) in others.iter().enumerate() {
                // Into a text nothing fails.
                let _ = write!(sql, " UNION ALL SELECT * FROM ({other}) AS owed_{number}");
            }
            sql = format!("{sql} {order}");
        }
        (sql, conditions.into_values())
    }
}

/// The names under which the runs of `schedule` are, given what is owed.
fn names_of(schedule: &str, owed: &[Owed]) -> NamesOfRuns {
    let given_up = owed.iter().filter(|owed| owed.from == schedule).map(|owed| owed.last_run).max();
    let own = NameOfRuns { name: schedule.to_owned(), after: given_up, last: None };
    let others = owed.iter().filter(|owed| owed.to == schedule).map(|owed| NameOfRuns {
        name: owed.from.clone(),
        after: None,
        last: Some(owed.last_run),
    });
    NamesOfRuns([own].into_iter().chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_under_every_name_from_which_they_have_to_follow() {
        type Renamed<'c> = &'c [(&'c str, &'c str, i64)];
        type Found<'c> = &'c [(&'c str, Option<i64>, Option<i64>)];
        let cases: [(&str, Renamed<'_>, &str, Found<'_>); 6] = [
            ("nothing is owed", &[], "a", &[("a", None, None)]),
            ("renamed", &[("a", "b", 7)], "b", &[("b", None, None), ("a", None, Some(7))]),
            ("somebody else has the old name", &[("a", "b", 7)], "a", &[("a", Some(7), None)]),
            ("somebody else is renamed", &[("a", "b", 7)], "c", &[("c", None, None)]),
            (
                "twice",
                &[("a", "c", 7), ("b", "c", 9)],
                "c",
                &[("c", None, None), ("a", None, Some(7)), ("b", None, Some(9))],
            ),
            (
                "twice, and somebody else has the name between",
                &[("a", "c", 7), ("b", "c", 9)],
                "b",
                &[("b", Some(9), None)],
            ),
        ];
        for (case, renamed, schedule, expected) in cases {
            let owed: Vec<Owed> = renamed
                .iter()
                .zip(1..)
                .map(|((from, to, last_run), number)| Owed {
                    number,
                    from: (*from).to_owned(),
                    to: (*to).to_owned(),
                    last_run: *last_run,
                })
                .collect();
            let found = names_of(schedule, &owed);
            let found: Vec<_> = found.0.iter().map(|found| (found.name.as_str(), found.after, found.last)).collect();
            assert_eq!(found, expected, "{case}");
        }
    }

    #[test]
    fn several_names_make_one_statement() {
        let names = |owed: &[(&str, i64)]| {
            let own = NameOfRuns { name: "b".to_owned(), after: None, last: None };
            let owed =
                owed.iter().map(|(name, last)| NameOfRuns { name: (*name).to_owned(), after: None, last: Some(*last) });
            NamesOfRuns([own].into_iter().chain(owed).collect())
        };
        let statement = |names: NamesOfRuns| {
            let mut conditions = Conditions::default();
            conditions.add("dag_id = ?", "d");
            let (sql, values) =
                names.select(conditions, |clause| format!("SELECT id FROM runs {clause}"), "ORDER BY id LIMIT 2");
            (sql, values.len())
        };
        let own = "SELECT id FROM runs WHERE dag_id = $1 AND schedule = $2 ORDER BY id LIMIT 2";
        assert_eq!(statement(names(&[])), (own.to_owned(), 2));
        let (sql, values) = statement(names(&[("a", 7)]));
        let owed = "SELECT id FROM runs WHERE dag_id = $1 AND schedule = $3 AND id <= $4 ORDER BY id LIMIT 2";
        let both =
            format!("SELECT * FROM ({own}) AS own UNION ALL SELECT * FROM ({owed}) AS owed_0 ORDER BY id LIMIT 2");
        assert_eq!((sql, values), (both, 4));
    }
}

//! The history of a schedule that was renamed: its runs get the new name.
//!
//! With the edit goes what is open, since the schedule goes on with it, and what is newest. The rest of a
//! long history is owed: it is noted in the same transaction and moved afterwards in blocks, so that an
//! edit takes no longer for a schedule with a million runs, and nobody waits long for the database. Rows
//! that are recorded after the edit are never moved: whoever has the old name then is another schedule.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::sql::{Columns, bind};
use super::{Leadership, Ledger, StoreError};
use crate::domain::schedule::ScheduleName;

/// How many rows are moved in one step.
const BLOCK: i64 = 1_000;

const OWED: &str = "SELECT number, old_name, new_name, last_run FROM renames";

/// A history that has not followed yet.
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
    // A name that was given up a moment ago and is used again: what is owed under it comes first, or the
    // rows of two schedules would be mixed up. That may take long, and is rare.
    if let Some(last) = owed.iter().rposition(|owed| owed.from == new || owed.from == old) {
        for first in owed.drain(..=last) {
            while !first.follow(connection).await? {}
        }
    }
    bind("UPDATE runs SET schedule = $1 WHERE schedule = $2 AND is_open = 1", [new.into(), old.into()])
        .execute(&mut *connection)
        .await?;
    let moved = move_block(connection, old, new, i64::MAX).await?;
    let more_is_coming = owed.iter().any(|owed| owed.to == old);
    if moved == BLOCK.unsigned_abs() || more_is_coming {
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
    pub(super) async fn names_of_runs(&self, schedule: &ScheduleName) -> Result<Vec<NameOfRuns>, StoreError> {
        let rows = self.fetch(format!("{OWED} ORDER BY number"), []).await?;
        let owed = rows.iter().map(Owed::read).collect::<Result<Vec<_>, _>>()?;
        Ok(names_of(schedule.as_str(), &owed))
    }
}

/// A name under which a schedule has runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameOfRuns {
    pub(super) name: String,
    /// Rows up to this one are another's.
    pub(super) after: i64,
    /// The last row that is meant.
    pub(super) last: i64,
}

/// The names under which the runs of `schedule` are, given what is owed, in its order.
fn names_of(schedule: &str, owed: &[Owed]) -> Vec<NameOfRuns> {
    // What is owed to a name follows that one to its next.
    let goes_to = |index: usize| {
        let later = owed[index + 1..].iter();
        later.fold(owed[index].to.as_str(), |name, later| if later.from == name { &later.to } else { name })
    };
    let mut own = NameOfRuns { name: schedule.to_owned(), after: 0, last: i64::MAX };
    let mut others = Vec::new();
    for (index, Owed { from, last_run, .. }) in owed.iter().enumerate() {
        match (from == schedule, goes_to(index) == schedule) {
            (true, false) => own.after = own.after.max(*last_run),
            (false, true) => others.push(NameOfRuns { name: from.clone(), after: 0, last: *last_run }),
            (true, true) | (false, false) => {}
        }
    }
    [own].into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_under_every_name_from_which_they_have_to_follow() {
        type Renamed<'c> = &'c [(&'c str, &'c str, i64)];
        type Case<'c> = (&'c str, Renamed<'c>, &'c str, &'c [(&'c str, i64, i64)]);
        let cases: [Case<'_>; 7] = [
            ("nothing is owed", &[], "a", &[("a", 0, i64::MAX)]),
            ("renamed", &[("a", "b", 7)], "b", &[("b", 0, i64::MAX), ("a", 0, 7)]),
            ("somebody else has the old name", &[("a", "b", 7)], "a", &[("a", 7, i64::MAX)]),
            ("somebody else is renamed", &[("a", "b", 7)], "c", &[("c", 0, i64::MAX)]),
            ("twice", &[("a", "b", 7), ("b", "c", 9)], "c", &[("c", 0, i64::MAX), ("a", 0, 7), ("b", 0, 9)]),
            (
                "twice, and somebody else has the name between",
                &[("a", "b", 7), ("b", "c", 9)],
                "b",
                &[("b", 9, i64::MAX)],
            ),
            ("there and back", &[("a", "b", 7), ("b", "a", 9)], "a", &[("a", 0, i64::MAX), ("b", 0, 9)]),
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
            let found: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.after, found.last)).collect();
            assert_eq!(found, expected, "{case}");
        }
    }
}

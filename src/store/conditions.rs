//! Conditions of lists that are read in pages, the newest first, and reading such a page.

use jiff::Timestamp;
use sqlx::any::AnyRow;

use super::model::Page;
use super::sql::Value;
use super::{Ledger, StoreError};
use crate::domain::run::RunState;

/// Conditions with their values, numbered as they come.
#[derive(Default)]
pub(super) struct Conditions {
    text: String,
    values: Vec<Value>,
}

impl Conditions {
    /// The clause, empty without a condition.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What stands for its marks.
    pub(super) fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Adds `condition`, in which `?` stands for the value.
    pub(super) fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.separate();
        self.text.push_str(&condition.replace('?', &format!("${}", self.values.len())));
    }

    /// The clause for one part of a statement, with more conditions, in each of which `?` stands for its value. The
    /// other parts do not have them.
    pub(super) fn also<'c>(&mut self, more: impl IntoIterator<Item = (&'c str, Value)>) -> String {
        let common = self.text.clone();
        for (condition, value) in more {
            self.add(condition, value);
        }
        std::mem::replace(&mut self.text, common)
    }

    fn separate(&mut self) {
        self.text.push_str(if self.text.is_empty() { "WHERE " } else { " AND " });
    }

    /// A page of the rows that match, by falling `key`: a whole number that no two rows share, and the
    /// cursor. `read` takes a row of `select`, and says which number it has.
    pub(super) async fn page<T>(
        mut self,
        ledger: &Ledger,
        select: &str,
        key: &str,
        limit: u32,
        cursor: Option<&str>,
        read: impl Fn(&AnyRow) -> Result<(i64, T), StoreError>,
    ) -> Result<Page<T>, StoreError> {
        if let Some(cursor) = cursor {
            let before = cursor.parse::<i64>().map_err(|_| StoreError::BadCursor { cursor: cursor.to_owned() })?;
            self.add(&format!("{key} < ?"), before);
        }
        let sql = format!("{select} {} ORDER BY {key} DESC LIMIT {}", self.text, i64::from(limit) + 1);
        let rows = ledger.fetch(sql, self.values).await?;
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(items, limit, |(key, _)| key.to_string()).map(|(_, item)| item))
    }

    /// Rows that come after the one at `cursor`, in a list by falling `time` and `id`.
    pub(super) fn add_keyset(&mut self, time: &str, cursor: &str) -> Result<(), StoreError> {
        let (at, id) = parse_cursor(cursor)?;
        self.add(&format!("{time} <= ?"), at);
        self.add(&format!("({time}, id) < (?, "), at);
        self.values.push(id.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self.text.push(')');
        Ok(())
    }

    /// Rows in one of these states, which `column` has; of any where there are none.
    pub(super) fn add_states(&mut self, column: &str, states: &[RunState]) {
        if states.is_empty() {
            return;
        }
        let marks: Vec<_> = (1..=states.len()).map(|offset| format!("${}", self.values.len() + offset)).collect();
        self.values.extend(states.iter().map(|state| state.as_str().into()));
        self.separate();
        for part in [column, " IN (", &marks.join(", "), ")"] {
            self.text.push_str(part);
        }
    }
}

/// The cursor of a row in a list by falling time and `id`.
pub(super) fn cursor_of(at: Timestamp, id: i64) -> String {
    format!("{}-{id}", at.as_microsecond())
}

fn parse_cursor(cursor: &str) -> Result<(i64, i64), StoreError> {
    // The time may be negative, so the last dash separates.
    cursor
        .rsplit_once('-')
        .and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)))
        .ok_or_else(|| StoreError::BadCursor { cursor: cursor.to_owned() })
}

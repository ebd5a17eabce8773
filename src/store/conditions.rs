//! Conditions of lists that are read in pages, the newest first.

use super::StoreError;
use super::sql::Value;
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
        let separator = if self.text.is_empty() { "WHERE " } else { " AND " };
        self.text.push_str(separator);
        self.text.push_str(&condition.replace('?', &format!("${}", self.values.len())));
    }

    /// Rows that come after the one of the cursor, in a list by falling `id`.
    pub(super) fn add_before(&mut self, cursor: Option<&str>) -> Result<(), StoreError> {
        if let Some(cursor) = cursor {
            let before = cursor.parse::<i64>().map_err(|_| StoreError::BadCursor { cursor: cursor.to_owned() })?;
            self.add("id < ?", before);
        }
        Ok(())
    }

    /// Rows that come after this one, in a list by falling `due_at` and `id`.
    pub(super) fn add_keyset(&mut self, due_at: i64, id: i64) {
        self.add("due_at <= ?", due_at);
        self.add("(due_at, id) < (?, ", due_at);
        self.values.push(id.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self.text.push(')');
    }

    pub(super) fn add_states(&mut self, states: &[RunState]) {
        if states.is_empty() {
            return;
        }
        let marks: Vec<_> = (1..=states.len()).map(|offset| format!("${}", self.values.len() + offset)).collect();
        self.values.extend(states.iter().map(|state| state.as_str().into()));
        let separator = if self.text.is_empty() { "WHERE " } else { " AND " };
        for part in [separator, "state IN (", &marks.join(", "), ")"] {
            self.text.push_str(part);
        }
    }
}

//! An entry as Airflow shows it, and how it compares with what a znode wants.
//!
//! Airflow hides secrets behind three stars, by the name of a key or because it has met the text before,
//! writes JSON anew, and leaves fields out of lists. What it hides is not known, which is neither equal
//! nor different; and of JSON that is written anew it is not known how it was written.

use std::fmt;

use serde_json::{Map, Value};

use super::entry::{Connection, EntryValue, Pool, STARS};
use super::json;
use super::mark::Mark;

/// A field that a list may leave out.
#[derive(Clone, PartialEq, Eq)]
pub enum Told<T> {
    /// As it is.
    Field(T),
    /// The list does not have it.
    LeftOut,
}

/// An entry of a list.
#[derive(Clone)]
pub struct Shown {
    /// Its key.
    pub key: String,
    /// Its description, with the mark if there is one.
    pub description: Option<String>,
    /// What it holds.
    pub fields: Fields,
}

impl fmt::Debug for Shown {
    /// Without what it holds: that may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What an entry of a list holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Fields {
    /// The text of a variable; `None` when Airflow cannot decrypt it.
    Variable(Option<String>),
    /// A pool.
    Pool {
        /// How many slots.
        slots: i64,
        /// Whether deferred tasks count.
        include_deferred: bool,
    },
    /// A connection.
    Connection {
        /// The kind of system.
        conn_type: Option<String>,
        /// The host.
        host: Option<String>,
        /// The user.
        login: Option<String>,
        /// The database.
        schema: Option<String>,
        /// The port.
        port: Option<i64>,
        /// The password, never in clear.
        password: Told<Option<String>>,
        /// The text of a JSON object.
        extra: Told<Option<String>>,
    },
}

/// How an entry compares with what a znode wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The fields that certainly differ.
    pub different: Vec<&'static str>,
    /// The fields that Airflow hides, wholly or in part, or shows written anew, and that may differ.
    pub hidden: Vec<&'static str>,
}

impl Comparison {
    /// Whether nothing is known to differ.
    pub fn is_same(&self) -> bool {
        self.different.is_empty()
    }

    /// Whether it is known that nothing differs.
    pub fn is_certainly_same(&self) -> bool {
        self.different.is_empty() && self.hidden.is_empty()
    }

    fn note(&mut self, field: &'static str, likeness: Likeness) {
        match likeness {
            Likeness::Same => {}
            Likeness::Hidden => self.hidden.push(field),
            Likeness::Different => self.different.push(field),
        }
    }
}

/// How a field compares; of several, the last in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Likeness {
    /// It is the same.
    Same,
    /// Nobody can tell.
    Hidden,
    /// It differs.
    Different,
}

fn likeness(same: bool) -> Likeness {
    if same { Likeness::Same } else { Likeness::Different }
}

impl Shown {
    /// Who wrote it, if that was a flowkeeper.
    pub fn mark(&self) -> Option<Mark<'_>> {
        Mark::split(self.description.as_deref()?).1
    }

    /// Compares it with what is wanted, field by field.
    pub fn compare(&self, wanted: &EntryValue) -> Comparison {
        let mut comparison = Comparison::default();
        let description = self.description.as_deref().and_then(|text| Mark::split(text).0);
        match (wanted, &self.fields) {
            (EntryValue::Variable(wanted), Fields::Variable(shown)) => {
                comparison.note("value", shown.as_deref().map_or(Likeness::Hidden, |shown| text(wanted, shown)));
            }
            (EntryValue::Pool(wanted), Fields::Pool { slots, include_deferred }) => {
                let Pool { slots: own_slots, description: own_description, include_deferred: own_deferred } = wanted;
                comparison.note("slots", likeness(i64::from(*own_slots) == *slots));
                comparison.note("include_deferred", likeness(own_deferred == include_deferred));
                comparison.note("description", likeness(own_description.as_deref() == description));
            }
            (EntryValue::Connection(wanted), Fields::Connection { .. }) => {
                comparison.note("description", likeness(wanted.description.as_deref() == description));
                self.compare_connection(wanted, &mut comparison);
            }
            // A list of one kind never holds another.
            _ => comparison.different.push("kind"),
        }
        comparison
    }

    fn compare_connection(&self, wanted: &Connection, comparison: &mut Comparison) {
        let Fields::Connection { conn_type, host, login, schema, port, password, extra } = &self.fields else { return };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        comparison.note("conn_type", likeness(Some(wanted.conn_type.as_str()) == conn_type.as_deref()));
        comparison.note("host", likeness(wanted.host == given(host)));
        comparison.note("login", likeness(wanted.login == given(login)));
        comparison.note("schema", likeness(wanted.schema == given(schema)));
        comparison.note("port", likeness(wanted.port.map(i64::from) == *port));
        comparison.note(
            "password",
            match (wanted.password.is_some(), password) {
                (_, Told::LeftOut) => Likeness::Hidden,
                (true, Told::Field(shown)) => given(shown).map_or(Likeness::Different, |_| Likeness::Hidden),
                (false, Told::Field(shown)) => likeness(given(shown).is_none()),
            },
        );
        comparison.note(
            "extra",
            match extra {
                Told::LeftOut => Likeness::Hidden,
                Told::Field(shown) => {
                    let shown = given(shown).and_then(|shown| serde_json::from_str(&shown).ok());
                    let shown = shown.unwrap_or_else(|| Value::Object(Map::new()));
                    tree(&Value::Object(wanted.extra.clone().unwrap_or_default()), &shown)
                }
            },
        );
    }
}

/// Two texts, which Airflow 3 shows as Python writes JSON where it can read them so. The same JSON may be kept
/// as another text, and a text is what DAGs read.
fn text(wanted: &str, shown: &str) -> Likeness {
    if wanted == shown && !shown.contains(STARS) {
        return if json::is_json(shown) { Likeness::Hidden } else { Likeness::Same };
    }
    match json::compare(wanted, shown, behind_stars) {
        Some(Likeness::Same | Likeness::Hidden) => return Likeness::Hidden,
        Some(Likeness::Different) | None => {}
    }
    if let (Ok(wanted), Ok(shown)) = (serde_json::from_str(wanted), serde_json::from_str(shown)) {
        return tree(&wanted, &shown).max(Likeness::Hidden);
    }
    behind_stars(wanted, shown)
}

fn tree(wanted: &Value, shown: &Value) -> Likeness {
    match (wanted, shown) {
        (_, Value::String(shown)) if shown == STARS => Likeness::Hidden,
        (Value::String(wanted), Value::String(shown)) => behind_stars(wanted, shown),
        (Value::Array(wanted), Value::Array(shown)) if wanted.len() == shown.len() => {
            wanted.iter().zip(shown).map(|(wanted, shown)| tree(wanted, shown)).max().unwrap_or(Likeness::Same)
        }
        (Value::Object(wanted), Value::Object(shown)) if wanted.len() == shown.len() => wanted
            .iter()
            .map(|(key, wanted)| shown.get(key).map_or(Likeness::Different, |shown| tree(wanted, shown)))
            .max()
            .unwrap_or(Likeness::Same),
        _ => likeness(wanted == shown),
    }
}

/// A text in which parts may be hidden: what is left must be in it, in order.
fn behind_stars(wanted: &str, shown: &str) -> Likeness {
    let parts: Vec<&str> = shown.split(STARS).collect();
    let [first, middle @ .., last] = parts.as_slice() else { return likeness(wanted == shown) };
    let inside = wanted.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    let found = inside.and_then(|inside| {
        middle.iter().try_fold(inside, |rest, part| rest.find(part).map(|at| &rest[at + part.len()..]))
    });
    if found.is_some() { Likeness::Hidden } else { Likeness::Different }
}

#[cfg(test)]
mod tests;

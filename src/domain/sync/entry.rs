//! An entry of Airflow as a znode wants it: a variable, a pool or a connection.
//!
//! What is read here has passed every limit that is known of Airflow, so that one wrong value does not
//! spoil a request for hundreds. Faults never repeat a value: it may be a secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::uri;

/// The longest key of a variable (`airflow.models.base.ID_LEN`), in characters.
const VARIABLE_KEY_MAX_CHARS: usize = 250;
/// The longest name of a pool, in characters.
const POOL_NAME_MAX_CHARS: usize = 256;
/// The longest id of a connection, in characters.
const CONNECTION_ID_MAX_CHARS: usize = 200;
/// The longest text in a column of a connection (`conn_type`, `host`, `schema`), in characters.
const COLUMN_MAX_CHARS: usize = 500;
/// The longest description that a person may give; the mark of flowkeeper has to fit after it.
const DESCRIPTION_MAX_CHARS: usize = 4000;
/// What stands for a secret in Airflow.
pub(super) const STARS: &str = "***";
/// The pool that Airflow itself cannot do without.
const DEFAULT_POOL: &str = "default_pool";

/// Which of Airflow's collections an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Variables.
    Variables,
    /// Pools.
    Pools,
    /// Connections.
    Connections,
}

impl EntryKind {
    /// The word of the configuration, and of Airflow's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Variables => "variables",
            Self::Pools => "pools",
            Self::Connections => "connections",
        }
    }

    /// One of them, in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Variables => "variable",
            Self::Pools => "pool",
            Self::Connections => "connection",
        }
    }

    /// Why Airflow would not take this key; `None` for a good one.
    pub fn key_fault(self, key: &str) -> Option<&'static str> {
        if key.is_empty() {
            return Some("the key is empty");
        }
        if key.contains(char::is_control) {
            return Some("the key has a control character in it");
        }
        // As a part of an address they would mean something else.
        if matches!(key, "." | "..") {
            return Some("`.` and `..` are no keys");
        }
        let chars = key.chars().count();
        match self {
            Self::Variables if chars > VARIABLE_KEY_MAX_CHARS => {
                Some("the key of a variable has at most 250 characters")
            }
            Self::Pools if chars > POOL_NAME_MAX_CHARS => Some("the name of a pool has at most 256 characters"),
            Self::Pools if key == DEFAULT_POOL => Some("`default_pool` belongs to Airflow itself"),
            Self::Connections if chars > CONNECTION_ID_MAX_CHARS => {
                Some("the id of a connection has at most 200 characters")
            }
            Self::Connections if !key.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c)) => {
                Some("the id of a connection has only letters, digits, `_`, `.` and `-`")
            }
            _ => None,
        }
    }
}

/// A pool.
#[derive(Clone, PartialEq, Eq)]
pub struct Pool {
    /// How many tasks may run at once; -1 is without end.
    pub slots: i32,
    /// For people.
    pub description: Option<String>,
    /// Whether deferred tasks count.
    pub include_deferred: bool,
}

/// A connection. What is not given is `None`, never an empty text.
#[derive(Clone, PartialEq, Default)]
pub struct Connection {
    /// Airflow's name for the kind of system.
    pub conn_type: String,
    /// For people.
    pub description: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The user.
    pub login: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The database, or whatever the kind of system makes of it.
    pub schema: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Everything else.
    pub extra: Option<Map<String, Value>>,
}

/// What an entry holds.
#[derive(Clone, PartialEq)]
pub enum EntryValue {
    /// The text of a variable.
    Variable(String),
    /// A pool.
    Pool(Pool),
    /// A connection.
    Connection(Box<Connection>),
}

impl fmt::Debug for EntryValue {
    /// Only of which kind it is: what it holds may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryValue({})", self.kind().noun())
    }
}

impl EntryValue {
    /// Which collection it belongs to.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Variable(_) => EntryKind::Variables,
            Self::Pool(_) => EntryKind::Pools,
            Self::Connection(_) => EntryKind::Connections,
        }
    }

    /// What a person gave as its description.
    pub fn description(&self) -> Option<&str> {
        match self {
            Self::Variable(_) => None,
            Self::Pool(pool) => pool.description.as_deref(),
            Self::Connection(connection) => connection.description.as_deref(),
        }
    }

    /// Reads what a znode, or the template over it, gives. The error says what is wrong, without the value.
    pub fn read(kind: EntryKind, given: Value) -> Result<Self, String> {
        let value = match kind {
            EntryKind::Variables => Self::Variable(match given {
                Value::String(text) => text,
                other => other.to_string(),
            }),
            EntryKind::Pools => Self::Pool(pool(given)?),
            EntryKind::Connections => Self::Connection(Box::new(connection(given)?)),
        };
        value.check()?;
        Ok(value)
    }

    /// What is the same for the same value, and nothing else: the input of its digest.
    pub fn canonical(&self) -> Vec<u8> {
        let value = match self {
            Self::Variable(text) => json!(["variable", text]),
            Self::Pool(pool) => json!(["pool", pool.slots, pool.description, pool.include_deferred]),
            Self::Connection(own) => json!([
                "connection",
                own.conn_type,
                own.description,
                own.host,
                own.login,
                own.password,
                own.schema,
                own.port,
                own.extra
            ]),
        };
        value.to_string().into_bytes()
    }

    fn check(&self) -> Result<(), String> {
        if self.description().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX_CHARS) {
            return Err(format!("`description` has more than {DESCRIPTION_MAX_CHARS} characters"));
        }
        let texts: Vec<(&str, Option<&str>)> = match self {
            Self::Variable(text) => vec![("the value", Some(text.as_str()))],
            Self::Pool(pool) => vec![("`description`", pool.description.as_deref())],
            Self::Connection(own) => vec![
                ("`conn_type`", Some(own.conn_type.as_str())),
                ("`description`", own.description.as_deref()),
                ("`host`", own.host.as_deref()),
                ("`login`", own.login.as_deref()),
                ("`password`", own.password.as_deref()),
                ("`schema`", own.schema.as_deref()),
            ],
        };
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            // PostgreSQL, where most Airflows keep it, has no such character.
            if text.contains('\0') {
                return Err(format!("{name} has the character U+0000 in it"));
            }
        }
        let Self::Connection(own) = self else { return Ok(()) };
        let columns =
            [("conn_type", Some(&own.conn_type)), ("host", own.host.as_ref()), ("schema", own.schema.as_ref())];
        for (name, text) in columns {
            if text.is_some_and(|text| text.chars().count() > COLUMN_MAX_CHARS) {
                return Err(format!("`{name}` has more than {COLUMN_MAX_CHARS} characters"));
            }
        }
        if own.conn_type.is_empty() {
            return Err("`conn_type` is missing".to_owned());
        }
        // Airflow takes three stars for "as it was" when a connection is changed.
        if own.password.as_deref() == Some(STARS) {
            return Err("a password of three stars stands for a hidden one in Airflow".to_owned());
        }
        if own.extra.iter().flat_map(Map::values).any(holds_stars) {
            return Err("`extra` has a text of three stars, which stands for a hidden one in Airflow".to_owned());
        }
        Ok(())
    }
}

fn holds_stars(value: &Value) -> bool {
    match value {
        Value::String(text) => text == STARS,
        Value::Array(items) => items.iter().any(holds_stars),
        Value::Object(members) => members.values().any(holds_stars),
        _ => false,
    }
}

/// JSON in a text, where a text is what was given.
fn structure(given: Value, what: &str) -> Result<Value, String> {
    match given {
        Value::String(text) => serde_json::from_str(text.trim()).map_err(|_| format!("{what}, and this is neither")),
        other => Ok(other),
    }
}

fn pool(given: Value) -> Result<Pool, String> {
    const WHAT: &str = "a pool is a number of slots or a JSON object";
    let (slots, description, include_deferred) = match structure(given, WHAT)? {
        slots @ Value::Number(_) => (slots, None, false),
        Value::Object(mut object) => {
            let slots = object.remove("slots").ok_or("`slots` is missing")?;
            let description = text(&mut object, "description")?;
            let include_deferred = match object.remove("include_deferred") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(include)) => include,
                Some(_) => return Err("`include_deferred` is true or false".to_owned()),
            };
            nothing_else(&object, "slots, description and include_deferred")?;
            (slots, description, include_deferred)
        }
        _ => return Err(WHAT.to_owned()),
    };
    let slots = slots.as_i64().and_then(|slots| i32::try_from(slots).ok()).filter(|slots| *slots >= -1);
    let slots = slots.ok_or("`slots` is a whole number from 0, or -1 for no limit")?;
    Ok(Pool { slots, description, include_deferred })
}

fn connection(given: Value) -> Result<Connection, String> {
    const WHAT: &str = "a connection is a URI or a JSON object";
    let mut object = match given {
        Value::String(text) if !text.trim_start().starts_with('{') => return uri::connection(text.trim()),
        given => match structure(given, WHAT)? {
            Value::Object(object) => object,
            _ => return Err(WHAT.to_owned()),
        },
    };
    let port = match object.remove("port") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|_| PORT)?),
        Some(number) => Some(number.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or(PORT)?),
    };
    let connection = Connection {
        conn_type: text(&mut object, "conn_type")?.unwrap_or_default(),
        description: text(&mut object, "description")?,
        host: text(&mut object, "host")?,
        login: text(&mut object, "login")?,
        password: text(&mut object, "password")?,
        schema: text(&mut object, "schema")?,
        port,
        extra: match object.remove("extra") {
            None | Some(Value::Null) => None,
            Some(extra) => extra_object(extra)?,
        },
    };
    nothing_else(&object, "conn_type, description, host, login, password, port, schema and extra")?;
    Ok(connection)
}

/// What is said of a port that is none.
pub(super) const PORT: &str = "`port` is a number from 0 to 65535";

/// `extra`, which Airflow keeps as the text of a JSON object; an empty one is none.
pub(super) fn extra_object(given: Value) -> Result<Option<Map<String, Value>>, String> {
    const WHAT: &str = "`extra` is a JSON object, or the text of one";
    let object = match given {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(&text).map_err(|_| WHAT)?,
        other => other,
    };
    match object {
        Value::Object(object) => Ok(Some(object).filter(|object| !object.is_empty())),
        _ => Err(WHAT.to_owned()),
    }
}

/// A text that may be missing; an empty one is as good as none.
fn text(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("`{key}` is a text")),
    }
}

/// A key that nobody reads is a mistake, and more likely of its name than of its value.
fn nothing_else(object: &Map<String, Value>, known: &str) -> Result<(), String> {
    match object.keys().next() {
        None => Ok(()),
        Some(_) => Err(format!("it has a key that is not known; there are {known}")),
    }
}

#[cfg(test)]
mod tests;

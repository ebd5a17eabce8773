//! What is sent about variables, pools and connections.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::client::Call;
use super::{Change, Outgoing};
use crate::domain::sync::entry::{EntryKind, EntryValue};
use crate::domain::sync::json::extent;

/// About what an entry costs in a request beside its own texts, in bytes.
const ENTRY_BYTES: usize = 200;

/// One page of a list, in the order in which the entries were made: new ones come at its end.
pub(super) fn list(kind: EntryKind, limit: u32, offset: u64) -> Call {
    Call::new(Method::GET, [kind.as_str()]).page(limit, offset).query("order_by", "id")
}

/// The body of a request for many (API v2). It has one action: Airflow finds out what is there before it
/// carries out any of a request, so what one deletes the next does not make anew.
pub(super) fn bulk(change: &Change) -> Value {
    let action = match change {
        Change::Create(entries) => {
            json!({"action": "create", "action_on_existence": "skip", "entities": all(entries)})
        }
        Change::Update(entries) => {
            json!({"action": "update", "action_on_non_existence": "skip", "entities": all(entries)})
        }
        Change::Delete(keys) => json!({"action": "delete", "action_on_non_existence": "skip", "entities": keys}),
    };
    json!({"actions": [action]})
}

fn all(entries: &[Outgoing]) -> Vec<Value> {
    entries.iter().map(|entry| Value::Object(object(entry))).collect()
}

/// The body of a request for one (API v1), which takes no null for a password.
pub(super) fn single(entry: &Outgoing) -> Value {
    let mut object = object(entry);
    if object.get("password").is_some_and(Value::is_null) {
        object.remove("password");
    }
    Value::Object(object)
}

/// How deep JSON may be in a variable of Airflow 3. It shows variables as JSON, and fails from about 450 levels.
const JSON_DEPTH_MAX: usize = 200;
/// The longest whole number in such JSON, in digits: Python's limit (`sys.int_info.default_max_str_digits`).
const JSON_DIGITS_MAX: usize = 4300;

/// Why an entry is not sent although Airflow would take it: all entries of its kind would fail with it, or
/// another entry would be met. Measured on 3.3.2 and 2.11.2.
pub(super) fn fault(api: Api, kind: EntryKind, key: &str, value: Option<&EntryValue>) -> Option<&'static str> {
    match (api, value) {
        // An address with `//` in it is taken for one with `/`: the entry of another key.
        (Api::V1, _) if key.starts_with('/') => Some("Airflow 2 takes a key that begins with `/` for another one"),
        (Api::V1, _) if kind == EntryKind::Pools && key.contains('/') => {
            Some("Airflow 2 neither changes nor deletes a pool with `/` in its name")
        }
        (Api::V1, Some(EntryValue::Pool(pool))) if pool.slots < 0 => {
            Some("Airflow 2 fails to list pools once one of them has no limit; write a large number of slots")
        }
        (Api::V2, Some(EntryValue::Variable(text))) => {
            let (depth, digits) = extent(text);
            if depth > JSON_DEPTH_MAX {
                return Some(
                    "Airflow 3 fails to list variables once one of them holds JSON deeper than 450 levels; 200 are taken",
                );
            }
            (digits > JSON_DIGITS_MAX).then_some(
                "Airflow 3 fails to list variables once one of them holds JSON with a whole number of more than 4300 digits",
            )
        }
        _ => None,
    }
}

/// Every field, so that nothing of an earlier value stays.
fn object(entry: &Outgoing) -> Map<String, Value> {
    let Outgoing { key, value, description } = entry;
    let value = match value {
        EntryValue::Variable(text) => json!({"key": key, "value": text, "description": description}),
        EntryValue::Pool(pool) => json!({
            "name": key, "slots": pool.slots, "description": description, "include_deferred": pool.include_deferred,
        }),
        EntryValue::Connection(own) => json!({
            "connection_id": key, "conn_type": own.conn_type, "description": description, "host": own.host,
            "login": own.login, "password": own.password, "schema": own.schema, "port": own.port,
            "extra": own.extra.as_ref().map(|extra| Value::Object(extra.clone()).to_string()),
        }),
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Cuts a change so that no part has more entries, or about more bytes.
pub(super) fn cut(change: Change, entries: usize, bytes: usize) -> Vec<Change> {
    fn parts<T>(items: Vec<T>, entries: usize, bytes: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
        let mut parts: Vec<Vec<T>> = Vec::new();
        let mut total = 0_usize;
        for item in items {
            let own = size(&item);
            match parts.last_mut() {
                Some(part) if part.len() < entries && total.saturating_add(own) <= bytes => {
                    total = total.saturating_add(own);
                    part.push(item);
                }
                _ => {
                    total = own;
                    parts.push(vec![item]);
                }
            }
        }
        parts
    }
    let size = |entry: &Outgoing| ENTRY_BYTES + entry.key.len() + entry.value.canonical().len();
    match change {
        Change::Create(all) => parts(all, entries, bytes, size).into_iter().map(Change::Create).collect(),
        Change::Update(all) => parts(all, entries, bytes, size).into_iter().map(Change::Update).collect(),
        Change::Delete(keys) => {
            parts(keys, entries, bytes, |key| ENTRY_BYTES + key.len()).into_iter().map(Change::Delete).collect()
        }
    }
}

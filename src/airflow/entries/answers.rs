//! What Airflow answers about variables, pools and connections. Nothing here shows what entries hold.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::Change;
use crate::domain::sync::entry::EntryKind;
use crate::domain::sync::shown::{Fields, Shown, Told};

/// The most faults of a refusal that are told.
const FAULTS_TOLD: usize = 3;

/// One page of a list.
pub(super) struct Page {
    pub(super) entries: Vec<Shown>,
    pub(super) total: u64,
}

/// Reads a page; `None` when the body is no such list. A page with an entry that cannot be read is none
/// either: taken for absent, the entry would be made again.
pub(super) fn page(kind: EntryKind, body: &[u8]) -> Option<Page> {
    let mut page: Value = serde_json::from_slice(body).ok()?;
    let total = page.get("total_entries")?.as_u64()?;
    let Value::Array(entries) = page.get_mut(kind.as_str())?.take() else { return None };
    Some(Page { entries: entries.iter().map(|entry| shown(kind, entry)).collect::<Option<_>>()?, total })
}

fn shown(kind: EntryKind, entry: &Value) -> Option<Shown> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let told = |name: &str| if entry.get(name).is_some() { Told::Field(text(name)) } else { Told::LeftOut };
    let (key, fields) = match kind {
        EntryKind::Variables => ("key", Fields::Variable(text("value"))),
        EntryKind::Pools => {
            let include_deferred = entry.get("include_deferred").and_then(Value::as_bool).unwrap_or(false);
            ("name", Fields::Pool { slots: entry.get("slots")?.as_i64()?, include_deferred })
        }
        EntryKind::Connections => (
            "connection_id",
            Fields::Connection {
                conn_type: text("conn_type"),
                host: text("host"),
                login: text("login"),
                schema: text("schema"),
                port: entry.get("port").and_then(Value::as_i64),
                password: told("password"),
                extra: told("extra"),
            },
        ),
    };
    Some(Shown { key: text(key)?, description: text("description"), fields })
}

/// Whether the answer shows this entry.
pub(super) fn shows(kind: EntryKind, key: &str, body: &[u8]) -> bool {
    let id = match kind {
        EntryKind::Variables => "key",
        EntryKind::Pools => "name",
        EntryKind::Connections => "connection_id",
    };
    serde_json::from_slice::<Value>(body).is_ok_and(|entry| entry.get(id).and_then(Value::as_str) == Some(key))
}

/// What a request for many came to.
pub(super) enum Bulk {
    /// These were done, and the rest was passed over.
    Done(BTreeSet<String>),
    /// None was done.
    Refused(String),
}

/// Reads the answer to a request for many; `None` when it is no such answer.
pub(super) fn bulk(change: &Change, body: &[u8]) -> Option<Bulk> {
    #[derive(Deserialize)]
    struct Outcome {
        success: Vec<String>,
        #[serde(default)]
        errors: Vec<Value>,
    }
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let action = match change {
        Change::Create(_) => "create",
        Change::Update(_) => "update",
        Change::Delete(_) => "delete",
    };
    let outcome: Outcome = serde_json::from_value(answer.get_mut(action)?.take()).ok()?;
    if let Some(error) = outcome.errors.first() {
        let status = error.get("status_code").and_then(Value::as_u64).unwrap_or(400);
        return Some(Bulk::Refused(format!("{status}: Airflow refuses it")));
    }
    let keys: BTreeSet<&str> = change.keys().into_iter().collect();
    // Only what was asked for can have been done by this request.
    Some(Bulk::Done(outcome.success.into_iter().filter(|key| keys.contains(key.as_str())).collect()))
}

/// A refusal without anything of what was sent: its status, and which rules of the API were broken where.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    let faults: Vec<String> = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|answer| Some(answer.get("detail")?.as_array()?.iter().filter_map(fault).collect()))
        .unwrap_or_default();
    let mut told: Vec<String> = Vec::new();
    for fault in faults {
        if !told.contains(&fault) && told.len() < FAULTS_TOLD {
            told.push(fault);
        }
    }
    match status {
        400..=499 if told.is_empty() => format!("{status}: Airflow refuses it"),
        400..=499 => format!("{status}: Airflow refuses it ({})", told.join("; ")),
        _ => format!("{status}: Airflow failed"),
    }
}

/// One fault of a 422: the name of the rule and of the field. The rest may repeat what was sent.
fn fault(error: &Value) -> Option<String> {
    let word = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && text.len() <= 64;
    let rule = error.get("type")?.as_str().filter(word)?;
    let field = error.get("loc")?.as_array()?.last()?.as_str().filter(word)?;
    Some(format!("{field}: {rule}"))
}

/// Whether Airflow itself failed, as [`refusal`] tells it: 500 may be about what was sent, while 502, 503 and 504
/// come from something before it.
pub(super) fn is_failure(detail: &str) -> bool {
    detail.starts_with("500")
}

/// Whether a refusal, as [`refusal`] tells it, is about what was sent and not about the moment.
pub(super) fn is_about_content(detail: &str) -> bool {
    ["400", "409", "413", "422"].iter().any(|status| detail.starts_with(status))
}

//! Entries of Airflow as they go over the wire, and what is told of refusals.

use serde_json::{Value, json};

use super::*;
use crate::domain::sync::entry::Connection;

fn variable(key: &str, text: &str) -> Outgoing {
    Outgoing { key: key.into(), value: EntryValue::Variable(text.into()), description: "mark".into() }
}

#[test]
fn a_refusal_tells_rules_and_fields_and_nothing_of_what_was_sent() {
    let body = json!({"detail": [
        {"type": "string_too_long", "loc": ["body", "actions", 0, "create", "entities", 0, "key"], "msg": "s3cret", "input": "s3cret"},
        {"type": "string_too_long", "loc": ["body", "actions", 0, "create", "entities", 0, "key"], "input": "s3cret"},
        {"type": "s3cret and more", "loc": ["s3cret!"], "input": "s3cret"},
    ]});
    let of = |status, body: &str| answers::refusal(status, body.as_bytes());
    assert_eq!(of(422, &body.to_string()), "422: Airflow refuses it (key: string_too_long)");
    for (status, body) in
        [(400, r#"{"detail": "'s3cret' is not of type 'integer' - 'port'"}"#), (500, "s3cret"), (502, "")]
    {
        let told = of(status, body);
        assert!(told.starts_with(&status.to_string()) && !told.contains("s3cret"), "{told}");
    }
    assert!(answers::is_about_content(&of(422, "")) && !answers::is_about_content(&of(500, "")));
}

#[test]
fn only_what_was_asked_for_counts_as_done() {
    let change = Change::Create(vec![variable("a", "1"), variable("b", "2")]);
    let read = |answer: Value| answers::bulk(&change, answer.to_string().as_bytes());
    let done = read(json!({"create": {"success": ["a", "z"], "errors": []}, "update": null, "delete": null}));
    assert!(matches!(done, Some(answers::Bulk::Done(keys)) if keys == BTreeSet::from(["a".to_owned()])));
    let refused = read(json!({"create": {"success": [], "errors": [{"error": "s3cret", "status_code": 409}]}}));
    assert!(matches!(refused, Some(answers::Bulk::Refused(reason)) if reason == "409: Airflow refuses it"));
    for rubbish in [json!({}), json!({"create": null}), json!({"update": {"success": ["a"]}}), json!([1]), json!("a")] {
        assert!(read(rubbish).is_none());
    }
}

#[test]
fn a_page_with_an_entry_that_cannot_be_read_is_no_page() {
    let read = |kind, page: Value| answers::page(kind, page.to_string().as_bytes()).map(|page| page.entries.len());
    let variables = |entries: Value| json!({"variables": entries, "total_entries": 1});
    assert_eq!(read(EntryKind::Variables, variables(json!([{"key": "a", "value": null}]))), Some(1));
    assert_eq!(read(EntryKind::Variables, variables(json!([{"value": "x"}]))), None);
    assert_eq!(read(EntryKind::Variables, json!({"variables": []})), None);
    assert_eq!(read(EntryKind::Pools, json!({"pools": [{"name": "p"}], "total_entries": 1})), None);
    assert_eq!(read(EntryKind::Connections, json!({"pools": [], "total_entries": 0})), None);
}

#[test]
fn a_change_is_cut_by_number_and_by_size() {
    let sizes = |change: Change, entries, bytes| -> Vec<usize> {
        bodies::cut(change, entries, bytes).iter().map(Change::len).collect()
    };
    let many = |count: usize, length: usize| {
        Change::Update((0..count).map(|number| variable(&number.to_string(), &"x".repeat(length))).collect())
    };
    assert_eq!(sizes(many(5, 1), 2, usize::MAX), [2, 2, 1]);
    assert_eq!(sizes(many(4, 1000), 500, 3000), [2, 2]);
    // One that is too large by itself goes alone; Airflow decides.
    assert_eq!(sizes(many(2, 5000), 500, 3000), [1, 1]);
    assert_eq!(sizes(Change::Delete(vec!["a".into(), "b".into()]), 1, usize::MAX), [1, 1]);
    assert!(sizes(Change::Delete(Vec::new()), 1, 1).is_empty());
}

#[test]
fn a_connection_is_written_with_every_field() {
    let connection = Connection { conn_type: "http".into(), ..Connection::default() };
    let entry =
        Outgoing { key: "c".into(), value: EntryValue::Connection(Box::new(connection)), description: "mark".into() };
    let body = bodies::bulk(&Change::Update(vec![entry.clone()]));
    let entity = body["actions"][0]["entities"][0].as_object().expect("an entity");
    assert_eq!(entity.len(), 9);
    assert_eq!((&entity["host"], &entity["password"]), (&Value::Null, &Value::Null));
    // Airflow 2 takes no null for a password.
    assert_eq!(bodies::single(&entry).get("password"), None);
}

#[test]
fn nothing_here_shows_what_entries_hold() {
    let change = Change::Create(vec![variable("k", "s3cret")]);
    assert!(!format!("{change:?}").contains("s3cret"));
}

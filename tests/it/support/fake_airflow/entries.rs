//! Variables, pools and connections: what Airflow 3.3.2 (in bulk) and 2.11.2 (one by one) make of the
//! requests that flowkeeper sends, and what their lists hide.

use serde_json::{Map, Value, json};

use super::routes::{failure, page, problem};
use super::server::{Request, Response};
use super::world::{Version, World};

/// What these words are part of, Airflow hides.
const SENSITIVE: [&str; 8] =
    ["password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "private_key"];

/// The three collections, each with the name of its keys.
const COLLECTIONS: [(&str, &str); 3] = [("variables", "key"), ("pools", "name"), ("connections", "connection_id")];

/// The route of a request for entries, if it is one.
pub fn route(request: &Request, rest: &[&str], three: bool) -> Option<&'static str> {
    let is_collection = |name: &&str| COLLECTIONS.iter().any(|(collection, _)| collection == name);
    match (request.method.as_str(), rest) {
        ("GET", [name]) if is_collection(name) => Some("entries"),
        ("PATCH", [name]) if is_collection(name) && three => Some("entries_bulk"),
        ("POST", [name]) if is_collection(name) && !three => Some("entry_create"),
        ("GET", [name, _]) if is_collection(name) => Some("entry"),
        ("PATCH", [name, _]) if is_collection(name) && !three => Some("entry_update"),
        ("DELETE", [name, _]) if is_collection(name) => Some("entry_delete"),
        _ => None,
    }
}

/// Does what is asked.
pub fn respond(world: &mut World, request: &Request, route: &str, rest: &[&str]) -> Response {
    let Some((collection, id)) = COLLECTIONS.iter().find(|(collection, _)| Some(collection) == rest.first()).copied()
    else {
        return super::routes::not_found_page();
    };
    if world.fails_at(&request.body) {
        return Response::text(500, "text/html", "Internal Server Error");
    }
    match route {
        "entries" => list(world, request, collection),
        "entries_bulk" => bulk(world, request, collection, id),
        _ => single(world, request, route, collection, id, rest.get(1).copied()),
    }
}

fn list(world: &World, request: &Request, collection: &str) -> Response {
    let (limit, offset) = page(request);
    let all = world.entries(collection);
    let shown: Vec<Value> = all.iter().skip(offset).take(limit).map(|entry| show(world, collection, entry)).collect();
    if world.version == Version::Two && shown.iter().any(|entry| entry["slots"] == -1) {
        return problem(500, "Response body does not conform to specification", "inf is not of type 'integer'");
    }
    Response::json(200, &json!({collection: shown, "total_entries": all.len()}))
}

/// An entry as a list shows it.
fn show(world: &World, collection: &str, entry: &Map<String, Value>) -> Value {
    let mut shown = entry.clone();
    let three = world.version == Version::Three;
    match collection {
        "variables" if three => {
            let (key, value) = (entry["key"].as_str().unwrap_or_default(), entry["value"].as_str().unwrap_or_default());
            let value = match serde_json::from_str::<Value>(value) {
                Ok(json) => dumps(&redacted(Some(key), &json)),
                Err(_) => redacted(Some(key), &json!(value)).as_str().unwrap_or_default().to_owned(),
            };
            shown.insert("value".into(), json!(value));
        }
        "connections" if three => {
            if !entry["password"].is_null() {
                shown.insert("password".into(), json!("***"));
            }
            if let Some(Ok(extra)) = entry["extra"].as_str().map(serde_json::from_str::<Value>) {
                shown.insert("extra".into(), json!(dumps(&redacted(None, &extra))));
            }
        }
        "connections" => {
            shown.remove("password");
            shown.remove("extra");
        }
        _ => {}
    }
    Value::Object(shown)
}

fn redacted(key: Option<&str>, value: &Value) -> Value {
    let is_sensitive = key.is_some_and(|key| SENSITIVE.iter().any(|word| key.to_lowercase().contains(word)));
    match value {
        Value::Object(object) => {
            object.iter().map(|(name, value)| (name.clone(), redacted(Some(name.as_str()), value))).collect()
        }
        Value::Array(items) => items.iter().map(|item| redacted(key, item)).collect(),
        Value::String(text) if is_sensitive && !text.is_empty() => json!("***"),
        other => other.clone(),
    }
}

/// JSON as Python writes it.
fn dumps(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let members: Vec<String> =
                object.iter().map(|(key, value)| format!("{}: {}", json!(key), dumps(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(dumps).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// What Airflow 3 finds wrong with an entry: the rule and the field. It repeats what it was sent.
fn fault(collection: &str, id: &str, entry: &Map<String, Value>) -> Option<(&'static str, &'static str, Value)> {
    let key = entry.get(id).and_then(Value::as_str).unwrap_or_default();
    let is_id = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    match collection {
        "variables" if key.chars().count() > 250 => Some(("string_too_long", "key", json!(key))),
        "pools" if entry.get("slots").and_then(Value::as_i64).is_none_or(|slots| slots < -1) => {
            Some(("greater_than_equal", "slots", entry.get("slots").cloned().unwrap_or_default()))
        }
        "connections" if key.is_empty() || !key.chars().all(is_id) => {
            Some(("string_pattern_mismatch", "connection_id", json!(key)))
        }
        _ => None,
    }
}

fn bulk(world: &mut World, request: &Request, collection: &str, id: &str) -> Response {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let mut results = Map::from_iter(["create", "update", "delete"].map(|action| (action.to_owned(), Value::Null)));
    for action in body["actions"].as_array().into_iter().flatten() {
        let verb = action["action"].as_str().unwrap_or_default();
        let entities = action["entities"].as_array().cloned().unwrap_or_default();
        for (index, entity) in entities.iter().enumerate() {
            let Some((rule, field, input)) = entity
                .as_object()
                .and_then(|entity| fault(collection, id, entity))
                .or_else(|| world.refusal(entity, id))
            else {
                continue;
            };
            let error = json!({"type": rule, "loc": ["body", "actions", 0, verb, "entities", index, field],
                "msg": "wrong", "input": input});
            return Response::json(422, &json!({"detail": [error]}));
        }
        let mut success = Vec::new();
        for entity in entities {
            let key = entity.as_str().or_else(|| entity[id].as_str()).unwrap_or_default().to_owned();
            let is_there = world.entry(collection, id, &key).is_some();
            match verb {
                "create" if !is_there => insert(world, collection, entity),
                "update" if is_there => update(world, collection, id, &key, &entity),
                "delete" if is_there => world.entries_mut(collection).retain(|entry| entry[id] != key.as_str()),
                _ => continue,
            }
            success.push(key);
        }
        results.insert(verb.to_owned(), json!({"success": success, "errors": []}));
    }
    Response::json(200, &Value::Object(results))
}

/// The fields of a collection, with what they are when nothing is said of them.
fn blank(collection: &str) -> Map<String, Value> {
    let blank = match collection {
        "variables" => json!({"value": "", "description": null}),
        "pools" => json!({"slots": 0, "description": null, "include_deferred": false}),
        _ => json!({"conn_type": "", "description": null, "host": null, "login": null, "password": null,
            "schema": null, "port": null, "extra": null}),
    };
    blank.as_object().cloned().unwrap_or_default()
}

fn insert(world: &mut World, collection: &str, entity: Value) {
    let mut entry = blank(collection);
    if let Value::Object(entity) = entity {
        entry.extend(entity);
    }
    world.entries_mut(collection).push(entry);
}

fn update(world: &mut World, collection: &str, id: &str, key: &str, entity: &Value) {
    let entry = world.entries_mut(collection).iter_mut().find(|entry| entry[id] == key);
    if let (Some(entry), Some(entity)) = (entry, entity.as_object()) {
        let password = entry.get("password").cloned();
        entry.extend(entity.clone());
        // A password is changed, and never taken away.
        if let Some(password) = password
            && entry["password"].as_str().unwrap_or_default().is_empty()
        {
            entry.insert("password".into(), password);
        }
    }
}

/// Airflow 2, and Airflow 3's look at one entry.
fn single(
    world: &mut World,
    request: &Request,
    route: &str,
    collection: &str,
    id: &str,
    key: Option<&str>,
) -> Response {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let key = key.or_else(|| body[id].as_str()).unwrap_or_default().to_owned();
    let is_there = world.entry(collection, id, &key).is_some();
    if !is_there && route != "entry_create" {
        return match collection {
            "variables" => failure(world, 404, "Variable not found", "Variable does not exist"),
            "pools" => failure(world, 404, "Not Found", format!("Pool with name:'{key}' not found")),
            _ => failure(
                world,
                404,
                "Connection not found",
                format!("The Connection with connection_id: `{key}` was not found"),
            ),
        };
    }
    if matches!(route, "entry_create" | "entry_update") {
        if body["password"].is_null() && body.get("password").is_some() {
            return problem(400, "Bad Request", "None is not of type 'string' - 'password'");
        }
        if collection == "connections" && body.as_object().is_some_and(|body| fault(collection, id, body).is_some()) {
            return problem(400, "Bad Request", format!("The key '{key}' has to be made of alphanumeric characters"));
        }
        if world.refusal(&body, id).is_some() {
            return problem(400, "Bad Request", format!("{body} is refused"));
        }
    }
    match route {
        "entry_create" if is_there && collection != "variables" => {
            return problem(409, "Conflict", format!("{key} already exists"));
        }
        // A variable is overwritten without a word, its description too.
        "entry_create" => {
            world.entries_mut(collection).retain(|entry| entry[id] != key.as_str());
            insert(world, collection, body);
        }
        "entry_update" => update(world, collection, id, &key, &body),
        "entry_delete" => {
            world.entries_mut(collection).retain(|entry| entry[id] != key.as_str());
            return Response::text(204, "application/json", "");
        }
        _ => {}
    }
    match world.entry(collection, id, &key).map(|entry| show(world, collection, entry)) {
        Some(entry) => Response::json(200, &entry),
        None => super::routes::not_found_page(),
    }
}

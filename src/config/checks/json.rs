//! `conf` as JSON, in the order in which it is written.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

use super::super::section::Section;

/// The table as a JSON object; what has no JSON form is noted and becomes null.
pub(super) fn object(section: &Section<'_, '_>, table: &DeTable<'_>) -> Map<String, Value> {
    let mut path = vec!["conf".to_owned()];
    table_at(section, table, &mut path)
}

fn table_at(section: &Section<'_, '_>, table: &DeTable<'_>, path: &mut Vec<String>) -> Map<String, Value> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut object = Map::with_capacity(entries.len());
    for (key, value) in entries {
        path.push(key.get_ref().to_string());
        let json = value_at(section, value.get_ref(), path);
        path.pop();
        object.insert(key.get_ref().to_string(), json);
    }
    object
}

fn value_at(section: &Section<'_, '_>, value: &DeValue<'_>, path: &mut Vec<String>) -> Value {
    match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::from(number),
            Err(_) => fault(section, path, "this number has more than 64 bits", "put it in quotes"),
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => fault(section, path, "JSON has no such number", "put it in quotes, or leave it out"),
        },
        DeValue::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                path.push(index.to_string());
                let json = value_at(section, item.get_ref(), path);
                path.pop();
                json
            })
            .collect(),
        DeValue::Table(table) => Value::Object(table_at(section, table, path)),
    }
}

fn fault(section: &Section<'_, '_>, path: &[String], message: &str, hint: &str) -> Value {
    let at: Vec<&str> = path.iter().map(String::as_str).collect();
    section.error(&at, message, hint);
    Value::Null
}

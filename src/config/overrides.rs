//! Environment variables that override single values: `FLOWKEEPER_SERVER__LISTEN=…`.
//!
//! The value takes the place of what the main file has. A fault that it leads to names the
//! variable, and never its value, which may be a secret that should be elsewhere.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::environment::{Environment, OVERRIDE_PREFIX};
use super::fault::Severity;
use super::source::{Sink, Source};
use super::text;
use super::written::SECTIONS;

/// A variable, where its value goes, and the place in the document that stands for it.
pub(super) struct Override<'e> {
    path: Vec<String>,
    value: DeValue<'e>,
    span: Range<usize>,
}

/// The overrides of the environment, each with a place of its own in the source.
pub(super) fn collect<'e>(environment: &'e Environment, source: &mut Source) -> Vec<Override<'e>> {
    environment
        .overrides()
        .map(|(variable, value)| {
            let path = variable[OVERRIDE_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
            let span = source.add_override(variable);
            Override { path, value: read(value, &span), span }
        })
        .collect()
}

/// The value as TOML where it is a number, a truth value, an array or a table; otherwise a text.
fn read<'e>(value: &'e str, span: &Range<usize>) -> DeValue<'e> {
    match DeValue::parse(value) {
        Ok(parsed) if !matches!(parsed.get_ref(), DeValue::Datetime(_)) => at(parsed.into_inner(), span),
        _ => DeValue::String(value.into()),
    }
}

/// The same value, every part of it at `span`.
fn at<'e>(value: DeValue<'e>, span: &Range<usize>) -> DeValue<'e> {
    let spanned = |value: Spanned<DeValue<'e>>| Spanned::new(span.clone(), at(value.into_inner(), span));
    match value {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(spanned).collect::<DeArray<'e>>()),
        DeValue::Table(table) => DeValue::Table(
            table
                .into_iter()
                .map(|(key, value)| (Spanned::new(span.clone(), key.into_inner()), spanned(value)))
                .collect::<DeTable<'e>>(),
        ),
        single => single,
    }
}

/// Puts the values in their places.
pub(super) fn apply<'i>(table: &mut DeTable<'i>, overrides: &[Override<'i>], source: &Source, sink: &Sink) {
    for Override { path, value, span } in overrides {
        let fault = |message: String, hint: String| {
            sink.push(source.fault(span.clone(), path.join("."), Severity::Error, message, hint));
        };
        let Some((first, _)) = path.split_first() else { continue };
        if !SECTIONS.contains(&first.as_str()) || matches!(first.as_str(), "include" | "schedule" | "sync") {
            let known: Vec<&str> =
                SECTIONS.into_iter().filter(|section| !matches!(*section, "include" | "schedule" | "sync")).collect();
            let hint = text::did_you_mean(first, &known, "sections whose values can be set");
            fault(format!("no section `{first}` has values that a variable can set"), hint);
            continue;
        }
        if path.iter().any(String::is_empty) || path.len() < 2 {
            fault("this variable names no key".to_owned(), "write FLOWKEEPER_SECTION__KEY".to_owned());
            continue;
        }
        if !insert(table, path, value, span) {
            fault(
                "this variable names a key inside of a value that is no table".to_owned(),
                "name the key itself: FLOWKEEPER_SECTION__KEY".to_owned(),
            );
        }
    }
}

/// Puts `value` at `path`, adding the tables that are missing; false where one of them is no table.
fn insert<'i>(table: &mut DeTable<'i>, path: &[String], value: &DeValue<'i>, span: &Range<usize>) -> bool {
    let Some((last, tables)) = path.split_last() else { return false };
    let mut table = table;
    let around = span.end..span.end;
    for step in tables {
        let key = Spanned::new(around.clone(), existing(table, step).into());
        let below = table.entry(key).or_insert_with(|| Spanned::new(around.clone(), DeValue::Table(DeTable::new())));
        match below.get_mut() {
            DeValue::Table(below) => table = below,
            _ => return false,
        }
    }
    let last = existing(table, last);
    table.remove(last.as_str());
    table.insert(Spanned::new(span.clone(), last.into()), Spanned::new(span.clone(), value.clone()));
    true
}

/// The key that a part of a variable's name means: variables have no `-` and no lower case.
fn existing(table: &DeTable<'_>, step: &str) -> String {
    let same = |key: &str| key.to_lowercase().replace('-', "_") == step;
    table.keys().map(|key| key.get_ref().as_ref()).find(|key| same(key)).unwrap_or(step).to_owned()
}

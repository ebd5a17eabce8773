//! A table of a file while it is read: its values, and where its faults belong.
//!
//! Reading goes on after a fault: the value is put aside, noted with its place, and the rest is
//! read again, until nothing is wrong any more.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::fault::Severity;
use super::source::{Sink, Source};
use super::text;
use super::written::HINT_MARK;

/// A table of a file, and the key that it stands under.
pub(super) struct Section<'a, 'i> {
    pub(super) source: &'a Source,
    pub(super) sink: &'a Sink,
    /// Where the text that was parsed begins in the source.
    pub(super) base: usize,
    /// The dotted key of this table; empty for the document.
    pub(super) key: &'a str,
    /// The table as it was parsed.
    pub(super) table: &'a DeTable<'i>,
    /// Its header.
    pub(super) header: Range<usize>,
}

impl<'i> Section<'_, 'i> {
    /// Notes an error at a key of this table, or at the nearest table above it that is there.
    pub(super) fn error(&self, at: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.fault(Severity::Error, at, message.into(), hint.into());
    }

    /// Notes a warning.
    pub(super) fn warning(&self, at: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.fault(Severity::Warning, at, message.into(), hint.into());
    }

    fn fault(&self, severity: Severity, at: &[&str], message: String, hint: String) {
        let span = self.span(at);
        self.sink.push(self.source.fault(span, self.key_of(at), severity, message, hint));
    }

    fn key_of(&self, at: &[&str]) -> String {
        let own = Some(self.key).filter(|key| !key.is_empty());
        own.into_iter().chain(at.iter().copied()).collect::<Vec<_>>().join(".")
    }

    /// Whether the file has this key, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value as it was parsed.
    pub(super) fn value(&self, at: &[&str]) -> Option<&Spanned<DeValue<'i>>> {
        let (first, rest) = at.split_first()?;
        rest.iter().try_fold(self.table.get(*first)?, |value, step| child(value.get_ref(), step))
    }

    /// The place of a key's value in the source, or of the nearest table above it.
    pub(super) fn span(&self, at: &[&str]) -> Range<usize> {
        let nearest = (1..=at.len()).rev().find_map(|length| self.value(&at[..length])).map(Spanned::span);
        self.in_source(nearest.unwrap_or_else(|| self.header.clone()))
    }

    /// The place of a key itself.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        let span = self.table.get_key_value(key).map_or_else(|| self.header.clone(), |(key, _)| key.span());
        self.in_source(span)
    }

    fn in_source(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.base..span.end + self.base
    }

    /// Reads the table; what is wrong is noted and left out.
    pub(super) fn read<T: DeserializeOwned + Default>(&self) -> T {
        let attempt = |table: &DeTable<'i>| {
            let value = Spanned::new(self.header.clone(), DeValue::Table(table.clone()));
            T::deserialize(ValueDeserializer::from(value))
        };
        let mut error = match attempt(self.table) {
            Ok(read) => return read,
            Err(error) => error,
        };
        let mut rest = self.table.clone();
        loop {
            let mut path = Vec::new();
            let span = error.span().unwrap_or_else(|| self.header.clone());
            let taken = take(&mut rest, &span, &mut path);
            match taken {
                // The text of a variable may look like a number where a text is wanted.
                Some(Taken::Value(value)) if self.is_override(&value) && as_text(&value).is_some() => {
                    put_back(&mut rest, &path, &value);
                }
                taken => {
                    let (message, hint) = explain(error.message());
                    let at: Vec<&str> = path.iter().map(String::as_str).collect();
                    self.sink.push(self.source.fault(
                        self.in_source(span),
                        self.key_of(&at),
                        Severity::Error,
                        message,
                        hint,
                    ));
                    if taken.is_none() {
                        return T::default();
                    }
                }
            }
            match attempt(&rest) {
                Ok(read) => return read,
                Err(next) => error = next,
            }
        }
    }

    fn is_override(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.source.override_at(&self.in_source(value.span())).is_some()
    }
}

fn child<'a, 'i>(value: &'a DeValue<'i>, step: &str) -> Option<&'a Spanned<DeValue<'i>>> {
    match value {
        DeValue::Table(table) => table.get(step),
        DeValue::Array(array) => array.get(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// What was taken out of a table.
enum Taken<'i> {
    /// A value, because of its own fault or that of its key.
    Value(Spanned<DeValue<'i>>),
    /// A key that is not known.
    Key,
}

/// Takes out the entry whose key or value is at `span`, and says where it was.
fn take<'i>(table: &mut DeTable<'i>, span: &Range<usize>, path: &mut Vec<String>) -> Option<Taken<'i>> {
    let here = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    if let Some(name) = here.map(|(key, _)| key.get_ref().to_string()) {
        path.push(name.clone());
        let (key, value) = table.remove_entry(name.as_str())?;
        return Some(if value.span() == *span {
            Taken::Value(value)
        } else {
            drop(key);
            Taken::Key
        });
    }
    table.iter_mut().find_map(|(key, value)| take_within(value.get_mut(), key.get_ref().to_string(), span, path))
}

fn take_item<'i>(array: &mut toml::de::DeArray<'i>, span: &Range<usize>, path: &mut Vec<String>) -> Option<Taken<'i>> {
    if let Some(index) = array.iter().position(|item| item.span() == *span) {
        path.push(index.to_string());
        let items = std::mem::replace(array, toml::de::DeArray::new());
        let (taken, kept): (Vec<_>, Vec<_>) = items.into_iter().enumerate().partition(|(at, _)| *at == index);
        *array = kept.into_iter().map(|(_, item)| item).collect();
        return taken.into_iter().next().map(|(_, item)| Taken::Value(item));
    }
    array.iter_mut().enumerate().find_map(|(index, item)| take_within(item.get_mut(), index.to_string(), span, path))
}

/// The same below a value, which is one step down.
fn take_within<'i>(
    value: &mut DeValue<'i>,
    step: String,
    span: &Range<usize>,
    path: &mut Vec<String>,
) -> Option<Taken<'i>> {
    path.push(step);
    let taken = match value {
        DeValue::Table(table) => take(table, span, path),
        DeValue::Array(array) => take_item(array, span, path),
        _ => None,
    };
    if taken.is_none() {
        path.pop();
    }
    taken
}

/// The text of a number, a date or a truth value, for a variable that was read as one.
fn as_text(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        _ => None,
    }
}

/// Puts a value back as text, under the key that it was taken from.
fn put_back(table: &mut DeTable<'_>, path: &[String], value: &Spanned<DeValue<'_>>) {
    let Some((last, tables)) = path.split_last() else { return };
    let mut table = table;
    for step in tables {
        match table.get_mut(step.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(below)) => table = below,
            _ => return,
        }
    }
    let text = as_text(value).unwrap_or_default();
    let span = value.span();
    table.insert(Spanned::new(span.clone(), last.clone().into()), Spanned::new(span, DeValue::String(text.into())));
}

/// Serde's words in those of this program: a message and a remedy.
fn explain(message: &str) -> (String, String) {
    if let Some((message, hint)) = message.split_once(HINT_MARK) {
        return (message.to_owned(), hint.to_owned());
    }
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some((name, expected)) = rest.split_once('`')
    {
        let known = quoted(expected);
        return (format!("unknown key `{name}`"), text::did_you_mean(name, &known, "known keys"));
    }
    if let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        let (expected, hint) = expectation(expected);
        return (format!("expected {expected}, found {}", kind(found)), hint);
    }
    (message.to_owned(), "see docs/configuration.md for what this key takes".to_owned())
}

/// The names in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The kind of value that was found, without the value: it may be a secret.
fn kind(found: &str) -> &str {
    match found.split([' ', '`', '"']).next() {
        Some("string") => "a string",
        Some("integer") => "a whole number",
        Some("floating") => "a number with a fraction",
        Some("boolean") => "true or false",
        Some("sequence") => "an array",
        Some("map") => "a table",
        _ => found,
    }
}

/// What was expected, and how to write it.
fn expectation(expected: &str) -> (String, String) {
    let (what, hint) = match expected {
        "a string" => ("a string", "put it in quotes"),
        "a boolean" => ("true or false", "write true or false, without quotes"),
        "a sequence" => ("an array", "put it in brackets: [\"…\"]"),
        "a map" | "a table" => ("a table", "write { key = value }, or a section of its own"),
        "f64" => ("a number", "write a number without quotes"),
        "u32" | "usize" => ("a whole number", "write a positive whole number without quotes"),
        "a duration" => ("a duration", "write a number and a unit, such as \"90s\", \"5m\", \"1h30m\" or \"7d\""),
        "a secret's place" => ("a secret's place", "write { env = \"NAME\" } or { file = \"path\" }"),
        other if other.starts_with("struct ") => ("a table", "write { key = value }, or a section of its own"),
        other => return (other.to_owned(), format!("write {other}")),
    };
    (what.to_owned(), hint.to_owned())
}

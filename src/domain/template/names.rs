//! Filters, tests and methods that do not exist, found when a template is compiled.
//!
//! The engine looks their names up only when it meets them in an evaluation, which may be at three
//! in the morning. This reads just enough of the text to find `| name`, `is name` and `.name(`; where it is in
//! doubt it says nothing and leaves the judgement to the evaluation.

use minijinja::{Environment, ErrorKind};

use super::compile::{TemplateError, suggest};
use super::methods::METHODS;

/// Names that people reach for, for the suggestions; the engine does not list its own.
const FILTERS: [&str; 34] = [
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "date",
    "datetime",
    "default",
    "epoch",
    "first",
    "float",
    "groupby",
    "in_zone",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "replace",
    "round",
    "select",
    "sort",
    "strftime",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
];
const TESTS: [&str; 16] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "in",
    "integer",
    "mapping",
    "none",
    "number",
    "sequence",
    "startingwith",
    "string",
    "undefined",
];

/// Checks every name in `source`; `expression` says that it is all code, without delimiters.
pub(super) fn check(source: &str, expression: bool, environment: &Environment<'_>) -> Result<(), TemplateError> {
    let mut code = expression;
    let mut rest = source;
    let mut previous = Token::Other;
    while !rest.is_empty() {
        if !code {
            let Some(start) = ["{{", "{%", "{#"].iter().filter_map(|opening| rest.find(opening)).min() else { break };
            let comment = rest[start..].starts_with("{#");
            rest = &rest[start + 2..];
            if comment {
                rest = rest.find("#}").map_or("", |end| &rest[end + 2..]);
            } else {
                code = true;
                previous = Token::Other;
            }
            continue;
        }
        if !expression && (rest.starts_with("}}") || rest.starts_with("%}")) {
            code = false;
            rest = &rest[2..];
            continue;
        }
        let (token, length) = Token::first(rest);
        if let Token::Word(name) = token {
            let called = rest[length..].trim_start().starts_with('(');
            match previous {
                Token::Dot if called && !METHODS.contains(&name) => return Err(unknown("method", name, &METHODS)),
                Token::Pipe if !exists(environment, name, true) => return Err(unknown("filter", name, &FILTERS)),
                Token::Word("is") if name != "not" && !exists(environment, name, false) => {
                    return Err(unknown("test", name, &TESTS));
                }
                // `is not name`: the name is still that of a test.
                Token::Word("is") if name == "not" => {
                    rest = &rest[length..];
                    continue;
                }
                _ => {}
            }
        }
        if !matches!(token, Token::Space) {
            previous = token;
        }
        rest = &rest[length..];
    }
    Ok(())
}

fn unknown(what: &str, name: &str, known: &[&str]) -> TemplateError {
    TemplateError::new(format!("there is no {what} named `{name}`"), suggest(name, known))
}

fn exists(environment: &Environment<'_>, name: &str, filter: bool) -> bool {
    let mut state = environment.empty_state();
    let error = if filter { state.apply_filter(name, &[]).err() } else { state.perform_test(name, &[]).err() };
    !error.is_some_and(|error| matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Pipe,
    Dot,
    Space,
    Other,
}

impl<'a> Token<'a> {
    /// The token that `text`, which is not empty, begins with, and its length in bytes.
    fn first(text: &'a str) -> (Self, usize) {
        let length_while = |test: fn(char) -> bool| text.find(|c| !test(c)).unwrap_or(text.len());
        match text.chars().next() {
            Some('|') => (Self::Pipe, 1),
            Some('.') => (Self::Dot, 1),
            Some(quote @ ('"' | '\'')) => (Self::Other, string_length(text, quote)),
            Some(c) if c.is_whitespace() => (Self::Space, length_while(char::is_whitespace)),
            Some(c) if c.is_alphanumeric() || c == '_' => {
                let length = length_while(|c| c.is_alphanumeric() || c == '_');
                (Self::Word(&text[..length]), length)
            }
            Some(c) => (Self::Other, c.len_utf8()),
            None => (Self::Other, 0),
        }
    }
}

/// The length of the string literal that `text` begins with, quotes included.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return index + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

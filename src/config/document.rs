//! The text of definitions, apart from where it is kept.
//!
//! Definitions are the sections beside `[server] [log] [store] [zookeeper]`, which belong to one
//! member. What is told of a set as a whole, its version and the text that history keeps, is told of
//! the definitions alone: members on several hosts then have the same, whatever address each listens
//! on.

use std::fmt::Write as _;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::written::MAIN_FILE_SECTIONS;

/// How much of the digest of a set is shown: enough to tell a handful of them apart.
const VERSION_BYTES: usize = 6;

/// Stands in place of a text that may be a secret.
const HIDDEN: &str = "\"…\"";

/// A text of definitions, and what faults call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The file that it was read from, or the name that it was pushed under.
    pub name: String,
    /// TOML.
    pub text: String,
}

/// Whether this is a path below a directory, as documents are named.
pub fn is_document_name(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= 1_000 && name.split('/').all(is_part) && !name.contains(|c: char| c.is_control() || c == '\\')
}

/// The version of a set of documents: a short digest of what they say, whatever they are called. The
/// first one counts as such, since its `[defaults]` hold for all.
pub fn version_of(documents: &[Document]) -> String {
    version(documents.iter().map(|document| [document.text.as_str()]))
}

/// The version of a set, of which each document is given in pieces.
pub(super) fn version<'t, P: IntoIterator<Item = &'t str>>(documents: impl IntoIterator<Item = P>) -> String {
    let mut digests = documents.into_iter().map(|pieces| {
        let mut digest = Sha256::new();
        for piece in pieces {
            digest.update(piece);
        }
        digest.finalize()
    });
    let first = digests.next();
    let mut rest: Vec<_> = digests.collect();
    rest.sort_unstable();
    let mut digest = Sha256::new();
    for document in first.iter().chain(&rest) {
        digest.update(document);
    }
    digest.finalize().iter().take(VERSION_BYTES).fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The text of a file without the sections of the main file, in pieces. The file must be right TOML.
pub(super) fn definitions(text: &str) -> Vec<Range<usize>> {
    let mut kept: Vec<Range<usize>> = Vec::new();
    // What stands below a header belongs to it.
    let mut below_main_section = false;
    let mut at_root = true;
    for statement in Statements::of(text) {
        let of_main_section = MAIN_FILE_SECTIONS.contains(&statement.first_key);
        match statement.kind {
            Kind::Header => {
                at_root = false;
                below_main_section = of_main_section;
            }
            Kind::Value | Kind::End if at_root => below_main_section = of_main_section,
            Kind::Value | Kind::End => {}
        }
        if below_main_section {
            continue;
        }
        match kept.last_mut() {
            Some(last) if last.end == statement.range.start => last.end = statement.range.end,
            _ => kept.push(statement.range),
        }
    }
    kept
}

/// A text in `kept` pieces, with stars in place of what is `hidden`, both in their order.
pub(super) fn shown(text: &str, kept: &[Range<usize>], hidden: &[Range<usize>]) -> String {
    let mut shown = String::new();
    for piece in kept {
        let mut from = piece.start;
        for secret in hidden.iter().filter(|secret| secret.start >= piece.start && secret.end <= piece.end) {
            shown.push_str(&text[from..secret.start]);
            shown.push_str(HIDDEN);
            from = secret.end;
        }
        shown.push_str(&text[from..piece.end]);
    }
    shown
}

/// Where each statement begins, and whether its key or the header above it is one that `is_wanted`.
pub(super) fn topics(text: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<(usize, bool)> {
    let mut below = false;
    let topic = |statement: Statement<'_>| {
        let mut lines = text[statement.range.clone()].lines().map(str::trim_start);
        let own = lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let is_one = is_wanted(own.split_once('=').map_or(own, |(key, _)| key));
        if statement.kind == Kind::Header {
            below = is_one;
        }
        (statement.range.start, below || is_one)
    };
    Statements::of(text).map(topic).collect()
}

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[section]` or `[[section]]`.
    Header,
    /// `key = value`.
    Value,
    /// Comments and blank lines after the last statement.
    End,
}

/// A header or a value, with the comment right above it and all that is before.
#[derive(Debug, PartialEq, Eq)]
struct Statement<'t> {
    kind: Kind,
    /// The first part of its key.
    first_key: &'t str,
    range: Range<usize>,
}

/// The statements of a text, one after the other, without gaps.
struct Statements<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Statements<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the line that holds `at` ends, its line feed included.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |length| at + length + 1)
    }
}

impl<'t> Iterator for Statements<'t> {
    type Item = Statement<'t>;

    fn next(&mut self) -> Option<Statement<'t>> {
        let start = self.at;
        if start == self.text.len() {
            return None;
        }
        let mut at = start;
        loop {
            let line_end = self.line_end(at);
            let line = self.text[at..line_end].trim();
            if !line.is_empty() && !line.starts_with('#') {
                break;
            }
            at = line_end;
            if at == self.text.len() {
                self.at = at;
                return Some(Statement { kind: Kind::End, first_key: "", range: start..at });
            }
        }
        let indent = self.text[at..].len() - self.text[at..].trim_start().len();
        let key_at = at + indent;
        let is_header = self.text[key_at..].starts_with('[');
        self.at = if is_header { self.line_end(key_at) } else { value_end(self.text, key_at) };
        let key = self.text[key_at..self.at].trim_start_matches(['[', ' ', '\t']);
        let kind = if is_header { Kind::Header } else { Kind::Value };
        Some(Statement { kind, first_key: first_key(key), range: start..self.at })
    }
}

/// The first part of a dotted key, which may be quoted.
fn first_key(key: &str) -> &str {
    match key.chars().next() {
        Some(quote @ ('"' | '\'')) => key[1..].split(quote).next().unwrap_or_default(),
        _ => key.split(|c: char| c.is_whitespace() || ".=]".contains(c)).next().unwrap_or_default(),
    }
}

/// Where `key = value`, which begins at `start`, ends: at the end of a line that is in no text and in no
/// bracket.
fn value_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'\n' if depth == 0 => return at + 1,
            b'#' => {
                at += text[at..].find('\n').unwrap_or(bytes.len() - at);
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' | b'\'' => {
                at = text_end(text, at);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Where the text ends whose first quote is at `start`.
fn text_end(text: &str, start: usize) -> usize {
    let quote = &text[start..=start];
    let long = quote.repeat(3);
    let (open, close) = if text[start..].starts_with(&long) { (3, long.as_str()) } else { (1, quote) };
    let mut at = start + open;
    while at < text.len() {
        if quote == "\"" && text[at..].starts_with('\\') {
            // The escaped character may be of any length; its first byte is enough to leave it out.
            at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
        } else if open == 1 && text[at..].starts_with('\n') {
            // It is not closed: a short text has one line.
            return at;
        } else if text[at..].starts_with(close) {
            at += close.len();
            // A long text may end with up to two quotes of its own.
            while open == 3 && text[at..].starts_with(quote) {
                at += 1;
            }
            return at;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        shown(text, &definitions(text), &[])
    }

    #[test]
    fn the_sections_of_the_main_file_are_no_definitions() {
        let cases = [
            ("", ""),
            ("\n", "\n"),
            ("[server]\nlisten = \"x\"\n", ""),
            (
                "# above\n[server]\nlisten = \"x\"\n\n# the Airflow\n[airflow.main]\nurl = \"u\"\n",
                "\n# the Airflow\n[airflow.main]\nurl = \"u\"\n",
            ),
            (
                "include = [\n  \"a\", # ]\n  \"b\",\n]\nserver.listen = \"x\"\n[log]\nlevel = \"info\"",
                "include = [\n  \"a\", # ]\n  \"b\",\n]\n",
            ),
            ("[[server.token]]\nname = \"a\"\n[server . x]\n[\"server\"]\n[serverx]\na = 1\n", "[serverx]\na = 1\n"),
            ("store = { url = \"x\" }\ninclude = []\n", "include = []\n"),
            (
                "[[schedule]]\nconf = { text = '''\n[server]\n''' }\nserver = 1\n",
                "[[schedule]]\nconf = { text = '''\n[server]\n''' }\nserver = 1\n",
            ),
            (
                "[a]\nb = \"\"\"\n\\\"\"\"[log]\n\"\"\"\"\"\n[log]\nlevel = \"x\"\n[c]\n",
                "[a]\nb = \"\"\"\n\\\"\"\"[log]\n\"\"\"\"\"\n[c]\n",
            ),
            ("[a]\nb = \"ä\\\\\" # [log]\n[log]\n# the end\n", "[a]\nb = \"ä\\\\\" # [log]\n"),
            ("# only\n", "# only\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(kept(text), expected, "{text}");
            assert_eq!(kept(&kept(text)), kept(text), "{text}");
        }
    }

    #[test]
    fn what_is_hidden_is_not_kept() {
        let text = "[server]\na = \"one\"\n[b]\nc = \"two\"\nd = 'three'\n";
        let span = |word: &str| {
            let at = text.find(word).unwrap();
            at - 1..at + word.len() + 1
        };
        assert_eq!(
            shown(text, &definitions(text), &[span("one"), span("two"), span("three")]),
            "[b]\nc = \"…\"\nd = \"…\"\n"
        );
    }

    #[test]
    fn the_version_is_that_of_the_texts_with_the_first_one_first() {
        let set = |texts: &[&str]| -> Vec<Document> {
            texts
                .iter()
                .enumerate()
                .map(|(n, text)| Document { name: n.to_string(), text: (*text).to_owned() })
                .collect()
        };
        let version = |texts: &[&str]| version_of(&set(texts));
        assert_eq!(version(&["a", "b", "c"]), version(&["a", "c", "b"]));
        assert_ne!(version(&["a", "b"]), version(&["b", "a"]));
        assert_ne!(version(&["ab"]), version(&["a", "b"]));
        assert_ne!(version(&[]), version(&[""]));
        assert_eq!(version(&["a"]).len(), 2 * VERSION_BYTES);
    }
}

//! A file's text, and the places in it that faults are about.
//!
//! Offsets are turned into lines by binary search and only when there is a fault. Lines that are
//! shown lose what may be a secret: people do write passwords where a place is wanted.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::document;
use super::fault::{Excerpt, Fault, Severity};
use super::guard::Guard;

/// The longest part of a line that is shown, in characters.
const EXCERPT_CHARACTERS: usize = 160;

/// A file as it was read, and the environment variables that override values in it.
#[derive(Debug)]
pub(super) struct Source {
    /// The file as faults name it.
    pub(super) name: String,
    /// Its text, without a byte order mark.
    pub(super) text: String,
    /// Where relative paths in it start from.
    pub(super) directory: PathBuf,
    /// Of a text that was pushed, what it may have a member do.
    pub(super) guard: Option<Rc<Guard>>,
    /// Parts of the text that may be secret, and are not kept with a version.
    hidden: RefCell<Vec<Range<usize>>>,
    /// Variables whose values stand in the document, at the offsets after the end of the text.
    pub(super) overrides: Vec<String>,
    line_starts: OnceCell<Vec<usize>>,
    /// Where each statement begins, and whether it speaks of secrets.
    topics: OnceCell<Vec<(usize, bool)>>,
}

impl Source {
    /// A file; paths in it are relative to where it is.
    pub(super) fn new(name: String, text: String) -> Self {
        let directory = directory_of(&name);
        Self {
            name,
            text,
            directory,
            guard: None,
            hidden: RefCell::default(),
            overrides: Vec::new(),
            line_starts: OnceCell::new(),
            topics: OnceCell::new(),
        }
    }

    /// A text that was pushed; paths in it are relative to `directory`.
    pub(super) fn pushed(name: String, text: String, directory: PathBuf, guard: Rc<Guard>) -> Self {
        Self { directory, guard: Some(guard), ..Self::new(name, text) }
    }

    /// Whether it is a text that was pushed, and so can be read by others than this host's.
    pub(super) fn is_pushed(&self) -> bool {
        self.guard.is_some()
    }

    /// Notes that what stands here may be a secret.
    pub(super) fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// The parts of the text that may be secret, in their order. Values of variables are none of it.
    pub(super) fn hidden(&self) -> Vec<Range<usize>> {
        let mut hidden: Vec<_> =
            self.hidden.borrow().iter().filter(|span| span.end <= self.text.len()).cloned().collect();
        hidden.sort_by_key(|span| span.start);
        hidden.dedup();
        hidden
    }

    /// The place that the value of a variable has in the document.
    pub(super) fn add_override(&mut self, variable: &str) -> Range<usize> {
        // Two offsets for each: one for its value, one for the tables that are added around it.
        let start = self.text.len() + 1 + 2 * self.overrides.len();
        self.overrides.push(variable.to_owned());
        start..start + 1
    }

    /// The variable whose value stands at this place.
    pub(super) fn override_at(&self, span: &Range<usize>) -> Option<&str> {
        let offset = span.start.checked_sub(self.text.len() + 1)?;
        self.overrides.get(offset / 2).map(String::as_str)
    }

    /// Line and column in characters, both from 1, and the offset at which the line begins.
    pub(super) fn position(&self, offset: usize) -> (usize, usize, usize) {
        let starts = self.line_starts.get_or_init(|| {
            std::iter::once(0)
                .chain(self.text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1))
                .collect()
        });
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = starts.partition_point(|start| *start <= offset);
        let start = starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line, self.text[start..offset].chars().count() + 1, start)
    }

    /// Whether the value that this is a line of, or the section, speaks of secrets.
    fn speaks_of_secrets(&self, offset: usize) -> bool {
        let topics = self.topics.get_or_init(|| document::topics(&self.text, speaks_of_secrets));
        let after = topics.partition_point(|(start, _)| *start <= offset);
        after.checked_sub(1).is_some_and(|at| topics[at].1)
    }

    /// `file:line`, for texts that name a second place.
    pub(super) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, self.position(offset).0)
    }

    /// A fault at a place in this file.
    pub(super) fn fault(
        &self,
        span: Range<usize>,
        key: String,
        severity: Severity,
        message: String,
        hint: String,
    ) -> Fault {
        if let Some(variable) = self.override_at(&span) {
            return Fault { severity, ..Fault::without_place(variable, key, message, hint) };
        }
        let (line, column, start) = self.position(span.start);
        let text = self.text[start..].lines().next().unwrap_or_default();
        let end = self.text.floor_char_boundary(span.end.clamp(span.start.min(self.text.len()), self.text.len()));
        let width =
            self.text.get(span.start..end).map_or(1, |meant| meant.lines().next().unwrap_or_default().chars().count());
        let excerpt = (column <= EXCERPT_CHARACTERS).then(|| Excerpt {
            text: without_secrets(text, self.speaks_of_secrets(start)).chars().take(EXCERPT_CHARACTERS).collect(),
            width: width.clamp(1, EXCERPT_CHARACTERS),
        });
        Fault { line, column, severity, excerpt, ..Fault::without_place(self.name.as_str(), key, message, hint) }
    }
}

/// The directory that relative paths in a file start from.
pub(super) fn directory_of(file: &str) -> PathBuf {
    Path::new(file).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Where faults are gathered.
#[derive(Debug, Default)]
pub(super) struct Sink(RefCell<Vec<Fault>>);

impl Sink {
    pub(super) fn push(&self, fault: Fault) {
        self.0.borrow_mut().push(fault);
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Forgets what was found since there were `length` faults.
    pub(super) fn truncate(&self, length: usize) {
        self.0.borrow_mut().truncate(length);
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// Words in the name of a key whose value may be a secret.
const SENSITIVE: [&str; 8] = ["pass", "pwd", "token", "secret", "credential", "auth", "header", "value"];

/// Keys that people misspell, and what stands beside is shown with the fault.
const OFTEN_MISSPELT: [&str; 8] =
    ["credential", "credentials", "headers", "passwd", "password", "secret", "token", "client_secret"];

/// How many letters of a longer word may be wrong, and of one with up to six.
const MISSPELT_LETTERS: (usize, usize) = (2, 1);

/// Whether these words are about a secret.
fn speaks_of_secrets(words: &str) -> bool {
    let lower = words.to_lowercase();
    let is_nearly = |word: &str, known: &&str| {
        let (longer, shorter) = MISSPELT_LETTERS;
        strsim::osa_distance(word, known) <= if known.len() > 6 { longer } else { shorter }
    };
    SENSITIVE.iter().any(|word| lower.contains(word))
        || lower
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word.len() > 3 && OFTEN_MISSPELT.iter().any(|known| is_nearly(word, known)))
}

/// The line with stars in place of what may be a secret: texts on a line that speaks of secrets, or stands
/// where others are (but for the names after `env` and `file`), and what stands before an `@`. Every
/// character keeps its column.
fn without_secrets(line: &str, among_secrets: bool) -> String {
    let mut shown: Vec<char> = line.chars().collect();
    let is_header = line.trim_start().starts_with('[') && !line.contains(['=', '"', '\'']);
    if (among_secrets || speaks_of_secrets(line)) && !is_header {
        hide_values(&mut shown);
    }
    hide_url_credentials(&mut shown);
    shown.into_iter().collect()
}

/// Keys on a line that speaks of secrets whose values are none.
const HARMLESS: [&str; 16] = [
    "env",
    "file",
    "username",
    "url",
    "token_url",
    "client_id",
    "name",
    "role",
    "team",
    "scheme",
    "mechanism",
    "ttl",
    "ca",
    "cert",
    "key",
    "connect",
];

/// Hides every value on the line but those of harmless keys. Braces, brackets and commas stay.
fn hide_values(line: &mut [char]) {
    let mut word = String::new();
    // A line without a key continues a value that began above it.
    let mut in_value = !has_key(line);
    let mut harmless = false;
    let mut index = 0;
    while index < line.len() {
        match line[index] {
            '=' if !in_value => {
                in_value = true;
                harmless = HARMLESS.contains(&word.as_str());
            }
            '{' | '}' => {
                in_value = false;
                word.clear();
            }
            quote @ ('"' | '\'') => {
                let end = (index + 1..line.len()).find(|at| line[*at] == quote).unwrap_or(line.len());
                if in_value && !harmless {
                    line[index + 1..end].fill('*');
                }
                index = end;
            }
            ',' => {
                // After a comma comes the next key of a table, or the next item of an array.
                in_value = line[index..].iter().find(|c| matches!(c, '=' | ']' | '}')).is_some_and(|c| *c == ']');
                word.clear();
            }
            c if c.is_whitespace() || matches!(c, '[' | ']') => {}
            _ if in_value && !harmless => line[index] = '*',
            c if !in_value => word.push(c),
            _ => {}
        }
        index += 1;
    }
}

/// Whether there is an `=` outside of texts.
fn has_key(line: &[char]) -> bool {
    let mut quote = None;
    line.iter().any(|c| {
        match quote {
            Some(open) if open == *c => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(*c),
            _ => {}
        }
        quote.is_none() && *c == '='
    })
}

/// Hides `user:password` of `scheme://user:password@host`, also where the scheme was forgotten, and the
/// parameter `password`. Passwords that were not encoded may hold any character.
fn hide_url_credentials(line: &mut [char]) {
    for at in (0..line.len()).filter(|at| line[*at] == '@').collect::<Vec<_>>() {
        let quote = line[..at].iter().rposition(|c| "\"'".contains(*c));
        let start = quote.or_else(|| line[..at].iter().rposition(|c| c.is_whitespace())).map_or(0, |before| before + 1);
        let scheme_end = line[start..at].windows(3).position(|c| c == [':', '/', '/']).map(|scheme| start + scheme + 3);
        line[scheme_end.unwrap_or(start)..at].fill('*');
    }
    let starts: Vec<usize> =
        (0..line.len().saturating_sub(2)).filter(|i| line[*i..*i + 3] == [':', '/', '/']).map(|i| i + 3).collect();
    let parameter: Vec<char> = "password=".chars().collect();
    for start in starts {
        let end = (start..line.len()).find(|at| "\"' ".contains(line[*at])).unwrap_or(line.len());
        for found in (start..end).filter(|at| line[*at..end].starts_with(&parameter)).collect::<Vec<_>>() {
            let value = found + parameter.len();
            let after = (value..end).find(|at| line[*at] == '&').unwrap_or(end);
            line[value..after].fill('*');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_without_secrets() {
        let cases = [
            (r#"listen = "127.0.0.1:1""#, r#"listen = "127.0.0.1:1""#),
            (r#"password = "hunter2""#, r#"password = "*******""#),
            ("password = hunter2", "password = *******"),
            ("pasword = 'hunter2'", "pasword = '*******'"),
            ("tokne = 'hunter2'", "tokne = '*******'"),
            ("owner = 'platform'", "owner = 'platform'"),
            (r#"url = "me:pw@host:8080""#, r#"url = "*****@host:8080""#),
            (r#"connect = "me:p,w@a:2181,b@c""#, r#"connect = "***************@c""#),
            (r#"cron = "@dayly""#, r#"cron = "@dayly""#),
            (r#"auth = { username = "u", passwrd = "hunter2" }"#, r#"auth = { username = "u", passwrd = "*******" }"#),
            (r#"auth = { password = { env = "NAME" } }"#, r#"auth = { password = { env = "NAME" } }"#),
            (r#"headers = { "X-Key" = "abc", B = "def" }"#, r#"headers = { "X-Key" = "***", B = "***" }"#),
            (r#"url = "http://me:pw@host/x""#, r#"url = "http://*****@host/x""#),
            (r#"url = "postgres://me:p/w@db/x?a=b""#, r#"url = "postgres://******@db/x?a=b""#),
            (r#"url = "postgres://db/x?password=pw&user=me""#, r#"url = "postgres://db/x?password=**&user=me""#),
            (r#"token = "unclosed"#, r#"token = "********"#),
            ("[[server.token]]", "[[server.token]]"),
            (r#"auth = { command = ["a", "hunter2"] }"#, r#"auth = { command = ["*", "*******"] }"#),
            ("auth = { username = \"u\", password = hunter2 }", "auth = { username = \"u\", password = ******* }"),
        ];
        for (line, shown) in cases {
            assert_eq!(without_secrets(line, false), shown);
        }
        assert_eq!(without_secrets(r#""X-Key" = "hunter2""#, true), r#""X-Key" = "*******""#);
        assert_eq!(without_secrets(r#"  "--key=hunter2","#, true), r#"  "*************","#);
    }

    #[test]
    fn places_count_characters() {
        let source = Source::new("f".into(), "ä = 1\n  bö = 2\n".into());
        assert_eq!(source.position(0), (1, 1, 0));
        assert_eq!(source.position(7), (2, 1, 7));
        assert_eq!(source.position(source.text.find('2').expect("is there")).1, 8);
        assert_eq!(source.position(usize::MAX).0, 3);
    }
}

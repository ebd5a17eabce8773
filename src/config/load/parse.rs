//! From the text of a file to its tables: at once, or a large one in parts.
//!
//! A large file is parsed in parts, each beginning at a `[[schedule]]`, so that the parsed form of
//! a hundred thousand schedules is never in memory at once. Where a part alone is not what it is in
//! the whole (a header inside of a text, a section between the schedules) the file is parsed whole.

use std::ops::Range;

use toml::de::DeTable;

use super::super::fault::Severity;
use super::super::overrides::{self, Override};
use super::super::source::Source;
use super::{Includes, Loader};

/// How many schedules are parsed at once.
const SCHEDULES_A_PART: usize = 2_000;

/// How many faults of syntax are told of one file: after the first, more and more follow from it.
const SYNTAX_FAULTS_TOLD: usize = 20;
/// A part of a file as it was parsed, and where it begins.
pub(super) struct Parsed<'i> {
    pub(super) base: usize,
    pub(super) table: DeTable<'i>,
}

impl Loader<'_> {
    /// Checks a source; what it includes.
    pub(super) fn source(&mut self, index: usize, source: &Source, overrides: &[Override<'_>]) -> Includes {
        let marks = (self.sink.len(), self.drafts.len(), self.syncs.len());
        self.in_parts(index, source, overrides).unwrap_or_else(|| {
            // Nothing of the attempt in parts stays.
            self.sink.truncate(marks.0);
            self.drafts.truncate(marks.1);
            self.syncs.truncate(marks.2);
            self.airflows.retain(|_, (_, (file, _))| *file != index);
            self.ensembles.retain(|_, (_, (file, _))| *file != index);
            self.teams.retain(|_, (_, (file, _))| *file != index);
            self.whole(index, source, overrides)
        })
    }
    /// Reads a file at once.
    fn whole(&mut self, index: usize, source: &Source, overrides: &[Override<'_>]) -> Includes {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            self.incomplete = true;
            self.syntax_faults(source, &errors);
            // What a recovering parser makes of the rest is a guess, and so would be its faults.
            return Vec::new();
        }
        let mut document = Parsed { base: 0, table: table.into_inner() };
        overrides::apply(&mut document.table, overrides, source, &self.sink);
        let (defaults, includes) = self.sections(index, source, &[&document]);
        self.schedules(index, source, &document, &defaults);
        includes
    }

    fn syntax_faults(&self, source: &Source, errors: &[toml::de::Error]) {
        let mut told: Vec<(Range<usize>, &str)> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        told.sort_by_key(|(span, _)| span.start);
        told.dedup_by_key(|(span, _)| source.position(span.start).0);
        for (span, message) in told.into_iter().take(SYNTAX_FAULTS_TOLD) {
            let (message, hint) = match message {
                message if message.starts_with("duplicate key") => {
                    (message, "a key stands once in a table: take one of them out")
                }
                message if message.starts_with("string values must be quoted") && span.is_empty() => {
                    ("the value is missing", "write it after the `=`")
                }
                message if message.starts_with("string values must be quoted") => {
                    ("a text must be quoted", "put it in quotes")
                }
                message => (message, "correct the TOML here; https://toml.io has the rules"),
            };
            self.sink.push(source.fault(span, String::new(), Severity::Error, message.to_owned(), hint.to_owned()));
        }
    }

    /// Reads a large file in parts; `None` where that cannot be done faithfully.
    fn in_parts(&mut self, index: usize, source: &Source, overrides: &[Override<'_>]) -> Option<Includes> {
        let parts = split(&source.text);
        let (last, parts) = parts.split_last()?;
        let (first, middle) = parts.split_first()?;
        let mut first = parse(source, first)?;
        overrides::apply(&mut first.table, overrides, source, &self.sink);
        let last = parse(source, last)?;
        // The same section in both is one that is written twice, or one that a variable adds to.
        if last.table.keys().any(|key| key.get_ref() != "schedule" && first.table.contains_key(key.get_ref().as_ref()))
        {
            return None;
        }
        let (defaults, includes) = self.sections(index, source, &[&first, &last]);
        self.schedules(index, source, &first, &defaults);
        for part in middle {
            let document = parse(source, part)?;
            if document.table.keys().any(|key| key.get_ref() != "schedule") {
                return None;
            }
            self.schedules(index, source, &document, &defaults);
        }
        self.schedules(index, source, &last, &defaults);
        Some(includes)
    }
}

/// Where the parts of a text begin and end: each has so many schedules, and there is one part only
/// for a text that has fewer.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut schedules = 0;
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("[[schedule]]") {
            if schedules == SCHEDULES_A_PART {
                starts.push(line_start);
                schedules = 0;
            }
            schedules += 1;
        }
        line_start += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| *start..end).collect()
}

/// A part that is right TOML by itself.
fn parse<'i>(source: &'i Source, part: &Range<usize>) -> Option<Parsed<'i>> {
    let table = DeTable::parse(&source.text[part.clone()]).ok()?;
    Some(Parsed { base: part.start, table: table.into_inner() })
}

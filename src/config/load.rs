//! Files: reading them, following `include`, and going through what is in them.
//!
//! A large file is parsed in parts, each beginning at a `[[schedule]]`, so that the parsed form of
//! a hundred thousand schedules is never in memory at once. Where a part alone is not what it is in
//! the whole (a header inside of a text, a section between the schedules) the file is parsed whole.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checks::{self, Draft, ScheduleDefaults, Shared};
use super::environment::Environment;
use super::fault::{Fault, Severity};
use super::files::{self, ReadProblem};
use super::model::{Airflow, Ensemble, Log, Server, Store, ZooKeeper};
use super::overrides;
use super::reference;
use super::section::Section;
use super::source::{Sink, Source};
use super::text;
use super::written::{MAIN_FILE_SECTIONS, SECTIONS, SECTIONS_TO_COME};

/// How many schedules are parsed at once.
const SCHEDULES_A_PART: usize = 2_000;

/// How many faults of syntax are told of one file: after the first, more and more follow from it.
const SYNTAX_FAULTS_TOLD: usize = 20;

/// A place: which file, and where in it.
pub(super) type Origin = (usize, Range<usize>);

/// Everything that has been read so far.
pub(super) struct Loader<'a> {
    environment: &'a Environment,
    pub(super) sink: Sink,
    pub(super) sources: Vec<Rc<Source>>,
    /// Files that have been read, by their real path.
    seen: HashSet<PathBuf>,
    /// The files that include each other down to the one that is being read.
    including: Vec<PathBuf>,
    pub(super) shared: Shared,
    pub(super) main: MainSections,
    main_defaults: ScheduleDefaults,
    pub(super) airflows: BTreeMap<Arc<str>, (Airflow, Origin)>,
    pub(super) ensembles: BTreeMap<Arc<str>, (Ensemble, Origin)>,
    /// Checked schedules, and the file of each.
    pub(super) drafts: Vec<(usize, Draft)>,
    /// Whether a file could not be understood: what seems to be missing may be in it.
    pub(super) incomplete: bool,
}

/// The sections of the main file.
#[derive(Default)]
pub(super) struct MainSections {
    pub(super) server: Option<Server>,
    pub(super) log: Option<Log>,
    pub(super) store: Option<Store>,
    pub(super) zookeeper: Option<ZooKeeper>,
}

/// A part of a file as it was parsed, and where it begins.
struct Document<'i> {
    base: usize,
    table: DeTable<'i>,
}

/// What is to be read after a file.
type Includes = Vec<(PathBuf, Origin)>;

impl<'a> Loader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            sink: Sink::default(),
            sources: Vec::new(),
            seen: HashSet::new(),
            including: Vec::new(),
            shared: Shared::default(),
            main: MainSections::default(),
            main_defaults: ScheduleDefaults::default(),
            airflows: BTreeMap::new(),
            ensembles: BTreeMap::new(),
            drafts: Vec::new(),
            incomplete: false,
        }
    }

    /// Reads the main file and everything that it includes.
    pub(super) fn load(&mut self, main: &Path) {
        self.file(main, None);
    }

    /// Reads a file; `named_at` is where another one includes it.
    fn file(&mut self, path: &Path, named_at: Option<&Origin>) {
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        // Several files, or several globs, may name it.
        if self.seen.contains(&real) {
            return;
        }
        let (text, problem) = files::read(path);
        let index = self.sources.len();
        let mut source = Source::new(path.display().to_string(), text);
        if let Some(problem) = problem {
            self.incomplete = true;
            self.unreadable(&source, problem, named_at);
            self.sources.push(Rc::new(source));
            return;
        }
        self.seen.insert(real.clone());
        self.including.push(real);
        let overrides = if index == 0 { overrides::collect(self.environment, &mut source) } else { Vec::new() };
        let source = Rc::new(source);
        self.sources.push(Rc::clone(&source));

        let marks = (self.sink.len(), self.drafts.len());
        let includes = self.in_parts(index, &source, &overrides).unwrap_or_else(|| {
            // Nothing of the attempt in parts stays.
            self.sink.truncate(marks.0);
            self.drafts.truncate(marks.1);
            self.airflows.retain(|_, (_, (file, _))| *file != index);
            self.ensembles.retain(|_, (_, (file, _))| *file != index);
            self.whole(index, &source, &overrides)
        });
        for (path, named_at) in includes {
            self.file(&path, Some(&named_at));
        }
        self.including.pop();
    }

    fn unreadable(&self, source: &Source, problem: ReadProblem, named_at: Option<&Origin>) {
        match (problem, named_at) {
            (ReadProblem::NotText { valid_up_to, hint }, _) => self.sink.push(source.fault(
                valid_up_to..valid_up_to,
                String::new(),
                Severity::Error,
                "the file is not UTF-8 from here on".to_owned(),
                hint,
            )),
            (ReadProblem::Unreadable { message, .. }, Some((including, span))) => {
                self.sink.push(self.sources[*including].fault(
                    span.clone(),
                    "include".to_owned(),
                    Severity::Error,
                    format!("{} {message}", source.name),
                    "paths are relative to the file that names them".to_owned(),
                ));
            }
            (ReadProblem::Unreadable { message, hint }, None) => {
                let fault = source.fault(0..0, String::new(), Severity::Error, format!("the file {message}"), hint);
                self.sink.push(Fault { line: 0, column: 0, excerpt: None, ..fault });
            }
        }
    }

    /// Reads a file at once.
    fn whole(&mut self, index: usize, source: &Source, overrides: &[overrides::Override<'_>]) -> Includes {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            self.incomplete = true;
            self.syntax_faults(source, &errors);
            // What a recovering parser makes of the rest is a guess, and so would be its faults.
            return Vec::new();
        }
        let mut document = Document { base: 0, table: table.into_inner() };
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
    fn in_parts(&mut self, index: usize, source: &Source, overrides: &[overrides::Override<'_>]) -> Option<Includes> {
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

    /// Checks every section but the schedules.
    fn sections(&mut self, index: usize, source: &Source, documents: &[&Document<'_>]) -> (ScheduleDefaults, Includes) {
        let is_main = index == 0;
        for document in documents {
            self.unknown_sections(source, document, is_main);
        }
        let find = |name: &str| {
            documents.iter().find_map(|document| document.table.get(name).map(|value| (document.base, value)))
        };
        let sink = std::mem::take(&mut self.sink);
        let section = |name: &'static str| find(name).and_then(|(base, value)| table(source, &sink, base, name, value));
        if is_main {
            self.main.server = Some(checks::server(section("server").as_ref()));
            self.main.log = Some(checks::log(section("log").as_ref()));
            self.main.store = Some(checks::store(section("store").as_ref(), &source.name));
            self.main.zookeeper = section("zookeeper").as_ref().map(checks::zookeeper);
        }
        let home = self.main.zookeeper.is_some();
        if let Some(named) = section("airflow") {
            for (name, span, key, value) in names(&named) {
                let Some(section) = table(source, &sink, named.base, &key, value) else { continue };
                let name = self.shared.name(name);
                let airflow = checks::airflow(&section, &name);
                if let Some((_, first)) = self.airflows.get(&name) {
                    twice(&section, &self.sources, first);
                } else {
                    self.airflows.insert(name, (airflow, (index, span)));
                }
            }
        }
        if let Some(named) = section("ensemble") {
            for (name, span, key, value) in names(&named) {
                let Some(section) = table(source, &sink, named.base, &key, value) else { continue };
                let name = self.shared.name(name);
                let ensemble = checks::ensemble(&section, &name, home || self.incomplete);
                if let Some((_, first)) = self.ensembles.get(&name) {
                    twice(&section, &self.sources, first);
                } else {
                    self.ensembles.insert(name, (ensemble, (index, span)));
                }
            }
        }
        let own = section("defaults").map(|section| checks::defaults(&section, &mut self.shared)).unwrap_or_default();
        let defaults = own.over(&self.main_defaults);
        let includes = find("include").map(|(base, value)| (base, value.clone()));
        self.sink = sink;
        if is_main {
            self.main_defaults = defaults.clone();
        }
        let includes = includes.map(|(base, value)| self.includes(index, source, base, &value)).unwrap_or_default();
        (defaults, includes)
    }

    fn unknown_sections(&self, source: &Source, document: &Document<'_>, is_main: bool) {
        let section =
            Section { source, sink: &self.sink, base: document.base, key: "", table: &document.table, header: 0..0 };
        for (key, value) in &document.table {
            let name = key.get_ref().as_ref();
            let (message, hint) = if let Some((_, what)) = SECTIONS_TO_COME.iter().find(|(known, _)| *known == name) {
                (
                    format!("`{name}` ({what}) is not supported yet by this version of flowkeeper"),
                    "take it out".to_owned(),
                )
            } else if !SECTIONS.contains(&name) && value.get_ref().as_table().is_none() {
                let hint = match reference::sections_with(name).as_slice() {
                    [] => text::did_you_mean(name, &SECTIONS, "known sections"),
                    sections => format!("put it below {}", sections.join(" or ")),
                };
                (format!("unknown key `{name}` outside of a section"), hint)
            } else if !SECTIONS.contains(&name) {
                (format!("unknown section `{name}`"), text::did_you_mean(name, &SECTIONS, "known sections"))
            } else if !is_main && MAIN_FILE_SECTIONS.contains(&name) {
                (
                    format!("`{name}` belongs in the main file"),
                    format!("move it to {}", self.sources.first().map_or("the main file", |main| &main.name)),
                )
            } else {
                continue;
            };
            let span = section.key_span(name);
            self.sink.push(source.fault(span, name.to_owned(), Severity::Error, message, hint));
        }
    }

    /// The files that `include` names.
    fn includes(&self, index: usize, source: &Source, base: usize, value: &Spanned<DeValue<'_>>) -> Includes {
        let fault = |span: Range<usize>, severity, message: String, hint: &str| {
            let span = span.start + base..span.end + base;
            self.sink.push(source.fault(span, "include".to_owned(), severity, message, hint.to_owned()));
        };
        let Some(patterns) = value.get_ref().as_array() else {
            fault(value.span(), Severity::Error, "expected an array of paths".into(), "write [\"schedules/*.toml\"]");
            return Vec::new();
        };
        let directory = checks::directory_of(&source.name);
        let mut includes = Vec::new();
        for pattern in patterns {
            let Some(written) = pattern.get_ref().as_str() else {
                fault(pattern.span(), Severity::Error, "expected a path or a glob".into(), "put it in quotes");
                continue;
            };
            let span = pattern.span().start + base..pattern.span().end + base;
            match files::expand(&directory, written) {
                Err(problem) => fault(
                    pattern.span(),
                    Severity::Error,
                    format!("\"{written}\" {problem}"),
                    "write a path, or a glob such as \"schedules/*.toml\"",
                ),
                Ok(files::Expanded::One(path)) => {
                    let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
                    if self.is_being_read(&real) {
                        fault(
                            pattern.span(),
                            Severity::Error,
                            format!("\"{written}\" includes itself"),
                            "take it out: a file is read once",
                        );
                    } else if !self.seen.contains(&real) {
                        includes.push((path, (index, span)));
                    }
                }
                Ok(files::Expanded::Many(paths)) => {
                    if paths.is_empty() {
                        fault(
                            pattern.span(),
                            Severity::Warning,
                            format!("no file matches \"{written}\""),
                            "paths are relative to the file that names them",
                        );
                    }
                    // A glob may well match the file that it stands in.
                    let unread = paths.into_iter().filter(|path| {
                        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                        !self.is_being_read(&real) && !self.seen.contains(&real)
                    });
                    includes.extend(unread.map(|path| (path, (index, span.clone()))));
                }
            }
        }
        includes
    }

    fn is_being_read(&self, real: &Path) -> bool {
        self.including.iter().any(|file| file == real)
    }

    /// Checks the schedules of a part.
    fn schedules(&mut self, index: usize, source: &Source, document: &Document<'_>, defaults: &ScheduleDefaults) {
        let Some(value) = document.table.get("schedule") else { return };
        let fault = |span: Range<usize>| {
            self.sink.push(source.fault(
                span.start + document.base..span.end + document.base,
                "schedule".to_owned(),
                Severity::Error,
                "schedules are written as [[schedule]]".to_owned(),
                "put two brackets around the header of each schedule".to_owned(),
            ));
        };
        let Some(items) = value.get_ref().as_array() else { return fault(value.span()) };
        for item in items {
            let Some(table) = item.get_ref().as_table() else {
                fault(item.span());
                continue;
            };
            let section =
                Section { source, sink: &self.sink, base: document.base, key: "schedule", table, header: item.span() };
            if let Some(draft) = checks::schedule(&section, defaults, &mut self.shared) {
                self.drafts.push((index, draft));
            }
        }
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
fn parse<'i>(source: &'i Source, part: &Range<usize>) -> Option<Document<'i>> {
    let table = DeTable::parse(&source.text[part.clone()]).ok()?;
    Some(Document { base: part.start, table: table.into_inner() })
}

/// The section that a value is, which should be a table.
fn table<'a, 'i>(
    source: &'a Source,
    sink: &'a Sink,
    base: usize,
    key: &'a str,
    value: &'a Spanned<DeValue<'i>>,
) -> Option<Section<'a, 'i>> {
    let span = value.span();
    if let Some(table) = value.get_ref().as_table() {
        return Some(Section { source, sink, base, key, table, header: span });
    }
    let message = format!("`{key}` is a section");
    let hint = format!("write [{key}], and its keys below");
    sink.push(source.fault(span.start + base..span.end + base, key.to_owned(), Severity::Error, message, hint));
    None
}

/// A named section's name, its place, its dotted key and its value.
type Named<'a, 'i> = (&'a str, Range<usize>, String, &'a Spanned<DeValue<'i>>);

/// The sections below `[airflow]` or `[ensemble]`, those with illegal names left out.
fn names<'a, 'i>(section: &Section<'a, 'i>) -> Vec<Named<'a, 'i>> {
    let table = section.table;
    table
        .iter()
        .filter_map(|(key, value)| {
            let name = key.get_ref().as_ref();
            let dotted = format!("{}.{name}", section.key);
            if value.get_ref().as_table().is_none() {
                let span = section.key_span(name);
                section.sink.push(section.source.fault(
                    span,
                    dotted,
                    Severity::Error,
                    format!("`{name}` stands outside of a named section"),
                    format!("give it a name and put its keys below: [{}.main]", section.key),
                ));
                return None;
            }
            if !checks::is_name(name) {
                let span = section.key_span(name);
                section.sink.push(section.source.fault(
                    span,
                    dotted,
                    Severity::Error,
                    format!("\"{name}\" is not a name for a section"),
                    "use lower-case letters, digits, `-` and `_`, at most 64".to_owned(),
                ));
                return None;
            }
            Some((name, section.key_span(name), dotted, value))
        })
        .collect()
}

fn twice(section: &Section<'_, '_>, sources: &[Rc<Source>], first: &Origin) {
    section.error(
        &[],
        format!("[{}] is there twice", section.key),
        format!("the other one is at {}; rename one of them", sources[first.0].place(first.1.start)),
    );
}

//! Files: reading them, following `include`, and going through what is in them.
//!
//! A large file is parsed in parts, each beginning at a `[[schedule]]`, so that the parsed form of
//! a hundred thousand schedules is never in memory at once. Where a part alone is not what it is in
//! the whole (a header inside of a text, a section between the schedules) the file is parsed whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checks::{self, Draft, ScheduleDefaults, Shared, SyncDraft};
use super::document::{self, Document};
use super::environment::Environment;
use super::fault::{Fault, Severity};
use super::files::{self, Places, ReadProblem};
use super::model::{Airflow, DefinitionsSource, Ensemble, Log, Server, Store, ZooKeeper};
use super::overrides;
use super::reference;
use super::section::Section;
use super::source::{Sink, Source, directory_of};
use super::text;
use super::written::{MAIN_FILE_SECTIONS, SECTIONS, SECTIONS_TO_COME};
use crate::domain::team::Team;

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
    /// The source whose `[defaults]` are those of all: the main file, or the first document.
    first: usize,
    /// The names of the documents that were pushed together; none where definitions are files.
    pushed: Vec<String>,
    pub(super) airflows: BTreeMap<Arc<str>, (Airflow, Origin)>,
    pub(super) ensembles: BTreeMap<Arc<str>, (Ensemble, Origin)>,
    pub(super) teams: BTreeMap<Arc<str>, (Arc<Team>, Origin)>,
    /// The globs that were looked for, each with the directory that it is relative to.
    globs: RefCell<Vec<(PathBuf, String)>>,
    /// Checked schedules, and the file of each.
    pub(super) drafts: Vec<(usize, Draft)>,
    /// Checked syncs, and the file of each.
    pub(super) syncs: Vec<(usize, SyncDraft)>,
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
    /// The teams that tokens name: which token, and where in the main file.
    pub(super) token_teams: Vec<(usize, String, Range<usize>)>,
}

/// A part of a file as it was parsed, and where it begins.
struct Parsed<'i> {
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
            first: 0,
            pushed: Vec::new(),
            airflows: BTreeMap::new(),
            ensembles: BTreeMap::new(),
            teams: BTreeMap::new(),
            globs: RefCell::default(),
            drafts: Vec::new(),
            syncs: Vec::new(),
            incomplete: false,
        }
    }

    /// Where it has read.
    pub(super) fn places(&self) -> Places {
        let files = self.sources.iter().map(|source| PathBuf::from(&source.name)).collect();
        Places { files, globs: self.globs.take() }
    }

    /// Reads the main file and everything that it includes.
    pub(super) fn load(&mut self, main: &Path) {
        self.file(main, None);
    }

    /// Reads documents that were pushed as one set, after the main file. Paths in them are relative to
    /// the directory of that.
    pub(super) fn load_documents(&mut self, main: &Path, documents: &[Document]) {
        let directory = directory_of(&main.display().to_string());
        self.first = self.sources.len();
        self.pushed = documents.iter().map(|document| document.name.clone()).collect();
        for document in documents {
            let index = self.sources.len();
            let source = Source::pushed(document.name.clone(), document.text.clone(), directory.clone());
            let source = Rc::new(source);
            self.sources.push(Rc::clone(&source));
            self.source(index, &source, &[]);
        }
    }

    /// Whether the definitions have been read: those that are in ZooKeeper may not be at hand.
    pub(super) fn has_definitions(&self) -> bool {
        !self.are_elsewhere() || !self.pushed.is_empty()
    }

    /// Whether the definitions are somewhere else than in the main file.
    fn are_elsewhere(&self) -> bool {
        self.main.server.as_ref().is_some_and(|server| server.definitions == DefinitionsSource::ZooKeeper)
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

        for (path, named_at) in self.source(index, &source, &overrides) {
            self.file(&path, Some(&named_at));
        }
        self.including.pop();
    }

    /// Checks a source; what it includes.
    fn source(&mut self, index: usize, source: &Source, overrides: &[overrides::Override<'_>]) -> Includes {
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
    fn sections(&mut self, index: usize, source: &Source, documents: &[&Parsed<'_>]) -> (ScheduleDefaults, Includes) {
        let is_main = index == 0;
        let find = |name: &str| {
            documents.iter().find_map(|document| document.table.get(name).map(|value| (document.base, value)))
        };
        let sink = std::mem::take(&mut self.sink);
        let section = |name: &'static str| find(name).and_then(|(base, value)| table(source, &sink, base, name, value));
        if is_main {
            self.main.server = Some(checks::server(section("server").as_ref()));
            self.main.token_teams = section("server").as_ref().map(checks::token_teams).unwrap_or_default();
            self.main.log = Some(checks::log(section("log").as_ref()));
            self.main.store = Some(checks::store(section("store").as_ref(), &source.name));
            self.main.zookeeper = section("zookeeper").as_ref().map(checks::zookeeper);
            if self.are_elsewhere() {
                let named = section("server");
                if let Some(server) = named.filter(|_| self.main.zookeeper.is_none() && find("zookeeper").is_none()) {
                    server.error(
                        &["definitions"],
                        "the definitions are in ZooKeeper, and there is no home ensemble",
                        "add a section [zookeeper] with `connect`, or write definitions = \"file\"",
                    );
                }
            }
        }
        self.sink = sink;
        for document in documents {
            self.unknown_sections(source, document, is_main);
        }
        if is_main && self.are_elsewhere() {
            return (ScheduleDefaults::default(), Vec::new());
        }
        let sink = std::mem::take(&mut self.sink);
        let section = |name: &'static str| find(name).and_then(|(base, value)| table(source, &sink, base, name, value));
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
        if let Some(named) = section("team") {
            for (name, span, key, value) in names(&named) {
                let Some(section) = table(source, &sink, named.base, &key, value) else { continue };
                let name = self.shared.name(name);
                let team = Arc::new(checks::team(&section));
                if let Some((_, first)) = self.teams.get(&name) {
                    twice(&section, &self.sources, first);
                } else {
                    self.teams.insert(name, (team, (index, span)));
                }
            }
        }
        if let Some((base, value)) = find("sync") {
            self.syncs(index, source, &sink, base, value);
        }
        let own = section("defaults").map(|section| checks::defaults(&section, &mut self.shared)).unwrap_or_default();
        let defaults = own.over(&self.main_defaults);
        let includes = find("include").map(|(base, value)| (base, value.clone()));
        self.sink = sink;
        if index == self.first {
            self.main_defaults = defaults.clone();
        }
        let includes = includes.map(|(base, value)| self.includes(index, source, base, &value)).unwrap_or_default();
        (defaults, includes)
    }

    fn unknown_sections(&self, source: &Source, document: &Parsed<'_>, is_main: bool) {
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
            } else if is_main && self.are_elsewhere() && !MAIN_FILE_SECTIONS.contains(&name) {
                (
                    format!("`{name}` stands in the main file, and [server] says that the definitions are in ZooKeeper"),
                    "move it to a file of its own and run `flowkeeper config push FILE`, or write definitions = \"file\""
                        .to_owned(),
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
        let directory = directory_of(&source.name);
        let mut includes = Vec::new();
        for pattern in patterns {
            let Some(written) = pattern.get_ref().as_str() else {
                fault(pattern.span(), Severity::Error, "expected a path or a glob".into(), "put it in quotes");
                continue;
            };
            let span = pattern.span().start + base..pattern.span().end + base;
            if source.is_pushed {
                if let Some((severity, message)) = self.not_pushed(&directory, written) {
                    fault(
                        pattern.span(),
                        severity,
                        message,
                        "`flowkeeper config push FILE` takes along what FILE includes",
                    );
                }
                continue;
            }
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
                    self.globs.borrow_mut().push((directory.clone(), written.to_owned()));
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

    /// What is wrong with an `include` of a document: the documents that were pushed with it are all there
    /// is.
    fn not_pushed(&self, directory: &Path, pattern: &str) -> Option<(Severity, String)> {
        let named = directory.join(pattern);
        let named = named.strip_prefix(".").unwrap_or(&named).to_string_lossy().into_owned();
        if !checks::is_glob(pattern) {
            let is_there = self.pushed.contains(&named);
            return (!is_there).then(|| (Severity::Error, format!("\"{pattern}\" was not pushed with this document")));
        }
        let glob = globset::GlobBuilder::new(&named).literal_separator(true).build().ok()?.compile_matcher();
        let is_there = self.pushed.iter().any(|name| glob.is_match(name));
        (!is_there).then(|| (Severity::Warning, format!("nothing that was pushed matches \"{pattern}\"")))
    }

    /// The sources that hold definitions: all files, or the documents.
    fn definitions(&self) -> &[Rc<Source>] {
        &self.sources[self.first..]
    }

    /// The version of the definitions.
    pub(super) fn version(&self) -> String {
        let kept: Vec<_> = self.definitions().iter().map(|source| (source, definitions(source))).collect();
        document::version(kept.iter().map(|(source, kept)| kept.iter().map(|piece| &source.text[piece.clone()])))
    }

    /// The text of the definitions as history keeps it: of files, without what may be a secret; what was
    /// pushed, word for word.
    pub(super) fn documents(&self) -> Vec<Document> {
        let text = |source: &Source| {
            let hidden = if source.is_pushed { Vec::new() } else { source.hidden() };
            document::shown(&source.text, &definitions(source), &hidden)
        };
        self.definitions().iter().map(|source| Document { name: source.name.clone(), text: text(source) }).collect()
    }

    fn is_being_read(&self, real: &Path) -> bool {
        self.including.iter().any(|file| file == real)
    }

    /// Checks the syncs of a source.
    fn syncs(&mut self, index: usize, source: &Source, sink: &Sink, base: usize, value: &Spanned<DeValue<'_>>) {
        let fault = |span: Range<usize>| {
            sink.push(source.fault(
                span.start + base..span.end + base,
                "sync".to_owned(),
                Severity::Error,
                "syncs are written as [[sync]]".to_owned(),
                "put two brackets around the header of each sync".to_owned(),
            ));
        };
        let Some(items) = value.get_ref().as_array() else { return fault(value.span()) };
        for item in items {
            let Some(table) = item.get_ref().as_table() else {
                fault(item.span());
                continue;
            };
            let section = Section { source, sink, base, key: "sync", table, header: item.span() };
            if let Some(draft) = checks::sync(&section, &mut self.shared) {
                self.syncs.push((index, draft));
            }
        }
    }

    /// Checks the schedules of a part.
    fn schedules(&mut self, index: usize, source: &Source, document: &Parsed<'_>, defaults: &ScheduleDefaults) {
        let Some(value) = document.table.get("schedule").filter(|_| index > 0 || !self.are_elsewhere()) else { return };
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

/// The parts of a text that are definitions. A document is nothing else.
fn definitions(source: &Source) -> Vec<Range<usize>> {
    if source.is_pushed {
        let whole = 0..source.text.len();
        return Vec::from([whole]);
    }
    document::definitions(&source.text)
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

/// The sections below `[airflow]`, `[ensemble]` or `[team]`, those with illegal names left out.
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

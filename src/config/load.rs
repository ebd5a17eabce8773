//! Files: reading them, following `include`, and gathering what is in them.
//!
//! `parse` makes tables of a text, `sections` has each checked, `includes` says what is read next. What
//! they note together becomes a configuration in [`super::resolve`].

mod includes;
mod parse;
mod sections;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::checks::{Draft, ScheduleDefaults, Shared, SyncDraft};
use super::document::{self, Document};
use super::environment::Environment;
use super::fault::{Fault, Severity};
use super::files::{self, Places, ReadProblem};
use super::guard::Guard;
use super::model::{Airflow, DefinitionsSource, Ensemble, Log, Server, Store, ZooKeeper};
use super::overrides;
use super::source::{Sink, Source, directory_of};
use crate::domain::team::Team;

/// A place: which file, and where in it.
pub(super) type Origin = (usize, Range<usize>);

/// What a section with a name says, and where that name stands.
pub(super) type Named<T> = (T, Origin);

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
    pub(super) airflows: BTreeMap<Arc<str>, Named<Airflow>>,
    pub(super) ensembles: BTreeMap<Arc<str>, Named<Ensemble>>,
    pub(super) teams: BTreeMap<Arc<str>, Named<Arc<Team>>>,
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
    /// Where that stands.
    pub(super) zookeeper_at: Range<usize>,
    /// The teams that tokens name: which token, and where in the main file.
    pub(super) token_teams: Vec<(usize, String, Range<usize>)>,
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
        let MainSections { server, store, zookeeper, .. } = &self.main;
        let guard = Rc::new(Guard::new(main, server.as_ref(), store.as_ref(), zookeeper.as_ref()));
        self.first = self.sources.len();
        self.pushed = documents.iter().map(|document| document.name.clone()).collect();
        for document in documents {
            let index = self.sources.len();
            let source =
                Source::pushed(document.name.clone(), document.text.clone(), directory.clone(), Rc::clone(&guard));
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
            let hidden = if source.is_pushed() { Vec::new() } else { source.hidden() };
            document::shown(&source.text, &definitions(source), &hidden)
        };
        self.definitions().iter().map(|source| Document { name: source.name.clone(), text: text(source) }).collect()
    }
}

/// The parts of a text that are definitions. A document is nothing else.
fn definitions(source: &Source) -> Vec<Range<usize>> {
    if source.is_pushed() {
        let whole = 0..source.text.len();
        return Vec::from([whole]);
    }
    document::definitions(&source.text)
}

//! `include`: which files a file names, and which documents a document does.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::super::checks;
use super::super::fault::Severity;
use super::super::files;
use super::super::source::{Source, directory_of};
use super::{Includes, Loader};

impl Loader<'_> {
    /// The files that `include` names.
    pub(super) fn includes(
        &self,
        index: usize,
        source: &Source,
        base: usize,
        value: &Spanned<DeValue<'_>>,
    ) -> Includes {
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
            if source.is_pushed() {
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
    fn is_being_read(&self, real: &Path) -> bool {
        self.including.iter().any(|file| file == real)
    }
}

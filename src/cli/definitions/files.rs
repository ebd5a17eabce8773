//! Definitions in files: what is pushed, and what is pulled.

use std::path::{Path, PathBuf};

use super::super::error::CommandError;
use crate::config::{self, Document, Environment, Fault, Faults, is_document_name, version_of};
use crate::definitions::base;
use crate::definitions::desk::Definitions;

/// A set in files, as it is pushed.
pub(super) struct Local {
    file: PathBuf,
    /// The version that the file says it was made from.
    pub(super) base: Option<String>,
    /// Without the line that says so.
    pub(super) documents: Vec<Document>,
}

impl Local {
    pub(super) fn nothing() -> Self {
        Self { file: PathBuf::new(), base: None, documents: Vec::new() }
    }

    /// Reads a file and what it includes.
    pub(super) fn gather(file: &Path) -> Result<Self, Faults> {
        let mut documents = config::gather(file)?;
        let mut base = None;
        if let Some(first) = documents.first_mut() {
            let (version, text) = base::without_base(&first.text);
            if let Some(version) = version.map(ToOwned::to_owned) {
                first.text = text.to_owned();
                base = Some(version);
            }
        }
        Ok(Self { file: file.to_path_buf(), base, documents })
    }

    /// Faults as whoever edits the files looks for them: by path, and with the lines of the file.
    pub(super) fn named(&self, mut faults: Vec<Fault>) -> Vec<Fault> {
        let directory = self.file.parent().unwrap_or(Path::new(""));
        let first = self.documents.first().map(|document| document.name.clone());
        for fault in &mut faults {
            if !self.documents.iter().any(|document| document.name == fault.file) {
                continue;
            }
            let is_first = first.as_ref() == Some(&fault.file);
            if is_first && self.base.is_some() && fault.line > 0 {
                fault.line += 1;
            }
            fault.file = directory.join(&fault.file).display().to_string();
        }
        faults
    }

    /// Says in the file that it is this version.
    pub(super) fn write_base(&self, version: &str) -> Result<(), CommandError> {
        let Some(first) = self.documents.first() else { return Ok(()) };
        write_file(&self.file, &base::with_base(version, &first.text))
    }
}

/// Who runs the command, for the history.
pub(super) fn author(environment: &Environment) -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| environment.get(name));
    let user = user.map_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()), ToOwned::to_owned);
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// The text of a set, with the line that says which it is on top.
pub(super) fn with_base(current: &Definitions) -> String {
    base::with_base(&current.version, &joined(&current.documents))
}

/// Documents one after the other, each below its name where there are several.
pub(super) fn joined(documents: &[Document]) -> String {
    match documents {
        [only] => only.text.clone(),
        several => {
            let each = several.iter().map(|document| format!("# ---- {}\n{}\n", document.name, document.text));
            each.collect::<Vec<_>>().concat()
        }
    }
}

/// Writes a set to files: the first document to `file`, the others below its directory. What is there must
/// be what was pulled before, or its loss be wanted.
pub(super) fn write(file: &Path, current: &Definitions, force: bool) -> Result<Vec<PathBuf>, CommandError> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut written = Vec::new();
    let mut texts = Vec::new();
    for (index, document) in current.documents.iter().enumerate() {
        let (path, text) = match index {
            0 => (file.to_path_buf(), base::with_base(&current.version, &document.text)),
            // Others may have written the znode: its names must not lead out of the directory.
            _ if is_document_name(&document.name) => (directory.join(&document.name), document.text.clone()),
            _ => {
                return Err(CommandError::failed(format!(
                    "failed to write the definitions: \"{}\" is no name for a file here",
                    document.name
                )));
            }
        };
        texts.push((path, text));
    }
    if !force && !is_untouched(file) {
        // A file that was pushed as it is may lack the line on top.
        let differs = |there: &str, text: &str| base::without_base(there).1 != base::without_base(text).1;
        let overwritten = texts.iter().find(|(path, text)| {
            std::fs::read_to_string(path).is_ok_and(|there| differs(&there, text)) || (path.exists() && !path.is_file())
        });
        if let Some((path, _)) = overwritten {
            return Err(CommandError::failed(format!(
                "failed to write the definitions: {} is there, and is not what was pulled or pushed last",
                path.display()
            ))
            .next("nothing was written")
            .hint(format!("`flowkeeper config diff {}` shows what is in it; --force writes over it", file.display())));
        }
    }
    for (path, text) in texts {
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            std::fs::create_dir_all(above).map_err(|error| unwritable(above, &error))?;
        }
        write_file(&path, &text)?;
        written.push(path);
    }
    Ok(written)
}

/// Whether the files are still what the line on top says.
fn is_untouched(file: &Path) -> bool {
    Local::gather(file).is_ok_and(|local| local.base.as_ref() == Some(&version_of(&local.documents)))
}

fn write_file(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::failed(format!("failed to write {}: {error}", path.display()))
        .hint("may this user write there, and is there room?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(documents: &[(&str, &str)]) -> Definitions {
        let documents: Vec<_> =
            documents.iter().map(|(name, text)| Document { name: (*name).into(), text: (*text).into() }).collect();
        let version = version_of(&documents);
        Definitions { version, zookeeper_version: 0, at: None, author: None, message: None, documents }
    }

    #[test]
    fn what_was_pulled_is_pushed_again_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mine.toml");
        let pulled = set(&[("d.toml", "include = [\"s/*.toml\"]\n"), ("s/a.toml", "a = 1\n")]);
        assert_eq!(write(&file, &pulled, false).unwrap().len(), 2);
        let local = Local::gather(&file).unwrap();
        assert_eq!(local.base.as_ref(), Some(&pulled.version));
        let texts = |documents: &[Document]| documents.iter().map(|document| document.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&local.documents), texts(&pulled.documents));

        // What nobody has touched is replaced; what somebody has edited only by force.
        let newer = set(&[("d.toml", "include = [\"s/*.toml\"]\n"), ("s/a.toml", "a = 2\n")]);
        write(&file, &newer, false).unwrap();
        std::fs::write(directory.path().join("s/a.toml"), "a = 3\n").unwrap();
        let refused = write(&file, &pulled, false).unwrap_err().to_string();
        assert!(refused.contains("is there, and is not what was pulled"), "{refused}");
        write(&file, &pulled, true).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mine.toml");
        std::fs::write(&file, "a = 1\n").unwrap();
        assert!(write(&file, &set(&[("d.toml", "a = 2\n")]), false).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a = 1\n");
        // Nothing is lost where it says the same: it only gets the line on top.
        let same = set(&[("d.toml", "a = 1\n")]);
        write(&file, &same, false).unwrap();
        assert_eq!(Local::gather(&file).unwrap().base, Some(same.version));
    }

    #[test]
    fn names_do_not_lead_out_of_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let hostile = set(&[("d.toml", ""), ("../escaped.toml", "x = 1\n")]);
        assert!(write(&below.join("d.toml"), &hostile, true).is_err());
        assert!(!directory.path().join("escaped.toml").exists());
    }

    #[test]
    fn faults_have_the_lines_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("d.toml");
        write(&file, &set(&[("d.toml", "a = 1\n")]), false).unwrap();
        let local = Local::gather(&file).unwrap();
        let fault = Fault {
            file: "d.toml".into(),
            line: 1,
            column: 1,
            key: "a".into(),
            message: "x".into(),
            hint: None,
            severity: config::Severity::Error,
            excerpt: None,
        };
        let named = local.named(vec![fault.clone(), Fault { file: "flowkeeper.toml".into(), ..fault }]);
        assert_eq!((named[0].file.as_str(), named[0].line), (file.to_str().unwrap(), 2));
        assert_eq!((named[1].file.as_str(), named[1].line), ("flowkeeper.toml", 1));
    }
}

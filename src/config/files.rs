//! Reading files as text, and finding those that a glob names.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use globset::GlobBuilder;

use super::checks::is_glob;

/// The largest file that is read: what is larger is something else, a database for example.
const FILE_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// How deep below its first directory a glob looks.
const GLOB_MAX_DEPTH: usize = 32;

/// Why a file's text is not there.
pub(super) enum ReadProblem {
    /// It cannot be read; fits "the file …".
    Unreadable {
        /// Why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// It is something else than text.
    NotText {
        /// So many bytes are.
        valid_up_to: usize,
        /// What to do about it.
        hint: String,
    },
}

/// The text of a file without a byte order mark; with a problem, as much of it as is text.
pub(super) fn read(path: &Path) -> (String, Option<ReadProblem>) {
    let bytes = match read_bytes(path) {
        Ok(bytes) => bytes,
        Err(problem) => return (String::new(), Some(problem)),
    };
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.starts_with('\u{feff}') {
                text.drain(..'\u{feff}'.len_utf8());
            }
            (text, None)
        }
        Err(error) => {
            let valid_up_to = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(&error.as_bytes()[..valid_up_to]).into_owned();
            let hint = if utf16 { "it looks like UTF-16: save it as UTF-8" } else { "save it as UTF-8" };
            (text, Some(ReadProblem::NotText { valid_up_to, hint: hint.to_owned() }))
        }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadProblem> {
    let unreadable = |error: std::io::Error| {
        let (message, hint) = match error.kind() {
            std::io::ErrorKind::NotFound => {
                ("does not exist".to_owned(), "name another one with -c, or write one with `flowkeeper init`")
            }
            std::io::ErrorKind::PermissionDenied => {
                ("may not be read".to_owned(), "let the user that runs flowkeeper read it")
            }
            std::io::ErrorKind::IsADirectory => ("is a directory".to_owned(), "name a file"),
            _ => (format!("cannot be read: {error}"), "see that the file is there and readable"),
        };
        ReadProblem::Unreadable { message, hint: hint.to_owned() }
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(ReadProblem::Unreadable {
            message: "is larger than 256 MiB".to_owned(),
            hint: "split it, and `include` the pieces".to_owned(),
        });
    }
    Ok(bytes)
}

/// Where a configuration was read: its files, and the globs by which some of them were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The files, also those that are not there.
    pub files: Vec<PathBuf>,
    /// Globs, each with the directory that it is relative to.
    pub globs: Vec<(PathBuf, String)>,
}

impl Places {
    /// The files that each of the globs finds now.
    pub fn found(&self) -> impl Iterator<Item = (&(PathBuf, String), Vec<PathBuf>)> {
        let find = |(directory, glob): &(PathBuf, String)| match expand(directory, glob) {
            Ok(Expanded::Many(paths)) => paths,
            Ok(Expanded::One(_)) | Err(_) => Vec::new(),
        };
        self.globs.iter().map(move |glob| (glob, find(glob)))
    }
}

/// The files that an entry of `include` names.
pub(super) enum Expanded {
    /// A path, whether or not there is a file.
    One(PathBuf),
    /// What matches a glob, in the order of the names.
    Many(Vec<PathBuf>),
}

/// Finds what `pattern`, relative to `directory`, names; the error fits "`pattern` …".
pub(super) fn expand(directory: &Path, pattern: &str) -> Result<Expanded, String> {
    if pattern.is_empty() {
        return Err("is no path".to_owned());
    }
    if !is_glob(pattern) {
        return Ok(Expanded::One(directory.join(pattern)));
    }
    // Up to the first part with a wildcard it is a directory, and only the rest is matched.
    let components: Vec<Component<'_>> = Path::new(pattern).components().collect();
    let fixed = components.iter().take_while(|part| !is_glob(&part.as_os_str().to_string_lossy())).count();
    let start = components[..fixed].iter().fold(directory.to_path_buf(), |path, part| path.join(part));
    let rest: PathBuf = components[fixed..].iter().collect();
    let glob = GlobBuilder::new(&rest.to_string_lossy())
        .literal_separator(true)
        .build()
        .map_err(|error| format!("is not a glob: {}", error.kind()))?
        .compile_matcher();
    let mut found = Vec::new();
    walk(&start, Path::new(""), 0, &mut |below| {
        if glob.is_match(below) {
            found.push(start.join(below));
        }
    });
    found.sort();
    Ok(Expanded::Many(found))
}

/// Calls `each` with every file below `directory`, as a path relative to it. What cannot be listed
/// is empty.
fn walk(directory: &Path, below: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    let listed = directory.join(below);
    let listed = if listed.as_os_str().is_empty() { Path::new(".") } else { &listed };
    let Ok(entries) = std::fs::read_dir(listed) else { return };
    for entry in entries.flatten() {
        let below = below.join(entry.file_name());
        match std::fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() && depth < GLOB_MAX_DEPTH => walk(directory, &below, depth + 1, each),
            Ok(metadata) if metadata.is_file() => each(&below),
            _ => {}
        }
    }
}

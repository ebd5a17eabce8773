//! Whether files are as they were when they were last read, by what the file system tells of them.
//!
//! Metadata are asked for through symbolic links, so that a link which is set to another place shows, as
//! when Kubernetes swaps the directory of a volume. Notices of the file system would not tell of that,
//! nor of changes on shared directories.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::config::Places;

/// What the file system tells of everything that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footprint {
    marks: Vec<Option<Mark>>,
    /// What globs find.
    found: Vec<PathBuf>,
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size_bytes: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of its metadata.
    changed: (i64, i64),
}

impl Footprint {
    /// Looks at the places.
    pub(super) fn of(places: &Places) -> Self {
        let mark = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some(Mark {
                device: metadata.dev(),
                inode: metadata.ino(),
                size_bytes: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            })
        };
        Self { marks: places.files.iter().map(mark).collect(), found: places.found() }
    }

    /// Whether a file is gone that was there in `before`: it may be about to be replaced.
    pub(super) fn lacks_one_of(&self, before: &Self) -> bool {
        let gone = |(now, before): (&Option<Mark>, &Option<Mark>)| now.is_none() && before.is_some();
        self.marks.iter().zip(&before.marks).any(gone)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_way_to_change_what_is_read_shows() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        for version in ["..one", "..two"] {
            std::fs::create_dir(at(version)).unwrap();
            write(&at(version).join("main.toml"), "same text");
        }
        symlink("..one", at("..data")).unwrap();
        symlink("..data/main.toml", at("main.toml")).unwrap();
        std::fs::create_dir(at("schedules")).unwrap();
        write(&at("schedules/a.toml"), "a");
        let globs = vec![(directory.path().to_path_buf(), "schedules/*.toml".to_owned())];
        let places = Places { files: vec![at("main.toml"), at("schedules/a.toml")], globs };

        let mut before = Footprint::of(&places);
        assert_eq!(Footprint::of(&places), before);
        let mut shows = |what: &str, lacks: bool| {
            let now = Footprint::of(&places);
            assert_ne!(now, before, "{what}");
            assert_eq!(now.lacks_one_of(&before), lacks, "{what}");
            before = now;
        };
        write(&at("schedules/a.toml"), "ab");
        shows("another text", false);
        std::fs::write(at("new"), "ab").unwrap();
        std::fs::rename(at("new"), at("schedules/a.toml")).unwrap();
        shows("the same text in another file, renamed over it", false);
        symlink("..two", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        shows("a directory that a link on the way leads to is another", false);
        write(&at("schedules/b.toml"), "");
        shows("a glob finds one more", false);
        std::fs::rename(at("schedules/b.toml"), at("schedules/b.txt")).unwrap();
        shows("a glob finds one less", false);
        std::fs::remove_file(at("main.toml")).unwrap();
        shows("the main file is gone", true);
    }
}

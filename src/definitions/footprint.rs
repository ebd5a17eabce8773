//! Whether files are as they were when they were last read, by what the file system tells of them, and for
//! how long they must have been at rest before they are read again.
//!
//! Metadata are asked for through symbolic links, so that a link which is set to another place shows, as
//! when Kubernetes swaps the directory of a volume. Notices of the file system would not tell of that,
//! nor of changes on shared directories.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Places;

/// Files are read when nothing has moved for so long.
const QUIET: Duration = Duration::from_millis(100);

/// The same while a file is gone that a glob had found: an editor may be about to write it anew, and its
/// schedules would end. No longer, since a file that was deleted is a change as well.
const QUIET_WHILE_FOUND_IS_GONE: Duration = Duration::from_millis(500);

/// The same while a file is gone that is named: without it there is nothing to take but a fault.
const QUIET_WHILE_NAMED_IS_GONE: Duration = Duration::from_secs(1);

/// What the file system tells of everything that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footprint {
    files: Vec<(PathBuf, Option<Mark>)>,
    /// What globs find; of these, some may not have been read yet.
    found: Vec<Found>,
}

/// What a glob finds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// The glob, with the directory that it is relative to.
    glob: (PathBuf, String),
    files: Vec<(PathBuf, Option<Mark>)>,
}

/// What was there and is not, although nobody has deleted it by name: it may just be being written, or could
/// not be for want of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// A file that had a text is empty.
    Text(PathBuf),
    /// A glob that found files finds none.
    Matches(String),
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    identity: Identity,
    size_bytes: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of its metadata.
    changed: (i64, i64),
}

/// Tells a file or directory from any other: its device and its number there.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl Footprint {
    /// Looks at the places.
    pub(super) fn of(places: &Places) -> Self {
        let marked = |path: PathBuf| {
            let mark = std::fs::metadata(&path).ok().map(|metadata| Mark {
                identity: identity(&metadata),
                size_bytes: metadata.size(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
            (path, mark)
        };
        Self {
            files: places.files.iter().cloned().map(marked).collect(),
            found: places
                .found()
                .map(|(glob, files)| Found { glob: glob.clone(), files: files.into_iter().map(marked).collect() })
                .collect(),
        }
    }

    /// What is lost since `before`, which may be of other places: a main file that was emptied includes nothing.
    pub(super) fn lost_since(&self, before: &Self) -> Vec<Lost> {
        let had_text = |path: &Path| {
            let known = before.files.iter().find(|(known, _)| known == path);
            known.is_some_and(|(_, mark)| mark.is_some_and(|mark| mark.size_bytes > 0))
        };
        let emptied =
            self.files.iter().filter(|(path, mark)| mark.is_some_and(|mark| mark.size_bytes == 0) && had_text(path));
        let found_some =
            |glob: &(PathBuf, String)| before.found.iter().any(|found| found.glob == *glob && !found.files.is_empty());
        let without = self.found.iter().filter(|found| found.files.is_empty() && found_some(&found.glob));
        let emptied = emptied.map(|(path, _)| Lost::Text(path.clone()));
        emptied.chain(without.map(|found| Lost::Matches(found.glob.1.clone()))).collect()
    }

    /// Whether a file is gone that was there in `before`.
    pub(super) fn lacks_one_of(&self, before: &Self) -> bool {
        self.gone_since(before).next().is_some()
    }

    /// How long everything must have been as it is now before it is read again, since it was last read as it
    /// was in `seen`. `swapped` is whether whole directories were exchanged meanwhile: what is gone then is
    /// not about to be replaced.
    pub(super) fn rest_since(&self, seen: &Self, swapped: bool) -> Duration {
        let mut rest = QUIET;
        if swapped {
            return rest;
        }
        for gone in self.gone_since(seen) {
            let mut found = seen.found.iter().flat_map(|found| &found.files);
            let was_found = found.any(|(path, _)| path == gone);
            rest = rest.max(if was_found { QUIET_WHILE_FOUND_IS_GONE } else { QUIET_WHILE_NAMED_IS_GONE });
        }
        rest
    }

    fn gone_since(&self, before: &Self) -> impl Iterator<Item = &Path> {
        let pairs = self.files.iter().zip(&before.files);
        pairs.filter(|((_, now), (_, before))| now.is_none() && before.is_some()).map(|((path, _), _)| path.as_path())
    }
}

/// In which directories the files lie, through all links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directories(Vec<Way>);

/// The directories of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// The one in which it is named.
    named_in: Option<Identity>,
    /// The one in which it really is; none when the file is gone.
    lies_in: Option<Identity>,
}

impl Directories {
    /// Looks at the places.
    pub(super) fn of(places: &Places) -> Self {
        let of = |directory: &Path| {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            std::fs::metadata(directory).ok().as_ref().map(identity)
        };
        let way = |path: &PathBuf| Way {
            named_in: path.parent().and_then(of),
            lies_in: std::fs::canonicalize(path).ok().as_deref().and_then(Path::parent).and_then(of),
        };
        Self(places.files.iter().map(way).collect())
    }

    /// Whether a directory was put in the place of one of `before`, by a link that leads elsewhere or by
    /// another name: that takes one step, so everything in it was swapped at once.
    pub(super) fn were_swapped_since(&self, before: &Self) -> bool {
        let differ = |now: Option<Identity>, before: Option<Identity>| {
            now.zip(before).is_some_and(|(now, before)| now != before)
        };
        let swapped =
            |(now, before): (&Way, &Way)| differ(now.named_in, before.named_in) || differ(now.lies_in, before.lies_in);
        self.0.iter().zip(&before.0).any(swapped)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir_all, remove_file, rename, write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// A main file through a link that is swapped as Kubernetes does, and a directory with a glob.
    struct World {
        directory: tempfile::TempDir,
        places: Places,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            for version in ["..one", "..two"] {
                create_dir(at(version)).unwrap();
                write(at(version).join("main.toml"), "same text").unwrap();
            }
            symlink("..one", at("..data")).unwrap();
            symlink("..data/main.toml", at("main.toml")).unwrap();
            create_dir(at("schedules")).unwrap();
            write(at("schedules/a.toml"), "a").unwrap();
            let globs = vec![(directory.path().to_path_buf(), "schedules/*.toml".to_owned())];
            let places = Places { files: vec![at("main.toml"), at("schedules/a.toml")], globs };
            Self { directory, places }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn swap_link(&self) {
            symlink("..two", self.at("..data_tmp")).unwrap();
            rename(self.at("..data_tmp"), self.at("..data")).unwrap();
        }

        fn look(&self) -> (Footprint, Directories) {
            (Footprint::of(&self.places), Directories::of(&self.places))
        }
    }

    #[test]
    fn every_way_to_change_what_is_read_shows_and_has_its_rest() {
        type Change = fn(&World);
        let cases: [(&str, Change, Duration); 13] = [
            ("another text", |w| write(w.at("schedules/a.toml"), "ab").unwrap(), QUIET),
            (
                "the same text in another file, renamed over it",
                |w| {
                    write(w.at("new"), "a").unwrap();
                    rename(w.at("new"), w.at("schedules/a.toml")).unwrap();
                },
                QUIET,
            ),
            ("a directory that a link on the way leads to is another", World::swap_link, QUIET),
            ("a glob finds one more", |w| write(w.at("schedules/b.toml"), "").unwrap(), QUIET),
            (
                "a file that a glob found is gone",
                |w| remove_file(w.at("schedules/a.toml")).unwrap(),
                QUIET_WHILE_FOUND_IS_GONE,
            ),
            (
                "it was moved away, as some editors do first",
                |w| rename(w.at("schedules/a.toml"), w.at("schedules/a.toml~")).unwrap(),
                QUIET_WHILE_FOUND_IS_GONE,
            ),
            ("the main file is gone", |w| remove_file(w.at("main.toml")).unwrap(), QUIET_WHILE_NAMED_IS_GONE),
            (
                "it leads nowhere, and nothing was swapped",
                |w| remove_file(w.at("..one/main.toml")).unwrap(),
                QUIET_WHILE_NAMED_IS_GONE,
            ),
            (
                "both are gone",
                |w| {
                    remove_file(w.at("main.toml")).unwrap();
                    remove_file(w.at("schedules/a.toml")).unwrap();
                },
                QUIET_WHILE_NAMED_IS_GONE,
            ),
            (
                "a file is gone with the directory",
                |w| remove_dir_all(w.at("schedules")).unwrap(),
                QUIET_WHILE_FOUND_IS_GONE,
            ),
            (
                "the directory was exchanged for one without the file",
                |w| {
                    create_dir(w.at("others")).unwrap();
                    rename(w.at("schedules"), w.at("..old")).unwrap();
                    rename(w.at("others"), w.at("schedules")).unwrap();
                },
                QUIET,
            ),
            (
                "it was exchanged for a link to one without the file",
                |w| {
                    create_dir(w.at("others")).unwrap();
                    rename(w.at("schedules"), w.at("..old")).unwrap();
                    symlink("others", w.at("schedules")).unwrap();
                },
                QUIET,
            ),
            (
                "a file went with the swap of a link by which another is there",
                |w| {
                    w.swap_link();
                    remove_file(w.at("schedules/a.toml")).unwrap();
                },
                QUIET,
            ),
        ];
        for (case, change, rest) in cases {
            let world = World::new();
            let (before, directories) = world.look();
            assert_eq!((Footprint::of(&world.places), before.lacks_one_of(&before)), (before.clone(), false));
            change(&world);
            let (now, now_in) = world.look();
            assert_ne!(now, before, "{case}");
            let swapped = now_in.were_swapped_since(&directories);
            assert_eq!(now.rest_since(&before, swapped), rest, "{case}");
            assert_eq!(now.lacks_one_of(&before), now.files.iter().any(|(_, mark)| mark.is_none()), "{case}");
        }
    }

    #[test]
    fn what_is_lost_without_being_deleted_by_name_shows() {
        type Change = fn(&World);
        let main = || Lost::Text(PathBuf::from("main.toml"));
        let matches = || Lost::Matches("schedules/*.toml".to_owned());
        let cases: [(&str, Change, Vec<Lost>); 8] = [
            ("nothing", |_| {}, vec![]),
            ("another text", |w| write(w.at("schedules/a.toml"), "ab").unwrap(), vec![]),
            ("a link leads to another file", World::swap_link, vec![]),
            ("one more, which is empty", |w| write(w.at("schedules/b.toml"), "").unwrap(), vec![]),
            ("the main file is gone: that is a fault", |w| remove_file(w.at("main.toml")).unwrap(), vec![]),
            ("the main file is empty", |w| write(w.at("..one/main.toml"), "").unwrap(), vec![main()]),
            ("the only file of a glob is gone", |w| remove_file(w.at("schedules/a.toml")).unwrap(), vec![matches()]),
            ("the directory is gone", |w| remove_dir_all(w.at("schedules")).unwrap(), vec![matches()]),
        ];
        for (case, change, expected) in cases {
            let world = World::new();
            let (before, _) = world.look();
            change(&world);
            let lost = world.look().0.lost_since(&before);
            let expected: Vec<_> = expected
                .into_iter()
                .map(|lost| match lost {
                    Lost::Text(path) => Lost::Text(world.directory.path().join(path)),
                    Lost::Matches(glob) => Lost::Matches(glob),
                })
                .collect();
            assert_eq!(lost, expected, "{case}");
        }
        // What a file includes is not known any more when it is empty itself.
        let world = World::new();
        let (before, _) = world.look();
        write(world.at("..one/main.toml"), "").unwrap();
        let alone = Places { files: vec![world.at("main.toml")], globs: Vec::new() };
        assert_eq!(Footprint::of(&alone).lost_since(&before), [Lost::Text(world.at("main.toml"))]);
    }

    #[test]
    fn a_file_that_is_new_shows_for_as_long_as_it_grows() {
        let world = World::new();
        write(world.at("schedules/b.toml"), "").unwrap();
        let (before, _) = world.look();
        write(world.at("schedules/b.toml"), "[[schedule]]").unwrap();
        assert_ne!(Footprint::of(&world.places), before);
    }
}

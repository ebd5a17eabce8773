//! Definitions as they are pushed: a file and what it includes, under names that mean something on
//! every host.

use std::path::{Component, Path};

use super::Document;
use super::environment::Environment;
use super::fault::{Fault, Faults, Severity};
use super::load::Loader;
use super::source::directory_of;

/// Reads `file` and everything that it includes. Whether what they say is right is for
/// [`check_definitions`](super::check_definitions); the faults here are of files that cannot be read,
/// and of files outside of the directory of `file`, for which there is no name.
pub fn gather(file: &Path) -> Result<Vec<Document>, Faults> {
    let environment = Environment::default();
    let mut loader = Loader::new(&environment);
    loader.load(file);
    let directory = directory_of(&file.display().to_string());
    let sources = std::mem::take(&mut loader.sources);
    let mut faults: Vec<Fault> = loader.sink.into_faults();
    // Those of the text itself are found when the whole set is checked.
    faults.retain(|fault| fault.severity == Severity::Error && (fault.key == "include" || fault.line == 0));
    for fault in faults.iter_mut().filter(|fault| fault.line == 0 && !file.exists()) {
        fault.hint = Some("name the file that has the definitions; `flowkeeper config pull FILE` writes one".into());
    }
    let mut documents = Vec::with_capacity(sources.len());
    for source in &sources {
        match name_below(&directory, Path::new(&source.name)) {
            Some(name) => documents.push(Document { name, text: source.text.clone() }),
            None => faults.push(Fault::without_place(
                source.name.as_str(),
                "include",
                format!("this file is outside of the directory of {}", file.display()),
                "what is pushed lies in one directory and below it: move the file there",
            )),
        }
    }
    if faults.is_empty() { Ok(documents) } else { Err(Faults { file: file.to_path_buf(), faults }) }
}

/// The path of a file relative to a directory that it is in.
fn name_below(directory: &Path, file: &Path) -> Option<String> {
    let below = file.strip_prefix(directory).ok()?;
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let name: Vec<&str> = below
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .map(|part| part.as_os_str().to_str())
        .collect::<Option<_>>()?;
    (is_plain && !name.is_empty()).then(|| name.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_below_the_directory() {
        for (directory, file, expected) in [
            ("", "a.toml", Some("a.toml")),
            ("/etc/fk", "/etc/fk/schedules/a.toml", Some("schedules/a.toml")),
            ("conf", "conf/./a.toml", Some("a.toml")),
            ("conf", "conf/../a.toml", None),
            ("conf", "/etc/a.toml", None),
            ("", "/etc/a.toml", None),
        ] {
            assert_eq!(name_below(Path::new(directory), Path::new(file)).as_deref(), expected, "{directory} {file}");
        }
    }

    #[test]
    fn a_file_is_gathered_with_what_it_includes() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("d.toml", "include = [\"s/*.toml\"]\n[airflow.main]\nurl = 7\n");
        write("s/b.toml", "b = 1\n");
        write("s/a.toml", "not TOML\n");
        let gathered = gather(&directory.path().join("d.toml")).unwrap();
        let names: Vec<_> = gathered.iter().map(|document| document.name.as_str()).collect();
        assert_eq!(names, ["d.toml", "s/a.toml", "s/b.toml"]);
        assert_eq!(gathered[1].text, "not TOML\n");

        write("s/c.toml", "include = [\"../../x.toml\", \"/nowhere/y.toml\"]\n");
        let faults = gather(&directory.path().join("d.toml")).unwrap_err().faults;
        assert!(faults.iter().filter(|fault| fault.message.contains("does not exist")).count() == 2, "{faults:?}");
        assert!(gather(Path::new("/nowhere/d.toml")).is_err());
    }
}

//! `init`, `schema`, `completions`: what is needed once, to set things up.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;
use serde::Serialize;

use super::arguments::{Cli, CompletionsArguments, InitArguments};
use super::context::Context;
use super::error::CommandError;
use super::output::{self, Cell, Fit, Rows, Tone};
use crate::config;

/// A DAG or a module of DAGs, as this version installs it.
macro_rules! dag_file {
    ($name:literal) => {
        (concat!("dags/", $name), include_str!(concat!("../../dags/", $name)))
    };
}

/// What `init` writes, relative to its directory.
const FILES: [(&str, &str); 9] = [
    ("flowkeeper.toml", config::EXAMPLE),
    dag_file!("flowkeeper_client.py"),
    dag_file!("flowkeeper_operators.py"),
    dag_file!("flowkeeper_health.py"),
    dag_file!("flowkeeper_maintenance.py"),
    dag_file!("zookeeper_health.py"),
    dag_file!("zookeeper_maintenance.py"),
    dag_file!("flowkeeper_examples.py"),
    dag_file!("flowkeeper_lock_example.py"),
];

/// A file of `init`.
#[derive(Debug, Serialize)]
struct InitFile {
    path: String,
    /// `false` when it was there before and was left alone.
    written: bool,
    /// Whether it is as this version writes it.
    same: bool,
}

pub(super) fn init(context: &Context, arguments: &InitArguments) -> Result<(), CommandError> {
    let files = FILES
        .iter()
        .map(|(name, text)| {
            let path = arguments.directory.join(name);
            let written = write_new(&path, text).map_err(|error| {
                CommandError::failed(format!("failed to write {}: {error}", path.display()))
                    .hint("name a directory that can be written: `flowkeeper init DIR`")
            })?;
            // What cannot be read is certainly not what was written.
            let same = written || fs::read_to_string(&path).is_ok_and(|found| found == *text);
            Ok(InitFile { path: path.display().to_string(), written, same })
        })
        .collect::<Result<Vec<_>, CommandError>>()?;
    let rows = || {
        let mut rows = Rows::new([("FILE", Fit::Wrap), ("", Fit::Whole)]);
        for file in &files {
            let (word, tone) = match file {
                InitFile { written: true, .. } => ("written", Tone::Good),
                InitFile { same: true, .. } => ("exists", Tone::Muted),
                _ => ("exists, differs, left alone", Tone::Warning),
            };
            rows.push([file.path.clone().into(), Cell::toned(word, tone)]);
        }
        rows
    };
    context.output.list(&files, &["path", "written", "same"], rows, "")?;
    let configuration = arguments.directory.join("flowkeeper.toml");
    eprintln!("next: flowkeeper -c {} check --online", configuration.display());
    Ok(())
}

/// Writes a file that does not exist yet; `false` when it does.
fn write_new(path: &Path, text: &str) -> io::Result<bool> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match File::create_new(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn schema() -> Result<(), CommandError> {
    output::json(&config::reference::schema())
}

pub(super) fn completions(arguments: &CompletionsArguments) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "flowkeeper", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::{Check, Scope};

    #[test]
    fn the_dags_have_every_check_in_the_order_of_the_catalogue() {
        let (_, client) = FILES.iter().find(|(name, _)| name.ends_with("flowkeeper_client.py")).expect("the client");
        let listed: Vec<(&str, bool)> = client
            .lines()
            .filter_map(|line| line.strip_prefix("    Check(\""))
            .map(|line| (line.split('"').next().unwrap_or_default(), line.contains("per_server=True")))
            .collect();
        let known: Vec<(&str, bool)> =
            Check::all().map(|check| (check.as_str(), check.info().scope == Scope::Server)).collect();
        assert_eq!(listed, known, "`CHECKS` in dags/flowkeeper_client.py");
    }

    #[test]
    fn every_file_of_the_folder_of_dags_is_installed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dags");
        let mut there: Vec<String> = fs::read_dir(folder)
            .expect("the folder of DAGs")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        let mut installed: Vec<&str> = FILES.iter().filter_map(|(name, _)| name.strip_prefix("dags/")).collect();
        there.sort();
        installed.sort_unstable();
        assert_eq!(installed, there);
    }
}

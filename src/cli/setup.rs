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

/// What `init` writes, relative to its directory.
const FILES: [(&str, &str); 2] = [
    ("flowkeeper.toml", config::EXAMPLE),
    ("dags/flowkeeper_examples.py", include_str!("../../dags/flowkeeper_examples.py")),
];

/// A file of `init`.
#[derive(Debug, Serialize)]
struct InitFile {
    path: String,
    /// `false` when it was there before and was left alone.
    written: bool,
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
            Ok(InitFile { path: path.display().to_string(), written })
        })
        .collect::<Result<Vec<_>, CommandError>>()?;
    let rows = || {
        let mut rows = Rows::new([("FILE", Fit::Wrap), ("", Fit::Whole)]);
        for file in &files {
            let (word, tone) = if file.written { ("written", Tone::Good) } else { ("exists, left alone", Tone::Muted) };
            rows.push([file.path.clone().into(), Cell::toned(word, tone)]);
        }
        rows
    };
    context.output.list(&files, &["path", "written"], rows, "")?;
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

//! The file as people write it, turned into checked values.
//!
//! [`check`] reads a configuration and everything that it includes, and either returns values that
//! the rest may rely on or all faults at once. It needs no network and no secret. The way of a
//! file: text ([`files`], [`source`]) → sections ([`load`], [`section`]) → what is written
//! ([`written`]) → what is meant ([`checks`], [`resolve`]) → [`model`].

mod checks;
mod document;
mod ensembles;
pub mod environment;
pub mod fault;
mod files;
mod gather;
mod guard;
mod load;
pub mod model;
mod overrides;
pub mod reference;
pub mod render;
mod resolve;
pub mod secret;
mod section;
mod source;
mod text;
mod written;

use std::path::Path;

pub use document::{Document, is_document_name, version_of};
pub use ensembles::NoEnsemble;
pub use environment::Environment;
pub use fault::{Fault, Faults, Severity};
pub use files::Places;
pub use gather::gather;
pub use model::Config;
pub use secret::{Secret, SecretRef};

/// A complete and commented configuration, which `flowkeeper init` writes: for an Airflow and a
/// ZooKeeper on the same machine.
pub const EXAMPLE: &str = include_str!("../../examples/flowkeeper.toml");

/// A configuration without an error.
#[derive(Debug)]
pub struct Checked {
    /// What it says.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Vec<Fault>,
    /// The text of the definitions, as history keeps it: what may be a secret in the text of a file is
    /// left out.
    pub documents: Vec<Document>,
}

/// Reads the configuration in `path`, what it includes, and the overrides of `environment`.
///
/// The configuration comes with its warnings; with one error or more there is none, and [`Faults`]
/// has errors and warnings. Where the definitions are in ZooKeeper, there are none in it.
pub fn check(path: &Path, environment: &Environment) -> Result<(Config, Vec<Fault>), Faults> {
    let mut loader = load::Loader::new(environment);
    loader.load(path);
    resolved(&mut loader, path)
}

/// As [`check`], with the text of the definitions.
pub fn read(path: &Path, environment: &Environment) -> Result<Checked, Faults> {
    look(path, environment).0
}

/// As [`read`], with the places that were read: what is there decides what comes of the next look.
pub fn look(path: &Path, environment: &Environment) -> (Result<Checked, Faults>, Places) {
    let mut loader = load::Loader::new(environment);
    loader.load(path);
    let places = loader.places();
    let read = resolved(&mut loader, path).map(|(config, warnings)| Checked {
        config,
        warnings,
        documents: loader.documents(),
    });
    (read, places)
}

/// Reads the sections of the main file in `path`, and the definitions in `documents`, which were pushed
/// as one set. Paths in them are relative to the directory of the main file.
pub fn check_definitions(
    path: &Path,
    documents: &[Document],
    environment: &Environment,
) -> Result<(Config, Vec<Fault>), Faults> {
    let mut loader = load::Loader::new(environment);
    loader.load(path);
    loader.load_documents(path, documents);
    resolved(&mut loader, path)
}

fn resolved(loader: &mut load::Loader<'_>, path: &Path) -> Result<(Config, Vec<Fault>), Faults> {
    let (config, faults) = resolve::resolve(loader, path);
    match config {
        Some(config) if faults.iter().all(|fault| fault.severity == Severity::Warning) => Ok((config, faults)),
        _ => Err(Faults { file: path.to_path_buf(), faults }),
    }
}

#[cfg(test)]
mod tests;

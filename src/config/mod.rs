//! The file as people write it, turned into checked values.
//!
//! [`check`] reads a configuration and everything that it includes, and either returns values that
//! the rest may rely on or all faults at once. It needs no network and no secret. The way of a
//! file: text ([`files`], [`source`]) → sections ([`load`], [`section`]) → what is written
//! ([`written`]) → what is meant ([`checks`], [`resolve`]) → [`model`].

mod checks;
mod document;
pub mod environment;
pub mod fault;
mod files;
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

pub use document::Document;
pub use environment::Environment;
pub use fault::{Fault, Faults, Severity};
pub use model::Config;
pub use secret::{Secret, SecretRef};

/// A complete and commented configuration, which `flowkeeper init` writes: for an Airflow and a
/// ZooKeeper on the same machine.
pub const EXAMPLE: &str = include_str!("../../examples/flowkeeper.toml");

/// Reads the configuration in `path`, what it includes, and the overrides of `environment`.
///
/// The configuration comes with its warnings; with one error or more there is none, and [`Faults`]
/// has errors and warnings.
pub fn check(path: &Path, environment: &Environment) -> Result<(Config, Vec<Fault>), Faults> {
    let mut loader = load::Loader::new(environment);
    loader.load(path);
    let (config, faults) = resolve::resolve(loader, path);
    match config {
        Some(config) if faults.iter().all(|fault| fault.severity == Severity::Warning) => Ok((config, faults)),
        _ => Err(Faults { file: path.to_path_buf(), faults }),
    }
}

#[cfg(test)]
mod tests;

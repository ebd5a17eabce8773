//! The files of this member as a source: one look at them is one candidate.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Candidate, Provenance, Refusal, Set, Source};
use crate::config::{self, Checked, Environment, Places};

/// Reads and checks the main file and what it includes. Reads the disk, and takes long for many
/// schedules: not for a thread that others wait for.
pub fn read(path: &Path, environment: &Environment, at: Timestamp) -> Candidate {
    look(path, environment, at).0
}

/// As [`read`], with the places that were read.
pub fn look(path: &Path, environment: &Environment, at: Timestamp) -> (Candidate, Places) {
    let provenance = |version| Provenance {
        source: Source::File,
        version,
        zookeeper_version: None,
        author: None,
        message: None,
        at,
    };
    let (read, places) = config::look(path, environment);
    let candidate = match read {
        Ok(Checked { config, warnings, documents }) => Ok(Set {
            provenance: provenance(config.version.clone()),
            config: Arc::new(config),
            warnings,
            documents: documents.into(),
        }),
        Err(faults) => Err(Box::new(Refusal { provenance: provenance(String::new()), faults })),
    };
    (candidate, places)
}

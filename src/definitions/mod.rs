//! The definitions: where a member's set comes from, and what a source has found.
//!
//! A source (the files, the znode, at a start without ZooKeeper the ledger) reads, checks the set
//! whole and hands on a [`Candidate`]. It never applies one, and it keeps nothing of a set that is
//! refused but what is wrong with it; the member goes on with the set that it has.

pub mod base;
pub mod bundle;
pub mod changes;
pub mod desk;
pub mod diff;
pub mod files;
pub mod follow;
pub mod follower;
mod footprint;
pub mod history;
pub mod reloads;
pub mod znodes;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{Config, Document, Fault, Faults, Severity};
use crate::store::model::microseconds;

/// Where a set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The files of this member.
    File,
    /// The znode `config` below the root of the home ensemble.
    Zookeeper,
    /// The latest set in force that the ledger knows, while ZooKeeper cannot be asked.
    Ledger,
}

impl Source {
    /// The word that people are shown, and that the ledger keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Zookeeper => "zookeeper",
            Self::Ledger => "ledger",
        }
    }
}

/// Where a set comes from, and which it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Provenance {
    /// Where it was read.
    pub source: Source,
    /// A digest of its text: members with the same one have the same definitions. Empty for a set whose
    /// text could not be read.
    pub version: String,
    /// The version of the znode that held it.
    pub zookeeper_version: Option<i32>,
    /// Who pushed it, where that is known.
    pub author: Option<String>,
    /// Why, where the one who pushed it said so.
    pub message: Option<String>,
    /// When it was pushed; for files, when they were read.
    #[serde(serialize_with = "microseconds")]
    pub at: Timestamp,
}

/// A set that was checked whole and may be applied.
#[derive(Debug, Clone)]
pub struct Set {
    /// The sections of the main file, and the definitions of the source.
    pub config: Arc<Config>,
    /// Which set it is.
    pub provenance: Provenance,
    /// What is probably not meant in it.
    pub warnings: Vec<Fault>,
    /// The text of the definitions, for the ledger: whoever leads keeps it with the version.
    pub documents: Arc<[Document]>,
}

/// A set that cannot be applied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which set it is.
    pub provenance: Provenance,
    /// What is wrong with it.
    pub faults: Faults,
}

/// What a source has found. Sources send one whenever they have read something new.
pub type Candidate = Result<Set, Box<Refusal>>;

impl Refusal {
    /// The first fault and how many there are, for a line.
    pub fn summary(&self) -> String {
        let Some(first) = self.faults.faults.iter().find(|fault| fault.severity == Severity::Error) else {
            return self.faults.to_string();
        };
        let place = if first.line == 0 { first.file.clone() } else { format!("{}:{}", first.file, first.line) };
        match self.faults.faults.len() {
            1 => format!("{place}: {}", first.message),
            count => format!("{place}: {} (and {} more)", first.message, count - 1),
        }
    }
}

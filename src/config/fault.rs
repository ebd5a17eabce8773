//! What is wrong with a configuration, and where.
//!
//! A fault names file, line, column, key and remedy. All faults of all files are found in one go;
//! the text shown never holds a secret, since the configuration does not.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How bad a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// The file, as it was named; for an override, the environment variable.
    pub file: String,
    /// Line, from 1; 0 where a fault has no place in the file.
    pub line: usize,
    /// Column in characters, from 1; 0 where a fault has no place in the file.
    pub column: usize,
    /// The key, with its section: `server.listen`. Empty for faults of the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// The line of the file, and how many characters of it are meant.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

impl Fault {
    /// An error that has no place in a file.
    pub fn without_place(
        file: impl Into<String>,
        key: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            file: file.into(),
            line: 0,
            column: 0,
            key: key.into(),
            message: message.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
            severity: Severity::Error,
            excerpt: None,
        }
    }
}

/// The part of a file that a fault is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The whole line.
    pub text: String,
    /// How many characters are meant, from the fault's column.
    pub width: usize,
}

/// Everything that is wrong with a configuration: at least one error, and any warnings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration {} has {} fault{}", file.display(), faults.len(), if faults.len() == 1 { "" } else { "s" })]
pub struct Faults {
    /// The main file.
    pub file: PathBuf,
    /// In the order of the files and of the lines.
    pub faults: Vec<Fault>,
}

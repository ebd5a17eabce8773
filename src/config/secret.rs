//! Secrets: references that a configuration holds, and the values that they stand for.
//!
//! A configuration never holds a secret, only where to find it. The value is read when something is
//! about to use it, and neither the reference's errors nor any `Debug` text shows it.

use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;
use crate::secret::Credential;
pub use crate::secret::Secret;

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable.
    Env(String),
    /// In a file, of which surrounding white space is not part; relative to the working directory.
    File(PathBuf),
}

impl SecretRef {
    /// Reads the secret. Files are read on every call, so a rotated secret is found.
    pub fn resolve(&self, environment: &Environment) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => {
                environment.get(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?.trim().to_owned()
            }
            Self::File(path) => match std::fs::read(path) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => text.trim().to_owned(),
                    Err(_) => return Err(SecretError::NotText(path.clone())),
                },
                Err(source) => return Err(SecretError::Unreadable { path: path.clone(), source }),
            },
        };
        if text.is_empty() { Err(SecretError::Empty(self.to_string())) } else { Ok(Secret::new(text)) }
    }

    /// The secret as something that is read at each use, so that a rotated file is found. It can be
    /// read now.
    pub fn credential(&self, environment: &Environment) -> Result<Credential, SecretError> {
        let secret = self.resolve(environment)?;
        Ok(match self {
            Self::Env(_) => Credential::Fixed(secret),
            Self::File(path) => Credential::File(path.clone()),
        })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

/// Why a secret could not be read; fits "failed to read the secret: …".
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not there.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else than text.
    #[error("{0} is not UTF-8")]
    NotText(PathBuf),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
}

//! Text that must never be shown: passwords, tokens, keys.
//!
//! A [`Secret`] has no `Display` and a `Debug` that hides it, so it cannot reach a log, an error or a
//! snapshot by accident. A [`Credential`] is where one is read from at the moment of use.

mod redaction;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

pub use redaction::Redaction;

/// A secret's value. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value, for the one request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A program and its arguments, which may be secrets. Nothing prints more than the program.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// Wraps words.
    pub fn new(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl Deref for CommandLine {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = self.len().saturating_sub(1);
        write!(f, "CommandLine({:?} with {arguments} arguments)", self.first().map_or("", String::as_str))
    }
}

/// A URL as it may be shown: without its password, wherever in it that stands.
pub fn without_password(url: &str) -> String {
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((key, _)) if key.contains("password") => format!("{key}=…"),
        _ => pair.to_owned(),
    };
    let url = match url.split_once('?') {
        Some((address, query)) => format!("{address}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&")),
        None => url.to_owned(),
    };
    // A password may hold any character, also a second `@`; the name of a user ends at the first colon.
    let parts = url.split_once("//").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match parts.and_then(|(scheme, (login, host))| Some((scheme, login.split_once(':')?.0, host))) {
        Some((scheme, user, host)) => format!("{scheme}//{user}:…@{host}"),
        None => url,
    }
}

/// A secret that may be rotated while flowkeeper runs.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Known since the start.
    Fixed(Secret),
    /// In a file, read each time that it is needed; white space around it is not part of it.
    File(PathBuf),
}

impl Credential {
    /// The secret as it is now.
    pub fn read(&self) -> Result<Secret, CredentialError> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| CredentialError::Unreadable { path: path.clone(), source })?;
                match text.trim() {
                    "" => Err(CredentialError::Empty(path.clone())),
                    secret => Ok(Secret::new(secret)),
                }
            }
        }
    }
}

/// Why a secret could not be read; fits "failed to read the secret: …".
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read as text.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let credential = Credential::Fixed(Secret::new("hunter2"));
        assert!(!format!("{credential:?}").contains("hunter2"));
        let command = CommandLine::new(vec!["print-token".to_owned(), "--password=hunter2".to_owned()]);
        assert_eq!(format!("{command:?}"), "CommandLine(\"print-token\" with 1 arguments)");
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        let cases = [
            ("sqlite://flowkeeper.db", "sqlite://flowkeeper.db"),
            ("postgres://db/flowkeeper", "postgres://db/flowkeeper"),
            ("postgres://me@db/flowkeeper", "postgres://me@db/flowkeeper"),
            ("postgres://me:hunter2@db/flowkeeper", "postgres://me:…@db/flowkeeper"),
            ("postgres://me:hun@t?r/2@db/flowkeeper", "postgres://me:…@db/flowkeeper"),
            ("postgres://:hunter2@db", "postgres://:…@db"),
            ("postgres:///x?host=/run&password=hunter2&user=me", "postgres:///x?host=/run&password=…&user=me"),
            ("hunter2", "hunter2"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_file_is_read_again_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let credential = Credential::File(path.clone());
        assert!(matches!(credential.read(), Err(CredentialError::Unreadable { .. })));
        for token in ["one", "two"] {
            std::fs::write(&path, format!(" {token}\n")).unwrap();
            assert_eq!(credential.read().unwrap().expose(), token);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(credential.read(), Err(CredentialError::Empty(_))));
    }
}

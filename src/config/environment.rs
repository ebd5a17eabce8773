//! The environment variables, as a value that is handed in.
//!
//! Variables named `FLOWKEEPER_SECTION__KEY` override a single value of the configuration; others
//! hold secrets. Taking them as a value keeps tests off the process.

use std::collections::BTreeMap;
use std::fmt;

/// What an override's name begins with.
pub const OVERRIDE_PREFIX: &str = "FLOWKEEPER_";

/// Environment variables. Those that are not UTF-8 are not in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The variables that override a value: those with the prefix and a `__` after it.
    pub fn overrides(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .range(OVERRIDE_PREFIX.to_owned()..)
            .take_while(|(name, _)| name.starts_with(OVERRIDE_PREFIX))
            .filter(|(name, _)| name[OVERRIDE_PREFIX.len()..].contains("__"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

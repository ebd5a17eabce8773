//! The text of definitions, apart from where it is kept.

/// A text of definitions, and what faults call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file that it was read from, or the name that it was pushed under.
    pub name: String,
    /// TOML.
    pub text: String,
}

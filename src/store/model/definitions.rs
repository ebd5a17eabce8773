//! Sets of definitions, as they come into force and as history shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::microseconds;

/// A set that comes into force.
#[derive(Debug, Clone)]
pub struct NewDefinitions {
    /// The digest of the definitions.
    pub version: String,
    /// `file` or `zookeeper`.
    pub source: String,
    /// The version of the znode that held it.
    pub zookeeper_version: Option<i32>,
    /// Who pushed it, where that is known.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// When it was pushed or read.
    pub pushed_at: Timestamp,
    /// How many schedules there are in it.
    pub schedules: usize,
    /// Its text: a JSON array of `{name, text}`. Holds no secret.
    pub documents: String,
}

/// A set that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DefinitionsVersion {
    /// Counts the sets; higher is newer.
    pub number: i64,
    /// The digest of the definitions.
    pub version: String,
    /// When the leader took it up.
    #[serde(serialize_with = "microseconds")]
    pub in_force_at: Timestamp,
    /// `file` or `zookeeper`.
    pub source: String,
    /// The version of the znode that held it.
    pub zookeeper_version: Option<i32>,
    /// Who pushed it, where that is known.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// When it was pushed or read.
    #[serde(serialize_with = "microseconds")]
    pub pushed_at: Timestamp,
    /// How many schedules there are in it.
    pub schedules: i64,
    /// How long its text is.
    pub size_bytes: i64,
}

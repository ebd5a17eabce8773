//! The sets that were in force, in the ledger: the leader keeps each, and a member that starts while
//! ZooKeeper is away takes up the latest.

use super::{Provenance, Set, Source};
use crate::config::Document;
use crate::store::model::{DefinitionsVersion, NewDefinitions};
use crate::store::{Leadership, Ledger, StoreError};

/// Keeps a set that comes into force; its number in the history if it is news. What the ledger itself had
/// is none, and neither is the set with nothing in it, which holds before the first push.
pub async fn keep(ledger: &Ledger, leadership: &Leadership, set: &Set) -> Result<Option<i64>, StoreError> {
    let Provenance { source, version, zookeeper_version, author, message, at } = &set.provenance;
    if *source == Source::Ledger || set.documents.is_empty() {
        return Ok(None);
    }
    let kept = NewDefinitions {
        version: version.clone(),
        source: source.as_str().to_owned(),
        zookeeper_version: *zookeeper_version,
        author: author.clone(),
        message: message.clone(),
        pushed_at: *at,
        schedules: set.config.schedules.len(),
        // Texts have a JSON form.
        documents: serde_json::to_string(&set.documents[..]).unwrap_or_default(),
    };
    ledger.keep_definitions(leadership, &kept).await
}

/// The documents of a version in the history.
pub fn documents(entry: &DefinitionsVersion, text: &str) -> Result<Vec<Document>, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt { what: format!("version {} of the definitions: {error}", entry.number) })
}

//! Folders below the root whose znodes are each about one thing of the configuration, and what becomes of
//! those whose thing has left it: they would be read for news for ever.
//!
//! Only what flowkeeper wrote is taken back: a znode without children that holds JSON about the thing whose
//! name it has. What others keep there stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tracing::info;

use crate::zookeeper::{Session, ZooKeeperError};

/// A folder below the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder {
    /// Its name, as in `health/main`.
    pub name: &'static str,
    /// The field of the JSON that tells what it is about.
    named_by: &'static str,
}

/// How ensembles are.
pub const HEALTH: Folder = Folder { name: "health", named_by: "ensemble" };

/// How Airflow's components are.
pub const AIRFLOW: Folder = Folder { name: "airflow", named_by: "name" };

/// The names in a folder that there are.
pub(super) type Names = Arc<BTreeSet<Arc<str>>>;

impl Folder {
    /// Whether a znode of this name and data is one that flowkeeper wrote.
    fn is_ours(self, name: &str, data: &[u8]) -> bool {
        let told: Option<Value> = serde_json::from_slice(data).ok();
        told.is_some_and(|told| told.get(self.named_by).and_then(Value::as_str) == Some(name))
    }

    /// Deletes what was written for other names than these; the names of what is gone.
    pub(super) async fn withdraw(
        self,
        session: &Session,
        root: &str,
        names: &Names,
    ) -> Result<Vec<String>, ZooKeeperError> {
        let mut withdrawn = Vec::new();
        let folder = format!("{root}/{}", self.name);
        let Some((children, _)) = session.get_children(&folder).await? else { return Ok(withdrawn) };
        for name in children.into_iter().filter(|name| !names.contains(name.as_str())) {
            let path = format!("{folder}/{name}");
            let Some((data, stat)) = session.get_data(&path).await? else { continue };
            if stat.children > 0 || !self.is_ours(&name, &data) {
                continue;
            }
            match session.delete(&path, stat.version).await {
                Ok(_) => {
                    info!(
                        path,
                        "what was told in ZooKeeper of something that has left the configuration is taken back"
                    );
                    withdrawn.push(name);
                }
                // Somebody has made it theirs meanwhile.
                Err(ZooKeeperError::BadVersion | ZooKeeperError::NotEmpty) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(withdrawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flowkeeper_wrote_says_what_it_is_about() {
        for (folder, name, data, is_ours) in [
            (HEALTH, "main", r#"{"ensemble": "main", "verdict": "ok"}"#, true),
            (HEALTH, "main", r#"{"ensemble": "other", "verdict": "ok"}"#, false),
            (HEALTH, "main", r#"{"name": "main"}"#, false),
            (HEALTH, "main", "notes of somebody", false),
            (HEALTH, "main", "", false),
            (AIRFLOW, "main", r#"{"name": "main", "state": "up"}"#, true),
            (AIRFLOW, "main", r#"["main"]"#, false),
        ] {
            assert_eq!(folder.is_ours(name, data.as_bytes()), is_ours, "{}/{name}: {data}", folder.name);
        }
    }
}

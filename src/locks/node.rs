//! The znode of a run in the queue for its lock: its name, by which it is known again, and its data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::domain::run::RunId;
use crate::store::model::optional_microseconds;
use crate::zookeeper::contender;

/// The runs of one store, by the names of their znodes.
///
/// The guid in a name is derived, so that a znode whose creation was not answered is found again, by
/// any member, and so that nobody's znodes are taken for ours: a `UUIDv8` (RFC 9562, section 5.8) of 60
/// bits of a hash of the store id and the number of the run in the last 62. Curator's own guids are
/// random (version 4).
#[derive(Debug, Clone)]
pub(super) struct OurRuns {
    store: [u8; 8],
}

impl OurRuns {
    pub(super) fn new(store_id: &str) -> Self {
        let mut store = [0; 8];
        store.copy_from_slice(&Sha256::digest(store_id.as_bytes())[..8]);
        Self { store }
    }

    fn guid(&self, run: RunId) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.store);
        bytes[8..].copy_from_slice(&run.0.to_be_bytes());
        // Overwrites the four bits of the version and the two of the variant.
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// What the name of a run's znode begins with; the servers add the number.
    pub(super) fn prefix(&self, run: RunId) -> String {
        contender::prefix(&self.guid(run).to_string(), contender::LOCK)
    }

    /// The run that a znode stands for; `None` for znodes of others.
    pub(super) fn run_of(&self, name: &str) -> Option<RunId> {
        let guid = name.strip_prefix("_c_")?.get(..36)?;
        let bytes = Uuid::try_parse(guid).ok()?.into_bytes();
        let number: [u8; 8] = bytes[8..].try_into().ok()?;
        let run = RunId(i64::from_be_bytes(number) & (i64::MAX >> 1));
        name.starts_with(&self.prefix(run)).then_some(run)
    }
}

/// What flowkeeper writes into a znode that queues for a lock, as JSON, for whoever looks. Fields that
/// a reader does not know are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeData {
    /// For a run: the store that it is recorded in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// For a run: its number there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// For a run: its identity in Airflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag_run_id: Option<String>,
    /// For a run: its schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The member that made the znode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// For `flowkeeper lock`: the host that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// For `flowkeeper lock`: the process there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// For `flowkeeper lock`: the program that it runs, without its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// When the znode was made, by the clock of its maker.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "optional_microseconds")]
    pub at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_again_by_the_name_of_its_znode_and_others_are_not_taken_for_it() {
        let (ours, other) = (OurRuns::new("store-a"), OurRuns::new("store-b"));
        for run in [1, 2, 4711, i64::MAX >> 1].map(RunId) {
            let name = format!("{}0000000007", ours.prefix(run));
            assert!(contender::Contender::parse(&name).is_some_and(|found| found.sequence == 7), "{name}");
            assert_eq!(ours.run_of(&name), Some(run), "{name}");
            assert_eq!(other.run_of(&name), None, "{name}");
        }
        assert_ne!(ours.prefix(RunId(1)), ours.prefix(RunId(2)));
        for name in [
            "_c_0a1b2c3d-0000-4000-8000-000000000001-lock-0000000001",
            "7f3ca1f2b4__lock__0000000002",
            "_c_",
            "_c_ä",
            "",
            &format!("_c_{}", "é".repeat(18)),
        ] {
            assert_eq!(ours.run_of(name), None, "{name}");
        }
    }
}

//! Identity: which occurrence of which schedule a DAG run is for.
//!
//! A `dag_run_id` is derived, never drawn. Two leaders, a crash or a repeated request compute the
//! same one, and Airflow's unique key turns the second into a no-op. Everything in an id is within
//! what Airflow allows, `^[A-Za-z0-9_.~:+-]+$` and at most 250 characters.

use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::schedule::{ScheduleName, TriggerKind};
use super::znode::ChangeKind;

/// The prefix of every DAG run id that flowkeeper makes.
pub const RUN_ID_PREFIX: &str = "flowkeeper__";

/// The longest `dag_run_id` that Airflow stores, in characters.
pub const RUN_ID_MAX_LENGTH: usize = 250;

/// One time that a schedule came due.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Occurrence {
    /// A nominal time.
    Nominal(Timestamp),
    /// A change of one znode. `zxid` is the mzxid of a node that was created or changed, the czxid
    /// of a child that appeared, and the czxid of the incarnation that was deleted.
    Znode {
        /// The generation of the ensemble: 0, and one more each time a rebuilt one was adopted.
        generation: u32,
        /// Whether the znode went away.
        deleted: bool,
        /// The transaction, as above.
        zxid: i64,
        /// The absolute path.
        path: String,
    },
    /// Changes that settled together.
    Batch {
        /// As above.
        generation: u32,
        /// The highest zxid among them.
        highest_zxid: i64,
        /// [`batch_hash`] of them.
        hash: String,
    },
    /// A transition of an ensemble.
    Ensemble {
        /// When it was found out; no two of an ensemble have the same.
        at: Timestamp,
        /// The ensemble's name.
        ensemble: String,
    },
    /// By hand.
    Manual {
        /// The caller's key: the same key is the same run.
        key: String,
    },
}

impl Occurrence {
    /// The part of the run id after the schedule's name.
    pub fn id_part(&self) -> String {
        fn generation_prefix(generation: u32) -> String {
            if generation == 0 { String::new() } else { format!("g{generation}.") }
        }
        match self {
            Self::Nominal(time) => time.to_string(),
            Self::Znode { generation, deleted, zxid, path } => format!(
                "{}{}{zxid:x}-{}",
                generation_prefix(*generation),
                if *deleted { 'd' } else { 'z' },
                path_hash(path)
            ),
            Self::Batch { generation, highest_zxid, hash } => {
                format!("{}b{highest_zxid:x}-{hash}", generation_prefix(*generation))
            }
            Self::Ensemble { at, ensemble } => format!("e{}-{ensemble}", at.as_microsecond()),
            Self::Manual { key } => format!("m{key}"),
        }
    }

    /// `flowkeeper__{schedule}__{occurrence}`.
    pub fn dag_run_id(&self, schedule: &ScheduleName) -> String {
        format!("{RUN_ID_PREFIX}{schedule}__{}", self.id_part())
    }
}

/// Whether `key` may stand in a run id made by hand: Airflow's characters, and short enough for the
/// longest schedule name.
pub fn is_manual_key(key: &str) -> bool {
    let room = RUN_ID_MAX_LENGTH - RUN_ID_PREFIX.len() - ScheduleName::MAX_LENGTH - "__m".len();
    !key.is_empty() && key.len() <= room && key.bytes().all(is_run_id_byte)
}

/// Airflow's alphabet of run ids.
fn is_run_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.~:+-".contains(&byte)
}

/// The schedule's name inside a run id of ours, for ids that are met in Airflow; `None` for ids
/// that flowkeeper did not make. Never fails on arbitrary text.
pub fn schedule_of(dag_run_id: &str) -> Option<ScheduleName> {
    let rest = dag_run_id.strip_prefix(RUN_ID_PREFIX)?;
    let (schedule, occurrence) = rest.split_once("__")?;
    let legal =
        !occurrence.is_empty() && dag_run_id.len() <= RUN_ID_MAX_LENGTH && occurrence.bytes().all(is_run_id_byte);
    if legal { ScheduleName::new(schedule) } else { None }
}

/// The kind of trigger that a run id of ours names; `None` for ids that flowkeeper did not make.
pub fn kind_of(dag_run_id: &str) -> Option<TriggerKind> {
    schedule_of(dag_run_id)?;
    let occurrence = occurrence_of(dag_run_id)?;
    // A generation comes before the letter.
    let letter = match occurrence.split_once('.') {
        Some((generation, rest)) if generation.starts_with('g') => rest,
        _ => occurrence,
    }
    .chars()
    .next()?;
    match letter {
        'z' | 'd' | 'b' => Some(TriggerKind::Znode),
        'e' => Some(TriggerKind::Ensemble),
        'm' => Some(TriggerKind::Manual),
        '0'..='9' | '-' => Some(TriggerKind::Cron),
        _ => None,
    }
}

/// The nominal time inside a run id of ours, if it is for one.
pub fn nominal_time_of(dag_run_id: &str) -> Option<Timestamp> {
    (kind_of(dag_run_id)? == TriggerKind::Cron).then(|| occurrence_of(dag_run_id)?.parse().ok()).flatten()
}

fn occurrence_of(dag_run_id: &str) -> Option<&str> {
    Some(dag_run_id.strip_prefix(RUN_ID_PREFIX)?.split_once("__")?.1)
}

/// The first 16 hex digits of SHA-256 over the path.
pub fn path_hash(path: &str) -> String {
    short_hex(&Sha256::digest(path.as_bytes()))
}

/// The hash of a batch: over its changes, sorted, so that the order in which they were met does not
/// matter.
pub fn batch_hash<'a>(changes: impl IntoIterator<Item = (ChangeKind, &'a str, i64)>) -> String {
    let mut changes: Vec<_> = changes.into_iter().map(|(kind, path, zxid)| (kind.as_str(), path, zxid)).collect();
    changes.sort_unstable();
    let mut hasher = Sha256::new();
    for (kind, path, zxid) in changes {
        // A path holds no NUL (ZooKeeper refuses it), so the fields cannot run into each other.
        hasher.update(kind.as_bytes());
        hasher.update([0]);
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(zxid.to_be_bytes());
    }
    short_hex(&hasher.finalize())
}

fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).fold(String::with_capacity(16), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ScheduleName {
        ScheduleName::new("nightly-load").expect("a legal name")
    }

    #[test]
    fn ids_are_those_of_the_contract() {
        let path = "/data/ready";
        let hash = path_hash(path);
        assert_eq!(hash.len(), 16);
        let znode =
            |generation, deleted| Occurrence::Znode { generation, deleted, zxid: 0x1_0000_00ab, path: path.into() };
        let cases = [
            (Occurrence::Nominal("2026-11-22T02:30:00Z".parse().expect("a time")), "2026-11-22T02:30:00Z".to_owned()),
            (znode(0, false), format!("z1000000ab-{hash}")),
            (znode(0, true), format!("d1000000ab-{hash}")),
            (znode(2, false), format!("g2.z1000000ab-{hash}")),
            (
                Occurrence::Batch { generation: 0, highest_zxid: 255, hash: "0123456789abcdef".into() },
                "bff-0123456789abcdef".into(),
            ),
            (
                Occurrence::Ensemble {
                    at: "2026-11-22T02:30:00.5Z".parse().expect("a time"),
                    ensemble: "my_zk-1".into(),
                },
                "e1795314600500000-my_zk-1".into(),
            ),
            (Occurrence::Manual { key: "fix-42".into() }, "mfix-42".into()),
        ];
        for (occurrence, expected) in cases {
            let id = occurrence.dag_run_id(&name());
            assert_eq!(id, format!("flowkeeper__nightly-load__{expected}"));
            assert_eq!(schedule_of(&id), Some(name()));
            let (kind, nominal) = match &occurrence {
                Occurrence::Nominal(time) => (TriggerKind::Cron, Some(*time)),
                Occurrence::Manual { .. } => (TriggerKind::Manual, None),
                Occurrence::Ensemble { .. } => (TriggerKind::Ensemble, None),
                Occurrence::Znode { .. } | Occurrence::Batch { .. } => (TriggerKind::Znode, None),
            };
            assert_eq!((kind_of(&id), nominal_time_of(&id)), (Some(kind), nominal));
            assert!(id.bytes().all(is_run_id_byte) && id.len() <= RUN_ID_MAX_LENGTH);
        }
    }

    #[test]
    fn a_batch_is_the_same_in_any_order() {
        let a = (ChangeKind::Created, "/a", 1);
        let b = (ChangeKind::Changed, "/b", 2);
        assert_eq!(batch_hash([a, b]), batch_hash([b, a]));
        assert_ne!(batch_hash([a, b]), batch_hash([a]));
    }

    #[test]
    fn foreign_ids_are_not_ours() {
        for id in [
            "",
            "manual__2026",
            "flowkeeper__",
            "flowkeeper__x",
            "flowkeeper__x__",
            "flowkeeper__X__m1",
            "flowkeeper__x__m 1",
        ] {
            assert_eq!(schedule_of(id), None, "{id:?}");
        }
    }

    #[test]
    fn keys_by_hand_fit_the_longest_name() {
        assert!(is_manual_key("release-1.2~rc+1"));
        assert!(is_manual_key(&"k".repeat(171)));
        for key in ["", "a b", "ä", "a/b"] {
            assert!(!is_manual_key(key), "{key:?}");
        }
        assert!(!is_manual_key(&"k".repeat(172)));
    }

    proptest::proptest! {
        /// Ids that are met in Airflow are anybody's: reading them never fails, and what is taken for
        /// ours is legal throughout.
        #[test]
        fn arbitrary_ids_are_read_without_harm(head in "(flowkeeper__)?([a-z0-9-]{0,70}__)?(g[0-9]{0,4}\\.)?", tail in ".{0,40}") {
            let id = format!("{head}{tail}");
            let schedule = schedule_of(&id);
            if let Some(schedule) = &schedule {
                let prefix = format!("{RUN_ID_PREFIX}{schedule}__");
                proptest::prop_assert!(id.starts_with(&prefix));
                proptest::prop_assert!(id.len() <= RUN_ID_MAX_LENGTH && id.bytes().all(is_run_id_byte));
            }
            proptest::prop_assert!(schedule.is_some() || kind_of(&id).is_none());
            if nominal_time_of(&id).is_some() {
                proptest::prop_assert_eq!(kind_of(&id), Some(TriggerKind::Cron));
            }
        }
    }
}

//! The key of the digests that the ledger holds: a znode under the root of the home ensemble.
//!
//! It is kept there and not in the ledger, so that a copy of the ledger tells nothing of a value, however
//! short. It protects nothing from those who can read ZooKeeper: the values themselves are there. When it
//! is lost, every value is compared or written once more, and that is all.

use uuid::Uuid;

use crate::domain::sync::digest::{Digests, KEY_BYTES};
use crate::zookeeper::{Lifetime, Session, ZooKeeperError};

/// The name of the znode under the root.
pub const KEY_NODE: &str = "sync";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// ZooKeeper did not give it, or did not take it.
    #[error("read the key of syncs at {path}: {source}")]
    ZooKeeper {
        /// The znode.
        path: String,
        /// Why.
        source: ZooKeeperError,
    },
    /// Somebody else wrote something else there.
    #[error("read the key of syncs at {path}: it holds something else")]
    Foreign {
        /// The znode.
        path: String,
    },
}

/// The key that there is, or `None`.
pub async fn find(session: &Session, root: &str) -> Result<Option<Digests>, KeyError> {
    let path = path(root);
    match session.get_data(&path).await {
        Ok(None) => Ok(None),
        Ok(Some((data, _))) => parse(&data).map(Digests::new).map(Some).ok_or(KeyError::Foreign { path }),
        Err(source) => Err(KeyError::ZooKeeper { path, source }),
    }
}

/// The key that there is, or a new one.
pub(super) async fn find_or_make(session: &Session, root: &str) -> Result<Digests, KeyError> {
    if let Some(digests) = find(session, root).await? {
        return Ok(digests);
    }
    let failed = |source| KeyError::ZooKeeper { path: path(root), source };
    session.make_path(root).await.map_err(failed)?;
    session.create(&path(root), drawn().as_bytes(), Lifetime::Persistent).await.map_err(failed)?;
    // Whoever was first made it.
    find(session, root).await?.ok_or_else(|| KeyError::Foreign { path: path(root) })
}

/// A key for one look, which equals no other: everything that can be compared is.
pub fn throwaway() -> Digests {
    parse(drawn().as_bytes()).map_or_else(|| Digests::new([0; KEY_BYTES]), Digests::new)
}

fn path(root: &str) -> String {
    if root == "/" { format!("/{KEY_NODE}") } else { format!("{root}/{KEY_NODE}") }
}

/// 64 hex digits, 244 bits of them random.
fn drawn() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn parse(data: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let text = std::str::from_utf8(data).ok()?.trim();
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; KEY_BYTES];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_drawn() {
        let text = drawn();
        assert_ne!(text, drawn());
        let key = parse(text.as_bytes()).expect("a key");
        let written: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written.concat(), text);
        for other in ["", "5f", &"g".repeat(64), &"5f".repeat(33), &"é".repeat(32)] {
            assert!(parse(other.as_bytes()).is_none(), "{other}");
        }
    }
}

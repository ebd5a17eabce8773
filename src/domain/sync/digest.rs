//! What is remembered of a value that was written: enough to notice that it has changed, and no more.
//!
//! A plain digest of a short password could be guessed by trying. So it is keyed, and the key is kept in
//! ZooKeeper, beside the values themselves: whoever reads only the ledger learns nothing, and whoever
//! reads the key needs no guess. A digest that was made with another key (of an ensemble that was rebuilt)
//! equals none, and then the values are compared, or written again.

use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::entry::{EntryKind, EntryValue};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// How much of a digest is kept, in bytes: two values alike by chance are one case in 2^64.
const DIGEST_BYTES: usize = 8;
/// How much of the digest of the key tells keys apart, in bytes.
const KEY_ID_BYTES: usize = 4;

/// Makes digests with one key.
#[derive(Clone)]
pub struct Digests {
    key: [u8; KEY_BYTES],
    key_id: String,
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digests").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Digests {
    /// With this key.
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        let key_id = hex(&Sha256::digest(key)[..KEY_ID_BYTES]);
        Self { key, key_id }
    }

    /// The digest of a value in its place, so that equal values in two places do not look alike.
    pub fn of(&self, airflow: &str, kind: EntryKind, key: &str, value: &EntryValue) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        for part in [airflow.as_bytes(), kind.as_str().as_bytes(), key.as_bytes(), &value.canonical()] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        format!("{}:{}", self.key_id, hex(&mac.finalize().into_bytes()[..DIGEST_BYTES]))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_key_place_and_value() {
        let (ours, other) = (Digests::new([1; KEY_BYTES]), Digests::new([2; KEY_BYTES]));
        let value = |text: &str| EntryValue::Variable(text.to_owned());
        let digest = ours.of("main", EntryKind::Variables, "a", &value("x"));
        assert_eq!(digest, ours.of("main", EntryKind::Variables, "a", &value("x")));
        for different in [
            other.of("main", EntryKind::Variables, "a", &value("x")),
            ours.of("test", EntryKind::Variables, "a", &value("x")),
            ours.of("main", EntryKind::Pools, "a", &value("x")),
            ours.of("main", EntryKind::Variables, "b", &value("x")),
            ours.of("main", EntryKind::Variables, "a", &value("y")),
        ] {
            assert_ne!(digest, different);
        }
        assert!(!format!("{ours:?}").contains("1, 1"), "{ours:?}");
    }
}

//! The keys of znodes in the ledger: their paths, as far as a database takes them for keys.
//!
//! An entry of PostgreSQL's indexes holds at most a third of a page, 2,704 bytes; ZooKeeper's paths are
//! limited only by its requests, of a megabyte. A longer path is known by its beginning and its hash.

use std::borrow::Cow;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

/// How many bytes of a path are a key as they are: with a schedule's name well below the limit.
const LONGEST: usize = 1_000;

/// What stands for the path in the key of its row.
pub(super) fn key(path: &str) -> Cow<'_, str> {
    if path.len() <= LONGEST {
        return Cow::Borrowed(path);
    }
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(path));
    Cow::Owned(format!("{}…{hash}", &path[..path.floor_char_boundary(LONGEST)]))
}

/// The path itself, where the key is not.
pub(super) fn full(path: &str) -> Option<&str> {
    Some(path).filter(|path| path.len() > LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_own_key_until_it_is_too_long_for_one() {
        let (short, long) = (format!("/{}", "a".repeat(LONGEST - 1)), format!("/{}", "ä".repeat(400_000)));
        assert_eq!((key(&short).as_ref(), full(&short)), (short.as_str(), None));
        assert_eq!(full(&long), Some(long.as_str()));
        assert!(key(&long).len() < 1_100 && key(&long).starts_with("/ää"));
        let sibling = format!("{long}ä");
        assert_ne!(key(&long), key(&sibling));
    }
}

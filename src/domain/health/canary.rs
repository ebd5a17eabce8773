//! How the canary's znodes are named, so that nobody takes them for somebody's data.

use uuid::Uuid;

/// How their names begin.
const PREFIX: &str = "flowkeeper-canary-";

/// The name of a canary's znode, a new one each time.
pub fn canary_name() -> String {
    format!("{PREFIX}{}", Uuid::new_v4().simple())
}

/// Whether a canary has made the znode of this name, this flowkeeper's or another one's.
pub fn is_canary(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX);
    id.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_known_by_its_name_and_nothing_else_is() {
        assert!(is_canary(&canary_name()));
        for other in ["flowkeeper-canary-", "flowkeeper-canary-of-the-mine", "canary", "flowkeeper", ""] {
            assert!(!is_canary(other), "{other}");
        }
    }
}

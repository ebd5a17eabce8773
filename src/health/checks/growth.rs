//! How much each server holds: znodes, data, watches, files.

use super::{Reading, Seen};
use crate::domain::health::Finding;

/// One number of `mntr` by its limits.
pub(super) fn gauge(seen: Seen<'_>, key: &str, what: &str) -> Finding {
    match seen.metric(key) {
        Reading::Value(value) => {
            let unit = seen.check.info().unit.unwrap_or_default();
            seen.by_limits(value, format!("{value} {unit} {what}."))
        }
        other => seen.without_value(other),
    }
}

pub(super) fn znode_count(seen: Seen<'_>) -> Finding {
    let known = seen.server.summary.as_ref().ok().and_then(|summary| summary.znodes);
    match (seen.metric("znode_count"), known) {
        (Reading::Value(znodes), _) | (_, Some(znodes)) => {
            seen.by_limits(znodes, format!("The server holds {znodes} znodes."))
        }
        (other, None) => seen.without_value(other),
    }
}

pub(super) fn directory_size(seen: Seen<'_>) -> Finding {
    match &seen.server.directory_bytes {
        #[expect(clippy::cast_precision_loss, reason = "no disk has 2^53 bytes")]
        Ok(bytes) => {
            let meaning = format!("Snapshots and transaction logs take {bytes} bytes; a log is allocated in advance.");
            seen.by_limits(*bytes as f64, meaning)
        }
        Err(why) => seen.unknown(super::unknown_because(why)),
    }
}

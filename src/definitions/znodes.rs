//! The znode `config` and its parts: read whole, written in one step, cleaned up.
//!
//! Parts are made before the znode that lists them is set, in the version that was read: whoever reads
//! finds one set or the other, and of two who write at once one is told. What a writer that died left
//! behind is never listed, and is deleted later.

use std::collections::HashSet;

use super::bundle::{self, Bundle, Layout, Manifest, Part, Rubbish};
use crate::domain::znode::ZnodeStat;
use crate::zookeeper::{Lifetime, Session, ZooKeeperError};

/// Where parts are, below the znode `config`.
const PARTS: &str = "parts";

/// How often a set is read again whose parts went while they were read: another was pushed meanwhile.
const READS: u32 = 5;

/// How long before the set in ZooKeeper was pushed a part that it does not list must have been touched,
/// to be nobody's. Longer than any push takes.
const PUSH_TAKES_MS: i64 = 10 * 60 * 1_000;

/// How old a part is that a push left behind that never ended. Clocks may differ by less.
const ABANDONED_MS: i64 = 24 * 60 * 60 * 1_000;

/// What there is in ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is no such znode, or it is empty.
    Nothing {
        /// Of the empty znode.
        stat: Option<ZnodeStat>,
    },
    /// A set.
    Set(Box<Bundle>, ZnodeStat),
    /// Something else.
    Rubbish(Rubbish, ZnodeStat),
}

impl Found {
    /// The stat of the znode, if there is one.
    pub fn stat(&self) -> Option<&ZnodeStat> {
        match self {
            Self::Nothing { stat } => stat.as_ref(),
            Self::Set(_, stat) | Self::Rubbish(_, stat) => Some(stat),
        }
    }
}

/// Reads the set in the znode at `path`.
pub async fn read(session: &Session, path: &str) -> Result<Found, ZooKeeperError> {
    let mut before: Option<(i64, i64)> = None;
    let mut reads = 0;
    loop {
        reads += 1;
        let Some((data, stat)) = session.get_data(path).await? else { return Ok(Found::Nothing { stat: None }) };
        let (bundle, names) = match bundle::read(&data) {
            Ok(Manifest::Empty) => return Ok(Found::Nothing { stat: Some(stat) }),
            Ok(Manifest::Whole(bundle)) => return Ok(Found::Set(Box::new(bundle), stat)),
            Ok(Manifest::Parts { bundle, parts }) => (bundle, parts),
            Err(rubbish) => return Ok(Found::Rubbish(rubbish, stat)),
        };
        if let Some(parts) = read_parts(session, path, names).await? {
            return Ok(match bundle::join(bundle, &parts) {
                Ok(bundle) => Found::Set(Box::new(bundle), stat),
                Err(rubbish) => Found::Rubbish(rubbish, stat),
            });
        }
        let now = (stat.czxid, stat.mzxid);
        if before.replace(now) == Some(now) || reads == READS {
            return Ok(Found::Rubbish(Rubbish::Part("not there"), stat));
        }
    }
}

/// The parts in their order; `None` if one is not there.
async fn read_parts(session: &Session, path: &str, names: Vec<String>) -> Result<Option<Vec<Part>>, ZooKeeperError> {
    // All requests go out before the first answer is waited for.
    let answers: Vec<_> = names.iter().map(|name| session.get_data(&part_path(path, name))).collect();
    let mut parts = Vec::with_capacity(names.len());
    for (name, answer) in names.into_iter().zip(answers) {
        let Some((data, _)) = answer.await? else { return Ok(None) };
        parts.push(Part { name, data });
    }
    Ok(Some(parts))
}

fn part_path(path: &str, name: &str) -> String {
    format!("{path}/{PARTS}/{name}")
}

/// Writes a set over the one that was read; the new version of the znode, or `None` if somebody else was
/// quicker. `base` is the version that was read, if there was a znode.
///
/// After [`ZooKeeperError::Unknown`] it may have been written.
pub async fn write(
    session: &Session,
    path: &str,
    layout: &Layout,
    base: Option<i32>,
) -> Result<Option<i32>, ZooKeeperError> {
    let base = match base {
        Some(base) => base,
        None if layout.parts.is_empty() => {
            let made = make(session, path, &layout.manifest).await?;
            return Ok(made.then_some(0));
        }
        // Parts need a znode to be below of.
        None if make(session, path, b"").await? => 0,
        None => return Ok(None),
    };
    if !layout.parts.is_empty() {
        session.make_path(&format!("{path}/{PARTS}")).await?;
    }
    for part in &layout.parts {
        let at = part_path(path, &part.name);
        // Touched, a part that is there already is not taken for one that was left behind.
        if !session.create(&at, &part.data, Lifetime::Persistent).await? {
            session.set_data(&at, &part.data, None).await?;
        }
    }
    match session.set_data(path, &layout.manifest, Some(base)).await {
        Err(ZooKeeperError::BadVersion) => Ok(None),
        done => done,
    }
}

/// Makes the znode and what is missing above it; `false` if it is there.
async fn make(session: &Session, path: &str, data: &[u8]) -> Result<bool, ZooKeeperError> {
    match session.create(path, data, Lifetime::Persistent).await {
        Err(ZooKeeperError::NoParent) => {
            let (parent, _) = path.rsplit_once('/').unwrap_or_default();
            session.make_path(parent).await?;
            session.create(path, data, Lifetime::Persistent).await
        }
        made => made,
    }
}

/// Deletes the parts that belong to no set and to no push under way; how many. `now_ms` is the time in
/// milliseconds since 1970.
pub async fn clean(session: &Session, path: &str, now_ms: i64) -> Result<u32, ZooKeeperError> {
    let Some((children, _)) = session.get_children(&format!("{path}/{PARTS}")).await? else { return Ok(0) };
    // Read after the children: what is listed from now on was touched since.
    let Some((data, manifest)) = session.get_data(path).await? else { return Ok(0) };
    let listed: HashSet<String> = match bundle::read(&data) {
        Ok(Manifest::Parts { parts, .. }) => parts.into_iter().collect(),
        Ok(Manifest::Whole(_) | Manifest::Empty) => HashSet::new(),
        // Whatever it is, it may need them.
        Err(_) => return Ok(0),
    };
    let mut deleted = 0;
    for name in children.into_iter().filter(|name| bundle::is_part(name) && !listed.contains(name)) {
        let at = part_path(path, &name);
        let Some(part) = session.stat(&at).await? else { continue };
        if !is_nobodys(part.mtime_ms, manifest.mtime_ms, now_ms) {
            continue;
        }
        match session.delete(&at, part.version).await {
            Ok(was_there) => deleted += u32::from(was_there),
            // Somebody is about to push it again.
            Err(ZooKeeperError::BadVersion) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Whether a part that is not listed belongs to nobody, given when it and the znode that lists parts were
/// last written.
fn is_nobodys(part_ms: i64, manifest_ms: i64, now_ms: i64) -> bool {
    part_ms.saturating_add(PUSH_TAKES_MS) < manifest_ms || part_ms.saturating_add(ABANDONED_MS) < now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_nobodys_when_no_push_can_be_about_it() {
        let (minute, hour) = (60_000, 3_600_000);
        let now = 1_000 * hour;
        for (case, part, manifest, expected) in [
            ("of the set before", now - hour, now, true),
            ("of a push that began a moment before the last one ended", now - 2 * minute, now, false),
            ("of a push that goes on", now, now - hour, false),
            ("of a push that broke off an hour ago", now - hour, now - 2 * hour, false),
            ("of a push that broke off yesterday", now - 25 * hour, now - 26 * hour, true),
            ("from the future", now + hour, now, false),
        ] {
            assert_eq!(is_nobodys(part, manifest, now), expected, "{case}");
        }
    }
}

//! A look at everything that a trigger watches: stats only, pipelined; and what follows from it.
//!
//! The look itself decides nothing. It tells which znodes have to be read, and each of them is then
//! read and judged like one that a watch hinted at. What it does decide, before anything may fire,
//! is whether this ensemble has the history that the cursors belong to.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::decide::Sight;
use super::left_out::LeftOut;
use crate::domain::schedule::{Initial, WatchScope};
use crate::domain::znode::{TimeWentBack, ZnodeStat, ZnodeVersion, check_deletion, compare};
use crate::zookeeper::{Session, ZooKeeperError};

/// How many requests of one look may be under way. More gains nothing on a local server, and a
/// server holds all connections back when 1,000 requests wait.
const PIPELINE: usize = 256;

/// What was last handled, by path.
pub(super) type Cursors = HashMap<Arc<str>, ZnodeVersion>;

/// What a look saw.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The watched znode itself.
    pub(super) root: Option<ZnodeStat>,
    /// When there is no such znode: its nearest ancestor that exists.
    pub(super) above: Option<ZnodeStat>,
    /// The znodes that can fire.
    pub(super) nodes: HashMap<Arc<str>, ZnodeStat>,
    /// Paths below which nothing could be seen.
    pub(super) unreadable: Vec<Arc<str>>,
    /// Paths that were deleted while the look went on: their parents' stats may be older than that.
    pub(super) vanished: Vec<Arc<str>>,
}

impl Snapshot {
    /// The highest zxid in it.
    pub(super) fn highest_zxid(&self) -> i64 {
        let stats = self.nodes.values().chain(&self.root).chain(&self.above);
        stats.map(|stat| stat.czxid.max(stat.mzxid).max(stat.pzxid)).max().unwrap_or(0)
    }

    /// The pzxid of the nearest ancestor of `path` that exists.
    fn ancestor_pzxid(&self, root: &str, path: &str) -> i64 {
        let mut ancestor = path;
        while ancestor.len() > root.len() {
            ancestor = &ancestor[..ancestor.rfind('/').unwrap_or(0).max(1)];
            if let Some(stat) = self.nodes.get(ancestor) {
                return stat.pzxid;
            }
        }
        let outermost = self.root.as_ref().or(self.above.as_ref());
        outermost.map_or(0, |stat| stat.pzxid)
    }
}

/// Looks at everything in `scope` but what is `left_out`; `None` when `path` as a parent is still as in `unchanged`, and
/// so none of its children came or went.
pub(super) async fn look(
    session: Session,
    path: Arc<str>,
    scope: WatchScope,
    left_out: LeftOut,
    unchanged: Option<ZnodeVersion>,
) -> Result<Option<Snapshot>, ZooKeeperError> {
    if unchanged.is_some() && session.stat(&path).await?.as_ref().map(ZnodeStat::seen_as_parent) == unchanged {
        return Ok(None);
    }
    let mut snapshot =
        Snapshot { root: None, above: None, nodes: HashMap::new(), unreadable: Vec::new(), vanished: Vec::new() };
    match scope {
        WatchScope::Node => {
            snapshot.root = session.stat(&path).await?;
            if let Some(stat) = snapshot.root {
                snapshot.nodes.insert(Arc::clone(&path), stat);
            }
        }
        WatchScope::Children => look_at_children(&session, &path, &left_out, &mut snapshot).await?,
        WatchScope::Subtree => look_at_subtree(&session, &path, &left_out, &mut snapshot).await?,
    }
    if snapshot.root.is_none() && path.len() > 1 {
        snapshot.above = Some(session.nearest_ancestor(&path).await?);
    }
    Ok(Some(snapshot))
}

/// A child's path.
pub(super) fn join(parent: &str, name: &str) -> Arc<str> {
    if parent == "/" { format!("/{name}").into() } else { format!("{parent}/{name}").into() }
}

async fn look_at_children(
    session: &Session,
    path: &Arc<str>,
    left_out: &LeftOut,
    snapshot: &mut Snapshot,
) -> Result<(), ZooKeeperError> {
    let names = match session.get_children(path).await {
        Ok(Some((names, stat))) => {
            snapshot.root = Some(stat);
            names
        }
        Ok(None) => return Ok(()),
        Err(error) if error.ends_session() => return Err(error),
        Err(_) => {
            snapshot.root = session.stat(path).await?;
            snapshot.unreadable.push(Arc::clone(path));
            return Ok(());
        }
    };
    snapshot.nodes.reserve(names.len());
    let mut children = names.iter().map(|name| join(path, name)).filter(|child| !left_out.covers(child));
    let mut answers = FuturesUnordered::new();
    loop {
        while answers.len() < PIPELINE
            && let Some(child) = children.next()
        {
            let stat = session.stat(&child);
            answers.push(async move { (child, stat.await) });
        }
        match answers.next().await {
            None => return Ok(()),
            Some((_, Err(error))) if error.ends_session() => return Err(error),
            Some((child, Err(_))) => snapshot.unreadable.push(child),
            Some((child, Ok(Some(stat)))) => {
                snapshot.nodes.insert(child, stat);
            }
            Some((child, Ok(None))) => snapshot.vanished.push(child),
        }
    }
}

async fn look_at_subtree(
    session: &Session,
    root: &Arc<str>,
    left_out: &LeftOut,
    snapshot: &mut Snapshot,
) -> Result<(), ZooKeeperError> {
    let mut todo = vec![Arc::clone(root)];
    let mut answers = FuturesUnordered::new();
    loop {
        while answers.len() < PIPELINE
            && let Some(path) = todo.pop()
        {
            let children = session.get_children(&path);
            answers.push(async move { (path, children.await) });
        }
        let stat = match answers.next().await {
            None => return Ok(()),
            Some((path, Ok(Some((names, stat))))) => {
                todo.extend(names.iter().map(|name| join(&path, name)).filter(|child| !left_out.covers(child)));
                Some((path, stat))
            }
            Some((path, Ok(None))) => {
                if path != *root {
                    snapshot.vanished.push(path);
                }
                None
            }
            Some((_, Err(error))) if error.ends_session() => return Err(error),
            Some((path, Err(_))) => {
                let stat = session.stat(&path).await?;
                snapshot.unreadable.push(Arc::clone(&path));
                stat.map(|stat| (path, stat))
            }
        };
        match stat {
            Some((path, stat)) if path == *root => snapshot.root = Some(stat),
            Some((path, stat)) => {
                snapshot.nodes.insert(path, stat);
            }
            None => {}
        }
    }
}

/// What has to be done after a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// These have to be read and judged, in this order.
    pub(super) reads: Vec<(Arc<str>, Sight)>,
    /// These are handled by having been seen.
    pub(super) moves: Vec<(Arc<str>, ZnodeVersion)>,
    /// What to remember of the watched znode as a parent, once all else is recorded.
    pub(super) parent: Option<ParentMove>,
}

/// The watched znode is another one, or had children created or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParentMove {
    /// How it was seen; `None` when it does not exist.
    pub(super) seen: Option<ZnodeVersion>,
}

/// What a look is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) root: &'a str,
    pub(super) scope: WatchScope,
    pub(super) cursors: &'a Cursors,
    /// Whether the trigger's first look has been completed before.
    pub(super) initialized: bool,
    /// What the first look does with what exists.
    pub(super) initial: Initial,
    /// Whether templates need the data of what was handled.
    pub(super) needs_data: bool,
    /// Whether this is the first look of a session. A later one may have been overtaken by reads
    /// of the same session, and older stats in it are no news.
    pub(super) fresh: bool,
}

/// A path, and how it shows that the ensemble has another history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherHistory {
    pub(super) path: Arc<str>,
    pub(super) error: TimeWentBack,
}

/// Compares a look with the cursors. `wanted` says which paths can fire at all.
pub(super) fn plan(
    snapshot: &Snapshot,
    known: &Known<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Plan, OtherHistory> {
    let mut plan = Plan::default();
    let other_history =
        |path: &Arc<str>, error| if known.fresh { Err(OtherHistory { path: Arc::clone(path), error }) } else { Ok(()) };

    let mut paths: Vec<_> = snapshot.nodes.iter().filter(|(path, _)| wanted(path)).collect();
    // In the order in which they were changed, so that runs are recorded in that order.
    paths.sort_unstable_by(|(a_path, a), (b_path, b)| (a.mzxid, a_path).cmp(&(b.mzxid, b_path)));
    for (path, stat) in paths {
        let handled = known.cursors.get(path).copied();
        match compare(handled, Some(stat.seen())) {
            Err(error) => other_history(path, error)?,
            Ok(None) => {}
            Ok(Some(_)) if handled.is_none() && !known.initialized => {
                if known.initial == Initial::Ignore && !known.needs_data {
                    plan.moves.push((Arc::clone(path), stat.seen()));
                } else {
                    plan.reads.push((Arc::clone(path), Sight::First));
                }
            }
            Ok(Some(_)) => plan.reads.push((Arc::clone(path), Sight::Usual)),
        }
    }

    let is_parent_row = |path: &str| known.scope != WatchScope::Node && path == known.root;
    for (path, handled) in known.cursors {
        if snapshot.nodes.contains_key(path) || is_parent_row(path) || is_below(path, &snapshot.unreadable) {
            continue;
        }
        if !is_below(path, &snapshot.vanished)
            && let Err(error) = check_deletion(*handled, snapshot.ancestor_pzxid(known.root, path))
        {
            other_history(path, error)?;
        }
        plan.reads.push((Arc::clone(path), Sight::Usual));
    }

    if known.scope != WatchScope::Node {
        let root: Arc<str> = known.root.into();
        let handled = known.cursors.get(&root).copied();
        let now = snapshot.root.as_ref().map(ZnodeStat::seen_as_parent);
        if let (Some(handled), None, Some(above)) = (handled, now, &snapshot.above)
            && let Err(error) = check_deletion(handled, above.pzxid)
        {
            other_history(&root, error)?;
        }
        match compare(handled, now) {
            Err(error) => other_history(&root, error)?,
            Ok(None) => {}
            Ok(Some(_)) => plan.parent = Some(ParentMove { seen: now }),
        }
    }
    Ok(plan)
}

/// Whether `path` is one of `above`, or below one of them.
fn is_below(path: &str, above: &[Arc<str>]) -> bool {
    above.iter().any(|above| {
        path.strip_prefix(&**above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || &**above == "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(czxid: i64, mzxid: i64, pzxid: i64) -> ZnodeStat {
        ZnodeStat {
            czxid,
            mzxid,
            pzxid,
            ctime_ms: 0,
            mtime_ms: 0,
            version: i32::from(mzxid > czxid),
            cversion: 0,
            size_bytes: 0,
            children: 0,
        }
    }

    fn snapshot(root: Option<ZnodeStat>, nodes: &[(&str, ZnodeStat)]) -> Snapshot {
        Snapshot {
            root,
            above: root.is_none().then(|| stat(0, 0, 40)),
            nodes: nodes.iter().map(|(path, stat)| ((*path).into(), *stat)).collect(),
            unreadable: Vec::new(),
            vanished: Vec::new(),
        }
    }

    fn cursors(entries: &[(&str, ZnodeVersion)]) -> Cursors {
        entries.iter().map(|(path, version)| ((*path).into(), *version)).collect()
    }

    fn known(cursors: &Cursors) -> Known<'_> {
        Known {
            root: "/r",
            scope: WatchScope::Subtree,
            cursors,
            initialized: true,
            initial: Initial::Ignore,
            needs_data: false,
            fresh: true,
        }
    }

    fn reads(plan: &Plan) -> Vec<&str> {
        plan.reads.iter().map(|(path, _)| &**path).collect()
    }

    #[test]
    fn only_what_differs_is_read_in_the_order_of_its_change() {
        let same = stat(10, 10, 10);
        let handled = cursors(&[
            ("/r", stat(5, 5, 30).seen_as_parent()),
            ("/r/same", same.seen()),
            ("/r/set", stat(11, 11, 11).seen()),
            ("/r/gone", stat(12, 12, 12).seen()),
        ]);
        let seen = snapshot(
            Some(stat(5, 5, 30)),
            &[("/r/same", same), ("/r/set", stat(11, 35, 11)), ("/r/new", stat(33, 33, 33))],
        );
        let plan = plan(&seen, &known(&handled), |_| true).expect("one history");
        assert_eq!(reads(&plan), ["/r/new", "/r/set", "/r/gone"]);
        assert_eq!((plan.moves.len(), plan.parent), (0, None));
    }

    #[test]
    fn the_first_look_follows_initial() {
        let none = Cursors::new();
        let seen = snapshot(Some(stat(5, 5, 30)), &[("/r/a", stat(10, 10, 10)), ("/r/b", stat(12, 14, 12))]);
        let first = Known { initialized: false, ..known(&none) };
        let ignored = plan(&seen, &first, |_| true).expect("one history");
        assert_eq!(ignored.moves.len(), 2);
        assert_eq!(ignored.parent, Some(ParentMove { seen: Some(stat(5, 5, 30).seen_as_parent()) }));
        assert!(ignored.reads.is_empty(), "stats are enough to ignore");
        for changed in [Known { initial: Initial::Fire, ..first }, Known { needs_data: true, ..first }] {
            let plan = plan(&seen, &changed, |_| true).expect("one history");
            assert_eq!(plan.reads, [("/r/a".into(), Sight::First), ("/r/b".into(), Sight::First)]);
        }
        let filtered = plan(&seen, &first, |path| path == "/r/b").expect("one history");
        assert_eq!(filtered.moves.len(), 1);
    }

    #[test]
    fn a_rebuilt_ensemble_fires_nothing() {
        let handled = cursors(&[("/r", stat(50, 50, 90).seen_as_parent()), ("/r/a", stat(60, 80, 60).seen())]);
        let rebuilt = [
            // The same paths again, under small zxids.
            snapshot(Some(stat(2, 2, 3)), &[("/r/a", stat(3, 3, 3))]),
            // Only other paths, which would all be new.
            snapshot(Some(stat(2, 2, 4)), &[("/r/b", stat(4, 4, 4))]),
            // Nothing at all: an ancestor says that nothing was deleted so late.
            snapshot(None, &[]),
            // Restored to an earlier state.
            snapshot(Some(stat(50, 50, 70)), &[("/r/a", stat(60, 70, 60))]),
        ];
        for seen in rebuilt {
            assert!(plan(&seen, &known(&handled), |_| true).is_err(), "{seen:?}");
            let later = Known { fresh: false, ..known(&handled) };
            assert!(plan(&seen, &later, |_| true).is_ok(), "an overtaken look is no proof: {seen:?}");
        }
    }

    #[test]
    fn deletions_are_believed_when_an_ancestor_shows_them() {
        let handled = cursors(&[("/r", stat(5, 5, 30).seen_as_parent()), ("/r/d/x", stat(12, 20, 12).seen())]);
        // With its parent, with the root, and alone.
        for seen in [
            snapshot(Some(stat(5, 5, 31)), &[]),
            snapshot(None, &[]),
            snapshot(Some(stat(5, 5, 30)), &[("/r/d", stat(8, 8, 25))]),
        ] {
            let plan = plan(&seen, &known(&handled), |_| true).expect("one history");
            assert!(reads(&plan).contains(&"/r/d/x"), "{seen:?}");
        }
    }

    #[test]
    fn what_was_deleted_during_the_look_is_no_other_history() {
        let handled = cursors(&[("/r", stat(5, 5, 30).seen_as_parent()), ("/r/d/x", stat(12, 35, 12).seen())]);
        let mut seen = snapshot(Some(stat(5, 5, 30)), &[]);
        assert!(plan(&seen, &known(&handled), |_| true).is_err());
        seen.vanished.push("/r/d".into());
        assert_eq!(reads(&plan(&seen, &known(&handled), |_| true).expect("one history")), ["/r/d/x"]);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_deleted() {
        let handled = cursors(&[
            ("/r", stat(5, 5, 30).seen_as_parent()),
            ("/r/d", stat(8, 8, 8).seen()),
            ("/r/d/x", stat(12, 20, 12).seen()),
            ("/r/dx", stat(13, 13, 13).seen()),
        ]);
        let mut seen = snapshot(Some(stat(5, 5, 30)), &[("/r/d", stat(8, 8, 8))]);
        seen.unreadable.push("/r/d".into());
        let plan = plan(&seen, &known(&handled), |_| true).expect("one history");
        assert_eq!(reads(&plan), ["/r/dx"]);
    }
}

//! Teams: what the schedules of one may touch, and what a caller who is bound to one may act on.
//!
//! Both are allow-lists: what no glob names is not the team's, and what nobody owns is nobody's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher, GlobSet};

use super::schedule::WatchScope;

/// The teams in force, by name.
pub type Teams = Arc<BTreeMap<Arc<str>, Arc<Team>>>;

/// A team: the limits of the schedules whose `owner` it is.
#[derive(Debug)]
pub struct Team {
    /// The DAGs that they may run.
    pub dags: NameGlobs,
    /// The znodes that they may watch, whichever ensemble they are in.
    pub znodes: ZnodeGlobs,
    /// The locks that their runs may take.
    pub locks: NameGlobs,
}

/// Names without parts, as globs.
#[derive(Debug)]
pub struct NameGlobs {
    /// As written.
    pub patterns: Vec<String>,
    /// Compiled.
    pub set: GlobSet,
}

impl NameGlobs {
    /// Whether one of them matches.
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

/// Paths of znodes, as globs in which `*` stays within a part. `/a/**` is `/a` and all that is below it.
#[derive(Debug)]
pub struct ZnodeGlobs {
    /// As written.
    pub patterns: Vec<String>,
    areas: Vec<Area>,
}

/// The znodes that one glob stands for.
#[derive(Debug)]
struct Area {
    whole: GlobMatcher,
    below: Option<Below>,
}

/// A glob that ends in a wildcard of its own: whatever a znode below is named, it matches.
#[derive(Debug)]
enum Below {
    /// `…/*`: every child of what matches.
    Children(GlobMatcher),
    /// `…/**`: all that is below what matches.
    Everything(GlobMatcher),
}

impl ZnodeGlobs {
    /// Patterns that are no globs match nothing.
    pub fn new(patterns: Vec<String>) -> Self {
        let glob =
            |pattern: &str| Some(GlobBuilder::new(pattern).literal_separator(true).build().ok()?.compile_matcher());
        let area = |pattern: &String| {
            let everything = || {
                let above = pattern.strip_suffix("**")?;
                // `**` alone is all there is, like `/**`.
                let above = if above.is_empty() { above } else { above.strip_suffix('/')? };
                glob(above).map(Below::Everything)
            };
            let children = || pattern.strip_suffix("/*").and_then(glob).map(Below::Children);
            Some(Area { whole: glob(pattern)?, below: everything().or_else(children) })
        };
        let areas = patterns.iter().filter_map(area).collect();
        Self { patterns, areas }
    }

    /// Whether all that a trigger with this `watch` at `path` may come due for is within one of them,
    /// whatever it will be named.
    pub fn cover(&self, path: &str, watch: WatchScope) -> bool {
        self.areas.iter().any(|area| match (watch, &area.below) {
            (_, Some(Below::Everything(above))) if self_and_above(path).any(|path| above.is_match(path)) => true,
            (WatchScope::Node, _) => area.whole.is_match(path),
            (WatchScope::Children, Some(Below::Children(parent))) => parent.is_match(path),
            _ => false,
        })
    }
}

/// A path and those above it, the last of which is empty: `/a/b`, `/a` and the root.
fn self_and_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| path.rsplit_once('/').map(|(above, _)| above))
}

/// What a caller may act on. Reading is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Whatever its role allows.
    Everything,
    /// What this team owns.
    Team(Arc<str>),
}

/// Why a caller may not act on something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfReach {
    /// The definitions in force have no such team.
    NoTeam {
        /// The team that the caller is bound to.
        team: Arc<str>,
    },
    /// It is not the team's.
    OtherOwner {
        /// The team that the caller is bound to.
        team: Arc<str>,
        /// Whose it is.
        owner: Option<String>,
    },
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTeam { team } => {
                write!(f, "bound to the team `{team}`, and the definitions in force have no [team.{team}]")
            }
            Self::OtherOwner { team, owner: Some(owner) } => {
                write!(f, "bound to the team `{team}`, and the owner is `{owner}`")
            }
            Self::OtherOwner { team, owner: None } => write!(f, "bound to the team `{team}`, and there is no owner"),
        }
    }
}

impl Reach {
    /// Whether a caller may act on what has this owner.
    pub fn check(&self, teams: &Teams, owner: Option<&str>) -> Result<(), OutOfReach> {
        let Self::Team(team) = self else { return Ok(()) };
        if !teams.contains_key(team) {
            return Err(OutOfReach::NoTeam { team: Arc::clone(team) });
        }
        if owner != Some(&**team) {
            return Err(OutOfReach::OtherOwner { team: Arc::clone(team), owner: owner.map(ToOwned::to_owned) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_within_the_globs_if_all_that_it_may_see_is() {
        use WatchScope::{Children, Node, Subtree};
        // Globs, a path, and whether a watch of the node, of its children, of its subtree is within.
        let cases: [(&[&str], &str, [bool; 3]); 19] = [
            (&[], "/a", [false; 3]),
            (&["/a"], "/a", [true, false, false]),
            (&["/a"], "/a/b", [false; 3]),
            (&["/a/*"], "/a", [false, true, false]),
            (&["/a/*"], "/a/b", [true, false, false]),
            (&["/a", "/a/*"], "/a", [true, true, false]),
            (&["/a/**"], "/a", [true; 3]),
            (&["/a/**"], "/a/b/c", [true; 3]),
            (&["/a/**"], "/ab", [false; 3]),
            (&["/a/**"], "/", [false; 3]),
            (&["/*/inbox/**"], "/a/inbox/x", [true; 3]),
            (&["/*/inbox/**"], "/a/b/inbox", [false; 3]),
            (&["/**"], "/", [true; 3]),
            (&["**"], "/a", [true; 3]),
            (&["/a-?"], "/a-1", [true, false, false]),
            // Not every child is of this form.
            (&["/a/b*"], "/a", [false; 3]),
            (&["/a/**/*.json"], "/a", [false; 3]),
            (&["{/a,/b}/**"], "/b/c", [true; 3]),
            (&["/a{"], "/a{", [false; 3]),
        ];
        for (patterns, path, expected) in cases {
            let globs = ZnodeGlobs::new(patterns.iter().map(|&pattern| pattern.to_owned()).collect());
            let found = [Node, Children, Subtree].map(|watch| globs.cover(path, watch));
            assert_eq!(found, expected, "{path} within {patterns:?}");
        }
    }

    #[test]
    fn who_is_bound_to_a_team_acts_on_what_it_owns_while_it_exists() {
        let team = |name: &str| -> (Arc<str>, Arc<Team>) {
            let none = || NameGlobs { patterns: Vec::new(), set: GlobSet::empty() };
            (name.into(), Arc::new(Team { dags: none(), znodes: ZnodeGlobs::new(Vec::new()), locks: none() }))
        };
        let teams: Teams = Arc::new(BTreeMap::from([team("payments"), team("search")]));
        let bound = |name: &str| Reach::Team(name.into());
        let other = |owner: Option<&str>| {
            Err(OutOfReach::OtherOwner { team: "payments".into(), owner: owner.map(ToOwned::to_owned) })
        };
        let cases = [
            (Reach::Everything, Some("payments"), Ok(())),
            (Reach::Everything, Some("nobody-knows"), Ok(())),
            (Reach::Everything, None, Ok(())),
            (bound("payments"), Some("payments"), Ok(())),
            (bound("payments"), Some("search"), other(Some("search"))),
            (bound("payments"), Some("Payments"), other(Some("Payments"))),
            (bound("payments"), Some(""), other(Some(""))),
            (bound("payments"), None, other(None)),
            (bound("gone"), Some("gone"), Err(OutOfReach::NoTeam { team: "gone".into() })),
            (bound("gone"), None, Err(OutOfReach::NoTeam { team: "gone".into() })),
        ];
        for (reach, owner, expected) in cases {
            assert_eq!(reach.check(&teams, owner), expected, "{reach:?} on what {owner:?} owns");
        }
    }
}

//! One thing that is well or not, and when a change of it is told.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::pace::Pace;

/// What a look said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is well.
    Well,
    /// It is not, and that is told once it has lasted so long.
    Bad { lasting: SignedDuration },
    /// It could not be seen.
    Unknown,
}

/// What follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// It went bad, for the `count`-th time.
    Worse { count: u32 },
    /// It is well again, after it was bad `count` times.
    Better { count: u32 },
    /// It is bad again before it was told to be well.
    Again { count: u32 },
}

/// A thing behind the hysteresis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Track {
    /// What was told last.
    pub(super) bad: bool,
    /// Since when looks have said the opposite of what was told.
    contrary_since: Option<Timestamp>,
    /// How often it was seen to go bad since it was last well for long.
    pub(super) count: u32,
    /// When it was last seen bad.
    bad_at: Option<Timestamp>,
}

impl Track {
    /// Whether it was seen bad and is not told yet.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.bad && self.contrary_since.is_some()
    }

    pub(super) fn look(&mut self, seen: Seen, now: Timestamp, pace: Pace) -> Turn {
        match (self.bad, seen) {
            (_, Seen::Unknown) => Turn::None,
            (false, Seen::Well) => {
                self.contrary_since = None;
                let forgotten = self.bad_at.is_some_and(|at| elapsed(at, now) >= pace.window());
                if forgotten {
                    *self = Self::default();
                }
                Turn::None
            }
            (false, Seen::Bad { lasting }) => {
                if self.contrary_since.is_none() {
                    self.count = self.count.saturating_add(1);
                }
                let since = *self.contrary_since.get_or_insert(now);
                self.bad_at = Some(now);
                if elapsed(since, now) < lasting && self.count < Pace::BLIPS {
                    return Turn::None;
                }
                (self.bad, self.contrary_since) = (true, None);
                Turn::Worse { count: self.count }
            }
            (true, Seen::Bad { .. }) => {
                self.bad_at = Some(now);
                if self.contrary_since.take().is_none() {
                    return Turn::None;
                }
                self.count = self.count.saturating_add(1);
                Turn::Again { count: self.count }
            }
            (true, Seen::Well) => {
                let since = *self.contrary_since.get_or_insert(now);
                if elapsed(since, now) < pace.hold(self.count) {
                    return Turn::None;
                }
                (self.bad, self.contrary_since) = (false, None);
                Turn::Better { count: self.count }
            }
        }
    }
}

/// A clock that was set back makes no time.
pub(super) fn elapsed(since: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(since).max(SignedDuration::ZERO)
}

//! When a command that runs under a lock must end: a pure function over what is known of the lock.

use std::time::Duration;

use crate::zookeeper::Holding;

/// What part of a proof of life's validity the grace time may take, while the lock is uncertain.
const GRACE_PART: u32 = 3;

/// How far the ending of a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It runs.
    Running,
    /// It was asked to end (SIGTERM).
    Asked {
        /// When, on the clock of [`crate::clock::boot_time`].
        at: Duration,
    },
}

/// What to do with the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for at most this long.
    Wait(Duration),
    /// Ask it to end.
    Ask(String),
    /// End it (SIGKILL).
    Kill(String),
}

/// Judges at `now` (time since boot).
///
/// An uncertain lock is given up early enough that the command has its grace time before anybody else
/// can hold the lock. Whoever was asked to end is not let go on, also if the lock is certain again.
pub fn step(holding: &Holding, phase: Phase, grace: Duration, now: Duration) -> Step {
    let (end, grace, reason) = match holding {
        Holding::Held { until, validity, doubt } => {
            let reason = doubt.as_deref().unwrap_or("ZooKeeper has not confirmed it in time");
            (Some(*until), grace.min(*validity / GRACE_PART), reason)
        }
        Holding::Lost { reason } | Holding::Refused { reason } => (None, grace, reason.as_str()),
        Holding::Connecting { .. } | Holding::Waiting { .. } => (None, grace, "its place in the queue is gone"),
    };
    let reason = || reason.to_owned();
    match phase {
        Phase::Running => match end {
            Some(end) if now >= end => Step::Kill(reason()),
            Some(end) if now + grace >= end => Step::Ask(reason()),
            Some(end) => Step::Wait(end.saturating_sub(grace).saturating_sub(now)),
            None => Step::Ask(reason()),
        },
        Phase::Asked { at } => {
            let end = end.map_or(at + grace, |end| end.min(at + grace));
            if now >= end { Step::Kill(reason()) } else { Step::Wait(end.saturating_sub(now)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_before_anybody_else_can_hold_its_lock() {
        let s = Duration::from_secs;
        // Proven at 100 for nine seconds.
        let held = |doubt: Option<&str>| Holding::Held { until: s(109), validity: s(9), doubt: doubt.map(Into::into) };
        let (fine, cut) = (held(None), held(Some("the client is Disconnected")));
        let lost = Holding::Lost { reason: "its znode was deleted".into() };
        let wait = |seconds| Step::Wait(s(seconds));
        let (cut_off, deleted) = ("the client is Disconnected", "its znode was deleted");
        let late = "ZooKeeper has not confirmed it in time";
        let (ask, kill) = (|reason: &str| Step::Ask(reason.into()), |reason: &str| Step::Kill(reason.into()));
        let asked = |at| Phase::Asked { at: s(at) };
        let cases = [
            ("certain", &fine, Phase::Running, 2, 101, wait(6)),
            ("cut off, and still certain", &cut, Phase::Running, 2, 106, wait(1)),
            ("time for the grace is left", &cut, Phase::Running, 2, 107, ask(cut_off)),
            ("asked, and the grace runs", &cut, asked(107), 2, 108, wait(1)),
            ("asked, and the grace is over", &cut, asked(107), 2, 109, kill(cut_off)),
            ("a long grace does not eat the validity", &cut, Phase::Running, 60, 105, wait(1)),
            ("a long grace ends with the certainty", &cut, asked(106), 60, 109, kill(cut_off)),
            ("slept through all of it", &fine, Phase::Running, 2, 500, kill(late)),
            ("slept through the grace", &cut, asked(107), 2, 500, kill(cut_off)),
            ("certain again, but it was asked", &held(None), asked(104), 2, 106, kill(late)),
            ("deleted by somebody", &lost, Phase::Running, 5, 101, ask(deleted)),
            ("deleted, and the grace runs", &lost, asked(101), 5, 103, wait(3)),
            ("deleted, and the grace is over", &lost, asked(101), 5, 106, kill(deleted)),
        ];
        for (title, holding, phase, grace, now, expected) in cases {
            assert_eq!(step(holding, phase, s(grace), s(now)), expected, "{title}");
        }
    }
}

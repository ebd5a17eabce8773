//! What was told of an ensemble so far, what is about to be, and the step from one look to the next.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::{Condition, EnsembleEvent, Happening};
use super::observation::Observation;
use super::pace::{Pace, signed};
use super::track::{Seen, Track, Turn, elapsed};
use crate::domain::health::{Quorum, ServerState};

/// What the ledger keeps of an ensemble between two looks, and between two leaders.
///
/// The default is that of an ensemble that was never seen: it is taken to be well. So what is wrong at
/// first sight is told, and what is right is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Whether a majority works.
    quorum: Track,
    /// Whether no check is critical.
    checks: Track,
    /// Whether each server serves.
    servers: BTreeMap<String, Track>,
    leader: Lead,
    /// The latest transition.
    told_at: Option<Timestamp>,
    /// The transition that told of each thing that is bad now, by [`QUORUM`], [`CHECKS`] or server.
    told_in: BTreeMap<String, Timestamp>,
}

/// Names of what is no server, in `told_in`; servers have a port.
const QUORUM: &str = "quorum";
const CHECKS: &str = "checks";

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Lead {
    /// The leader when it was last told, or first seen.
    told: Option<String>,
    /// The leader as far as is known.
    current: Option<String>,
    /// Another one that was seen once, and when.
    candidate: Option<(String, Timestamp)>,
    /// How many changes are not told yet.
    changes: u32,
    /// How many times in a row it was told soon after the last time.
    streak: u32,
    told_at: Option<Timestamp>,
}

/// A transition that is over and has happened again: its count has grown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recount {
    /// When the transition was.
    pub at: Timestamp,
    /// What happened again.
    pub event: EnsembleEvent,
    /// To which server.
    pub server: Option<String>,
    /// How often by now.
    pub count: u32,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What is to be kept.
    pub standing: Standing,
    /// The time of the transition: that of the look, after that of any before.
    pub at: Timestamp,
    /// What is to be told, in the order of [`EnsembleEvent`]; mostly nothing.
    pub events: Vec<Happening>,
    /// What was told before and has come again.
    pub recounts: Vec<Recount>,
    /// Who led when that was last told, before this look.
    pub leader_before: Option<String>,
    /// Who leads, as far as is known.
    pub leader_after: Option<String>,
}

impl Standing {
    /// What is thought of the ensemble.
    pub fn condition(&self) -> Condition {
        match (self.quorum.bad, self.checks.bad) {
            (true, _) => Condition::QuorumLost,
            (false, true) => Condition::Degraded,
            (false, false) => Condition::Healthy,
        }
    }

    /// Who leads, as far as is known.
    pub fn leader(&self) -> Option<&str> {
        self.leader.current.as_deref()
    }

    /// The servers that were told to be down.
    pub fn servers_down(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().filter(|(_, track)| track.bad).map(|(server, _)| server.as_str())
    }

    /// Whether something was seen that another look soon must confirm.
    pub fn is_in_doubt(&self) -> bool {
        let tracks = [&self.quorum, &self.checks].into_iter().chain(self.servers.values());
        tracks.into_iter().any(Track::is_in_doubt) || self.leader.candidate.is_some()
    }

    /// One look further.
    #[must_use]
    pub fn judge(&self, seen: &Observation, pace: Pace) -> Judged {
        let mut next = self.clone();
        let after_the_last = self.told_at.map(|told| told.saturating_add(SignedDuration::from_micros(1)));
        let at = after_the_last.and_then(Result::ok).map_or(seen.at, |earliest| seen.at.max(earliest));
        let mut step = Step { at, events: Vec::new(), recounts: Vec::new() };

        next.look_at_servers(seen, pace, &mut step);
        next.look_at_the_whole(seen, pace, self.condition(), &mut step);
        if let Some(count) = next.leader.look(seen.leader.as_deref(), seen.at, pace) {
            step.tell(EnsembleEvent::LeaderChanged, None, count);
        }
        step.events.sort_by_key(|happening| happening.event);
        if !step.events.is_empty() {
            next.told_at = Some(at);
        }
        Judged {
            leader_before: self.leader.told.clone().or_else(|| next.leader.told.clone()),
            leader_after: next.leader.current.clone(),
            standing: next,
            at,
            events: step.events,
            recounts: step.recounts,
        }
    }

    fn look_at_servers(&mut self, seen: &Observation, pace: Pace, step: &mut Step) {
        // Servers that the configuration does not name any more are of no concern.
        self.servers.retain(|server, _| seen.servers.contains_key(server));
        self.told_in.retain(|what, _| [QUORUM, CHECKS].contains(&&**what) || seen.servers.contains_key(what));
        for (server, state) in &seen.servers {
            let track = self.servers.entry(server.clone()).or_default();
            let sight = match (state, seen.quorum) {
                (ServerState::Up, _) => Seen::Well,
                (ServerState::Down, _) => Seen::Bad { lasting: signed(pace.confirm()) },
                // The others serve, and it does not get there.
                (ServerState::Waiting, Some(Quorum::Held)) => Seen::Bad { lasting: pace.election() },
                (ServerState::Waiting | ServerState::Unknown, _) => Seen::Unknown,
            };
            match track.look(sight, seen.at, pace) {
                Turn::None => {}
                Turn::Worse { count } => {
                    step.tell(EnsembleEvent::ServerDown, Some(server), count);
                    self.told_in.insert(server.clone(), step.at);
                }
                Turn::Better { count } => {
                    step.tell(EnsembleEvent::ServerUp, Some(server), count);
                    self.told_in.remove(server);
                }
                Turn::Again { count } => {
                    step.count_again(self.told_in.get(server), EnsembleEvent::ServerDown, Some(server), count);
                }
            }
        }
    }

    fn look_at_the_whole(&mut self, seen: &Observation, pace: Pace, before: Condition, step: &mut Step) {
        let quorum = match seen.quorum {
            None => Seen::Unknown,
            Some(Quorum::Held) => Seen::Well,
            Some(Quorum::Electing) => Seen::Bad { lasting: pace.election() },
            Some(Quorum::Lost) => Seen::Bad { lasting: signed(pace.confirm()) },
        };
        let checks = match seen.critical {
            None => Seen::Unknown,
            Some(false) => Seen::Well,
            Some(true) => Seen::Bad { lasting: signed(pace.confirm()) },
        };
        if let Turn::Again { count } = self.quorum.look(quorum, seen.at, pace) {
            step.count_again(self.told_in.get(QUORUM), EnsembleEvent::QuorumLost, None, count);
        }
        if let Turn::Again { count } = self.checks.look(checks, seen.at, pace) {
            step.count_again(self.told_in.get(CHECKS), EnsembleEvent::Degraded, None, count);
        }
        let after = self.condition();
        if after == before {
            return;
        }
        match after {
            Condition::QuorumLost => {
                step.tell(EnsembleEvent::QuorumLost, None, self.quorum.count);
                self.told_in.insert(QUORUM.to_owned(), step.at);
            }
            Condition::Degraded => {
                step.tell(EnsembleEvent::Degraded, None, self.checks.count);
                self.told_in.remove(QUORUM);
                self.told_in.insert(CHECKS.to_owned(), step.at);
            }
            Condition::Healthy => {
                step.tell(EnsembleEvent::Recovered, None, self.quorum.count.max(self.checks.count));
                self.told_in.retain(|what, _| ![QUORUM, CHECKS].contains(&&**what));
            }
        }
    }
}

/// What a look has led to so far.
struct Step {
    at: Timestamp,
    events: Vec<Happening>,
    recounts: Vec<Recount>,
}

impl Step {
    fn tell(&mut self, event: EnsembleEvent, server: Option<&String>, count: u32) {
        self.events.push(Happening { event, server: server.cloned(), count: count.max(1) });
    }

    fn count_again(&mut self, told: Option<&Timestamp>, event: EnsembleEvent, server: Option<&String>, count: u32) {
        self.recounts.extend(told.map(|at| Recount { at: *at, event, server: server.cloned(), count }));
    }
}

impl Lead {
    /// How many changes are to be told now, if any are.
    fn look(&mut self, seen: Option<&str>, now: Timestamp, pace: Pace) -> Option<u32> {
        let leader = seen?;
        if self.current.as_deref() == Some(leader) {
            self.candidate = None;
        } else if self.told.is_none() {
            (self.told, self.current) = (Some(leader.to_owned()), Some(leader.to_owned()));
        } else {
            let since = match &self.candidate {
                Some((candidate, since)) if candidate == leader => *since,
                _ => now,
            };
            if elapsed(since, now) < signed(pace.confirm()) {
                self.candidate = Some((leader.to_owned(), since));
            } else {
                (self.current, self.candidate) = (Some(leader.to_owned()), None);
                self.changes = self.changes.saturating_add(1);
            }
        }
        if self.changes == 0 {
            return None;
        }
        let quiet = self.told_at.is_some_and(|told| elapsed(told, now) < pace.hold(self.streak));
        if quiet {
            return None;
        }
        let soon = self.told_at.is_some_and(|told| elapsed(told, now) < pace.window());
        self.streak = if soon { self.streak.saturating_add(1) } else { 1 };
        (self.told, self.told_at) = (self.current.clone(), Some(now));
        Some(std::mem::take(&mut self.changes))
    }
}

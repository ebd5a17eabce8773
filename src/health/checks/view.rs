//! What the facts amount to beyond verdicts: who leads, who is there, and whether a majority works.

use super::quorum::{leaders_own_count, stands_alone, voters, working};
use super::{Evidence, in_mode};
use crate::domain::health::{Quorum, Report, ServerState, ServerView};
use crate::health::facts::{Answer, Mode, ServerFacts, Why};

/// Adds it to a report.
pub(super) fn add(report: Report, evidence: &Evidence<'_>) -> Report {
    let servers = evidence.now.servers.iter();
    let view = |server: &ServerFacts| ServerView { server: server.server.to_string(), state: state(server) };
    Report {
        leader: leader(evidence),
        quorum: quorum(evidence),
        in_sight: evidence.now.servers.iter().any(is_in_sight),
        servers: servers.map(view).collect(),
        ..report
    }
}

/// Whether anything was there, be it to refuse.
fn is_in_sight(server: &ServerFacts) -> bool {
    !matches!(server.answer, Answer::Failed(Why::OutOfSight(_))) || server.admin.is_ok()
}

fn leader(evidence: &Evidence<'_>) -> Option<String> {
    let mut leaders = in_mode(evidence.now, &Mode::Leader);
    match (leaders.next(), leaders.next()) {
        (Some(leader), None) => Some(leader.server.to_string()),
        _ => None,
    }
}

fn state(server: &ServerFacts) -> ServerState {
    match (&server.answer, server.mode()) {
        (_, Some(Mode::ReadOnly)) | (Answer::NotServing | Answer::Failed(Why::NotServing), _) => ServerState::Waiting,
        (Answer::Serves, _) | (Answer::Failed(Why::TurnedAway), Some(_)) => ServerState::Up,
        (Answer::Failed(Why::Unreachable(_) | Why::OutOfSight(_) | Why::Silent), _) => ServerState::Down,
        (
            Answer::Failed(Why::Refused(_) | Why::TurnedAway | Why::Unreadable(_) | Why::OutOfTime | Why::NotAsked),
            _,
        ) => ServerState::Unknown,
    }
}

/// Whether a majority works, as far as that can be said from here.
///
/// Servers that refuse a connection or stay silent are gone. Those that are out of sight may work among
/// each other: that is believed of them as long as one that is in sight works too, and not when those
/// that are in sight look for a leader in vain.
fn quorum(evidence: &Evidence<'_>) -> Option<Quorum> {
    if stands_alone(evidence.now) {
        return Some(Quorum::Held);
    }
    let servers = &evidence.now.servers;
    let (voters, working) = (voters(evidence), working(evidence.now));
    let majority = voters / 2 + 1;
    let observes = in_mode(evidence.now, &Mode::Observer).next().is_some();
    if working >= majority || observes || leaders_own_count(evidence.now) >= majority {
        return Some(Quorum::Held);
    }
    let count = |wanted| servers.iter().filter(|server| state(server) == wanted).count();
    let out_of_sight = servers.iter().filter(|server| !is_in_sight(server)).count();
    let (waiting, unknown) = (count(ServerState::Waiting), count(ServerState::Unknown));
    let serving_otherwise = count(ServerState::Up) - working;
    let unclear = unknown + serving_otherwise + voters.saturating_sub(servers.len());
    let may_work = match (working, waiting) {
        (0, 1..) => unclear,
        _ => working + unclear + out_of_sight,
    };
    if may_work >= majority {
        None
    } else if working + waiting >= majority {
        Some(Quorum::Electing)
    } else {
        Some(Quorum::Lost)
    }
}

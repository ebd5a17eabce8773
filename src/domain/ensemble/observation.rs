//! What a report says about changes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::domain::health::{Quorum, Report, ServerState, Verdict};

/// An ensemble at one moment. What could not be seen is `None`, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When it was looked at.
    pub at: Timestamp,
    /// Whether a check is critical.
    pub critical: Option<bool>,
    /// Whether a majority of its voting servers works.
    pub quorum: Option<Quorum>,
    /// Which server leads.
    pub leader: Option<String>,
    /// Whether each server serves.
    pub servers: BTreeMap<String, ServerState>,
}

impl Observation {
    /// Reads a report.
    ///
    /// Where nothing of the ensemble was in sight, not even a refusal, it may be gone or the network
    /// from here: `network_works` tells, by something else that answers, and makes it gone.
    pub fn of(report: &Report, at: Timestamp, network_works: bool) -> Self {
        let blind = !report.in_sight && !network_works;
        let state = |state| if blind { ServerState::Unknown } else { state };
        let servers = report.servers.iter().map(|view| (view.server.clone(), state(view.state))).collect();
        let quorum = match (&report.leader, report.quorum) {
            _ if blind => None,
            _ if !report.in_sight => Some(Quorum::Lost),
            // There would be no leader without one.
            (Some(_), None) => Some(Quorum::Held),
            (_, quorum) => quorum,
        };
        Self {
            at,
            critical: (!blind).then_some(report.verdict == Verdict::Critical),
            quorum,
            leader: report.leader.clone().filter(|_| !blind),
            servers,
        }
    }
}

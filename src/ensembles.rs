//! What is shown of the health of ensembles: the configuration and what the ledger has of the latest look,
//! put together.
//!
//! Pure, and shared by the API and the command. Every member answers from the ledger, so a report says
//! when it was made and whether that is too long ago: nobody may take the last word of a leader that is
//! gone for how things are.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Config;
use crate::config::model::Ensemble;
use crate::domain::ensemble::Transition;
use crate::domain::health::{
    CATALOGUE, Check, CheckInfo, Finding, Limits, Quorum, Report, Scope, ServerState, Verdict,
};
use crate::store::model::{EnsembleState, optional_microseconds};

/// After how many intervals a report is stale.
const STALE_INTERVALS: u32 = 3;

/// How old a report may be at least: an inspection takes as long as its slowest server.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// An ensemble, and how it was when it was last looked at.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EnsembleOverview {
    /// The name in the configuration; `home` of a home ensemble without a section.
    pub name: String,
    /// Whether flowkeeper itself lives there.
    pub home: bool,
    /// The servers and the chroot, as the configuration names them.
    pub connect: String,
    /// How often the leader looks.
    pub interval_ms: u64,
    /// The worst of all checks; null of an ensemble that was never looked at.
    pub verdict: Option<Verdict>,
    /// How old that is.
    #[serde(flatten)]
    pub freshness: Freshness,
    /// The server that leads; null where none does, or it is not known.
    pub leader: Option<String>,
    /// Whether a majority of the voting servers works; null where it is not known.
    pub quorum: Option<Quorum>,
    /// Its servers, in the order of the configuration.
    pub servers: Vec<ServerOverview>,
}

/// How old a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Freshness {
    /// When the latest report was made; null without one.
    #[serde(serialize_with = "optional_microseconds")]
    pub checked_at: Option<Timestamp>,
    /// How long ago that is.
    pub age_ms: Option<i64>,
    /// Whether things may be different now: there is no report, or it is older than three intervals.
    pub stale: bool,
}

/// A server, and what was found of it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ServerOverview {
    /// The server, as the configuration names it.
    pub server: String,
    /// Whether it serves.
    pub state: ServerState,
    /// The worst of the checks on it.
    pub verdict: Option<Verdict>,
}

/// An ensemble with everything that was found when it was last looked at.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EnsembleDetail {
    /// The ensemble.
    #[serde(flatten)]
    pub overview: EnsembleOverview,
    /// One for each check and server, or one for the ensemble.
    pub checks: Vec<Finding>,
    /// What became of it last, the newest first.
    pub transitions: Vec<Transition>,
}

/// Every check of an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CheckList {
    /// The checks, in the order in which they are shown.
    pub items: Vec<CheckOverview>,
    /// Always null: checks are few.
    pub next_cursor: Option<String>,
    /// How old the findings are.
    #[serde(flatten)]
    pub freshness: Freshness,
}

/// A check: what it is, and what it last found.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CheckOverview {
    /// Its name.
    #[schema(value_type = String)]
    pub check: Check,
    /// What it asks, and why that matters.
    pub about: &'static str,
    /// When it is bad, in words.
    pub rule: &'static str,
    /// `server` where it has a finding for each server, `ensemble` where it has one for all.
    pub scope: &'static str,
    /// Whether it compares two samples.
    pub needs_two_samples: bool,
    /// The unit of values and limits.
    pub unit: Option<&'static str>,
    /// The limits in force for this ensemble; null where no number decides.
    pub threshold: Option<Limits>,
    /// Where its numbers come from.
    pub read_from: &'static str,
    /// What to do when it is bad.
    pub remedy: &'static str,
    /// The worst of its findings; null without any.
    pub verdict: Option<Verdict>,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// A report that was kept, with its age.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptReport {
    /// What was found.
    #[serde(flatten)]
    pub report: Report,
    /// How old that is.
    #[serde(flatten)]
    pub freshness: Freshness,
}

impl Freshness {
    /// Of a report of `checked_at` on an ensemble that is looked at every `interval`.
    pub fn of(checked_at: Option<Timestamp>, interval: Duration, now: Timestamp) -> Self {
        let age = checked_at.map(|at| now.duration_since(at).max(SignedDuration::ZERO));
        let fresh_for = interval.saturating_mul(STALE_INTERVALS).max(FRESH_FOR);
        let fresh_for = SignedDuration::try_from(fresh_for).unwrap_or(SignedDuration::MAX);
        Self {
            checked_at,
            age_ms: age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
            stale: age.is_none_or(|age| age > fresh_for),
        }
    }
}

impl KeptReport {
    /// The latest report of the ledger.
    pub fn of(ensemble: &Ensemble, state: EnsembleState, now: Timestamp) -> Self {
        Self { freshness: Freshness::of(Some(state.reported_at), ensemble.interval, now), report: state.report }
    }
}

impl EnsembleOverview {
    /// An ensemble of the configuration, and the latest that the ledger has of it.
    pub fn of(config: &Config, ensemble: &Ensemble, state: Option<&EnsembleState>, now: Timestamp) -> Self {
        let home = ensemble.connection.is_none();
        let connection = ensemble.connection.as_ref().or(config.zookeeper.as_ref().map(|home| &home.connection));
        let report = state.map(|state| &state.report);
        Self {
            name: ensemble.name.to_string(),
            home,
            connect: connection.map(|connection| connection.connect.clone()).unwrap_or_default(),
            interval_ms: u64::try_from(ensemble.interval.as_millis()).unwrap_or(u64::MAX),
            verdict: report.map(|report| report.verdict),
            freshness: Freshness::of(state.map(|state| state.reported_at), ensemble.interval, now),
            leader: report.and_then(|report| report.leader.clone()),
            quorum: report.and_then(|report| report.quorum),
            servers: report.map(servers).unwrap_or_default(),
        }
    }
}

fn servers(report: &Report) -> Vec<ServerOverview> {
    let overview = |view: &crate::domain::health::ServerView| {
        let on_it = report.checks.iter().filter(|finding| finding.server.as_deref() == Some(&view.server));
        ServerOverview {
            server: view.server.clone(),
            state: view.state,
            verdict: Verdict::worst(on_it.map(|finding| finding.verdict)),
        }
    };
    report.servers.iter().map(overview).collect()
}

impl CheckList {
    /// The catalogue, with what was last found.
    pub fn of(ensemble: &Ensemble, state: Option<&EnsembleState>, now: Timestamp) -> Self {
        let findings = state.map(|state| state.report.checks.as_slice()).unwrap_or_default();
        Self {
            items: CATALOGUE.iter().map(|info| CheckOverview::of(info, ensemble, findings)).collect(),
            next_cursor: None,
            freshness: Freshness::of(state.map(|state| state.reported_at), ensemble.interval, now),
        }
    }
}

impl CheckOverview {
    fn of(info: &CheckInfo, ensemble: &Ensemble, findings: &[Finding]) -> Self {
        let findings: Vec<Finding> = findings.iter().filter(|finding| finding.check == info.check).cloned().collect();
        Self {
            check: info.check,
            about: info.about,
            rule: info.rule,
            scope: match info.scope {
                Scope::Server => "server",
                Scope::Ensemble => "ensemble",
            },
            needs_two_samples: info.needs_two_samples,
            unit: info.unit,
            threshold: info.direction.map(|_| ensemble.thresholds.of(info.check)),
            read_from: info.read_from,
            remedy: info.remedy,
            verdict: Verdict::worst(findings.iter().map(|finding| finding.verdict)),
            findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    #[test]
    fn a_report_is_stale_after_three_intervals_and_not_within_half_a_minute() {
        let minute = Duration::from_mins(1);
        for (checked_at, interval, age_ms, stale) in [
            (None, minute, None, true),
            (Some(0), minute, Some(200_000), true),
            (Some(20), minute, Some(180_000), false),
            (Some(169), Duration::from_secs(1), Some(31_000), true),
            (Some(171), Duration::from_secs(1), Some(29_000), false),
            (Some(0), Duration::MAX, Some(200_000), false),
            // Another member's clock is ahead.
            (Some(260), minute, Some(0), false),
        ] {
            let freshness = Freshness::of(checked_at.map(at), interval, at(200));
            assert_eq!((freshness.age_ms, freshness.stale), (age_ms, stale), "{checked_at:?} {interval:?}");
        }
    }
}

//! From facts to verdicts: every check, as a pure function of what was learned.
//!
//! What is not known is `unknown` and says why, what does not exist is `not_applicable`. A server
//! that does not answer, and words that a whitelist refuses, have one finding with a remedy each
//! (`serving`, `commands`); what depends on them refers to it.

mod canary;
mod growth;
mod load;
mod membership;
mod quorum;
mod serving;
#[cfg(test)]
mod tests;
mod transactions;
mod view;

use std::time::Duration;

use jiff::Timestamp;

use super::facts::{CanaryFacts, Flavour, Mode, Sample, ServerFacts, Why};
use crate::domain::health::{Check, Finding, Report, Scope, Thresholds, Verdict};

/// What the checks judge.
pub(super) struct Evidence<'a> {
    /// The earlier of two samples.
    pub(super) before: Option<&'a Sample>,
    /// The latest sample.
    pub(super) now: &'a Sample,
    /// What the canary met between the samples; `None` when it did not fly.
    pub(super) canary: Option<&'a CanaryFacts>,
    /// The limits.
    pub(super) thresholds: &'a Thresholds,
    /// The time now.
    pub(super) at: Timestamp,
}

/// Every check, and what they amount to.
pub(super) fn report(ensemble: String, evidence: &Evidence<'_>) -> Report {
    view::add(Report::new(ensemble, judge(evidence)), evidence)
}

/// Every check, of every server.
fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in Check::all() {
        match check.info().scope {
            Scope::Ensemble => findings.push(on_ensemble(check, evidence)),
            Scope::Server => {
                let servers = evidence.now.servers.iter();
                findings.extend(servers.map(|server| on_server(check, evidence, server)));
            }
        }
    }
    findings
}

fn on_ensemble(check: Check, evidence: &Evidence<'_>) -> Finding {
    match check {
        Check::Commands => serving::commands(evidence),
        Check::Leader => quorum::leader(evidence),
        Check::Quorum => quorum::quorum(evidence),
        Check::SyncedFollowers => quorum::synced_followers(evidence),
        Check::Epoch => transactions::epoch(evidence),
        Check::VersionSkew => membership::version_skew(evidence),
        Check::Membership => membership::membership(evidence),
        Check::Clock => canary::clock(evidence),
        other => Finding::unknown(other, None, "This check judges servers, not the ensemble."),
    }
}

fn on_server(check: Check, evidence: &Evidence<'_>, server: &ServerFacts) -> Finding {
    let seen = Seen { evidence, check, server };
    match check {
        Check::Serving => serving::serving(seen),
        Check::ReadOnly => serving::read_only(seen),
        Check::Certificate => serving::certificate(seen),
        Check::Churn => serving::churn(seen),
        Check::ZxidLag => transactions::zxid_lag(seen),
        Check::OutstandingRequests => load::outstanding_requests(seen),
        Check::PendingSyncs => load::pending_syncs(seen),
        Check::Latency => load::latency(seen),
        Check::Fsync => load::fsync(seen),
        Check::Connections => load::connections(seen),
        Check::FileDescriptors => load::file_descriptors(seen),
        Check::Counters => load::counters(seen),
        Check::ZnodeCount => growth::znode_count(seen),
        Check::DataSize => growth::gauge(seen, "approximate_data_size", "of data in znodes"),
        Check::Watches => growth::gauge(seen, "watch_count", "set by clients"),
        Check::Ephemerals => growth::gauge(seen, "ephemerals_count", "are ephemeral"),
        Check::DirectorySize => growth::directory_size(seen),
        Check::Canary => canary::canary(seen),
        other => Finding::unknown(other, None, "This check judges the ensemble, not a server."),
    }
}

/// A server under a check.
#[derive(Clone, Copy)]
struct Seen<'a> {
    evidence: &'a Evidence<'a>,
    check: Check,
    server: &'a ServerFacts,
}

/// A number of a server.
#[derive(Debug, Clone, PartialEq)]
enum Reading {
    /// It is known.
    Value(f64),
    /// It could not be found out.
    Unknown(String),
    /// The server has no such number.
    NotApplicable(String),
}

impl Seen<'_> {
    /// By the check's limits. `meaning` is a sentence with the value in it.
    fn by_limits(self, value: f64, meaning: impl Into<String>) -> Finding {
        self.at_least(Verdict::Ok, value, meaning)
    }

    /// By the check's limits, and not better than `least`.
    fn at_least(self, least: Verdict, value: f64, meaning: impl Into<String>) -> Finding {
        Finding::measured(self.evidence.thresholds, self.check, Some(&*self.server.server), least, value, meaning)
    }

    fn verdict(self, verdict: Verdict, meaning: impl Into<String>) -> Finding {
        Finding::told(self.check, Some(&*self.server.server), verdict, meaning)
    }

    fn unknown(self, meaning: impl Into<String>) -> Finding {
        Finding::unknown(self.check, Some(&*self.server.server), meaning)
    }

    fn not_applicable(self, meaning: impl Into<String>) -> Finding {
        self.verdict(Verdict::NotApplicable, meaning)
    }

    /// A finding where a reading has no value.
    fn without_value(self, reading: Reading) -> Finding {
        match reading {
            Reading::NotApplicable(meaning) => self.not_applicable(meaning),
            Reading::Unknown(meaning) => self.unknown(meaning),
            Reading::Value(value) => self.unknown(format!("Nothing judges the value {value}.")),
        }
    }

    /// A number of `mntr` as it is now.
    fn metric(self, key: &str) -> Reading {
        metric_of(self.server, key)
    }

    /// What a number of `mntr` grew by since the earlier sample.
    fn grown(self, key: &str) -> Reading {
        let now = match self.metric(key) {
            Reading::Value(now) => now,
            other => return other,
        };
        let Some(before) = self.evidence.before else { return Reading::Unknown(ONE_SAMPLE.to_owned()) };
        let before = before.servers.iter().find(|before| before.server == self.server.server);
        match before.map(|before| metric_of(before, key)) {
            // Smaller than before: the server was restarted, and counts anew.
            Some(Reading::Value(before)) => Reading::Value(if now < before { now } else { now - before }),
            Some(Reading::Unknown(_) | Reading::NotApplicable(_)) | None => {
                Reading::Unknown("The server told its numbers in one of two samples only.".to_owned())
            }
        }
    }

    /// How far the samples are apart, as people read it.
    fn span(self) -> String {
        let before = self.evidence.before.map_or(self.evidence.now.taken, |before| before.taken);
        seconds(self.evidence.now.taken.saturating_sub(before))
    }
}

/// What stands where two samples are needed.
const ONE_SAMPLE: &str = "This compares two samples, and one was taken.";

fn metric_of(server: &ServerFacts, key: &str) -> Reading {
    match &server.metrics {
        Ok(metrics) => metrics.get(key).copied().map_or_else(
            || Reading::NotApplicable(format!("{} of this version does not tell `zk_{key}`.", program(server))),
            Reading::Value,
        ),
        Err(why) => Reading::Unknown(unknown_because(why)),
    }
}

/// Why something is not known, in a sentence that says where it is told what to do.
fn unknown_because(why: &Why) -> String {
    match why {
        Why::Refused(_) => format!("The server {why}: see `commands`."),
        Why::NotAsked => "Nothing told it.".to_owned(),
        Why::OutOfTime => format!("The server {why}."),
        Why::TurnedAway => format!("The server {why}: see `connections`."),
        why => format!("The server {why}: see `serving`."),
    }
}

fn program(server: &ServerFacts) -> &'static str {
    match server.summary.as_ref().map(|summary| summary.flavour) {
        Ok(Flavour::ClickHouseKeeper) => "ClickHouse Keeper",
        _ => "ZooKeeper",
    }
}

/// `2 s`, `0.3 s`.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 10.0 { format!("{seconds:.0} s") } else { format!("{} s", (seconds * 10.0).round() / 10.0) }
}

/// Servers by their part in the ensemble.
fn in_mode<'a>(sample: &'a Sample, mode: &'a Mode) -> impl Iterator<Item = &'a ServerFacts> {
    sample.servers.iter().filter(move |server| server.mode() == Some(mode))
}

/// `a`, `a and b`, `a, b and c`.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// A count as a value: exact for any number of servers, events or bytes there can be.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

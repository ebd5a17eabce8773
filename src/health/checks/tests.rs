//! A table of cases a check, over facts that are changed from those of a healthy ensemble: here the ensemble,
//! and a module a subject.

mod canary;
mod load;
mod membership;
mod quorum;
mod serving;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::health::Limits;
use crate::health::facts::{
    AdminFacts, Answer, CanaryFacts, Member, Metrics, ServerSettings, Step, Summary, Trip, TripEnd, WriteAccess,
};

const EPOCH: i64 = 1 << 32;

/// The first of two samples, and the second, of three servers; `a` leads.
#[derive(Clone)]
struct World {
    before: Option<Sample>,
    now: Sample,
    canary: Option<CanaryFacts>,
    thresholds: Thresholds,
}

fn members(ids: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Member> {
    ids.into_iter().map(|id| (id, Member { address: format!("host-{id}:2888:3888"), votes: true })).collect()
}

fn metrics(leads: bool) -> Metrics {
    let mut metrics: Metrics = [
        ("outstanding_requests", 0.0),
        ("znode_count", 58.0),
        ("approximate_data_size", 5915.0),
        ("watch_count", 3.0),
        ("ephemerals_count", 1.0),
        ("open_file_descriptor_count", 51.0),
        ("max_file_descriptor_count", 20_000.0),
        ("uptime", 3_600_000.0),
        ("cnt_election_time", 1.0),
        ("looking_count", 1.0),
        ("connection_rejected", 0.0),
        ("sum_readlatency", 10.0),
        ("cnt_readlatency", 10.0),
        ("sum_updatelatency", 20.0),
        ("cnt_updatelatency", 10.0),
        ("sum_fsynctime", 8.0),
        ("cnt_fsynctime", 55.0),
        ("unrecoverable_error_count", 0.0),
        ("digest_mismatches_count", 0.0),
        ("large_requests_rejected", 0.0),
        ("request_throttle_wait_count", 0.0),
        ("tls_handshake_exceeded", 0.0),
        ("auth_failed_count", 4.0),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if leads {
        metrics.extend(
            [("synced_followers", 2.0), ("quorum_size", 3.0), ("pending_syncs", 0.0)].map(|(k, v)| (k.to_owned(), v)),
        );
    }
    metrics
}

fn server(name: &str, id: u64, mode: Mode) -> ServerFacts {
    let leads = mode == Mode::Leader;
    let summary = Summary {
        flavour: Flavour::ZooKeeper,
        version: "3.8.0".to_owned(),
        mode,
        zxid: Some(EPOCH + 55),
        outstanding: Some(0.0),
        znodes: Some(58.0),
    };
    ServerFacts {
        server: Arc::from(name),
        answer: Answer::Serves,
        summary: Ok(summary),
        metrics: Ok(metrics(leads)),
        connections: Ok([("10.0.0.7".parse().unwrap(), 12)].into()),
        settings: Ok(ServerSettings { id: Some(id), max_client_connections: Some(60), members: members(1..=3) }),
        directory_bytes: Ok(67_109_525),
        write_access: Ok(WriteAccess::ReadWrite),
        certificate: None,
        admin: Ok(AdminFacts { slow_fsyncs: Some(0), clock_offset_ms: Some(0) }),
        missing_words: Vec::new(),
    }
}

fn trip(server: &str, slowest_ms: u64) -> Trip {
    let steps = vec![(Step::Create, Duration::from_millis(2)), (Step::Watch, Duration::from_millis(slowest_ms))];
    Trip { server: Arc::from(server), steps, end: None }
}

impl World {
    fn healthy() -> Self {
        let servers =
            || vec![server("a", 1, Mode::Leader), server("b", 2, Mode::Follower), server("c", 3, Mode::Follower)];
        let canary = CanaryFacts {
            trips: ["a", "b", "c"].map(|name| trip(name, 3)).into(),
            leader_clock_offset_ms: Some(0),
            members: members(1..=3),
        };
        Self {
            before: Some(Sample { taken: Duration::from_secs(100), servers: servers() }),
            now: Sample { taken: Duration::from_secs(102), servers: servers() },
            canary: Some(canary),
            thresholds: Thresholds::default(),
        }
    }

    /// A server that stands alone.
    fn alone() -> Self {
        let mut world = Self::healthy();
        for sample in [world.before.as_mut().unwrap(), &mut world.now] {
            sample.servers = vec![server("a", 1, Mode::Standalone)];
            sample.servers[0].settings = Ok(ServerSettings { members: BTreeMap::new(), ..ServerSettings::default() });
        }
        world
    }

    fn down(mut self, index: usize, why: Why) -> Self {
        let name = Arc::clone(&self.now.servers[index].server);
        let answer = if why == Why::NotServing { Answer::NotServing } else { Answer::Failed(why) };
        self.now.servers[index] = ServerFacts::unknown(name, answer);
        self
    }

    /// Changes a server in the latest sample.
    fn with(mut self, index: usize, change: impl Fn(&mut ServerFacts)) -> Self {
        change(&mut self.now.servers[index]);
        self
    }

    /// Sets a number of `mntr` in the latest sample.
    fn metric(self, index: usize, key: &str, value: f64) -> Self {
        self.with(index, |server| {
            server.metrics.as_mut().expect("numbers").insert(key.to_owned(), value);
        })
    }

    fn mode(self, index: usize, mode: &Mode) -> Self {
        self.with(index, |server| server.summary.as_mut().expect("a summary").mode = mode.clone())
    }

    fn zxid(self, index: usize, zxid: i64) -> Self {
        self.with(index, |server| server.summary.as_mut().expect("a summary").zxid = Some(zxid))
    }

    fn once(mut self) -> Self {
        self.before = None;
        self
    }

    fn canary(mut self, change: impl Fn(&mut CanaryFacts)) -> Self {
        change(self.canary.as_mut().expect("a canary"));
        self
    }

    fn report(&self) -> Report {
        let evidence = Evidence {
            before: self.before.as_ref(),
            now: &self.now,
            canary: self.canary.as_ref(),
            thresholds: &self.thresholds,
            at: "2026-11-22T12:00:00Z".parse().unwrap(),
        };
        report("main".to_owned(), &evidence)
    }

    fn findings(&self) -> Vec<Finding> {
        self.report().checks
    }

    fn find(&self, check: Check, server: Option<&str>) -> Finding {
        let findings = self.findings();
        let found = findings.into_iter().find(|finding| finding.check == check && finding.server.as_deref() == server);
        found.unwrap_or_else(|| panic!("no {check} of {server:?}"))
    }
}

/// Judges each world, and compares verdict and value.
fn judged(
    check: Check,
    server: Option<&str>,
    cases: impl IntoIterator<Item = (&'static str, World, Verdict, Option<f64>)>,
) {
    for (what, world, verdict, value) in cases {
        let found = world.find(check, server);
        assert_eq!((found.verdict, found.value), (verdict, value), "{check}, {what}: {}", found.meaning);
        let has_to_act = matches!(verdict, Verdict::Warning | Verdict::Critical);
        assert!(!has_to_act || found.remedy.is_some(), "{check}, {what}: no remedy");
        assert!(found.meaning.ends_with('.'), "{check}, {what}: {}", found.meaning);
    }
}

use Verdict::{Critical, NotApplicable, Ok as Fine, Unknown, Warning};

#[test]
fn nothing_is_wrong_with_a_healthy_ensemble() {
    for finding in World::healthy().findings() {
        assert!(matches!(finding.verdict, Fine | NotApplicable), "{finding:?}");
        assert_eq!(finding.remedy, None);
    }
    for finding in World::alone().findings() {
        assert!(matches!(finding.verdict, Fine | NotApplicable), "alone: {finding:?}");
    }
    let judged: Vec<Check> = World::healthy().findings().iter().map(|finding| finding.check).collect();
    assert!(Check::all().all(|check| judged.contains(&check)), "every check is judged");
}

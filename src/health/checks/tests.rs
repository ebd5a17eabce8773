//! A table of cases a check, over facts that are changed from those of a healthy ensemble.

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

#[test]
fn serving_and_what_depends_on_it() {
    let healthy = World::healthy;
    judged(
        Check::Serving,
        Some("b"),
        [
            ("it serves", healthy(), Fine, None),
            ("it is gone", healthy().down(1, Why::Unreachable("Connection refused".into())), Critical, None),
            ("it is frozen", healthy().down(1, Why::Silent), Critical, None),
            ("it has no quorum", healthy().down(1, Why::NotServing), Critical, None),
            ("it is another program", healthy().down(1, Why::Unreadable("\"SSH\"".into())), Critical, None),
            ("it turns us away", healthy().down(1, Why::TurnedAway), Critical, None),
            ("srvr is refused", healthy().down(1, Why::Refused("srvr")), Unknown, None),
            (
                "it turns us away, and its AdminServer answers",
                healthy().with(1, |server| server.answer = Answer::Failed(Why::TurnedAway)),
                Fine,
                None,
            ),
        ],
    );
    let down = healthy().down(1, Why::Silent);
    for finding in down.findings().iter().filter(|finding| finding.server.as_deref() == Some("b")) {
        match finding.check {
            Check::Serving => assert!(finding.remedy.is_some()),
            Check::Certificate | Check::Canary => {}
            _ => {
                assert_eq!((finding.verdict, finding.value), (Unknown, None), "{finding:?}");
                assert_eq!(finding.remedy, None, "one finding tells what to do: {finding:?}");
            }
        }
    }
}

#[test]
fn a_restricted_whitelist_is_one_finding() {
    let mut world = World::healthy();
    for sample in [world.before.as_mut().unwrap(), &mut world.now] {
        for server in &mut sample.servers {
            server.metrics = Err(Why::Refused("mntr"));
            server.connections = Err(Why::Refused("cons"));
            server.settings = Err(Why::Refused("conf"));
            server.directory_bytes = Err(Why::Refused("dirs"));
            server.write_access = Err(Why::Refused("isro"));
            server.admin = Err(Why::NotAsked);
            server.missing_words = vec!["mntr", "isro", "cons", "conf", "dirs"];
        }
    }
    let findings = world.findings();
    let with_remedy: Vec<_> = findings.iter().filter(|finding| finding.remedy.is_some()).collect();
    assert_eq!(with_remedy.len(), 1, "{with_remedy:#?}");
    assert_eq!((with_remedy[0].check, with_remedy[0].verdict), (Check::Commands, Unknown));
    assert!(with_remedy[0].meaning.starts_with("a, b and c do not allow `conf`, `cons`"), "{}", with_remedy[0].meaning);
    for finding in &findings {
        assert!(finding.verdict != Unknown || finding.value.is_none(), "never a zero: {finding:?}");
    }
    let known = [Check::OutstandingRequests, Check::ZnodeCount, Check::ReadOnly, Check::ZxidLag, Check::Canary];
    assert!(known.iter().all(|check| world.find(*check, Some("b")).verdict == Fine));
    assert_eq!(world.find(Check::Membership, None).verdict, Fine, "the canary read it");
}

#[test]
fn leaders_are_counted() {
    let healthy = World::healthy;
    let both = |mut world: World| {
        world.before.as_mut().unwrap().servers[1].summary.as_mut().unwrap().mode = Mode::Leader;
        world
    };
    judged(
        Check::Leader,
        None,
        [
            ("one", healthy(), Fine, Some(1.0)),
            ("none", healthy().down(0, Why::Silent), Critical, Some(0.0)),
            ("two, just now", healthy().mode(1, &Mode::Leader), Warning, Some(2.0)),
            ("two, for longer", both(healthy().mode(1, &Mode::Leader)), Critical, Some(2.0)),
            ("two, seen once", healthy().mode(1, &Mode::Leader).once(), Critical, Some(2.0)),
            ("alone", World::alone(), NotApplicable, None),
        ],
    );
    let mut left_out = healthy();
    left_out.now.servers.remove(0);
    judged(Check::Leader, None, [("the leader is not named", left_out, Unknown, Some(0.0))]);
}

#[test]
fn a_quorum_bears_so_many_losses() {
    let healthy = World::healthy;
    let gone = || Why::Unreachable("refused".into());
    let five = || {
        let mut world = healthy();
        world.now.servers.extend([server("d", 4, Mode::Follower), server("e", 5, Mode::Follower)]);
        for server in &mut world.now.servers {
            server.settings.as_mut().unwrap().members = members(1..=5);
        }
        world
    };
    let mut left_out = healthy();
    left_out.now.servers.remove(2);
    let observing = healthy().mode(2, &Mode::Observer).with(0, |server| {
        server.settings.as_mut().unwrap().members.get_mut(&3).unwrap().votes = false;
    });
    judged(
        Check::Quorum,
        None,
        [
            ("all of three", healthy(), Fine, Some(3.0)),
            ("one of three is gone", healthy().down(1, gone()), Critical, Some(2.0)),
            ("two of three are gone", healthy().down(1, gone()).down(2, gone()), Critical, Some(1.0)),
            ("none serves", healthy().down(0, gone()).down(1, gone()).down(2, gone()), Critical, Some(0.0)),
            ("one of five is gone", five().down(1, gone()), Warning, Some(4.0)),
            ("two of five are gone", five().down(1, gone()).down(2, gone()), Critical, Some(3.0)),
            ("one is read-only", healthy().mode(2, &Mode::ReadOnly), Critical, Some(2.0)),
            ("one is not named", left_out, Unknown, Some(2.0)),
            ("two and an observer", observing, Fine, Some(2.0)),
            ("alone", World::alone(), NotApplicable, None),
        ],
    );
}

#[test]
fn followers_that_keep_up_are_counted() {
    let healthy = World::healthy;
    let old = |synced| {
        healthy().metric(0, "synced_followers", synced).with(0, |server| {
            server.metrics.as_mut().unwrap().remove("quorum_size");
        })
    };
    judged(
        Check::SyncedFollowers,
        None,
        [
            ("both", healthy(), Fine, Some(2.0)),
            ("one", healthy().metric(0, "synced_followers", 1.0), Warning, Some(1.0)),
            ("none", healthy().metric(0, "synced_followers", 0.0), Critical, Some(0.0)),
            ("one, of ZooKeeper 3.5", old(1.0), Warning, Some(1.0)),
            ("both, of ZooKeeper 3.5", old(2.0), Fine, Some(2.0)),
            ("no leader", healthy().down(0, Why::Silent), Unknown, None),
            ("refused", healthy().with(0, |server| server.metrics = Err(Why::Refused("mntr"))), Unknown, None),
            (
                "Keeper",
                healthy().with(0, |server| {
                    server.metrics.as_mut().unwrap().remove("synced_followers");
                }),
                NotApplicable,
                None,
            ),
            ("alone", World::alone(), NotApplicable, None),
        ],
    );
}

#[test]
fn a_follower_lags_by_what_it_lacks_of_the_earlier_sample() {
    let healthy = World::healthy;
    judged(
        Check::ZxidLag,
        Some("b"),
        [
            ("it has all", healthy(), Fine, Some(0.0)),
            ("it has more", healthy().zxid(1, EPOCH + 90), Fine, Some(0.0)),
            ("it lacks one", healthy().zxid(1, EPOCH + 54), Warning, Some(1.0)),
            ("it is in the epoch before", healthy().zxid(1, 7), Warning, Some(55.0)),
            ("it is in the epoch after", healthy().zxid(1, 2 * EPOCH), Fine, Some(0.0)),
            ("one sample", healthy().once(), Unknown, None),
            (
                "it tells none",
                healthy().with(1, |server| server.summary.as_mut().unwrap().zxid = None),
                NotApplicable,
                None,
            ),
        ],
    );
    judged(Check::ZxidLag, Some("a"), [("it leads", healthy(), NotApplicable, None)]);
}

#[test]
fn epochs_are_compared_after_a_write() {
    let healthy = World::healthy;
    let behind = || healthy().zxid(1, 7);
    let failed = |canary: &mut CanaryFacts| {
        canary.trips[1].end = Some(TripEnd::Failed(Step::Connect, "no answer came".into()));
    };
    let mut nobody = healthy();
    nobody.canary = None;
    judged(
        Check::Epoch,
        None,
        [
            ("alike", healthy(), Fine, None),
            ("one is behind", behind(), Critical, None),
            ("one is behind, and saw no write", behind().canary(failed), Unknown, None),
            ("one is behind, in one sample before the write", behind().once(), Unknown, None),
            ("alike without a canary", nobody, Fine, None),
            ("read-only servers are another matter", behind().mode(1, &Mode::ReadOnly), Fine, None),
        ],
    );
}

#[test]
fn load_is_judged_by_its_limits() {
    let healthy = World::healthy;
    judged(
        Check::OutstandingRequests,
        Some("b"),
        [
            ("some", healthy().metric(1, "outstanding_requests", 9.0), Fine, Some(9.0)),
            ("many", healthy().metric(1, "outstanding_requests", 10.0), Warning, Some(10.0)),
            ("too many", healthy().metric(1, "outstanding_requests", 50.0), Critical, Some(50.0)),
            ("srvr alone", healthy().with(1, |server| server.metrics = Err(Why::Refused("mntr"))), Fine, Some(0.0)),
        ],
    );
    judged(
        Check::PendingSyncs,
        Some("a"),
        [
            ("some", healthy(), Fine, Some(0.0)),
            ("many", healthy().metric(0, "pending_syncs", 11.0), Warning, Some(11.0)),
        ],
    );
    judged(Check::PendingSyncs, Some("b"), [("it follows", healthy(), NotApplicable, None)]);
    let slow = |sum: f64| healthy().metric(1, "sum_updatelatency", 20.0 + sum).metric(1, "cnt_updatelatency", 20.0);
    judged(
        Check::Latency,
        Some("b"),
        [
            ("nothing happened", healthy(), Fine, None),
            ("fast", slow(25.0), Fine, Some(2.5)),
            ("slow", slow(1000.0), Warning, Some(100.0)),
            ("very slow", slow(5000.0), Critical, Some(500.0)),
            (
                "it was restarted",
                healthy().metric(1, "sum_updatelatency", 5.0).metric(1, "cnt_updatelatency", 5.0),
                Fine,
                Some(1.0),
            ),
            ("one sample", slow(25.0).once(), Unknown, None),
            (
                "ZooKeeper 3.5",
                healthy().with(1, |server| {
                    server.metrics.as_mut().unwrap().remove("sum_updatelatency");
                }),
                NotApplicable,
                None,
            ),
        ],
    );
    let log = |sum: f64| healthy().metric(1, "sum_fsynctime", 8.0 + sum).metric(1, "cnt_fsynctime", 65.0);
    let counted = |world: World| {
        world.with(1, |server| server.admin = Ok(AdminFacts { slow_fsyncs: Some(2), clock_offset_ms: None }))
    };
    judged(
        Check::Fsync,
        Some("b"),
        [
            ("no write", healthy(), Fine, None),
            ("fast", log(5.0), Fine, Some(0.5)),
            ("slow", log(1000.0), Warning, Some(100.0)),
            ("very slow", log(10_000.0), Critical, Some(1000.0)),
            ("the server counted slow ones", counted(log(5.0)), Warning, Some(0.5)),
            ("one sample", log(5.0).once(), Unknown, None),
        ],
    );
    judged(
        Check::FileDescriptors,
        Some("b"),
        [
            ("few", healthy(), Fine, Some(0.3)),
            ("many", healthy().metric(1, "open_file_descriptor_count", 14_000.0), Warning, Some(70.0)),
            ("too many", healthy().metric(1, "open_file_descriptor_count", 17_000.0), Critical, Some(85.0)),
            ("no limit", healthy().metric(1, "max_file_descriptor_count", 0.0), NotApplicable, None),
        ],
    );
}

#[test]
fn connections_are_counted_by_address_against_the_limit_of_one() {
    let healthy = World::healthy;
    let busy = |number| {
        healthy().with(1, |server| {
            server.connections.as_mut().unwrap().insert("10.0.0.8".parse().unwrap(), number);
        })
    };
    let limit =
        |world: World, limit| world.with(1, |server| server.settings.as_mut().unwrap().max_client_connections = limit);
    judged(
        Check::Connections,
        Some("b"),
        [
            ("few", healthy(), Fine, Some(20.0)),
            ("many", busy(48), Warning, Some(80.0)),
            ("nearly all", busy(57), Critical, Some(95.0)),
            ("no limit", limit(busy(500), Some(0)), Fine, None),
            ("some were rejected", healthy().metric(1, "connection_rejected", 3.0), Warning, Some(20.0)),
            ("it turns us away", healthy().down(1, Why::TurnedAway), Critical, None),
            ("the limit is not told", limit(busy(48), None), NotApplicable, None),
            ("there are none", healthy().with(1, |server| server.connections = Ok(BTreeMap::new())), Fine, Some(0.0)),
            ("refused", healthy().with(1, |server| server.connections = Err(Why::Refused("cons"))), Unknown, None),
        ],
    );
}

#[test]
fn growth_is_judged_by_its_limits() {
    let healthy = World::healthy;
    for (check, key, limit, verdict) in [
        (Check::ZnodeCount, "znode_count", 1e6, Warning),
        (Check::DataSize, "approximate_data_size", 1_073_741_824.0, Warning),
        (Check::Watches, "watch_count", 1e4, Warning),
        (Check::Ephemerals, "ephemerals_count", 1e4, Warning),
        (Check::Ephemerals, "ephemerals_count", 1e5, Critical),
    ] {
        judged(
            check,
            Some("c"),
            [
                ("below", healthy().metric(2, key, limit / 20.0), Fine, Some(limit / 20.0)),
                ("at the limit", healthy().metric(2, key, limit), verdict, Some(limit)),
            ],
        );
    }
    judged(
        Check::DirectorySize,
        Some("c"),
        [
            ("small", healthy(), Fine, Some(67_109_525.0)),
            (
                "large",
                healthy().with(2, |server| server.directory_bytes = Ok(11 << 30)),
                Warning,
                Some(11.0 * 1_073_741_824.0),
            ),
            ("refused", healthy().with(2, |server| server.directory_bytes = Err(Why::Refused("dirs"))), Unknown, None),
        ],
    );
    let mut world = healthy();
    world.thresholds.set(Check::Watches, Limits { warn: Some(2.0), critical: Some(3.0) });
    judged(Check::Watches, Some("c"), [("limits of the configuration", world, Critical, Some(3.0))]);
}

#[test]
fn elections_and_restarts_are_churn() {
    let healthy = World::healthy;
    judged(
        Check::Churn,
        Some("b"),
        [
            ("an hour up", healthy(), Fine, Some(3600.0)),
            ("just started", healthy().metric(1, "uptime", 179_000.0), Warning, Some(179.0)),
            ("an election meanwhile", healthy().metric(1, "cnt_election_time", 2.0), Warning, Some(3600.0)),
            ("refused", healthy().with(1, |server| server.metrics = Err(Why::Refused("mntr"))), Unknown, None),
        ],
    );
}

#[test]
fn writes_and_certificates() {
    let healthy = World::healthy;
    let access = |access: WriteAccess| healthy().with(1, move |server| server.write_access = Ok(access));
    judged(
        Check::ReadOnly,
        Some("b"),
        [
            ("rw", healthy(), Fine, None),
            ("ro", access(WriteAccess::ReadOnly), Critical, None),
            ("null", access(WriteAccess::None), Unknown, None),
            ("the mode says so", healthy().mode(1, &Mode::ReadOnly), Critical, None),
            ("refused", healthy().with(1, |server| server.write_access = Err(Why::Refused("isro"))), Fine, None),
        ],
    );
    let until = |end: &str| {
        let end = end.parse().unwrap();
        healthy().with(1, move |server| server.certificate = Some(Ok(end)))
    };
    judged(
        Check::Certificate,
        Some("b"),
        [
            ("no TLS", healthy(), NotApplicable, None),
            ("a year", until("2027-11-22T12:00:00Z"), Fine, Some(365.0)),
            ("a month", until("2026-12-22T12:00:00Z"), Warning, Some(30.0)),
            ("a week", until("2026-11-29T00:00:00Z"), Critical, Some(6.5)),
            ("it has ended", until("2026-11-21T12:00:00Z"), Critical, Some(-1.0)),
            (
                "none was shown",
                healthy().with(1, |server| server.certificate = Some(Err(Why::NotAsked))),
                Unknown,
                None,
            ),
        ],
    );
}

#[test]
fn a_canary_tells_what_it_met() {
    let healthy = World::healthy;
    let took = |ms| healthy().canary(move |canary| canary.trips[1] = trip("b", ms));
    let ended = |end: TripEnd| healthy().canary(move |canary| canary.trips[1].end = Some(end.clone()));
    let mut off = healthy();
    off.canary = None;
    judged(
        Check::Canary,
        Some("b"),
        [
            ("fast", healthy(), Fine, Some(3.0)),
            ("slow", took(250), Warning, Some(250.0)),
            ("very slow", took(1000), Critical, Some(1000.0)),
            ("a step failed", ended(TripEnd::Failed(Step::Watch, "no event came in 5s".into())), Critical, None),
            ("it may not work", ended(TripEnd::NotAllowed(Step::Create)), Unknown, None),
            ("it was not sent", ended(TripEnd::NotSent("the server is down".into())), Unknown, None),
            ("it is off", off, NotApplicable, None),
        ],
    );
    let forbidden = ended(TripEnd::NotAllowed(Step::Create)).find(Check::Canary, Some("b"));
    assert!(forbidden.remedy.is_some_and(|remedy| remedy.contains("canary = ")));
}

#[test]
fn clocks_are_compared() {
    let healthy = World::healthy;
    let leader = |ms| healthy().canary(move |canary| canary.leader_clock_offset_ms = Some(ms));
    let host = |ms| {
        healthy().with(2, move |server| server.admin = Ok(AdminFacts { slow_fsyncs: None, clock_offset_ms: Some(ms) }))
    };
    let mut nobody = healthy();
    nobody.canary = None;
    for server in &mut nobody.now.servers {
        server.admin = Err(Why::NotAsked);
    }
    judged(
        Check::Clock,
        None,
        [
            ("alike", healthy(), Fine, Some(0.0)),
            ("ahead", leader(499), Fine, Some(0.499)),
            ("far ahead", leader(600), Warning, Some(0.6)),
            ("behind", host(-2500), Critical, Some(2.5)),
            ("nobody tells", nobody, Unknown, None),
        ],
    );
    assert!(host(-2500).find(Check::Clock, None).meaning.contains("The clock of c is 2.5 s or more behind"));
}

#[test]
fn what_should_never_happen_is_counted() {
    let healthy = World::healthy;
    let mut long_ago = healthy().metric(1, "digest_mismatches_count", 2.0);
    long_ago.before.as_mut().unwrap().servers[1]
        .metrics
        .as_mut()
        .unwrap()
        .insert("digest_mismatches_count".into(), 2.0);
    judged(
        Check::Counters,
        Some("b"),
        [
            ("nothing", healthy(), Fine, Some(0.0)),
            ("a large request", healthy().metric(1, "large_requests_rejected", 1.0), Warning, Some(1.0)),
            ("failed logins", healthy().metric(1, "auth_failed_count", 9.0), Warning, Some(5.0)),
            ("an unrecoverable error", healthy().metric(1, "unrecoverable_error_count", 1.0), Critical, Some(1.0)),
            ("a digest that did not match, long ago", long_ago, Warning, Some(0.0)),
            ("one sample", healthy().once(), Unknown, None),
            (
                "a server without counters",
                healthy().with(1, |server| server.metrics = Ok([("znode_count".to_owned(), 1.0)].into())),
                NotApplicable,
                None,
            ),
        ],
    );
}

#[test]
fn those_that_are_named_are_the_members() {
    let healthy = World::healthy;
    let mut left_out = healthy();
    left_out.now.servers.remove(2);
    let stranger = healthy().with(2, |server| server.settings.as_mut().unwrap().id = Some(9));
    let disagreeing = healthy().with(1, |server| server.settings.as_mut().unwrap().members = members(1..=2));
    let mut by_canary = healthy();
    for server in &mut by_canary.now.servers {
        server.settings = Err(Why::Refused("conf"));
    }
    let mut nobody = by_canary.clone();
    nobody.canary = None;
    let fewer = by_canary.clone().canary(|canary| canary.members = members(1..=2));
    let more = by_canary.clone().canary(|canary| canary.members = members(1..=4));
    let gone = || Why::Unreachable("refused".into());
    judged(
        Check::Membership,
        None,
        [
            ("all", healthy(), Fine, Some(3.0)),
            ("one is not named", left_out, Warning, Some(3.0)),
            ("one is no member", stranger, Warning, Some(3.0)),
            ("servers disagree", disagreeing, Warning, Some(3.0)),
            ("one does not answer", healthy().down(2, gone()), Fine, Some(3.0)),
            ("the canary tells", by_canary, Fine, Some(3.0)),
            ("the canary tells of fewer", fewer, Warning, Some(2.0)),
            ("the canary tells of more", more, Warning, Some(4.0)),
            ("nobody tells", nobody, Unknown, None),
            ("alone", World::alone(), NotApplicable, None),
        ],
    );
    let newer = healthy().with(1, |server| server.summary.as_mut().unwrap().version = "3.9.3".into());
    judged(
        Check::VersionSkew,
        None,
        [
            ("alike", healthy(), Fine, Some(1.0)),
            ("half an upgrade", newer, Warning, Some(2.0)),
            ("nobody answers", World::alone().down(0, gone()), Unknown, None),
        ],
    );
}

#[test]
fn a_majority_is_counted_from_what_is_in_sight() {
    use crate::domain::health::Quorum::{Electing, Held, Lost};
    use crate::domain::health::ServerState::{Down, Unknown as Unclear, Up, Waiting};
    let healthy = World::healthy;
    let hidden = || Why::OutOfSight("no connection in 2s".into());
    let gone = || Why::Unreachable("Connection refused".into());
    let seen = |world: &World| {
        let report = world.report();
        (report.quorum, report.leader, report.in_sight)
    };
    let (a, nobody) = (Some("a".to_owned()), None);
    // A leader that has not noticed yet still counts its followers.
    let alone = |synced: f64| {
        let metrics = move |server: &mut ServerFacts| {
            server.metrics.as_mut().unwrap().insert("synced_followers".into(), synced);
        };
        healthy().down(1, gone()).down(2, gone()).with(0, metrics)
    };
    for (case, world, expected) in [
        ("all is well", healthy(), (Some(Held), a.clone(), true)),
        ("one is gone", healthy().down(2, gone()), (Some(Held), a.clone(), true)),
        (
            "the leader hangs, and nobody has noticed",
            healthy().down(0, Why::Silent),
            (Some(Held), nobody.clone(), true),
        ),
        ("two are gone", healthy().down(1, gone()).down(2, gone()).down(0, Why::NotServing), (Some(Lost), None, true)),
        ("two are gone, says the leader", alone(0.0), (Some(Lost), a.clone(), true)),
        ("the leader has not noticed", alone(2.0), (Some(Held), a.clone(), true)),
        (
            "they elect",
            healthy().down(0, Why::NotServing).down(1, Why::NotServing).down(2, Why::NotServing),
            (Some(Electing), None, true),
        ),
        (
            "two elect without the third",
            healthy().down(0, gone()).down(1, Why::NotServing).down(2, Why::NotServing),
            (Some(Electing), None, true),
        ),
        ("all are gone", healthy().down(0, gone()).down(1, gone()).down(2, gone()), (Some(Lost), None, true)),
        ("nothing is in sight", healthy().down(0, hidden()).down(1, hidden()).down(2, hidden()), (None, None, false)),
        ("one follower is in sight, and works", healthy().down(0, hidden()).down(1, hidden()), (None, None, true)),
        (
            "one is in sight, and looks for a leader",
            healthy().down(0, hidden()).down(1, hidden()).down(2, Why::NotServing),
            (Some(Lost), None, true),
        ),
        (
            "nobody may be asked",
            healthy().down(0, Why::Refused("srvr")).down(1, Why::Refused("srvr")).down(2, Why::TurnedAway),
            (None, None, true),
        ),
        ("a server alone", World::alone(), (Some(Held), None, true)),
        (
            "a server alone is gone",
            World::alone().down(0, gone()).canary(|canary| canary.members.clear()),
            (Some(Lost), None, true),
        ),
        (
            "two say that they lead",
            healthy().with(1, |server| server.summary.as_mut().unwrap().mode = Mode::Leader),
            (Some(Held), None, true),
        ),
    ] {
        assert_eq!(seen(&world), expected, "{case}");
    }
    let states = |world: World| world.report().servers.into_iter().map(|view| view.state).collect::<Vec<_>>();
    assert_eq!(states(healthy().down(0, Why::NotServing).down(1, Why::Silent)), [Waiting, Down, Up]);
    assert_eq!(
        states(healthy().down(0, hidden()).down(1, Why::Refused("srvr")).down(2, gone())),
        [Down, Unclear, Down]
    );
}

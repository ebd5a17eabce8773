//! Load, growth, and what should never happen.

use super::*;

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
            ("too late", healthy().with(2, |server| server.directory_bytes = Err(Why::OutOfTime)), Unknown, None),
        ],
    );
    let mut world = healthy();
    world.thresholds.set(Check::Watches, Limits { warn: Some(2.0), critical: Some(3.0) });
    judged(Check::Watches, Some("c"), [("limits of the configuration", world, Critical, Some(3.0))]);
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

//! Who serves, who is asked in vain, and for how long it has been so.

use super::*;

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
            ("it was not asked in time", healthy().down(1, Why::OutOfTime), Unknown, None),
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

//! The canary, and clocks.

use super::*;

#[test]
fn a_canary_tells_what_it_met() {
    let healthy = World::healthy;
    let took = |ms| healthy().canary(move |canary| canary.trips[1] = trip("b", ms));
    let ended = |end: TripEnd| healthy().canary(move |canary| canary.trips[1].end = Some(end.clone()));
    let slow_and_late = took(1200).canary(|canary| canary.trips[1].end = Some(TripEnd::OutOfTime(Step::Get)));
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
            ("there was no time left", ended(TripEnd::OutOfTime(Step::Sync)), Unknown, None),
            ("it was slow until then", slow_and_late, Critical, Some(1200.0)),
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

//! Leaders, followers and majorities.

use super::*;

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

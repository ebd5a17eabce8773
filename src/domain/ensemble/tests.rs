//! The table of cases: what is seen when, and what is told of it.
//!
//! A look is `seconds servers leader`: `15 abc a` sees three servers of which `a` leads. In place of the
//! leader may stand `-` (nobody leads), `?` (unknown), `electing` (the servers are there and nobody
//! serves); in place of the servers `?` (nothing is in sight) and `none`; a `!` behind it all is a check
//! that is critical for another reason. What is told is `seconds events`, each with its server and, from
//! two on, its count.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::domain::health::{Check, Finding, Quorum, Report, ServerState, ServerView, Verdict};

const INTERVAL: Duration = Duration::from_secs(15);
const SERVERS: [&str; 3] = ["a", "b", "c"];

fn second(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

fn observation(look: &str) -> Observation {
    let is_critical = look.ends_with('!');
    let words: Vec<&str> = look.trim_end_matches('!').split_whitespace().collect();
    let [at, servers, leader, ref waiting @ ..] = words[..] else { panic!("{look}") };
    let at = second(at.parse().unwrap());
    if servers == "?" {
        let servers = SERVERS.map(|server| (server.to_owned(), ServerState::Unknown)).into();
        return Observation { at, critical: None, quorum: None, leader: None, servers };
    }
    let is_there = |server: &str| servers != "none" && servers.contains(server);
    let alive = SERVERS.iter().filter(|server| is_there(server)).count();
    let quorum = match leader {
        "?" => None,
        "electing" if alive >= 2 => Some(Quorum::Electing),
        _ if alive >= 2 => Some(Quorum::Held),
        _ => Some(Quorum::Lost),
    };
    let state = |server| match is_there(server) {
        true if leader == "electing" || alive < 2 || waiting.contains(&server) => ServerState::Waiting,
        true => ServerState::Up,
        false => ServerState::Down,
    };
    Observation {
        at,
        critical: Some(is_critical || alive < 3 || !waiting.is_empty() || ["-", "electing"].contains(&leader)),
        quorum,
        leader: SERVERS.contains(&leader).then(|| leader.to_owned()),
        servers: SERVERS.map(|server| (server.to_owned(), state(server))).into(),
    }
}

fn told(judged: &Judged) -> String {
    let events = judged.events.iter().map(|happening| {
        let server = happening.server.as_ref().map(|server| format!(" {server}")).unwrap_or_default();
        let count = if happening.count > 1 { format!(" ×{}", happening.count) } else { String::new() };
        format!("{}{server}{count}", happening.event.as_str())
    });
    events.collect::<Vec<_>>().join(", ")
}

/// Plays looks one after the other, each from what the ledger would have kept.
fn play(looks: &[&str]) -> (Vec<String>, Standing) {
    let mut standing = Standing::default();
    let mut all = Vec::new();
    for look in looks {
        let judged = standing.judge(&observation(look), Pace::of(INTERVAL));
        if !judged.events.is_empty() {
            all.push(format!("{} {}", look.split(' ').next().unwrap(), told(&judged)));
        }
        let kept = serde_json::to_string(&judged.standing).unwrap();
        standing = serde_json::from_str(&kept).unwrap();
        assert_eq!(standing, judged.standing);
    }
    (all, standing)
}

#[test]
fn what_is_seen_is_told_once_it_has_lasted() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("all is well", &["0 abc a", "15 abc a", "30 abc a"], &[]),
        ("well at first sight, and nobody's first leader is a change", &["0 abc c"], &[]),
        (
            "bad at first sight",
            &["0 none -", "3 none -"],
            &["3 quorum_lost, server_down a, server_down b, server_down c"],
        ),
        ("a single bad look is not told", &["0 abc a", "15 ab a", "18 abc a", "30 abc a"], &[]),
        (
            "a follower dies and comes back",
            &["0 abc a", "15 ab a", "18 ab a", "30 abc a", "45 abc a", "60 abc a", "75 abc a"],
            &["18 degraded, server_down c", "75 recovered, server_up c"],
        ),
        (
            "the leader dies: one moment, three events",
            &["0 abc a", "15 bc b", "18 bc b", "30 bc b"],
            &["18 degraded, leader_changed, server_down a"],
        ),
        (
            "two die, which is told at once, and come back together",
            &["0 abc a", "15 a -", "18 a -", "30 abc b", "33 abc b", "45 abc b", "60 abc b", "75 abc b", "90 abc b"],
            &[
                "18 quorum_lost, server_down b, server_down c",
                "33 leader_changed",
                "75 recovered, server_up b, server_up c",
            ],
        ),
        (
            "they come back one after the other: it works again, and is not well yet",
            &["0 abc a", "15 a -", "18 a -", "30 ab a", "75 ab a", "90 abc a", "135 abc a"],
            &["18 quorum_lost, server_down b, server_down c", "75 degraded, server_up b", "135 recovered, server_up c"],
        ),
        (
            "one dies after the other",
            &["0 abc a", "15 ab a", "18 ab a", "30 a -", "33 a -"],
            &["18 degraded, server_down c", "33 quorum_lost, server_down b"],
        ),
        (
            "an election takes a moment",
            &["0 abc a", "15 abc electing", "17 abc b", "20 abc b", "30 abc b"],
            &["20 leader_changed"],
        ),
        (
            "an election that does not end is a lost quorum, though not as soon as one without servers",
            &["0 abc a", "15 abc electing", "18 abc electing", "21 abc electing", "27 abc electing"],
            &["18 degraded", "27 quorum_lost"],
        ),
        (
            "nothing in sight is no news, also in the middle of some",
            &["0 abc a", "15 ? ?", "30 ? ?", "600 ? ?", "615 ab a", "618 ? ?", "621 ab a", "700 ? ?"],
            &["621 degraded, server_down c"],
        ),
        (
            "what is not known of the quorum leaves it as it was",
            &["0 abc a", "15 a -", "18 a -", "30 ab ?", "900 ab ?"],
            &["18 quorum_lost, server_down b, server_down c", "900 server_up b"],
        ),
        (
            "a server that does not join the others is down, though not as soon as one that is gone",
            &["0 abc a", "15 abc a c", "18 abc a c", "21 abc a c", "27 abc a c", "30 abc a", "75 abc a"],
            &["18 degraded", "27 server_down c", "75 recovered, server_up c"],
        ),
        (
            "another check is critical, and a warning is not",
            &["0 abc a", "15 abc a!", "18 abc a!", "30 abc a", "60 abc a", "75 abc a"],
            &["18 degraded", "75 recovered"],
        ),
        (
            "the leader goes round: told once, then not before it is quiet",
            &[
                "0 abc a", "15 abc b", "18 abc b", "30 abc c", "33 abc c", "45 abc a", "48 abc a", "60 abc a",
                "63 abc a",
            ],
            &["18 leader_changed", "63 leader_changed ×2"],
        ),
        (
            "two that lead, one of them the old one, are nobody",
            &["0 abc a", "15 abc ?", "18 abc ?", "30 abc a", "45 abc a"],
            &[],
        ),
        (
            "a clock that is set back makes no time",
            &["100 abc a", "115 ab a", "10 ab a", "112 ab a", "115 ab a", "118 ab a"],
            &["118 degraded, server_down c"],
        ),
    ];
    for (name, looks, expected) in cases {
        assert_eq!(play(looks).0, *expected, "{name}");
    }
}

#[test]
fn what_flaps_is_one_event_with_a_count() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "stopped and continued while it is down: nothing more is told, and being well must last longer",
            &[
                "0 abc a",
                "15 ab a",
                "18 ab a",
                "30 abc a",
                "45 ab a",
                "60 abc a",
                "75 ab a",
                "90 abc a",
                "255 abc a",
                "270 abc a",
            ],
            &["18 degraded, server_down c", "270 recovered ×3, server_up c ×3"],
        ),
        (
            "gone for a moment each time: the third time it is told, though it never lasted",
            &["0 abc a", "15 ab a", "18 abc a", "30 ab a", "33 abc a", "45 ab a", "48 abc a"],
            &["45 degraded ×3, server_down c ×3"],
        ),
        (
            "what was long ago does not count",
            &["0 abc a", "15 ab a", "18 abc a", "30 ab a", "33 abc a", "633 abc a", "645 ab a", "648 abc a"],
            &[],
        ),
        (
            "down again soon after it was told to be up: it counts on",
            &["0 abc a", "15 ab a", "18 ab a", "30 abc a", "75 abc a", "90 ab a", "93 ab a"],
            &["18 degraded, server_down c", "75 recovered, server_up c", "93 degraded ×2, server_down c ×2"],
        ),
        (
            "a quorum that comes and goes",
            &["0 abc a", "15 a -", "18 a -", "30 abc a", "45 a -", "60 abc a", "120 abc a", "150 abc a"],
            &["18 quorum_lost, server_down b, server_down c", "150 recovered ×2, server_up b ×2, server_up c ×2"],
        ),
    ];
    for (name, looks, expected) in cases {
        assert_eq!(play(looks).0, *expected, "{name}");
    }
}

#[test]
fn what_comes_again_raises_the_count_of_the_transition_that_told_it() {
    let mut standing = play(&["0 abc a", "15 a -", "18 a -", "30 abc a"]).1;
    let mut look = |look| {
        let judged = standing.judge(&observation(look), Pace::of(INTERVAL));
        standing = judged.standing.clone();
        judged
    };
    let again = look("45 ab a");
    let recount = |event, server: Option<&str>, count| Recount {
        at: second(18),
        event,
        server: server.map(ToOwned::to_owned),
        count,
    };
    // The ensemble is told to have lost its quorum; that a check is critical was never told by itself.
    assert_eq!(again.recounts, [recount(EnsembleEvent::ServerDown, Some("c"), 2)]);
    assert_eq!(again.events, []);
    let lost = look("48 a -").recounts;
    let expected = [recount(EnsembleEvent::ServerDown, Some("b"), 2), recount(EnsembleEvent::QuorumLost, None, 2)];
    assert_eq!(lost, expected);
}

#[test]
fn every_transition_has_a_time_of_its_own_and_says_who_led() {
    let (_, standing) = play(&["0 abc a", "15 ab a", "18 ab a", "30 a -"]);
    // The clock was set back meanwhile, by more than a transition ago.
    let judged = standing.judge(&observation("0 a -"), Pace::of(INTERVAL));
    assert_eq!(judged.events, []);
    let judged = judged.standing.judge(&observation("33 a -"), Pace::of(INTERVAL));
    assert_eq!((judged.at, told(&judged).as_str()), (second(33), "quorum_lost, server_down b"));
    let (_, standing) = play(&["0 abc a", "15 ab a", "18 ab a"]);
    let looks = ["0 abc b", "3 abc b"].map(observation);
    let first = standing.judge(&looks[0], Pace::of(INTERVAL));
    let second_look = first.standing.judge(&looks[1], Pace::of(INTERVAL));
    assert_eq!(second_look.at, second(18) + SignedDuration::from_micros(1));
    assert_eq!(second_look.leader_before.as_deref(), Some("a"));
    assert_eq!(second_look.leader_after.as_deref(), Some("b"));
}

#[test]
fn what_is_seen_once_is_looked_at_again_soon() {
    let pace = Pace::of(INTERVAL);
    assert_eq!(pace.confirm(), Duration::from_secs(3));
    assert_eq!(Pace::of(Duration::from_secs(1)).confirm(), Duration::from_secs(1));
    for (looks, in_doubt) in [
        (&["0 abc a"][..], false),
        (&["0 abc a", "15 ab a"], true),
        (&["0 abc a", "15 abc b"], true),
        (&["0 abc a", "15 ab a", "18 abc a"], false),
        (&["0 abc a", "15 ab a", "18 ab a"], false),
        (&["0 abc a", "15 ab a", "18 ab a", "30 abc a"], false),
    ] {
        assert_eq!(play(looks).1.is_in_doubt(), in_doubt, "{looks:?}");
    }
}

#[test]
fn a_standing_tells_its_condition_and_outlives_servers() {
    let standing = play(&["0 abc a", "15 a -", "18 a -"]).1;
    assert_eq!(standing.condition(), Condition::QuorumLost);
    assert_eq!(standing.leader(), Some("a"));
    assert_eq!(standing.servers_down().collect::<Vec<_>>(), ["b", "c"]);
    // The configuration names two other servers from now on.
    let mut seen = observation("30 a a");
    seen.servers.remove("b");
    seen.servers.insert("d".into(), ServerState::Up);
    let judged = standing.judge(&seen, Pace::of(INTERVAL));
    assert_eq!(judged.standing.servers_down().collect::<Vec<_>>(), ["c"]);
    assert_eq!(serde_json::from_str::<Standing>("{}").unwrap(), Standing::default());
}

#[test]
fn a_report_says_what_it_says_and_no_more() {
    let report = |verdict, states: [ServerState; 2]| {
        let finding = Finding::told(Check::Serving, Some("a:1"), verdict, "");
        let views = ["a:1", "b:1"].into_iter().zip(states);
        let servers = views.map(|(server, state)| ServerView { server: server.to_owned(), state }).collect();
        Report { servers, ..Report::new("main".into(), vec![finding]) }
    };
    let servers = |one, other| [("a:1".to_owned(), one), ("b:1".to_owned(), other)].into();
    let at = second(0);
    let (up, waiting, down, unknown) = (ServerState::Up, ServerState::Waiting, ServerState::Down, ServerState::Unknown);
    let blind = Report { in_sight: false, quorum: Some(Quorum::Lost), ..report(Verdict::Critical, [down, down]) };
    let (leader, quorum) = (Some("a:1".to_owned()), Some(Quorum::Held));
    for (report, network_works, expected) in [
        (
            Report { leader: leader.clone(), ..report(Verdict::Warning, [up, unknown]) },
            false,
            Observation { at, critical: Some(false), quorum, leader, servers: servers(up, unknown) },
        ),
        (
            Report { quorum: Some(Quorum::Electing), ..report(Verdict::Critical, [waiting, waiting]) },
            false,
            Observation {
                at,
                critical: Some(true),
                quorum: Some(Quorum::Electing),
                leader: None,
                servers: servers(waiting, waiting),
            },
        ),
        (
            blind.clone(),
            false,
            Observation { at, critical: None, quorum: None, leader: None, servers: servers(unknown, unknown) },
        ),
        (
            Report { quorum: None, ..blind },
            true,
            Observation {
                at,
                critical: Some(true),
                quorum: Some(Quorum::Lost),
                leader: None,
                servers: servers(down, down),
            },
        ),
    ] {
        assert_eq!(Observation::of(&report, at, network_works), expected, "{report:?}");
    }
}

proptest::proptest! {
    /// Whatever is seen: what went down comes up before it goes down again, an ensemble recovers only
    /// from something, and times grow.
    #[test]
    fn what_is_told_makes_sense(looks in proptest::collection::vec((0_i64..40, 0_usize..9), 1..200)) {
        const SIGHTS: [&str; 9] =
            ["abc a", "abc b", "abc ?", "ab a", "bc b", "a -", "none -", "? ?", "abc electing"];
        let mut standing = Standing::default();
        let (mut now, mut told_at) = (0, None);
        let mut down = std::collections::BTreeSet::new();
        for (seconds, sight) in looks {
            now += seconds;
            let before = standing.condition();
            let judged = standing.judge(&observation(&format!("{now} {}", SIGHTS[sight])), Pace::of(INTERVAL));
            for happening in &judged.events {
                let server = happening.server.clone().unwrap_or_default();
                match happening.event {
                    EnsembleEvent::ServerDown => proptest::prop_assert!(down.insert(server)),
                    EnsembleEvent::ServerUp => proptest::prop_assert!(down.remove(&server)),
                    EnsembleEvent::Recovered => proptest::prop_assert!(before != Condition::Healthy),
                    EnsembleEvent::QuorumLost => proptest::prop_assert!(before != Condition::QuorumLost),
                    EnsembleEvent::Degraded => proptest::prop_assert!(before != Condition::Degraded),
                    EnsembleEvent::LeaderChanged => {}
                }
            }
            if !judged.events.is_empty() {
                proptest::prop_assert!(Some(judged.at) > told_at);
                told_at = Some(judged.at);
            }
            standing = judged.standing;
        }
    }
}

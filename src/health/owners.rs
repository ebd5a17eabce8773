//! Who owns the ephemeral znodes of an ensemble, and whether they live: what servers told, put
//! together. Pure. Whoever could not be asked leaves a question open and never answers it with no.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::facts::Learned;
use crate::store::model::microseconds;

/// How many paths of one session are told.
const PATHS_TOLD: usize = 20;

/// What one server told of sessions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerSessions {
    /// The server, `host:port` as the configuration names it.
    pub(super) server: Arc<str>,
    /// Who lives and who owns what.
    pub(super) dump: Learned<Dump>,
    /// Who is connected to it.
    pub(super) connections: Learned<Vec<Connection>>,
}

/// What `dump` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dump {
    /// The sessions that the server counts among the living; `None` where it does not tell.
    pub(super) living: Option<BTreeSet<i64>>,
    /// Ephemeral znodes by the session that owns them.
    pub(super) owned: Vec<(i64, BTreeSet<String>)>,
}

/// A connection of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connection {
    /// Whose.
    pub(super) session: i64,
    /// The client's address and port.
    pub(super) client: String,
    /// When it was made, in milliseconds since 1970 by the server's clock.
    pub(super) established_ms: Option<i64>,
}

/// The sessions that own ephemeral znodes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Owners {
    /// The ensemble's name in the configuration.
    pub ensemble: String,
    /// When the servers were asked.
    #[serde(serialize_with = "microseconds")]
    pub asked_at: Timestamp,
    /// The servers, in the order of the configuration.
    pub servers: Vec<AskedServer>,
    /// The sessions, those with most znodes first.
    pub sessions: Vec<Owner>,
}

/// A server that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AskedServer {
    /// The server, `host:port` as the configuration names it.
    pub server: String,
    /// What it does instead of answering; `null` when it told everything.
    pub error: Option<String>,
}

/// A session that owns ephemeral znodes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Owner {
    /// Its id, in hexadecimal digits with `0x` in front.
    pub session: String,
    /// Whether a server counts it among the living; `null` when none could tell.
    pub alive: Option<bool>,
    /// Whether a server has a connection of it; `null` when none has and not all could tell.
    pub connected: Option<bool>,
    /// Its connections.
    pub connections: Vec<OwnerConnection>,
    /// How many ephemeral znodes it owns.
    pub ephemerals: u64,
    /// Some of them, at most 20.
    pub paths: Vec<String>,
    /// The servers that have them.
    pub kept_on: Vec<String>,
}

/// A connection of a session that owns ephemeral znodes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OwnerConnection {
    /// The server that it goes to.
    pub server: String,
    /// The client's address and port.
    pub client: String,
    /// How long it has lasted, in seconds; `null` where the server does not tell.
    pub age_s: Option<i64>,
}

/// Puts together what servers told.
pub(super) fn put_together(ensemble: &str, told: &[ServerSessions], now: Timestamp) -> Owners {
    let mut znodes: BTreeMap<i64, (BTreeSet<&str>, Vec<String>)> = BTreeMap::new();
    for (server, dump) in told.iter().filter_map(|one| Some((&one.server, one.dump.as_ref().ok()?))) {
        for (session, paths) in &dump.owned {
            let (all, kept_on) = znodes.entry(*session).or_default();
            all.extend(paths.iter().map(String::as_str));
            kept_on.push(server.to_string());
        }
    }
    let sessions = znodes.into_iter().map(|(session, (paths, kept_on))| {
        let connections = connections_of(session, told, now);
        Owner {
            session: format!("{session:#x}"),
            alive: is_alive(session, told),
            connected: match connections.is_empty() {
                false => Some(true),
                true if told.iter().all(|one| one.connections.is_ok()) => Some(false),
                true => None,
            },
            connections,
            ephemerals: paths.len() as u64,
            paths: paths.into_iter().take(PATHS_TOLD).map(ToOwned::to_owned).collect(),
            kept_on,
        }
    });
    let mut sessions: Vec<Owner> = sessions.collect();
    sessions.sort_by_key(|owner| std::cmp::Reverse(owner.ephemerals));
    let servers = told.iter().map(|one| {
        let error = one.dump.as_ref().err().or(one.connections.as_ref().err());
        AskedServer { server: one.server.to_string(), error: error.map(ToString::to_string) }
    });
    Owners { ensemble: ensemble.to_owned(), asked_at: now, servers: servers.collect(), sessions }
}

/// Whether any server counts the session among the living.
fn is_alive(session: i64, told: &[ServerSessions]) -> Option<bool> {
    let lists = told.iter().filter_map(|one| one.dump.as_ref().ok()?.living.as_ref());
    lists.map(|living| living.contains(&session)).reduce(|one, other| one || other)
}

fn connections_of(session: i64, told: &[ServerSessions], now: Timestamp) -> Vec<OwnerConnection> {
    let all = told.iter().flat_map(|one| one.connections.iter().flatten().map(move |connection| (one, connection)));
    all.filter(|(_, connection)| connection.session == session)
        .map(|(one, connection)| OwnerConnection {
            server: one.server.to_string(),
            client: connection.client.clone(),
            // The clocks of two machines may differ: nothing is younger than now.
            age_s: connection.established_ms.map(|made| (now.as_millisecond().saturating_sub(made) / 1000).max(0)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::facts::Why;

    fn server(name: &str, living: Option<&[i64]>, owned: &[(i64, &[&str])], connected: &[i64]) -> ServerSessions {
        let owned = owned.iter().map(|(session, paths)| (*session, paths.iter().map(ToString::to_string).collect()));
        let dump = Dump { living: living.map(|living| living.iter().copied().collect()), owned: owned.collect() };
        let connection = |session: &i64| Connection {
            session: *session,
            client: "10.0.0.7:1".into(),
            established_ms: Some(500_000),
        };
        let connections = connected.iter().map(connection).collect();
        ServerSessions { server: name.into(), dump: Ok(dump), connections: Ok(connections) }
    }

    fn silent(name: &str) -> ServerSessions {
        ServerSessions { server: name.into(), dump: Err(Why::Silent), connections: Err(Why::Silent) }
    }

    fn owners(told: &[ServerSessions]) -> Owners {
        put_together("main", told, Timestamp::from_second(1000).expect("a time"))
    }

    #[test]
    fn who_lives_and_who_is_connected_is_known_or_left_open() {
        const MINE: &[(i64, &[&str])] = &[(7, &["/a"])];
        let with = |living, connected| server("one", living, MINE, connected);
        for (what, told, alive, connected) in [
            ("it lives", vec![with(Some(&[7]), &[7])], Some(true), Some(true)),
            ("it is away for the moment", vec![with(Some(&[7]), &[])], Some(true), Some(false)),
            ("it is gone", vec![with(Some(&[8]), &[8])], Some(false), Some(false)),
            ("nobody tells who lives", vec![with(None, &[])], None, Some(false)),
            ("one tells", vec![with(None, &[]), server("two", Some(&[7]), MINE, &[])], Some(true), Some(false)),
            (
                "they do not agree",
                vec![with(Some(&[]), &[]), server("two", Some(&[7]), MINE, &[])],
                Some(true),
                Some(false),
            ),
            (
                "connected elsewhere",
                vec![with(Some(&[7]), &[]), server("two", None, &[], &[7])],
                Some(true),
                Some(true),
            ),
            ("connected to the silent one perhaps", vec![with(Some(&[]), &[]), silent("two")], Some(false), None),
        ] {
            let found = owners(&told);
            assert_eq!(found.sessions.len(), 1, "{what}");
            assert_eq!((found.sessions[0].alive, found.sessions[0].connected), (alive, connected), "{what}");
        }
        assert_eq!(owners(&[silent("one")]).sessions, []);
    }

    #[test]
    fn paths_are_joined_and_those_with_most_come_first() {
        let many: Vec<String> = (10..40).map(|number| format!("/many/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let found = owners(&[
            server("one", Some(&[1, -2]), &[(1, &["/a", "/b"]), (-2, &many)], &[1]),
            server("two", Some(&[1, -2]), &[(1, &["/b", "/c"])], &[]),
            silent("three"),
        ]);
        let [first, second] = &found.sessions[..] else { panic!("two sessions: {found:?}") };
        assert_eq!((first.session.as_str(), first.ephemerals, first.paths.len()), ("0xfffffffffffffffe", 30, 20));
        assert_eq!((second.session.as_str(), second.ephemerals), ("0x1", 3));
        assert_eq!(second.paths, ["/a", "/b", "/c"]);
        assert_eq!((&second.kept_on[..], &first.kept_on[..]), (&["one".into(), "two".into()][..], &["one".into()][..]));
        assert_eq!(second.connections[0].age_s, Some(500));
        let errors: Vec<_> = found.servers.iter().map(|server| server.error.is_some()).collect();
        assert_eq!(errors, [false, false, true]);
    }
}

//! Asking servers for their sessions: `dump` says who lives and who owns ephemeral znodes, `cons` who
//! is connected. The AdminServer stands in where the words are refused.
//!
//! The formats are those of ZooKeeper 3.5 to 3.9 (`DumpCommand`, `DataTree.dumpEphemerals`,
//! `ConsCommand`) and of ClickHouse Keeper. The texts come from the network, so anything may be in
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Asking, Sampler, is_open, words};
use crate::health::facts::{Learned, Why};
use crate::health::owners::{Connection, Dump, ServerSessions};
use crate::health::patience::Patience;

impl Sampler {
    /// Asks every server for its sessions; an answer may take `answer`.
    pub(in crate::health) async fn sessions(&self, answer: Duration) -> Vec<ServerSessions> {
        let patience = Patience::for_sample(answer, Instant::now());
        let servers = self.servers.iter().map(|(name, server)| async move {
            let (dump, connections) = match self.asking(server, patience) {
                Ok(asking) => asking.sessions().await,
                Err(why) => (Err(why.clone()), Err(why)),
            };
            ServerSessions { server: Arc::clone(name), dump, connections }
        });
        join_all(servers).await
    }
}

impl Asking<'_> {
    async fn sessions(&self) -> (Learned<Dump>, Learned<Vec<Connection>>) {
        // One after the other: a server counts connections by address, and this may be near its limit.
        let mut dumped = self.word("dump").await.and_then(|answer| dump(&answer));
        // Whoever stays silent once does so again.
        let mut connected = match &dumped {
            Err(why @ (Why::Silent | Why::NotServing)) => Err(why.clone()),
            _ => self.word("cons").await.and_then(|answer| connections(&answer)),
        };
        if is_open(&dumped)
            && let Ok(answer) = self.command("dump").await
        {
            dumped = admin_dump(&answer.object);
        }
        if is_open(&connected)
            && let Ok(answer) = self.command("connections").await
        {
            connected = admin_connections(&answer.object);
        }
        (dumped, connected)
    }
}

/// `dump`: sessions, then ephemeral znodes by session, then connections, which `cons` tells better.
pub(super) fn dump(answer: &str) -> Learned<Dump> {
    let (sessions, rest) = answer.split_once("Sessions with Ephemerals").ok_or_else(|| words::unreadable(answer))?;
    // `0x1…`, `0x1…\t10000ms`; lines that count or date them begin with something else.
    let living = sessions.lines().filter_map(|line| session(line.split_whitespace().next()?)).collect();
    let mut dump = Dump { living: Some(living), owned: Vec::new() };
    for line in rest.lines().map(str::trim).take_while(|line| !line.starts_with("Connections dump")) {
        if let Some(owner) = line.strip_suffix(':').and_then(session) {
            dump.owned.push((owner, BTreeSet::new()));
        } else if line.starts_with('/')
            && let Some((_, paths)) = dump.owned.last_mut()
        {
            paths.insert(line.to_owned());
        }
    }
    Ok(dump)
}

fn session(text: &str) -> Option<i64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(u64::cast_signed)
}

/// `cons`: ` /127.0.0.1:34414[1](queued=0,…,sid=0x1…,…,est=1795352374994,…)`; those without a session
/// ask for words.
pub(super) fn connections(answer: &str) -> Learned<Vec<Connection>> {
    let lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut connections = Vec::new();
    for line in lines {
        let (socket, rest) = line.split_once('[').ok_or_else(|| words::unreadable(line))?;
        words::address(socket).ok_or_else(|| words::unreadable(line))?;
        let (_, fields) = rest.split_once('(').ok_or_else(|| words::unreadable(line))?;
        let field = |name: &str| {
            let mut pairs = fields.trim_end_matches(')').split(',').filter_map(|pair| pair.split_once('='));
            pairs.find_map(|(key, value)| (key == name).then_some(value))
        };
        if let Some(session) = field("sid").and_then(session) {
            let established_ms = field("est").and_then(|time| time.parse().ok());
            connections.push(Connection { session, client: client(socket), established_ms });
        }
    }
    Ok(connections)
}

/// A socket as Java prints it, `/127.0.0.1:34414` or `host/127.0.0.1:34414`.
fn client(socket: &str) -> String {
    socket.rsplit_once('/').map_or(socket, |(_, address)| address).to_owned()
}

/// The AdminServer's `dump`. Followers leave the living out: no list is not an empty one.
pub(super) fn admin_dump(answer: &Map<String, Value>) -> Learned<Dump> {
    let incomplete = || Why::Unreadable("`dump` without sessions".to_owned());
    let object = |key: &str| answer.get(key).and_then(Value::as_object).ok_or_else(incomplete);
    let expiring = object("expiry_time_to_session_ids")?;
    let living = expiring.values().filter_map(Value::as_array).flatten().filter_map(Value::as_i64).collect();
    let owned = object("session_id_to_ephemeral_paths")?.iter().filter_map(|(owner, paths)| {
        let paths = paths.as_array()?.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        Some((owner.parse().ok()?, paths))
    });
    Ok(Dump { living: (!expiring.is_empty()).then_some(living), owned: owned.collect() })
}

/// The AdminServer's `connections`.
pub(super) fn admin_connections(answer: &Map<String, Value>) -> Learned<Vec<Connection>> {
    if !answer.contains_key("connections") {
        return Err(Why::Unreadable("`connections` without connections".to_owned()));
    }
    let all = ["connections", "secure_connections"].into_iter().filter_map(|key| answer.get(key)?.as_array()).flatten();
    let sessions = all.filter_map(|connection| {
        Some(Connection {
            session: connection.get("session_id")?.as_i64().filter(|session| *session != 0)?,
            client: client(connection.get("remote_socket_address")?.as_str()?),
            established_ms: connection.get("established").and_then(Value::as_i64),
        })
    });
    Ok(sessions.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::admin;
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../fixtures/", $name))
        };
    }

    const SESSION: i64 = 0x0100_0009_bce2_0000;

    fn owned(session: i64, paths: &[&str]) -> (i64, BTreeSet<String>) {
        (session, paths.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn dump_is_read_of_every_role_and_version() {
        let local = "SessionTracker dump:\nLocal Session Sets (0)/(0):\nGlobal Sessions(2):\n0x10\t4000ms\n0xffffffffffffffff\t4000ms\n\
                     ephemeral nodes dump:\nSessions with Ephemerals (2):\n0x10:\n\t/a\n\t/b/c d:\n0xffffffffffffffff:\n\t/e\n\
                     Connections dump:\nConnections Sets (1)/(2):\n2 expire at x:\n\tip: /1.2.3.4:5 sessionId: 0x77\n";
        let keeper = "Sessions dump (1):\n0x0000000000000001\n\nSessions with Ephemerals (1):\n0x0000000000000001:\n /clickhouse/x\n";
        for (answer, living, owners) in [
            (fixture!("4lw-dump.leader.txt"), vec![SESSION], vec![owned(SESSION, &["/aviary/eph"])]),
            (fixture!("4lw-dump.follower.txt"), vec![SESSION], vec![owned(SESSION, &["/aviary/eph"])]),
            (local, vec![-1, 0x10], vec![owned(0x10, &["/a", "/b/c d:"]), owned(-1, &["/e"])]),
            (keeper, vec![1], vec![owned(1, &["/clickhouse/x"])]),
        ] {
            let read = dump(answer).expect(answer);
            assert_eq!(read, Dump { living: Some(living.into_iter().collect()), owned: owners }, "{answer}");
        }
        let refused = words::said("dump", fixture!("4lw-dump.default-whitelist.txt"));
        assert_eq!(refused, Err(Why::Refused("dump")));
        assert!(matches!(dump("what?"), Err(Why::Unreadable(_))));
    }

    #[test]
    fn cons_is_read_with_sessions_alone() {
        let follower = vec![Connection {
            session: SESSION,
            client: "127.0.0.1:34414".to_owned(),
            established_ms: Some(1_795_352_374_994),
        }];
        assert_eq!(connections(fixture!("4lw-cons.follower.txt")), Ok(follower.clone()));
        assert_eq!(connections(fixture!("4lw-cons.leader.txt")), Ok(Vec::new()));
        assert!(matches!(connections("what?"), Err(Why::Unreadable(_))));
        let answer = admin::object(fixture!("admin-connections.follower.json").as_bytes()).expect("an answer");
        assert_eq!(admin_connections(&answer), Ok(follower));
        let answer = admin::object(fixture!("admin-connections.leader.json").as_bytes()).expect("an answer");
        assert!(admin_connections(&answer).is_ok());
        assert!(admin_connections(&Map::new()).is_err());
    }

    #[test]
    fn an_admin_server_that_does_not_lead_does_not_say_who_lives() {
        for (text, living) in [
            (fixture!("admin-dump.leader.json"), Some(BTreeSet::from([SESSION]))),
            (fixture!("admin-dump.follower.json"), None),
        ] {
            let answer = admin::object(text.as_bytes()).expect("an answer");
            let owned = vec![owned(SESSION, &["/aviary/eph"])];
            assert_eq!(admin_dump(&answer), Ok(Dump { living, owned }));
        }
        assert!(admin_dump(&Map::new()).is_err());
    }

    fn read_as_everything(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let _ = (dump(&text), connections(&text));
        if let Ok(object) = admin::object(bytes) {
            let _ = (admin_dump(&object), admin_connections(&object));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes: Vec<u8>) {
            read_as_everything(&bytes);
        }

        #[test]
        fn damaged_answers_are_borne(which in 0..4_usize, at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            let fixtures = [
                fixture!("4lw-dump.leader.txt"),
                fixture!("4lw-cons.follower.txt"),
                fixture!("admin-dump.leader.json"),
                fixture!("admin-connections.follower.json"),
            ];
            let mut damaged = fixtures[which].as_bytes().to_vec();
            let at = at.index(damaged.len());
            damaged.splice(at..(at + bytes.len()).min(fixtures[which].len()), bytes);
            read_as_everything(&damaged);
        }
    }
}

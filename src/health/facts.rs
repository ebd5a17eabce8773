//! What was learned about the servers of an ensemble at one moment: plain values, no judgement.
//!
//! Whatever could not be learned says why. Nothing here is ever zero because it is not known.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// The state of all servers at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    /// When the servers were asked, on a clock that nobody sets; only differences mean something.
    pub(super) taken: Duration,
    /// The servers, in the order of the configuration.
    pub(super) servers: Vec<ServerFacts>,
}

/// What is known about one server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerFacts {
    /// The server, `host:port` as the configuration names it.
    pub(super) server: Arc<str>,
    /// How it takes to being asked.
    pub(super) answer: Answer,
    /// What `srvr` tells.
    pub(super) summary: Learned<Summary>,
    /// What `mntr` tells.
    pub(super) metrics: Learned<Metrics>,
    /// How many connections each client address has.
    pub(super) connections: Learned<BTreeMap<IpAddr, u32>>,
    /// What its configuration says.
    pub(super) settings: Learned<ServerSettings>,
    /// Bytes of snapshots and transaction logs together.
    pub(super) directory_bytes: Learned<u64>,
    /// Whether it takes writes.
    pub(super) write_access: Learned<WriteAccess>,
    /// When its TLS certificate ends; `None` without TLS.
    pub(super) certificate: Option<Learned<Timestamp>>,
    /// What only the AdminServer tells.
    pub(super) admin: Learned<AdminFacts>,
    /// Which four-letter words it refuses, and nothing stood in for.
    pub(super) missing_words: Vec<&'static str>,
}

/// How a server takes to being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It serves clients.
    Serves,
    /// It says that it does not serve: it looks for a leader, or starts.
    NotServing,
    /// It does not answer, or not as a server does.
    Failed(Why),
}

/// Why something is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// The four-letter word is not in the whitelist.
    Refused(&'static str),
    /// The connection is accepted, and then nothing comes.
    Silent,
    /// The connection is accepted, and closed without a word.
    TurnedAway,
    /// There is no connection: whoever is there refuses it.
    Unreachable(String),
    /// Nobody is there, not even to refuse a connection: the host is gone, or the way to it.
    OutOfSight(String),
    /// The server says that it does not serve.
    NotServing,
    /// What came is not what a server says.
    Unreadable(String),
    /// The time for all questions was over before the answer came.
    OutOfTime,
    /// Nothing to ask, or the server did not answer the first question.
    NotAsked,
}

impl fmt::Display for Why {
    /// What the server does; fits "the server …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(word) => write!(f, "does not allow `{word}`"),
            Self::Silent => f.write_str("accepts connections and stays silent: it hangs, or its process is stopped"),
            Self::TurnedAway => f.write_str("closes connections from this host without a word"),
            Self::Unreachable(reason) | Self::OutOfSight(reason) => write!(f, "cannot be reached: {reason}"),
            Self::NotServing => f.write_str("says that it does not serve: it has no quorum, or is starting"),
            Self::Unreadable(reason) => write!(f, "answers something that no ZooKeeper says: {reason}"),
            Self::OutOfTime => f.write_str("was so slow with other answers that there was no time left for this one"),
            Self::NotAsked => f.write_str("was not asked"),
        }
    }
}

/// Something, or why it is not known.
pub(super) type Learned<T> = Result<T, Why>;

/// Which program answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Apache ZooKeeper.
    ZooKeeper,
    /// ClickHouse Keeper, which speaks the same protocol and has fewer numbers.
    ClickHouseKeeper,
}

/// What `srvr` tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    /// Which program.
    pub(super) flavour: Flavour,
    /// Its version, `3.8.4` for example.
    pub(super) version: String,
    /// Its part in the ensemble.
    pub(super) mode: Mode,
    /// The last transaction that it has applied. AdminServers of ZooKeeper 3.5 do not tell.
    pub(super) zxid: Option<i64>,
    /// Requests that wait.
    pub(super) outstanding: Option<f64>,
    /// How many znodes there are.
    pub(super) znodes: Option<f64>,
}

/// A server's part in the ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    /// Leads.
    Leader,
    /// Votes and follows.
    Follower,
    /// Follows without a vote.
    Observer,
    /// Alone.
    Standalone,
    /// Has lost the others and serves reads.
    ReadOnly,
    /// A word that no ZooKeeper has said so far.
    Other(String),
}

impl Mode {
    /// Reads the word of `srvr`, `mntr` and the AdminServer.
    pub(super) fn parse(word: &str) -> Self {
        match word {
            "leader" => Self::Leader,
            "follower" => Self::Follower,
            "observer" => Self::Observer,
            "standalone" => Self::Standalone,
            "read-only" => Self::ReadOnly,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What `mntr` tells: numbers by name, without the `zk_` in front.
pub(super) type Metrics = BTreeMap<String, f64>;

/// What a server's configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ServerSettings {
    /// Its number in the ensemble.
    pub(super) id: Option<u64>,
    /// How many connections one client address may have; 0 is without limit.
    pub(super) max_client_connections: Option<u32>,
    /// All members by number; empty of a server alone, or where it does not tell.
    pub(super) members: BTreeMap<u64, Member>,
}

/// A member of an ensemble, as its configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Where it is.
    pub(super) address: String,
    /// Whether it votes.
    pub(super) votes: bool,
}

/// Whether a server takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteAccess {
    /// `rw`.
    ReadWrite,
    /// `ro`.
    ReadOnly,
    /// `null`: it serves nobody.
    None,
}

/// What only the AdminServer tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AdminFacts {
    /// How many writes of the log took longer than `fsync.warningthresholdms`, since the start.
    pub(super) slow_fsyncs: Option<u64>,
    /// How far the host's clock is from ours at least, in milliseconds: the answer tells whole seconds.
    pub(super) clock_offset_ms: Option<i64>,
}

impl ServerFacts {
    /// A server of which nothing is known but why.
    pub(super) fn unknown(server: Arc<str>, answer: Answer) -> Self {
        let why = match &answer {
            Answer::Failed(why) => why.clone(),
            Answer::NotServing => Why::NotServing,
            Answer::Serves => Why::NotAsked,
        };
        Self {
            server,
            answer,
            summary: Err(why.clone()),
            metrics: Err(why.clone()),
            connections: Err(why.clone()),
            settings: Err(why.clone()),
            directory_bytes: Err(why.clone()),
            write_access: Err(why.clone()),
            certificate: None,
            admin: Err(why),
            missing_words: Vec::new(),
        }
    }

    /// Its part in the ensemble.
    pub(super) fn mode(&self) -> Option<&Mode> {
        self.summary.as_ref().ok().map(|summary| &summary.mode)
    }

    /// The last transaction that it has applied.
    pub(super) fn zxid(&self) -> Option<i64> {
        self.summary.as_ref().ok().and_then(|summary| summary.zxid)
    }
}

/// The epoch of a transaction, and its number in there.
pub(super) fn epoch_and_counter(zxid: i64) -> (i64, i64) {
    (zxid >> 32, zxid & 0xffff_ffff)
}

/// What the canary met.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct CanaryFacts {
    /// What became of it on each server.
    pub(super) trips: Vec<Trip>,
    /// How far the leader's clock is from ours at least, in milliseconds; ahead is positive.
    pub(super) leader_clock_offset_ms: Option<i64>,
    /// The members that `/zookeeper/config` names.
    pub(super) members: BTreeMap<u64, Member>,
}

/// A canary's work through one server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trip {
    /// Which server.
    pub(super) server: Arc<str>,
    /// The steps that it took, with how long each did.
    pub(super) steps: Vec<(Step, Duration)>,
    /// Where it ended early, and why.
    pub(super) end: Option<TripEnd>,
}

/// Why a canary came back early.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TripEnd {
    /// It was not sent, and why not.
    NotSent(String),
    /// It may not work where it was sent to.
    NotAllowed(Step),
    /// A step failed, and how.
    Failed(Step, String),
    /// The steps before left no time for this one.
    OutOfTime(Step),
}

/// What a canary does, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Opens a session.
    Connect,
    /// Makes an ephemeral znode.
    Create,
    /// Waits until a watch on another server tells of it, counted from its making.
    Watch,
    /// Sets its data.
    Set,
    /// Lets the other server catch up.
    Sync,
    /// Reads the data there.
    Get,
    /// Deletes it.
    Delete,
}

impl Step {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Create => "create",
            Self::Watch => "watch",
            Self::Set => "set",
            Self::Sync => "sync",
            Self::Get => "get",
            Self::Delete => "delete",
        }
    }

    /// What it does; fits "to …".
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "open a session",
            Self::Create => "create an ephemeral znode",
            Self::Watch => "hear of it by a watch on another server",
            Self::Set => "set its data",
            Self::Sync => "sync the other server",
            Self::Get => "read the data there",
            Self::Delete => "delete it",
        }
    }
}

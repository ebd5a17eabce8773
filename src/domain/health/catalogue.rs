//! The list of all checks: what each asks, where its numbers come from, its usual limits and its
//! remedy. `docs/health.md` is made of it.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::threshold::{Direction, Limits};

/// What is checked about an ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the catalogue below says what each one asks")]
pub enum Check {
    Serving,
    Commands,
    Leader,
    Quorum,
    SyncedFollowers,
    ZxidLag,
    Epoch,
    OutstandingRequests,
    PendingSyncs,
    Latency,
    Fsync,
    Connections,
    FileDescriptors,
    ZnodeCount,
    DataSize,
    Watches,
    Ephemerals,
    DirectorySize,
    Churn,
    ReadOnly,
    VersionSkew,
    Certificate,
    Canary,
    Membership,
    Clock,
    Counters,
}

/// Whether a check has a verdict for each server or one for all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One for each server.
    Server,
    /// One for the ensemble.
    Ensemble,
}

/// What there is to know about a check.
#[derive(Debug)]
pub struct CheckInfo {
    /// Which one.
    pub check: Check,
    /// Its name in the configuration, in JSON and in Airflow.
    pub name: &'static str,
    /// What its verdict is on.
    pub scope: Scope,
    /// Whether it compares two samples; with one alone it is unknown.
    pub needs_two_samples: bool,
    /// What it asks, and why that matters.
    pub about: &'static str,
    /// When it is bad, in words.
    pub rule: &'static str,
    /// Where its numbers come from.
    pub read_from: &'static str,
    /// The unit of value and limits.
    pub unit: Option<&'static str>,
    /// Which side of the limits is bad; `None` where no number decides, and no limit can be set.
    pub direction: Option<Direction>,
    /// The usual limits.
    pub limits: Limits,
    /// Who uses these limits.
    pub limits_from: &'static str,
    /// What to do when it is bad.
    pub remedy: &'static str,
}

const fn limits(warn: f64, critical: f64) -> Limits {
    Limits { warn: Some(warn), critical: Some(critical) }
}

const fn warn_only(warn: f64) -> Limits {
    Limits { warn: Some(warn), critical: None }
}

const NO_LIMITS: Limits = Limits { warn: None, critical: None };

/// What most checks have in common.
const PLAIN: CheckInfo = CheckInfo {
    check: Check::Serving,
    name: "",
    scope: Scope::Server,
    needs_two_samples: false,
    about: "",
    rule: "",
    read_from: "",
    unit: None,
    direction: None,
    limits: NO_LIMITS,
    limits_from: "",
    remedy: "",
};

/// Every check, in the order in which they are shown.
pub static CATALOGUE: [CheckInfo; 26] = [
    CheckInfo {
        check: Check::Serving,
        name: "serving",
        about: "Whether the server answers and serves clients. `ruok` is not asked: a server without a quorum still answers `imok` to it.",
        rule: "Critical when the server cannot be reached, accepts the connection and stays silent, answers something else, or says that it does not serve.",
        read_from: "`srvr`, else `server_stats` of the AdminServer",
        remedy: "Look at the server's process and its log: a process that is gone wants a restart, one that hangs a look at its disk and its memory, one that does not serve a quorum.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Commands,
        name: "commands",
        scope: Scope::Ensemble,
        about: "Whether the servers may be asked for their numbers. By default ZooKeeper answers `srvr` alone, and the AdminServer, where it runs, stands in for the other four-letter words.",
        rule: "Unknown when a server refuses four-letter words and its AdminServer does not stand in for them: what they would tell is unknown then, and this says why, once.",
        read_from: "the answers to `mntr`, `isro`, `cons`, `conf` and `dirs`",
        remedy: "Add `4lw.commands.whitelist=srvr,mntr,isro,cons,conf,dirs` to zoo.cfg of each server, or name the AdminServer with `admin = \"http://{host}:8080/commands\"` in [ensemble.NAME].",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Leader,
        name: "leader",
        scope: Scope::Ensemble,
        about: "Whether exactly one server leads. An old leader that was frozen claims it for about two more seconds when it wakes up.",
        rule: "Critical with no leader, and with several in both samples; a warning with several in one.",
        read_from: "`Mode:` of `srvr`",
        unit: Some("leaders"),
        remedy: "Without a leader nothing is written: bring servers back until a majority runs, and check that they reach each other's election ports.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Quorum,
        name: "quorum",
        scope: Scope::Ensemble,
        about: "How many voting servers work, and how many more may fail.",
        rule: "Critical when no majority works, and when one is missing and no other may fail; a warning when one is missing.",
        read_from: "`Mode:` of `srvr`; how many voters there are from `conf`, `voting_view` or `/zookeeper/config`, else from `connect`",
        unit: Some("servers"),
        remedy: "Bring the missing servers back before another one fails.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::SyncedFollowers,
        name: "synced_followers",
        scope: Scope::Ensemble,
        about: "How many followers keep up with the leader, as the leader sees it. It notices a frozen follower only after `syncLimit` ticks.",
        rule: "A warning when one is missing, critical when the leader and those in sync are no majority.",
        read_from: "`zk_synced_followers` and `zk_quorum_size` of the leader",
        unit: Some("servers"),
        remedy: "Look at the follower that is missing: its disk, its network to the leader, and whether its snapshots fit into `initLimit` and `syncLimit`.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::ZxidLag,
        name: "zxid_lag",
        needs_two_samples: true,
        about: "How many transactions the server is behind what the leader had one sample earlier. A server that keeps up has them all by then.",
        rule: "By its limits.",
        read_from: "`Zxid:` of `srvr`, of all servers at the same time",
        unit: Some("transactions"),
        direction: Some(Direction::Above),
        limits: limits(1.0, 1000.0),
        limits_from: "flowkeeper's own",
        remedy: "Look at this server's disk and at its network to the leader: it applies transactions later than the others.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Epoch,
        name: "epoch",
        scope: Scope::Ensemble,
        about: "Whether all servers are in the epoch of the same leader. A server that is idle shows the old one until the next write, so this counts after the canary's write.",
        rule: "Critical when epochs differ after a write that every server has seen.",
        read_from: "the upper half of `Zxid:` of `srvr`",
        remedy: "A server in another epoch follows another leader: check that all servers list the same ensemble in zoo.cfg, then restart the one that differs.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::OutstandingRequests,
        name: "outstanding_requests",
        about: "How many requests wait in the server. They pile up when it cannot keep up.",
        rule: "By its limits.",
        read_from: "`zk_outstanding_requests`, else `Outstanding:` of `srvr`",
        unit: Some("requests"),
        direction: Some(Direction::Above),
        limits: limits(10.0, 50.0),
        limits_from: "Zabbix's template and Altinity's rules (10), ZooKeeper's Nagios plugin (50)",
        remedy: "Find out who sends so much, and look at the latency of fsync and at pauses of the garbage collector.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::PendingSyncs,
        name: "pending_syncs",
        about: "How many `sync` requests wait in the leader.",
        rule: "By its limits; not applicable to servers that do not lead.",
        read_from: "`zk_pending_syncs` of the leader",
        unit: Some("requests"),
        direction: Some(Direction::Above),
        limits: limits(10.0, 100.0),
        limits_from: "Zabbix's template and Altinity's rules (10), flowkeeper's own (100)",
        remedy: "Look at the followers: a slow one holds back the syncs of its clients.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Latency,
        name: "latency",
        needs_two_samples: true,
        about: "How long requests took on average between the two samples. The averages that servers print are over the time since their start, and hide what happens now.",
        rule: "By its limits.",
        read_from: "what `zk_sum_readlatency`, `zk_sum_updatelatency` and their counts grew by (ZooKeeper 3.6 or later)",
        unit: Some("ms"),
        direction: Some(Direction::Above),
        limits: limits(100.0, 500.0),
        limits_from: "ZooKeeper's monitoring guide (100), its Nagios plugin (500)",
        remedy: "Look at the latency of fsync, at pauses of the garbage collector, and at clients that read or write large znodes.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Fsync,
        name: "fsync",
        needs_two_samples: true,
        about: "How long the transaction log took on average to reach the disk between the two samples. Every write waits for it.",
        rule: "By its limits; at least a warning when the server counted a write that took longer than `fsync.warningthresholdms` (AdminServer only).",
        read_from: "what `zk_sum_fsynctime` and `zk_cnt_fsynctime` grew by (ZooKeeper 3.6 or later), and `fsync_threshold_exceed_count` of `server_stats`",
        unit: Some("ms"),
        direction: Some(Direction::Above),
        limits: limits(100.0, 1000.0),
        limits_from: "ZooKeeper's monitoring guide (100), the server's own warning (1000)",
        remedy: "Give `dataLogDir` a disk of its own, and look for what else writes to it.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Connections,
        name: "connections",
        about: "How near any one address is to `maxClientCnxns`, which limits the connections of each client address, 60 by default. From an address that has used them up the server answers nobody, four-letter words included.",
        rule: "By its limits; at least a warning when the server rejected connections between two samples; critical when it turns this host away.",
        read_from: "`cons` and `maxClientCnxns` of `conf`, else `connections` and `configuration` of the AdminServer; `zk_connection_rejected`",
        unit: Some("%"),
        direction: Some(Direction::Above),
        limits: limits(80.0, 95.0),
        limits_from: "ZooKeeper's monitoring guide (50 of 60)",
        remedy: "Find the client that opens connections without closing them, or raise `maxClientCnxns` in zoo.cfg.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::FileDescriptors,
        name: "file_descriptors",
        about: "How many of its file descriptors the server uses. Without free ones it takes no connections and writes no log.",
        rule: "By its limits.",
        read_from: "`zk_open_file_descriptor_count` and `zk_max_file_descriptor_count`",
        unit: Some("%"),
        direction: Some(Direction::Above),
        limits: limits(70.0, 85.0),
        limits_from: "Altinity's rules (70), Zabbix's template (85)",
        remedy: "Raise the limit of open files of the server's service, or find the client that leaks connections.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::ZnodeCount,
        name: "znode_count",
        about: "How many znodes there are. All of them are in memory, and in every snapshot.",
        rule: "By its limits.",
        read_from: "`zk_znode_count`, else `Node count:` of `srvr`",
        unit: Some("znodes"),
        direction: Some(Direction::Above),
        limits: warn_only(1_000_000.0),
        limits_from: "ZooKeeper's monitoring guide",
        remedy: "Find the subtree that grows, and the client that does not clean up behind itself.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::DataSize,
        name: "data_size",
        about: "How much data the znodes hold. A follower that starts must receive all of it within `initLimit`.",
        rule: "By its limits.",
        read_from: "`zk_approximate_data_size`",
        unit: Some("bytes"),
        direction: Some(Direction::Above),
        limits: warn_only(1_073_741_824.0),
        limits_from: "ZooKeeper's monitoring guide (1 GiB)",
        remedy: "Find the subtree that grows, and keep large values elsewhere.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Watches,
        name: "watches",
        about: "How many watches clients have set.",
        rule: "By its limits.",
        read_from: "`zk_watch_count`",
        unit: Some("watches"),
        direction: Some(Direction::Above),
        limits: warn_only(10_000.0),
        limits_from: "ZooKeeper's monitoring guide",
        remedy: "Find the client that sets them: `wchs` counts them, `wchc` lists them by session.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Ephemerals,
        name: "ephemerals",
        about: "How many ephemeral znodes there are, each kept by a session.",
        rule: "By its limits.",
        read_from: "`zk_ephemerals_count`",
        unit: Some("znodes"),
        direction: Some(Direction::Above),
        limits: limits(10_000.0, 100_000.0),
        limits_from: "ZooKeeper's Nagios plugin",
        remedy: "Find the session that makes them: `dump` lists them by session.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::DirectorySize,
        name: "directory_size",
        about: "How much room snapshots and transaction logs take together. They grow without end where nothing purges them.",
        rule: "By its limits.",
        read_from: "`dirs`, else `dirs` of the AdminServer; both sizes added up, since ZooKeeper 3.8.0 to 3.8.3 swaps them",
        unit: Some("bytes"),
        direction: Some(Direction::Above),
        limits: limits(10_737_418_240.0, 107_374_182_400.0),
        limits_from: "flowkeeper's own (10 and 100 GiB)",
        remedy: "Set `autopurge.purgeInterval=24` and `autopurge.snapRetainCount=3` in zoo.cfg.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Churn,
        name: "churn",
        about: "How long ago the server last started or took part in an election. ZooKeeper's uptime begins again with each election.",
        rule: "By its limits; at least a warning when it took part in an election between two samples.",
        read_from: "`zk_uptime`, `zk_cnt_election_time` and `zk_looking_count`",
        unit: Some("s"),
        direction: Some(Direction::Below),
        limits: warn_only(180.0),
        limits_from: "Altinity's rules",
        remedy: "After a planned restart wait until it clears; otherwise look for pauses of the garbage collector, slow disks and lost packets between the servers.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::ReadOnly,
        name: "read_only",
        about: "Whether the server serves reads only, because it has lost the others and `readonlymode.enabled` is set.",
        rule: "Critical when it does.",
        read_from: "`isro`, and `Mode:` of `srvr`",
        remedy: "Bring back the network between this server and the others: clients that read here see old data.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::VersionSkew,
        name: "version_skew",
        scope: Scope::Ensemble,
        about: "Whether all servers run the same version.",
        rule: "A warning when they do not.",
        read_from: "the first line of `srvr`",
        unit: Some("versions"),
        remedy: "Finish the upgrade.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Certificate,
        name: "certificate",
        about: "How long the server's TLS certificate is still valid.",
        rule: "By its limits; not applicable without `tls`.",
        read_from: "the TLS handshake",
        unit: Some("days"),
        direction: Some(Direction::Below),
        limits: limits(30.0, 7.0),
        limits_from: "flowkeeper's own",
        remedy: "Renew the certificate in the server's keystore; ZooKeeper reads it again with `client.certReload=true`, otherwise at a restart.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Canary,
        name: "canary",
        about: "Whether a client can work: through a session with this server an ephemeral znode is made, seen by a watch on another server, set, synced, read there and deleted. The value is the slowest of these steps.",
        rule: "By its limits; critical when a step fails or shows something else than was written.",
        read_from: "a session with each server that serves; the znode is `flowkeeper-canary-…` under `canary` of [ensemble.NAME], `/` by default; znode triggers leave it out",
        unit: Some("ms"),
        direction: Some(Direction::Above),
        limits: limits(250.0, 1000.0),
        limits_from: "flowkeeper's own; on a small idle ensemble a step takes 1 to 3 ms",
        remedy: "What the canary meets every client meets: look at the other checks of this server for the reason.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Membership,
        name: "membership",
        scope: Scope::Ensemble,
        about: "Whether `connect` names the servers that the ensemble consists of.",
        rule: "A warning when a member is not named, a named server is no member, or servers disagree on who the members are.",
        read_from: "`conf`, else `configuration` and `voting_view` of the AdminServer, else `/zookeeper/config`",
        unit: Some("servers"),
        remedy: "Write the servers that the ensemble consists of into `connect`, so that they are checked and clients reach them.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Clock,
        name: "clock",
        scope: Scope::Ensemble,
        about: "How far the servers' clocks are from this host's. ZooKeeper does not need them alike; logs, certificates and the times in znodes do.",
        rule: "By its limits.",
        read_from: "the time in the canary's znode, which is the leader's; the `Date` of the AdminServer's answers, in whole seconds",
        unit: Some("s"),
        direction: Some(Direction::Above),
        limits: limits(0.5, 2.0),
        limits_from: "flowkeeper's own",
        remedy: "Let chrony or another NTP client keep the clocks of all hosts.",
        ..PLAIN
    },
    CheckInfo {
        check: Check::Counters,
        name: "counters",
        needs_two_samples: true,
        about: "What should never happen, counted between two samples: unrecoverable errors, digests that do not match, requests that are too large or throttled, TLS handshakes that were given up, failed logins.",
        rule: "Critical when unrecoverable errors or digests that do not match grew; a warning when another counter did, or when one of those two is not zero since the start.",
        read_from: "`zk_unrecoverable_error_count`, `zk_digest_mismatches_count`, `zk_large_requests_rejected`, `zk_request_throttle_wait_count`, `zk_tls_handshake_exceeded`, `zk_auth_failed_count`",
        unit: Some("events"),
        remedy: "Look into the server's log for the reason; after a digest that does not match, let the server load its data from the leader again.",
        ..PLAIN
    },
];

impl Check {
    /// What there is to know about it.
    pub fn info(self) -> &'static CheckInfo {
        &CATALOGUE[self as usize]
    }

    /// Its name in the configuration, in JSON and in Airflow.
    pub fn as_str(self) -> &'static str {
        self.info().name
    }

    /// The check of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|check| check.as_str() == name)
    }

    /// Every check, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        CATALOGUE.iter().map(|info| info.check)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| D::Error::custom(format!("there is no check `{name}`")))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_in_its_place_and_complete() {
        for (place, info) in CATALOGUE.iter().enumerate() {
            assert_eq!(info.check as usize, place, "{}", info.name);
            assert_eq!(Check::parse(info.name), Some(info.check));
            for text in [info.about, info.rule, info.read_from, info.remedy] {
                assert!(!text.is_empty(), "{}", info.name);
            }
            assert_eq!(info.direction.is_some(), info.limits != NO_LIMITS, "{}", info.name);
            assert_eq!(info.direction.is_some(), !info.limits_from.is_empty(), "{}", info.name);
            assert!(info.direction.is_none() || info.unit.is_some(), "{}", info.name);
            assert!(!info.direction.is_some_and(|direction| info.limits.contradict(direction)), "{}", info.name);
        }
        assert_eq!(Check::parse("ruok"), None);
    }
}

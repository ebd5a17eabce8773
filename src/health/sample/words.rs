//! What four-letter words answer, as text to values.
//!
//! Pure; the texts come from the network, so anything may be in them. The formats are those of
//! ZooKeeper 3.5 to 3.9 (`org.apache.zookeeper.server.command`) and of ClickHouse Keeper.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::health::facts::{Flavour, Member, Metrics, Mode, ServerSettings, Summary, Why, WriteAccess};

/// What a server without a quorum answers to most words.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// What a server answers to a word that is not in `4lw.commands.whitelist`.
const REFUSAL: &str = "is not executed because it is not in the whitelist";

/// The answer to a word, unless it is one of those that say nothing.
///
/// An empty answer stands for both a word that the server does not know and a client address that
/// has used up its connections.
pub(super) fn said<'a>(word: &'static str, answer: &'a str) -> Result<&'a str, Why> {
    let answer = answer.trim_matches(['\0', '\r', '\n', ' ']);
    if answer.is_empty() {
        Err(Why::TurnedAway)
    } else if answer.starts_with(NOT_SERVING) {
        Err(Why::NotServing)
    } else if answer.starts_with(word) && answer.contains(REFUSAL) {
        Err(Why::Refused(word))
    } else {
        Ok(answer)
    }
}

/// The beginning of an answer that makes no sense, for an error.
pub(super) fn unreadable(answer: &str) -> Why {
    /// Characters that are shown.
    const SHOWN: usize = 60;
    let line = answer.trim().lines().next().unwrap_or_default();
    let shown: String = line.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    Why::Unreadable(format!("\"{shown}\""))
}

/// `srvr`.
pub(super) fn summary(answer: &str) -> Result<Summary, Why> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let keeper = field("ClickHouse Keeper version:");
    let version = keeper.or_else(|| field("Zookeeper version:")).ok_or_else(|| unreadable(answer))?;
    Ok(Summary {
        flavour: if keeper.is_some() { Flavour::ClickHouseKeeper } else { Flavour::ZooKeeper },
        version: short_version(version),
        mode: Mode::parse(field("Mode:").ok_or_else(|| unreadable(answer))?),
        zxid: field("Zxid:").and_then(zxid),
        outstanding: field("Outstanding:").and_then(number),
        znodes: field("Node count:").and_then(number),
    })
}

/// `3.8.0` of `3.8.0-${mvngit.commit.id}, built on 2024-12-29 17:54 UTC`: servers that were built
/// twice are of one version all the same.
pub(super) fn short_version(text: &str) -> String {
    text.split([',', '-']).next().unwrap_or_default().trim().trim_start_matches('v').to_owned()
}

fn zxid(text: &str) -> Option<i64> {
    let digits = text.strip_prefix("0x")?;
    // Servers print the 64 bits without a sign.
    u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
}

/// A number that is one: neither infinite nor "not a number".
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// `mntr`: a key and a value a line, separated by a tab.
pub(super) fn metrics(answer: &str) -> Result<Metrics, Why> {
    let pairs = answer.lines().filter_map(|line| line.split_once('\t'));
    let metrics: Metrics =
        pairs.filter_map(|(key, value)| Some((key.strip_prefix("zk_")?.to_owned(), number(value.trim())?))).collect();
    if metrics.is_empty() { Err(unreadable(answer)) } else { Ok(metrics) }
}

/// `isro`.
pub(super) fn write_access(answer: &str) -> Result<WriteAccess, Why> {
    match answer {
        "rw" => Ok(WriteAccess::ReadWrite),
        "ro" => Ok(WriteAccess::ReadOnly),
        "null" => Ok(WriteAccess::None),
        other => Err(unreadable(other)),
    }
}

/// `dirs`: both sizes together, in bytes.
pub(super) fn directory_bytes(answer: &str) -> Result<u64, Why> {
    let size =
        |name: &str| -> Option<u64> { answer.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok() };
    match (size("datadir_size:"), size("logdir_size:")) {
        (Some(data), Some(log)) => Ok(data.saturating_add(log)),
        _ => Err(unreadable(answer)),
    }
}

/// `cons`: how many connections each address has. A line is ` /127.0.0.1:34414[1](queued=0,…)`.
pub(super) fn connections(answer: &str) -> Result<BTreeMap<IpAddr, u32>, Why> {
    let mut counts = BTreeMap::new();
    for line in answer.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let socket = line.split_once('[').map_or(line, |(socket, _)| socket);
        *counts.entry(address(socket).ok_or_else(|| unreadable(line))?).or_insert(0) += 1;
    }
    Ok(counts)
}

/// The address of a socket as Java prints it: `/127.0.0.1:34414`, `host/127.0.0.1:1`,
/// `/0:0:0:0:0:0:0:1:34414`, `/[0:0:0:0:0:0:0:1]:34414`.
pub(super) fn address(socket: &str) -> Option<IpAddr> {
    let (_, socket) = socket.rsplit_once('/').unwrap_or(("", socket));
    let (host, _port) = socket.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    // A link-local address has its interface behind it.
    host.split_once('%').map_or(host, |(host, _)| host).parse().ok()
}

/// `conf`: a key and a value a line; members as `server.1=…`.
pub(super) fn settings(answer: &str) -> Result<ServerSettings, Why> {
    let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::trim);
    // ClickHouse Keeper writes its own keys.
    let id = field("serverId").or_else(|| field("server_id")).and_then(|id| id.parse().ok());
    let settings = ServerSettings {
        id,
        max_client_connections: field("maxClientCnxns").and_then(|limit| limit.parse().ok()),
        members: members(answer),
    };
    if settings == ServerSettings::default() { Err(unreadable(answer)) } else { Ok(settings) }
}

/// The lines `server.1=host:quorum:election:role;client` of `conf` and of `/zookeeper/config`.
pub(in crate::health) fn members(text: &str) -> BTreeMap<u64, Member> {
    text.lines()
        .filter_map(|line| {
            let (id, address) = line.trim().strip_prefix("server.")?.split_once('=')?;
            let (servers, _client) = address.split_once(';').unwrap_or((address, ""));
            let votes = !servers.ends_with(":observer");
            Some((id.parse().ok()?, Member { address: address.to_owned(), votes }))
        })
        .collect()
}

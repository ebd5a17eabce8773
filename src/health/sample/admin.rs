//! What the AdminServer answers, as JSON to values.
//!
//! Pure. An AdminServer says that something went wrong with HTTP 200 and an `error`, and without a
//! quorum with HTTP 500 and a page of HTML; what listens on its port may be another program.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::words;
use crate::health::facts::{Flavour, Member, Metrics, Mode, ServerSettings, Summary, Why};

/// The object that a command answered with.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Why> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return Err(words::unreadable(&String::from_utf8_lossy(body)));
    };
    if !object.contains_key("command") {
        return Err(Why::Unreadable("the AdminServer's port belongs to another program".to_owned()));
    }
    match object.get("error").and_then(Value::as_str) {
        None => Ok(object),
        Some(error) if error.contains("not currently serving") || error.contains("not initialized") => {
            Err(Why::NotServing)
        }
        Some(error) => Err(words::unreadable(error)),
    }
}

/// `server_stats`.
pub(super) fn summary(answer: &Map<String, Value>) -> Result<Summary, Why> {
    let stats = answer.get("server_stats");
    let stat = |key: &str| stats.and_then(|stats| stats.get(key));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(ToOwned::to_owned);
    let incomplete = || Why::Unreadable("`server_stats` without a version and a state".to_owned());
    Ok(Summary {
        flavour: Flavour::ZooKeeper,
        version: words::short_version(&text(answer.get("version")).ok_or_else(incomplete)?),
        mode: Mode::parse(&text(stat("server_state")).ok_or_else(incomplete)?),
        zxid: stat("last_processed_zxid").and_then(Value::as_i64),
        outstanding: stat("outstanding_requests").and_then(Value::as_f64),
        znodes: answer.get("node_count").and_then(Value::as_f64),
    })
}

/// How many writes of the log were slow since the start, from `server_stats`.
pub(super) fn slow_fsyncs(answer: &Map<String, Value>) -> Option<u64> {
    answer.get("server_stats")?.get("fsync_threshold_exceed_count")?.as_u64()
}

/// `monitor`: the keys of `mntr` without their `zk_`.
pub(super) fn metrics(answer: &Map<String, Value>) -> Result<Metrics, Why> {
    let numbers = answer.iter().filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)));
    let metrics: Metrics = numbers.collect();
    if metrics.is_empty() { Err(Why::Unreadable("`monitor` without a number".to_owned())) } else { Ok(metrics) }
}

/// `connections`: how many each address has.
pub(super) fn connections(answer: &Map<String, Value>) -> Result<BTreeMap<IpAddr, u32>, Why> {
    let mut counts = BTreeMap::new();
    for key in ["connections", "secure_connections"] {
        for connection in answer.get(key).and_then(Value::as_array).into_iter().flatten() {
            let socket = connection.get("remote_socket_address").and_then(Value::as_str);
            let address = socket.and_then(words::address);
            let address = address.ok_or_else(|| Why::Unreadable("`connections` without addresses".to_owned()))?;
            *counts.entry(address).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

/// `configuration`, and the members of `voting_view` where that was answered.
pub(super) fn settings(answer: &Map<String, Value>, voting_view: Option<&Map<String, Value>>) -> ServerSettings {
    let number = |key: &str| answer.get(key).and_then(Value::as_u64);
    ServerSettings {
        id: number("server_id"),
        max_client_connections: number("max_client_cnxns").and_then(|limit| u32::try_from(limit).ok()),
        members: voting_view.map(members).unwrap_or_default(),
    }
}

/// `voting_view`, which leaves out observers.
fn members(answer: &Map<String, Value>) -> BTreeMap<u64, Member> {
    let view = answer.get("current_config").and_then(Value::as_object);
    view.into_iter()
        .flatten()
        .filter_map(|(id, member)| {
            let address = member.get("server_addresses")?.get(0)?.as_str()?;
            Some((id.parse().ok()?, Member { address: address.to_owned(), votes: true }))
        })
        .collect()
}

/// `dirs`: both sizes together, in bytes.
pub(super) fn directory_bytes(answer: &Map<String, Value>) -> Result<u64, Why> {
    let size = |key: &str| answer.get(key).and_then(Value::as_u64);
    match (size("datadir_size"), size("logdir_size")) {
        (Some(data), Some(log)) => Ok(data.saturating_add(log)),
        _ => Err(Why::Unreadable("`dirs` without sizes".to_owned())),
    }
}

//! Whether each server is there: serving, asked without being refused, taking writes, with a
//! certificate that holds, and for how long.

use super::{Evidence, Reading, Seen, count, listed};
use crate::domain::health::{Check, Finding, Verdict};
use crate::health::facts::{Answer, Mode, Why, WriteAccess};

/// Milliseconds in a second, seconds in a day.
const SECOND_MS: f64 = 1000.0;
const DAY_S: f64 = 86_400.0;

pub(super) fn serving(seen: Seen<'_>) -> Finding {
    match &seen.server.answer {
        Answer::Serves => seen.verdict(Verdict::Ok, "The server answers and serves clients."),
        Answer::NotServing => seen.verdict(Verdict::Critical, format!("The server {}.", Why::NotServing)),
        Answer::Failed(Why::TurnedAway) if seen.server.summary.is_ok() => seen.verdict(
            Verdict::Ok,
            "Its AdminServer says that it serves, though not clients from this host: see `connections`.",
        ),
        Answer::Failed(why @ Why::Refused(_)) => seen.unknown(format!("The server {why}: see `commands`.")),
        Answer::Failed(why @ Why::OutOfTime) => seen.unknown(format!("The server {why}.")),
        Answer::Failed(why) => seen.verdict(Verdict::Critical, format!("The server {why}.")),
    }
}

/// One finding for all words of all servers.
pub(super) fn commands(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Commands;
    let refusing: Vec<_> = evidence.now.servers.iter().filter(|server| !server.missing_words.is_empty()).collect();
    if refusing.is_empty() {
        let meaning = "Nothing that was asked was refused, or an AdminServer stood in.";
        return Finding::told(check, None, Verdict::Ok, meaning);
    }
    let mut words: Vec<&str> = refusing.iter().flat_map(|server| server.missing_words.iter().copied()).collect();
    words.sort_unstable();
    words.dedup();
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    let servers: Vec<&str> = refusing.iter().map(|server| &*server.server).collect();
    let verb = if servers.len() == 1 { "does" } else { "do" };
    let meaning = format!(
        "{} {verb} not allow {}, and no AdminServer stands in: what these would tell is unknown.",
        listed(&servers),
        listed(&words)
    );
    let remedy = Some(check.info().remedy.to_owned());
    Finding { remedy, ..Finding::unknown(check, None, meaning) }
}

pub(super) fn read_only(seen: Seen<'_>) -> Finding {
    let is_read_only = seen.server.mode() == Some(&Mode::ReadOnly);
    match &seen.server.write_access {
        Ok(WriteAccess::ReadOnly) => {}
        _ if is_read_only => {}
        Ok(WriteAccess::ReadWrite) => return seen.verdict(Verdict::Ok, "The server takes writes."),
        // The mode says so too.
        Err(Why::Refused(_) | Why::NotAsked | Why::TurnedAway) if seen.server.mode().is_some() => {
            return seen.verdict(Verdict::Ok, "The server takes writes.");
        }
        Ok(WriteAccess::None) => return seen.unknown("The server serves nobody: see `serving`."),
        Err(why) => return seen.unknown(super::unknown_because(why)),
    }
    seen.verdict(Verdict::Critical, "The server has lost the others and serves reads only, of data that may be old.")
}

pub(super) fn certificate(seen: Seen<'_>) -> Finding {
    let end = match &seen.server.certificate {
        None => return seen.not_applicable("Connections to this ensemble are not encrypted."),
        Some(Err(Why::NotAsked)) => return seen.unknown("The server showed no certificate: see `serving`."),
        Some(Err(why)) => return seen.unknown(super::unknown_because(why)),
        Some(Ok(end)) => *end,
    };
    let days = end.duration_since(seen.evidence.at).as_secs_f64() / DAY_S;
    let days = (days * 10.0).floor() / 10.0;
    let meaning = if days < 0.0 {
        format!("The server's certificate ended at {end}.")
    } else {
        format!("The server's certificate is valid for {days} more days, until {end}.")
    };
    seen.by_limits(days, meaning)
}

pub(super) fn churn(seen: Seen<'_>) -> Finding {
    let uptime = match seen.metric("uptime") {
        Reading::Value(uptime_ms) => (uptime_ms / SECOND_MS).floor(),
        other => return seen.without_value(other),
    };
    let elections = ["cnt_election_time", "looking_count"].map(|key| match seen.grown(key) {
        Reading::Value(grown) => grown,
        Reading::Unknown(_) | Reading::NotApplicable(_) => count(0),
    });
    let elections = elections[0].max(elections[1]);
    if elections > 0.0 {
        let meaning = format!("The server took part in {elections} elections within {}.", seen.span());
        return seen.at_least(Verdict::Warning, uptime, meaning);
    }
    seen.by_limits(uptime, format!("The server started, or elected a leader, {uptime} s ago."))
}

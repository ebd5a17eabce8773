//! Whether each server keeps up with its clients: queues, latencies, connections, errors.

use std::fmt::Write as _;

use super::{Reading, Seen, count};
use crate::domain::health::{Finding, Verdict};
use crate::health::facts::{Answer, Metrics, Mode, ServerFacts, Why};

pub(super) fn outstanding_requests(seen: Seen<'_>) -> Finding {
    let known = seen.server.summary.as_ref().ok().and_then(|summary| summary.outstanding);
    match (seen.metric("outstanding_requests"), known) {
        (Reading::Value(waiting), _) | (_, Some(waiting)) => {
            seen.by_limits(waiting, format!("{waiting} requests wait to be handled."))
        }
        (other, None) => seen.without_value(other),
    }
}

pub(super) fn pending_syncs(seen: Seen<'_>) -> Finding {
    match seen.server.mode() {
        Some(Mode::Leader) => match seen.metric("pending_syncs") {
            Reading::Value(waiting) => seen.by_limits(waiting, format!("{waiting} `sync` requests wait.")),
            other => seen.without_value(other),
        },
        Some(_) => seen.not_applicable("Only the leader counts them."),
        None => seen.without_value(seen.metric("pending_syncs")),
    }
}

/// The average over what happened between the samples, in milliseconds; `None` when nothing did.
fn average(seen: Seen<'_>, kinds: &[&str]) -> Result<Option<(f64, f64)>, Reading> {
    let (mut sum, mut number) = (0.0, 0.0);
    for kind in kinds {
        for (key, total) in [(format!("sum_{kind}"), &mut sum), (format!("cnt_{kind}"), &mut number)] {
            match seen.grown(&key) {
                Reading::Value(grown) => *total += grown,
                other => return Err(other),
            }
        }
    }
    Ok((number > 0.0).then(|| (tenths(sum / number), number)))
}

/// Rounded to what is worth showing.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(super) fn latency(seen: Seen<'_>) -> Finding {
    match average(seen, &["readlatency", "updatelatency"]) {
        Ok(Some((average, number))) => {
            let meaning = format!("{number} requests within {} took {average} ms on average.", seen.span());
            seen.by_limits(average, meaning)
        }
        Ok(None) => seen.verdict(Verdict::Ok, format!("No requests came within {}.", seen.span())),
        Err(reading) => seen.without_value(reading),
    }
}

pub(super) fn fsync(seen: Seen<'_>) -> Finding {
    let slow = grown_slow_fsyncs(seen).unwrap_or(0);
    let least = if slow > 0 { Verdict::Warning } else { Verdict::Ok };
    let also =
        if slow > 0 { format!(" {slow} of them took longer than the server finds right.") } else { String::new() };
    match average(seen, &["fsynctime"]) {
        Ok(Some((average, number))) => {
            let meaning =
                format!("{number} writes of the log within {} took {average} ms on average.{also}", seen.span());
            seen.at_least(least, average, meaning)
        }
        Ok(None) => seen.verdict(least, format!("The log was not written within {}.", seen.span())),
        Err(_) if slow > 0 => seen.verdict(least, format!("{slow} writes of the log took too long.")),
        Err(reading) => seen.without_value(reading),
    }
}

/// How many slow writes of the log the AdminServer counted between the samples.
fn grown_slow_fsyncs(seen: Seen<'_>) -> Option<u64> {
    let slow = |server: &ServerFacts| server.admin.as_ref().ok().and_then(|admin| admin.slow_fsyncs);
    let before = seen.evidence.before?.servers.iter().find(|before| before.server == seen.server.server)?;
    Some(slow(seen.server)?.saturating_sub(slow(before)?))
}

pub(super) fn connections(seen: Seen<'_>) -> Finding {
    let turned_away = seen.server.answer == Answer::Failed(Why::TurnedAway);
    let rejected = match seen.grown("connection_rejected") {
        Reading::Value(rejected) => rejected,
        Reading::Unknown(_) | Reading::NotApplicable(_) => 0.0,
    };
    let least = match (turned_away, rejected > 0.0) {
        (true, _) => Verdict::Critical,
        (false, true) => Verdict::Warning,
        (false, false) => Verdict::Ok,
    };
    let mut also = String::new();
    if turned_away {
        also.push_str(" It turns this host away.");
    }
    if rejected > 0.0 {
        // Writing to a String cannot fail.
        let _ = write!(also, " It rejected {rejected} connections within {}.", seen.span());
    }
    let limit = seen.server.settings.as_ref().ok().and_then(|settings| settings.max_client_connections);
    let busiest = match &seen.server.connections {
        Ok(connections) => connections.iter().max_by_key(|(_, number)| **number),
        Err(_) if turned_away => {
            return seen.verdict(Verdict::Critical, format!("The server {}.", Why::TurnedAway));
        }
        Err(why) => return seen.unknown(super::unknown_because(why)),
    };
    let Some((address, number)) = busiest else {
        return seen.at_least(least, 0.0, format!("There are no connections.{also}"));
    };
    match limit {
        Some(0) => seen.verdict(least, format!("{address} has {number} connections, and there is no limit.{also}")),
        Some(limit) => {
            let share = tenths(100.0 * f64::from(*number) / f64::from(limit));
            let meaning = format!("{address} has {number} of the {limit} connections that one address may have.{also}");
            seen.at_least(least, share, meaning)
        }
        None => match &seen.server.settings {
            Ok(_) => seen.not_applicable("The server does not tell its limit."),
            Err(why) => seen.unknown(super::unknown_because(why)),
        },
    }
}

pub(super) fn file_descriptors(seen: Seen<'_>) -> Finding {
    match (seen.metric("open_file_descriptor_count"), seen.metric("max_file_descriptor_count")) {
        (Reading::Value(open), Reading::Value(most)) if most > 0.0 => {
            let meaning = format!("The server uses {open} of {most} file descriptors.");
            seen.by_limits(tenths(100.0 * open / most), meaning)
        }
        (Reading::Value(_), Reading::Value(_)) => seen.not_applicable("The server has no limit of file descriptors."),
        (Reading::Value(_), other) | (other, _) => seen.without_value(other),
    }
}

/// What should never happen, and whether once is critical.
const COUNTERS: [(&str, &str, bool); 6] = [
    ("unrecoverable_error_count", "unrecoverable errors", true),
    ("digest_mismatches_count", "digests that do not match", true),
    ("large_requests_rejected", "requests that were too large", false),
    ("request_throttle_wait_count", "requests that were throttled", false),
    ("tls_handshake_exceeded", "TLS handshakes that were given up", false),
    ("auth_failed_count", "failed logins", false),
];

pub(super) fn counters(seen: Seen<'_>) -> Finding {
    let mut verdict = Verdict::Ok;
    let mut told = Vec::new();
    let mut total = 0.0;
    let mut unknown = None;
    let mut known = 0;
    for (key, what, is_grave) in COUNTERS {
        match seen.grown(key) {
            Reading::Value(grown) if grown > 0.0 => {
                known += 1;
                total += grown;
                told.push(format!("{grown} {what}"));
                let now = if is_grave { Verdict::Critical } else { Verdict::Warning };
                verdict = Verdict::worst([verdict, now]).unwrap_or(now);
            }
            Reading::Value(_) => {
                known += 1;
                if let Some(since_start) = since_start(&seen.server.metrics, key).filter(|_| is_grave) {
                    told.push(format!("{since_start} {what} since its start"));
                    verdict = Verdict::worst([verdict, Verdict::Warning]).unwrap_or(verdict);
                }
            }
            other @ Reading::Unknown(_) => unknown = Some(other),
            Reading::NotApplicable(_) => {}
        }
    }
    if let (0, Some(unknown)) = (known, unknown) {
        return seen.without_value(unknown);
    }
    if known == 0 {
        return seen.not_applicable("The server does not count them.");
    }
    let meaning = if told.is_empty() {
        format!("Nothing of the kind happened within {}.", seen.span())
    } else {
        format!("The server counted {}.", super::listed(&told))
    };
    seen.verdict(verdict, meaning).counting(total)
}

fn since_start(metrics: &Result<Metrics, Why>, key: &str) -> Option<f64> {
    metrics.as_ref().ok()?.get(key).copied().filter(|number| *number > count(0))
}

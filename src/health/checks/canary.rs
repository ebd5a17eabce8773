//! What the canary met, and whose clock is wrong.

use std::time::Duration;

use super::{Evidence, Seen};
use crate::domain::health::{Check, Finding, Verdict};
use crate::health::facts::{Answer, Trip, TripEnd};

pub(super) fn canary(seen: Seen<'_>) -> Finding {
    let Some(canary) = seen.evidence.canary else {
        return seen.not_applicable("The canary is switched off.");
    };
    let Some(trip) = canary.trips.iter().find(|trip| trip.server == seen.server.server) else {
        return seen.unknown("The canary was not sent there.");
    };
    match &trip.end {
        Some(TripEnd::NotSent(why)) => return seen.unknown(format!("The canary was not sent there: {why}.")),
        Some(TripEnd::NotAllowed(step)) => {
            let remedy = "Name a znode where it may work with `canary = \"/path\"` in [ensemble.NAME], and give it \
                          credentials with `auth`.";
            let meaning = format!("The canary may not {}.", step.as_str());
            return Finding { remedy: Some(remedy.to_owned()), ..seen.unknown(meaning) };
        }
        // It went by the sample before.
        Some(TripEnd::Failed(..)) if matches!(seen.server.answer, Answer::NotServing | Answer::Failed(_)) => {
            return seen.unknown("The server does not serve: see `serving`.");
        }
        Some(TripEnd::Failed(step, why)) => {
            return seen.verdict(Verdict::Critical, format!("The canary failed to {}: {why}.", step.as_str()));
        }
        Some(TripEnd::OutOfTime(step)) => {
            let meaning = format!("The canary was so slow that there was no time left to {}.", step.as_str());
            // What it did before may be bad enough.
            return slowest_step(seen, trip)
                .filter(|slowest| slowest.verdict.is_bad())
                .unwrap_or(seen.unknown(meaning));
        }
        None => {}
    }
    slowest_step(seen, trip).unwrap_or_else(|| seen.unknown("The canary took no step."))
}

/// By the step that took longest; `None` without any.
fn slowest_step(seen: Seen<'_>, trip: &Trip) -> Option<Finding> {
    let (step, slowest) = trip.steps.iter().max_by_key(|(_, took)| *took)?;
    let ms = milliseconds(*slowest);
    Some(seen.by_limits(ms, format!("The canary's slowest step was to {}, in {ms} ms.", step.as_str())))
}

/// With the digits that are worth showing.
fn milliseconds(duration: Duration) -> f64 {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { (ms * 10.0).round() / 10.0 } else { ms.round() }
}

pub(super) fn clock(evidence: &Evidence<'_>) -> Finding {
    let check = Check::Clock;
    let leader = evidence.canary.and_then(|canary| canary.leader_clock_offset_ms).map(|ms| ("the leader", ms));
    let hosts = evidence
        .now
        .servers
        .iter()
        .filter_map(|server| Some((&*server.server, server.admin.as_ref().ok()?.clock_offset_ms?)));
    let Some((who, ms)) = leader.into_iter().chain(hosts).max_by_key(|(_, ms)| ms.abs()) else {
        return Finding::unknown(check, None, "Neither the canary nor an AdminServer told the time.");
    };
    #[expect(clippy::cast_precision_loss, reason = "an offset of clocks is far below 2^53 ms")]
    let seconds = ms as f64 / 1000.0;
    let meaning = match ms {
        0 => "The clocks that were seen go like this host's.".to_owned(),
        ..0 => format!("The clock of {who} is {} s or more behind this host's.", seconds.abs()),
        _ => format!("The clock of {who} is {seconds} s or more ahead of this host's."),
    };
    Finding::measured(evidence.thresholds, check, None, Verdict::Ok, seconds.abs(), meaning)
}

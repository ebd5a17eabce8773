//! Values of arguments: how they are typed, and what is said when they are wrong.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::super::time::parse_distance;
use crate::domain::health::Check;
use crate::domain::run::RunState;
use crate::domain::schedule::ScheduleName;

pub(super) fn parse_name(text: &str) -> Result<ScheduleName, String> {
    ScheduleName::new(text).ok_or_else(|| {
        "a schedule's name has lower-case letters, digits and hyphens, at most 64, and starts with a letter or digit"
            .to_owned()
    })
}

pub(super) fn parse_check(text: &str) -> Result<Check, String> {
    Check::parse(text).ok_or_else(|| {
        let known: Vec<_> = Check::all().map(Check::as_str).collect();
        format!("a check is one of {}", known.join(", "))
    })
}

pub(super) fn parse_wait(text: &str) -> Result<Duration, String> {
    /// Longer than anybody waits for a command.
    const LONGEST: Duration = Duration::from_hours(1);
    let parsed = text.parse::<SignedDuration>().ok().and_then(|wait| Duration::try_from(wait).ok());
    parsed.filter(|wait| *wait <= LONGEST).ok_or_else(|| "a duration is `500ms`, `2s` or `1m`, up to `1h`".to_owned())
}

pub(super) fn parse_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "not an IANA time zone; for example `Europe/Berlin` or `UTC`".to_owned())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_distance(text)
        .and_then(|distance| Duration::try_from(distance).ok())
        .ok_or_else(|| "not a duration; for example `30s`, `5m` or `1h30m`".to_owned())
}

pub(super) fn parse_state(text: &str) -> Result<RunState, String> {
    RunState::parse(text).ok_or_else(|| {
        let known: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
        format!("a state is one of {}", known.join(", "))
    })
}

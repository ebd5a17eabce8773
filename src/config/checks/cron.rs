//! `cron`, `timezone` and `dst` of a schedule.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::super::section::Section;
use super::super::text;
use super::super::written;
use super::shared::Shared;
use crate::domain::calendar::CronExpression;
use crate::domain::schedule::{CronTrigger, DstPolicy, FoldPolicy, GapPolicy};

const JITTER_MAX: Duration = Duration::from_hours(24);

pub(super) fn zone(section: &Section<'_, '_>, shared: &mut Shared, name: &str) -> Option<TimeZone> {
    let zone = shared.zone(name);
    if zone.is_none() {
        let names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
        let ending = format!("/{}", name.to_lowercase().replace(' ', "_"));
        let city = names.iter().find(|known| known.to_lowercase().ends_with(&ending)).map(String::as_str);
        let near = city.or_else(|| text::nearest(name, names.iter().map(String::as_str)));
        section.error(
            &["timezone"],
            format!("there is no time zone named \"{name}\""),
            near.map_or_else(
                || "write an IANA name, such as \"Europe/Berlin\" or \"UTC\"".to_owned(),
                |near| format!("did you mean \"{near}\"?"),
            ),
        );
    }
    zone
}

pub(super) fn cron(section: &Section<'_, '_>, shared: &mut Shared, text: &str) -> Option<CronExpression> {
    match shared.cron(text) {
        Ok(expression) => {
            if expression.is_never() {
                section.error(
                    &["cron"],
                    format!("\"{text}\" never comes due: no such date exists"),
                    "correct the day of month or the month; to rest a schedule, write paused = true",
                );
            }
            Some(expression)
        }
        Err(error) => {
            section.error(&["cron"], error.to_string(), error.hint());
            None
        }
    }
}

pub(super) fn jitter(section: &Section<'_, '_>, written: Option<written::DurationText>) -> Option<Duration> {
    written.map(|jitter| section.between(&["jitter"], jitter.0, Duration::ZERO, JITTER_MAX))
}

pub(super) fn cron_trigger(
    expression: CronExpression,
    timezone: TimeZone,
    dst: &written::Dst,
    jitter: Option<Duration>,
    (default_gap, default_fold): (Option<GapPolicy>, Option<FoldPolicy>),
) -> CronTrigger {
    let by_itself = expression.default_dst();
    let gap = dst.gap.as_ref().map(|choice| choice.0);
    let fold = dst.fold.as_ref().map(|choice| choice.0);
    let dst = DstPolicy {
        gap: gap.or(default_gap).unwrap_or(by_itself.gap),
        fold: fold.or(default_fold).unwrap_or(by_itself.fold),
    };
    CronTrigger { expression, timezone, dst, jitter: jitter.unwrap_or_default() }
}

//! Times as people type them, and as tables show them.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A time as it was typed: an instant, a wall-clock time, a day, or a distance from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeArgument {
    /// RFC 3339, with an offset.
    Instant(Timestamp),
    /// A time without an offset, read in the zone in force.
    Wall(DateTime),
    /// A day, meaning its start in the zone in force.
    Day(Date),
    /// So far from now.
    Distance(SignedDuration),
}

/// Which way a distance like `2h` points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `2h` is two hours ago.
    Past,
    /// `2h` is in two hours.
    Future,
}

impl TimeArgument {
    /// The instant that is meant; `None` when it is beyond the range of time that can be told.
    pub fn resolve(&self, zone: &TimeZone, now: Timestamp, direction: Direction) -> Option<Timestamp> {
        match self {
            Self::Instant(instant) => Some(*instant),
            Self::Wall(wall) => zone.to_timestamp(*wall).ok(),
            Self::Day(day) => day.to_zoned(zone.clone()).ok().map(|start| start.timestamp()),
            Self::Distance(distance) => match direction {
                Direction::Past => now.checked_sub(*distance).ok(),
                Direction::Future => now.checked_add(*distance).ok(),
            },
        }
    }
}

impl FromStr for TimeArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            "a time is `2026-11-22T02:30:00Z`, `2026-11-22T02:30`, `2026-11-22` or a distance like `90m`, `2h`, `7d`"
                .to_owned()
        };
        if let Some(distance) = parse_distance(text) {
            return Ok(Self::Distance(distance));
        }
        if let Ok(instant) = text.parse() {
            return Ok(Self::Instant(instant));
        }
        // A wall time would parse as a day as well, with its hours dropped; and the other way round, with
        // midnight added, which a zone may not have.
        if text.len() <= "2026-11-22".len() {
            return text.parse().map(Self::Day).map_err(|_| wrong());
        }
        text.parse().map(Self::Wall).map_err(|_| wrong())
    }
}

/// Reads `90s`, `1h30m`, `7d`, `2w`; a day has 24 hours.
pub(super) fn parse_distance(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&length| length > 0)?;
        let (number, tail) = rest.split_at(digits);
        let number: i64 = number.parse().ok()?;
        let unit = tail.chars().next()?;
        let seconds: i64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            'w' => 7 * 24 * 3600,
            _ => return None,
        };
        total = total.checked_add(SignedDuration::from_secs(number.checked_mul(seconds)?))?;
        rest = &tail[unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(total)
}

/// `2026-11-22 03:30:00+01:00`: the wall clock of `zone`, with its offset, to the second.
pub(super) fn show_time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// `85 ms`, `4.2 s`, `3m 05s`, `2h 10m`, `3d 4h`: short enough for a column.
pub(super) fn show_milliseconds(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let total = milliseconds.unsigned_abs();
    let seconds = total / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{sign}{total} ms"),
        1..60 => format!("{sign}{seconds}.{} s", total % 1000 / 100),
        60..3600 => format!("{sign}{minutes}m {:02}s", seconds % 60),
        3600..86400 => format!("{sign}{hours}h {:02}m", minutes % 60),
        _ => format!("{sign}{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").expect("a known zone")
    }

    #[test]
    fn times_are_read_in_the_zone_in_force() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
        let cases = [
            ("2026-11-22T02:30:00Z", "2026-11-22T02:30:00Z"),
            ("2026-11-22T02:30:00+01:00", "2026-11-22T01:30:00Z"),
            ("2026-11-22T02:30", "2026-11-22T01:30:00Z"),
            ("2026-11-22 02:30:15", "2026-11-22T01:30:15Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            // Does not exist: read with the offset before the gap.
            ("2026-03-29T02:30", "2026-03-29T01:30:00Z"),
            ("2h", "2026-11-22T10:00:00Z"),
            ("1h30m", "2026-11-22T10:30:00Z"),
            ("7d", "2026-11-15T12:00:00Z"),
            ("0s", "2026-11-22T12:00:00Z"),
        ];
        for (text, expected) in cases {
            let argument: TimeArgument = text.parse().expect(text);
            let resolved = argument.resolve(&berlin(), now, Direction::Past).expect(text);
            assert_eq!(resolved.to_string(), expected, "{text}");
        }
        let until: TimeArgument = "2h".parse().expect("a distance");
        assert_eq!(
            until.resolve(&berlin(), now, Direction::Future).map(|t| t.to_string()).as_deref(),
            Some("2026-11-22T14:00:00Z")
        );
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in ["", "yesterday", "h", "2", "2x", "-2h", "99999999999999999999d", "2026-13-01", "25:00", "2h ago"] {
            assert!(text.parse::<TimeArgument>().is_err(), "{text:?}");
        }
        let far: TimeArgument = "9999999999999s".parse().expect("a distance");
        assert_eq!(far.resolve(&berlin(), Timestamp::UNIX_EPOCH, Direction::Past), None);
    }

    #[test]
    fn durations_fit_a_column() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (-3, "-3 ms"),
            (1_000, "1.0 s"),
            (59_960, "59.9 s"),
            (185_000, "3m 05s"),
            (7_800_000, "2h 10m"),
            (273_600_000, "3d 4h"),
        ];
        for (milliseconds, expected) in cases {
            assert_eq!(show_milliseconds(milliseconds), expected);
        }
    }

    #[test]
    fn table_times_carry_their_offset() {
        let time: Timestamp = "2026-11-22T02:30:00Z".parse().expect("a time");
        assert_eq!(show_time(time, &berlin()), "2026-11-22 03:30:00+01:00");
        assert_eq!(show_time(time, &TimeZone::UTC), "2026-11-22 02:30:00+00:00");
    }
}

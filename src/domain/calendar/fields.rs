//! The fields of a cron expression, and the wall-clock times that they match.
//!
//! Text is checked and spelled out here (names, wrapping ranges), so that errors name the field and
//! the remedy; croner then judges each field, and the days that `L`, `W` and `#` mean. The result is
//! kept as bit masks, because croner's own search keeps five kilobytes of years per expression and
//! only finds after thirty centuries that a date never comes.
//!
//! Wall-clock times are counted in seconds since 1970-01-01 00:00 as if that wall clock had no
//! zone; [`super::zone`] turns them into instants.

use std::borrow::Cow;

use croner::parser::CronParser;
use croner::{CronComponent, CronPattern, Weekday};
use jiff::SignedDuration;
use jiff::civil::Date;

use super::error::{CronError, CronField};

pub(super) const DAY_SECONDS: i64 = 86_400;

const UNIX_EPOCH: Date = Date::constant(1970, 1, 1);

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// What an expression matches; bit `n` of a mask stands for the value `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    months: u64,
    days: Days,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    /// Neither day field restricts.
    Every,
    /// Plain values.
    Plain { of_month: u64, of_week: u64, rule: DayRule },
    /// `L`, `W` or `#`: depends on the shape of the month, which croner judges.
    ByMonth(Box<CronPattern>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DayRule {
    OfMonth,
    OfWeek,
    Either,
    Both,
}

impl Fields {
    /// Reads five or six fields; also says whether the hour field holds a `*`.
    pub(super) fn parse(text: &str) -> Result<(Self, bool), CronError> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match parts.as_slice() {
            rest @ [_, _, _, _, _] => ("0", rest),
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            other => return Err(CronError::field_count(other.len())),
        };
        let [minute, hour, day_of_month, month, day_of_week] = rest else {
            return Err(CronError::field_count(parts.len()));
        };
        let fields = Self {
            seconds: mask(CronField::Second, second)?,
            minutes: mask(CronField::Minute, minute)?,
            hours: mask(CronField::Hour, hour)?,
            days: Days::parse(day_of_month, day_of_week)?,
            months: mask(CronField::Month, month)?,
        };
        Ok((fields, hour.contains('*')))
    }

    /// Whether no date of any year matches. A Gregorian month has one of few shapes (its length and
    /// the weekday of its first day), all of which recur within 400 years, so trying them settles it.
    pub(super) fn is_never(&self) -> bool {
        !(1..=12_u8).filter(|month| self.months & (1 << month) != 0).any(|month| {
            let lengths = match month {
                2 => 28..=29,
                4 | 6 | 9 | 11 => 30..=30,
                _ => 31..=31,
            };
            lengths.into_iter().any(|length| {
                (0..7).any(|first_weekday| self.days.in_month(&MonthShape { length, first_weekday }) != 0)
            })
        })
    }

    /// The earliest matching wall-clock time at or after `wall`.
    pub(super) fn at_or_after(&self, wall: i64) -> Option<i64> {
        let mut month = Month::of_day(wall.div_euclid(DAY_SECONDS))?;
        let day = wall.div_euclid(DAY_SECONDS) - month.first_day + 1;
        let mut days = self.days_of(&month);
        if days & (1 << day) != 0
            && let Some(time) = self.time_at_or_after(wall.rem_euclid(DAY_SECONDS))
        {
            return Some(month.wall(day, time));
        }
        days &= !low_bits(day + 1);
        loop {
            if let Some(day) = lowest(days) {
                return Some(month.wall(day, self.first_time()?));
            }
            month = month.next()?;
            days = self.days_of(&month);
        }
    }

    /// The latest matching wall-clock time at or before `wall`.
    pub(super) fn at_or_before(&self, wall: i64) -> Option<i64> {
        let mut month = Month::of_day(wall.div_euclid(DAY_SECONDS))?;
        let day = wall.div_euclid(DAY_SECONDS) - month.first_day + 1;
        let mut days = self.days_of(&month);
        if days & (1 << day) != 0
            && let Some(time) = self.time_at_or_before(wall.rem_euclid(DAY_SECONDS))
        {
            return Some(month.wall(day, time));
        }
        days &= low_bits(day);
        loop {
            if let Some(day) = highest(days) {
                return Some(month.wall(day, self.last_time()?));
            }
            month = month.previous()?;
            days = self.days_of(&month);
        }
    }

    /// How many matching wall-clock times lie in `from..to`; takes a step per month.
    pub(super) fn count(&self, from: i64, to: i64) -> u64 {
        if from >= to {
            return 0;
        }
        self.count_since_month(to).map_or(0, |(to_month, in_last)| {
            self.count_since_month(from).map_or(0, |(from_month, in_first)| {
                let mut total = in_last;
                let mut month = from_month;
                while month.first_day < to_month.first_day {
                    total += u64::from(self.days_of(&month).count_ones()) * self.times_per_day();
                    let Some(next) = month.next() else { break };
                    month = next;
                }
                total - in_first
            })
        })
    }

    /// The month of `wall`, and how many matching times of that month lie before `wall`.
    fn count_since_month(&self, wall: i64) -> Option<(Month, u64)> {
        let day_number = wall.div_euclid(DAY_SECONDS);
        let month = Month::of_day(day_number)?;
        let day = day_number - month.first_day + 1;
        let days = self.days_of(&month);
        let mut total = u64::from((days & low_bits(day)).count_ones()) * self.times_per_day();
        if days & (1 << day) != 0 {
            total += self.times_before(wall.rem_euclid(DAY_SECONDS));
        }
        Some((month, total))
    }

    fn days_of(&self, month: &Month) -> u64 {
        if self.months & (1 << month.number) == 0 { 0 } else { self.days.in_month(&month.shape()) }
    }

    fn times_per_day(&self) -> u64 {
        ones(self.hours) * ones(self.minutes) * ones(self.seconds)
    }

    /// How many matching times of the day lie before `time` (seconds since midnight).
    fn times_before(&self, time: i64) -> u64 {
        let (hour, minute, second) = split(time);
        let mut total = ones(self.hours & low_bits(hour)) * ones(self.minutes) * ones(self.seconds);
        if self.hours & (1 << hour) != 0 {
            total += ones(self.minutes & low_bits(minute)) * ones(self.seconds);
            if self.minutes & (1 << minute) != 0 {
                total += ones(self.seconds & low_bits(second));
            }
        }
        total
    }

    fn time_at_or_after(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = split(time);
        if self.hours & (1 << hour) != 0 {
            if self.minutes & (1 << minute) != 0
                && let Some(second) = lowest(self.seconds & !low_bits(second))
            {
                return Some(join(hour, minute, second));
            }
            if let Some(minute) = lowest(self.minutes & !low_bits(minute + 1)) {
                return Some(join(hour, minute, lowest(self.seconds)?));
            }
        }
        let hour = lowest(self.hours & !low_bits(hour + 1))?;
        Some(join(hour, lowest(self.minutes)?, lowest(self.seconds)?))
    }

    fn time_at_or_before(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = split(time);
        if self.hours & (1 << hour) != 0 {
            if self.minutes & (1 << minute) != 0
                && let Some(second) = highest(self.seconds & low_bits(second + 1))
            {
                return Some(join(hour, minute, second));
            }
            if let Some(minute) = highest(self.minutes & low_bits(minute)) {
                return Some(join(hour, minute, highest(self.seconds)?));
            }
        }
        let hour = highest(self.hours & low_bits(hour))?;
        Some(join(hour, highest(self.minutes)?, highest(self.seconds)?))
    }

    fn first_time(&self) -> Option<i64> {
        Some(join(lowest(self.hours)?, lowest(self.minutes)?, lowest(self.seconds)?))
    }

    fn last_time(&self) -> Option<i64> {
        Some(join(highest(self.hours)?, highest(self.minutes)?, highest(self.seconds)?))
    }
}

impl Days {
    fn parse(day_of_month: &str, day_of_week: &str) -> Result<Self, CronError> {
        let (both, day_of_week) = match day_of_week.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, day_of_week),
        };
        let of_month = spell_out(CronField::DayOfMonth, day_of_month)?;
        let of_week = spell_out(CronField::DayOfWeek, day_of_week)?;
        let rule = match (&*of_month == "*", &*of_week == "*") {
            (true, true) => return Ok(Self::Every),
            (false, true) => DayRule::OfMonth,
            (true, false) => DayRule::OfWeek,
            (false, false) if both => DayRule::Both,
            (false, false) => DayRule::Either,
        };
        let special = |text: &str| text.contains(['L', 'W', '#']);
        if !special(&of_month) && !special(&of_week) {
            let week = component(CronField::DayOfWeek, &of_week)?;
            let sunday = u64::from(week & (1 << 7) != 0);
            return Ok(Self::Plain {
                of_month: component(CronField::DayOfMonth, &of_month)?,
                of_week: (week | sunday) & low_bits(7),
                rule,
            });
        }
        // The year is given, and thrown away below, because croner spells `*` out as 5,000 years.
        let plus = if both { "+" } else { "" };
        let mut pattern = CronParser::new()
            .parse(&format!("0 0 0 {of_month} * {plus}{of_week} 2000"))
            .map_err(|error| CronError::in_field(CronField::DayOfMonth, day_of_month, &error.to_string()))?
            .pattern;
        pattern.years = CronComponent::default();
        Ok(Self::ByMonth(Box::new(pattern)))
    }

    /// The matching days of a month of this shape; bit 1 is the first.
    fn in_month(&self, shape: &MonthShape) -> u64 {
        let month = low_bits(i64::from(shape.length) + 1) & !1;
        match self {
            Self::Every => month,
            Self::Plain { of_month, of_week, rule } => {
                let from_first = ((of_week | (of_week << 7)) >> shape.first_weekday) & low_bits(7);
                let by_week = (0..5).fold(0, |days, week| days | (from_first << (7 * week))) << 1;
                month
                    & match rule {
                        DayRule::OfMonth => *of_month,
                        DayRule::OfWeek => by_week,
                        DayRule::Either => of_month | by_week,
                        DayRule::Both => of_month & by_week,
                    }
            }
            Self::ByMonth(pattern) => {
                // Only length and weekday matter to croner: any month of this length will do.
                let (year, month) = match shape.length {
                    28 => (2023, 2),
                    29 => (2024, 2),
                    30 => (2024, 4),
                    _ => (2024, 1),
                };
                (1..=u32::from(shape.length)).fold(0, |days, day| {
                    let weekday = Weekday::from_days_from_sunday((u32::from(shape.first_weekday) + day - 1) % 7);
                    let matches = pattern.day_match(year, month, day, weekday).unwrap_or(false);
                    days | (u64::from(matches) << day)
                })
            }
        }
    }
}

/// All that the days of a month depend on.
struct MonthShape {
    /// 28 to 31 days.
    length: u8,
    /// 0 for Sunday.
    first_weekday: u8,
}

/// A month on the way of a search.
struct Month {
    year: i16,
    number: i8,
    length: i8,
    /// Days since 1970-01-01.
    first_day: i64,
}

impl Month {
    /// The month that holds the day `day` (since 1970-01-01); `None` outside jiff's years.
    fn of_day(day: i64) -> Option<Self> {
        let since_epoch = SignedDuration::from_secs(day.checked_mul(DAY_SECONDS)?);
        let date = UNIX_EPOCH.checked_add(since_epoch).ok()?;
        Some(Self::at(date, day - i64::from(date.day()) + 1))
    }

    fn at(date: Date, first_day: i64) -> Self {
        Self { year: date.year(), number: date.month(), length: date.days_in_month(), first_day }
    }

    fn next(&self) -> Option<Self> {
        let (year, number) = if self.number == 12 { (self.year + 1, 1) } else { (self.year, self.number + 1) };
        let date = Date::new(year, number, 1).ok()?;
        Some(Self::at(date, self.first_day + i64::from(self.length)))
    }

    fn previous(&self) -> Option<Self> {
        let (year, number) = if self.number == 1 { (self.year - 1, 12) } else { (self.year, self.number - 1) };
        let date = Date::new(year, number, 1).ok()?;
        Some(Self::at(date, self.first_day - i64::from(date.days_in_month())))
    }

    fn shape(&self) -> MonthShape {
        // 1970-01-01 was a Thursday.
        let first_weekday = (self.first_day + 4).rem_euclid(7);
        MonthShape {
            length: u8::try_from(self.length).unwrap_or(31),
            first_weekday: u8::try_from(first_weekday).unwrap_or(0),
        }
    }

    fn wall(&self, day: i64, time: i64) -> i64 {
        (self.first_day + day - 1) * DAY_SECONDS + time
    }
}

fn split(time: i64) -> (i64, i64, i64) {
    (time / 3600, time / 60 % 60, time % 60)
}

fn join(hour: i64, minute: i64, second: i64) -> i64 {
    hour * 3600 + minute * 60 + second
}

/// The bits below `count` (at most 63).
fn low_bits(count: i64) -> u64 {
    (1 << count) - 1
}

fn lowest(mask: u64) -> Option<i64> {
    (mask != 0).then(|| i64::from(mask.trailing_zeros()))
}

fn highest(mask: u64) -> Option<i64> {
    (mask != 0).then(|| i64::from(mask.ilog2()))
}

fn ones(mask: u64) -> u64 {
    u64::from(mask.count_ones())
}

fn mask(field: CronField, text: &str) -> Result<u64, CronError> {
    component(field, &spell_out(field, text)?)
}

/// croner's reading of one field without `L`, `W` and `#`.
fn component(field: CronField, spelled_out: &str) -> Result<u64, CronError> {
    let mut component = CronComponent::new(field.min(), field.max(), 0, 0);
    component.parse(spelled_out).map_err(|error| CronError::in_field(field, spelled_out, &error.to_string()))?;
    Ok(component.values().into_iter().fold(0, |mask, value| mask | (1 << value)))
}

/// Checks a field and rewrites it in croner's words: numbers for names, values for ranges that wrap
/// around, `*` for `?`.
fn spell_out(field: CronField, text: &str) -> Result<Cow<'_, str>, CronError> {
    let is_day = matches!(field, CronField::DayOfMonth | CronField::DayOfWeek);
    match text {
        "*" => return Ok(Cow::Borrowed("*")),
        "?" if is_day => return Ok(Cow::Borrowed("*")),
        _ => {}
    }
    let upper = text.to_ascii_uppercase();
    let items: Vec<&str> = upper.split(',').collect();
    if field == CronField::DayOfMonth && items.contains(&"L") && items.contains(&"LW") {
        return Err(CronError::with_hint(field, text, "`L` and `LW` cannot stand in one list", "use two schedules"));
    }
    let mut spelled = String::with_capacity(text.len());
    for item in items {
        if !spelled.is_empty() {
            spelled.push(',');
        }
        spelled.push_str(&spell_out_item(field, item)?);
    }
    Ok(Cow::Owned(spelled))
}

fn spell_out_item(field: CronField, item: &str) -> Result<String, CronError> {
    if item.is_empty() {
        return Err(CronError::in_field(field, item, "an entry of the list is empty"));
    }
    if item == "*" || item == "?" {
        return Err(CronError::with_hint(field, item, "it stands beside other entries", "`*` alone is every value"));
    }
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(parse_step(field, item, step)?)),
        None => (item, None),
    };
    if range == "*" {
        return Ok(item.to_owned());
    }
    if let Some((from, to)) = range.split_once('-') {
        let (from, to) = (value(field, item, from)?, value(field, item, to)?);
        return Ok(spell_out_range(field, (from, to), step.unwrap_or(1)));
    }
    if let Some(step) = step {
        value(field, item, range)?;
        let hint = format!("write `{range}-{}/{step}` to start at {range}, or `*/{step}`", field.max());
        return Err(CronError::with_hint(field, item, "a step needs a range", &hint));
    }
    Ok(match field {
        CronField::DayOfMonth if range == "L" || range == "LW" => range.to_owned(),
        CronField::DayOfMonth if range.ends_with('W') => {
            let day = value(field, item, range.trim_end_matches('W'))?;
            format!("{day}W")
        }
        CronField::DayOfWeek if range == "L" => {
            let hint = "name the weekday: `6L` or `SAT#L` is the last Saturday; the last day is `L` in day of month";
            return Err(CronError::with_hint(field, item, "the last what?", hint));
        }
        CronField::DayOfWeek if range.contains('#') || (range.ends_with('L') && weekday(range).is_none()) => {
            let (day, nth) = range.split_once('#').unwrap_or((range.trim_end_matches('L'), "L"));
            if nth != "L" && !matches!(nth, "1" | "2" | "3" | "4" | "5") {
                return Err(CronError::in_field(field, item, "after `#` comes 1 to 5, or L for the last"));
            }
            let day = value(field, item, day)?;
            format!("{day}#{nth}")
        }
        _ => value(field, item, range)?.to_string(),
    })
}

fn parse_step(field: CronField, item: &str, step: &str) -> Result<u16, CronError> {
    let digits = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    match step.parse::<u16>() {
        Ok(0) => Err(CronError::in_field(field, item, "a step of 0 never moves on")),
        Ok(step) if digits => Ok(step),
        _ => Err(CronError::in_field(field, item, "the step is not a number")),
    }
}

/// One number or name.
fn value(field: CronField, item: &str, text: &str) -> Result<u16, CronError> {
    let named = match field {
        CronField::Month => MONTHS.iter().position(|name| *name == text).map(|index| index + 1),
        CronField::DayOfWeek => weekday(text),
        _ => None,
    };
    if let Some(value) = named.and_then(|value| u16::try_from(value).ok()) {
        return Ok(value);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let problem = if text.is_empty() { "a value is missing".to_owned() } else { format!("`{text}` is no value") };
        return Err(CronError::in_field(field, item, &problem));
    }
    match text.parse::<u16>() {
        Ok(value) if (field.min()..=field.max()).contains(&value) => Ok(value),
        _ => Err(CronError::in_field(field, item, &format!("{text} is not in {} to {}", field.min(), field.max()))),
    }
}

fn weekday(text: &str) -> Option<usize> {
    WEEKDAYS.iter().position(|name| *name == text)
}

/// A range; one that wraps around becomes a list of its values.
fn spell_out_range(field: CronField, (from, to): (u16, u16), step: u16) -> String {
    // 7 is Sunday again, so a range from it starts at 0.
    let from = if field == CronField::DayOfWeek && from > to { from % 7 } else { from };
    if from <= to {
        return if step == 1 { format!("{from}-{to}") } else { format!("{from}-{to}/{step}") };
    }
    let (min, size) = match field {
        CronField::DayOfWeek => (0, 7),
        _ => (field.min(), field.max() - field.min() + 1),
    };
    let values = (0..=to + size - from).step_by(usize::from(step));
    values.map(|distance| (min + (from - min + distance) % size).to_string()).collect::<Vec<_>>().join(",")
}

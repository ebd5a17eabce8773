//! What can be wrong with a cron expression, and the remedy.

use std::fmt;

/// A field of a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CronField {
    /// 0 to 59; optional.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12 or a name.
    Month,
    /// 0 to 7 or a name.
    DayOfWeek,
}

impl CronField {
    /// The field's name, as in "day of month".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        }
    }

    pub(super) fn min(self) -> u16 {
        match self {
            Self::DayOfMonth | Self::Month => 1,
            Self::Second | Self::Minute | Self::Hour | Self::DayOfWeek => 0,
        }
    }

    pub(super) fn max(self) -> u16 {
        match self {
            Self::Second | Self::Minute => 59,
            Self::Hour => 23,
            Self::DayOfMonth => 31,
            Self::Month => 12,
            Self::DayOfWeek => 7,
        }
    }

    /// What the field takes, for hints.
    fn takes(self) -> &'static str {
        match self {
            Self::Second | Self::Minute => "0 to 59, `*`, ranges `10-20`, steps `*/15` and lists `0,30`",
            Self::Hour => "0 to 23, `*`, ranges `9-17`, steps `*/6` and lists `0,12`",
            Self::DayOfMonth => "1 to 31, `*`, ranges, steps, lists, `L` (last), `LW` (last weekday), `15W` (nearest)",
            Self::Month => "1 to 12 or JAN to DEC, `*`, ranges, steps and lists",
            Self::DayOfWeek => "0 to 7 or SUN to SAT, `*`, ranges, steps, lists, `FRI#2` (second), `5L` (last)",
        }
    }
}

impl fmt::Display for CronField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a cron expression: which field, what is wrong with it, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CronError {
    field: Option<CronField>,
    problem: String,
    hint: String,
}

impl CronError {
    /// The field at fault; `None` when it is the expression as a whole.
    pub fn field(&self) -> Option<CronField> {
        self.field
    }

    /// What to write instead.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    pub(super) fn field_count(found: usize) -> Self {
        let problem = match found {
            0 => "the cron expression is empty".to_owned(),
            1 => "the cron expression has 1 field".to_owned(),
            _ => format!("the cron expression has {found} fields"),
        };
        let hint = match found {
            7 => "leave out the year: six fields are second, minute, hour, day of month, month, day of week",
            _ => "write five fields (minute, hour, day of month, month, day of week), or six with seconds in front",
        };
        Self { field: None, problem, hint: hint.to_owned() }
    }

    pub(super) fn nickname(text: &str, problem: &str) -> Self {
        Self {
            field: None,
            problem: format!("`{text}`: {problem}"),
            hint: "use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually, or write the fields"
                .to_owned(),
        }
    }

    pub(super) fn in_field(field: CronField, item: &str, problem: &str) -> Self {
        Self::with_hint(field, item, problem, &format!("the {field} field takes {}", field.takes()))
    }

    pub(super) fn with_hint(field: CronField, item: &str, problem: &str, hint: &str) -> Self {
        Self {
            field: Some(field),
            problem: format!("the {field} field has `{item}`: {problem}"),
            hint: hint.to_owned(),
        }
    }
}

//! Calendar arithmetic: which instants a cron expression means in a time zone.
//!
//! Three steps, each a pure function. [`fields`] reads the text and knows which wall-clock times
//! match; croner is the judge of every field and of the days that `L`, `W` and `#` mean. [`zone`]
//! maps wall-clock times to instants under flowkeeper's own policy for times that a zone skips or
//! repeats. [`jitter`] spreads load. Nothing here reads a clock, and "never" is an answer: no
//! search runs on without end.

mod error;
mod fields;
mod jitter;
mod zone;

use std::fmt;
use std::sync::Arc;

pub use error::{CronError, CronField};
pub use jitter::jitter;
pub use zone::{DstNote, NominalTime, NominalTimes, Span};

use super::schedule::{CronTrigger, DstPolicy, FoldPolicy, GapPolicy};
use fields::Fields;
use jiff::tz::TimeZone;

/// A parsed cron expression; cheap to clone.
///
/// Two expressions are equal when they mean the same wall-clock times, however they are spelled.
#[derive(Clone)]
pub struct CronExpression(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    fields: Fields,
    follows_real_time: bool,
    is_never: bool,
}

impl CronExpression {
    /// Reads five fields (minute, hour, day of month, month, day of week), six with seconds in
    /// front, or a nickname such as `@daily`.
    ///
    /// Names are read in any case, 0 and 7 are Sunday, ranges may wrap around (`22-2`, `FRI-MON`).
    /// A day matches when its day of month *or* its day of week does, unless one of the two fields
    /// is `*`; a `+` before the day of week asks for both.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let text = text.trim();
        let expanded = if text.starts_with('@') { nickname(text)? } else { text };
        let (fields, follows_real_time) = Fields::parse(expanded)?;
        let is_never = fields.is_never();
        Ok(Self(Arc::new(Parsed { text: text.into(), fields, follows_real_time, is_never })))
    }

    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether no date matches, as in `0 0 30 2 *`. Such an expression is legal and never due.
    pub fn is_never(&self) -> bool {
        self.0.is_never
    }

    /// Whether the hour field holds a `*` (also as `*/n`): such a schedule counts elapsed time
    /// rather than naming hours of the day.
    pub fn follows_real_time(&self) -> bool {
        self.0.follows_real_time
    }

    /// What happens around a change of the zone's offset unless the schedule says otherwise: a
    /// schedule that names its hours runs once on every day, one that counts elapsed time simply
    /// goes on counting.
    pub fn default_dst(&self) -> DstPolicy {
        if self.0.follows_real_time {
            DstPolicy { gap: GapPolicy::Skip, fold: FoldPolicy::Both }
        } else {
            DstPolicy { gap: GapPolicy::Shift, fold: FoldPolicy::First }
        }
    }

    fn fields(&self) -> &Fields {
        &self.0.fields
    }
}

impl PartialEq for CronExpression {
    fn eq(&self, other: &Self) -> bool {
        self.0.fields == other.0.fields
    }
}

impl Eq for CronExpression {}

impl fmt::Display for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.text)
    }
}

impl fmt::Debug for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronExpression({:?})", self.0.text)
    }
}

impl CronTrigger {
    /// A trigger with the expression's own policy for changes of the offset, and no jitter.
    pub fn new(expression: CronExpression, timezone: TimeZone) -> Self {
        let dst = expression.default_dst();
        Self { expression, timezone, dst, jitter: std::time::Duration::ZERO }
    }

    /// Whether both triggers mean the same nominal times, so that a cursor of one holds for the
    /// other. Jitter moves no nominal time.
    pub fn same_times(&self, other: &Self) -> bool {
        self.expression == other.expression && self.timezone == other.timezone && self.dst == other.dst
    }
}

fn nickname(text: &str) -> Result<&'static str, CronError> {
    match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        "@reboot" => Err(CronError::nickname(text, "a start of flowkeeper is not a time")),
        _ => Err(CronError::nickname(text, "no such nickname")),
    }
}

#[cfg(test)]
mod tests;

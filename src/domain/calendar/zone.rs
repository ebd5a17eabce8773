//! From wall-clock times to instants, with flowkeeper's own policy for times that a zone skips or
//! repeats.
//!
//! A zone is a row of segments with one offset each. Inside a segment the mapping is a plain
//! subtraction; the policies only say which part of a segment counts. After a clock went back, the
//! start of the new segment repeats wall times that the end of the old one had: `first` leaves out
//! the repetition, `last` the original. After it went forward, `shift` reads the start of the new
//! segment a second time, with the offset before the gap. Searching instants this way keeps them in
//! order and makes two wall times on one instant one occurrence, without any sorting.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::fields::Fields;
use crate::domain::schedule::{CronTrigger, DstPolicy, FoldPolicy, GapPolicy};

/// Above every offset that a zone can have, in seconds: jiff's limit is 25:59:59.
const OFFSET_LIMIT_SECONDS: i64 = 26 * 3600;

/// One nominal time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NominalTime {
    /// The instant; whole seconds.
    pub at: Timestamp,
    /// What a wall clock in the schedule's zone shows at that instant.
    pub local: DateTime,
    /// That wall clock's offset from UTC.
    pub offset: Offset,
    /// Set when the zone's offset changes around here, and that mattered.
    pub dst: Option<DstNote>,
}

/// How a change of the zone's offset touched a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DstNote {
    /// The wall time asked for does not exist; it was read with the offset before the gap.
    Gap,
    /// The wall time exists twice; this is one of its passes.
    Fold,
}

/// Nominal times that are only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
}

impl CronTrigger {
    /// The first nominal time strictly after `after`; `None` when there is none before the year 9999.
    pub fn next_after(&self, after: Timestamp) -> Option<NominalTime> {
        self.times_after(after).next()
    }

    /// The last nominal time strictly before `before`; `None` when there never was one.
    pub fn previous_before(&self, before: Timestamp) -> Option<NominalTime> {
        if self.expression.is_never() {
            return None;
        }
        // The latest whole second before it.
        let mut at = before.as_second() - i64::from(before.subsec_nanosecond() <= 0);
        loop {
            let segment = Segment::at(&self.timezone, at);
            match segment.previous(self.expression.fields(), self.dst, at) {
                Found::At { at, note } => return segment.nominal(at, note),
                Found::Elsewhere(earlier) => at = earlier,
                Found::Nowhere => return None,
            }
        }
    }

    /// The nominal times strictly after `after`, in order.
    pub fn times_after(&self, after: Timestamp) -> NominalTimes<'_> {
        // The earliest whole second after it.
        let at = after.as_second() + i64::from(after.subsec_nanosecond() >= 0);
        NominalTimes { trigger: self, at: (!self.expression.is_never()).then_some(at), segment: None }
    }

    /// The nominal times after `after` and up to and including `until`, counted without visiting
    /// each: a year of seconds costs as much as a year of days. `None` when there is none.
    pub fn span(&self, after: Timestamp, until: Timestamp) -> Option<Span> {
        let first = self.next_after(after).filter(|first| first.at <= until)?;
        let last = match self.previous_before(until.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(until)) {
            Some(last) if last.at >= first.at => last,
            _ => first,
        };
        let end = last.at.as_second() + 1;
        let mut at = first.at.as_second();
        let mut count = 0;
        while at < end {
            let segment = Segment::at(&self.timezone, at);
            let segment_end = segment.end.min(end);
            count += segment.count(self.expression.fields(), self.dst, at, segment_end);
            at = segment_end;
        }
        Some(Span { first: first.at, last: last.at, count })
    }
}

/// The nominal times of a trigger, in order; made by [`CronTrigger::times_after`].
#[derive(Debug, Clone)]
pub struct NominalTimes<'a> {
    trigger: &'a CronTrigger,
    /// Where the search goes on, in seconds; `None` at the end.
    at: Option<i64>,
    segment: Option<Segment>,
}

impl Iterator for NominalTimes<'_> {
    type Item = NominalTime;

    fn next(&mut self) -> Option<NominalTime> {
        let mut at = self.at.take()?;
        loop {
            let segment = match self.segment {
                Some(segment) if segment.holds(at) => segment,
                _ => Segment::at(&self.trigger.timezone, at),
            };
            self.segment = Some(segment);
            match segment.next(self.trigger.expression.fields(), self.trigger.dst, at) {
                Found::At { at, note } => {
                    self.at = Some(at + 1);
                    return segment.nominal(at, note);
                }
                Found::Elsewhere(later) => at = later,
                Found::Nowhere => return None,
            }
        }
    }
}

/// A stretch of time in which a zone has one offset. All in seconds.
#[derive(Debug, Clone, Copy)]
struct Segment {
    start: i64,
    end: i64,
    offset: i64,
    /// The offset of the segment before, or this one's where there is none.
    before: i64,
    /// The offset of the segment after, or this one's where there is none.
    after: i64,
}

/// What a search inside one segment came to.
enum Found {
    At {
        at: i64,
        note: Option<DstNote>,
    },
    /// Not here; go on from this second.
    Elsewhere(i64),
    Nowhere,
}

impl Segment {
    fn at(zone: &TimeZone, at: i64) -> Self {
        let limits = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let instant =
            |second: i64| Timestamp::from_second(second.clamp(limits.0, limits.1)).unwrap_or(Timestamp::UNIX_EPOCH);
        let seconds = |offset: Offset| i64::from(offset.seconds());
        let offset = seconds(zone.to_offset(instant(at)));
        // Strictly before the next second is at or before this one.
        let start = zone.preceding(instant(at + 1)).next().map(|transition| transition.timestamp().as_second());
        let end = zone.following(instant(at)).next();
        Self {
            start: start.unwrap_or(i64::MIN / 2),
            end: end.as_ref().map_or(i64::MAX / 2, |transition| transition.timestamp().as_second()),
            offset,
            before: start.map_or(offset, |start| seconds(zone.to_offset(instant(start - 1)))),
            after: end.as_ref().map_or(offset, |transition| seconds(transition.offset())),
        }
    }

    fn holds(&self, at: i64) -> bool {
        (self.start..self.end).contains(&at)
    }

    /// The part in which wall times of this segment count.
    fn own(&self, fold: FoldPolicy) -> std::ops::Range<i64> {
        let repeated_at_start = if fold == FoldPolicy::First { (self.before - self.offset).max(0) } else { 0 };
        let repeated_at_end = if fold == FoldPolicy::Last { (self.offset - self.after).max(0) } else { 0 };
        self.start + repeated_at_start..self.end - repeated_at_end
    }

    /// The part that wall times inside the gap before this segment are shifted into.
    fn shifted(&self, gap: GapPolicy) -> std::ops::Range<i64> {
        let length = if gap == GapPolicy::Shift { (self.offset - self.before).max(0) } else { 0 };
        self.start..(self.start + length).min(self.end)
    }

    fn next(&self, fields: &Fields, dst: DstPolicy, at: i64) -> Found {
        let (own, shifted) = (self.own(dst.fold), self.shifted(dst.gap));
        let from = at.max(own.start);
        let candidate = fields.at_or_after(from + self.offset);
        let plain = candidate.map(|wall| wall - self.offset).filter(|at| own.contains(at));
        let moved = if shifted.contains(&at) {
            fields.at_or_after(at + self.before).map(|wall| wall - self.before).filter(|at| shifted.contains(at))
        } else {
            None
        };
        match (plain, moved) {
            (plain, Some(moved)) if plain.is_none_or(|plain| moved < plain) => {
                Found::At { at: moved, note: Some(DstNote::Gap) }
            }
            (Some(at), _) => Found::At { at, note: self.is_repeated(at).then_some(DstNote::Fold) },
            (None, _) => {
                // Wall times that the next segment repeats have not been searched from here.
                let searched_all = from + self.offset <= self.end + self.offset.min(self.after);
                match candidate {
                    Some(wall) if searched_all => Found::Elsewhere(self.end.max(wall - OFFSET_LIMIT_SECONDS)),
                    None if searched_all => Found::Nowhere,
                    _ => Found::Elsewhere(self.end),
                }
            }
        }
    }

    fn previous(&self, fields: &Fields, dst: DstPolicy, at: i64) -> Found {
        let (own, shifted) = (self.own(dst.fold), self.shifted(dst.gap));
        let from = at.min(own.end - 1);
        let candidate = fields.at_or_before(from + self.offset);
        let plain = candidate.map(|wall| wall - self.offset).filter(|at| own.contains(at));
        let moved_from = at.min(shifted.end - 1);
        let moved = if shifted.contains(&moved_from) {
            fields
                .at_or_before(moved_from + self.before)
                .map(|wall| wall - self.before)
                .filter(|at| shifted.contains(at))
        } else {
            None
        };
        match (plain, moved) {
            (plain, Some(moved)) if plain.is_none_or(|plain| moved > plain) => {
                Found::At { at: moved, note: Some(DstNote::Gap) }
            }
            (Some(at), _) => Found::At { at, note: self.is_repeated(at).then_some(DstNote::Fold) },
            (None, _) => {
                let searched_all = from + self.offset >= self.start + self.before.max(self.offset) - 1;
                match candidate {
                    Some(wall) if searched_all => Found::Elsewhere((self.start - 1).min(wall + OFFSET_LIMIT_SECONDS)),
                    None if searched_all => Found::Nowhere,
                    _ => Found::Elsewhere(self.start - 1),
                }
            }
        }
    }

    /// How many nominal times lie in `from..to`, which is inside this segment.
    fn count(&self, fields: &Fields, dst: DstPolicy, from: i64, to: i64) -> u64 {
        let (own, shifted) = (self.own(dst.fold), self.shifted(dst.gap));
        // Where two wall times may meet on one instant each has to be visited.
        let overlap_end = shifted.end.clamp(from, to);
        let mut count = 0;
        let mut at = from;
        while at < overlap_end {
            match self.next(fields, dst, at) {
                Found::At { at: found, .. } if found < overlap_end => {
                    count += 1;
                    at = found + 1;
                }
                _ => break,
            }
        }
        let (from, to) = (overlap_end.max(own.start), to.min(own.end));
        count + fields.count(from + self.offset, to + self.offset)
    }

    /// Whether the wall time at `at` exists twice.
    fn is_repeated(&self, at: i64) -> bool {
        at < self.start + (self.before - self.offset) || at >= self.end - (self.offset - self.after).max(0)
    }

    /// `None` past the end of jiff's calendar.
    fn nominal(&self, at: i64, dst: Option<DstNote>) -> Option<NominalTime> {
        let at = Timestamp::from_second(at).ok()?;
        let offset = Offset::from_seconds(i32::try_from(self.offset).ok()?).ok()?;
        Some(NominalTime { at, local: offset.to_datetime(at), offset, dst })
    }
}

//! What the fields mean, in UTC.

use super::*;
use crate::domain::calendar::CronField;

#[test]
fn fields_say_when() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &[&str])] = &[
        // theme, expression, after, the next times
        ("every minute", "* * * * *", "2026-07-09T14:45:30Z", &["2026-07-09T14:46:00", "2026-07-09T14:47:00"]),
        ("strictly after", "* * * * *", "2026-07-09T14:45:00Z", &["2026-07-09T14:46:00"]),
        ("strictly after, by a nanosecond", "* * * * *", "2026-07-09T14:44:59.999999999Z", &["2026-07-09T14:45:00"]),
        ("before 1970", "*/20 * * * * *", "1969-12-31T23:59:30.5Z", &["1969-12-31T23:59:40", "1970-01-01T00:00:00"]),

        // Roll over into the next minute, hour, day, month, year.
        ("into the next minute", "15 * * * * *", "2026-07-09T14:59:15Z", &["2026-07-09T15:00:15"]),
        ("into the next hour", "20-35/15 * * * *", "2026-07-09T15:45:00Z", &["2026-07-09T16:20:00", "2026-07-09T16:35:00", "2026-07-09T17:20:00"]),
        ("into the next day", "*/15 * * * *", "2026-07-09T23:46:00Z", &["2026-07-10T00:00:00"]),
        ("into the next day, with seconds", "15 * * * * *", "2026-07-09T23:59:15Z", &["2026-07-10T00:00:15"]),
        ("into the next month", "0 0 9 * *", "2026-07-09T23:35:00Z", &["2026-08-09T00:00:00"]),
        ("into the next year", "0 0 1 2 *", "2026-07-09T23:35:00Z", &["2027-02-01T00:00:00", "2028-02-01T00:00:00"]),
        ("everything at once", "59 59 23 31 12 *", "2026-12-31T23:59:59Z", &["2027-12-31T23:59:59"]),
        ("only in long months", "0 0 31 * *", "2026-01-31T00:00:00Z", &["2026-03-31T00:00:00", "2026-05-31T00:00:00", "2026-07-31T00:00:00", "2026-08-31T00:00:00", "2026-10-31T00:00:00"]),
        ("a month between others", "0 0 1 4,10 *", "2026-04-01T00:00:00Z", &["2026-10-01T00:00:00", "2027-04-01T00:00:00"]),

        // Ranges, steps, lists.
        ("range", "0 9-11 * * *", "2026-07-09T09:30:00Z", &["2026-07-09T10:00:00", "2026-07-09T11:00:00", "2026-07-10T09:00:00"]),
        ("step", "*/25 * * * *", "2026-07-09T09:00:00Z", &["2026-07-09T09:25:00", "2026-07-09T09:50:00", "2026-07-09T10:00:00"]),
        ("step in a range", "10-30/10 5 * * *", "2026-07-09T05:10:00Z", &["2026-07-09T05:20:00", "2026-07-09T05:30:00", "2026-07-10T05:10:00"]),
        ("a step longer than the field", "*/90 * * * *", "2026-07-09T05:10:00Z", &["2026-07-09T06:00:00", "2026-07-09T07:00:00"]),
        ("list, in any order, with doubles", "30,0,30,5-6 0 * * *", "2026-07-09T00:00:00Z", &["2026-07-09T00:05:00", "2026-07-09T00:06:00", "2026-07-09T00:30:00", "2026-07-10T00:00:00"]),
        ("zeros in front", "05 07 08 09 *", "2026-07-09T00:00:00Z", &["2026-09-08T07:05:00"]),
        ("hours that wrap around midnight", "0 22-2 * * *", "2026-07-09T21:00:00Z", &["2026-07-09T22:00:00", "2026-07-09T23:00:00", "2026-07-10T00:00:00", "2026-07-10T01:00:00", "2026-07-10T02:00:00", "2026-07-10T22:00:00"]),
        ("… with a step", "0 21-4/3 * * *", "2026-07-09T20:00:00Z", &["2026-07-09T21:00:00", "2026-07-10T00:00:00", "2026-07-10T03:00:00", "2026-07-10T21:00:00"]),
        ("minutes that wrap around", "58-1 3 * * *", "2026-07-09T03:01:00Z", &["2026-07-09T03:58:00", "2026-07-09T03:59:00", "2026-07-10T03:00:00", "2026-07-10T03:01:00"]),
        ("months that wrap around", "0 0 1 nov-feb *", "2026-02-01T00:00:00Z", &["2026-11-01T00:00:00", "2026-12-01T00:00:00", "2027-01-01T00:00:00", "2027-02-01T00:00:00"]),
        ("days of month that wrap around", "0 0 30-2 * *", "2026-02-02T00:00:00Z", &["2026-03-01T00:00:00", "2026-03-02T00:00:00", "2026-03-30T00:00:00"]),
        ("weekdays that wrap around", "0 0 * * FRI-MON", "2026-11-19T00:00:00Z", &["2026-11-20T00:00:00", "2026-11-21T00:00:00", "2026-11-22T00:00:00", "2026-11-23T00:00:00", "2026-11-27T00:00:00"]),

        // Days of week; 2026-11-22 is a Sunday.
        ("0 is Sunday", "0 0 * * 0", "2026-11-20T00:00:00Z", &["2026-11-22T00:00:00"]),
        ("7 is Sunday", "0 0 * * 7", "2026-11-20T00:00:00Z", &["2026-11-22T00:00:00"]),
        ("a range to 7", "0 0 * * 5-7", "2026-11-22T00:00:00Z", &["2026-11-27T00:00:00", "2026-11-28T00:00:00", "2026-11-29T00:00:00"]),
        ("a range from 7", "0 0 * * 7-1", "2026-11-20T00:00:00Z", &["2026-11-22T00:00:00", "2026-11-23T00:00:00", "2026-11-29T00:00:00"]),
        ("a range that ends on Sunday by name", "0 0 * * sat-sun", "2026-11-20T00:00:00Z", &["2026-11-21T00:00:00", "2026-11-22T00:00:00", "2026-11-28T00:00:00"]),
        ("names in any case", "0 0 * JaN mOn-weD", "2026-12-01T00:00:00Z", &["2027-01-04T00:00:00", "2027-01-05T00:00:00", "2027-01-06T00:00:00", "2027-01-11T00:00:00"]),

        // Day of month and day of week.
        ("either of both", "0 0 13 * 5", "2026-11-01T00:00:00Z", &["2026-11-06T00:00:00", "2026-11-13T00:00:00", "2026-11-20T00:00:00", "2026-11-27T00:00:00", "2026-12-04T00:00:00", "2026-12-11T00:00:00", "2026-12-13T00:00:00"]),
        ("both, by a plus", "0 0 13 * +5", "2026-11-01T00:00:00Z", &["2026-11-13T00:00:00", "2027-08-13T00:00:00"]),
        ("a step counts as a restriction", "0 0 */10 * 5", "2026-11-01T00:00:00Z", &["2026-11-06T00:00:00", "2026-11-11T00:00:00", "2026-11-13T00:00:00"]),
        ("a question mark is a star", "0 0 ? * 1", "2026-11-01T00:00:00Z", &["2026-11-02T00:00:00", "2026-11-09T00:00:00"]),
        ("and in day of week", "0 0 4 * ?", "2026-11-01T00:00:00Z", &["2026-11-04T00:00:00", "2026-12-04T00:00:00"]),

        // Leap days; 2100 is no leap year, 2000 was.
        ("leap day", "0 0 29 2 *", "2026-11-01T00:00:00Z", &["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("leap days around 2100", "0 0 29 2 *", "2093-01-01T00:00:00Z", &["2096-02-29T00:00:00", "2104-02-29T00:00:00"]),
        ("leap day of 2000", "0 0 29 2 *", "1999-01-01T00:00:00Z", &["2000-02-29T00:00:00"]),
        ("leap day on a Monday", "0 0 29 2 +1", "2026-11-01T00:00:00Z", &["2044-02-29T00:00:00", "2072-02-29T00:00:00", "2112-02-29T00:00:00"]),

        // Last days.
        ("last day of the month", "0 0 L * *", "2028-01-01T00:00:00Z", &["2028-01-31T00:00:00", "2028-02-29T00:00:00", "2028-03-31T00:00:00", "2028-04-30T00:00:00"]),
        ("last day beside another", "0 0 15,L 2 *", "2027-01-01T00:00:00Z", &["2027-02-15T00:00:00", "2027-02-28T00:00:00"]),
        ("last weekday of the month", "0 0 LW * *", "2026-10-01T00:00:00Z", &["2026-10-30T00:00:00", "2026-11-30T00:00:00", "2026-12-31T00:00:00", "2027-01-29T00:00:00", "2027-02-26T00:00:00"]),
        ("last Friday", "0 0 * * 5L", "2026-11-01T00:00:00Z", &["2026-11-27T00:00:00", "2026-12-25T00:00:00", "2027-01-29T00:00:00"]),
        ("last Sunday, as 7", "0 0 * * 7L", "2026-11-01T00:00:00Z", &["2026-11-29T00:00:00", "2026-12-27T00:00:00"]),
        ("last Friday by name", "0 0 * * friL", "2026-11-01T00:00:00Z", &["2026-11-27T00:00:00"]),
        ("last Friday, the other way", "0 0 * * FRI#L", "2026-11-01T00:00:00Z", &["2026-11-27T00:00:00"]),

        // Nearest weekday: never leaves the month. 2026-08-01 is a Saturday, 2026-11-01 a Sunday.
        ("nearest weekday is the day itself", "0 0 15W * *", "2026-09-01T00:00:00Z", &["2026-09-15T00:00:00", "2026-10-15T00:00:00", "2026-11-16T00:00:00"]),
        ("nearest to a Saturday is Friday", "0 0 15W 8 *", "2026-08-01T00:00:00Z", &["2026-08-14T00:00:00"]),
        ("nearest to a Saturday the first is Monday the third", "0 0 1W 8 *", "2026-07-01T00:00:00Z", &["2026-08-03T00:00:00"]),
        ("nearest to a Sunday the first is Monday the second", "0 0 1W 11 *", "2026-07-01T00:00:00Z", &["2026-11-02T00:00:00"]),
        ("nearest to a Sunday the last is Friday", "0 0 31W 1 *", "2027-01-01T00:00:00Z", &["2027-01-29T00:00:00"]),
        ("nearest to a day that the month does not have", "0 0 31W * *", "2026-09-01T00:00:00Z", &["2026-10-30T00:00:00", "2026-12-31T00:00:00"]),

        // The nth weekday.
        ("second Tuesday", "0 0 * * TUE#2", "2026-11-01T00:00:00Z", &["2026-11-10T00:00:00", "2026-12-08T00:00:00"]),
        ("fifth Monday, where there is one", "0 0 * * 1#5", "2026-11-01T00:00:00Z", &["2026-11-30T00:00:00", "2027-03-29T00:00:00"]),
        ("first Sunday, as 7", "0 0 * * 7#1", "2026-11-01T00:00:00Z", &["2026-12-06T00:00:00"]),
        ("first and third Monday", "0 0 * * MON#1,MON#3", "2026-11-01T00:00:00Z", &["2026-11-02T00:00:00", "2026-11-16T00:00:00", "2026-12-07T00:00:00"]),
        ("the nth weekday or a day of month", "0 0 1 * MON#2", "2026-11-02T00:00:00Z", &["2026-11-09T00:00:00", "2026-12-01T00:00:00", "2026-12-14T00:00:00"]),
        ("the nth weekday in a week of the month", "0 0 8-14 * +SAT#2", "2026-11-01T00:00:00Z", &["2026-11-14T00:00:00"]),

        // Seconds, nicknames, blanks.
        ("seconds", "*/20 30 9 * * *", "2026-07-09T09:30:20Z", &["2026-07-09T09:30:40", "2026-07-10T09:30:00"]),
        ("@hourly", "@hourly", "2026-07-09T09:30:20Z", &["2026-07-09T10:00:00"]),
        ("@daily", "@Daily", "2026-07-09T09:30:20Z", &["2026-07-10T00:00:00"]),
        ("@midnight", "@midnight", "2026-07-09T09:30:20Z", &["2026-07-10T00:00:00"]),
        ("@weekly", "@weekly", "2026-11-20T09:30:20Z", &["2026-11-22T00:00:00"]),
        ("@monthly", "@monthly", "2026-07-09T09:30:20Z", &["2026-08-01T00:00:00"]),
        ("@yearly", "@yearly", "2026-07-09T09:30:20Z", &["2027-01-01T00:00:00"]),
        ("@annually", "@ANNUALLY", "2026-07-09T09:30:20Z", &["2027-01-01T00:00:00"]),
        ("blanks", "  0\t 0   1  1 * ", "2026-07-09T09:30:20Z", &["2027-01-01T00:00:00"]),
    ];
    for (about, expression, after, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|time| format!("{time}+00:00")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&format!("{about} ({expression})"), &trigger(expression, "UTC"), at(after), &expected);
    }
}

#[test]
fn never_is_an_answer() {
    for expression in
        ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30 2 +1", "0 0 1-7 * +MON#2", "0 0 30W 2 *", "0 0 15 * +FRI#1"]
    {
        let trigger = trigger(expression, "Europe/Berlin");
        assert!(trigger.expression.is_never(), "{expression}");
        let now = at("2026-11-22T00:00:00Z");
        assert_eq!(trigger.next_after(now), None, "{expression}");
        assert_eq!(trigger.previous_before(now), None, "{expression}");
        assert_eq!(trigger.span(Timestamp::MIN, Timestamp::MAX), None, "{expression}");
    }
    for expression in ["0 0 29 2 *", "0 0 29 2 +1", "0 0 30 2 1", "0 0 LW 2 *", "0 0 * 2 MON#5"] {
        assert!(!trigger(expression, "UTC").expression.is_never(), "{expression}");
    }
}

#[test]
fn the_calendar_ends_without_a_panic() {
    let every_second = trigger("* * * * * *", "Pacific/Kiritimati");
    assert_eq!(every_second.next_after(Timestamp::MAX), None);
    assert_eq!(every_second.previous_before(Timestamp::MIN), None);
    assert!(every_second.previous_before(Timestamp::MAX).is_some());
    let yearly = trigger("@yearly", "America/New_York");
    assert_eq!(yearly.times_after(at("9997-06-01T00:00:00Z")).count(), 2);
    assert!(yearly.span(Timestamp::MIN, Timestamp::MAX).is_some_and(|span| span.count > 19_000));
}

#[test]
fn missed_seconds_are_counted_without_visiting_them() {
    let every_second = trigger("* * * * * *", "Europe/Berlin");
    let from = at("2020-01-01T00:00:00Z");
    let until = at("2026-01-01T00:00:00Z");
    let span = every_second.span(from, until).expect("many");
    assert_eq!(i64::try_from(span.count), Ok(until.as_second() - from.as_second()));
    assert_eq!((span.first.as_second(), span.last), (from.as_second() + 1, until));
    assert_eq!(every_second.span(until, from), None);
    assert_eq!(every_second.span(until, until), None);
}

#[test]
fn expressions_are_equal_when_they_mean_the_same() {
    let parse = |text: &str| CronExpression::parse(text).expect("an expression");
    for (a, b) in [
        ("@daily", "0 0 0 * * *"),
        ("0 0 * * MON", "0 0 ? * 1"),
        ("*/30 * * * *", "0,30 * * * *"),
        ("0 0 * * 5-7", "0 0 * * FRI-SUN"),
        ("0 0 * * 5L", "0 0 * * FRI#L"),
    ] {
        assert_eq!(parse(a), parse(b));
    }
    assert_ne!(parse("0 0 1 * 1"), parse("0 0 1 * +1"));
    assert_eq!(parse(" @daily ").to_string(), "@daily");
}

#[test]
fn faults_name_the_field_what_is_wrong_and_the_remedy() {
    let cases: &[(&str, Option<CronField>, &str, &str)] = &[
        ("", None, "the cron expression is empty", "five fields"),
        ("* * * *", None, "the cron expression has 4 fields", "five fields"),
        ("0 0 0 1 1 * 2026", None, "the cron expression has 7 fields", "leave out the year"),
        ("@dayly", None, "`@dayly`: no such nickname", "@daily"),
        ("@reboot", None, "`@reboot`: a start of flowkeeper is not a time", "@hourly"),
        ("60 * * * *", Some(CronField::Minute), "the minute field has `60`: 60 is not in 0 to 59", "0 to 59"),
        ("61 0 * * * *", Some(CronField::Second), "the second field has `61`: 61 is not in 0 to 59", "0 to 59"),
        ("0 24 * * *", Some(CronField::Hour), "the hour field has `24`: 24 is not in 0 to 23", "0 to 23"),
        ("0 0 0 * *", Some(CronField::DayOfMonth), "the day of month field has `0`: 0 is not in 1 to 31", "1 to 31"),
        ("0 0 * 13 *", Some(CronField::Month), "the month field has `13`: 13 is not in 1 to 12", "JAN to DEC"),
        ("0 0 * * 8", Some(CronField::DayOfWeek), "the day of week field has `8`: 8 is not in 0 to 7", "SUN to SAT"),
        ("0 0 * MON *", Some(CronField::Month), "the month field has `MON`: `MON` is no value", "JAN to DEC"),
        ("0 0 * * JAN", Some(CronField::DayOfWeek), "the day of week field has `JAN`: `JAN` is no value", "SUN to SAT"),
        ("SUN * * * *", Some(CronField::Minute), "the minute field has `SUN`: `SUN` is no value", "0 to 59"),
        ("1,,2 * * * *", Some(CronField::Minute), "the minute field has ``: an entry of the list is empty", "lists"),
        ("*,5 * * * *", Some(CronField::Minute), "`*`: it stands beside other entries", "`*` alone"),
        ("0/15 * * * *", Some(CronField::Minute), "`0/15`: a step needs a range", "`0-59/15`"),
        ("/15 * * * *", Some(CronField::Minute), "`/15`: a value is missing", "0 to 59"),
        ("*/0 * * * *", Some(CronField::Minute), "`*/0`: a step of 0 never moves on", "steps"),
        ("*/x * * * *", Some(CronField::Minute), "`*/X`: the step is not a number", "steps"),
        ("1- * * * *", Some(CronField::Minute), "`1-`: a value is missing", "ranges"),
        ("1-2-3 * * * *", Some(CronField::Minute), "`1-2-3`: `2-3` is no value", "ranges"),
        ("-5 * * * *", Some(CronField::Minute), "`-5`: a value is missing", "ranges"),
        ("L * * * *", Some(CronField::Minute), "`L`: `L` is no value", "0 to 59"),
        ("0 0 * * L", Some(CronField::DayOfWeek), "`L`: the last what?", "`6L`"),
        ("0 0 5L * *", Some(CronField::DayOfMonth), "`5L`: `5L` is no value", "`L` (last)"),
        ("0 0 L,LW * *", Some(CronField::DayOfMonth), "`L` and `LW` cannot stand in one list", "two schedules"),
        ("0 0 W * *", Some(CronField::DayOfMonth), "`W`: a value is missing", "`15W`"),
        ("0 0 32W * *", Some(CronField::DayOfMonth), "`32W`: 32 is not in 1 to 31", "`15W`"),
        ("0 0 15W3 * *", Some(CronField::DayOfMonth), "`15W3`: `15W3` is no value", "`15W`"),
        ("0 0 L-3 * *", Some(CronField::DayOfMonth), "`L-3`: `L` is no value", "`L` (last)"),
        ("0 0 * * 1#6", Some(CronField::DayOfWeek), "`1#6`: after `#` comes 1 to 5", "`FRI#2`"),
        ("0 0 * * MON-FRI#2", Some(CronField::DayOfWeek), "`FRI#2` is no value", "`FRI#2`"),
        ("0 0 * * 15W", Some(CronField::DayOfWeek), "`15W`: `15W` is no value", "SUN to SAT"),
        ("0 0 * * ++1", Some(CronField::DayOfWeek), "`+1`: `+1` is no value", "SUN to SAT"),
        ("٣ * * * *", Some(CronField::Minute), "`٣`: `٣` is no value", "0 to 59"),
        ("99999999999999999999 * * * *", Some(CronField::Minute), "is not in 0 to 59", "0 to 59"),
    ];
    for (expression, field, problem, hint) in cases {
        let error = CronExpression::parse(expression).expect_err(expression);
        assert_eq!(error.field(), *field, "{expression}: {error}");
        assert!(error.to_string().ends_with(problem) || error.to_string().contains(problem), "{expression}: {error}");
        assert!(error.hint().contains(hint), "{expression}: {}", error.hint());
    }
}

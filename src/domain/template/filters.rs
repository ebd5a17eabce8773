//! Times in templates: a value that knows its zone, and the filters that write it.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use minijinja::value::{Object, ObjectRepr};
use minijinja::{Environment, Error, ErrorKind, Value};

/// A moment in the zone of its schedule. As text it is RFC 3339 in UTC, as everywhere in
/// flowkeeper's JSON; the filters write the wall clock.
#[derive(Debug)]
pub(super) struct Moment(pub(super) Zoned);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.timestamp().fmt(f)
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let time = &self.0;
        Some(match key.as_str()? {
            "year" => Value::from(time.year()),
            "month" => Value::from(time.month()),
            "day" => Value::from(time.day()),
            "hour" => Value::from(time.hour()),
            "minute" => Value::from(time.minute()),
            "second" => Value::from(time.second()),
            _ => return None,
        })
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

/// Adds the filters for times.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("date", |time: &Value| Ok::<_, Error>(moment(time)?.date().to_string()));
    environment.add_filter("datetime", |time: &Value| Ok::<_, Error>(local(&moment(time)?)));
    environment.add_filter("strftime", |time: &Value, format: &str| strftime(&moment(time)?, format));
    environment.add_filter("epoch", |time: &Value| Ok::<_, Error>(moment(time)?.timestamp().as_second()));
    environment.add_filter("in_zone", |time: &Value, zone: &str| in_zone(&moment(time)?, zone));
}

/// The wall clock with its offset: `2026-11-22T03:30:00+01:00`.
fn local(time: &Zoned) -> String {
    time.timestamp().display_with_offset(time.offset()).to_string()
}

fn strftime(time: &Zoned, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime: {error}")))
}

fn in_zone(time: &Zoned, zone: &str) -> Result<Value, Error> {
    let zone = TimeZone::get(zone)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("there is no time zone named `{zone}`")))?;
    Ok(Value::from_object(Moment(time.timestamp().to_zoned(zone))))
}

/// The time that a filter is given: `nominal_time`, or a text in RFC 3339, which is read as UTC.
fn moment(value: &Value) -> Result<Zoned, Error> {
    if let Some(moment) = value.downcast_object_ref::<Moment>() {
        return Ok(moment.0.clone());
    }
    value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).map(|time| time.to_zoned(TimeZone::UTC)).ok_or_else(
        || {
            Error::new(
                ErrorKind::InvalidOperation,
                format!("a time is needed here, such as nominal_time, and this is {}", describe(value)),
            )
        },
    )
}

fn describe(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("the text \"{}\"", text.chars().take(40).collect::<String>()),
        None => value.kind().to_string(),
    }
}

//! Single values: durations, secrets, choices.
//!
//! Each reads itself and says what is wrong with a value, and how to write it right, without
//! repeating a value that may be a secret.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::HINT_MARK;

/// An error with a remedy.
pub(super) fn fault<E: Error>(message: impl fmt::Display, hint: impl fmt::Display) -> E {
    E::custom(format_args!("{message}{HINT_MARK}{hint}"))
}

const DURATION_HINT: &str = "write a number and a unit, such as \"90s\", \"5m\", \"1h30m\" or \"7d\"";

/// A length of time: `"90s"`, `"5m"`, `"1h30m"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct DurationText(pub(in crate::config) Duration);

impl DurationText {
    /// Reads `500ms`, `90s`, `5m`, `1h30m`, `7d`: whole numbers with units, the larger unit first,
    /// each unit once.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, String> {
        /// Units in milliseconds, the largest first.
        const UNITS: [(&str, u64); 6] =
            [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let not_one = || format!("\"{text}\" is not a duration");
        let mut rest = text;
        let mut total_ms: u64 = 0;
        let mut next_unit = 0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(|| if next_unit == 0 { format!("\"{text}\" has no unit") } else { not_one() })?;
            let letters = rest[digits..].find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len() - digits);
            let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
            let place = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(not_one)?;
            if place < next_unit || number.is_empty() {
                return Err(not_one());
            }
            next_unit = place + 1;
            total_ms = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(UNITS[place].1))
                .and_then(|ms| total_ms.checked_add(ms))
                .filter(|ms| *ms <= Self::MAX_MS)
                .ok_or_else(|| format!("\"{text}\" is longer than a hundred years"))?;
            rest = &rest[digits + letters..];
        }
        if next_unit == 0 { Err(not_one()) } else { Ok(Self(Duration::from_millis(total_ms))) }
    }

    /// A hundred years: sums with a time stay far from the ends of the calendar.
    const MAX_MS: u64 = 36_525 * 86_400_000;
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = DurationText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<DurationText, E> {
                DurationText::parse(text).map_err(|message| fault(message, DURATION_HINT))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<DurationText, E> {
                Err(fault(format_args!("{number} has no unit"), DURATION_HINT))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "description": "A length of time: \"90s\", \"5m\", \"1h30m\", \"7d\". Units: ms, s, m, h, d, w."
        })
    }
}

/// Where a secret is kept: `{ env = "NAME" }` or `{ file = "path" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum SecretText {
    /// An environment variable.
    Env(String),
    /// A file, relative to the file that names it.
    File(String),
}

const SECRET_HINT: &str = "name the place instead: { env = \"NAME\" } or { file = \"path\" }";

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            env: Option<String>,
            file: Option<String>,
        }
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = SecretText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret's place")
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<SecretText, E> {
                Err(fault("a secret does not stand in the configuration", SECRET_HINT))
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<SecretText, E> {
                self.visit_str("")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretText, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                let named = |name: String| if name.is_empty() { None } else { Some(name) };
                match (written.env.and_then(named), written.file.and_then(named)) {
                    (Some(name), None) if name.contains(['=', '\0']) => {
                        Err(fault("no environment variable can have this name", "write only its name"))
                    }
                    (Some(name), None) => Ok(SecretText::Env(name)),
                    (None, Some(path)) => Ok(SecretText::File(path)),
                    (Some(_), Some(_)) => Err(fault("a secret has one place, and this names two", SECRET_HINT)),
                    (None, None) => Err(fault("this names no place of a secret", SECRET_HINT)),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "env": { "type": "string", "minLength": 1, "description": "An environment variable that holds it." },
                "file": { "type": "string", "minLength": 1, "description": "A file that holds it; surrounding white space is not part of it." }
            },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
            "description": "A secret: { env = \"NAME\" } or { file = \"path\" }. It is read when it is needed, and never printed."
        })
    }
}

/// A fixed set of words.
pub(in crate::config) trait Words: Sized + Copy + 'static {
    /// Each word and what it stands for.
    const WORDS: &'static [(&'static str, Self)];
}

/// One of a fixed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Choice<T>(pub(in crate::config) T);

impl<'de, T: Words> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<T: Words> Visitor<'_> for Reader<T> {
            type Value = Choice<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let words: Vec<String> = T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                write!(f, "{}", words.join(" or "))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Choice<T>, E> {
                T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| Choice(*value)).ok_or_else(|| {
                    let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
                    fault(
                        format_args!("\"{text}\" is not known here"),
                        crate::config::text::did_you_mean(text, &words, "allowed"),
                    )
                })
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

impl<T: Words> JsonSchema for Choice<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json_schema!({ "enum": words })
    }
}

/// `"auto"` or a number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum InFlightText {
    /// `"auto"`.
    Auto,
    /// A number.
    Fixed(std::num::NonZeroU32),
}

impl<'de> Deserialize<'de> for InFlightText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const HINT: &str = "write \"auto\", or a number from 1 to 1000";
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = InFlightText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a number")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<InFlightText, E> {
                if text == "auto" {
                    Ok(InFlightText::Auto)
                } else {
                    Err(fault(format_args!("\"{text}\" is not a number of requests"), HINT))
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<InFlightText, E> {
                u32::try_from(number)
                    .ok()
                    .filter(|number| *number <= 1000)
                    .and_then(std::num::NonZeroU32::new)
                    .map(InFlightText::Fixed)
                    .ok_or_else(|| fault(format_args!("{number} requests cannot be under way at once"), HINT))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for InFlightText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "InFlight".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1000 }] })
    }
}

/// A name, or a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Names(pub(in crate::config) Vec<String>);

impl Names {
    /// As many names as are remembered of a schedule.
    const MAX: usize = crate::domain::edit::FORMER_NAMES;
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a list of names")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                match names.len() {
                    0 => Err(fault("there is no name in this list", "take it out, or write \"old-name\"")),
                    1..=Names::MAX => Ok(Names(names)),
                    many => Err(fault(
                        format_args!("{many} names are too many"),
                        format_args!("keep the latest {}", Names::MAX),
                    )),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let list = serde_json::json!({
            "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": Self::MAX
        });
        json_schema!({ "oneOf": [{ "type": "string" }, list] })
    }
}

/// `"ignore"`, `"fire"`, `{ after_zxid = "0x…" }` or `{ after = "<time>" }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct InitialText(pub(in crate::config) crate::domain::schedule::Initial);

impl<'de> Deserialize<'de> for InitialText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use crate::domain::schedule::Initial;
        const HINT: &str =
            "write \"ignore\", \"fire\", { after_zxid = \"0x1a\" } or { after = \"2026-11-22T00:00:00Z\" }";
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            after_zxid: Option<String>,
            after: Option<String>,
        }
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = InitialText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"ignore\", \"fire\" or a table")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<InitialText, E> {
                match text {
                    "ignore" => Ok(InitialText(Initial::Ignore)),
                    "fire" => Ok(InitialText(Initial::Fire)),
                    _ => Err(fault(format_args!("\"{text}\" is not known here"), HINT)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InitialText, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                match (written.after_zxid, written.after) {
                    (Some(zxid), None) => zxid
                        .strip_prefix("0x")
                        .and_then(|digits| i64::from_str_radix(digits, 16).ok())
                        .filter(|zxid| *zxid >= 0)
                        .map(|zxid| InitialText(Initial::AfterZxid(zxid)))
                        .ok_or_else(|| {
                            fault(
                                format_args!("\"{zxid}\" is not a zxid"),
                                "write it in hexadecimal, as ZooKeeper prints it: \"0x100000002\"",
                            )
                        }),
                    (None, Some(time)) => time.parse().map(|time| InitialText(Initial::After(time))).map_err(|_| {
                        fault(
                            format_args!("\"{time}\" is not a time"),
                            "write it in RFC 3339: \"2026-11-22T00:00:00Z\"",
                        )
                    }),
                    _ => Err(fault("one of `after_zxid` and `after` is needed", HINT)),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for InitialText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Initial".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let only = |key: &str, pattern: &str| {
            let mut properties = serde_json::Map::new();
            properties.insert(key.to_owned(), serde_json::json!({ "type": "string", "pattern": pattern }));
            serde_json::json!({ "type": "object", "properties": properties, "required": [key], "additionalProperties": false })
        };
        json_schema!({
            "oneOf": [
                { "enum": ["ignore", "fire"] },
                only("after_zxid", "^0x[0-9a-fA-F]+$"),
                only("after", "^[0-9]{4}-")
            ]
        })
    }
}

/// A table of any content; its values are read from the document itself.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Table;

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Table;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Table)
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

impl JsonSchema for Table {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Table".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

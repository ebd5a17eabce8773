//! A connection written as a URI, the way Airflow itself reads one (`Connection._parse_from_uri`).

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::entry::{Connection, PORT, extra_object};

/// Reads `type://login:password@host:port/schema?name=value`. Every part may be left out, and may be
/// percent-encoded; parameters become `extra`, `__extra__` is all of it as JSON.
pub(super) fn connection(uri: &str) -> Result<Connection, String> {
    const WHAT: &str = "a connection is a URI such as type://login:password@host:port/schema, or a JSON object";
    let (scheme, rest) = uri.split_once(':').ok_or(WHAT)?;
    let rest = rest.strip_prefix("//").ok_or(WHAT)?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    if scheme.is_empty() || !scheme.chars().all(is_scheme) {
        return Err(WHAT.to_owned());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // `http://https://host`: what is spoken with the host belongs to it, and credentials stand behind it.
    let (protocol, rest) = match rest.split_once("://") {
        Some((protocol, rest)) if !protocol.is_empty() && protocol.chars().all(is_scheme) => (Some(protocol), rest),
        _ => (None, rest),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (login, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, port) = match address.rsplit_once(':') {
        // A colon within the brackets of an IPv6 address separates nothing.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (address, ""),
    };
    let conn_type = match scheme.to_ascii_lowercase().replace('-', "_") {
        postgres if postgres == "postgresql" => "postgres".to_owned(),
        other => other,
    };
    Ok(Connection {
        conn_type,
        description: None,
        host: decoded(host)?.map(|host| match protocol {
            Some(protocol) => format!("{protocol}://{host}"),
            None => host,
        }),
        login: decoded(login)?,
        password: decoded(password)?,
        schema: decoded(path)?,
        port: if port.is_empty() { None } else { Some(port.parse().map_err(|_| PORT)?) },
        extra: extra(query)?,
    })
}

fn decoded(part: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(part).decode_utf8().map_err(|_| "a part of the URI is not UTF-8")?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

fn extra(query: &str) -> Result<Option<Map<String, Value>>, String> {
    let mut extra = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let part = |text: &str| decoded(&text.replace('+', " ")).map(Option::unwrap_or_default);
        let (name, value) = (part(name)?, part(value)?);
        if name == "__extra__" {
            return extra_object(Value::String(value));
        }
        extra.insert(name, Value::String(value));
    }
    Ok(Some(extra).filter(|extra| !extra.is_empty()))
}

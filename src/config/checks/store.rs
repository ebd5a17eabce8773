//! `[store]`: which database, and whether its URL says all that is needed to reach it.

use std::time::Duration;

use reqwest::Url;

use super::super::model::Store;
use super::super::section::Section;
use super::super::source::directory_of;
use super::super::text;
use super::super::written;

const DEFAULT_RETENTION: Duration = Duration::from_hours(90 * 24);
const DEFAULT_STORE_PATH: &str = "flowkeeper.db";
const DAY: Duration = Duration::from_hours(24);
const CENTURY: Duration = Duration::from_hours(36_525 * 24);

const EXAMPLE: &str = "write \"postgres://USER@HOST/DATABASE\"";

/// The parameters of a URL that the client library knows. It ignores others without a word.
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Those that name a file.
const FILES: [&str; 3] = ["sslcert", "sslkey", "sslrootcert"];

/// What `sslmode` may be; libpq's words.
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// `[store]`; `main_file` is the file that the default path is relative to.
pub(crate) fn store(section: Option<&Section<'_, '_>>, main_file: &str) -> Store {
    let default_url = || sqlite_url(main_file, DEFAULT_STORE_PATH);
    let Some(section) = section else {
        return Store { url: default_url(), password: None, retention: DEFAULT_RETENTION };
    };
    let written: written::Store = section.read();
    let retention = written
        .retention
        .map_or(DEFAULT_RETENTION, |retention| section.between(&["retention"], retention.0, DAY, CENTURY));
    let password = written.password.map(|password| section.secret(&["password"], password));
    let url = written.url.map_or_else(default_url, |url| store_url(section, &url, password.is_some()));
    Store { url, password, retention }
}

fn store_url(section: &Section<'_, '_>, written: &str, has_password: bool) -> String {
    let hint = "write \"sqlite://flowkeeper.db\": a path relative to this file, or an absolute one; or \
                \"postgres://USER@HOST/DATABASE\"";
    let Some((scheme, path)) = written.split_once("://") else {
        section.error(&["url"], "this is not the URL of a store", hint);
        return written.to_owned();
    };
    match scheme {
        "sqlite" if path.is_empty() || path.starts_with('?') || path == ":memory:" => {
            section.error(&["url"], "the ledger must outlive the process, so it needs a file", hint);
        }
        "sqlite" if path.contains(['?', '#', '%']) => {
            section.error(&["url"], "the path of a store has no `?`, `#` or `%`", "flowkeeper sets the options itself");
        }
        "sqlite" => {
            if has_password {
                section.error(&["password"], "a file has no password", "leave it out; the file's rights protect it");
            }
            return sqlite_url(&section.source.name, path);
        }
        "postgres" | "postgresql" => return postgres_url(section, written, has_password),
        _ => section.error(
            &["url"],
            format!("`{scheme}` is not a kind of store"),
            text::did_you_mean(scheme, &["sqlite", "postgres"], "there are"),
        ),
    }
    written.to_owned()
}

fn sqlite_url(file: &str, path: &str) -> String {
    format!("sqlite://{}", directory_of(file).join(path).display())
}

/// The URL with the paths in it relative to the working directory.
fn postgres_url(section: &Section<'_, '_>, written: &str, has_password: bool) -> String {
    let error = |message: String, hint: &str| section.error(&["url"], message, hint);
    let Ok(mut url) = written.parse::<Url>() else {
        error(
            "this is not the URL of a database".to_owned(),
            &format!(
                "{EXAMPLE}, with what is special encoded (`/` is %2F, `@` is %40), and the password apart: password = \
                 {{ env = \"NAME\" }}"
            ),
        );
        return written.to_owned();
    };
    if url.fragment().is_some() {
        error("the URL of a database has no `#`".to_owned(), "encode it: `#` is %23");
    }
    if url.host_str().is_some_and(|host| host.contains(',')) {
        error(
            "there are several hosts in it, and flowkeeper connects to one".to_owned(),
            "name a host that always leads to the primary server",
        );
    }
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let has = |name: &str| pairs.iter().any(|(key, _)| key == name);
    if url.path().trim_matches('/').is_empty() && !has("dbname") {
        error("it names no database".to_owned(), EXAMPLE);
    }
    if has_password && url.password().is_some() {
        error("there is a password in the URL and in `password`".to_owned(), "leave it out of the URL");
    }
    for (key, value) in &mut pairs {
        if key == "password" {
            error("a password is not one of its parameters".to_owned(), "write password = { env = \"NAME\" } below it");
        } else if !PARAMETERS.contains(&key.as_str()) {
            error(
                format!("`{key}` is not a parameter that flowkeeper knows"),
                &text::did_you_mean(key, &PARAMETERS, "known ones"),
            );
        } else if key == "sslmode" && !SSL_MODES.contains(&value.as_str()) {
            error(format!("`{value}` is not an `sslmode`"), &text::did_you_mean(value, &SSL_MODES, "there are"));
        } else if FILES.contains(&key.as_str()) {
            *value = section.path(&["url"], value).display().to_string();
        }
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(&pairs);
    }
    url.into()
}

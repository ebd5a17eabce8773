//! The way to one server: a four-letter word, and a command of its AdminServer.
//!
//! Each question has its own limit of time. What comes back is bounded, since what listens there may be
//! anything.

use std::io::ErrorKind;
use std::time::Duration;

use super::words;
use crate::health::facts::Why;
use crate::zookeeper::{NoWord, Server, TlsClient, ask_word};

/// The most that is read of an answer, in bytes: `cons` of 50,000 connections fits.
const ANSWER_LIMIT: usize = 8 << 20;

/// Asks a server a four-letter word.
pub(super) async fn ask(
    server: &Server,
    encryption: Option<&TlsClient>,
    word: &'static str,
    within: Duration,
) -> Result<String, Why> {
    let answer = ask_word(server, encryption, word, within, ANSWER_LIMIT).await.map_err(|no| why(no, within))?;
    words::said(word, &String::from_utf8_lossy(&answer)).map(ToOwned::to_owned)
}

/// What the lack of an answer says of the server.
fn why(no: NoWord, within: Duration) -> Why {
    match no {
        NoWord::NoConnectionInTime => Why::OutOfSight(format!("no connection in {within:?}")),
        // A server that has too many connections of this host's may be faster than the handshake.
        NoWord::NoConnection(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Why::TurnedAway
        }
        NoWord::NoConnection(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Why::Unreachable(error.to_string())
        }
        NoWord::NoName(error) | NoWord::NoConnection(error) => Why::OutOfSight(error.to_string()),
        NoWord::TlsFailed(error) => Why::Unreachable(format!("the TLS handshake failed: {error}")),
        NoWord::Silent => Why::Silent,
    }
}

/// Asks an AdminServer: status, `Date` and body of its answer.
pub(super) async fn get(
    client: &reqwest::Client,
    url: String,
    within: Duration,
) -> Result<(reqwest::StatusCode, Option<String>, Vec<u8>), Why> {
    let unreachable = |error: reqwest::Error| {
        // The URL is the configuration's, and says enough by itself.
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_timeout() { Why::Silent } else { Why::Unreachable(format!("{url}: {reason}")) }
    };
    let mut answer = client.get(&url).timeout(within).send().await.map_err(unreachable)?;
    let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok()).map(ToOwned::to_owned);
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + part.len() > ANSWER_LIMIT {
            return Err(Why::Unreadable("an answer without end".to_owned()));
        }
        body.extend_from_slice(&part);
    }
    Ok((answer.status(), date, body))
}

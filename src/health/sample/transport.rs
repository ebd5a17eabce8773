//! The way to one server: a four-letter word over TCP or TLS, and a command of its AdminServer.
//!
//! Each question has its own connection and its own limit of time. What comes back is bounded, since
//! what listens there may be anything.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::words;
use crate::health::facts::Why;
use crate::zookeeper::TlsClient;

/// The most that is read of an answer, in bytes: `cons` of 50,000 connections fits.
const ANSWER_LIMIT: u64 = 8 << 20;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The name or the address, without brackets.
    pub(super) host: String,
    /// The client port.
    pub(super) port: u16,
}

impl Endpoint {
    /// Reads `host:port` and `[::1]:port`.
    pub(super) fn parse(server: &str) -> Option<Self> {
        let (host, port) = server.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// The host as it stands in a URL.
    pub(super) fn url_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// Asks a server a four-letter word.
pub(super) async fn ask(
    endpoint: &Endpoint,
    encryption: Option<&TlsClient>,
    word: &'static str,
    timeout: Duration,
) -> Result<String, Why> {
    let address = (endpoint.host.as_str(), endpoint.port);
    let connecting = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
    let connection = match connecting {
        Err(_) => return Err(Why::OutOfSight(format!("no connection in {timeout:?}"))),
        // A server that has too many connections of this host's may be faster than the handshake.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            return Err(Why::TurnedAway);
        }
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(Why::Unreachable(error.to_string()));
        }
        Ok(Err(error)) => return Err(Why::OutOfSight(error.to_string())),
        Ok(Ok(connection)) => connection,
    };
    let answering = async {
        let Some(encryption) = encryption else { return exchange(connection, word).await };
        let connection = encryption
            .connect(&endpoint.host, connection)
            .await
            .map_err(|error| Why::Unreachable(format!("the TLS handshake failed: {error}")))?;
        exchange(connection, word).await
    };
    let answer = tokio::time::timeout(timeout, answering).await.map_err(|_| Why::Silent)??;
    words::said(word, &answer).map(ToOwned::to_owned)
}

async fn exchange(mut connection: impl AsyncRead + AsyncWrite + Unpin, word: &str) -> Result<String, Why> {
    // A server that turns this host away may have closed the connection already.
    if connection.write_all(word.as_bytes()).await.is_err() || connection.flush().await.is_err() {
        return Err(Why::TurnedAway);
    }
    let mut answer = Vec::new();
    match connection.take(ANSWER_LIMIT).read_to_end(&mut answer).await {
        // A reset behind the answer is how some servers close; without one it is a refusal.
        Err(_) if answer.is_empty() => Err(Why::TurnedAway),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Asks an AdminServer: status, `Date` and body of its answer.
pub(super) async fn get(
    client: &reqwest::Client,
    url: String,
    timeout: Duration,
) -> Result<(reqwest::StatusCode, Option<String>, Vec<u8>), Why> {
    let unreachable = |error: reqwest::Error| {
        // The URL is the configuration's, and says enough by itself.
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_timeout() { Why::Silent } else { Why::Unreachable(format!("{url}: {reason}")) }
    };
    let mut answer = client.get(&url).timeout(timeout).send().await.map_err(unreachable)?;
    let date = answer.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok()).map(ToOwned::to_owned);
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(unreachable)? {
        if (body.len() + part.len()) as u64 > ANSWER_LIMIT {
            return Err(Why::Unreadable("an answer without end".to_owned()));
        }
        body.extend_from_slice(&part);
    }
    Ok((answer.status(), date, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_with_a_port() {
        for (server, host, url) in
            [("zk1:2181", "zk1", "zk1"), ("[::1]:2181", "::1", "[::1]"), ("10.0.0.1:1", "10.0.0.1", "10.0.0.1")]
        {
            let endpoint = Endpoint::parse(server).expect(server);
            assert_eq!((endpoint.host.as_str(), endpoint.url_host().as_str()), (host, url), "{server}");
        }
        assert_eq!(Endpoint::parse("zk1"), None);
        assert_eq!(Endpoint::parse("zk1:port"), None);
    }
}

//! Four-letter words: one question to one server over a connection of its own, plain or encrypted, beside
//! the client crate.
//!
//! This says what happened with the connection and what came back, as bytes; what that means is for those
//! who ask: why there is no session (`diagnose`), and how the server is ([`crate::health`]). What comes
//! back is bounded, since what listens there may be anything.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls;

use super::settings::Server;
use super::tls::TlsClient;

/// How long a server for plain connections takes at most to begin its answer, if it is well.
const PROMPT: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Debug)]
pub enum NoWord {
    /// The server's name cannot be resolved.
    NoName(io::Error),
    /// No connection came about.
    NoConnection(io::Error),
    /// Nobody took the connection in time, or refused it.
    NoConnectionInTime,
    /// The connection could not be encrypted, or the server did not like the client's certificate.
    TlsFailed(io::Error),
    /// The connection was accepted, and no whole answer came in time.
    Silent,
}

/// Asks a server a four-letter word, `within` this time; what it said before it closed the connection,
/// possibly nothing, and no more than about `longest` bytes of it. `tls` is used where the server is for
/// encrypted connections.
pub async fn ask_word(
    server: &Server,
    tls: Option<&TlsClient>,
    word: &str,
    within: Duration,
    longest: usize,
) -> Result<Vec<u8>, NoWord> {
    let end = Instant::now() + within;
    let connecting = async {
        let addresses = tokio::net::lookup_host((server.host.as_str(), server.port)).await.map_err(NoWord::NoName)?;
        TcpStream::connect(&*addresses.collect::<Vec<_>>()).await.map_err(NoWord::NoConnection)
    };
    let connection = timeout_at(end, connecting).await.map_err(|_| NoWord::NoConnectionInTime)??;
    let answering = async {
        match tls.filter(|_| server.tls) {
            None => exchange(connection, word, longest).await,
            Some(tls) => {
                let encrypted = tls.connect(&server.host, connection).await.map_err(NoWord::TlsFailed)?;
                exchange(encrypted, word, longest).await
            }
        }
    };
    timeout_at(end, answering).await.map_err(|_| NoWord::Silent)?
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    word: &str,
    longest: usize,
) -> Result<Vec<u8>, NoWord> {
    let mut answer = Vec::new();
    match begin(&mut stream, word, &mut answer).await {
        Ok(()) => {}
        // What is wrong with a client's certificate comes after the handshake.
        Err(error) if tls_error(&error).is_some() => return Err(NoWord::TlsFailed(error)),
        // A server that turns this host away may have closed the connection already.
        Err(_) => return Ok(Vec::new()),
    }
    // What ends in the middle says enough: a reset behind the answer is how some servers close.
    let rest = longest.saturating_sub(answer.len());
    drop(stream.take(u64::try_from(rest).unwrap_or(u64::MAX)).read_to_end(&mut answer).await);
    Ok(answer)
}

/// Asks, and reads the beginning of the answer.
async fn begin(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), word: &str, answer: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(word.as_bytes()).await?;
    stream.flush().await?;
    if let Ok(read) = timeout(PROMPT, stream.read_buf(answer)).await {
        return read.map(drop);
    }
    // One for TLS waits for five bytes before it makes up its mind; others do not mind.
    stream.write_all(b"\n").await?;
    stream.flush().await?;
    stream.read_buf(answer).await.map(drop)
}

/// What TLS says of an error, if it is one of its own.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

//! Why no server gives a session, in words that lead to the remedy.
//!
//! The client crate says that no host did, and not why. So after a failure each server is asked once
//! more, beside the client: whether its name is known, whether it takes a connection, what TLS says,
//! and what it answers to `srvr`, which every server may be asked. Nothing depends on the outcome
//! but what people are told.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

use super::connect::Failure;
use super::settings::{Server, Settings, Tls};
use super::tls::TlsClient;

/// How long all servers together may take; a healthy one takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How much of an answer is read; the longest is near 300 bytes.
const ANSWER_MAX: usize = 4096;

/// How long a server for plain connections takes at most to begin its answer, if it is well.
const PROMPT: Duration = Duration::from_millis(500);

/// How a TLS alert begins, in which a server for TLS answers to something else.
const TLS_ALERT: u8 = 0x15;

/// What happened with one server.
#[derive(Debug)]
enum Finding {
    NoName(io::Error),
    NoConnection(io::Error),
    TlsFailed(io::Error),
    /// What it answered to `srvr`, possibly nothing, before it closed the connection.
    Answered(Vec<u8>),
    Silent,
}

/// What that means.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    /// Fits "zk1:2181: …".
    text: String,
    hint: &'static str,
    /// Nothing but other settings, here or there, will help.
    refuses: bool,
}

/// Asks each server why it gave no session.
pub(super) async fn diagnose(settings: &Settings) -> Failure {
    let servers = settings.servers();
    let meanings = join_all(servers.iter().map(|server| async {
        let finding = tokio::time::timeout(TIMEOUT, ask(server, settings.tls.as_ref())).await;
        let identified = settings.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        meaning(server, identified, &finding.unwrap_or(Finding::Silent))
    }));
    let meanings = meanings.await;
    let reasons = servers.iter().zip(&meanings).map(|(server, meaning)| format!("{server}: {}", meaning.text));
    let reason = reasons.collect::<Vec<_>>().join("; ");
    match meanings.iter().find(|meaning| meaning.refuses).or(meanings.first()) {
        Some(meaning) if meaning.refuses => Failure::Refused { reason, hint: meaning.hint },
        Some(meaning) => Failure::Unreachable { reason, hint: meaning.hint },
        None => Failure::Refused { reason: "`connect` names no server".to_owned(), hint: "name one" },
    }
}

async fn ask(server: &Server, tls: Option<&Tls>) -> Finding {
    let addresses = match tokio::net::lookup_host((server.host.as_str(), server.port)).await {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(error) => return Finding::NoName(error),
    };
    let stream = match TcpStream::connect(&*addresses).await {
        Ok(stream) => stream,
        Err(error) => return Finding::NoConnection(error),
    };
    let answer = match tls.filter(|_| server.tls) {
        None => answer(stream).await,
        Some(tls) => match handshake(stream, server, tls).await {
            Ok(stream) => answer(stream).await,
            Err(error) => return Finding::TlsFailed(error),
        },
    };
    match answer {
        Ok(answer) => Finding::Answered(answer),
        // What is wrong with a client's certificate comes after the handshake.
        Err(error) if tls_error(&error).is_some() => Finding::TlsFailed(error),
        Err(_) => Finding::Answered(Vec::new()),
    }
}

async fn handshake(stream: TcpStream, server: &Server, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    TlsClient::new(tls).map_err(io::Error::other)?.connect(&server.host, stream).await
}

/// Asks for the server's state, and reads until it closes the connection.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(b"srvr").await?;
    stream.flush().await?;
    let mut answer = [0; ANSWER_MAX];
    let mut length = if let Ok(read) = tokio::time::timeout(PROMPT, stream.read(&mut answer)).await {
        read?
    } else {
        // One for TLS waits for five bytes before it makes up its mind.
        stream.write_all(b"\n").await?;
        stream.flush().await?;
        stream.read(&mut answer).await?
    };
    // What ends in the middle says enough.
    while let Ok(read @ 1..) = stream.read(&mut answer[length..]).await {
        length += read;
    }
    Ok(answer[..length].to_vec())
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// `identified` if this side has a certificate as well.
fn meaning(server: &Server, identified: bool, finding: &Finding) -> Meaning {
    let unreachable = |text: String, hint| Meaning { text, hint, refuses: false };
    match finding {
        Finding::NoName(error) => {
            unreachable(format!("its name cannot be resolved ({error})"), "check the name in `connect`")
        }
        Finding::NoConnection(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            unreachable("nothing listens there".to_owned(), "is ZooKeeper running there, and is the port right?")
        }
        Finding::NoConnection(error) => {
            unreachable(format!("no connection ({error})"), "can this host reach it, past all firewalls?")
        }
        Finding::Silent => unreachable(
            format!("no answer within {} s", TIMEOUT.as_secs()),
            "it may be frozen or overloaded, or a firewall drops what is sent",
        ),
        Finding::TlsFailed(error) => tls_meaning(server, identified, error),
        Finding::Answered(answer) => answer_meaning(server, answer),
    }
}

fn answer_meaning(server: &Server, answer: &[u8]) -> Meaning {
    let text = String::from_utf8_lossy(answer);
    let unreachable = |text: &str, hint| Meaning { text: text.to_owned(), hint, refuses: false };
    let refuses = |text: &str, hint| Meaning { text: text.to_owned(), hint, refuses: true };
    if answer.first() == Some(&TLS_ALERT) {
        refuses("it speaks TLS only", "set `tls`, or name its port for plain connections (`clientPort`)")
    } else if text.contains("not currently serving requests") {
        unreachable(
            "it runs and has no quorum",
            "are enough servers of the ensemble running, and do they reach each other?",
        )
    } else if answer.is_empty() && server.tls {
        unreachable(
            "it closed the connection",
            "its log tells why: the client's certificate, or too many connections from this host (`maxClientCnxns`)",
        )
    } else if answer.is_empty() {
        unreachable(
            "it closed the connection, as one does that speaks TLS only",
            "set `tls`; or are there too many connections from this host (`maxClientCnxns`)?",
        )
    } else if text.contains("Mode: ") || text.contains("not in the whitelist") {
        unreachable("it serves, and gave no session in time", "it may be overloaded; its log tells more")
    } else {
        refuses("what answers there is no ZooKeeper", "check host and port in `connect`")
    }
}

fn tls_meaning(server: &Server, identified: bool, error: &io::Error) -> Meaning {
    let (text, hint) = match tls_error(error) {
        // Another authority of the same name has another key.
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => (
            "its certificate is signed by nobody that `tls.ca` names".to_owned(),
            "let `tls.ca` name the authority that signed the servers' certificates",
        ),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => (
            format!("its certificate is for other names than {}", server.host),
            "name the server in `connect` as its certificate does",
        ),
        Some(rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => ("its certificate has expired".to_owned(), "renew it, or set this host's clock"),
        // Java calls a missing certificate a bad one.
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        )) if !identified => ("it demands a certificate of the client".to_owned(), "set `tls.cert` and `tls.key`"),
        Some(rustls::Error::AlertReceived(alert)) => (
            format!("it refused the client's certificate ({alert:?})"),
            "let `tls.cert` be signed by an authority that the servers trust, and valid today",
        ),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            ("it does not speak TLS".to_owned(), "name its port for TLS (`secureClientPort`), or leave `tls` out")
        }
        // Servers for plain connections hang up on what they do not understand.
        None if error.kind() == io::ErrorKind::UnexpectedEof || error.kind() == io::ErrorKind::ConnectionReset => (
            "it closed the connection instead of speaking TLS".to_owned(),
            "name its port for TLS (`secureClientPort`), or leave `tls` out",
        ),
        _ => (format!("TLS failed: {error}"), "compare `tls` with what the servers ask for"),
    };
    Meaning { text, hint, refuses: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_certificate_is_a_missing_one_if_there_is_none() {
        let server = Server { host: "zk1".into(), port: 2181, tls: true };
        let alert = rustls::Error::AlertReceived(AlertDescription::BadCertificate);
        let finding = Finding::TlsFailed(io::Error::new(io::ErrorKind::InvalidData, alert));
        for (identified, expected) in [
            (false, "it demands a certificate of the client"),
            (true, "it refused the client's certificate (BadCertificate)"),
        ] {
            assert_eq!(meaning(&server, identified, &finding).text, expected);
        }
    }

    #[test]
    fn what_a_server_says_has_one_meaning() {
        let server = |tls| Server { host: "zk1".into(), port: 2181, tls };
        let other = |kind| io::Error::new(kind, "x");
        let tls = |error: rustls::Error| Finding::TlsFailed(io::Error::new(io::ErrorKind::InvalidData, error));
        let cases: Vec<(bool, Finding, bool, &str)> = vec![
            (false, Finding::NoName(other(io::ErrorKind::Other)), false, "its name cannot be resolved (x)"),
            (false, Finding::NoConnection(other(io::ErrorKind::ConnectionRefused)), false, "nothing listens there"),
            (false, Finding::NoConnection(other(io::ErrorKind::HostUnreachable)), false, "no connection (x)"),
            (false, Finding::Silent, false, "no answer within 2 s"),
            (
                false,
                Finding::Answered(b"".to_vec()),
                false,
                "it closed the connection, as one does that speaks TLS only",
            ),
            (true, Finding::Answered(b"".to_vec()), false, "it closed the connection"),
            (false, Finding::Answered(vec![TLS_ALERT, 3, 3, 0, 2]), true, "it speaks TLS only"),
            (
                false,
                Finding::Answered(b"This ZooKeeper instance is not currently serving requests\n".to_vec()),
                false,
                "it runs and has no quorum",
            ),
            (
                false,
                Finding::Answered(b"Zookeeper version: 3.8.0\nMode: leader\n".to_vec()),
                false,
                "it serves, and gave no session in time",
            ),
            (
                false,
                Finding::Answered(b"srvr is not executed because it is not in the whitelist.\n".to_vec()),
                false,
                "it serves, and gave no session in time",
            ),
            (
                false,
                Finding::Answered(b"HTTP/1.1 400 Bad Request\r\n".to_vec()),
                true,
                "what answers there is no ZooKeeper",
            ),
            (
                true,
                tls(CertificateError::UnknownIssuer.into()),
                true,
                "its certificate is signed by nobody that `tls.ca` names",
            ),
            (true, tls(CertificateError::NotValidForName.into()), true, "its certificate is for other names than zk1"),
            (true, tls(CertificateError::Expired.into()), true, "its certificate has expired"),
            (
                true,
                tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)),
                true,
                "it demands a certificate of the client",
            ),
            (
                true,
                tls(rustls::Error::AlertReceived(AlertDescription::UnknownCA)),
                true,
                "it refused the client's certificate (UnknownCA)",
            ),
            (true, tls(InvalidMessage::InvalidContentType.into()), true, "it does not speak TLS"),
            (
                true,
                Finding::TlsFailed(other(io::ErrorKind::UnexpectedEof)),
                true,
                "it closed the connection instead of speaking TLS",
            ),
            (true, Finding::TlsFailed(other(io::ErrorKind::Other)), true, "TLS failed: x"),
        ];
        for (over_tls, finding, refuses, expected) in cases {
            let meaning = meaning(&server(over_tls), false, &finding);
            assert_eq!((meaning.refuses, meaning.text.as_str()), (refuses, expected), "{finding:?}");
            assert!(!meaning.hint.is_empty());
        }
    }
}

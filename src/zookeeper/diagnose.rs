//! Why no server gives a session, in words that lead to the remedy.
//!
//! The client crate says that no host did, and not why. So after a failure each server is asked once
//! more, beside the client: whether its name is known, whether it takes a connection, what TLS says,
//! and what it answers to `srvr`, which every server may be asked. Nothing depends on the outcome
//! but what people are told.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, InvalidMessage};

use super::connect::Failure;
use super::settings::{Server, Settings, Tls};
use super::tls::TlsMaterial;
use super::words::{NoWord, ask_word, tls_error};

/// How long each server may take, all at the same time; a healthy one takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How much of an answer is read, in bytes; the longest is near 300.
const ANSWER_MAX: usize = 4096;

/// How a TLS alert begins, in which a server for TLS answers to something else.
const TLS_ALERT: u8 = 0x15;

/// What a server answered to `srvr`, or why there is no answer.
type Finding = Result<Vec<u8>, NoWord>;

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
        let finding = ask(server, settings.tls.as_ref()).await;
        let identified = settings.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        meaning(server, identified, &finding)
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
    let client = match tls.map(TlsMaterial::new).transpose() {
        Ok(material) => material.map(|material| material.client()),
        Err(reason) => return Err(NoWord::TlsFailed(io::Error::other(reason))),
    };
    ask_word(server, client.as_ref(), "srvr", TIMEOUT, ANSWER_MAX).await
}

/// `identified` if this side has a certificate as well.
fn meaning(server: &Server, identified: bool, finding: &Finding) -> Meaning {
    let unreachable = |text: String, hint| Meaning { text, hint, refuses: false };
    match finding {
        Err(NoWord::NoName(error)) => {
            unreachable(format!("its name cannot be resolved ({error})"), "check the name in `connect`")
        }
        Err(NoWord::NoConnection(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            unreachable("nothing listens there".to_owned(), "is ZooKeeper running there, and is the port right?")
        }
        Err(NoWord::NoConnection(error)) => {
            unreachable(format!("no connection ({error})"), "can this host reach it, past all firewalls?")
        }
        Err(NoWord::Silent | NoWord::NoConnectionInTime) => unreachable(
            format!("no answer within {} s", TIMEOUT.as_secs()),
            "it may be frozen or overloaded, or a firewall drops what is sent",
        ),
        Err(NoWord::TlsFailed(error)) => tls_meaning(server, identified, error),
        Ok(answer) => answer_meaning(server, answer),
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
        let finding = Err(NoWord::TlsFailed(io::Error::new(io::ErrorKind::InvalidData, alert)));
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
        let tls = |error: rustls::Error| Err(NoWord::TlsFailed(io::Error::new(io::ErrorKind::InvalidData, error)));
        let cases: Vec<(bool, Finding, bool, &str)> = vec![
            (false, Err(NoWord::NoName(other(io::ErrorKind::Other))), false, "its name cannot be resolved (x)"),
            (false, Err(NoWord::NoConnection(other(io::ErrorKind::ConnectionRefused))), false, "nothing listens there"),
            (false, Err(NoWord::NoConnection(other(io::ErrorKind::HostUnreachable))), false, "no connection (x)"),
            (false, Err(NoWord::NoConnectionInTime), false, "no answer within 2 s"),
            (false, Err(NoWord::Silent), false, "no answer within 2 s"),
            (false, Ok(b"".to_vec()), false, "it closed the connection, as one does that speaks TLS only"),
            (true, Ok(b"".to_vec()), false, "it closed the connection"),
            (false, Ok(vec![TLS_ALERT, 3, 3, 0, 2]), true, "it speaks TLS only"),
            (
                false,
                Ok(b"This ZooKeeper instance is not currently serving requests\n".to_vec()),
                false,
                "it runs and has no quorum",
            ),
            (
                false,
                Ok(b"Zookeeper version: 3.8.0\nMode: leader\n".to_vec()),
                false,
                "it serves, and gave no session in time",
            ),
            (
                false,
                Ok(b"srvr is not executed because it is not in the whitelist.\n".to_vec()),
                false,
                "it serves, and gave no session in time",
            ),
            (false, Ok(b"HTTP/1.1 400 Bad Request\r\n".to_vec()), true, "what answers there is no ZooKeeper"),
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
                Err(NoWord::TlsFailed(other(io::ErrorKind::UnexpectedEof))),
                true,
                "it closed the connection instead of speaking TLS",
            ),
            (true, Err(NoWord::TlsFailed(other(io::ErrorKind::Other))), true, "TLS failed: x"),
        ];
        for (over_tls, finding, refuses, expected) in cases {
            let meaning = meaning(&server(over_tls), false, &finding);
            assert_eq!((meaning.refuses, meaning.text.as_str()), (refuses, expected), "{finding:?}");
            assert!(!meaning.hint.is_empty());
        }
    }
}

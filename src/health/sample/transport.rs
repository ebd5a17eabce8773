//! The way to one server: a four-letter word over TCP or TLS, and a command of its AdminServer.
//!
//! Each question has its own connection and its own limit of time. What comes back is bounded, since
//! what listens there may be anything.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::words;
use crate::health::facts::Why;
use crate::zookeeper::Tls;

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

/// Encryption to one server, and what its certificate was.
pub(super) struct Encryption {
    config: Arc<ClientConfig>,
    recorder: Arc<Recorder>,
}

impl Encryption {
    /// Reads certificates and key; the error is for a person and holds no secret.
    pub(super) fn new(tls: &Tls) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(tls.ca.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("the file of `tls.ca` is no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("`tls.ca` holds a certificate that is none: {error}"))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("`tls.ca` cannot be used: {error}"))?;
        let recorder = Arc::new(Recorder { verifier, seen: Mutex::new(None) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>);
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let chain = chain.map_err(|error| format!("the file of `tls.cert` is no PEM: {error}"))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| "the file of `tls.key` holds no key".to_owned())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("`tls.cert`: {error}"))?
            }
        };
        Ok(Self { config: Arc::new(config), recorder })
    }

    /// The certificate that the server showed last, DER; also one that was not accepted.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        self.recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Verifies as rustls does, and remembers what it saw: a certificate that has ended ends the
/// handshake, and its date is wanted all the same.
#[derive(Debug)]
struct Recorder {
    verifier: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate.to_vec());
        self.verifier.verify_server_cert(certificate, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Asks a server a four-letter word.
pub(super) async fn ask(
    endpoint: &Endpoint,
    encryption: Option<&Encryption>,
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
        let name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| Why::Unreachable(format!("\"{}\" is no name for TLS", endpoint.host)))?;
        let connector = TlsConnector::from(Arc::clone(&encryption.config));
        let connection = connector
            .connect(name, connection)
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

    #[test]
    fn certificates_that_are_none_are_told() {
        for (ca, identity) in
            [("", None), ("rubbish", None), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None)]
        {
            let tls = Tls { ca: ca.to_owned(), identity };
            assert!(Encryption::new(&tls).is_err_and(|error| error.contains("tls.ca")), "{ca}");
        }
    }
}

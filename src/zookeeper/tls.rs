//! Encryption to one server, for questions that are asked beside the client crate.
//!
//! Verifies as the crate does: with the authorities of `tls.ca` alone, and by the name in `connect`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::Tls;

/// Certificates and key, read and ready for use with any number of servers.
pub struct TlsMaterial {
    config: ClientConfig,
    verifier: Arc<WebPkiServerVerifier>,
}

/// Encryption to one server, and what its certificate was.
pub struct TlsClient {
    connector: TlsConnector,
    recorder: Arc<Recorder>,
}

impl TlsMaterial {
    /// Reads certificates and key; the error is for a person and holds no secret.
    pub fn new(tls: &Tls) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(tls.ca.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("the file of `tls.ca` is no PEM: {error}"))?;
            roots.add(certificate).map_err(|error| format!("`tls.ca` holds a certificate that is none: {error}"))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("`tls.ca` cannot be used: {error}"))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_webpki_verifier(Arc::clone(&verifier));
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let chain = chain.map_err(|error| format!("the file of `tls.cert` is no PEM: {error}"))?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|_| "the file of `tls.key` holds no key".to_owned())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| format!("`tls.cert`: {error}"))?
            }
        };
        // A session that is taken up again shows no certificate, also where that has ended meanwhile.
        config.resumption = Resumption::disabled();
        Ok(Self { config, verifier })
    }

    /// The way to one server, which has seen no certificate yet.
    pub fn client(&self) -> TlsClient {
        let recorder = Arc::new(Recorder { verifier: Arc::clone(&self.verifier), seen: Mutex::new(None) });
        let mut config = self.config.clone();
        config.dangerous().set_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>);
        TlsClient { connector: TlsConnector::from(Arc::new(config)), recorder }
    }
}

impl TlsClient {
    /// Encrypts a connection to `host`, which the server's certificate must be for.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }

    /// The certificate that the server showed last, DER; also one that was not accepted.
    pub fn certificate(&self) -> Option<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_are_none_are_told() {
        for (ca, identity) in
            [("", None), ("rubbish", None), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None)]
        {
            let tls = Tls { ca: ca.to_owned(), identity };
            assert!(TlsMaterial::new(&tls).is_err_and(|error| error.contains("tls.ca")), "{ca}");
        }
    }
}

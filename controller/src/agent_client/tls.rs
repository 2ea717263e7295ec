//! TLS towards an agent. Its certificate is self-signed and arrived in a heartbeat that knew the token, so trust is simple:
//! exactly that certificate, for exactly the host it names. Its dates are not checked: machines fresh out of the box have
//! wrong clocks. (A root store with the certificate in it would not do: webpki takes no end-entity certificate as an anchor
//! if it is marked as a CA, and agents may mark theirs so.)

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// A certificate that can not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text is no PEM certificate.
    #[error("the certificate of the heartbeat is no PEM text")]
    Pem,
    /// rustls refused its own settings.
    #[error("setting up TLS")]
    Tls(#[from] Error),
}

/// Accepts one certificate.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity != self.certificate {
            return Err(Error::General("this is not the certificate of the agent's heartbeat".into()));
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS 1.3 client that trusts the one certificate; without one it trusts nobody.
pub fn config(pem: Option<&str>) -> Result<ClientConfig, CertificateError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(match pem {
        None => builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth(),
        Some(pem) => {
            let certificate =
                CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::Pem)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
                .with_no_client_auth()
        }
    })
}

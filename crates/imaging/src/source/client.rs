//! The HTTP client: TLS by rustls with ring, explicit trust, explicit proxies.
//!
//! Never `reqwest::Client::new()`: it panics where there is no bundle of authorities, as in a ramdisk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::{NoProxy, Proxy, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::Error;
use crate::request::{Proxies, TlsVersion, Transport};

/// Where the system keeps the authorities it trusts; what is used when no CA file is given.
pub const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Builds a client for the given sources.
pub(crate) fn build(
    transport: &Transport,
    proxies: &Proxies,
    sources: &[Url],
) -> Result<reqwest::Client, Error> {
    let needs_trust = sources.iter().any(|url| url.scheme() == "https");
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(transport, needs_trust)?)
        .connect_timeout(transport.connect_timeout)
        .user_agent(concat!("ferric/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        .pool_max_idle_per_host(1);
    let no_proxy = proxies.no_proxy.as_deref().and_then(NoProxy::from_string);
    if let Some(proxy) = &proxies.http {
        builder = builder.proxy(Proxy::http(proxy).map_err(Error::Client)?.no_proxy(no_proxy.clone()));
    }
    if let Some(proxy) = &proxies.https {
        builder = builder.proxy(Proxy::https(proxy).map_err(Error::Client)?.no_proxy(no_proxy));
    }
    builder.build().map_err(Error::Client)
}

/// TLS as the transport says. `needs_trust`: a source is `https:`, so that having no authorities is an error now, in
/// words, and not a riddle during the handshake.
fn tls_config(transport: &Transport, needs_trust: bool) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match transport.minimum_tls {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| Error::Tls { path: PathBuf::new(), reason: error.to_string() })?;
    let builder = if transport.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    } else {
        builder.with_root_certificates(roots(transport.ca_file.as_deref(), needs_trust)?)
    };
    let Some(own) = &transport.client_certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&own.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&own.key)
        .map_err(|error| Error::Tls { path: own.key.clone(), reason: format!("no private key: {error}") })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| Error::Tls { path: own.certificate.clone(), reason: error.to_string() })
}

fn roots(ca_file: Option<&Path>, needs_trust: bool) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let path = ca_file.unwrap_or(Path::new(SYSTEM_CA_FILE));
    if ca_file.is_none() && !path.exists() {
        return if needs_trust {
            Err(Error::Tls {
                path: path.to_owned(),
                reason: "the system has no bundle of trusted authorities: give a CA file, or allow insecure connections"
                    .to_owned(),
            })
        } else {
            Ok(roots)
        };
    }
    let (added, ignored) = roots.add_parsable_certificates(certificates(path)?);
    tracing::debug!(path = %path.display(), added, ignored, "trusted authorities loaded");
    if added == 0 && needs_trust {
        return Err(Error::Tls {
            path: path.to_owned(),
            reason: "it holds no usable certificate".to_owned(),
        });
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| Error::Tls { path: path.to_owned(), reason: format!("no certificates: {error}") })
}

/// Accepts any certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn https() -> Vec<Url> {
        vec![Url::parse("https://images.example/disk.raw").unwrap()]
    }

    #[test]
    fn an_unreadable_ca_file_is_named() {
        let transport = Transport { ca_file: Some("/nonexistent/ca.pem".into()), ..Transport::default() };
        let error = build(&transport, &Proxies::default(), &https()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn an_empty_ca_file_is_refused_for_https() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let transport = Transport { ca_file: Some(file.path().to_owned()), ..Transport::default() };
        let error = build(&transport, &Proxies::default(), &https()).unwrap_err();
        assert!(error.to_string().contains("no usable certificate"), "{error}");
    }

    #[test]
    fn insecure_and_tls_13_build_without_any_authority() {
        let transport = Transport { insecure: true, minimum_tls: TlsVersion::Tls13, ..Transport::default() };
        assert!(build(&transport, &Proxies::default(), &https()).is_ok());
    }
}

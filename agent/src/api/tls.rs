//! The server's certificate: made at start-up for the one advertised address, or read from files.
//!
//! A conductor takes the PEM text of the first heartbeat as its only trust anchor for the boot, and checks that the URL's
//! host stands in it (agent protocol page, 4.6). The key never leaves memory.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use tls::{CipherSuites, Clock};

use crate::config::{Curve, TlsVersion};

/// How long a generated certificate is valid.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// A certificate and its key.
pub struct Certificate {
    /// The certificate as PEM, with a newline at the end: `agent_verify_ca`.
    pub pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What the server speaks, and by which clock it tells of refusals.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The oldest version.
    pub least: TlsVersion,
    /// The suites of TLS 1.2; all when none.
    pub suites: Option<CipherSuites>,
    /// The time.
    pub clock: Clock,
}

impl From<TlsVersion> for ServerSettings {
    fn from(least: TlsVersion) -> Self {
        Self { least, suites: None, clock: Clock::default() }
    }
}

/// TLS as the server speaks it.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// What the server shows; none when it can not be read.
    pub certificate: Option<tls::Certificate>,
    pub(super) clock: Clock,
}

/// The certificate can not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Making it failed.
    #[error("making the agent's certificate")]
    Generate(#[from] rcgen::Error),
    /// TLS does not accept it.
    #[error("setting up TLS")]
    Config(#[from] rustls::Error),
    /// A file is missing or no PEM.
    #[error("reading {}; the options tls_cert_file and tls_key_file must name PEM files", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// `listen_tls` without files.
    #[error("listen_tls needs the options tls_cert_file and tls_key_file")]
    NoFiles,
}

/// Makes a certificate by the system's clock: see [`generate_at`].
pub fn generate(
    host: &str,
    common_name: &str,
    curve: Curve,
    skew: Duration,
) -> Result<Certificate, TlsError> {
    generate_at(host, common_name, curve, skew, SystemTime::now())
}

/// Makes a self-signed certificate for `host` (an address; a name works with our own controller). It is valid from `skew`
/// before `now`, so that a conductor whose clock is behind takes it.
pub fn generate_at(
    host: &str,
    common_name: &str,
    curve: Curve,
    skew: Duration,
    now: SystemTime,
) -> Result<Certificate, TlsError> {
    let key = KeyPair::generate_for(match curve {
        Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Curve::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
    })?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(skew);
    params.not_after = epoch + now + LIFETIME;
    match host.parse::<IpAddr>() {
        // rcgen marks the extension critical only when there is no subject; ironic-python-agent always does.
        Ok(address) => params.custom_extensions.push(critical_address(address)),
        Err(_) => params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(host)?)),
    }
    let certificate = params.self_signed(&key)?;
    Ok(Certificate {
        pem: certificate.pem().replace("\r\n", "\n"),
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    })
}

/// `SEQUENCE { [7] address }`: a subjectAltName with one address, critical.
fn critical_address(address: IpAddr) -> CustomExtension {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let length = if address.is_ipv4() { 4 } else { 16 };
    let mut der = vec![0x30, length + 2, 0x87, length];
    der.extend(octets);
    let mut extension = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, der);
    extension.set_criticality(true);
    extension
}

/// TLS with a certificate that was made here.
pub fn server_config(
    certificate: &Certificate,
    settings: impl Into<ServerSettings>,
) -> Result<Tls, TlsError> {
    with_chain(certificate.chain.clone(), certificate.key.clone_key(), settings.into())
}

/// TLS with the certificate chain and key of two PEM files.
pub fn static_config(
    chain: Option<&Path>,
    key: Option<&Path>,
    settings: impl Into<ServerSettings>,
) -> Result<Tls, TlsError> {
    let (Some(chain), Some(key)) = (chain, key) else { return Err(TlsError::NoFiles) };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let certificates =
        CertificateDer::pem_file_iter(chain).and_then(Iterator::collect).map_err(failed(chain))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    with_chain(certificates, key, settings.into())
}

fn with_chain(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    settings: ServerSettings,
) -> Result<Tls, TlsError> {
    let certificate = chain.first().and_then(tls::Certificate::read);
    let mut config = ServerConfig::builder_with_provider(tls::provider(settings.suites.as_ref()))
        .with_protocol_versions(tls::versions(settings.least))?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // Few connections, each from the same peer: resumption would only cost memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), certificate, clock: settings.clock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_certificates_are_pem_and_usable_for_both_curves_and_kinds_of_host() {
        for (host, curve) in
            [("192.0.2.7", Curve::P384), ("2001:db8::7", Curve::P256), ("agent.example", Curve::P384)]
        {
            let certificate = generate(host, "localhost", curve, Duration::from_secs(3600)).unwrap();
            assert!(certificate.pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
            assert!(certificate.pem.ends_with("-----END CERTIFICATE-----\n"));
            assert!(!certificate.pem.contains('\r'));
            server_config(&certificate, TlsVersion::V1_2).unwrap();
            server_config(&certificate, TlsVersion::V1_3).unwrap();
        }
    }

    #[test]
    fn a_certificate_from_files_needs_both_and_says_which_is_unusable() {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["h".into()]).unwrap().self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (chain, secret) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        std::fs::write(&chain, certificate.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        assert!(static_config(Some(&chain), Some(&secret), TlsVersion::V1_2).is_ok());
        assert!(matches!(static_config(Some(&chain), None, TlsVersion::V1_2), Err(TlsError::NoFiles)));
        let error = static_config(Some(&chain), Some(&chain), TlsVersion::V1_2).unwrap_err();
        assert!(error.to_string().contains("c.pem"), "{error}");
    }

    #[test]
    fn the_address_extension_is_the_der_of_one_address() {
        let extension = critical_address("192.0.2.7".parse().unwrap());
        assert!(extension.criticality());
        assert_eq!(extension.content(), [0x30, 6, 0x87, 4, 192, 0, 2, 7]);
    }
}

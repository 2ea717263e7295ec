//! Judges a server's certificate, and remembers what it saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use crate::certificate::Certificate;
use crate::rejection::{Cause, Rejection};

/// Most hosts that are remembered.
const MOST_HOSTS: usize = 64;

/// Whom to trust.
pub(crate) struct Anchors {
    /// None: nobody.
    pub(crate) verifier: Option<Arc<WebPkiServerVerifier>>,
    /// The same certificates as they stand in the file: a server may show one of them itself.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// Where they came from.
    pub(crate) source: Option<String>,
}

/// A chain that a server showed.
#[derive(Clone)]
struct Shown {
    leaf: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
}

/// At which times the certificates that servers showed are trusted. Clones share what was seen; ask the one that was given
/// to the client.
#[derive(Clone, Default)]
pub struct Window(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    anchors: Option<Arc<Anchors>>,
    shown: BTreeMap<String, Shown>,
}

impl Window {
    /// Whether the certificate that `host` showed last is trusted, in every respect, at this time (Unix seconds). False when
    /// none was seen.
    pub fn holds_at(&self, host: &str, seconds: i64) -> bool {
        let (anchors, shown) = {
            let seen = self.lock();
            match (&seen.anchors, seen.shown.get(host)) {
                (Some(anchors), Some(shown)) => (anchors.clone(), shown.clone()),
                _ => return false,
            }
        };
        match (ServerName::try_from(host.to_owned()), unix(seconds)) {
            (Ok(name), Some(time)) => anchors.judge(&shown.leaf, &shown.above, &name, &[], time).is_ok(),
            _ => false,
        }
    }

    pub(crate) fn watch(&self, anchors: &Arc<Anchors>) {
        self.lock().anchors = Some(anchors.clone());
    }

    fn remember(&self, host: &str, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) {
        let mut seen = self.lock();
        if seen.shown.len() >= MOST_HOSTS && !seen.shown.contains_key(host) {
            seen.shown.clear();
        }
        let above = above.iter().map(|der| der.clone().into_owned()).collect();
        seen.shown.insert(host.to_owned(), Shown { leaf: leaf.clone().into_owned(), above });
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().shown.keys()).finish()
    }
}

fn unix(seconds: i64) -> Option<UnixTime> {
    u64::try_from(seconds).ok().map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl Anchors {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(verifier) = &self.verifier else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        match verifier.verify_server_cert(leaf, above, name, ocsp, now) {
            Ok(_) => Ok(()),
            // webpki takes no authority as a server, but a self-signed certificate of `openssl req -x509` is one. Where it
            // stands among the anchors itself it is trusted, as OpenSSL does.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if self.certificates.iter().any(|anchor| anchor == leaf) => judge_pinned(leaf, name, now),
            Err(error) => Err(error),
        }
    }
}

/// A certificate that is a trust anchor: name and time remain to be checked.
fn judge_pinned(
    leaf: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let about = Certificate::read(leaf).ok_or(CertificateError::BadEncoding)?;
    if unix(about.not_before).is_none_or(|start| now < start) {
        return Err(CertificateError::NotValidYet.into());
    }
    if unix(about.not_after).is_none_or(|end| now > end) {
        return Err(CertificateError::Expired.into());
    }
    verify_server_name(&ParsedCertificate::try_from(leaf)?, name)
}

/// The verifier of clients.
pub(crate) struct Verifier {
    pub(crate) anchors: Arc<Anchors>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) window: Window,
    /// Whether a chain is taken that would be good at another time. What such a server says must be judged afterwards, with
    /// [`Window::holds_at`].
    pub(crate) at_any_time: bool,
}

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let judged = self.anchors.judge(leaf, above, name, ocsp, now);
        match &judged {
            Err(rustls::Error::InvalidCertificate(cause))
                if self.at_any_time && Cause::of(cause).is_about_time() =>
            {
                let good = |time| self.anchors.judge(leaf, above, name, ocsp, time).is_ok();
                if times(leaf, above).into_iter().filter_map(unix).any(good) { Ok(()) } else { judged }
            }
            _ => judged,
        }
    }
}

/// The times at which a chain is good if it is so at any: the latest start and the earliest end in it. The leaf's own stand
/// beside them, because a server may show certificates that its chain does not need.
fn times(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Vec<i64> {
    let mut starts: Vec<_> = Vec::new();
    let mut ends: Vec<_> = Vec::new();
    for certificate in std::iter::once(leaf).chain(above).filter_map(Certificate::read) {
        starts.push(certificate.not_before);
        ends.push(certificate.not_after);
    }
    let latest = starts.iter().max();
    let earliest = ends.iter().min();
    [starts.first(), ends.first(), latest, earliest].into_iter().flatten().copied().collect()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let host = server_name.to_str();
        match self.judge(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(()) => {
                self.window.remember(&host, end_entity, intermediates);
                Ok(ServerCertVerified::assertion())
            }
            Err(rustls::Error::InvalidCertificate(cause)) => {
                let rejection = Rejection {
                    host: host.into_owned(),
                    cause: Cause::of(&cause),
                    clock: seconds(now),
                    certificate: Certificate::read(end_entity),
                    anchors: self.anchors.source.clone(),
                };
                Err(CertificateError::Other(OtherError(Arc::new(rejection))).into())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("anchors", &self.anchors.source).finish_non_exhaustive()
    }
}

/// Accepts any certificate, but still checks that the server holds its key.
#[derive(Debug)]
pub(crate) struct AcceptAny(pub(crate) Arc<CryptoProvider>);

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

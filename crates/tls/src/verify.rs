//! Judges a server's certificate, and remembers what it saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::Certificate;
use crate::chain::{self, Anchor, Shown, When};
use crate::rejection::{Cause, Rejection};
use crate::signature::{self, Key};

/// Most hosts that are remembered.
const MOST_HOSTS: usize = 64;

/// Whom to trust.
pub(crate) struct Anchors {
    /// None: nobody.
    pub(crate) anchors: Vec<Anchor>,
    /// Whether a server may show one of them itself: only where the file was chosen for this very purpose.
    pub(crate) pinning: bool,
    /// Where they came from.
    pub(crate) source: Option<String>,
}

impl Anchors {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        when: When,
    ) -> Result<chain::Period, Cause> {
        chain::judge(&self.anchors, self.pinning, &Shown { leaf, above, host }, when)
    }
}

/// When and for which host a certificate was trusted.
#[derive(Clone)]
struct Seen {
    leaf: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
}

/// At which times the certificates that servers showed are trusted. Clones share what was seen; ask the one that was given
/// to the client.
#[derive(Clone, Default)]
pub struct Window(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    anchors: Option<Arc<Anchors>>,
    seen: BTreeMap<String, Seen>,
}

impl Window {
    /// Whether the certificate that `host` showed last is trusted, in every respect, at this time (Unix seconds). False when
    /// none was seen.
    pub fn holds_at(&self, host: &str, seconds: i64) -> bool {
        let (anchors, seen) = {
            let memory = self.lock();
            match (&memory.anchors, memory.seen.get(host)) {
                (Some(anchors), Some(seen)) => (anchors.clone(), seen.clone()),
                _ => return false,
            }
        };
        let name = ServerName::try_from(host.to_owned());
        name.is_ok_and(|name| anchors.judge(&seen.leaf, &seen.above, &name, When::At(seconds)).is_ok())
    }

    pub(crate) fn watch(&self, anchors: &Arc<Anchors>) {
        self.lock().anchors = Some(anchors.clone());
    }

    fn remember(&self, host: &str, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) {
        let mut memory = self.lock();
        if memory.seen.len() >= MOST_HOSTS && !memory.seen.contains_key(host) {
            memory.seen.clear();
        }
        let above = above.iter().map(|der| der.clone().into_owned()).collect();
        memory.seen.insert(host.to_owned(), Seen { leaf: leaf.clone().into_owned(), above });
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().seen.keys()).finish()
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// The verifier of clients.
pub(crate) struct Verifier {
    pub(crate) anchors: Arc<Anchors>,
    pub(crate) window: Window,
    /// Whether a chain is taken that would be good at another time. What such a server says must be judged afterwards, with
    /// [`Window::holds_at`].
    pub(crate) at_any_time: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let host = server_name.to_str();
        let clock = seconds(now);
        let when = if self.at_any_time { When::Ever } else { When::At(clock) };
        match self.anchors.judge(end_entity, intermediates, server_name, when) {
            Ok(_) => {
                self.window.remember(&host, end_entity, intermediates);
                Ok(ServerCertVerified::assertion())
            }
            Err(cause) => {
                let rejection = Rejection {
                    host: host.into_owned(),
                    cause,
                    clock,
                    certificate: Certificate::read(end_entity),
                    anchors: self.anchors.source.clone(),
                };
                Err(CertificateError::Other(OtherError(Arc::new(rejection))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(cert, |key| key.verifies_1_2(dss.scheme, message, dss.signature()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(cert, |key| key.verifies_1_3(dss.scheme, message, dss.signature()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature::schemes()
    }
}

/// Whether the server holds the key of its certificate.
fn signed(
    certificate: &CertificateDer<'_>,
    verifies: impl FnOnce(&Key<'_>) -> bool,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = Key::read(&certificate.tbs_certificate.subject_pki);
    // A key that is not supported was refused with the certificate.
    if key.is_ok_and(|key| verifies(&key)) {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(CertificateError::BadSignature.into())
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("anchors", &self.anchors.source).finish_non_exhaustive()
    }
}

/// Accepts any certificate, whatever it is: it is not even read. Whether the server holds its key says nothing either, for
/// another server could show a certificate of its own.
#[derive(Debug)]
pub(crate) struct AcceptAny;

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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature::schemes_without_verification()
    }
}

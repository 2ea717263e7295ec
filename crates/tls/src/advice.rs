//! What to do when a handshake fails for another reason than the server's certificate.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, PeerIncompatible, PeerMisbehaved};

use crate::Rejection;

/// Looks for rustls' error in a chain of causes, whoever wrapped it.
pub fn find_tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io::Error hides what it was made of from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The certificate that made a call fail, where one did.
pub fn find_rejection<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Rejection> {
    match find_tls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Why a handshake that this program began did not come about, and what to do; none when the cause is not of TLS.
pub fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(rejection) = find_rejection(error) {
        return Some(rejection.to_string());
    }
    const VERSION: &str = "the server speaks no version of TLS that is allowed here; tls_min_version (ipa-tls-min-version, or the \
                           conductor's wish at lookup) says which is the oldest";
    let error = find_tls_error(error)?;
    let text = match error {
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::ProtocolVersion => VERSION,
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                "the server found nothing in common: its versions and suites are too old for tls_min_version and \
                 tls_cipher_suites, or it wants a client certificate (options certfile and keyfile)"
            }
            AlertDescription::CertificateRequired => {
                "the server wants a client certificate: give the options certfile and keyfile"
            }
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => {
                "the server refuses the client certificate of the option certfile, or wants one; its log says why"
            }
            AlertDescription::UnrecognisedName => "the server does not know this host name: correct the URL",
            _ => return Some(format!("TLS failed: {error}")), // rustls' enum, open to new alerts
        },
        rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => VERSION,
        rustls::Error::PeerMisbehaved(PeerMisbehaved::SignedKxWithWrongAlgorithm) => {
            "the server's key is for RSA-PSS alone, which works with TLS 1.3 only: let it speak that, or use an ordinary RSA key"
        }
        rustls::Error::InvalidMessage(_) => {
            "the server does not speak TLS on this port; is it http:// instead of https://?"
        }
        _ => return Some(format!("TLS failed: {error}")), // as above
    };
    Some(text.to_owned())
}

/// An error and its causes on one line. Where the cause is of TLS, [`advice`] stands for all that rustls says.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if is_of_tls(error)
            && let Some(advice) = advice(error)
        {
            texts.push(advice);
            break;
        }
        texts.push(error.to_string());
        next = error.source();
    }
    texts.join(": ")
}

/// Whether this very error, and not only a cause of it, is rustls'.
fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    error.is::<rustls::Error>() || error.is::<io::Error>() && find_tls_error(error).is_some()
}

//! A server's certificate that is not accepted: which one, which check, which clock, and what to do about it.

use std::fmt;

use rustls::CertificateError;

use crate::certificate::{Certificate, utc};

/// The check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The certificate (or one above it) starts later than the clock says; Unix seconds.
    NotYetValid {
        /// The start.
        since: Option<i64>,
    },
    /// It ended earlier; Unix seconds.
    Expired {
        /// The end.
        until: Option<i64>,
    },
    /// No trust anchor signed it.
    UnknownIssuer,
    /// It is for other hosts.
    WrongName,
    /// It is signed in a way that is not understood.
    Algorithm,
    /// Something else, in rustls' words.
    Other(String),
}

impl Cause {
    pub(crate) fn of(error: &CertificateError) -> Self {
        let seconds = |time: &rustls::pki_types::UnixTime| i64::try_from(time.as_secs()).ok();
        match error {
            CertificateError::NotValidYet => Cause::NotYetValid { since: None },
            CertificateError::NotValidYetContext { not_before, .. } => {
                Cause::NotYetValid { since: seconds(not_before) }
            }
            CertificateError::Expired => Cause::Expired { until: None },
            CertificateError::ExpiredContext { not_after, .. } => {
                Cause::Expired { until: seconds(not_after) }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Cause::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Cause::WrongName
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Cause::Algorithm,
            other => Cause::Other(other.to_string()),
        }
    }

    /// Whether another time would make it right.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Cause::NotYetValid { .. } | Cause::Expired { .. })
    }
}

/// A certificate that was not accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The host that was called.
    pub host: String,
    /// Which check failed.
    pub cause: Cause,
    /// The time that it was judged by, Unix seconds.
    pub clock: i64,
    /// The certificate; none when it can not be read.
    pub certificate: Option<Certificate>,
    /// Where the trust anchors came from; none when there are none.
    pub anchors: Option<String>,
}

impl std::error::Error for Rejection {}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, cause, clock, certificate, anchors } = self;
        let at = |time: &Option<i64>| time.map_or_else(|| "its time".to_owned(), utc);
        let clock = utc(*clock);
        write!(f, "{host} shows a certificate that ")?;
        let advice = match cause {
            Cause::NotYetValid { since } => {
                write!(f, "is not valid before {}, and the clock says {clock}", at(since))?;
                "the clock is probably behind: give ipa-ntp-server=ADDRESS, or set the machine's clock"
            }
            Cause::Expired { until } => {
                write!(f, "was valid until {}, and the clock says {clock}", at(until))?;
                "renew the certificate, or, when it is the clock that is ahead, give ipa-ntp-server=ADDRESS or set it"
            }
            Cause::UnknownIssuer => {
                match anchors {
                    Some(anchors) => write!(f, "nobody in {anchors} has signed")?,
                    None => f.write_str("nobody can vouch for, because there are no trust anchors at all")?,
                }
                "let the option cafile name a file with the authority's certificate, or add it to the ramdisk; \
                 ipa-insecure=1 goes without any check"
            }
            Cause::WrongName => {
                write!(f, "is not for {host}")?;
                "use one of its names in the URL, or issue it for this one (as subjectAltName; the common name does not count)"
            }
            Cause::Algorithm => {
                f.write_str("is signed with an algorithm that is not supported")?;
                "use RSA with SHA-2, ECDSA on P-256 or P-384, or Ed25519 for it and for the authorities above it"
            }
            Cause::Other(text) => {
                write!(f, "is not acceptable: {text}")?;
                "have it issued anew"
            }
        };
        match certificate {
            Some(certificate) => write!(f, " ({certificate}); {advice}"),
            None => write!(f, "; {advice}"),
        }
    }
}

/// The same as `Display`: rustls shows a verifier's own errors in this way.
impl fmt::Debug for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

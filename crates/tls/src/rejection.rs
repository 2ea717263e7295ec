//! A server's certificate that is not accepted: which one, which check, which clock, and what to do about it.

use std::fmt;

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
    /// It, its key or an authority above it uses an algorithm that is not supported; its name.
    Algorithm(String),
    /// Its RSA key, or that of an authority above it, is too short or too long.
    WeakKey {
        /// Length of the key.
        bits: u64,
    },
    /// Another key than that of its authority has signed it.
    BadSignature,
    /// A critical extension is not known; its number.
    Extension(String),
    /// It, or a part of it, cannot be read.
    Unreadable(String),
    /// It may not be used for this; a text that follows "shows a certificate that".
    Unfit(String),
}

impl Cause {
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
        let whose = |time: &Option<i64>| {
            let own = certificate.as_ref().map(|own| [own.not_before, own.not_after]);
            let is_own = |time: &i64| own.is_none_or(|own| own.contains(time));
            if time.as_ref().is_none_or(is_own) { "" } else { " (an authority above it)" }
        };
        let advice = match cause {
            Cause::NotYetValid { since } => {
                write!(f, "is not valid before {}{}, and the clock says {clock}", at(since), whose(since))?;
                "the clock is probably behind: give ipa-ntp-server=ADDRESS, or set the machine's clock"
            }
            Cause::Expired { until } => {
                write!(f, "was valid until {}{}, and the clock says {clock}", at(until), whose(until))?;
                "renew the certificate, or, when it is the clock that is ahead, give ipa-ntp-server=ADDRESS or set it"
            }
            Cause::UnknownIssuer | Cause::BadSignature => {
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
            Cause::Algorithm(name) => {
                write!(f, "needs {name}, which is not supported, for itself or for an authority above it")?;
                "use RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519, with SHA-256, SHA-384 or SHA-512"
            }
            Cause::WeakKey { bits } => {
                write!(f, "has, or has above it, an RSA key of {bits} bits")?;
                "use a key of 2048 to 8192 bits; ipa-insecure=1 goes without any check"
            }
            Cause::Extension(id) => {
                write!(f, "has, or has above it, the critical extension {id}, which is not known")?;
                "issue it without that extension, or do not mark it as critical"
            }
            Cause::Unreadable(what) => {
                write!(f, "can not be read: {what} is malformed, in it or above it")?;
                "issue it again"
            }
            Cause::Unfit(text) => {
                f.write_str(text)?;
                "issue it again"
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

//! Peers that do not accept the agent's TLS: who, which certificate, by which clock, and what to do.
//!
//! A conductor that refuses the agent's certificate says so in a TLS alert, to the agent alone: its own log only knows of a
//! failed connection. Anybody on the network can cause these lines, so there are few of them.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rustls::{AlertDescription, PeerIncompatible};

/// How often the same kind of refusal is told, and how often any is.
const AGAIN: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(5);

/// Tells of refusals, now and then.
pub(super) struct Refusals {
    /// What the agent shows; none when it can not be read.
    certificate: Option<tls::Certificate>,
    clock: tls::Clock,
    told: Mutex<Option<(Instant, &'static str)>>,
}

impl Refusals {
    pub(super) fn new(certificate: Option<tls::Certificate>, clock: tls::Clock) -> Self {
        Self { certificate, clock, told: Mutex::default() }
    }

    /// Writes a warning for a connection that ended like this, where a person can do something about it.
    pub(super) fn report(&self, peer: IpAddr, error: &(dyn std::error::Error + 'static)) {
        let Some((what, advice)) = tls::find_tls_error(error).and_then(explain) else { return };
        if !self.is_due(what, Instant::now()) {
            return;
        }
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let clock = tls::utc(i64::try_from(now).unwrap_or(i64::MAX));
        let certificate = self.certificate.as_ref().map_or_else(|| "unreadable".into(), ToString::to_string);
        tracing::warn!(%peer, clock, certificate, "{what}; {advice}");
    }

    fn is_due(&self, what: &'static str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |(at, before): &(Instant, &str)| {
            now.duration_since(*at) < if *before == what { AGAIN } else { SHORTEST }
        };
        if told.as_ref().is_some_and(recent) {
            return false;
        }
        *told = Some((now, what));
        true
    }
}

/// What happened, and what to do. Which alert means what: OpenSSL, `ssl_x509err2alert`.
fn explain(error: &rustls::Error) -> Option<(&'static str, &'static str)> {
    const REFUSED: &str = "a caller refuses the agent's certificate";
    Some(match error {
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA => (
                REFUSED,
                "it trusts another one: if it is the conductor, it remembers the certificate of an earlier boot (power-cycle the node \
                 through it), or its verify_ca does not hold the authority of tls_cert_file",
            ),
            AlertDescription::CertificateExpired => {
                (REFUSED, "by its clock the certificate has ended: compare its clock with the one here")
            }
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => (
                REFUSED,
                "either its clock is behind the certificate's start (compare it with the one here, give ipa-ntp-server=ADDRESS, raise \
                 auto_tls_allowed_clock_skew), or it calls an address that the certificate is not for",
            ),
            AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied => (REFUSED, "its log says why"),
            AlertDescription::ProtocolVersion => (
                "a caller speaks no TLS version that the agent does",
                "compare its versions with tls_min_version",
            ),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
                "a caller finds no common ground in TLS",
                "compare its suites with tls_cipher_suites and its curves with tls_certificate_curve",
            ),
            _ => return None, // rustls' enum; the others say nothing that a person could act on
        },
        rustls::Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => (
            "a caller speaks no TLS version that the agent does",
            "it is older than tls_min_version, which the conductor may have set at lookup",
        ),
        rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => (
            "a caller has no cipher suite in common with the agent",
            "compare its suites with tls_cipher_suites",
        ),
        rustls::Error::InvalidMessage(_) => {
            ("a caller does not speak TLS", "does it use http:// where the agent told it https://?")
        }
        _ => return None, // as above
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_told_once_a_minute() {
        let refusals = Refusals::new(None, tls::Clock::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(refusals.is_due("a", at(0)));
        assert!(!refusals.is_due("a", at(59)));
        assert!(!refusals.is_due("b", at(1)));
        assert!(refusals.is_due("b", at(6)));
        assert!(refusals.is_due("b", at(66)));
    }

    #[test]
    fn what_a_person_can_mend_is_explained_and_the_rest_is_not() {
        let alert = |alert| explain(&rustls::Error::AlertReceived(alert));
        assert!(alert(AlertDescription::BadCertificate).unwrap().1.contains("ipa-ntp-server"));
        assert!(alert(AlertDescription::UnknownCA).unwrap().1.contains("power-cycle"));
        assert!(alert(AlertDescription::UserCanceled).is_none());
        assert!(explain(&rustls::Error::HandshakeNotComplete).is_none());
    }
}

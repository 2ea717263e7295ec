//! A certificate as a person reads it: for messages, never for decisions about trust.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Most names that are shown.
const MOST_NAMES: usize = 8;
/// The longest name that is shown, in characters: what a server sends is not trusted.
const LONGEST_NAME: usize = 200;

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Start of its validity, Unix seconds.
    pub not_before: i64,
    /// End of its validity, Unix seconds.
    pub not_after: i64,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
}

impl Certificate {
    /// Reads a certificate; none when it can not be read.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|extension| extension.value.general_names.iter().filter_map(name).collect());
        Some(Self {
            subject: shown(&certificate.subject().to_string()),
            issuer: shown(&certificate.issuer().to_string()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            names: names.unwrap_or_default(),
        })
    }

    /// Whether it signed itself, as far as its names say.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, issuer, not_before, not_after, names } = self;
        write!(f, "subject {subject}, issuer {issuer}, valid {} to {}", utc(*not_before), utc(*not_after))?;
        match names.as_slice() {
            [] => f.write_str(", without alternative names"),
            names => {
                let shown: Vec<_> = names.iter().take(MOST_NAMES).map(String::as_str).collect();
                let more = if names.len() > MOST_NAMES { ", ..." } else { "" };
                write!(f, ", for {}{more}", shown.join(", "))
            }
        }
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(shown(name)),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None, // the crate's enum; the other kinds say nothing about a host
    }
}

fn shown(text: &str) -> String {
    let text: String =
        text.chars().take(LONGEST_NAME).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "(empty)".into() } else { text }
}

/// Unix seconds as `2026-11-21 05:00:00 UTC`.
pub fn utc(seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_names_and_times() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["ironic.example".into(), "192.0.2.1".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "the conductor");
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2026, 3, 4);
        let read = Certificate::read(params.self_signed(&key).unwrap().der()).unwrap();
        assert!(read.is_self_signed());
        assert_eq!(
            read.to_string(),
            "subject CN=the conductor, issuer CN=the conductor, valid 2026-01-02 00:00:00 UTC to \
             2026-03-04 00:00:00 UTC, for ironic.example, 192.0.2.1"
        );
        assert_eq!(Certificate::read(&CertificateDer::from(vec![0x30, 3, 1, 2, 3])), None);
    }

    #[test]
    fn times_beyond_the_calendar_are_told_as_numbers() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(i64::MAX), format!("{} s after 1970", i64::MAX));
    }
}

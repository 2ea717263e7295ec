//! OpenSSL's cipher lists, as far as they can name what this agent speaks: the six forward-secret AEAD suites of TLS 1.2.
//!
//! Format: ciphers(1). Suites that nobody should speak any more, and words that only concern them, are passed over: a list
//! written for OpenSSL holds many of them.

use std::fmt;

use super::value::OptionValue;

/// A cipher suite of TLS 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherSuite {
    /// `ECDHE-ECDSA-AES256-GCM-SHA384`.
    EcdsaAes256,
    /// `ECDHE-ECDSA-AES128-GCM-SHA256`.
    EcdsaAes128,
    /// `ECDHE-ECDSA-CHACHA20-POLY1305`.
    EcdsaChacha20,
    /// `ECDHE-RSA-AES256-GCM-SHA384`.
    RsaAes256,
    /// `ECDHE-RSA-AES128-GCM-SHA256`.
    RsaAes128,
    /// `ECDHE-RSA-CHACHA20-POLY1305`.
    RsaChacha20,
}

impl CipherSuite {
    /// All of them, the preferred ones first.
    pub const ALL: [Self; 6] = [
        Self::EcdsaAes256,
        Self::RsaAes256,
        Self::EcdsaChacha20,
        Self::RsaChacha20,
        Self::EcdsaAes128,
        Self::RsaAes128,
    ];

    /// OpenSSL's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::EcdsaChacha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::RsaChacha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }

    /// Whether a word of a list means this suite; `A+B` means both.
    fn is_meant(self, word: &str) -> bool {
        word.split('+').all(|part| match part {
            "ALL" | "DEFAULT" | "HIGH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "TLSv1.2" => true,
            "AESGCM" => !matches!(self, Self::EcdsaChacha20 | Self::RsaChacha20),
            "AES" => Self::is_meant(self, "AESGCM"),
            "AES128" => matches!(self, Self::EcdsaAes128 | Self::RsaAes128),
            "AES256" => matches!(self, Self::EcdsaAes256 | Self::RsaAes256),
            "CHACHA20" => matches!(self, Self::EcdsaChacha20 | Self::RsaChacha20),
            "ECDSA" | "aECDSA" => {
                matches!(self, Self::EcdsaAes256 | Self::EcdsaAes128 | Self::EcdsaChacha20)
            }
            "aRSA" => matches!(self, Self::RsaAes256 | Self::RsaAes128 | Self::RsaChacha20),
            name => self.name() == name || self.standard_name() == name,
        })
    }

    /// The name in the standards, which newer OpenSSLs take as well.
    fn standard_name(self) -> &'static str {
        match self {
            Self::EcdsaAes256 => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Self::EcdsaAes128 => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::EcdsaChacha20 => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            Self::RsaAes256 => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Self::RsaAes128 => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Self::RsaChacha20 => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }
}

/// The suites to speak, the preferred ones first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipherSuites(pub Vec<CipherSuite>);

impl Default for CipherSuites {
    fn default() -> Self {
        Self(CipherSuite::ALL.into())
    }
}

impl CipherSuites {
    /// Whether nobody narrowed them down.
    pub fn is_all(&self) -> bool {
        CipherSuite::ALL.iter().all(|suite| self.0.contains(suite))
    }
}

impl fmt::Display for CipherSuites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|suite| suite.name()).collect::<Vec<_>>().join(":"))
    }
}

impl OptionValue for CipherSuites {
    const EXPECTED: &'static str = "an OpenSSL list that holds at least one suite of TLS 1.2 with ECDHE and AES-GCM or ChaCha20, \
                                    such as ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

    /// An empty text is the default.
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut chosen: Vec<CipherSuite> = Vec::new();
        let mut banned: Vec<CipherSuite> = Vec::new();
        for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
            let meant =
                |word: &str| CipherSuite::ALL.into_iter().filter(|suite| suite.is_meant(word)).collect();
            let (first, rest) = word.split_at_checked(1).unwrap_or(("", word));
            let named: Vec<CipherSuite> = meant(if matches!(first, "!" | "-" | "+") { rest } else { word });
            let held: Vec<_> = chosen.iter().copied().filter(|suite| named.contains(suite)).collect();
            match first {
                "!" => {
                    chosen.retain(|suite| !named.contains(suite));
                    banned.extend(named);
                }
                "-" => chosen.retain(|suite| !named.contains(suite)),
                "+" => {
                    chosen.retain(|suite| !named.contains(suite));
                    chosen.extend(held); // to the end
                }
                _ => {
                    let fresh =
                        named.into_iter().filter(|suite| !held.contains(suite) && !banned.contains(suite));
                    chosen.extend(fresh);
                }
            }
        }
        (!chosen.is_empty()).then_some(Self(chosen))
    }

    fn show(&self) -> String {
        if *self == Self::default() { "-".into() } else { self.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CipherSuite::{EcdsaAes128, EcdsaAes256, EcdsaChacha20, RsaAes128, RsaAes256, RsaChacha20};

    #[test]
    fn lists_are_read_as_openssl_reads_them() {
        for (text, expected) in [
            ("", CipherSuite::ALL.to_vec()),
            ("HIGH:!aNULL:!MD5", CipherSuite::ALL.to_vec()),
            ("ECDHE-RSA-AES256-GCM-SHA384", vec![RsaAes256]),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", vec![RsaAes128]),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA:ECDHE-ECDSA-AES256-GCM-SHA384",
                vec![RsaAes128, EcdsaAes256],
            ),
            ("EECDH+AESGCM:!AES128", vec![EcdsaAes256, RsaAes256]),
            ("ECDHE+CHACHA20", vec![EcdsaChacha20, RsaChacha20]),
            ("!aRSA:ALL", vec![EcdsaAes256, EcdsaChacha20, EcdsaAes128]),
            ("aECDSA:-AES256:+CHACHA20:@STRENGTH", vec![EcdsaAes128, EcdsaChacha20]),
        ] {
            assert_eq!(CipherSuites::parse(text).map(|suites| suites.0), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_list_with_nothing_that_can_be_spoken_is_refused() {
        for text in ["AES256-SHA", "RC4", "ALL:!ALL", "kRSA", "!"] {
            assert_eq!(CipherSuites::parse(text), None, "{text}");
        }
    }
}

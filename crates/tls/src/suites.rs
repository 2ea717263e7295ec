//! OpenSSL cipher lists (`ECDHE-RSA-AES256-GCM-SHA384`, `ECDHE+AESGCM:!aRSA`), as far as they name what rustls speaks.
//!
//! Such a list is about TLS 1.2 alone: the suites of TLS 1.3 are always all there, in OpenSSL as here. Source: `openssl-ciphers(1)`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::cipher_suite as suite;

use crate::p521::P521;

/// A suite of TLS 1.2: its names, and the words of OpenSSL's that it belongs to.
struct Known {
    suite: SupportedCipherSuite,
    names: [&'static str; 2],
    words: &'static [&'static str],
}

/// What every suite here is: ephemeral keys, authenticated encryption.
const COMMON: &[&str] =
    &["ALL", "DEFAULT", "COMPLEMENTOFALL", "HIGH", "ECDHE", "EECDH", "KECDHE", "KEECDH", "TLSV1.2", "AEAD"];

/// In the order of preference.
const KNOWN: &[Known] = &[
    Known {
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        names: ["ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
        words: &["ECDSA", "AECDSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Known {
        suite: suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        names: ["ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
        words: &["ARSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Known {
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        names: ["ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
        words: &["ECDSA", "AECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
    Known {
        suite: suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        names: ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
        words: &["ARSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
    Known {
        suite: suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        names: ["ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"],
        words: &["ECDSA", "AECDSA", "CHACHA20", "SHA256"],
    },
    Known {
        suite: suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        names: ["ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"],
        words: &["ARSA", "CHACHA20", "SHA256"],
    },
];

/// A list that names no suite at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cipher list `{0}` names no suite of TLS 1.2 that this program speaks; it speaks {names}", names = names())]
pub struct NoSuite(pub String);

fn names() -> String {
    KNOWN.iter().map(|known| known.names[0]).collect::<Vec<_>>().join(", ")
}

/// The suites of TLS 1.2 that a list allows: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipherSuites {
    text: String,
    /// Indices into `KNOWN`, in the list's order.
    chosen: Vec<usize>,
    unknown: Vec<String>,
}

impl CipherSuites {
    /// Words of the list that mean nothing here: suites that rustls does not speak, or slips.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// OpenSSL's names of the suites, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.chosen.iter().filter_map(|index| KNOWN.get(*index)).map(|known| known.names[0])
    }

    fn allowed(&self) -> impl Iterator<Item = SupportedCipherSuite> {
        self.chosen.iter().filter_map(|index| KNOWN.get(*index)).map(|known| known.suite)
    }
}

impl fmt::Display for CipherSuites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for CipherSuites {
    type Err = NoSuite;

    fn from_str(text: &str) -> Result<Self, NoSuite> {
        let (mut chosen, mut banned, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let items = text.split([':', ',', ' ', '\t']).filter(|item| !item.is_empty());
        // `@STRENGTH` orders, `@SECLEVEL=2` bans what is not spoken here anyway; suites of TLS 1.3 are not for this list.
        for item in items.filter(|item| !item.starts_with('@') && !is_of_1_3(item)) {
            let (sign, words) = match item.split_at_checked(1) {
                Some((sign @ ("!" | "-" | "+"), rest)) => (sign, rest),
                _ => ("", item),
            };
            let matching = matching(words);
            match sign {
                "!" => banned.extend(matching),
                "-" => chosen.retain(|index| !matching.contains(index)),
                "+" => {
                    // Moves to the end what has been chosen.
                    let (last, first): (Vec<_>, Vec<_>) =
                        chosen.into_iter().partition(|index| matching.contains(index));
                    chosen = first.into_iter().chain(last).collect();
                }
                _ if matching.is_empty() => unknown.push(item.to_owned()),
                _ => {
                    let new: Vec<_> = matching.into_iter().filter(|index| !chosen.contains(index)).collect();
                    chosen.extend(new);
                }
            }
        }
        chosen.retain(|index| !banned.contains(index));
        if chosen.is_empty() {
            return Err(NoSuite(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), chosen, unknown })
    }
}

fn is_of_1_3(item: &str) -> bool {
    item.starts_with("TLS_") && !item.contains("_WITH_")
}

/// The suites that have every word of `A+B+C`, or that name.
fn matching(words: &str) -> Vec<usize> {
    let words: Vec<_> = words.split('+').map(str::to_ascii_uppercase).collect();
    let has = |known: &Known, word: &str| {
        known.names.contains(&word) || known.words.contains(&word) || COMMON.contains(&word)
    };
    let fits = |(_, known): &(usize, &Known)| words.iter().all(|word| has(known, word));
    KNOWN.iter().enumerate().filter(fits).map(|(index, _)| index).collect()
}

/// The one implementation of TLS, restricted to the suites of a list.
pub fn provider(suites: Option<&CipherSuites>) -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.push(&P521);
    if let Some(suites) = suites {
        if !suites.unknown().is_empty() {
            let unknown = suites.unknown().join(", ");
            tracing::warn!(unknown, "tls_cipher_suites names what this program does not speak; left out");
        }
        let of_1_3 = provider.cipher_suites.iter().copied().filter(|suite| suite.tls13().is_some());
        provider.cipher_suites = of_1_3.chain(suites.allowed()).collect();
    }
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(text: &str) -> Vec<&'static str> {
        text.parse::<CipherSuites>().unwrap().names().collect()
    }

    #[test]
    fn names_of_openssl_and_of_iana_choose_suites_in_their_order() {
        let list = "ECDHE-RSA-AES128-GCM-SHA256:TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
        assert_eq!(chosen(list), ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
        // What ironic-python-agent uses when nobody says anything.
        let default = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(chosen(default).len(), 4);
    }

    #[test]
    fn words_combine_exclude_and_reorder_as_in_openssl() {
        assert_eq!(chosen("HIGH:!aNULL:!MD5").len(), 6);
        assert_eq!(
            chosen("ECDHE+AESGCM:!aRSA"),
            ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"]
        );
        assert_eq!(chosen("CHACHA20:-ECDSA:@STRENGTH"), ["ECDHE-RSA-CHACHA20-POLY1305"]);
        assert_eq!(chosen("AESGCM+aRSA:+AES256").last(), Some(&"ECDHE-RSA-AES256-GCM-SHA384"));
        assert_eq!(chosen("TLS_AES_256_GCM_SHA384:ecdhe-rsa-aes128-gcm-sha256").len(), 1);
    }

    #[test]
    fn unknown_names_are_kept_for_a_warning_and_an_empty_result_is_refused() {
        let list: CipherSuites = "AES128-SHA ECDHE-RSA-AES128-GCM-SHA256 colour".parse().unwrap();
        assert_eq!(list.unknown(), ["AES128-SHA", "colour"]);
        for nothing in ["", "AES128-SHA", "ALL:!ALL", "TLS_AES_256_GCM_SHA384", "!aRSA"] {
            let error = nothing.parse::<CipherSuites>().unwrap_err().to_string();
            assert!(error.contains("ECDHE-RSA-AES128-GCM-SHA256"), "{error}");
        }
    }

    #[test]
    fn a_list_restricts_tls_1_2_and_leaves_1_3_alone() {
        let list: CipherSuites = "ECDHE-RSA-AES128-GCM-SHA256".parse().unwrap();
        let (all, few) = (provider(None), provider(Some(&list)));
        let of_1_3 =
            |provider: &CryptoProvider| provider.cipher_suites.iter().filter(|s| s.tls13().is_some()).count();
        assert_eq!(of_1_3(&all), of_1_3(&few));
        assert_eq!(few.cipher_suites.len(), of_1_3(&few) + 1);
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_of_distinct_suites_or_refused(text in "[A-Za-z0-9_+!:@, -]{0,60}") {
            if let Ok(list) = text.parse::<CipherSuites>() {
                let names: Vec<_> = list.names().collect();
                let mut distinct = names.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert!(!names.is_empty() && distinct.len() == names.len());
            }
        }
    }
}

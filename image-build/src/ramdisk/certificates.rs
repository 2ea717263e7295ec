//! `--ca-bundle`: which certificates a file holds. Called before the file goes into the ramdisk, as a file without any stops
//! every `https:` connection of the agent.

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a CA bundle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Number of certificates that can be read.
    pub certificates: usize,
    /// Number of blocks that say they are certificates and cannot be read.
    pub damaged: usize,
}

/// Counts the certificates of a PEM file. Text between the blocks and blocks of other kinds (keys) do not count.
pub fn count(bundle: &[u8]) -> Found {
    let mut found = Found { certificates: 0, damaged: 0 };
    for block in Pem::iter_from_buffer(bundle) {
        let Ok(block) = block else {
            found.damaged = found.damaged.saturating_add(1);
            continue;
        };
        // OpenSSL writes the second form with `-trustout`; the third is from before 1998.
        if !["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"].contains(&block.label.as_str()) {
            continue;
        }
        match X509Certificate::from_der(&block.contents) {
            Ok(_) => found.certificates = found.certificates.saturating_add(1),
            Err(_) => found.damaged = found.damaged.saturating_add(1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramdisk::sample::CERTIFICATE;

    #[test]
    fn certificates_are_counted_and_nothing_else() {
        let count = |text: &str| {
            let found = count(text.as_bytes());
            (found.certificates, found.damaged)
        };
        assert_eq!(count(""), (0, 0));
        assert_eq!(count("certificates"), (0, 0));
        assert_eq!(count(CERTIFICATE), (1, 0));
        assert_eq!(count(&format!("# a site's own\n{CERTIFICATE}\n\n{CERTIFICATE}")), (2, 0));
        assert_eq!(count(&CERTIFICATE.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), (1, 0));
        assert_eq!(count(&CERTIFICATE.replace("CERTIFICATE", "PRIVATE KEY")), (0, 0));
        let short = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(count(&format!("{short}{CERTIFICATE}")), (1, 1));
    }

    #[test]
    fn a_binary_file_has_no_certificate() {
        assert_eq!(count(&[0x30, 0x82, 0, 0xff, 0xfe]).certificates, 0);
    }
}

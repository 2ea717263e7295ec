//! Certificates in PEM files, under each of the labels that OpenSSL takes: `CERTIFICATE`, `X509 CERTIFICATE`, and `TRUSTED CERTIFICATE`,
//! which says as well what the certificate is trusted for.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Class, FromDer, Header, Oid, Sequence, Tag, oid};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Largest file that is read, in bytes: the system's bundle has a quarter of a million.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;

const SERVER: Oid<'static> = oid!(1.3.6.1.5.5.7.3.1);
const ANY_PURPOSE: Oid<'static> = oid!(2.5.29.37.0);

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// Those that are trusted, as far as their file says.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// How many the file forbids for servers.
    pub(crate) rejected: usize,
    /// How many cannot be decoded.
    pub(crate) broken: usize,
}

/// Reads a PEM file, or all files of a folder of them.
pub(crate) fn read(path: &Path) -> io::Result<Certificates> {
    let mut found = Certificates::default();
    if path.is_dir() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(path)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            found.add(&text_of(file)?);
        }
        found.certificates.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
        found.certificates.dedup(); // links named by hashes stand beside the files
    } else {
        found.add(&text_of(path)?);
    }
    Ok(found)
}

fn text_of(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > LONGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is longer than 16 MiB"));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
}

impl Certificates {
    fn add(&mut self, text: &str) {
        let mut lines = text.lines().map(|line| line.trim_start_matches('\u{feff}').trim());
        while let Some(line) = lines.next() {
            let label = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES));
            let trusted = match label {
                Some("CERTIFICATE" | "X509 CERTIFICATE") => false,
                Some("TRUSTED CERTIFICATE") => true,
                _ => continue,
            };
            let body: String = lines.by_ref().take_while(|line| !line.starts_with(END)).collect();
            match BASE64
                .decode(body.split_whitespace().collect::<String>())
                .ok()
                .and_then(|bytes| split(&bytes))
            {
                Some((_, rest)) if trusted && !is_for_servers(&rest) => self.rejected += 1,
                Some((certificate, _)) => self.certificates.push(certificate.into()),
                None => self.broken += 1,
            }
        }
    }
}

/// The certificate, and what stands behind it.
fn split(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (rest, _) = Sequence::from_der(bytes).ok()?;
    let (certificate, rest) = bytes.split_at_checked(bytes.len().checked_sub(rest.len())?)?;
    Some((certificate.to_vec(), rest.to_vec()))
}

/// Whether OpenSSL's settings of trust allow servers: `SEQUENCE { trust SEQUENCE OF OID, reject [0] SEQUENCE OF OID, ... }`, both
/// optional. No settings allow everything.
fn is_for_servers(settings: &[u8]) -> bool {
    if settings.is_empty() {
        return true;
    }
    let Ok((_, settings)) = Sequence::from_der(settings) else { return false };
    let mut rest: &[u8] = settings.content.as_ref();
    let mut trusted = None;
    let mut rejected = false;
    while let Ok((behind, header)) = Header::from_der(rest) {
        let Some((content, next)) =
            header.length().definite().ok().and_then(|length| behind.split_at_checked(length))
        else {
            return false;
        };
        let names_servers = || oids(content).iter().any(|id| *id == SERVER || *id == ANY_PURPOSE);
        if header.class() == Class::Universal && header.tag() == Tag::Sequence {
            trusted = Some(names_servers());
        } else if header.class() == Class::ContextSpecific && header.tag() == Tag(0) {
            rejected = names_servers();
        }
        rest = next;
    }
    !rejected && trusted.unwrap_or(true)
}

fn oids(mut content: &[u8]) -> Vec<Oid<'_>> {
    let mut found = Vec::new();
    while let Ok((rest, id)) = Oid::from_der(content) {
        found.push(id);
        content = rest;
    }
    found
}

//! The digest an image is held to: which algorithm, which value, and the running computation.
//!
//! Pure. It computes over the *published* bytes, as they came over the wire; which of Ironic's fields a digest comes from
//! (`os_hash_algo`, `checksum`, a checksum file) is its callers' business.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// A digest algorithm that Ironic names and that an image may be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5: finds accidents, not attackers. Whether it is allowed is the caller's decision.
    Md5,
    /// SHA-1: as MD5.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as hashlib and Ironic spell it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the digest in bytes.
    pub fn length(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    /// Accepts `sha256`, `SHA256` and `sha-256` alike.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
            "md5" => Ok(Algorithm::Md5),
            "sha1" => Ok(Algorithm::Sha1),
            "sha256" => Ok(Algorithm::Sha256),
            "sha384" => Ok(Algorithm::Sha384),
            "sha512" => Ok(Algorithm::Sha512),
            _ => Err(DigestError::Algorithm(text.to_owned())),
        }
    }
}

/// Why a digest could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm is none of ours.
    #[error("unknown digest algorithm {0:?}: use md5, sha1, sha256, sha384 or sha512")]
    Algorithm(String),
    /// The value is not hexadecimal, or not of the algorithm's length.
    #[error("{algorithm} digest {value:?} is not {} hexadecimal digits", algorithm.length() * 2)]
    Value {
        /// The algorithm it was given for.
        algorithm: Algorithm,
        /// What was given.
        value: String,
    },
    /// No algorithm was named, and no algorithm has digests of this length.
    #[error(
        "digest {0:?} has neither the length of md5 (32), sha256 (64) nor of sha512 (128): name the algorithm"
    )]
    Length(String),
}

/// The digest that the published bytes of an image must have.
#[derive(Clone, PartialEq, Eq)]
pub struct ExpectedDigest {
    algorithm: Algorithm,
    value: Vec<u8>,
}

impl ExpectedDigest {
    /// Reads `ALGORITHM:HEX`, or plain hex as [`ExpectedDigest::from_hex`].
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        match text.trim().split_once(':') {
            Some((algorithm, value)) => Self::from_parts(algorithm, value),
            None => Self::from_hex(text),
        }
    }

    /// Takes an algorithm's name and its value in hex, upper or lower case.
    pub fn from_parts(algorithm: &str, value: &str) -> Result<Self, DigestError> {
        let algorithm: Algorithm = algorithm.trim().parse()?;
        let value = value.trim();
        hex::decode(value)
            .ok()
            .filter(|bytes| bytes.len() == algorithm.length())
            .map(|value| Self { algorithm, value })
            .ok_or_else(|| DigestError::Value { algorithm, value: value.to_owned() })
    }

    /// Takes hex and tells the algorithm by its length: 32 md5, 64 sha256, 128 sha512. Forty digits (sha1) are refused,
    /// as ironic-python-agent does (data plane 1.5).
    pub fn from_hex(value: &str) -> Result<Self, DigestError> {
        let value = value.trim();
        let algorithm = match value.len() {
            32 => Algorithm::Md5,
            64 => Algorithm::Sha256,
            128 => Algorithm::Sha512,
            _ => return Err(DigestError::Length(value.to_owned())),
        };
        Self::from_parts(algorithm.name(), value)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value in lower-case hex.
    pub fn hex(&self) -> String {
        hex::encode(&self.value)
    }

    pub(crate) fn matches(&self, actual: &[u8]) -> bool {
        self.value == actual
    }

    pub(crate) fn mismatch(&self, actual: &[u8], bytes: u64) -> crate::Error {
        let (algorithm, expected) = (self.algorithm, self.hex());
        crate::Error::Mismatch { algorithm, expected, actual: hex::encode(actual), bytes }
    }
}

impl fmt::Display for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpectedDigest({self})")
    }
}

impl FromStr for ExpectedDigest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

/// A digest being computed.
pub(crate) enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Hasher::Md5(md5::Md5::new()),
            Algorithm::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(h) => h.update(bytes),
            Hasher::Sha1(h) => h.update(bytes),
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha384(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Hasher::Md5(h) => h.finalize().to_vec(),
            Hasher::Sha1(h) => h.finalize().to_vec(),
            Hasher::Sha256(h) => h.finalize().to_vec(),
            Hasher::Sha384(h) => h.finalize().to_vec(),
            Hasher::Sha512(h) => h.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [(&str, &str); 5] = [
        ("md5", "d41d8cd98f00b204e9800998ecf8427e"),
        ("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (
            "sha384",
            "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
        ),
        (
            "sha512",
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
        ),
    ];

    #[test]
    fn every_algorithm_computes_the_published_value_of_nothing() {
        for (name, value) in EMPTY {
            let expected = ExpectedDigest::from_parts(name, &value.to_uppercase()).unwrap();
            assert!(expected.matches(&Hasher::new(expected.algorithm()).finish()), "{name}");
            assert_eq!(expected.to_string(), format!("{name}:{value}"));
            assert_eq!(ExpectedDigest::parse(&expected.to_string()).unwrap(), expected);
        }
    }

    #[test]
    fn the_algorithm_is_told_by_length_except_sha1() {
        for (name, value) in EMPTY {
            match (name, ExpectedDigest::from_hex(value)) {
                ("sha1" | "sha384", answer) => assert!(matches!(answer, Err(DigestError::Length(_)))),
                (_, answer) => assert_eq!(answer.unwrap().algorithm().name(), name),
            }
        }
    }

    #[test]
    fn wrong_digits_lengths_and_names_are_refused() {
        assert!(ExpectedDigest::from_parts("sha256", "abcd").is_err());
        assert!(ExpectedDigest::from_parts("sha256", &"g".repeat(64)).is_err());
        assert!(ExpectedDigest::from_parts("sha256", &"é".repeat(32)).is_err());
        assert!(ExpectedDigest::from_parts("crc32", "00000000").is_err());
        assert!(ExpectedDigest::from_hex("").is_err());
        assert_eq!(Algorithm::from_str("SHA-512"), Ok(Algorithm::Sha512));
    }
}

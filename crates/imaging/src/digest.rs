//! The digest an image is held to: which algorithm, which value, and the running computation.
//!
//! Pure. It computes over the *published* bytes, as they came over the wire; which of Ironic's fields a digest comes from
//! (`os_hash_algo`, `checksum`, a checksum file) is its callers' business.

use std::fmt;
use std::str::FromStr;

use sha2::digest::DynDigest;

/// A digest algorithm that an image may be held to: what Python's hashlib has, for that is what Ironic accepts. Without SHAKE,
/// whose digests have no length of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5: finds accidents, not attackers. Whether it is allowed is the caller's decision.
    Md5,
    /// SHA-1: as MD5.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-512/224.
    Sha512_224,
    /// SHA-512/256.
    Sha512_256,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
    /// BLAKE2b with its full 512 bits.
    Blake2b,
    /// BLAKE2s with its full 256 bits.
    Blake2s,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 14] = [
        Algorithm::Md5,
        Algorithm::Sha1,
        Algorithm::Sha224,
        Algorithm::Sha256,
        Algorithm::Sha384,
        Algorithm::Sha512,
        Algorithm::Sha512_224,
        Algorithm::Sha512_256,
        Algorithm::Sha3_224,
        Algorithm::Sha3_256,
        Algorithm::Sha3_384,
        Algorithm::Sha3_512,
        Algorithm::Blake2b,
        Algorithm::Blake2s,
    ];

    /// The name as hashlib and Ironic spell it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Sha1 => "sha1",
            Algorithm::Sha224 => "sha224",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
            Algorithm::Sha512_224 => "sha512_224",
            Algorithm::Sha512_256 => "sha512_256",
            Algorithm::Sha3_224 => "sha3_224",
            Algorithm::Sha3_256 => "sha3_256",
            Algorithm::Sha3_384 => "sha3_384",
            Algorithm::Sha3_512 => "sha3_512",
            Algorithm::Blake2b => "blake2b",
            Algorithm::Blake2s => "blake2s",
        }
    }

    /// Length of the digest in bytes.
    pub fn length(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha224 | Algorithm::Sha512_224 | Algorithm::Sha3_224 => 28,
            Algorithm::Sha256 | Algorithm::Sha512_256 | Algorithm::Sha3_256 | Algorithm::Blake2s => 32,
            Algorithm::Sha384 | Algorithm::Sha3_384 => 48,
            Algorithm::Sha512 | Algorithm::Sha3_512 | Algorithm::Blake2b => 64,
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

    /// Accepts `sha256`, `SHA256` and `sha-256` alike; `sha3_256` and `sha3-256`.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bare = |name: &str| name.to_ascii_lowercase().replace(['-', '_', '/'], "");
        let wanted = bare(text);
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| bare(algorithm.name()) == wanted)
            .ok_or_else(|| DigestError::Algorithm(text.to_owned()))
    }
}

/// Why a digest could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm is none of ours.
    #[error(
        "unknown digest algorithm {0:?}: use sha256, sha512 or another of sha1, sha224, sha384, sha512_224, sha512_256, \
         sha3_224, sha3_256, sha3_384, sha3_512, blake2b, blake2s, md5"
    )]
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

/// A digest being computed. Which one is decided once for each image, so that it costs nothing for each chunk.
pub(crate) struct Hasher {
    state: Box<dyn DynDigest + Send>,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let state: Box<dyn DynDigest + Send> = match algorithm {
            Algorithm::Md5 => Box::new(md5::Md5::default()),
            Algorithm::Sha1 => Box::new(sha1::Sha1::default()),
            Algorithm::Sha224 => Box::new(sha2::Sha224::default()),
            Algorithm::Sha256 => Box::new(sha2::Sha256::default()),
            Algorithm::Sha384 => Box::new(sha2::Sha384::default()),
            Algorithm::Sha512 => Box::new(sha2::Sha512::default()),
            Algorithm::Sha512_224 => Box::new(sha2::Sha512_224::default()),
            Algorithm::Sha512_256 => Box::new(sha2::Sha512_256::default()),
            Algorithm::Sha3_224 => Box::new(sha3::Sha3_224::default()),
            Algorithm::Sha3_256 => Box::new(sha3::Sha3_256::default()),
            Algorithm::Sha3_384 => Box::new(sha3::Sha3_384::default()),
            Algorithm::Sha3_512 => Box::new(sha3::Sha3_512::default()),
            Algorithm::Blake2b => Box::new(blake2::Blake2b512::default()),
            Algorithm::Blake2s => Box::new(blake2::Blake2s256::default()),
        };
        Self { state }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.state.finalize().into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `abc`, as Python's hashlib computes them.
    const ABC: [(&str, &str); 14] = [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "sha384",
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            "sha512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        ("sha512_224", "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa"),
        ("sha512_256", "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"),
        ("sha3_224", "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        ("sha3_256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (
            "sha3_384",
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
        ),
        (
            "sha3_512",
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
        ),
        (
            "blake2b",
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
        ),
        ("blake2s", "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"),
    ];

    #[test]
    fn every_algorithm_of_hashlib_computes_what_hashlib_computes() {
        for (name, value) in ABC {
            let expected = ExpectedDigest::from_parts(name, &value.to_uppercase()).unwrap();
            let mut hasher = Hasher::new(expected.algorithm());
            hasher.update(b"a");
            hasher.update(b"bc");
            let actual = hasher.finish();
            assert!(expected.matches(&actual), "{name}");
            assert_eq!(actual.len(), expected.algorithm().length(), "{name}");
            assert_eq!(expected.to_string(), format!("{name}:{value}"));
            assert_eq!(ExpectedDigest::parse(&expected.to_string()).unwrap(), expected);
        }
    }

    #[test]
    fn the_algorithm_is_told_by_lengths_of_md5_sha256_and_sha512_alone() {
        for (name, value) in ABC {
            let told = ExpectedDigest::from_hex(value).map(|expected| expected.algorithm().name());
            match value.len() {
                32 | 64 | 128 => {
                    let usual = [(32, "md5"), (64, "sha256"), (128, "sha512")];
                    assert!(usual.contains(&(value.len(), told.unwrap())), "{name}");
                }
                _ => assert!(matches!(told, Err(DigestError::Length(_))), "{name}"),
            }
        }
    }

    #[test]
    fn names_are_taken_in_the_spellings_that_are_about() {
        for (text, algorithm) in [
            ("SHA-512", Algorithm::Sha512),
            ("Sha3-256", Algorithm::Sha3_256),
            ("sha512/256", Algorithm::Sha512_256),
            ("BLAKE2b", Algorithm::Blake2b),
        ] {
            assert_eq!(text.parse(), Ok(algorithm));
        }
        for unknown in ["shake_128", "sha", "sha3", "", "whirlpool"] {
            assert!(unknown.parse::<Algorithm>().is_err(), "{unknown}");
        }
    }

    #[test]
    fn wrong_digits_lengths_and_names_are_refused() {
        assert!(ExpectedDigest::from_parts("sha256", "abcd").is_err());
        assert!(ExpectedDigest::from_parts("sha256", &"g".repeat(64)).is_err());
        assert!(ExpectedDigest::from_parts("sha256", &"é".repeat(32)).is_err());
        assert!(ExpectedDigest::from_parts("crc32", "00000000").is_err());
        assert!(ExpectedDigest::from_hex("").is_err());
    }
}

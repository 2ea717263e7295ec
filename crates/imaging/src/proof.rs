//! What has to be shown before a disk may be committed: that the published bytes are the image that was asked for.

use blake2::Blake2b512;
use sha2::Digest as _;

use crate::digest::{ExpectedDigest, Hasher};
use crate::error::Error;
use crate::signature::ExpectedSignature;

/// What an image is held to.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) digest: &'a ExpectedDigest,
    /// Where the image must be signed.
    pub(crate) signature: Option<&'a ExpectedSignature>,
}

impl Expected<'_> {
    /// Starts computing what [`Expected::prove`] compares. The second hash is only computed where a signature needs it.
    pub(crate) fn start(&self) -> Running {
        Running {
            digest: Hasher::new(self.digest.algorithm()),
            blake2b_512: self.signature.map(|_| Blake2b512::new()),
            bytes: 0,
        }
    }

    /// Returns whether the sums have the expected digest. Proves nothing about a signature.
    pub(crate) fn is_digest_of(&self, sums: &Sums) -> bool {
        self.digest.matches(&sums.digest)
    }

    /// Compares. The only way to a [`Proof`].
    pub(crate) fn prove(&self, sums: &Sums) -> Result<Proof, Error> {
        if !self.digest.matches(&sums.digest) {
            return Err(self.digest.mismatch(&sums.digest, sums.bytes));
        }
        match (self.signature, &sums.blake2b_512) {
            (None, _) => Ok(Proof(())),
            (Some(signature), Some(sum)) if signature.matches(sum) => Ok(Proof(())),
            (Some(signature), _) => Err(Error::Signature { key: signature.key(), bytes: sums.bytes }),
        }
    }
}

/// That the published bytes are the image that was asked for: they have its digest, and are signed where they must be.
pub(crate) struct Proof(());

/// Sums over the published bytes, on the way.
pub(crate) struct Running {
    digest: Hasher,
    blake2b_512: Option<Blake2b512>,
    bytes: u64,
}

impl Running {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        if let Some(sum) = &mut self.blake2b_512 {
            sum.update(bytes);
        }
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    pub(crate) fn finish(self) -> Sums {
        Sums {
            digest: self.digest.finish(),
            blake2b_512: self.blake2b_512.map(|sum| sum.finalize().to_vec()),
            bytes: self.bytes,
        }
    }
}

/// Sums over all published bytes.
pub(crate) struct Sums {
    digest: Vec<u8>,
    blake2b_512: Option<Vec<u8>>,
    /// How many bytes there were.
    pub(crate) bytes: u64,
}

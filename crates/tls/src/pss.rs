//! RSA-PSS with any length of salt (RFC 8017, 8.1.2 and 9.1.2). OpenSSL signs certificates with the longest salt that fits, and
//! the provider verifies only salts as long as the hash. Everything here is public, so time may tell about it.

use aws_lc_rs::digest;
use num_bigint::BigUint;

/// Hashes that signatures are made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = digest::Context::new(match self {
            Hash::Sha224 => &digest::SHA224,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        });
        for part in parts {
            context.update(part);
        }
        context.finish().as_ref().to_vec()
    }
}

/// Longest public exponent, in bits: what the provider takes as well.
const LONGEST_EXPONENT: u64 = 33;

/// A public key; both numbers big-endian.
pub(crate) struct Key<'a> {
    pub(crate) modulus: &'a [u8],
    pub(crate) exponent: &'a [u8],
}

/// Whether the key signed the message.
pub(crate) fn verify(
    key: &Key<'_>,
    hash: Hash,
    mask_hash: Hash,
    salt: usize,
    message: &[u8],
    signature: &[u8],
) -> bool {
    encoded(key, signature).is_some_and(|encoded| is_encoding(&encoded, hash, mask_hash, salt, message))
}

/// The encoded message and the number of its bits.
struct Encoded {
    bytes: Vec<u8>,
    bits: u64,
}

fn encoded(key: &Key<'_>, signature: &[u8]) -> Option<Encoded> {
    let modulus = BigUint::from_bytes_be(key.modulus);
    let exponent = BigUint::from_bytes_be(key.exponent);
    let number = BigUint::from_bytes_be(signature);
    let length = usize::try_from(modulus.bits().div_ceil(8)).ok()?;
    let odd = |number: &BigUint| number.bit(0);
    if !odd(&modulus) || !odd(&exponent) || !(2..=LONGEST_EXPONENT).contains(&exponent.bits()) {
        return None;
    }
    if signature.len() != length || number >= modulus {
        return None;
    }
    let bits = modulus.bits().checked_sub(1)?;
    let length = usize::try_from(bits.div_ceil(8)).ok()?;
    let digits = number.modpow(&exponent, &modulus).to_bytes_be();
    let mut bytes = vec![0; length.checked_sub(digits.len())?];
    bytes.extend(digits);
    Some(Encoded { bytes, bits })
}

fn is_encoding(encoded: &Encoded, hash: Hash, mask_hash: Hash, salt: usize, message: &[u8]) -> bool {
    let digest = hash.of(&[message]);
    let split = || {
        let (rest, trailer) = encoded.bytes.split_last_chunk::<1>()?;
        let length = rest.len().checked_sub(digest.len())?;
        let (masked, hashed) = rest.split_at_checked(length)?;
        // Zeroes, a one, and the salt.
        let zeroes = length.checked_sub(salt)?.checked_sub(1)?;
        (*trailer == [0xbc]).then_some((masked, hashed, zeroes))
    };
    let Some((masked, hashed, zeroes)) = split() else { return false };
    let unused =
        u32::try_from(u64::try_from(encoded.bytes.len()).unwrap_or(0) * 8 - encoded.bits).unwrap_or(0);
    let allowed = 0xff_u8.checked_shr(unused).unwrap_or(0);
    if masked.first().is_some_and(|byte| byte & !allowed != 0) {
        return false;
    }
    let mask = mask_of(hashed, masked.len(), mask_hash);
    let mut block: Vec<u8> = masked.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
    if let Some(first) = block.first_mut() {
        *first &= allowed;
    }
    let (Some(padding), Some(one), Some(salt)) =
        (block.get(..zeroes), block.get(zeroes), block.get(zeroes + 1..))
    else {
        return false;
    };
    padding.iter().all(|byte| *byte == 0) && *one == 1 && hash.of(&[&[0; 8], &digest, salt]) == hashed
}

/// MGF1.
fn mask_of(seed: &[u8], length: usize, hash: Hash) -> Vec<u8> {
    let mut mask = Vec::with_capacity(length + 64);
    let mut counter = 0_u32;
    while mask.len() < length {
        mask.extend(hash.of(&[seed, &counter.to_be_bytes()]));
        counter = counter.wrapping_add(1);
    }
    mask.truncate(length);
    mask
}

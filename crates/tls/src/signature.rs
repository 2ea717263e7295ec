//! Public keys and signatures of certificates and of handshakes: what OpenSSL at its usual security level (2) takes, as far as the
//! provider has it.
//!
//! Refused are RSA keys of less than 2048 bits, MD5 and SHA-1, DSA, Ed448 and the curves that TLS does not use.

use aws_lc_rs::signature::{self as provider, UnparsedPublicKey, VerificationAlgorithm};
use rustls::SignatureScheme;
use x509_parser::asn1_rs::{Any, Oid, oid};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::pss::{self, Hash};
use crate::rejection::Cause;

/// Shortest RSA key that is trusted, in bits.
const SHORTEST_RSA: u64 = 2048;
/// Longest RSA key that is computed with, in bits.
const LONGEST_RSA: u64 = 8192;

const RSA: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const RSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);
const MGF1: Oid<'static> = oid!(1.2.840.113549.1.1.8);
const EC: Oid<'static> = oid!(1.2.840.10045.2.1);
const ED25519: Oid<'static> = oid!(1.3.101.112);

/// Schemes of TLS for keys that are for RSA-PSS alone: with SHA-256, 384, 512. rustls has no names for them.
const PSS_KEY_SCHEMES: [u16; 3] = [0x0809, 0x080a, 0x080b];

/// The schemes in which a server may sign its handshake, best first.
pub(crate) fn schemes() -> Vec<SignatureScheme> {
    let mut schemes = vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP521_SHA512,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
    ];
    schemes.extend(PSS_KEY_SCHEMES.map(SignatureScheme::Unknown));
    schemes.extend([
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ]);
    schemes
}

/// The schemes of a client that verifies nothing: whatever a server can sign with.
pub(crate) fn schemes_without_verification() -> Vec<SignatureScheme> {
    let mut all = schemes();
    all.extend([SignatureScheme::ED448, SignatureScheme::ECDSA_SHA1_Legacy, SignatureScheme::RSA_PKCS1_SHA1]);
    // Brainpool P-256, P-384, P-512, and SM2 (RFC 8734, RFC 8998).
    all.extend([0x081a, 0x081b, 0x081c, 0x0708].map(SignatureScheme::Unknown));
    all
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// A public key of a certificate.
#[derive(Debug)]
pub(crate) enum Key<'a> {
    /// RSA, as PKCS#1 has it.
    Rsa {
        /// The whole key.
        der: &'a [u8],
        /// Big-endian, a leading zero possible.
        modulus: &'a [u8],
        /// Likewise.
        exponent: &'a [u8],
        /// None for a key of any RSA scheme.
        only_pss: Option<Restriction>,
    },
    /// A point on a curve.
    Ec(CurvePoint<'a>),
    /// 32 bytes.
    Ed25519(&'a [u8]),
}

/// A key of elliptic curves.
#[derive(Debug)]
pub(crate) struct CurvePoint<'a> {
    curve: Curve,
    point: &'a [u8],
}

/// What a key for RSA-PSS says about its signatures: nothing, or hash and least salt.
#[derive(Debug)]
pub(crate) struct Restriction(Option<PssParameters>);

/// How a signature of RSA-PSS is made.
#[derive(Clone, Copy, Debug)]
struct PssParameters {
    hash: Hash,
    mask_hash: Hash,
    salt: usize,
}

impl<'a> Key<'a> {
    /// Reads a key, and refuses those that are too weak or of a kind that is not supported.
    pub(crate) fn read(info: &'a SubjectPublicKeyInfo<'a>) -> Result<Self, Cause> {
        let (algorithm, data) = (&info.algorithm.algorithm, info.subject_public_key.data.as_ref());
        if *algorithm == RSA || *algorithm == RSA_PSS {
            let (_, key) = RSAPublicKey::from_der(data).map_err(|_| unreadable("its public key"))?;
            let bits = bits_of(key.modulus);
            if !(SHORTEST_RSA..=LONGEST_RSA).contains(&bits) {
                return Err(Cause::WeakKey { bits });
            }
            let only_pss = match &info.algorithm.parameters {
                _ if *algorithm == RSA => None,
                None => Some(Restriction(None)),
                Some(parameters) => Some(Restriction(Some(pss_parameters(parameters)?))),
            };
            return Ok(Key::Rsa { der: data, modulus: key.modulus, exponent: key.exponent, only_pss });
        }
        if *algorithm == EC {
            let named = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            let curve = match named {
                Some(name) if name == oid!(1.2.840.10045.3.1.7) => Curve::P256,
                Some(name) if name == oid!(1.3.132.0.34) => Curve::P384,
                Some(name) if name == oid!(1.3.132.0.35) => Curve::P521,
                Some(other) => return Err(Cause::Algorithm(format!("the elliptic curve {other}"))),
                None => return Err(Cause::Algorithm("an elliptic curve without a name".into())),
            };
            return Ok(Key::Ec(CurvePoint { curve, point: data }));
        }
        if *algorithm == ED25519 {
            return Ok(Key::Ed25519(data));
        }
        Err(Cause::Algorithm(format!("a key of {}", name(algorithm))))
    }

    /// Whether this key made the signature of a certificate.
    pub(crate) fn verifies_certificate(
        &self,
        algorithm: &AlgorithmIdentifier<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Cause> {
        let unsupported = || Cause::Algorithm(name(&algorithm.algorithm));
        let scheme = Scheme::of(algorithm)?;
        match (self, scheme) {
            (Key::Rsa { der, only_pss: None, .. }, Scheme::RsaPkcs1(hash)) => {
                verify(rsa_pkcs1(hash).ok_or_else(unsupported)?, der, message, signature)
            }
            (Key::Rsa { modulus, exponent, only_pss, .. }, Scheme::RsaPss(used)) => {
                if let Some(Restriction(Some(wanted))) = only_pss
                    && (wanted.hash != used.hash
                        || wanted.mask_hash != used.mask_hash
                        || used.salt < wanted.salt)
                {
                    return Err(Cause::BadSignature);
                }
                let key = pss::Key { modulus, exponent };
                let good = pss::verify(&key, used.hash, used.mask_hash, used.salt, message, signature);
                if good { Ok(()) } else { Err(Cause::BadSignature) }
            }
            (Key::Ec(key), Scheme::Ecdsa(hash)) => {
                verify(ecdsa(key.curve, hash).ok_or_else(unsupported)?, key.point, message, signature)
            }
            (Key::Ed25519(key), Scheme::Ed25519) => verify(&provider::ED25519, key, message, signature),
            // The authority's key is of another kind than the signature: it did not make it.
            _ => Err(Cause::BadSignature),
        }
    }

    /// Whether this key signed a handshake of TLS 1.3: there a scheme names the curve as well.
    pub(crate) fn verifies_1_3(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        match (self, scheme) {
            (Key::Ec(key), SignatureScheme::ECDSA_NISTP256_SHA256) if key.curve != Curve::P256 => false,
            (Key::Ec(key), SignatureScheme::ECDSA_NISTP384_SHA384) if key.curve != Curve::P384 => false,
            (Key::Ec(key), SignatureScheme::ECDSA_NISTP521_SHA512) if key.curve != Curve::P521 => false,
            (
                Key::Rsa { .. },
                SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512,
            ) => false,
            _ => self.verifies_1_2(scheme, message, signature),
        }
    }

    /// Whether this key signed a handshake of TLS 1.2: there a scheme names the hash alone.
    pub(crate) fn verifies_1_2(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> bool {
        let good = |algorithm: Option<&'static dyn VerificationAlgorithm>, key: &[u8]| {
            algorithm.is_some_and(|algorithm| verify(algorithm, key, message, signature).is_ok())
        };
        match self {
            Key::Rsa { der, only_pss, .. } => match (scheme, only_pss) {
                (SignatureScheme::RSA_PKCS1_SHA256, None) => good(rsa_pkcs1(Hash::Sha256), der),
                (SignatureScheme::RSA_PKCS1_SHA384, None) => good(rsa_pkcs1(Hash::Sha384), der),
                (SignatureScheme::RSA_PKCS1_SHA512, None) => good(rsa_pkcs1(Hash::Sha512), der),
                (SignatureScheme::RSA_PSS_SHA256, None) | (SignatureScheme::Unknown(0x0809), Some(_)) => {
                    good(Some(&provider::RSA_PSS_2048_8192_SHA256), der)
                }
                (SignatureScheme::RSA_PSS_SHA384, None) | (SignatureScheme::Unknown(0x080a), Some(_)) => {
                    good(Some(&provider::RSA_PSS_2048_8192_SHA384), der)
                }
                (SignatureScheme::RSA_PSS_SHA512, None) | (SignatureScheme::Unknown(0x080b), Some(_)) => {
                    good(Some(&provider::RSA_PSS_2048_8192_SHA512), der)
                }
                _ => false,
            },
            Key::Ec(key) => match scheme {
                SignatureScheme::ECDSA_NISTP256_SHA256 => good(ecdsa(key.curve, Hash::Sha256), key.point),
                SignatureScheme::ECDSA_NISTP384_SHA384 => good(ecdsa(key.curve, Hash::Sha384), key.point),
                SignatureScheme::ECDSA_NISTP521_SHA512 => good(ecdsa(key.curve, Hash::Sha512), key.point),
                _ => false,
            },
            Key::Ed25519(key) => scheme == SignatureScheme::ED25519 && good(Some(&provider::ED25519), key),
        }
    }
}

/// How a certificate is signed.
#[derive(Clone, Copy, Debug)]
enum Scheme {
    RsaPkcs1(Hash),
    RsaPss(PssParameters),
    Ecdsa(Hash),
    Ed25519,
}

impl Scheme {
    fn of(algorithm: &AlgorithmIdentifier<'_>) -> Result<Self, Cause> {
        let id = &algorithm.algorithm;
        if *id == RSA_PSS {
            let parameters =
                algorithm.parameters.as_ref().ok_or_else(|| unreadable("its signature algorithm"))?;
            return Ok(Scheme::RsaPss(pss_parameters(parameters)?));
        }
        let known = [
            (oid!(1.2.840.113549.1.1.11), Scheme::RsaPkcs1(Hash::Sha256)),
            (oid!(1.2.840.113549.1.1.12), Scheme::RsaPkcs1(Hash::Sha384)),
            (oid!(1.2.840.113549.1.1.13), Scheme::RsaPkcs1(Hash::Sha512)),
            (oid!(1.2.840.10045.4.3.1), Scheme::Ecdsa(Hash::Sha224)),
            (oid!(1.2.840.10045.4.3.2), Scheme::Ecdsa(Hash::Sha256)),
            (oid!(1.2.840.10045.4.3.3), Scheme::Ecdsa(Hash::Sha384)),
            (oid!(1.2.840.10045.4.3.4), Scheme::Ecdsa(Hash::Sha512)),
            (ED25519, Scheme::Ed25519),
        ];
        let found = known.into_iter().find(|(known, _)| known == id);
        found.map(|(_, scheme)| scheme).ok_or_else(|| Cause::Algorithm(name(id)))
    }
}

fn pss_parameters(any: &Any<'_>) -> Result<PssParameters, Cause> {
    let odd = || unreadable("its RSA-PSS parameters");
    let parameters = RsaSsaPssParams::try_from(any).map_err(|_| odd())?;
    let mask = parameters.mask_gen_algorithm().map_err(|_| odd())?;
    let hash = |id: &Oid<'_>| {
        let known = [
            (oid!(2.16.840.1.101.3.4.2.1), Hash::Sha256),
            (oid!(2.16.840.1.101.3.4.2.2), Hash::Sha384),
            (oid!(2.16.840.1.101.3.4.2.3), Hash::Sha512),
        ];
        let found = known.into_iter().find(|(known, _)| known == id).map(|(_, hash)| hash);
        found.ok_or_else(|| {
            Cause::Algorithm("RSA-PSS with a hash other than SHA-256, SHA-384 or SHA-512".into())
        })
    };
    if mask.mgf != MGF1 || parameters.trailer_field() != 1 {
        return Err(Cause::Algorithm("RSA-PSS with unusual parameters".into()));
    }
    let salt = usize::try_from(parameters.salt_length()).map_err(|_| odd())?;
    Ok(PssParameters { hash: hash(parameters.hash_algorithm_oid())?, mask_hash: hash(&mask.hash)?, salt })
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), Cause> {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).map_err(|_| Cause::BadSignature)
}

fn rsa_pkcs1(hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    match hash {
        Hash::Sha224 => None,
        Hash::Sha256 => Some(&provider::RSA_PKCS1_2048_8192_SHA256),
        Hash::Sha384 => Some(&provider::RSA_PKCS1_2048_8192_SHA384),
        Hash::Sha512 => Some(&provider::RSA_PKCS1_2048_8192_SHA512),
    }
}

fn ecdsa(curve: Curve, hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    match (curve, hash) {
        (Curve::P256 | Curve::P384, Hash::Sha224) => None,
        (Curve::P256, Hash::Sha256) => Some(&provider::ECDSA_P256_SHA256_ASN1),
        (Curve::P256, Hash::Sha384) => Some(&provider::ECDSA_P256_SHA384_ASN1),
        (Curve::P256, Hash::Sha512) => Some(&provider::ECDSA_P256_SHA512_ASN1),
        (Curve::P384, Hash::Sha256) => Some(&provider::ECDSA_P384_SHA256_ASN1),
        (Curve::P384, Hash::Sha384) => Some(&provider::ECDSA_P384_SHA384_ASN1),
        (Curve::P384, Hash::Sha512) => Some(&provider::ECDSA_P384_SHA512_ASN1),
        (Curve::P521, Hash::Sha224) => Some(&provider::ECDSA_P521_SHA224_ASN1),
        (Curve::P521, Hash::Sha256) => Some(&provider::ECDSA_P521_SHA256_ASN1),
        (Curve::P521, Hash::Sha384) => Some(&provider::ECDSA_P521_SHA384_ASN1),
        (Curve::P521, Hash::Sha512) => Some(&provider::ECDSA_P521_SHA512_ASN1),
    }
}

fn bits_of(number: &[u8]) -> u64 {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = number.get(start..).unwrap_or_default();
    let first = digits.first().map_or(0, |byte| u64::from(byte.leading_zeros()));
    u64::try_from(digits.len()).unwrap_or(u64::MAX).saturating_mul(8).saturating_sub(first)
}

fn unreadable(what: &str) -> Cause {
    Cause::Unreadable(what.to_owned())
}

/// An algorithm as a person knows it.
fn name(id: &Oid<'_>) -> String {
    let known = [
        (oid!(1.2.840.113549.1.1.4), "RSA with MD5"),
        (oid!(1.2.840.113549.1.1.5), "RSA with SHA-1"),
        (oid!(1.2.840.113549.1.1.14), "RSA with SHA-224"),
        (oid!(1.2.840.10045.4.1), "ECDSA with SHA-1"),
        (oid!(1.2.840.10045.4.3.1), "ECDSA with SHA-224"),
        (oid!(1.2.840.10040.4.1), "DSA"),
        (oid!(1.2.840.10040.4.3), "DSA with SHA-1"),
        (oid!(2.16.840.1.101.3.4.3.2), "DSA with SHA-256"),
        (oid!(1.3.101.113), "Ed448"),
    ];
    let found = known.iter().find(|(known, _)| known == id).map(|(_, name)| (*name).to_owned());
    found.unwrap_or_else(|| format!("the algorithm {id}"))
}

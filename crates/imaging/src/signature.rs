//! A detached signature of an image, in minisign's format: which keys are trusted, what a signature file says, and whether
//! the published bytes are what was signed.
//!
//! Pure. Format: <https://jedisct1.github.io/minisign/>. Only its prehashed form (`ED`: Ed25519 over the BLAKE2b-512 of the
//! file) can be checked while an image streams; the legacy one (`Ed`) signs the content itself, which would have to be kept.
//! The trusted comment has a signature of its own, over the file's signature and the comment. So all but the content is
//! checked by [`TrustedKeys::accept`], before a byte is written; the content by [`ExpectedSignature::matches`] at its end.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// First bytes of a public key, and of a legacy signature.
const PLAIN: [u8; 2] = *b"Ed";
/// First bytes of a signature over a BLAKE2b-512.
const PREHASHED: [u8; 2] = *b"ED";

/// How minisign tells keys apart: eight random bytes, shown as minisign does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a key or a signature can not be used. Clauses: the caller says of which image or file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No public key of minisign.
    #[error(
        "it is no public key of minisign: give the .pub file that `minisign -G` wrote, or its second line"
    )]
    Key,
    /// No signature file of minisign.
    #[error("it is no signature of minisign ({0}): give the .minisig file that `minisign -S` wrote")]
    Format(&'static str),
    /// A signature over the content itself.
    #[error(
        "it is a legacy signature, over the content itself, which can not be checked while an image streams: sign the \
         image with minisign 0.10 or newer, or with `minisign -S -H`"
    )]
    Legacy,
    /// Made with a key that is not trusted.
    #[error("it was made with the key {id}, which is not trusted here: trusted is {}", list(trusted))]
    UnknownKey {
        /// The key that signed.
        id: KeyId,
        /// The keys that are trusted.
        trusted: Vec<KeyId>,
    },
    /// The signature over the trusted comment is wrong.
    #[error(
        "its trusted comment, or the signature itself, is not what the key {id} signed: it was altered, or made with \
         another key of that id"
    )]
    Altered {
        /// The key that it claims.
        id: KeyId,
    },
}

fn list(keys: &[KeyId]) -> String {
    match keys {
        [] => "none".to_owned(),
        keys => keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// A public key of minisign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    point: [u8; 32],
}

impl PublicKey {
    /// Its id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.point).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;

    /// Reads a `.pub` file, or the word of base64 that is its second line.
    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let word = lines.find(|line| !line.starts_with("untrusted comment:")).ok_or(SignatureError::Key)?;
        if lines.next().is_some() {
            return Err(SignatureError::Key);
        }
        let bytes: [u8; 42] =
            BASE64.decode(word).ok().and_then(|b| b.try_into().ok()).ok_or(SignatureError::Key)?;
        let mut rest = bytes.as_slice();
        match take(&mut rest) {
            Some(PLAIN) => {}
            _ => return Err(SignatureError::Key),
        }
        let id = take(&mut rest).map(KeyId).ok_or(SignatureError::Key)?;
        let point = take(&mut rest).ok_or(SignatureError::Key)?;
        Ok(Self { id, point })
    }
}

/// The keys whose signatures count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys(pub Vec<PublicKey>);

impl TrustedKeys {
    /// Reads a signature file and takes it if one of the keys made it, trusted comment included. The image itself is not
    /// checked yet.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn accept(&self, text: &str) -> Result<ExpectedSignature, SignatureError> {
        let file = File::parse(text)?;
        let mut claimed = self.0.iter().filter(|key| key.id == file.id).peekable();
        if claimed.peek().is_none() {
            let trusted = self.0.iter().map(PublicKey::id).collect();
            return Err(SignatureError::UnknownKey { id: file.id, trusted });
        }
        let vouched = [file.signature.as_slice(), file.comment.as_bytes()].concat();
        let key = claimed
            .find(|key| key.signed(&vouched, &file.vouch))
            .ok_or(SignatureError::Altered { id: file.id })?;
        Ok(ExpectedSignature { key: *key, signature: file.signature, comment: file.comment.to_owned() })
    }
}

/// What a signature file holds.
struct File<'a> {
    id: KeyId,
    signature: [u8; 64],
    comment: &'a str,
    /// The signature over signature and comment.
    vouch: [u8; 64],
}

impl<'a> File<'a> {
    fn parse(text: &'a str) -> Result<Self, SignatureError> {
        use SignatureError::Format;
        let mut lines = text.lines();
        let untrusted = lines.next().unwrap_or_default();
        if !untrusted.starts_with("untrusted comment:") {
            return Err(Format("its first line is no untrusted comment"));
        }
        let decode = |line: Option<&str>| BASE64.decode(line.unwrap_or_default().trim()).ok();
        let made: Option<[u8; 74]> = decode(lines.next()).and_then(|bytes| bytes.try_into().ok());
        let made = made.ok_or(Format("its second line holds no signature"))?;
        let mut rest = made.as_slice();
        match take(&mut rest) {
            Some(PREHASHED) => {}
            Some(PLAIN) => return Err(SignatureError::Legacy),
            _ => return Err(Format("its algorithm is unknown")),
        }
        let id = take(&mut rest).map(KeyId).ok_or(Format("it names no key"))?;
        let signature = take(&mut rest).ok_or(Format("its second line holds no signature"))?;
        // The comment is signed as it stands: of the line's end only the line break is not part of it.
        let comment = lines.next().and_then(|line| line.strip_prefix("trusted comment: "));
        let comment = comment.ok_or(Format("its third line is no trusted comment"))?;
        let vouch = decode(lines.next()).and_then(|bytes| bytes.try_into().ok());
        let vouch = vouch.ok_or(Format("its fourth line is no signature"))?;
        Ok(Self { id, signature, comment, vouch })
    }
}

/// The next bytes, where there are so many.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (now, later) = bytes.split_first_chunk::<N>()?;
    *bytes = later;
    Some(*now)
}

/// A signature by a trusted key that the published bytes of an image must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedSignature {
    key: PublicKey,
    signature: [u8; 64],
    comment: String,
}

impl ExpectedSignature {
    /// The key that made it.
    pub fn key(&self) -> KeyId {
        self.key.id
    }

    /// The trusted comment: what the signer says about the file.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Whether the file with this BLAKE2b-512 is the one that was signed.
    pub(crate) fn matches(&self, blake2b_512: &[u8]) -> bool {
        self.key.signed(blake2b_512, &self.signature)
    }
}

#[cfg(test)]
mod tests;

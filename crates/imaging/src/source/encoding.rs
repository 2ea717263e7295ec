//! `Content-Encoding`: bodies that a server compresses, or says it does.
//!
//! Ferric asks for the bytes as they are (`Accept-Encoding: identity`), for those can be resumed and read in parts. Where a
//! server sends gzip or deflate all the same, it is undone: that is what HTTP means by it, and what ironic-python-agent does.
//! The digest may be that of the bytes as sent, too: servers name the compression of a `.gz` file this way. The encoded bytes
//! are what is counted and resumed; the decoder lives on across a resume.
//!
//! Names that are not an encoding at all, such as `utf-8` or `aws-chunked`, change nothing: the digest decides whether the
//! bytes are the image.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::client::Fields;

/// Encoded bytes that are decoded at a time. Deflate makes at most 1032 bytes of one, so this bounds memory.
const STEP: usize = 2048;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

impl Encoding {
    /// Returns what the fields say; the names where they cannot be undone.
    pub(crate) fn of(fields: &Fields) -> Result<Self, String> {
        let names = fields.tokens("content-encoding");
        let mut encoding = Encoding::Identity;
        for name in &names {
            let other = match name.as_str() {
                "gzip" | "x-gzip" => Encoding::Gzip,
                "deflate" | "x-deflate" => Encoding::Deflate,
                // Nobody publishes files of these; a server that compresses on its way can be told not to.
                "br" | "compress" | "x-compress" | "dcb" | "dcz" => return Err(format!("encoding {name:?}")),
                // What is left says how a file is compressed (xz, zstd, bzip2), which its first bytes say as well, or is
                // a character set, a transfer encoding, or a word for none.
                _ => Encoding::Identity,
            };
            match (encoding, other) {
                (_, Encoding::Identity) => {}
                (Encoding::Identity, _) => encoding = other,
                // Twice the same: the outer one is undone, and what is inside is seen by its first bytes.
                (Encoding::Gzip, Encoding::Gzip) => {}
                _ => return Err(format!("encodings {:?}", names.join(", "))),
            }
        }
        Ok(encoding)
    }
}

/// Undoes an encoding, a few bytes at a time.
pub(super) struct Decoding {
    state: State,
    /// Encoded bytes that were received and not yet decoded.
    pending: Bytes,
}

enum State {
    Gzip(MultiGzDecoder<Vec<u8>>),
    /// `deflate` means zlib; some servers send it bare. The first byte tells.
    Unknown,
    Zlib(ZlibDecoder<Vec<u8>>),
    Bare(DeflateDecoder<Vec<u8>>),
}

impl Decoding {
    /// A decoder, where the encoding needs one.
    pub(super) fn new(encoding: Encoding) -> Option<Self> {
        let state = match encoding {
            Encoding::Identity => return None,
            Encoding::Gzip => State::Gzip(MultiGzDecoder::new(Vec::new())),
            Encoding::Deflate => State::Unknown,
        };
        Some(Self { state, pending: Bytes::new() })
    }

    /// Takes received bytes. Those before must have been decoded.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.pending = bytes;
    }

    /// Whether bytes wait to be decoded.
    pub(super) fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Decodes some of the bytes that wait.
    pub(super) fn decode(&mut self) -> io::Result<Bytes> {
        let step = self.pending.get(..STEP.min(self.pending.len())).unwrap_or_default();
        if let (State::Unknown, Some(first)) = (&self.state, step.first()) {
            // RFC 1950: the low four bits of the first byte are 8; no bare stream of a real encoder begins so.
            self.state = match first & 0x0f {
                8 => State::Zlib(ZlibDecoder::new(Vec::new())),
                _ => State::Bare(DeflateDecoder::new(Vec::new())),
            };
        }
        match &mut self.state {
            State::Gzip(decoder) => decoder.write_all(step)?,
            State::Zlib(decoder) => decoder.write_all(step)?,
            State::Bare(decoder) => decoder.write_all(step)?,
            State::Unknown => {}
        }
        let count = step.len();
        self.pending.advance(count);
        Ok(self.take())
    }

    /// The body ended: what is left, or an error where it ends too early.
    pub(super) fn finish(&mut self) -> io::Result<Bytes> {
        match &mut self.state {
            State::Gzip(decoder) => decoder.try_finish()?,
            State::Zlib(decoder) => decoder.try_finish()?,
            State::Bare(decoder) => decoder.try_finish()?,
            State::Unknown => {}
        }
        Ok(self.take())
    }

    fn take(&mut self) -> Bytes {
        let decoded = match &mut self.state {
            State::Gzip(decoder) => decoder.get_mut(),
            State::Zlib(decoder) => decoder.get_mut(),
            State::Bare(decoder) => decoder.get_mut(),
            State::Unknown => return Bytes::new(),
        };
        Bytes::from(std::mem::take(decoded))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn decoded(encoding: Encoding, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoding = Decoding::new(encoding).unwrap();
        let mut all = Vec::new();
        for part in body.chunks(5000) {
            decoding.push(Bytes::copy_from_slice(part));
            while decoding.has_more() {
                let some = decoding.decode()?;
                assert!(some.len() <= 4 << 20, "{} bytes at once", some.len());
                all.extend_from_slice(&some);
            }
        }
        all.extend_from_slice(&decoding.finish()?);
        Ok(all)
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_undone_in_bounded_memory() {
        let mut body = vec![0u8; 30_000_000];
        body.extend((0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::best());
        for encoder in [&mut gzip as &mut dyn Write, &mut zlib, &mut bare] {
            encoder.write_all(&body).unwrap();
        }
        let encoded = gzip.finish().unwrap();
        assert!(decoded(Encoding::Gzip, &encoded).unwrap() == body);
        let twice = [encoded.clone(), encoded.clone()].concat();
        assert_eq!(decoded(Encoding::Gzip, &twice).unwrap().len(), 2 * body.len());
        assert!(decoded(Encoding::Gzip, &encoded[..encoded.len() - 1]).is_err());
        assert!(decoded(Encoding::Deflate, &zlib.finish().unwrap()).unwrap() == body);
        assert!(decoded(Encoding::Deflate, &bare.finish().unwrap()).unwrap() == body);
        assert!(decoded(Encoding::Gzip, &body).is_err());
    }

    #[test]
    fn encodings_are_read_or_named() {
        let of = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("content-encoding", *value)).collect();
            Encoding::of(&Fields::of(&fields))
        };
        assert_eq!(of(&[]), Ok(Encoding::Identity));
        for (value, encoding) in [
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("gzip;q=1", Encoding::Gzip),
            ("\"gzip\"", Encoding::Gzip),
            ("gzip, gzip", Encoding::Gzip),
            ("aws-chunked, gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("identity", Encoding::Identity),
            ("identity, identity", Encoding::Identity),
            ("", Encoding::Identity),
            ("aws-chunked", Encoding::Identity),
            ("UTF-8", Encoding::Identity),
            ("none", Encoding::Identity),
            ("binary", Encoding::Identity),
            ("8bit", Encoding::Identity),
            ("zstd", Encoding::Identity),
            ("x-bzip2", Encoding::Identity),
        ] {
            assert_eq!(of(&[value]), Ok(encoding), "{value}");
        }
        assert_eq!(of(&["x-gzip", "gzip"]), Ok(Encoding::Gzip));
        assert_eq!(of(&["identity", "identity"]), Ok(Encoding::Identity));
        assert!(of(&["br"]).unwrap_err().contains("br"));
        assert!(
            of(&["gzip, deflate"]).is_err()
                && of(&["gzip", "br"]).is_err()
                && of(&["deflate, deflate"]).is_err()
        );
    }
}

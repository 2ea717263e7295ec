//! `Content-Encoding`: bodies that a server insists on compressing.
//!
//! Ferric asks for the bytes as they are (`Accept-Encoding: identity`), for those can be resumed and read in parts. Where a
//! server sends gzip or deflate all the same, it is undone before the digest: that is what HTTP means by it, and what
//! ironic-python-agent does. The encoded bytes are what is counted and resumed; the decoder lives on across a resume.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

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
    /// What the headers say; the value itself where it is not understood.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(Encoding::Identity) };
        let text = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match text.as_str() {
            _ if values.next().is_some() => Err("several encodings".to_owned()),
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "deflate" => Ok(Encoding::Deflate),
            _ => Err(format!("encoding {value:?}")),
        }
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
    use reqwest::header::HeaderValue;

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
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(value));
            Encoding::of(&headers)
        };
        assert_eq!(Encoding::of(&HeaderMap::new()), Ok(Encoding::Identity));
        for (value, encoding) in [
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("identity", Encoding::Identity),
        ] {
            assert_eq!(of(value), Ok(encoding));
        }
        assert!(of("br").unwrap_err().contains("br"));
        assert!(of("gzip, gzip").is_err());
    }
}

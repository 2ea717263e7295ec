//! Raw disk images inside gzip, zstd, xz and bzip2: told by their first bytes, never by name.
//!
//! The digest stays that of the published file. The file streams through the decompressor on a thread of its own
//! ([`Unpack`]), so fetching, hashing, decompressing and writing overlap, and memory is bounded by
//! [`crate::Transport::decoder_memory`].

mod gather;
mod unpack;

use std::fmt;
use std::io::{self, BufRead, Read};

use liblzma::stream::{CONCATENATED, Stream};

use crate::error::Error;

pub(crate) use unpack::Unpack;

/// A compression around a raw image. Concatenated members (as `pigz`, `pzstd`, `xz -T` and `cat` make them) are one
/// image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The `.xz` format.
    Xz,
    /// The `.bz2` format.
    Bzip2,
}

const MAGIC: &[(&[u8], Compression)] = &[
    (&[0x1f, 0x8b, 0x08], Compression::Gzip),
    (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
    (b"BZh", Compression::Bzip2),
];

/// Smallest window exponent of zstd's decoder.
const ZSTD_LEAST_WINDOW: u32 = 10;
/// Largest window exponent of zstd's decoder on every platform.
const ZSTD_LARGEST_WINDOW: u32 = 30;

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Xz => "xz",
            Compression::Bzip2 => "bzip2",
        })
    }
}

impl Compression {
    /// Tells a compressed file by its magic.
    pub(crate) fn detect(head: &[u8]) -> Option<Self> {
        MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, compression)| *compression)
    }

    /// A decompressor that takes about `memory` bytes at the most.
    fn open<'i, R: BufRead + 'i>(self, input: R, memory: u64) -> io::Result<Box<dyn Read + 'i>> {
        Ok(match self {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(memory, CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder
                    .window_log_max(memory.max(1).ilog2().clamp(ZSTD_LEAST_WINDOW, ZSTD_LARGEST_WINDOW))?;
                Box::new(decoder)
            }
        })
    }

    /// The first bytes of what is inside, `length` of them at the most, as far as `head` shows them.
    ///
    /// # Errors
    /// [`Error::DecoderMemory`] and [`Error::Decompress`].
    pub(crate) fn peek(self, head: &[u8], length: usize, memory: u64) -> Result<Vec<u8>, Error> {
        let mut inside = Vec::new();
        let read = self.open(head, memory).and_then(|decoder| {
            let most = u64::try_from(length).unwrap_or(u64::MAX);
            decoder.take(most).read_to_end(&mut inside)
        });
        match read {
            Ok(_) => Ok(inside),
            // The head may end before the first bytes come out; then what came out is all there is to see.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(inside),
            Err(error) => Err(self.failure(error, 0, memory)),
        }
    }

    /// The least size of what is inside, where the file says so at its start.
    pub(crate) fn least_size(self, head: &[u8]) -> Option<u64> {
        match self {
            Compression::Zstd => zstd::zstd_safe::get_frame_content_size(head).ok().flatten(),
            Compression::Gzip | Compression::Xz | Compression::Bzip2 => None,
        }
    }

    /// What a decompressor's failure means.
    fn failure(self, error: io::Error, offset: u64, limit: u64) -> Error {
        let advice = match self {
            Compression::Xz => "xz -6",
            Compression::Zstd => "zstd -19, without --ultra and --long",
            Compression::Gzip | Compression::Bzip2 => "another level",
        };
        let lzma = error.get_ref().and_then(|cause| cause.downcast_ref::<liblzma::stream::Error>());
        let memory = matches!(lzma, Some(liblzma::stream::Error::MemLimit))
            // The library tells its errors by text alone.
            || (self == Compression::Zstd && error.to_string().contains("too much memory"));
        match memory {
            true => Error::DecoderMemory { compression: self, limit, advice },
            false => Error::Decompress { compression: self, offset, source: error },
        }
    }
}

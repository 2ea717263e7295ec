//! Raw disk images inside gzip, zstd, xz and bzip2: told by their first bytes, never by name.
//!
//! The digest stays that of the published file. The file streams through the decompressor on a thread of its own
//! ([`Unpack`]), so fetching, hashing, decompressing and writing overlap, and memory is bounded by
//! [`crate::Transport::decoder_memory`].

mod ahead;
mod bzip2;
mod gather;
mod gzip;
mod memory;
mod unpack;
mod xz;
mod zstd;

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::error::Error;

use ahead::Trailer;
pub use memory::DecoderMemory;
use memory::NeedsMemory;
pub(crate) use unpack::Unpack;

/// A compression around a raw image. Concatenated members (as `pigz`, `pzstd`, `xz -T` and `cat` make them) are one
/// image. What lies between and behind members is taken as the program of that name takes it.
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
    (&zstd::FRAME, Compression::Zstd),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
    (b"BZh", Compression::Bzip2),
];

/// A decompressor: reads the content of all members, and of the file all bytes.
trait Decode: Read {
    /// Returns what lies behind the last member and was ignored, once the content was read.
    fn trailer(&self) -> Option<Trailer>;
}

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
    /// Recognises a compressed file by its first bytes. Skippable frames belong to zstd, unless a frame of lz4 follows them.
    pub(crate) fn detect(head: &[u8]) -> Option<Self> {
        let by_magic =
            MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, compression)| *compression);
        by_magic.or_else(|| {
            let frame = zstd::behind_skippable(head);
            let is_zstd = frame.len() < zstd::FRAME.len() || frame.starts_with(&zstd::FRAME);
            (zstd::is_skippable(head) && is_zstd).then_some(Compression::Zstd)
        })
    }

    /// What is inside a compressed file, from its first byte on.
    pub(crate) fn content<'i, R: BufRead + 'i>(
        self,
        input: R,
        memory: DecoderMemory,
    ) -> io::Result<Box<dyn Read + 'i>> {
        Ok(self.open(input, memory.bytes())?)
    }

    /// Opens a decompressor that takes about `memory` bytes at the most.
    fn open<'i, R: BufRead + 'i>(self, input: R, memory: u64) -> io::Result<Box<dyn Decode + 'i>> {
        Ok(match self {
            Compression::Gzip => Box::new(gzip::Gzip::new(input)),
            Compression::Bzip2 => Box::new(bzip2::Bzip2::new(input)),
            Compression::Xz => Box::new(xz::Xz::new(input, memory)?),
            Compression::Zstd => Box::new(zstd::Zstd::new(input, memory)?),
        })
    }

    /// The first bytes of what is inside, `length` of them at the most, as far as `head` shows them.
    ///
    /// # Errors
    /// [`Error::DecoderMemory`] and [`Error::Decompress`].
    pub(crate) fn peek(self, head: &[u8], length: usize, memory: DecoderMemory) -> Result<Vec<u8>, Error> {
        let mut inside = Vec::new();
        let read = self.open(head, memory.bytes()).and_then(|decoder| {
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
            Compression::Zstd => {
                ::zstd::zstd_safe::get_frame_content_size(zstd::behind_skippable(head)).ok().flatten()
            }
            Compression::Gzip | Compression::Xz | Compression::Bzip2 => None,
        }
    }

    /// What a decompressor's failure means.
    fn failure(self, error: io::Error, offset: u64, memory: DecoderMemory) -> Error {
        let advice = match self {
            Compression::Xz => "xz -6",
            Compression::Zstd => "zstd -19, without --ultra and --long",
            Compression::Gzip | Compression::Bzip2 => "another level",
        };
        match error.get_ref().and_then(|cause| cause.downcast_ref::<NeedsMemory>()) {
            Some(NeedsMemory(needed)) => {
                Error::DecoderMemory { compression: self, needed: *needed, memory, advice }
            }
            None => Error::Decompress { compression: self, offset, source: error },
        }
    }
}

#[cfg(test)]
mod tests;

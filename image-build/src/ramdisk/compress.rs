//! Compression of the archive, within what the kernel's unpackers take.
//!
//! - zstd: the window is held at 8 MiB. The kernel takes up to 128 MiB (lib/decompress_unzstd.c), but allocates it, and a
//!   machine with 512 MiB has the unpacked files to hold too. What the library chooses for -19 is the same 8 MiB.
//! - xz: the check must be CRC32, the only one the kernel knows besides none (lib/xz), and the dictionary is allocated too.

use std::io::{self, Read, Write};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use sha2::{Digest, Sha256};

const ZSTD_WINDOW_LOG: u32 = 23;
const XZ_DICTIONARY: u32 = 16 << 20;

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Zstandard: a little larger, and unpacks several times faster.
    Zstd,
    /// xz with the x86 filter: smallest, slow to unpack.
    Xz,
}

impl Compression {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Zstd => "zstd",
            Compression::Xz => "xz",
        }
    }

    /// The level used when none is asked for.
    pub fn default_level(self) -> u32 {
        match self {
            Compression::Zstd => 19,
            Compression::Xz => 9,
        }
    }

    /// The levels there are.
    pub fn levels(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Compression::Zstd => 1..=22,
            Compression::Xz => 0..=9,
        }
    }
}

/// A writer that compresses into `W` and knows how much came out.
pub struct Compressor<W: Write> {
    encoder: Encoder<W>,
}

enum Encoder<W: Write> {
    Zstd(zstd::stream::write::Encoder<'static, Tally<W>>),
    Xz(Box<liblzma::write::XzEncoder<Tally<W>>>),
}

impl<W: Write> Compressor<W> {
    /// Starts compressing into `output`. `x86` turns xz's filter for x86 code on, which only kernels for x86 can undo.
    pub fn new(compression: Compression, level: u32, x86: bool, output: W) -> io::Result<Compressor<W>> {
        let output = Tally { output, digest: Sha256::new(), count: 0 };
        let encoder = match compression {
            Compression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(output, i32::try_from(level).unwrap_or(i32::MAX))?;
                encoder.include_checksum(true)?;
                if level > 19 {
                    encoder.window_log(ZSTD_WINDOW_LOG)?;
                }
                Encoder::Zstd(encoder)
            }
            Compression::Xz => {
                let mut options = LzmaOptions::new_preset(level)?;
                options.dict_size(XZ_DICTIONARY);
                let mut filters = Filters::new();
                if x86 {
                    filters.x86();
                }
                filters.lzma2(&options);
                let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
                Encoder::Xz(Box::new(liblzma::write::XzEncoder::new_stream(output, stream)))
            }
        };
        Ok(Compressor { encoder })
    }

    /// The compressed bytes so far. zstd is made to put out all it holds, so the figure is exact; xz can not do that with
    /// its x86 filter, and its figure lags by some tens of kilobytes.
    pub fn mark(&mut self) -> io::Result<u64> {
        Ok(match &mut self.encoder {
            Encoder::Zstd(encoder) => {
                encoder.flush()?;
                encoder.get_ref().count
            }
            Encoder::Xz(encoder) => encoder.total_out(),
        })
    }

    /// Ends the stream: the output, its length, and its SHA-256 in hex.
    pub fn finish(self) -> io::Result<(W, u64, String)> {
        let tally = match self.encoder {
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Xz(encoder) => (*encoder).finish()?,
        };
        Ok((tally.output, tally.count, hex::encode(tally.digest.finalize())))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Xz(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Tally<W> {
    output: W,
    digest: Sha256,
    count: u64,
}

impl<W: Write> Write for Tally<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.digest.update(bytes.get(..count).unwrap_or_default());
        self.count = self.count.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Opens a compressed (or plain) archive by its first bytes. The name is for people.
pub fn decompress<'a>(head: &[u8], input: impl Read + 'a) -> io::Result<(&'static str, Box<dyn Read + 'a>)> {
    Ok(match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", Box::new(zstd::stream::read::Decoder::new(input)?)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", Box::new(liblzma::read::XzDecoder::new(input))),
        [0x1f, 0x8b, ..] => ("gzip", Box::new(flate2::read::GzDecoder::new(input))),
        [b'0', b'7', b'0', b'7', b'0', b'1', ..] => ("not compressed", Box::new(input)),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not an initramfs: neither zstd, xz, gzip nor cpio",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_compression_gives_the_bytes_back_and_the_same_each_time() {
        let data: Vec<u8> = (0..300_000u32).map(|number| (number / 7 % 251).to_le_bytes()[0]).collect();
        for compression in [Compression::Zstd, Compression::Xz] {
            let squeeze = || {
                let mut compressor = Compressor::new(compression, 3, true, Vec::new()).unwrap();
                compressor.write_all(&data[..1000]).unwrap();
                compressor.mark().unwrap();
                compressor.write_all(&data[1000..]).unwrap();
                compressor.finish().unwrap()
            };
            let (bytes, length, sha256) = squeeze();
            assert_eq!((bytes.clone(), length, sha256), squeeze());
            assert_eq!(usize::try_from(length), Ok(bytes.len()));
            let mut back = Vec::new();
            let (name, mut reader) = decompress(&bytes[..6], &bytes[..]).unwrap();
            reader.read_to_end(&mut back).unwrap();
            assert_eq!(name, compression.name());
            assert!(back == data);
        }
    }

    #[test]
    fn the_zstd_window_stays_at_8_mib_even_at_the_highest_level() {
        let mut compressor = Compressor::new(Compression::Zstd, 22, true, Vec::new()).unwrap();
        compressor.write_all(&vec![7; 1 << 20]).unwrap();
        let (bytes, ..) = compressor.finish().unwrap();
        // RFC 8878, 3.1.1.1: magic, descriptor (no single segment), window descriptor with the exponent in its upper five bits.
        assert_eq!(bytes[4] & 0x20, 0);
        assert_eq!(10 + (bytes[5] >> 3), 23);
    }

    #[test]
    fn the_xz_check_is_the_one_the_kernel_knows() {
        let (bytes, ..) = Compressor::new(Compression::Xz, 6, true, Vec::new()).unwrap().finish().unwrap();
        assert_eq!(bytes[7], 1, "stream flags: check id of CRC32");
    }
}

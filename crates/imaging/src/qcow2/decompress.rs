//! Compressed clusters: inflated a batch at a time on worker threads.

use std::ops::Deref;

use flate2::{Decompress, FlushDecompress};
use zstd::zstd_safe::{DCtx, find_frame_compressed_size, get_error_name};

use super::Qcow2Error;
use crate::buffer::Slice;

/// How clusters are compressed. One for a whole image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Raw deflate, no zlib frame around it.
    Zlib,
    Zstd,
}

/// The compressed bytes of a cluster: most often inside one chunk of the file, else gathered from two.
pub(crate) enum Input {
    Shared(Slice),
    Owned(Vec<u8>),
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Input::Shared(slice) => slice,
            Input::Owned(bytes) => bytes,
        }
    }
}

/// Compressed clusters that follow each other on the disk.
pub(crate) struct Batch {
    pub(crate) codec: Codec,
    /// Bytes of a cluster.
    pub(crate) cluster: usize,
    /// Offset on the disk of the first one.
    pub(crate) guest: u64,
    /// Bytes of the disk that they cover: less than whole clusters where the disk ends inside the last.
    pub(crate) length: usize,
    /// Each with its offset in the file.
    pub(crate) inputs: Vec<(u64, Input)>,
}

/// Reusable state of one worker.
pub(crate) struct Decompressor {
    zlib: Decompress,
    zstd: DCtx<'static>,
}

impl Decompressor {
    pub(crate) fn new() -> Self {
        Self { zlib: Decompress::new(false), zstd: DCtx::create() }
    }

    /// Fills `cluster` from `input`, which may be longer than the compressed data (it is padded to sectors).
    pub(crate) fn cluster(
        &mut self,
        codec: Codec,
        input: &[u8],
        cluster: &mut [u8],
    ) -> Result<(), Qcow2Error> {
        match codec {
            Codec::Zlib => {
                self.zlib.reset(false);
                let status = self
                    .zlib
                    .decompress(input, cluster, FlushDecompress::Finish)
                    .map_err(|error| Qcow2Error::Compressed(error.to_string()))?;
                if self.zlib.total_out() == cluster.len() as u64 {
                    Ok(())
                } else {
                    Err(Qcow2Error::Compressed(format!("{} bytes, {status:?}", self.zlib.total_out())))
                }
            }
            Codec::Zstd => {
                // One shot per frame, straight into place: no window to allocate, whatever the frame asks for.
                let mut filled = 0;
                let mut used = 0;
                while let Some(space) = cluster.get_mut(filled..).filter(|space| !space.is_empty()) {
                    let rest = input.get(used..).unwrap_or_default();
                    let wrong = |code| Qcow2Error::Compressed(get_error_name(code).to_owned());
                    let frame = find_frame_compressed_size(rest).map_err(wrong)?;
                    let data = rest.get(..frame).ok_or(Qcow2Error::Truncated("compressed cluster"))?;
                    let count = self.zstd.decompress(space, data).map_err(wrong)?;
                    if count == 0 {
                        return Err(Qcow2Error::Compressed("empty frame".to_owned()));
                    }
                    filled += count;
                    used += frame;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn padded_input_of_both_codecs_fills_a_cluster() {
        let cluster: Vec<u8> = (0..65536u32).map(|i| (i / 7) as u8).collect();
        for (codec, mut packed) in
            [(Codec::Zlib, deflate(&cluster)), (Codec::Zstd, zstd::bulk::compress(&cluster, 3).unwrap())]
        {
            packed.extend([0xee; 300]);
            let mut out = vec![0; cluster.len()];
            let mut decompressor = Decompressor::new();
            for _ in 0..2 {
                decompressor.cluster(codec, &packed, &mut out).unwrap();
                assert!(out == cluster);
            }
            let short = &packed[..packed.len() / 2];
            assert!(decompressor.cluster(codec, short, &mut out).is_err(), "{codec:?} cut short");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_a_cluster_but_no_panic(
            input in proptest::collection::vec(any::<u8>(), 0..2000),
            magic in any::<bool>(),
        ) {
            let mut decompressor = Decompressor::new();
            let mut out = vec![0; 4096];
            let mut framed = vec![0x28, 0xb5, 0x2f, 0xfd];
            framed.extend(&input);
            let _ = decompressor.cluster(Codec::Zstd, if magic { &framed } else { &input }, &mut out);
            let _ = decompressor.cluster(Codec::Zlib, &input, &mut out);
        }
    }
}

//! A zstd file: frames one after the other, skippable frames among them, taken as by `zstd -dc` (zstd 1.5): anything else is an
//! error. Before a frame is unpacked, the memory that its window takes is compared with what it may take.

use std::io::{self, BufRead, Read};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::ahead::{Ahead, Trailer};
use super::{Decode, NeedsMemory};

/// The first bytes of a frame (RFC 8878, 3.1.1).
pub(super) const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The longest frame header: magic, descriptor, window, dictionary, content size.
const HEADER: usize = 4 + 1 + 1 + 4 + 8;

/// Memory besides the window: two blocks of output and one of input, of 128 KiB each, and the tables.
const BESIDES: u64 = 640 * 1024;

/// The largest window that the library unpacks, as a power of two.
const LARGEST_WINDOW: u32 = 31;

/// Reads the content of all frames.
pub(super) struct Zstd<R> {
    input: Ahead<R>,
    decoder: DCtx<'static>,
    /// Whether a frame has begun and not ended.
    inside: bool,
    memory: u64,
}

impl<R: BufRead> Zstd<R> {
    /// Takes `memory` bytes at the most.
    pub(super) fn new(input: R, memory: u64) -> io::Result<Self> {
        let mut decoder = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        decoder.set_parameter(DParameter::WindowLogMax(LARGEST_WINDOW)).map_err(named)?;
        Ok(Self { input: Ahead::new(input), decoder, inside: false, memory })
    }

    /// Looks at what follows. Returns whether it is a frame that may be unpacked, or the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        let memory = self.memory;
        match self.input.peek(HEADER)? {
            [] => Ok(false),
            head if is_skippable(head) => Ok(true),
            head if head.starts_with(&FRAME) => match window(head).map(|bytes| bytes.saturating_add(BESIDES))
            {
                Some(needed) if needed > memory => {
                    Err(io::Error::new(io::ErrorKind::OutOfMemory, NeedsMemory(needed)))
                }
                _ => Ok(true),
            },
            head if head.len() < FRAME.len() => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what follows a frame is not a frame")),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.inside {
                self.inside = self.begin()?;
                if !self.inside {
                    return Ok(0);
                }
            }
            let bytes = self.input.fill_buf()?;
            let at_end = bytes.is_empty();
            let mut from = InBuffer::around(bytes);
            let mut to = OutBuffer::around(&mut *space);
            // The decoder may have more to give after the last byte of the file.
            let wanted = self.decoder.decompress_stream(&mut to, &mut from).map_err(named)?;
            let (taken, given) = (from.pos(), to.pos());
            self.input.consume(taken);
            self.inside = wanted != 0;
            if given > 0 || space.is_empty() {
                return Ok(given);
            }
            if at_end && self.inside {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Decode for Zstd<R> {
    fn trailer(&self) -> Option<Trailer> {
        None
    }
}

fn named(code: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, get_error_name(code))
}

/// Returns whether a skippable frame begins here (RFC 8878, 3.1.2). lz4 uses the same magic.
pub(super) fn is_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Returns what follows the skippable frames at the start of a file; nothing if they reach beyond `head`.
pub(super) fn behind_skippable(mut head: &[u8]) -> &[u8] {
    while is_skippable(head) {
        let length = head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let end = length.and_then(|length| usize::try_from(length).ok()?.checked_add(8));
        head = end.and_then(|end| head.get(end..)).unwrap_or_default();
    }
    head
}

/// Returns the bytes that must be kept to unpack a frame, if `head` shows them.
fn window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    if descriptor & 0x20 == 0 {
        let byte = *head.get(5)?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // A single segment: all of the content is kept.
    let size = head.get(5 + dictionary..)?;
    let number = |length: usize| {
        let mut bytes = [0; 8];
        bytes.get_mut(..length)?.copy_from_slice(size.get(..length)?);
        Some(u64::from_le_bytes(bytes))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2).map(|size| size + 256),
        2 => number(4),
        _ => number(8),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zstd::zstd_safe::{CCtx, CParameter};

    use super::*;

    fn frame(content: &[u8], parameters: &[CParameter]) -> Vec<u8> {
        let mut encoder = CCtx::create();
        for parameter in parameters {
            encoder.set_parameter(*parameter).unwrap();
        }
        let mut out = vec![0; content.len() + 1000];
        let length = encoder.compress2(&mut out[..], content).unwrap();
        out.truncate(length);
        out
    }

    #[test]
    fn windows_are_read_from_every_form_of_header() {
        for length in [1usize, 255, 256, 1000, 65_791, 65_792, 3 << 20] {
            // A window that holds all of the content makes it a single segment.
            let parameters = [CParameter::ContentSizeFlag(true), CParameter::WindowLog(25)];
            assert_eq!(window(&frame(&vec![7; length], &parameters)), Some(length as u64));
        }
        // The encoder does not know how much comes.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(23).unwrap();
        encoder.write_all(&[7; 3 << 20]).unwrap();
        assert_eq!(window(&encoder.finish().unwrap()), Some(1 << 23));
        // With a mantissa, and with an identifier of a dictionary before the size.
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3 | 5]), Some((8 << 20) / 8 * 13));
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0xa3, 1, 2, 3, 4, 0, 0, 0, 1]), Some(1 << 24));
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0xa3, 1, 2, 3, 4, 0, 0]), None);
    }

    #[test]
    fn skippable_frames_are_passed_over_as_far_as_the_head_goes() {
        let skip = |length: u8, have: usize| {
            [&[0x5a, 0x2a, 0x4d, 0x18, length, 0, 0, 0][..], &vec![1; have]].concat()
        };
        assert_eq!(behind_skippable(&[skip(3, 3), skip(0, 0), b"next".to_vec()].concat()), b"next");
        assert_eq!(behind_skippable(&skip(200, 9)), b"");
        assert_eq!(behind_skippable(&skip(0, 0)[..6]), b"");
        assert_eq!(behind_skippable(b"none"), b"none");
    }
}

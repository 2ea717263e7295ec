//! An xz file: streams one after the other with padding between them, taken as by `xz -dc` (XZ Utils 5.4): padding is zero bytes in
//! multiples of four, and anything else is an error.

use std::io::{self, BufRead, Read};

use liblzma::stream::{Action, CONCATENATED, Error, Status, Stream};

use super::ahead::Trailer;
use super::{Decode, NeedsMemory};

/// Reads the content of all streams.
pub(super) struct Xz<R> {
    input: R,
    stream: Stream,
}

impl<R: BufRead> Xz<R> {
    /// Takes `memory` bytes at the most.
    pub(super) fn new(input: R, memory: u64) -> io::Result<Self> {
        Ok(Self { input, stream: Stream::new_stream_decoder(memory, CONCATENATED)? })
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if space.is_empty() {
            return Ok(0);
        }
        loop {
            let bytes = self.input.fill_buf()?;
            let at_end = bytes.is_empty();
            let (before, filled) = (self.stream.total_in(), self.stream.total_out());
            let action = if at_end { Action::Finish } else { Action::Run };
            let result = self.stream.process(bytes, space, action);
            let taken = usize::try_from(self.stream.total_in() - before).unwrap_or(usize::MAX);
            let given = usize::try_from(self.stream.total_out() - filled).unwrap_or(usize::MAX);
            self.input.consume(taken);
            let status = match result {
                Ok(status) => status,
                Err(Error::MemLimit) => {
                    let needed = NeedsMemory(needed(&mut self.stream));
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, needed));
                }
                Err(error) => return Err(error.into()),
            };
            match status {
                _ if given > 0 => return Ok(given),
                Status::StreamEnd => return Ok(0),
                Status::Ok | Status::GetCheck | Status::MemNeeded if at_end => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Status::Ok | Status::GetCheck | Status::MemNeeded if taken == 0 => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "corrupt xz stream"));
                }
                Status::Ok | Status::GetCheck | Status::MemNeeded => {}
            }
        }
    }
}

impl<R: BufRead> Decode for Xz<R> {
    fn trailer(&self) -> Option<Trailer> {
        None
    }
}

/// Returns the bytes that a stream needs after it reached its limit: the least limit that the library accepts now. The binding does
/// not export `lzma_memusage`.
fn needed(stream: &mut Stream) -> u64 {
    let (mut refused, mut accepted) = (stream.memlimit(), u64::MAX);
    while accepted - refused > 1 {
        let middle = refused + (accepted - refused) / 2;
        match stream.set_memlimit(middle) {
            Ok(()) => accepted = middle,
            Err(_) => refused = middle,
        }
    }
    accepted
}

//! A bzip2 file: streams one after the other, and what follows them, taken as by `bzip2 -dc` (bzip2 1.0.8): what does not begin
//! another stream is ignored with a warning.

use std::io::{self, BufRead, Read};
use std::mem;

use bzip2::bufread::BzDecoder;

use super::Decode;
use super::ahead::{Ahead, Trailer};

/// Reads the content of all streams.
pub(super) struct Bzip2<R> {
    state: State<R>,
    trailer: Option<Trailer>,
}

enum State<R> {
    Stream(BzDecoder<Ahead<R>>),
    Ended,
}

impl<R: BufRead> Bzip2<R> {
    pub(super) fn new(input: R) -> Self {
        Self { state: State::Stream(BzDecoder::new(Ahead::new(input))), trailer: None }
    }

    /// Goes on behind a stream. Reads the rest of the file if no stream follows.
    fn next(&mut self) -> io::Result<()> {
        let State::Stream(stream) = mem::replace(&mut self.state, State::Ended) else { return Ok(()) };
        let mut input = stream.into_inner();
        match input.peek(4)? {
            [] => {}
            [b'B', b'Z', b'h', b'1'..=b'9'] => self.state = State::Stream(BzDecoder::new(input)),
            [b'B'] | [b'B', b'Z'] | [b'B', b'Z', b'h'] => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => self.trailer = Some(input.drain()?),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Bzip2<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let State::Stream(stream) = &mut self.state else { return Ok(0) };
            let count = stream.read(space)?;
            if count > 0 || space.is_empty() {
                return Ok(count);
            }
            self.next()?;
        }
    }
}

impl<R: BufRead> Decode for Bzip2<R> {
    fn trailer(&self) -> Option<Trailer> {
        self.trailer
    }
}

//! A gzip file: members one after the other, and what follows them, taken as by `gzip -dc` (gzip 1.12).
//!
//! Zero padding is ignored. Other bytes behind the last member (the metadata trailer of OpenWrt images) are ignored with a warning.

use std::io::{self, BufRead, Read};
use std::mem;

use flate2::bufread::GzDecoder;

use super::Decode;
use super::ahead::{Ahead, Trailer};

/// Starts of members that `gzip` unpacks and this reader does not: compress, old gzip, LZH and pack.
const OTHER_METHODS: [[u8; 2]; 4] = [[0x1f, 0x9d], [0x1f, 0x9e], [0x1f, 0xa0], [0x1f, 0x1e]];

/// Reads the content of all members.
pub(super) struct Gzip<R> {
    state: State<R>,
    trailer: Option<Trailer>,
}

enum State<R> {
    Member(Box<GzDecoder<Ahead<R>>>),
    Ended,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(input: R) -> Self {
        Self { state: State::Member(Box::new(GzDecoder::new(Ahead::new(input)))), trailer: None }
    }

    /// Goes on behind a member. Reads the rest of the file if no member follows.
    fn next(&mut self) -> io::Result<()> {
        let State::Member(member) = mem::replace(&mut self.state, State::Ended) else { return Ok(()) };
        let mut input = member.into_inner();
        match input.peek(2)? {
            [] => return Ok(()),
            [0x1f, 0x8b] => {
                self.state = State::Member(Box::new(GzDecoder::new(input)));
                return Ok(());
            }
            [first, second] if OTHER_METHODS.contains(&[*first, *second]) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a member is not compressed by deflate; compress the image with gzip",
                ));
            }
            // A lone byte may be the start of a member that was cut off.
            [first] if *first != 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        self.trailer = Some(input.drain()?);
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        loop {
            let State::Member(member) = &mut self.state else { return Ok(0) };
            let count = member.read(space)?;
            if count > 0 || space.is_empty() {
                return Ok(count);
            }
            self.next()?;
        }
    }
}

impl<R: BufRead> Decode for Gzip<R> {
    fn trailer(&self) -> Option<Trailer> {
        self.trailer
    }
}

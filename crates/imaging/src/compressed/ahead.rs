//! A reader whose next bytes can be looked at before they are read: what follows a member decides whether it is another member.

use std::io::{self, BufRead, Read};

/// Reads from `inner`, after the bytes that [`Ahead::peek`] took from it.
pub(super) struct Ahead<R> {
    inner: R,
    /// Bytes taken from `inner` that were not read yet, from `at` on.
    seen: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Ahead<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, seen: Vec::new(), at: 0 }
    }

    /// Returns the next `count` bytes, or all that are left. They stay to be read.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        loop {
            let missing = count.saturating_sub(self.left().len());
            if missing == 0 {
                break;
            }
            let more = self.inner.fill_buf()?;
            let taken = more.get(..missing).unwrap_or(more);
            if taken.is_empty() {
                break;
            }
            let length = taken.len();
            self.seen.extend_from_slice(taken);
            self.inner.consume(length);
        }
        Ok(self.left().get(..count).unwrap_or(self.left()))
    }

    fn left(&self) -> &[u8] {
        self.seen.get(self.at..).unwrap_or_default()
    }

    /// Reads everything that is left. Returns how many bytes that were, and whether all of them were zero.
    pub(super) fn drain(&mut self) -> io::Result<Trailer> {
        let mut trailer = Trailer { bytes: 0, zero: true };
        loop {
            let rest = self.fill_buf()?;
            if rest.is_empty() {
                return Ok(trailer);
            }
            let length = rest.len();
            trailer.zero = trailer.zero && rest.iter().all(|byte| *byte == 0);
            trailer.bytes = trailer.bytes.saturating_add(length as u64);
            self.consume(length);
        }
    }
}

impl<R: BufRead> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left().is_empty() { self.inner.fill_buf() } else { Ok(self.left()) }
    }

    fn consume(&mut self, amount: usize) {
        if self.left().is_empty() {
            return self.inner.consume(amount);
        }
        self.at = self.at.saturating_add(amount);
        if self.left().is_empty() {
            self.seen.clear();
            self.at = 0;
        }
    }
}

impl<R: BufRead> Read for Ahead<R> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(space.len());
        if let (Some(to), Some(from)) = (space.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// Bytes behind the last member of a compressed file, which are not part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) bytes: u64,
    /// Whether all of them are zero: padding.
    pub(super) zero: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_looked_at_are_read_once_and_in_order() {
        let mut ahead = Ahead::new(io::BufReader::with_capacity(3, &b"0123456789"[..]));
        assert_eq!(ahead.peek(5).unwrap(), b"01234");
        assert_eq!(ahead.peek(2).unwrap(), b"01");
        let mut two = [0; 2];
        ahead.read_exact(&mut two).unwrap();
        assert_eq!(ahead.peek(4).unwrap(), b"2345");
        let mut rest = Vec::new();
        ahead.read_to_end(&mut rest).unwrap();
        assert_eq!((&two, rest.as_slice()), (b"01", &b"23456789"[..]));
        assert_eq!(ahead.peek(1).unwrap(), b"");
    }

    #[test]
    fn a_trailer_is_counted_and_padding_is_recognised() {
        for (bytes, zero) in [(&b"\0\0\0"[..], true), (b"\0x", false), (b"", true)] {
            let mut ahead = Ahead::new(bytes);
            ahead.peek(2).unwrap();
            assert_eq!(ahead.drain().unwrap(), Trailer { bytes: bytes.len() as u64, zero });
        }
    }
}

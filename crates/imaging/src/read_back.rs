//! Sums of what was written to a disk, so that the disk can be read back and compared without keeping what was written.
//!
//! Pieces are written in any order, and zero ranges cost nothing: the sum of a region is the sum over its bytes of the byte
//! times a number drawn from its offset. Words are multiplied whole, which is the same. Two contents of a region have the
//! same sum by an accident of one in 2^64; nobody is meant to be kept from forging one, that is the digest's work.

use sys::AlignedBuffer;

use crate::buffer::CHUNK;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::sink::BlockSink;

/// Bytes of the disk that share a sum, so that damage can be located.
const REGION: u64 = 16 * 1024 * 1024;

const WORD: usize = 8;

/// The sums of what was written so far. Bytes that were never written, or were zeroed, count as zero.
#[derive(Default)]
pub(crate) struct Sums(Vec<u128>);

impl Sums {
    /// Counts `data`, written at `offset` where only zeroes were counted before.
    pub(crate) fn add(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let index = usize::try_from(at / REGION).unwrap_or(usize::MAX);
            let left = REGION - at % REGION;
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            if self.0.len() <= index {
                self.0.resize(index + 1, 0);
            }
            if let Some(region) = self.0.get_mut(index) {
                *region = region.wrapping_add(sum(at, now));
            }
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
    }

    /// Reads the first `length` bytes of the disk and compares, except for the ranges `held` (start and end), which are not
    /// written yet. `tell` hears how far it is.
    pub(crate) fn compare(
        &self,
        sink: &mut dyn BlockSink,
        length: u64,
        held: &[(u64, u64)],
        cancel: &Cancel,
        mut tell: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut buffer = AlignedBuffer::new(CHUNK);
        for (index, start) in (0..length).step_by(usize::try_from(REGION).unwrap_or(usize::MAX)).enumerate() {
            let end = length.min(start + REGION);
            let mut found = 0u128;
            let mut at = start;
            while at < end {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK);
                let space = buffer.get_mut(..count).unwrap_or_default();
                read(sink, at, space)?;
                for (from, to) in held {
                    // Inside the buffer, so each fits a usize.
                    let inside = |offset: u64| usize::try_from(offset.saturating_sub(at)).unwrap_or(count);
                    let (from, to) = (inside(*from).min(count), inside(*to).min(count));
                    space.get_mut(from..to).unwrap_or_default().fill(0);
                }
                found = found.wrapping_add(sum(at, space));
                at += count as u64;
                tell(at);
            }
            if found != self.0.get(index).copied().unwrap_or(0) {
                return Err(Error::ReadBack { offset: start, length: end - start });
            }
        }
        Ok(())
    }
}

/// Reads from the disk, failing by name.
pub(crate) fn read(sink: &mut dyn BlockSink, offset: u64, space: &mut [u8]) -> Result<(), Error> {
    let length = space.len() as u64;
    sink.read_at(offset, space).map_err(Error::disk("reading", offset, length))
}

/// The sum of bytes at `offset`.
fn sum(offset: u64, data: &[u8]) -> u128 {
    let within = usize::try_from(offset % WORD as u64).unwrap_or(0);
    let first = offset / WORD as u64;
    let head = if within == 0 { 0 } else { (WORD - within).min(data.len()) };
    let (head, rest) = data.split_at(head);
    // The bytes before and after the data count as zeroes: nothing is added for them here.
    let mut total = term(first, padded(within, head));
    let start = first + u64::from(within > 0);
    let words = rest.chunks_exact(WORD);
    let tail = words.remainder();
    let count = words.len() as u64;
    for (number, word) in words.enumerate() {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        // Most of a disk is zeroes, and they add nothing.
        if word != 0 {
            total = total.wrapping_add(term(start + number as u64, word));
        }
    }
    total.wrapping_add(term(start + count, padded(0, tail)))
}

/// Up to eight bytes as a word, from byte number `at` of it.
fn padded(at: usize, bytes: &[u8]) -> u64 {
    let mut word = [0u8; WORD];
    for (to, from) in word.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

fn term(number: u64, word: u64) -> u128 {
    u128::from(word).wrapping_mul(u128::from(draw(number)))
}

/// A number drawn from the word's number: the mixing function of SplitMix64 (Steele, Lea, Flood 2014).
fn draw(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::MemorySink;

    fn compare(sums: &Sums, disk: &MemorySink, length: usize) -> Result<(), Error> {
        sums.compare(&mut disk.clone(), length as u64, &[], &Cancel::new(), |_| {})
    }

    #[test]
    fn damage_is_located_by_its_region() {
        let size = 40 << 20;
        let mut disk = MemorySink::new(size, 0);
        let mut sums = Sums::default();
        for offset in (0..size as u64).step_by(1 << 20) {
            let data = vec![(offset >> 20) as u8 + 1; 1 << 19];
            disk.write_at(offset, &data).unwrap();
            sums.add(offset, &data);
        }
        assert!(compare(&sums, &disk, size).is_ok());
        disk.write_at(20 << 20, &[0xff]).unwrap();
        let error = compare(&sums, &disk, size).unwrap_err();
        assert!(matches!(error, Error::ReadBack { offset: 0x100_0000, length: 0x100_0000 }), "{error}");
    }

    #[test]
    fn what_should_be_zero_and_is_not_is_seen() {
        let disk = MemorySink::new(1 << 20, 0);
        let sums = Sums::default();
        assert!(compare(&sums, &disk, 1 << 20).is_ok());
        disk.clone().write_at(777, &[1]).unwrap();
        assert!(compare(&sums, &disk, 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn any_split_in_any_order_gives_one_sum_and_any_flip_another(
            data in proptest::collection::vec(any::<u8>(), 1..300),
            offset in REGION - 150..REGION + 50,
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
            flip in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut whole = Sums::default();
            whole.add(offset, &data);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len())).collect();
            cuts.extend([0, data.len()]);
            cuts.sort_unstable();
            let mut parts = Sums::default();
            for window in cuts.windows(2).rev() {
                parts.add(offset + window[0] as u64, &data[window[0]..window[1]]);
            }
            let sums = |sums: &Sums| (sums.0.first().copied().unwrap_or(0), sums.0.get(1).copied().unwrap_or(0));
            prop_assert_eq!(sums(&whole), sums(&parts));
            let mut flipped = data.clone();
            flipped[flip.index(data.len())] ^= 1 << bit;
            let mut other = Sums::default();
            other.add(offset, &flipped);
            prop_assert_ne!(sums(&whole), sums(&other));
        }
    }
}

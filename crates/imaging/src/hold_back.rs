//! The order in which a disk may be written, as types: `Unverified -> Verified -> Committed`.
//!
//! What makes a disk boot lies at its two ends: boot code, the partition table and a hybrid image's volume descriptors in
//! the first MiB; the backup GPT, which firmware falls back to, in the last sectors. So before anything else is written
//! both ends are zeroed, and from then on everything that belongs there is kept in memory. Only a [`Proof`], of a matching digest and, where one is asked
//! for, a matching signature, gives a [`Verified`] disk, and only that can be committed. A failure at any point leaves a disk that boots neither the old
//! system nor half of the new one.

use std::ops::Range;

use crate::cancel::Cancel;
use crate::draft::Changes;
use crate::error::Error;
use crate::proof::Proof;
use crate::read_back::{self, Sums};
use crate::sink::{BlockSink, Slice};

/// How much of each end of the disk is kept back.
pub(crate) const HELD: u64 = 1024 * 1024;

/// The held end of an image starts on this boundary, so that what is written beside it stays aligned for every sector size.
const HELD_ALIGNMENT: u64 = 4096;

/// A part of the disk whose new contents stay in memory until the digest matches.
struct Held {
    start: u64,
    bytes: Vec<u8>,
    touched: bool,
}

impl Held {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }
}

/// A disk that is being written with bytes nobody has vouched for. Its ends are zero.
pub(crate) struct Unverified<'a> {
    sink: &'a mut dyn BlockSink,
    size: u64,
    held: Vec<Held>,
    /// Of what is on the disk, where it will be read back.
    sums: Option<Sums>,
    data_bytes: u64,
    zeroed_bytes: u64,
}

/// The published bytes are what was asked for; the ends are still zero.
pub(crate) struct Verified<'a> {
    disk: Unverified<'a>,
    is_read_back: bool,
}

/// Everything is written and on stable storage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) data_bytes: u64,
    pub(crate) zeroed_bytes: u64,
}

/// **Zeroes what the old system could boot from, or be recognised by**, durably.
fn clear(sink: &mut dyn BlockSink) -> Result<(), Error> {
    let size = sink.size();
    // First what it boots from: without that the rest is not looked at.
    for (offset, length) in [(0, HELD.min(size)), (size.saturating_sub(HELD), HELD.min(size))] {
        sink.zero_range(offset, length).map_err(Error::disk("zeroing", offset, length))?;
    }
    sink.prepare().map_err(Error::disk("clearing", 0, size))?;
    flush(sink)
}

/// The regions kept back on a disk of `disk` bytes for an image of `image` bytes (where known): the head, the end of the
/// image, and the end of the disk, sorted and without overlap.
fn regions(disk: u64, image: Option<u64>) -> Vec<(u64, u64)> {
    let mut regions = vec![(0, HELD.min(disk))];
    // The end of the image is covered whole by the image, so it may start on a boundary. The end of the disk need not be:
    // it starts exactly where the disk was wiped.
    let image = image.map(|image| image.min(disk)).map(|end| {
        let start = end.saturating_sub(HELD);
        (start - start % HELD_ALIGNMENT, end)
    });
    for (start, end) in image.into_iter().chain([(disk.saturating_sub(HELD), disk)]) {
        let taken = regions.last().map_or(0, |(_, end)| *end);
        let start = start.max(taken);
        if start < end {
            regions.push((start, end));
        }
    }
    regions
}

impl<'a> Unverified<'a> {
    /// **Zeroes the first and the last MiB of the disk**, durably: from here on the old system does not boot.
    ///
    /// `image` is the size of the disk image, where it is known.
    pub(crate) fn begin(sink: &'a mut dyn BlockSink, image: Option<u64>) -> Result<Self, Error> {
        let size = sink.size();
        if let Some(image) = image.filter(|image| *image > size) {
            return Err(Error::TooLarge { image, disk: size });
        }
        tracing::info!(disk_bytes = size, "zeroing the first and last MiB of the disk");
        clear(sink).map_err(|error| Error::NotCleared(Box::new(error)))?;
        let mut held = Vec::new();
        for (start, end) in regions(size, image) {
            let length =
                usize::try_from(end - start).map_err(|_| Error::Pipeline("held region too large"))?;
            held.push(Held { start, bytes: vec![0; length], touched: false });
        }
        Ok(Self { sink, size, held, sums: None, data_bytes: 0, zeroed_bytes: 0 })
    }

    /// Remembers from here on what is written, so that [`Verified::read_back`] can compare.
    pub(crate) fn remember(&mut self) {
        self.sums = Some(Sums::default());
    }

    /// **Writes** `data` at `offset`, except for what is held back.
    pub(crate) fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.put(offset, data, |sink, at, part| sink.write_at(at, data.get(part).unwrap_or_default()))
    }

    /// As [`Unverified::write_at`], perhaps later: see [`BlockSink::submit`].
    pub(crate) fn submit(&mut self, offset: u64, data: &Slice) -> Result<(), Error> {
        self.put(offset, data, |sink, at, part| sink.submit(at, data.part(part)))
    }

    /// Has the parts of `data` that are not held back written by `write`, which gets the offset on the disk and the part.
    fn put(
        &mut self,
        offset: u64,
        data: &[u8],
        mut write: impl FnMut(&mut dyn BlockSink, u64, Range<usize>) -> std::io::Result<()>,
    ) -> Result<(), Error> {
        let mut sums = self.sums.take();
        self.each(offset, data.len() as u64, |part, start, length| {
            let from = usize::try_from(start - offset).map_err(|_| Error::Pipeline("range too large"))?;
            let count = usize::try_from(length).map_err(|_| Error::Pipeline("range too large"))?;
            let bytes = data.get(from..from + count).unwrap_or_default();
            match part {
                Part::Held(space) => space.copy_from_slice(bytes),
                Part::Disk(sink) => {
                    write(sink, start, from..from + count).map_err(Error::disk("writing", start, length))?;
                    if let Some(sums) = &mut sums {
                        sums.add(start, bytes);
                    }
                }
            }
            Ok(())
        })?;
        self.sums = sums;
        self.data_bytes += data.len() as u64;
        Ok(())
    }

    /// **Zeroes** `length` bytes at `offset`, except for what is held back.
    pub(crate) fn zero_range(&mut self, offset: u64, length: u64) -> Result<(), Error> {
        self.each(offset, length, |part, start, length| {
            match part {
                Part::Held(space) => space.fill(0),
                Part::Disk(sink) => {
                    sink.zero_range(start, length).map_err(Error::disk("zeroing", start, length))?;
                }
            }
            Ok(())
        })?;
        self.zeroed_bytes += length;
        Ok(())
    }

    /// Size of the disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns once everything written is on stable storage.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        flush(self.sink)
    }

    /// Reads what is held back, and the disk where nothing is.
    pub(crate) fn read_at(&mut self, offset: u64, space: &mut [u8]) -> Result<(), Error> {
        let touched: Vec<_> = self.held.iter().map(|held| held.touched).collect();
        self.each(offset, space.len() as u64, |part, start, length| {
            let from = usize::try_from(start - offset).map_err(|_| Error::Pipeline("range too large"))?;
            let count = usize::try_from(length).map_err(|_| Error::Pipeline("range too large"))?;
            let space = space.get_mut(from..from + count).unwrap_or_default();
            match part {
                Part::Held(bytes) => space.copy_from_slice(bytes),
                Part::Disk(sink) => read_back::read(sink, start, space)?,
            }
            Ok(())
        })?;
        for (held, touched) in self.held.iter_mut().zip(touched) {
            held.touched = touched;
        }
        Ok(())
    }

    /// Bytes of the disk covered so far.
    pub(crate) fn covered(&self) -> u64 {
        self.data_bytes + self.zeroed_bytes
    }

    /// Calls `act` for each part of a range that is held back, and each that is not, in order.
    fn each(
        &mut self,
        offset: u64,
        length: u64,
        mut act: impl FnMut(Part<'_>, u64, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or(Error::TooLarge { image: offset.saturating_add(length), disk: self.size })?;
        let mut at = offset;
        for held in &mut self.held {
            if at >= end {
                return Ok(());
            }
            if held.end() <= at {
                continue;
            }
            if at < held.start {
                let stop = end.min(held.start);
                act(Part::Disk(&mut *self.sink), at, stop - at)?;
                at = stop;
            }
            if at < end {
                let stop = end.min(held.end());
                let from =
                    usize::try_from(at - held.start).map_err(|_| Error::Pipeline("range too large"))?;
                let count = usize::try_from(stop - at).map_err(|_| Error::Pipeline("range too large"))?;
                held.touched = true;
                let space = held.bytes.get_mut(from..from + count).unwrap_or_default();
                act(Part::Held(space), at, stop - at)?;
                at = stop;
            }
        }
        if at < end {
            act(Part::Disk(&mut *self.sink), at, end - at)?;
        }
        Ok(())
    }

    /// The only way to a [`Verified`] disk.
    pub(crate) fn verify(self, _proof: Proof) -> Verified<'a> {
        let is_read_back = self.sums.is_some();
        Verified { disk: self, is_read_back }
    }
}

enum Part<'p> {
    Held(&'p mut [u8]),
    Disk(&'p mut dyn BlockSink),
}

impl<'a> Verified<'a> {
    /// Reads the first `length` bytes of the disk and compares them with what was written, except for what is held back: that
    /// is compared when it is committed. Nothing without [`Unverified::remember`].
    pub(crate) fn read_back(
        &mut self,
        length: u64,
        cancel: &Cancel,
        tell: impl FnMut(u64),
    ) -> Result<(), Error> {
        // Once: what changes after this is no longer what was streamed.
        let Some(sums) = self.disk.sums.take() else { return Ok(()) };
        self.disk.flush()?;
        let held: Vec<_> = self.disk.held.iter().map(|held| (held.start, held.end())).collect();
        sums.compare(self.disk.sink, length, &held, cancel, tell)
    }

    /// The first bytes of the image, as they will be written.
    pub(crate) fn head(&self) -> &[u8] {
        self.disk.held.first().map(|held| held.bytes.as_slice()).unwrap_or_default()
    }

    /// Changes to be made before the commit.
    pub(crate) fn changes(&mut self) -> Changes<'_, 'a> {
        Changes::new(&mut self.disk)
    }

    /// Bytes of a sector of the disk.
    pub(crate) fn sector_bytes(&self) -> u32 {
        self.disk.sink.logical_sector_size()
    }

    /// Whether what is on the disk is read back.
    pub(crate) fn is_read_back(&self) -> bool {
        self.is_read_back
    }

    /// **Writes what was held back, the first MiB last, and makes the disk bootable.** Each step is durable before the next.
    pub(crate) fn commit(self) -> Result<Committed, Error> {
        let Unverified { sink, held, data_bytes, zeroed_bytes, .. } = self.disk;
        let written = write_held(sink, &held).and_then(|()| match self.is_read_back {
            true => held.iter().filter(|held| held.touched).try_for_each(|held| same(sink, held)),
            false => Ok(()),
        });
        if let Err(error) = written {
            zero_again(sink, &held);
            return Err(error);
        }
        sink.committed();
        Ok(Committed { data_bytes, zeroed_bytes })
    }
}

/// Writes the held regions in reverse: the head comes first in `held` and goes last to the disk.
fn write_held(sink: &mut dyn BlockSink, held: &[Held]) -> Result<(), Error> {
    flush(sink)?;
    for held in held.iter().rev().filter(|held| held.touched) {
        let length = held.bytes.len() as u64;
        sink.write_at(held.start, &held.bytes).map_err(Error::disk("writing", held.start, length))?;
        flush(sink)?;
    }
    Ok(())
}

/// Reads a held region back.
fn same(sink: &mut dyn BlockSink, held: &Held) -> Result<(), Error> {
    let mut found = vec![0; held.bytes.len()];
    read_back::read(sink, held.start, &mut found)?;
    match found == held.bytes {
        true => Ok(()),
        false => Err(Error::ReadBack { offset: held.start, length: found.len() as u64 }),
    }
}

/// Takes back a commit that failed: ends that may be on the disk or not are no state to leave it in, and no state to
/// report. The tail goes too, for firmware boots by the backup GPT where there is no head. Each region is tried,
/// whatever became of the one before.
fn zero_again(sink: &mut dyn BlockSink, held: &[Held]) {
    for held in held.iter().filter(|held| held.touched) {
        let length = held.bytes.len() as u64;
        if let Err(error) = sink.zero_range(held.start, length).and_then(|()| sink.flush()) {
            tracing::error!(%error, offset = held.start, length, "what was held back could not be zeroed again");
        }
    }
}

fn flush(sink: &mut dyn BlockSink) -> Result<(), Error> {
    let length = sink.size();
    sink.flush().map_err(Error::disk("flushing", 0, length))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::ExpectedDigest;
    use crate::proof::Expected;
    use crate::sink::MemorySink;

    const MIB: u64 = HELD;
    const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Of an image that is what was asked for.
    fn proof() -> Proof {
        let digest = ExpectedDigest::from_hex(SHA256_OF_NOTHING).unwrap();
        let expected = Expected { digest: &digest, signature: None };
        expected.prove(&expected.start().finish()).unwrap()
    }

    #[test]
    fn regions_cover_both_ends_without_overlap() {
        assert_eq!(regions(10 * MIB, Some(10 * MIB)), [(0, MIB), (9 * MIB, 10 * MIB)]);
        assert_eq!(regions(10 * MIB, Some(5 * MIB)), [(0, MIB), (4 * MIB, 5 * MIB), (9 * MIB, 10 * MIB)]);
        assert_eq!(regions(10 * MIB, None), [(0, MIB), (9 * MIB, 10 * MIB)]);
        assert_eq!(regions(MIB / 2, Some(1000)), [(0, MIB / 2)]);
        assert_eq!(regions(MIB + 512, Some(MIB + 512)), [(0, MIB), (MIB, MIB + 512)]);
    }

    #[test]
    fn ends_are_zero_until_commit_and_exact_after() {
        let size = 4 * MIB as usize;
        let disk = MemorySink::new(size, 0xa5);
        let mut sink = disk.clone();
        let mut unverified = Unverified::begin(&mut sink, Some(4 * MIB)).unwrap();
        unverified.write_at(0, &vec![7; size]).unwrap();
        let before = disk.contents();
        assert!(before[..MIB as usize].iter().all(|b| *b == 0));
        assert!(before[3 * MIB as usize..].iter().all(|b| *b == 0));
        assert!(before[MIB as usize..3 * MIB as usize].iter().all(|b| *b == 7));
        unverified.verify(proof()).commit().unwrap();
        assert_eq!(disk.contents(), vec![7; size]);
        assert!(disk.is_committed());
    }

    /// A disk that accepts every write and fails the flush number `fail`.
    struct FailingFlush {
        disk: MemorySink,
        fail: u32,
    }

    impl BlockSink for FailingFlush {
        fn size(&self) -> u64 {
            self.disk.size()
        }
        fn logical_sector_size(&self) -> u32 {
            512
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.disk.write_at(offset, data)
        }
        fn zero_range(&mut self, offset: u64, length: u64) -> std::io::Result<()> {
            self.disk.zero_range(offset, length)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.fail = self.fail.wrapping_sub(1);
            if self.fail == 0 { Err(std::io::Error::other("no flush")) } else { Ok(()) }
        }
    }

    #[test]
    fn a_flush_that_fails_at_any_point_leaves_both_ends_zero() {
        // Flushes: after the wipe, before the held ends, after the tail, after the head.
        for fail in 1..=4 {
            let disk = MemorySink::new(4 * MIB as usize, 0xa5);
            let mut sink = FailingFlush { disk: disk.clone(), fail };
            let result = Unverified::begin(&mut sink, Some(4 * MIB)).and_then(|mut unverified| {
                unverified.write_at(0, &vec![7; 4 * MIB as usize])?;
                unverified.verify(proof()).commit()
            });
            assert!(result.is_err(), "flush {fail}");
            let contents = disk.contents();
            assert!(contents[..MIB as usize].iter().all(|b| *b == 0), "head, flush {fail}");
            // Firmware boots by the backup partition table where there is no head.
            assert!(contents[3 * MIB as usize..].iter().all(|b| *b == 0), "tail, flush {fail}");
        }
    }

    #[test]
    fn a_head_that_can_not_be_written_takes_the_tail_along() {
        let disk = MemorySink::new(4 * MIB as usize, 0xa5);
        let mut sink = disk.clone();
        let mut unverified = Unverified::begin(&mut sink, Some(4 * MIB)).unwrap();
        unverified.write_at(0, &vec![7; 4 * MIB as usize]).unwrap();
        let verified = unverified.verify(proof());
        disk.fail_at(0);
        assert!(verified.commit().is_err());
        let contents = disk.contents();
        assert!(contents[..MIB as usize].iter().all(|b| *b == 0));
        assert!(contents[3 * MIB as usize..].iter().all(|b| *b == 0));
    }

    #[test]
    fn writing_beyond_the_disk_is_refused() {
        let mut sink = MemorySink::new(2 * MIB as usize, 0);
        let mut unverified = Unverified::begin(&mut sink, None).unwrap();
        assert!(matches!(unverified.write_at(2 * MIB - 1, &[1, 2]), Err(Error::TooLarge { .. })));
        assert!(matches!(unverified.zero_range(u64::MAX, 2), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn an_image_larger_than_the_disk_is_refused_before_a_write() {
        let disk = MemorySink::new(2 * MIB as usize, 0xa5);
        let mut sink = disk.clone();
        assert!(matches!(Unverified::begin(&mut sink, Some(2 * MIB + 1)), Err(Error::TooLarge { .. })));
        assert_eq!(disk.writes(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_writes_in_any_order_end_up_where_they_belong(
            parts in proptest::collection::vec((0u64..3_000_000, 1u64..900_000, any::<bool>()), 1..12),
            image in proptest::option::of(3_900_000u64..4_000_000),
        ) {
            let size = 4_000_000usize;
            let disk = MemorySink::new(size, 0xa5);
            let mut model = vec![0xa5u8; size];
            model[..HELD as usize].fill(0);
            model[size - HELD as usize..].fill(0);
            let mut sink = disk.clone();
            let mut unverified = Unverified::begin(&mut sink, image).unwrap();
            if let Some(image) = image {
                // An image covers its own end.
                unverified.zero_range(image - HELD - 4096, HELD + 4096).unwrap();
                model[(image - HELD - 4096) as usize..image as usize].fill(0);
            }
            for (i, (offset, length, zero)) in parts.into_iter().enumerate() {
                let range = offset as usize..(offset + length) as usize;
                let value = if zero { 0 } else { i as u8 + 1 };
                if zero {
                    unverified.zero_range(offset, length).unwrap();
                } else {
                    unverified.write_at(offset, &vec![value; length as usize]).unwrap();
                }
                model[range].fill(value);
            }
            unverified.verify(proof()).commit().unwrap();
            prop_assert!(disk.contents() == model);
        }
    }
}

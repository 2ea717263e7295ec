//! Writing over every sector: passes of random bytes, then zeroes, and reading the zeroes back where that is asked for. A sector that
//! cannot be written does not end it: the rest of the disk is written, and the sector is named in the end.

use std::io;
use std::ops::ControlFlow;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sys::AlignedBuffer;

use super::careful::{Care, Careful};
use super::damage::Damage;
use super::medium::Medium;
use super::watch::Pulse;

/// Bytes per write: large enough for any disk's full speed, small enough to stop within a moment.
const CHUNK: usize = 4 << 20;

/// How a disk is written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwrite {
    /// Passes of random bytes.
    pub random_passes: u32,
    /// Whether a pass of zeroes follows.
    pub zero_pass: bool,
    /// Whether the zeroes are read back.
    pub verify: bool,
}

impl Overwrite {
    /// How many bytes go over for a disk of `size` bytes.
    pub fn work(&self, size: u64) -> u64 {
        let passes = u64::from(self.random_passes) + u64::from(self.zero_pass) + u64::from(self.verifies());
        size.saturating_mul(passes)
    }

    fn verifies(&self) -> bool {
        self.zero_pass && self.verify
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Every pass was done.
    Completely,
    /// `report` ended it.
    Stopped,
}

/// What was not done as it should be.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Ranges that a pass could not write.
    pub(super) unwritten: Damage,
    /// Ranges that could not be read back.
    pub(super) unread: Damage,
    /// Sectors that were written and do not read back as zeroes.
    pub(super) wrong: Damage,
    /// What a flush said.
    pub(super) unflushed: Option<io::Error>,
}

impl Outcome {
    /// Returns what went wrong, as clauses; `None` when nothing did.
    pub(super) fn text(&self) -> Option<String> {
        let lists = [
            (&self.unwritten, "could not be written"),
            (&self.unread, "could not be read back"),
            (&self.wrong, "do not read back as zeroes"),
        ];
        let ranges = lists.into_iter().filter(|(damage, _)| !damage.is_empty());
        let mut clauses: Vec<String> =
            ranges.map(|(damage, what)| format!("{what}: {}", damage.text())).collect();
        clauses.extend(self.unflushed.as_ref().map(|error| format!("flushing failed ({error})")));
        (!clauses.is_empty()).then(|| clauses.join("; "))
    }

    /// Logs every range.
    pub(super) fn log(&self, device: &str) {
        self.unwritten.log(device, "not written");
        self.unread.log(device, "not read back");
        self.wrong.log(device, "not zero");
    }
}

/// **Writes over every sector.** `Break` when it was asked to stop.
pub(super) fn run(
    medium: &dyn Medium,
    how: &Overwrite,
    care: Care,
    outcome: &mut Outcome,
    pulse: &Pulse,
) -> ControlFlow<()> {
    let mut buffer = AlignedBuffer::new(CHUNK);
    let mut pass = Pass { medium, pulse, careful: Careful::new(care, medium.sector_bytes()) };
    for _ in 0..how.random_passes {
        // It need not be secret, only incompressible and never twice the same: disks deduplicate and compress.
        let mut random = SmallRng::seed_from_u64(seed());
        let fill = |chunk: &mut [u8]| random.fill(chunk);
        pass.write(&mut buffer, fill, outcome)?;
    }
    if how.zero_pass {
        buffer.fill(0);
        // Written, not discarded: what a disk merely forgets where to find may still be there.
        pass.write(&mut buffer, |_| (), outcome)?;
    }
    if how.verifies() {
        pass.read_back(&mut buffer, outcome)?;
    }
    ControlFlow::Continue(())
}

struct Pass<'a> {
    medium: &'a dyn Medium,
    pulse: &'a Pulse,
    careful: Careful,
}

impl Pass<'_> {
    fn write(
        &mut self,
        buffer: &mut AlignedBuffer,
        mut fill: impl FnMut(&mut [u8]),
        outcome: &mut Outcome,
    ) -> ControlFlow<()> {
        for (start, length) in chunks(self.medium.size()) {
            if self.is_over(start, &mut outcome.unwritten) {
                break;
            }
            fill(part_mut(buffer, 0, length));
            let mut tick = |at| self.pulse.beat(at);
            self.careful.run((start, length), &mut outcome.unwritten, &mut tick, &mut |at, length| {
                self.medium.write_at(at, part(buffer, at - start, length))
            })?;
            self.pulse.done(length);
        }
        self.pulse.beat(self.medium.size())?;
        if let Err(error) = self.medium.flush() {
            outcome.unflushed.get_or_insert(error);
        }
        ControlFlow::Continue(())
    }

    fn read_back(&mut self, buffer: &mut AlignedBuffer, outcome: &mut Outcome) -> ControlFlow<()> {
        let sector = self.medium.sector_bytes();
        for (start, length) in chunks(self.medium.size()) {
            if self.is_over(start, &mut outcome.unread) {
                break;
            }
            let mut tick = |at| self.pulse.beat(at);
            let (unwritten, wrong) = (&outcome.unwritten, &mut outcome.wrong);
            self.careful.run((start, length), &mut outcome.unread, &mut tick, &mut |at, length| {
                let chunk = part_mut(buffer, 0, length);
                self.medium.read_at(at, chunk)?;
                let size = usize::try_from(sector).unwrap_or(usize::MAX);
                for (at, bytes) in (at..).step_by(size).zip(chunk.chunks(size)) {
                    // What was not written is named already.
                    if bytes.iter().any(|byte| *byte != 0) && !unwritten.holds(at) {
                        wrong.add(at, sector, &io::Error::other("other bytes than those written"));
                    }
                }
                Ok(())
            })?;
            self.pulse.done(length);
        }
        ControlFlow::Continue(())
    }

    /// Puts down the rest of a disk that is lost, from `start` on.
    fn is_over(&self, start: u64, damage: &mut Damage) -> bool {
        if self.careful.is_lost() {
            let rest = self.medium.size() - start;
            damage.add(
                start,
                rest,
                &io::Error::other("not tried, after the disk failed for too long or went away"),
            );
        }
        self.careful.is_lost()
    }
}

fn chunks(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size).step_by(CHUNK).map(move |start| (start, (size - start).min(CHUNK as u64)))
}

fn part(buffer: &[u8], from: u64, length: u64) -> &[u8] {
    range(from, length).and_then(|range| buffer.get(range)).unwrap_or_default()
}

fn part_mut(buffer: &mut [u8], from: u64, length: u64) -> &mut [u8] {
    range(from, length).and_then(|range| buffer.get_mut(range)).unwrap_or_default()
}

fn range(from: u64, length: u64) -> Option<std::ops::Range<usize>> {
    Some(usize::try_from(from).ok()?..usize::try_from(from.checked_add(length)?).ok()?)
}

/// A number that is not the same twice, from the kernel.
fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk of whole sectors in memory, some of which cannot be written, read, or keep what they had.
    struct Fake {
        bytes: Mutex<Vec<u8>>,
        unwritable: Vec<u64>,
        unreadable: Vec<u64>,
        stuck: Vec<u64>,
    }

    const SECTOR: u64 = 512;
    const SIZE: u64 = (9 << 20) + 512;

    impl Fake {
        fn new() -> Self {
            let bytes = Mutex::new(vec![0xaa; usize::try_from(SIZE).unwrap()]);
            Self { bytes, unwritable: vec![], unreadable: vec![], stuck: vec![] }
        }

        fn check(bad: &[u64], offset: u64, length: usize) -> io::Result<()> {
            let sectors = offset / SECTOR..(offset + length as u64) / SECTOR;
            match bad.iter().any(|sector| sectors.contains(sector)) {
                true => Err(io::Error::from_raw_os_error(5)),
                false => Ok(()),
            }
        }

        fn run(&self, how: Overwrite) -> (ControlFlow<()>, Outcome) {
            let mut outcome = Outcome::default();
            let ended = run(self, &how, Care::default(), &mut outcome, &Pulse::default());
            (ended, outcome)
        }

        fn sector(&self, number: u64) -> Vec<u8> {
            let at = usize::try_from(number * SECTOR).unwrap();
            self.bytes.lock().unwrap()[at..at + 512].to_vec()
        }
    }

    impl Medium for Fake {
        fn size(&self) -> u64 {
            SIZE
        }
        fn sector_bytes(&self) -> u64 {
            SECTOR
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            Self::check(&self.unwritable, offset, data.len())?;
            let mut bytes = self.bytes.lock().unwrap();
            for (sector, chunk) in (offset / SECTOR..).zip(data.chunks(512)) {
                if !self.stuck.contains(&sector) {
                    let at = usize::try_from(sector * SECTOR).unwrap();
                    bytes[at..at + 512].copy_from_slice(chunk);
                }
            }
            Ok(())
        }
        fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
            Self::check(&self.unreadable, offset, data.len())?;
            let at = usize::try_from(offset).unwrap();
            data.copy_from_slice(&self.bytes.lock().unwrap()[at..at + data.len()]);
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const ZEROES: Overwrite = Overwrite { random_passes: 0, zero_pass: true, verify: true };

    #[test]
    fn everything_but_the_bad_sectors_is_written_over() {
        let last = SIZE / SECTOR - 1;
        for how in [ZEROES, Overwrite { random_passes: 2, zero_pass: false, verify: false }] {
            let fake = Fake { unwritable: vec![0, 9000, 9001, last], ..Fake::new() };
            let (ended, outcome) = fake.run(how);
            assert!(ended.is_continue());
            for sector in 0..=last {
                let is_old = fake.sector(sector) == [0xaa; 512];
                assert_eq!(is_old, fake.unwritable.contains(&sector), "sector {sector} {how:?}");
            }
            let text = outcome.text().unwrap();
            assert!(text.starts_with("could not be written: 3 ranges, 2048 bytes in all"), "{text}");
            assert!(text.contains("0 to 511, 4608000 to 4609023, 9437184 to 9437695"), "{text}");
            assert!(!text.contains("zeroes"), "one sector is not reported twice: {text}");
        }
    }

    #[test]
    fn reading_back_names_what_is_not_zero_and_what_cannot_be_read() {
        let fake = Fake { unreadable: vec![77], stuck: vec![5, 6, 10_000], ..Fake::new() };
        let text = fake.run(ZEROES).1.text().unwrap();
        assert!(
            text.contains("could not be read back: 1 range, 512 bytes in all: bytes 39424 to 39935"),
            "{text}"
        );
        assert!(text.contains("do not read back as zeroes: 2 ranges, 1536 bytes in all"), "{text}");
        let sound = Fake::new();
        assert_eq!(sound.run(ZEROES).1.text(), None);
        assert!((0..SIZE / SECTOR).all(|sector| sound.sector(sector) == [0; 512]));
    }
}

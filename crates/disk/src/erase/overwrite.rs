//! Writing over every sector: passes of random bytes, then zeroes, and reading the zeroes back where that is asked for.

use std::io;
use std::ops::ControlFlow;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use sys::{AlignedBuffer, BlockDevice};

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

/// What was being done, and what the system said.
type Failure = (String, io::Error);

pub(super) fn run(
    device: &BlockDevice,
    how: &Overwrite,
    report: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Finished, Failure> {
    let mut buffer = AlignedBuffer::new(CHUNK);
    for pass in 1..=how.random_passes {
        // It need not be secret, only incompressible and never twice the same: disks deduplicate and compress.
        let mut random = SmallRng::seed_from_u64(seed());
        let stopped = chunks(device.size(), report, |offset, length| {
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            random.fill(chunk);
            device
                .write_at(offset, chunk)
                .map_err(|error| (format!("random pass {pass} at byte {offset}"), error))
        })?;
        if stopped.is_break() {
            return Ok(Finished::Stopped);
        }
        flush(device)?;
    }
    if how.zero_pass {
        buffer.fill(0);
        // Written, not discarded: what a disk merely forgets where to find may still be there.
        let stopped = chunks(device.size(), report, |offset, length| {
            let chunk = buffer.get(..length).unwrap_or_default();
            device.write_at(offset, chunk).map_err(|error| (format!("zero pass at byte {offset}"), error))
        })?;
        if stopped.is_break() {
            return Ok(Finished::Stopped);
        }
        flush(device)?;
    }
    if how.verifies() {
        let stopped = chunks(device.size(), report, |offset, length| {
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            let fail = |error| (format!("reading back at byte {offset}"), error);
            device.read_at(offset, chunk).map_err(fail)?;
            match chunk.iter().position(|byte| *byte != 0) {
                None => Ok(()),
                Some(at) => Err(fail(io::Error::other(format!("byte {at} after it is not zero")))),
            }
        })?;
        if stopped.is_break() {
            return Ok(Finished::Stopped);
        }
    }
    Ok(Finished::Completely)
}

fn chunks(
    size: u64,
    report: &mut dyn FnMut(u64) -> ControlFlow<()>,
    mut step: impl FnMut(u64, usize) -> Result<(), Failure>,
) -> Result<ControlFlow<()>, Failure> {
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        step(offset, length)?;
        let done = u64::try_from(length).unwrap_or_default();
        offset += done;
        if report(done).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn flush(device: &BlockDevice) -> Result<(), Failure> {
    device.flush().map_err(|error| ("flushing after a pass".to_owned(), error))
}

/// A number that is not the same twice, from the kernel.
fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

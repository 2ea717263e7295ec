//! A disk that fails, dies or loses power at an operation of the test's choice.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlockSink, MemorySink};

/// What goes wrong at an operation (write, zero range, flush), counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This one fails, with nothing done.
    Once(u32),
    /// This one and all after it fail.
    Dies(u32),
    /// Before this one the power goes: of what was not flushed, each sector is on the disk or not, by this seed.
    PowerLoss(u32, u64),
}

/// A disk in memory in trouble. Clones share the count of operations.
#[derive(Clone)]
pub struct FrailSink {
    disk: MemorySink,
    state: Arc<Mutex<State>>,
}

struct State {
    trouble: Option<Trouble>,
    operations: u32,
    /// What each unflushed write replaced, in order.
    pending: Vec<(u64, Vec<u8>)>,
    is_dead: bool,
}

impl FrailSink {
    /// `disk` as it is, until the trouble comes.
    pub fn new(disk: &MemorySink, trouble: Option<Trouble>) -> Self {
        let state = State { trouble, operations: 0, pending: Vec::new(), is_dead: false };
        Self { disk: disk.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// How many operations came.
    pub fn operations(&self) -> u32 {
        self.state().operations
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.operations += 1;
        let now = state.operations;
        match state.trouble {
            _ if state.is_dead => {}
            Some(Trouble::Once(at)) if at == now => return Err(io::Error::other("medium error")),
            Some(Trouble::Dies(at)) if at == now => state.is_dead = true,
            Some(Trouble::PowerLoss(at, seed)) if at == now => {
                state.is_dead = true;
                let pending = std::mem::take(&mut state.pending);
                self.forget(pending, seed)?;
            }
            _ => {}
        }
        if state.is_dead { Err(io::Error::other("no such device")) } else { Ok(()) }
    }

    /// Takes back some sectors of what was not flushed, the newest first.
    fn forget(&self, pending: Vec<(u64, Vec<u8>)>, mut seed: u64) -> io::Result<()> {
        let mut disk = self.disk.clone();
        let sector = disk.logical_sector_size();
        for (offset, before) in pending.into_iter().rev() {
            let mut at = offset;
            for part in before.chunks(usize::try_from(sector).map_err(io::Error::other)?) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if seed >> 63 == 1 {
                    disk.write_at(at, part)?;
                }
                at += u64::from(sector);
            }
        }
        Ok(())
    }

    fn keep(&mut self, offset: u64, length: u64) -> io::Result<()> {
        // Whole sectors, as a disk writes them.
        let sector = u64::from(self.disk.logical_sector_size());
        let start = offset - offset % sector;
        let end = (offset + length).next_multiple_of(sector).min(self.disk.size());
        let mut before = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        self.disk.read_at(start, &mut before)?;
        self.state().pending.push((start, before));
        Ok(())
    }
}

impl BlockSink for FrailSink {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn logical_sector_size(&self) -> u32 {
        self.disk.logical_sector_size()
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step()?;
        self.keep(offset, data.len() as u64)?;
        self.disk.write_at(offset, data)
    }

    fn zero_range(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.step()?;
        self.keep(offset, length)?;
        self.disk.zero_range(offset, length)
    }

    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, space)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        self.state().pending.clear();
        Ok(())
    }

    fn committed(&mut self) {
        self.disk.committed();
    }
}

//! Several writes to one device at a time, each on a thread of its own.
//!
//! A device works on many requests at once, and a write waits for its thread to be woken twice. One write after another leaves
//! the device idle in between; a few under way do not. Which of them ends first is of no matter, as long as nothing else
//! touches the same range meanwhile: that is what [`Writers::wait`] is for.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use sys::BlockDevice;

use super::{Located, Slice};

/// Writes under way at a time: one that the device works on, one that it finds next, one that is being handed over.
const THREADS: usize = 3;

/// Writes that wait for a thread. Each keeps a buffer from being filled anew.
const WAITING: usize = 2;

/// The whole device.
pub(super) const ALL: Range<u64> = 0..u64::MAX;

/// The threads and what they have to do. Dropped, it waits for what is under way and leaves the rest.
#[derive(Debug)]
pub(super) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    device: Arc<BlockDevice>,
    state: Mutex<State>,
    /// Something waits to be written, or nothing will any more.
    work: Condvar,
    /// A write has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(u64, Slice)>,
    under_way: Vec<Range<u64>>,
    /// The first failure nobody has heard of.
    failed: Option<Located>,
    closed: bool,
}

impl State {
    fn touches(&self, range: &Range<u64>) -> bool {
        let overlaps = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        self.under_way.iter().any(overlaps)
            || self.waiting.iter().any(|(offset, data)| overlaps(&place(*offset, data)))
    }
}

fn place(offset: u64, data: &[u8]) -> Range<u64> {
    offset..offset.saturating_add(data.len() as u64)
}

impl Writers {
    pub(super) fn start(device: &Arc<BlockDevice>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            device: Arc::clone(device),
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
        });
        let mut writers = Self { shared, threads: Vec::new() };
        for _ in 0..THREADS {
            let shared = Arc::clone(&writers.shared);
            let thread = Builder::new().name("disk-write".into()).spawn(move || shared.write())?;
            writers.threads.push(thread);
        }
        Ok(writers)
    }

    /// **Has `data` written** at `offset`; both aligned as [`BlockDevice::is_aligned`] says. Waits for room, and for what touches the
    /// same range.
    pub(super) fn submit(&self, offset: u64, data: Slice) -> io::Result<()> {
        let range = place(offset, &data);
        let ready = |state: &State| state.waiting.len() < WAITING && !state.touches(&range);
        self.until(ready)?.waiting.push_back((offset, data));
        self.shared.work.notify_one();
        Ok(())
    }

    /// Waits until nothing is under way in this range.
    pub(super) fn wait(&self, range: &Range<u64>) -> io::Result<()> {
        self.until(|state| !state.touches(range)).map(drop)
    }

    /// Waits until the state is `ready`, or a write has failed and nothing else is under way: so an error that was told leaves none
    /// behind it. Bounded by the device's own time limits, as every write is.
    fn until(&self, ready: impl Fn(&State) -> bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.shared.lock();
        loop {
            if state.failed.is_none() && ready(&state) {
                return Ok(state);
            }
            if state.under_way.is_empty()
                && let Some(failed) = state.failed.take()
            {
                return Err(failed.into());
            }
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its last word is in the state, which nobody asks any more
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work of one thread.
    fn write(&self) {
        let mut state = self.lock();
        loop {
            let Some((offset, data)) = state.waiting.pop_front() else {
                if state.closed {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let range = place(offset, &data);
            state.under_way.push(range.clone());
            drop(state);
            let result = self.device.write_at(offset, &data);
            let length = data.len() as u64;
            drop(data); // the buffer is free before anybody hears of it
            state = self.lock();
            state.under_way.retain(|other| *other != range);
            if let Err(source) = result {
                // What comes after a failure is not written: the image is lost, and the disk in trouble.
                state.waiting.clear();
                state.failed.get_or_insert_with(|| Located::new("writing", offset, length, source));
            }
            self.ended.notify_all();
        }
    }
}

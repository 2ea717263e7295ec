//! Chunks of the published file in page-aligned memory, from a pool of fixed size.
//!
//! The pool is what bounds the memory of a write: whoever needs a buffer waits until an earlier chunk has been let go by
//! everyone who works on it. Chunks are shared by reference between hashing, decoding and the writer, never copied.

use std::ops::{Deref, Range};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sys::AlignedBuffer;

use crate::cancel::Cancel;
use crate::error::Error;

/// Size of one chunk: large enough that a device is busy with each write, and the unit of the write and hold-back logic.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// How often a wait looks at the cancel flag.
const CANCEL_TICK: Duration = Duration::from_millis(200);

/// More buffers than any pool here ever has.
const MOST: usize = 64;

/// A bounded set of buffers, each [`CHUNK`] bytes or what the pool was made for. Made on first use.
pub(crate) struct Pool {
    free: Mutex<Receiver<Option<AlignedBuffer>>>,
    give_back: SyncSender<Option<AlignedBuffer>>,
    size: usize,
}

impl Pool {
    /// A pool of `count` buffers of `size` bytes.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        let (give_back, free) = sync_channel(MOST);
        let pool = Self { free: Mutex::new(free), give_back, size };
        pool.grow(count.max(1));
        pool
    }

    /// Adds `count` buffers.
    pub(crate) fn grow(&self, count: usize) {
        for _ in 0..count {
            // A place, not yet a buffer. Never more than the channel holds, so this can not fail.
            let _ = self.give_back.try_send(None);
        }
    }

    /// A buffer; waits until one is free.
    pub(crate) fn take(&self, cancel: &Cancel) -> Result<Buffer, Error> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match free.recv_timeout(CANCEL_TICK) {
                Ok(place) => {
                    let memory = place.unwrap_or_else(|| AlignedBuffer::new(self.size));
                    return Ok(Buffer {
                        memory: Some(memory),
                        filled: 0,
                        home: Some(self.give_back.clone()),
                    });
                }
                Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Pipeline("the buffer pool is gone"));
                }
            }
        }
    }
}

/// A buffer out of the pool; goes back when dropped.
pub(crate) struct Buffer {
    memory: Option<AlignedBuffer>,
    filled: usize,
    /// None where it came from no pool.
    home: Option<SyncSender<Option<AlignedBuffer>>>,
}

impl Buffer {
    /// All of the memory, to be filled.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }

    /// The memory that is not filled yet.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let filled = self.filled;
        self.space().get_mut(filled..).unwrap_or_default()
    }

    /// Counts `count` more bytes as filled.
    pub(crate) fn advance(&mut self, count: usize) {
        let size = self.memory.as_ref().map_or(0, |m| m.len());
        self.filled = self.filled.saturating_add(count).min(size);
    }

    /// Appends as much of `bytes` as fits; says how much.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let count = room.len().min(bytes.len());
        if let (Some(to), Some(from)) = (room.get_mut(..count), bytes.get(..count)) {
            sys::copy_for_another_core(to, from);
        }
        self.advance(count);
        count
    }

    pub(crate) fn is_full(&mut self) -> bool {
        self.room().is_empty()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().and_then(|m| m.get(..self.filled)).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(memory), Some(home)) = (self.memory.take(), &self.home) {
            // Fails only when the pool is gone, and then the memory is freed.
            let _ = home.try_send(Some(memory));
        }
    }
}

/// A part of a shared buffer. The buffer is filled anew when all its parts are gone.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<Buffer>,
    range: Range<usize>,
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

impl Slice {
    pub(crate) fn new(buffer: &Arc<Buffer>, range: Range<usize>) -> Self {
        Self { buffer: Arc::clone(buffer), range }
    }

    /// A part of this part; empty where it would reach beyond it.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        let start = self.range.start.saturating_add(range.start);
        let end = self.range.start.saturating_add(range.end);
        let range = if start <= end && end <= self.range.end { start..end } else { 0..0 };
        Self { buffer: Arc::clone(&self.buffer), range }
    }
}

/// A copy, in page-aligned memory of its own.
impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        let memory = AlignedBuffer::new(bytes.len());
        let mut buffer = Buffer { memory: Some(memory), filled: 0, home: None };
        buffer.append(bytes);
        Self::new(&Arc::new(buffer), 0..bytes.len())
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }
}

/// Consecutive bytes of the published file.
#[derive(Clone)]
pub(crate) struct Chunk {
    /// Offset of the first byte in the published file.
    pub(crate) offset: u64,
    pub(crate) bytes: Arc<Buffer>,
}

impl Chunk {
    /// Offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_inside_what_they_are_a_part_of() {
        let slice = Slice::from(&b"0123456789"[..]).part(2..8);
        assert_eq!(&*slice, b"234567");
        assert_eq!(&*slice.part(1..6), b"34567");
        assert!(slice.part(1..7).is_empty() && slice.part(usize::MAX..usize::MAX).is_empty());
    }

    #[test]
    fn a_pool_hands_out_no_more_than_its_count_and_takes_buffers_back() {
        let pool = Pool::new(2, 8);
        let cancel = Cancel::new();
        let mut first = pool.take(&cancel).unwrap();
        assert_eq!(first.append(b"0123456789"), 8);
        assert_eq!(&*first, b"01234567");
        assert!(first.is_full());
        let second = pool.take(&cancel).unwrap();
        cancel.cancel();
        assert!(matches!(pool.take(&cancel), Err(Error::Cancelled)));
        drop(first);
        let again = pool.take(&cancel).unwrap();
        assert!(again.is_empty(), "a returned buffer starts unfilled");
        drop((again, second));
    }
}

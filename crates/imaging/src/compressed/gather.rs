//! Gathers what comes out of a decompressor into pieces of the disk.
//!
//! A block is looked at for zeroes while it is in this core's cache, and only what is not zero is copied into a buffer for the writer:
//! once it is there it would have to be fetched from memory again (see [`sys::copy_for_another_core`]).

use std::ops::Range;
use std::sync::Arc;

use crate::buffer::{Buffer, Pool, Slice};
use crate::cancel::Cancel;
use crate::pipeline::{Interrupt, Output, Piece};
use crate::raw::{BLOCK, is_zero};

/// Zeroes in a row after which nothing more is waited for: what was gathered goes on its way.
const LONG: u64 = 16 * 1024 * 1024;

/// The next pieces of the disk, and the memory that their data lies in.
pub(super) struct Gather<'g> {
    pool: &'g Pool,
    cancel: &'g Cancel,
    out: &'g Output,
    /// Bytes of the disk so far.
    offset: u64,
    buffer: Option<Buffer>,
    runs: Vec<Run>,
}

/// A part of the disk that is all data or all zero.
enum Run {
    Data { offset: u64, range: Range<usize> },
    Zero { offset: u64, length: u64 },
}

impl<'g> Gather<'g> {
    /// Of a disk from its start. The buffers of the pool hold several blocks each.
    pub(super) fn new(pool: &'g Pool, cancel: &'g Cancel, out: &'g Output) -> Self {
        Self { pool, cancel, out, offset: 0, buffer: None, runs: Vec::new() }
    }

    /// Bytes of the disk so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes of the disk: a [`BLOCK`], but for the last one.
    pub(super) fn push(&mut self, block: &[u8]) -> Result<(), Interrupt> {
        if block.is_empty() {
            return Ok(());
        }
        let (offset, length) = (self.offset, block.len() as u64);
        self.offset = offset.saturating_add(length);
        let enough = if is_zero(block) {
            self.add_zeroes(offset, length) >= LONG
        } else {
            self.add_data(offset, block)? < BLOCK
        };
        if enough { self.flush() } else { Ok(()) }
    }

    /// Says how long the run of zeroes is.
    fn add_zeroes(&mut self, offset: u64, length: u64) -> u64 {
        if let Some(Run::Zero { length: so_far, .. }) = self.runs.last_mut() {
            *so_far = so_far.saturating_add(length);
            return *so_far;
        }
        self.runs.push(Run::Zero { offset, length });
        length
    }

    /// Says how much room the buffer has left, in bytes.
    fn add_data(&mut self, offset: u64, block: &[u8]) -> Result<usize, Interrupt> {
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.pool.take(self.cancel)?,
        };
        let buffer = self.buffer.insert(buffer);
        let start = buffer.len();
        let end = start + buffer.append(block);
        match self.runs.last_mut() {
            // Data that follows on data lies behind it in the buffer as well.
            Some(Run::Data { range, .. }) => range.end = end,
            _ => self.runs.push(Run::Data { offset, range: start..end }),
        }
        Ok(buffer.room().len())
    }

    /// Passes on what was gathered.
    pub(super) fn flush(&mut self) -> Result<(), Interrupt> {
        let buffer = self.buffer.take().map(Arc::new);
        for run in self.runs.drain(..) {
            match (run, &buffer) {
                (Run::Zero { offset, length }, _) => self.out.send(Piece::Zero { offset, length })?,
                (Run::Data { offset, range }, Some(buffer)) => {
                    self.out.send(Piece::Data { offset, bytes: Slice::new(buffer, range) })?;
                }
                (Run::Data { .. }, None) => {} // data is never without its buffer
            }
        }
        Ok(())
    }
}

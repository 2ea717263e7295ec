//! The raw format: the file is the disk. Finds runs of zeroes, so that the device can zero them itself.

use crate::buffer::{Chunk, Slice};
use crate::pipeline::{Interrupt, Output, Piece};

/// Zeroes are looked for in aligned blocks of this size: smaller ones are as quickly written as zeroed by command.
pub(crate) const BLOCK: usize = 64 * 1024;

/// Passes one chunk on as data and zero ranges.
pub(crate) fn push(chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
    let bytes = &chunk.bytes;
    let mut run = 0..0;
    let mut run_is_zero = false;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let start = index * BLOCK;
        let zero = is_zero(block);
        if zero != run_is_zero && !run.is_empty() {
            emit(chunk, run.clone(), run_is_zero, out)?;
            run = start..start;
        }
        run_is_zero = zero;
        run.end = start + block.len();
    }
    if run.is_empty() { Ok(()) } else { emit(chunk, run, run_is_zero, out) }
}

fn emit(chunk: &Chunk, run: std::ops::Range<usize>, zero: bool, out: &Output) -> Result<(), Interrupt> {
    let offset = chunk.offset + run.start as u64;
    out.send(if zero {
        Piece::Zero { offset, length: run.len() as u64 }
    } else {
        Piece::Data { offset, bytes: Slice::new(&chunk.bytes, run) }
    })
}

/// Whether all bytes are zero. The accumulating form is what the compiler turns into wide loads.
pub(crate) fn is_zero(block: &[u8]) -> bool {
    block.chunks(512).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

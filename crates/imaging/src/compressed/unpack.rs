//! The decoder of a compressed raw image: a thread that decompresses, so that the one that feeds it can hash on.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::Compression;
use crate::buffer::{Buffer, CHUNK, Chunk, Pool};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::pipeline::{Decoder, Interrupt, Output};
use crate::raw;

/// Published chunks under way to the decompressor. The network's pool bounds them as well.
const CHUNKS_UNDER_WAY: usize = 2;

/// Chunks of the disk: one that is filled, and what the writer has not put onto the disk yet.
const POOL: usize = 4;

/// Memory that stays in this core's cache. Decompressing straight into the pool's buffers, which other cores have just read, took
/// a third longer (see [`sys::copy_for_another_core`]).
const SCRATCH: usize = 64 * 1024;

/// Feeds the thread that decompresses. The thread starts with the first chunk.
pub(crate) struct Unpack {
    compression: Compression,
    memory: u64,
    cancel: Cancel,
    worker: Option<Worker>,
}

struct Worker {
    /// `None` is the end of the file.
    chunks: SyncSender<Option<Chunk>>,
    thread: JoinHandle<Result<u64, Interrupt>>,
}

impl Unpack {
    pub(crate) fn new(compression: Compression, memory: u64, cancel: Cancel) -> Self {
        Self { compression, memory, cancel, worker: None }
    }

    fn start(&self, out: &Output) -> Result<Worker, Interrupt> {
        let (chunks, arriving) = sync_channel(CHUNKS_UNDER_WAY);
        let (compression, memory) = (self.compression, self.memory);
        let (cancel, out) = (self.cancel.clone(), out.clone());
        let thread = Builder::new()
            .name("image-unpack".into())
            .spawn(move || unpack(compression, memory, arriving, &cancel, &out))
            .map_err(|_| Error::Pipeline("a thread could not be started"))?;
        Ok(Worker { chunks, thread })
    }

    /// Hands one message over; if nobody takes it, the thread's own reason.
    fn send(&mut self, message: Option<Chunk>, out: &Output) -> Result<(), Interrupt> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start(out)?,
        };
        if worker.chunks.send(message).is_err() {
            return Err(worker.end().err().unwrap_or(Interrupt::HungUp));
        }
        self.worker = Some(worker);
        Ok(())
    }
}

impl Worker {
    /// The size of the disk, or why there is none.
    fn end(self) -> Result<u64, Interrupt> {
        drop(self.chunks);
        self.thread.join().unwrap_or_else(|_| Err(Error::Pipeline("a thread panicked").into()))
    }
}

impl Decoder for Unpack {
    fn push(&mut self, chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
        self.send(Some(chunk.clone()), out)
    }

    fn finish(mut self: Box<Self>, _length: u64, out: &Output) -> Result<u64, Interrupt> {
        self.send(None, out)?;
        self.worker.take().map_or(Err(Interrupt::HungUp), Worker::end)
    }
}

fn unpack(
    compression: Compression,
    memory: u64,
    arriving: Receiver<Option<Chunk>>,
    cancel: &Cancel,
    out: &Output,
) -> Result<u64, Interrupt> {
    let hung_up = Arc::new(AtomicBool::new(false));
    let file = File { arriving, current: None, at: 0, ended: false, hung_up: Arc::clone(&hung_up) };
    let mut offset = 0u64;
    // A feeder that is gone knows why; the decompressor only sees a file that breaks off.
    let failed = |error: io::Error, offset: u64| match hung_up.load(Ordering::Relaxed) {
        true => Interrupt::HungUp,
        false => compression.failure(error, offset, memory).into(),
    };
    let mut decoder = compression.open(file, memory).map_err(|error| failed(error, 0))?;
    let pool = Pool::new(POOL, CHUNK);
    let mut scratch = vec![0; SCRATCH];
    loop {
        let mut buffer = pool.take(cancel)?;
        let ended = fill(decoder.as_mut(), &mut scratch, &mut buffer);
        let length = buffer.len() as u64;
        if length > 0 {
            raw::push(&Chunk { offset, bytes: Arc::new(buffer) }, out)?;
        }
        offset = offset.saturating_add(length);
        match ended {
            Ok(false) => {}
            Ok(true) => return Ok(offset),
            Err(error) => return Err(failed(error, offset)),
        }
    }
}

/// Fills the buffer, by way of `scratch`; true at the end of the disk.
fn fill(decoder: &mut dyn Read, scratch: &mut [u8], buffer: &mut Buffer) -> io::Result<bool> {
    while !buffer.is_full() {
        let most = buffer.room().len().min(scratch.len());
        match decoder.read(scratch.get_mut(..most).unwrap_or_default()) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                buffer.append(scratch.get(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The published file as it comes in.
struct File {
    arriving: Receiver<Option<Chunk>>,
    current: Option<Chunk>,
    /// Bytes of the current chunk that were taken.
    at: usize,
    ended: bool,
    hung_up: Arc<AtomicBool>,
}

impl File {
    fn left(&self) -> &[u8] {
        self.current.as_ref().and_then(|chunk| chunk.bytes.get(self.at..)).unwrap_or_default()
    }
}

impl BufRead for File {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.left().is_empty() && !self.ended {
            // Let go of before waiting: the pool may need it.
            self.current = None;
            self.at = 0;
            match self.arriving.recv() {
                Ok(Some(chunk)) => self.current = Some(chunk),
                Ok(None) => self.ended = true,
                Err(_) => {
                    self.hung_up.store(true, Ordering::Relaxed);
                    return Err(io::Error::other("the transfer was given up"));
                }
            }
        }
        Ok(self.left())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount);
    }
}

impl Read for File {
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

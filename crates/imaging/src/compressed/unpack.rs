//! The decoder of a compressed raw image: a thread that decompresses, so that the one that feeds it can hash on.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::gather::Gather;
use super::{Compression, Decode, DecoderMemory};
use crate::buffer::{CHUNK, Chunk, Pool};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::format::Format;
use crate::inspect::{self, Checks};
use crate::pipeline::{Decoder, Interrupt, Output};
use crate::raw::BLOCK;

/// Published chunks under way to the decompressor. The network's pool bounds them as well.
const CHUNKS_UNDER_WAY: usize = 2;

/// Chunks of the disk: one that is filled, and what the writer has not put onto the disk yet.
const POOL: usize = 4;

/// Feeds the thread that decompresses. The thread starts with the first chunk.
pub(crate) struct Unpack {
    compression: Compression,
    memory: DecoderMemory,
    look: Look,
    cancel: Cancel,
    worker: Option<Worker>,
}

/// The declared format and the checks that the first bytes of the disk are held to, where they did not come out of the file's first
/// bytes and were not looked at before.
type Look = Option<(Format, Checks)>;

struct Worker {
    /// `None` is the end of the file.
    chunks: SyncSender<Option<Chunk>>,
    thread: JoinHandle<Result<u64, Interrupt>>,
}

impl Unpack {
    pub(crate) fn new(compression: Compression, memory: DecoderMemory, look: Look, cancel: Cancel) -> Self {
        Self { compression, memory, look, cancel, worker: None }
    }

    fn start(&self, out: &Output) -> Result<Worker, Interrupt> {
        let (chunks, arriving) = sync_channel(CHUNKS_UNDER_WAY);
        let (compression, memory, look) = (self.compression, self.memory, self.look.clone());
        let (cancel, out) = (self.cancel.clone(), out.clone());
        let thread = Builder::new()
            .name("image-unpack".into())
            .spawn(move || unpack(compression, memory, look, arriving, &cancel, &out))
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
    memory: DecoderMemory,
    mut look: Look,
    arriving: Receiver<Option<Chunk>>,
    cancel: &Cancel,
    out: &Output,
) -> Result<u64, Interrupt> {
    let hung_up = Arc::new(AtomicBool::new(false));
    let file = File { arriving, current: None, at: 0, ended: false, hung_up: Arc::clone(&hung_up) };
    // A feeder that is gone knows why; the decompressor only sees a file that breaks off.
    let failed = |error: io::Error, offset: u64| match hung_up.load(Ordering::Relaxed) {
        true => Interrupt::HungUp,
        false => compression.failure(error, offset, memory).into(),
    };
    let mut decoder = compression.open(file, memory.bytes()).map_err(|error| failed(error, 0))?;
    let pool = Pool::new(POOL, CHUNK);
    let mut gather = Gather::new(&pool, cancel, out);
    let mut block = vec![0; BLOCK];
    loop {
        let (length, ended) = fill(decoder.as_mut(), &mut block);
        let filled = block.get(..length).unwrap_or_default();
        if let Some((declared, checks)) = look.take() {
            inspect::judge(declared, &checks, Some(compression), filled).map_err(Error::from)?;
        }
        gather.push(filled)?;
        match ended {
            Ok(false) => {}
            Ok(true) => {
                gather.flush()?;
                report_trailer(compression, decoder.as_ref());
                return Ok(gather.offset());
            }
            Err(error) => return Err(failed(error, gather.offset())),
        }
    }
}

/// Logs what lay behind the last member: padding is usual, anything else is worth a look.
fn report_trailer(compression: Compression, decoder: &dyn Decode) {
    if let Some(trailer) = decoder.trailer().filter(|trailer| trailer.bytes > 0) {
        let bytes = trailer.bytes;
        match trailer.zero {
            true => {
                tracing::info!(%compression, bytes, "zero padding behind the compressed image was ignored")
            }
            false => tracing::warn!(
                %compression,
                bytes,
                "bytes behind the compressed image were ignored; the digest covers them"
            ),
        }
    }
}

/// Fills the block. Says how far, and whether that is the end of the disk.
fn fill(decoder: &mut dyn Decode, block: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
        match decoder.read(room) {
            Ok(0) => return (filled, Ok(true)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(false))
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

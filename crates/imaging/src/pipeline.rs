//! The threads of one pass over an image, and what flows between them.
//!
//! Network thread: fills chunks. Hashing thread: digests them, and nothing else, as it is the slowest stage of a raw image. Decoding
//! thread: takes the same chunks apart into pieces of the disk, handing compressed clusters to a few inflating threads. Calling
//! thread: hands the pieces to the disk, which writes several at a time. The channels are short and chunks come from a fixed pool, so the slowest stage
//! sets the pace and memory stays what it is at the start. A stage that fails drops its ends of the channels, and the others
//! hang up in turn; the first real reason wins.
//!
//! Memory that went through another thread is not written by ordinary stores: see [`sys::copy_for_another_core`].

use std::num::NonZero;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope};
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::buffer::{Buffer, CHUNK, Chunk, Pool, Slice};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::hold_back::Unverified;
use crate::progress::{Meter, Teller};
use crate::proof::{Expected, Sums};
use crate::qcow2::{Batch, Decompressor};
use crate::source::Source;

/// Chunks under way from the network to the decoder: enough to bridge a slow write, few enough to be cheap.
const CHUNKS_UNDER_WAY: usize = 3;

/// Pieces under way to the writer. Many small pieces share one chunk, so this is no memory bound; the pool is.
const PIECES_UNDER_WAY: usize = 16;

/// Inflating threads at the most: more than enough for the fastest network.
const INFLATERS: usize = 4;

/// As [`INFLATERS`], where a cluster is larger than a chunk: each thread then holds megabytes.
const INFLATERS_OF_LARGE: usize = 2;

/// Clusters up to this many bytes are inflated in memory that stays in a core's cache, and copied from there: straight into the
/// pool's buffers, which another core has just read, they took half as long again.
const SCRATCH: usize = 256 * 1024;

/// Batches of compressed clusters under way to the inflating threads.
const BATCHES_UNDER_WAY: usize = 2;

/// Chunks in the pool: those under way, and one that is filled while another one is digested.
pub(crate) const POOL: usize = CHUNKS_UNDER_WAY + 2;

/// Chunks besides, where pieces of the disk lie in chunks of the file: those that the disk has not taken yet.
pub(crate) const POOL_OF_PIECES: usize = 3;

/// The most that is zeroed between two looks at the cancel flag.
const ZERO_STEP: u64 = 256 * 1024 * 1024;

/// How often a waiting writer looks at the cancel flag.
const TICK: Duration = Duration::from_millis(200);

/// Why a stage ended early.
pub(crate) enum Interrupt {
    /// It failed.
    Failed(Error),
    /// The bytes so far are void: start over.
    Restart(String),
    /// A neighbour ended first and knows why.
    HungUp,
}

impl From<Error> for Interrupt {
    fn from(error: Error) -> Self {
        Interrupt::Failed(error)
    }
}

/// A part of the disk image.
pub(crate) enum Piece {
    Data { offset: u64, bytes: Slice },
    Zero { offset: u64, length: u64 },
}

/// The decoder's way to the writer. The writer goes on as long as one of its clones lives.
#[derive(Clone)]
pub(crate) struct Output {
    pieces: SyncSender<Piece>,
    batches: SyncSender<Batch>,
}

impl Output {
    pub(crate) fn send(&self, piece: Piece) -> Result<(), Interrupt> {
        self.pieces.send(piece).map_err(|_| Interrupt::HungUp)
    }

    /// Has compressed clusters inflated, and the result sent.
    pub(crate) fn batch(&self, batch: Batch) -> Result<(), Interrupt> {
        self.batches.send(batch).map_err(|_| Interrupt::HungUp)
    }
}

/// Takes the published bytes apart into pieces of the disk.
pub(crate) trait Decoder: Send {
    /// The next bytes of the file. Chunks come in order and without gaps.
    fn push(&mut self, chunk: &Chunk, out: &Output) -> Result<(), Interrupt>;
    /// The file ended, after `length` bytes. Says the size of the disk image.
    fn finish(self: Box<Self>, length: u64, out: &Output) -> Result<u64, Interrupt>;
}

/// What a pass over the whole file found.
pub(crate) struct Passed {
    pub(crate) sums: Sums,
    pub(crate) virtual_size: u64,
}

enum Message {
    Chunk(Chunk),
    End,
}

/// A runtime for the network: one thread, whoever blocks on it.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|_| Error::Pipeline("no network runtime could be started"))
}

/// What one pass works with.
pub(crate) struct Pass<'p> {
    pub(crate) runtime: &'p Runtime,
    pub(crate) pool: &'p Pool,
    pub(crate) cancel: &'p Cancel,
    pub(crate) meter: &'p Meter<'p>,
    pub(crate) expected: Expected<'p>,
    /// Bytes of a compressed cluster at the most; `None` if there are none.
    pub(crate) compressed: Option<usize>,
}

/// The first damage found in an image. It is not told at once: the rest of the file is still digested, so that damage in
/// transfer is told as what it is, a digest that does not match.
#[derive(Default)]
struct Damage(Mutex<Option<Error>>);

impl Damage {
    fn note(&self, error: Error) {
        tracing::warn!(error = error.report(), "the image is damaged, reading on for its digest");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Streams the whole file through `decoder` **onto the disk**. `first` is its first chunk, already read.
pub(crate) fn stream(
    pass: &Pass<'_>,
    source: &mut Source<'_>,
    first: Buffer,
    decoder: Box<dyn Decoder + '_>,
    disk: &mut Unverified<'_>,
) -> Result<Passed, Interrupt> {
    let damage = Damage::default();
    let largest = pass.compressed.unwrap_or(0);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (inflaters, inflated) = match largest > CHUNK {
        true => (cores.min(INFLATERS_OF_LARGE), Pool::new(INFLATERS_OF_LARGE + 1, largest)),
        false => (cores.min(INFLATERS), Pool::new(cores.min(INFLATERS) + 2, CHUNK)),
    };
    let (batches, queue) = sync_channel(BATCHES_UNDER_WAY);
    // Shared by the inflating threads alone: when they are gone, sending to them fails.
    let queue = Arc::new(Mutex::new(queue));
    let receiving = &mut *source;
    let mut passed = scope(|scope| {
        let (chunks, arriving) = sync_channel(CHUNKS_UNDER_WAY);
        let (to_hash, hashing) = sync_channel(CHUNKS_UNDER_WAY);
        let (pieces, coming) = sync_channel(PIECES_UNDER_WAY);
        let network = spawn(scope, "image-network", move || {
            pass.runtime.block_on(receive(receiving, first, pass.pool, pass.cancel, &chunks))
        })?;
        let hash = spawn(scope, "image-hash", move || hash(pass, &hashing))?;
        let mut inflating = Vec::new();
        if pass.compressed.is_some() {
            for _ in 0..inflaters {
                let pieces = pieces.clone();
                let (queue, inflated, damage) = (Arc::clone(&queue), &inflated, &damage);
                inflating.push(spawn(scope, "image-inflate", move || {
                    inflate(&queue, inflated, &pieces, damage, pass.cancel)
                })?);
            }
        }
        drop(queue);
        let noted = &damage;
        let decoding = spawn(scope, "image-decode", move || {
            decode(decoder, &arriving, &to_hash, &Output { pieces, batches }, noted)
        })?;
        let mut teller = pass.meter.teller();
        let mut result = write(disk, coming, pass, &mut teller);
        for thread in inflating {
            result = first_reason(result, join(thread)).map(|((), ())| ());
        }
        let decoded = join(decoding);
        let sums = join(hash);
        let received = join(network);
        // The last word, when nobody counts any more: digesting may have gone on after the last write.
        teller.tell_now(disk.covered());
        // Whoever stops first makes its neighbours hang up, so what is more than a hang-up is the reason.
        let ends = first_reason(first_reason(decoded, sums), received);
        first_reason(result, ends).map(|((), ((virtual_size, sums), ()))| Passed { sums, virtual_size })
    })?;
    // Servers may name the compression of a file as an encoding: its digest is then that of what they sent.
    if let Some(as_sent) = source.take_sums_as_sent()
        && pass.expected.is_digest_of(&as_sent)
    {
        passed.sums = as_sent;
    }
    match damage.take() {
        None => Ok(passed),
        Some(error) => Err(pass.expected.prove(&passed.sums).err().unwrap_or(error).into()),
    }
}

/// Both results, or the first that is more than a hang-up.
fn first_reason<A, B>(a: Result<A, Interrupt>, b: Result<B, Interrupt>) -> Result<(A, B), Interrupt> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(Interrupt::HungUp), Err(reason)) | (Err(reason), _) | (Ok(_), Err(reason)) => Err(reason),
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Interrupt> {
    Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(|_| Error::Pipeline("a thread could not be started").into())
}

fn join<T>(handle: ScopedJoinHandle<'_, Result<T, Interrupt>>) -> Result<T, Interrupt> {
    handle.join().unwrap_or_else(|_| Err(Error::Pipeline("a thread panicked").into()))
}

async fn receive(
    source: &mut Source<'_>,
    first: Buffer,
    pool: &Pool,
    cancel: &Cancel,
    chunks: &SyncSender<Message>,
) -> Result<(), Interrupt> {
    let mut buffer = first;
    let mut offset = 0u64;
    loop {
        let last = !buffer.is_full();
        let length = buffer.len() as u64;
        if length > 0 {
            // Blocking here is the back-pressure: this thread has nothing else to do, and TCP does the rest.
            let chunk = Chunk { offset, bytes: Arc::new(buffer) };
            chunks.send(Message::Chunk(chunk)).map_err(|_| Interrupt::HungUp)?;
        }
        offset += length;
        if last {
            return chunks.send(Message::End).map_err(|_| Interrupt::HungUp);
        }
        buffer = pool.take(cancel)?;
        source.fill(&mut buffer).await?;
    }
}

/// Digests the chunks as they come, until there are no more.
fn hash(pass: &Pass<'_>, arriving: &Receiver<Chunk>) -> Result<Sums, Interrupt> {
    let mut sums = pass.expected.start();
    while let Ok(chunk) = arriving.recv() {
        sums.update(&chunk.bytes);
        pass.meter.received(chunk.bytes.len() as u64);
    }
    Ok(sums.finish())
}

/// Says the size of the disk image.
fn decode(
    decoder: Box<dyn Decoder + '_>,
    arriving: &Receiver<Message>,
    to_hash: &SyncSender<Chunk>,
    out: &Output,
    damage: &Damage,
) -> Result<u64, Interrupt> {
    let mut published_bytes = 0u64;
    let mut virtual_size = 0;
    // Gone once it has found damage.
    let mut decoder = Some(decoder);
    let sound = |result: Result<(), Interrupt>| match result {
        Ok(()) => Ok(true),
        Err(Interrupt::Failed(error)) if error.may_be_damage() => {
            damage.note(error);
            Ok(false)
        }
        Err(interrupt) => Err(interrupt),
    };
    loop {
        match arriving.recv() {
            Ok(Message::Chunk(chunk)) => {
                published_bytes = chunk.end();
                to_hash.send(chunk.clone()).map_err(|_| Interrupt::HungUp)?;
                if let Some(working) = &mut decoder
                    && !sound(working.push(&chunk, out))?
                {
                    decoder = None;
                }
            }
            Ok(Message::End) => {
                if let Some(decoder) = decoder {
                    sound(decoder.finish(published_bytes, out).map(|size| virtual_size = size))?;
                }
                return Ok(virtual_size);
            }
            Err(_) => return Err(Interrupt::HungUp),
        }
    }
}

/// Inflates batches until there are no more.
fn inflate(
    queue: &Mutex<Receiver<Batch>>,
    pool: &Pool,
    pieces: &SyncSender<Piece>,
    damage: &Damage,
    cancel: &Cancel,
) -> Result<(), Interrupt> {
    let mut decompressor = Decompressor::new();
    let mut scratch = vec![0; SCRATCH];
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return Ok(()) };
        let mut buffer = pool.take(cancel)?;
        let mut broken = false;
        for (host, input) in &batch.inputs {
            let inflated = match scratch.get_mut(..batch.cluster) {
                Some(space) => decompressor.cluster(batch.codec, input, space).map(|()| {
                    buffer.append(space);
                }),
                None => {
                    let space = buffer.room().get_mut(..batch.cluster).unwrap_or_default();
                    decompressor.cluster(batch.codec, input, space).map(|()| buffer.advance(batch.cluster))
                }
            };
            if let Err(error) = inflated {
                damage.note(Error::Qcow2 { offset: *host, source: error });
                broken = true;
                break;
            }
        }
        if broken {
            continue;
        }
        let bytes = Slice::new(&Arc::new(buffer), 0..batch.length);
        pieces.send(Piece::Data { offset: batch.guest, bytes }).map_err(|_| Interrupt::HungUp)?;
    }
}

/// Puts pieces onto the disk until the decoder hangs up. Whether it hung up at the end or in trouble is for the decoder
/// to say.
fn write(
    disk: &mut Unverified<'_>,
    coming: Receiver<Piece>,
    pass: &Pass<'_>,
    teller: &mut Teller<'_>,
) -> Result<(), Interrupt> {
    let mut zeroes = Zeroes::default();
    loop {
        if pass.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        teller.tell(disk.covered());
        match coming.recv_timeout(TICK) {
            Ok(Piece::Zero { offset, length }) => {
                if let Some((offset, length)) = zeroes.add(offset, length) {
                    zero(disk, offset, length, pass, teller)?;
                }
            }
            Ok(Piece::Data { offset, bytes }) => {
                if let Some((offset, length)) = zeroes.take() {
                    zero(disk, offset, length, pass, teller)?;
                }
                disk.submit(offset, &bytes)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some((offset, length)) = zeroes.take() {
        zero(disk, offset, length, pass, teller)?;
    }
    Ok(())
}

fn zero(
    disk: &mut Unverified<'_>,
    offset: u64,
    length: u64,
    pass: &Pass<'_>,
    teller: &mut Teller<'_>,
) -> Result<(), Interrupt> {
    let mut at = offset;
    let mut left = length;
    while left > 0 {
        if pass.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let step = left.min(ZERO_STEP);
        disk.zero_range(at, step)?;
        teller.tell(disk.covered());
        at = at.saturating_add(step);
        left -= step;
    }
    Ok(())
}

/// Joins neighbouring zero ranges into one command for the device.
#[derive(Default)]
struct Zeroes(Option<(u64, u64)>);

impl Zeroes {
    /// Adds a range; gives back an earlier one that it does not continue.
    fn add(&mut self, offset: u64, length: u64) -> Option<(u64, u64)> {
        match &mut self.0 {
            Some((start, so_far)) if start.checked_add(*so_far) == Some(offset) && *so_far < ZERO_STEP => {
                *so_far = so_far.saturating_add(length);
                None
            }
            other => other.replace((offset, length)),
        }
    }

    fn take(&mut self) -> Option<(u64, u64)> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_zero_ranges_become_one() {
        let mut zeroes = Zeroes::default();
        assert_eq!(zeroes.add(0, 10), None);
        assert_eq!(zeroes.add(10, 5), None);
        assert_eq!(zeroes.add(20, 5), Some((0, 15)));
        assert_eq!(zeroes.take(), Some((20, 5)));
        assert_eq!(zeroes.take(), None);
    }
}

//! A check of the disk image before anything is written, by a caller that knows what else goes onto the disk: this crate knows no
//! partition tables.

use std::fmt::Debug;
use std::io::{self, BufReader, Read};
use std::panic::RefUnwindSafe;
use std::time::Duration;

use events::Events;
use tokio::runtime::Runtime;

use crate::buffer::{Buffer, CHUNK, Pool};
use crate::cancel::Cancel;
use crate::compressed::Compression;
use crate::qcow2;
use crate::request::{ImageRequest, Transport};
use crate::source::Source;

/// Limit for each wait of a second download.
const SECOND_TIMEOUT: Duration = Duration::from_secs(10);

/// Judges a disk image by its first bytes.
pub trait Preflight: Debug + RefUnwindSafe + Send + Sync {
    /// Checks the image for a disk of `disk` bytes. Called before anything is written.
    ///
    /// # Errors
    /// Why the image may not be written, and what to do.
    fn judge(&self, image: &mut dyn Peek, disk: u64) -> Result<(), String>;
}

/// Reads the disk image that is about to be written. What is seen is a hint: the bytes that are written are held to the digest.
pub trait Peek {
    /// The first bytes: 64 KiB, or all there are. Empty where they cannot be read yet.
    fn head(&self) -> &[u8];

    /// Returns up to `length` bytes at `offset`, `None` where they cannot be read before the image is written. Where the image is
    /// compressed, or the server sends no parts of files, everything in front of `offset` is downloaded.
    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

/// How the disk image is packed in the published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// As qcow2.
    Qcow2,
    /// In a compressed stream.
    Stream(Compression),
}

/// A published file that has just been opened.
pub(crate) struct Opened<'s, 'a> {
    pub(crate) runtime: &'s Runtime,
    pub(crate) request: &'s ImageRequest,
    pub(crate) transport: &'s Transport,
    pub(crate) cancel: &'s Cancel,
    pub(crate) source: &'s mut Source<'a>,
    pub(crate) packing: Packing,
    /// Size of the published file, where known.
    pub(crate) total: Option<u64>,
    /// The first bytes of the published file.
    pub(crate) first: &'s [u8],
    /// The first bytes of the disk image.
    pub(crate) head: Vec<u8>,
}

impl Peek for Opened<'_, '_> {
    fn head(&self) -> &[u8] {
        &self.head
    }

    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        if let Some(bytes) = start.checked_add(length).and_then(|end| self.head.get(start..end)) {
            return Some(bytes.to_vec());
        }
        match self.packing {
            Packing::Stream(compression) => self.skip_to(Some(compression), offset, length),
            Packing::Qcow2 => {
                let length = u64::try_from(length).ok()?;
                let peek = qcow2::peek(self.source, self.total, self.first, offset, length);
                self.runtime.block_on(peek).ok().flatten()
            }
            Packing::Plain => {
                if let Some(bytes) = start.checked_add(length).and_then(|end| self.first.get(start..end)) {
                    return Some(bytes.to_vec());
                }
                let part = self.source.part(offset, u64::try_from(length).ok()?);
                self.runtime.block_on(part).ok().flatten().or_else(|| self.skip_to(None, offset, length))
            }
        }
    }
}

impl Opened<'_, '_> {
    /// Reads from a second download, from its first byte on.
    fn skip_to(&self, compression: Option<Compression>, offset: u64, length: usize) -> Option<Vec<u8>> {
        tracing::info!(offset, "a part of the image is looked for in a second download");
        // A server that serves one connection at a time would keep this one waiting.
        let transport = Transport {
            attempts: 1,
            connect_timeout: self.transport.connect_timeout.min(SECOND_TIMEOUT),
            ..self.transport.clone()
        };
        let events = Events::default();
        let source = Source::new(
            &self.request.sources,
            self.request.authorization.as_ref(),
            &self.request.proxies,
            &transport,
            &events,
            self.cancel,
        )
        .ok()?;
        let second = Second {
            runtime: self.runtime,
            cancel: self.cancel,
            pool: Pool::new(1, CHUNK),
            source,
            buffer: None,
            taken: 0,
        };
        let read = match compression {
            None => part(second, offset, length),
            Some(compression) => {
                let packed = BufReader::with_capacity(64 << 10, second);
                let decoder = compression.content(packed, self.transport.decoder_memory);
                decoder.and_then(|decoder| part(decoder, offset, length))
            }
        };
        read.inspect_err(|error| tracing::debug!(%error, offset, "the second download failed")).ok()
    }
}

fn part(mut from: impl Read, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let skipped = io::copy(&mut from.by_ref().take(offset), &mut io::sink())?;
    let mut bytes = Vec::new();
    if skipped == offset {
        from.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The published file from its first byte on, read while nothing else runs.
struct Second<'s, 't> {
    runtime: &'s Runtime,
    cancel: &'s Cancel,
    pool: Pool,
    source: Source<'t>,
    buffer: Option<Buffer>,
    taken: usize,
}

impl Read for Second<'_, '_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.buffer.as_ref().is_none_or(|buffer| buffer.len() <= self.taken) {
            self.buffer = None;
            let mut buffer = self.pool.take(self.cancel).map_err(io::Error::other)?;
            let filled = self.runtime.block_on(self.source.fill(&mut buffer));
            filled.map_err(|_| io::Error::other("the transfer broke off"))?;
            (self.buffer, self.taken) = (Some(buffer), 0);
        }
        let rest = self.buffer.as_ref().and_then(|buffer| buffer.get(self.taken..)).unwrap_or_default();
        let count = rest.len().min(space.len());
        if let (Some(to), Some(from)) = (space.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

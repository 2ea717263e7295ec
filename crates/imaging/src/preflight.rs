//! A check of the disk image before anything is written, by a caller that knows what else goes onto the disk: this crate knows no
//! partition tables.

use std::fmt::Debug;
use std::panic::RefUnwindSafe;
use std::time::Duration;

use events::Events;
use tokio::runtime::Runtime;

use crate::buffer::{CHUNK, Pool};
use crate::cancel::Cancel;
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

    /// Returns up to `length` bytes at `offset`, `None` where they cannot be read before the image is written. From a server
    /// that sends no parts of files, everything in front of `offset` is downloaded.
    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

/// How the disk image is packed in the published file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// As qcow2.
    Qcow2,
    /// In a compressed stream, of which only the first bytes are known.
    Stream,
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
            Packing::Stream => None,
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
                self.runtime.block_on(part).ok().flatten().or_else(|| self.skip_to(offset, length))
            }
        }
    }
}

impl Opened<'_, '_> {
    /// Reads from a second download, from its first byte on.
    fn skip_to(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        tracing::info!(offset, "the server sends no parts of the image; reading its start twice");
        // A server that serves one connection at a time would keep this one waiting.
        let transport = Transport {
            attempts: 1,
            connect_timeout: self.transport.connect_timeout.min(SECOND_TIMEOUT),
            ..self.transport.clone()
        };
        let events = Events::default();
        let mut source = Source::new(
            &self.request.sources,
            self.request.authorization.as_ref(),
            &self.request.proxies,
            &transport,
            &events,
            self.cancel,
        )
        .ok()?;
        let pool = Pool::new(1, CHUNK);
        let end = offset.checked_add(u64::try_from(length).ok()?)?;
        let mut found = Vec::new();
        let mut at = 0u64;
        while at < end {
            let mut buffer = pool.take(self.cancel).ok()?;
            self.runtime.block_on(source.fill(&mut buffer)).ok()?;
            if buffer.is_empty() {
                break;
            }
            let count = u64::try_from(buffer.len()).ok()?;
            let from = usize::try_from(offset.saturating_sub(at).min(count)).ok()?;
            let to = usize::try_from(end.saturating_sub(at).min(count)).ok()?;
            found.extend_from_slice(buffer.get(from..to)?);
            at = at.checked_add(count)?;
        }
        Some(found)
    }
}

//! Takes a qcow2 file apart in the order in which it streams by.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use super::Qcow2Error;
use super::decompress::{Batch, Input};
use super::header::Header;
use super::map::{Extent, Kind, Map};
use super::tables::{Zeroes, missing_l2, parse_l1, parse_l2};
use crate::buffer::{CHUNK, Chunk, Slice};

use crate::error::Error;
use crate::pipeline::{Decoder, Interrupt, Output, Piece};

/// Chunks that the stream runs ahead of the writing where the tables are learnt from it. `qemu-img convert` writes a table
/// a few clusters after the first data it maps (measured: five at the most), `-W` a few more.
pub(super) const LAG: usize = 12;

/// The most compressed bytes gathered from several chunks at a time. Two clusters of the largest size, and some.
const GATHERED: usize = 8 * 1024 * 1024;

/// Bytes of the file that must equal what was read before.
pub(crate) struct Watch {
    offset: u64,
    length: u64,
    expected: [u8; 32],
    seen: Sha256,
    /// Bytes in `seen`.
    count: u64,
}

impl Watch {
    pub(crate) fn new(offset: u64, length: u64, expected: [u8; 32]) -> Self {
        Self { offset, length, expected, seen: Sha256::new(), count: 0 }
    }

    /// Looks at a chunk; `true` once all bytes were seen.
    fn look(&mut self, chunk: &Chunk) -> Result<bool, Error> {
        let from = self.offset + self.count;
        let to = (self.offset + self.length).min(chunk.end());
        if from < to && from >= chunk.offset {
            self.seen.update(part(chunk, from, to));
            self.count += to - from;
        }
        if self.count < self.length {
            return Ok(false);
        }
        let seen: [u8; 32] = std::mem::take(&mut self.seen).finalize().into();
        if seen == self.expected { Ok(true) } else { Err(Qcow2Error::Changed.at(self.offset)) }
    }
}

/// The bytes of `chunk` that are at the file offsets `from..to`.
fn range(chunk: &Chunk, from: u64, to: u64) -> std::ops::Range<usize> {
    // Both lie inside the chunk, which is far smaller than any usize.
    let at = |offset: u64| usize::try_from(offset.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
    at(from)..at(to)
}

fn part(chunk: &Chunk, from: u64, to: u64) -> &[u8] {
    chunk.bytes.get(range(chunk, from, to)).unwrap_or_default()
}

/// An extent of which some bytes have come by and some have not.
enum Active {
    Plain {
        /// File offset of the next byte.
        host: u64,
        /// Disk offset of the next byte.
        guest: u64,
        /// Bytes still to come.
        length: u64,
    },
    Compressed {
        /// File offset of the first byte.
        host: u64,
        /// File offset after the last one.
        end: u64,
        guest: u64,
        bytes: Vec<u8>,
    },
}

/// What is not known yet where the tables come with the stream.
struct Learning {
    /// Level-2 tables still to come: offset in the file and number, last first. `None` until the level-1 table came.
    tables: Option<Vec<(u64, usize)>>,
    /// Chunks that came and are not processed.
    window: VecDeque<Chunk>,
}

/// The decoder of one qcow2 file.
pub(crate) struct Stream {
    header: Header,
    file: Option<u64>,
    map: Map,
    zeroes: Zeroes,
    /// Sorted, last first.
    watches: Vec<Watch>,
    watching: Vec<Watch>,
    learning: Option<Learning>,
    active: Vec<Active>,
    batch: Option<Batch>,
    /// File offset up to which data was passed on.
    processed: u64,
}

impl Stream {
    /// For an image whose tables are known; those parts of them that were not read from the stream are watched for.
    pub(crate) fn known(
        header: Header,
        file: Option<u64>,
        map: Map,
        zeroes: Zeroes,
        mut watches: Vec<Watch>,
    ) -> Self {
        watches.sort_unstable_by_key(|watch| std::cmp::Reverse(watch.offset));
        Self {
            header,
            file,
            map,
            zeroes,
            watches,
            watching: Vec::new(),
            learning: None,
            active: Vec::new(),
            batch: None,
            processed: 0,
        }
    }

    /// For an image whose tables come with the stream.
    pub(crate) fn learning(header: Header, file: Option<u64>) -> Self {
        let learning = Learning { tables: None, window: VecDeque::new() };
        Self {
            learning: Some(learning),
            ..Self::known(header, file, Map::default(), Zeroes::default(), Vec::new())
        }
    }

    /// Chunks that are held at a time.
    pub(crate) fn lag(&self) -> usize {
        if self.learning.is_some() { LAG } else { 0 }
    }

    fn watch(&mut self, chunk: &Chunk) -> Result<(), Error> {
        while let Some(watch) = self.watches.pop_if(|watch| watch.offset < chunk.end()) {
            self.watching.push(watch);
        }
        let mut still = Vec::new();
        for mut watch in self.watching.drain(..) {
            if !watch.look(chunk)? {
                still.push(watch);
            }
        }
        self.watching = still;
        Ok(())
    }

    /// Reads the tables that are complete now that `arrived` bytes have come.
    fn learn(&mut self, arrived: u64) -> Result<(), Error> {
        let Some(learning) = &mut self.learning else { return Ok(()) };
        let header = &self.header;
        if learning.tables.is_none() && header.l1_offset.saturating_add(header.l1_length()) <= arrived {
            let bytes = gather(&learning.window, header.l1_offset, header.l1_length())?;
            let l1 = parse_l1(header, &bytes).map_err(|error| error.at(header.l1_offset))?;
            let mut tables = Vec::new();
            for (index, offset) in l1.into_iter().enumerate() {
                match offset {
                    Some(offset) => tables.push((offset, index)),
                    None => missing_l2(header, index, &mut self.zeroes),
                }
            }
            tables.sort_unstable_by_key(|(offset, _)| std::cmp::Reverse(*offset));
            learning.tables = Some(tables);
        }
        let Some(tables) = &mut learning.tables else { return Ok(()) };
        let mut added = false;
        while let Some((offset, index)) =
            tables.pop_if(|(offset, _)| offset.saturating_add(header.cluster()) <= arrived)
        {
            let bytes = gather(&learning.window, offset, header.cluster())?;
            parse_l2(header, index, &bytes, self.file, &mut self.map, &mut self.zeroes)
                .map_err(|error| error.at(offset))?;
            added = true;
        }
        match self.map.peek() {
            Some(host) if added && host < self.processed => Err(Qcow2Error::TablesTooLate.at(host)),
            _ => Ok(()),
        }
    }

    fn send_zeroes(&mut self, out: &Output) -> Result<(), Interrupt> {
        for (offset, length) in std::mem::take(&mut self.zeroes.0) {
            out.send(Piece::Zero { offset, length })?;
        }
        Ok(())
    }

    /// Passes on what of a chunk belongs on the disk.
    fn process(&mut self, chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
        for active in std::mem::take(&mut self.active) {
            self.advance(active, chunk, out)?;
        }
        while let Some(extent) = self.map.take_before(chunk.end()) {
            let active = self.begin(extent);
            self.advance(active, chunk, out)?;
        }
        // A batch refers to its chunks, and the network waits for them: none is kept for later.
        self.send_batch(out)?;
        self.processed = chunk.end();
        let gathered: usize = self
            .active
            .iter()
            .map(|active| match active {
                Active::Plain { .. } => 64,
                Active::Compressed { bytes, .. } => bytes.len() + 64,
            })
            .sum();
        if gathered > GATHERED {
            return Err(Qcow2Error::TooFragmented("overlapping clusters").at(chunk.offset).into());
        }
        Ok(())
    }

    fn begin(&self, extent: Extent) -> Active {
        let grain = self.header.grain();
        let guest = u64::from(extent.guest) * grain;
        match extent.kind() {
            Kind::Plain(grains) => {
                // The disk may end inside the last cluster.
                let length = (u64::from(grains) * grain).min(self.header.virtual_size - guest);
                Active::Plain { host: extent.host, guest, length }
            }
            Kind::Compressed(sectors) => {
                // Sectors count from the one in which the data starts; the file may end inside the last.
                let end = (extent.host & !511).saturating_add(u64::from(sectors) * 512);
                let end = self.file.map_or(end, |file| end.min(file));
                Active::Compressed { host: extent.host, end, guest, bytes: Vec::new() }
            }
        }
    }

    /// Takes what `chunk` has of `active`; what is not complete then is kept.
    fn advance(&mut self, active: Active, chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
        match active {
            Active::Plain { host, guest, length } => {
                let count = length.min(chunk.end().saturating_sub(host));
                let bytes = Slice::new(&chunk.bytes, range(chunk, host, host + count));
                out.send(Piece::Data { offset: guest, bytes })?;
                if count < length {
                    self.active.push(Active::Plain {
                        host: host + count,
                        guest: guest + count,
                        length: length - count,
                    });
                }
            }
            Active::Compressed { host, end, guest, mut bytes } => {
                let from = host + bytes.len() as u64;
                if end <= chunk.end() {
                    let input = if bytes.is_empty() {
                        Input::Shared(Slice::new(&chunk.bytes, range(chunk, from, end)))
                    } else {
                        bytes.extend_from_slice(part(chunk, from, end));
                        Input::Owned(bytes)
                    };
                    self.submit(guest, host, input, out)?;
                } else {
                    // Growing step by step would take twice the memory for a moment. Compression makes nothing larger.
                    let more = (end - from).min(self.header.cluster());
                    bytes.reserve_exact(usize::try_from(more).unwrap_or_default());
                    bytes.extend_from_slice(part(chunk, from, chunk.end()));
                    self.active.push(Active::Compressed { host, end, guest, bytes });
                }
            }
        }
        Ok(())
    }

    /// Adds a compressed cluster to the batch, if it continues it on the disk.
    fn submit(&mut self, guest: u64, host: u64, input: Input, out: &Output) -> Result<(), Interrupt> {
        let too_large = |_| Error::Pipeline("cluster too large");
        let cluster = usize::try_from(self.header.cluster()).map_err(too_large)?;
        let length = usize::try_from(self.header.cluster().min(self.header.virtual_size - guest))
            .map_err(too_large)?;
        if let Some(batch) = &mut self.batch
            && batch.guest + batch.length as u64 == guest
            && batch.length + cluster <= CHUNK
        {
            batch.inputs.push((host, input));
            batch.length += length;
            return Ok(());
        }
        self.send_batch(out)?;
        self.batch =
            Some(Batch { codec: self.header.codec, cluster, guest, length, inputs: vec![(host, input)] });
        Ok(())
    }

    fn send_batch(&mut self, out: &Output) -> Result<(), Interrupt> {
        self.batch.take().map_or(Ok(()), |batch| out.batch(batch))
    }

    /// What is still open when the file has ended: a last cluster that the file does not fill is zero from there on, and
    /// compressed data may end before its last sector does.
    fn finish_active(&mut self, file: u64, out: &Output) -> Result<(), Interrupt> {
        for active in std::mem::take(&mut self.active) {
            match active {
                Active::Plain { guest, length, .. } if length < self.header.cluster() => {
                    out.send(Piece::Zero { offset: guest, length })?;
                }
                Active::Plain { host, .. } => return Err(Qcow2Error::BeyondEnd(host).at(file).into()),
                Active::Compressed { host, guest, bytes, .. } => {
                    self.submit(guest, host, Input::Owned(bytes), out)?;
                }
            }
        }
        self.send_batch(out)
    }
}

/// `length` bytes at `offset`, which have all come by, out of the chunks that are still there.
fn gather(window: &VecDeque<Chunk>, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
    let end = offset.saturating_add(length);
    if window.front().is_none_or(|chunk| chunk.offset > offset) {
        return Err(Qcow2Error::TablesTooLate.at(offset));
    }
    let mut bytes = Vec::new();
    for chunk in window {
        let (from, to) = (offset.max(chunk.offset), end.min(chunk.end()));
        if from < to {
            bytes.extend_from_slice(part(chunk, from, to));
        }
    }
    Ok(bytes)
}

impl Decoder for Stream {
    fn push(&mut self, chunk: &Chunk, out: &Output) -> Result<(), Interrupt> {
        self.watch(chunk)?;
        let Some(learning) = &mut self.learning else {
            self.send_zeroes(out)?;
            return self.process(chunk, out);
        };
        learning.window.push_back(chunk.clone());
        self.learn(chunk.end())?;
        self.send_zeroes(out)?;
        let Some(learning) = &mut self.learning else { return Ok(()) };
        if learning.window.len() < LAG {
            return Ok(());
        }
        if learning.tables.is_none() {
            return Err(Qcow2Error::TablesTooLate.at(self.header.l1_offset).into());
        }
        match learning.window.pop_front() {
            Some(oldest) => self.process(&oldest, out),
            None => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, length: u64, out: &Output) -> Result<u64, Interrupt> {
        self.file = Some(length);
        self.header.within(length).map_err(|error| error.at(0))?;
        if let Some(learning) = &mut self.learning {
            match &learning.tables {
                None => return Err(Qcow2Error::BeyondEnd(self.header.l1_offset).at(length).into()),
                Some(tables) => {
                    if let Some((offset, _)) = tables.last() {
                        return Err(Qcow2Error::BeyondEnd(*offset).at(length).into());
                    }
                }
            }
            for chunk in std::mem::take(&mut learning.window) {
                self.process(&chunk, out)?;
            }
        }
        self.finish_active(length, out)?;
        if let Some(host) = self.map.peek() {
            return Err(Qcow2Error::BeyondEnd(host).at(length).into());
        }
        if let Some(watch) = self.watching.first().or(self.watches.first()) {
            return Err(Qcow2Error::Changed.at(watch.offset).into());
        }
        Ok(self.header.virtual_size)
    }
}

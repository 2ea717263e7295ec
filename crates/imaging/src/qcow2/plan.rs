//! Reads an image's tables before its data, where the source can be read in parts.
//!
//! What was read this way is not covered by the digest over the stream, so a digest of it is kept: the same bytes must
//! come by in the stream, or the image is refused. Where parts can not be read, or the tables are too many to keep, the
//! stream finds them itself; where they lie too far behind the data for that, the file is downloaded once more for them.

use sha2::{Digest, Sha256};

use super::Qcow2Error;
use super::header::Header;
use super::map::Map;
use super::stream::{LAG, Stream, Watch};
use super::tables::{Zeroes, missing_l2, parse_l1, parse_l2};
use crate::buffer::CHUNK;
use crate::error::Error;
use crate::source::Source;

/// Tables that lie at most this far apart are read together.
const GAP: u64 = 64 * 1024;

/// The most that is read together (a single table may be larger).
const GROUP: u64 = 1024 * 1024;

/// The most parts that are asked for: seconds, at a millisecond each.
const PARTS: u32 = 2048;

/// An image that may be written: what it needs of the disk, and how to take its stream apart.
pub(crate) struct Planned {
    pub(crate) virtual_size: u64,
    /// Bytes of a cluster.
    pub(crate) cluster: usize,
    /// Chunks of the stream that are kept back until the tables for them have come by.
    pub(crate) lag: usize,
    pub(crate) stream: Stream,
}

/// Checks the header in `first`, the first bytes of the file, and reads the tables if that can be done. `disk` is the
/// size of the disk.
pub(crate) async fn plan(
    source: &mut Source<'_>,
    total: Option<u64>,
    first: &[u8],
    disk: u64,
) -> Result<Planned, Error> {
    let header = Header::parse(first).map_err(|error| error.at(0))?;
    if header.virtual_size > disk {
        return Err(Error::TooLarge { image: header.virtual_size, disk });
    }
    // Where the length is not known, the stream does this at its end.
    total.map_or(Ok(()), |total| header.within(total)).map_err(|error| error.at(0))?;
    let mut reader = Reader::new(source, first, total);
    let mut tables = known(&mut reader, &header).await;
    if matches!(tables, Ok(None)) && reader.source.may_skim(is_late(&header)) {
        reader = Reader { is_skimming: true, ..Reader::new(source, first, total) };
        tables = known(&mut reader, &header).await;
        reader.source.end_skim();
    }
    let stream = match tables {
        Ok(Some((map, zeroes))) => {
            tracing::debug!(parts = reader.parts, "qcow2 tables read ahead of the data");
            Stream::known(header.clone(), total, map, zeroes, reader.watches)
        }
        Ok(None) => {
            tracing::info!("the qcow2 tables can not be read ahead, they are taken from the stream");
            Stream::learning(header.clone(), total)
        }
        Err(Error::Qcow2 { source: Qcow2Error::TooFragmented("map"), .. }) => {
            tracing::info!("the qcow2 map is too large to be kept, it is taken from the stream");
            Stream::learning(header.clone(), total)
        }
        Err(error) => return Err(error),
    };
    // The header bounds a cluster to 2 MiB.
    let cluster = usize::try_from(header.cluster()).map_err(|_| Error::Pipeline("cluster too large"))?;
    Ok(Planned { virtual_size: header.virtual_size, cluster, lag: stream.lag(), stream })
}

/// Returns whether the level-1 table lies so far behind the start of the file that a stream cannot be held back for it.
fn is_late(header: &Header) -> bool {
    header.l1_offset.saturating_add(header.l1_length()) > LAG as u64 * CHUNK as u64
}

async fn known(reader: &mut Reader<'_, '_>, header: &Header) -> Result<Option<(Map, Zeroes)>, Error> {
    let Some(bytes) = reader.get(header.l1_offset, header.l1_length()).await? else { return Ok(None) };
    let l1 = parse_l1(header, &bytes).map_err(|error| error.at(header.l1_offset))?;
    drop(bytes);
    let (mut map, mut zeroes) = (Map::default(), Zeroes::default());
    let mut tables = Vec::new();
    for (index, offset) in l1.into_iter().enumerate() {
        match offset {
            Some(offset) => tables.push((offset, index)),
            None => missing_l2(header, index, &mut zeroes),
        }
    }
    tables.sort_unstable();
    let mut rest = tables.as_slice();
    while let Some((start, _)) = rest.first().copied() {
        let (group, length) = group(rest, header.cluster());
        let (now, later) = rest.split_at(group);
        rest = later;
        let Some(bytes) = reader.get(start, length).await? else { return Ok(None) };
        for (offset, index) in now {
            let table = usize::try_from(offset - start)
                .ok()
                .and_then(|from| bytes.get(from..))
                .ok_or(Qcow2Error::Truncated("L2 table").at(*offset))?;
            parse_l2(header, *index, table, reader.total, &mut map, &mut zeroes)
                .map_err(|error| error.at(*offset))?;
        }
    }
    Ok(Some((map, zeroes)))
}

/// How many of the sorted tables to read together, and from the first one's offset how many bytes.
fn group(tables: &[(u64, usize)], cluster: u64) -> (usize, u64) {
    let start = tables.first().map_or(0, |(offset, _)| *offset);
    let mut count = 0;
    let mut length = 0;
    for (offset, _) in tables {
        // Offsets come out of `parse_l1`, which checked that a table fits behind them.
        let end = offset - start + cluster;
        if count > 0 && (offset - start > length + GAP || end > GROUP) {
            break;
        }
        count += 1;
        length = end;
    }
    (count, length)
}

/// Reads parts of a file beside its stream.
pub(super) struct Reader<'r, 's> {
    source: &'r mut Source<'s>,
    first: &'r [u8],
    total: Option<u64>,
    watches: Vec<Watch>,
    parts: u32,
    /// Whether another download of the whole file is read in place of parts.
    is_skimming: bool,
}

impl<'r, 's> Reader<'r, 's> {
    pub(super) fn new(source: &'r mut Source<'s>, first: &'r [u8], total: Option<u64>) -> Self {
        Self { source, first, total, watches: Vec::new(), parts: 0, is_skimming: false }
    }

    /// Length of the file, where known.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// `length` bytes at `offset`: from the first chunk if it has them, else as a part. `None` if parts can not be had.
    pub(super) async fn get(&mut self, offset: u64, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let end = offset.checked_add(length).filter(|end| self.total.is_none_or(|total| *end <= total));
        let end = end.ok_or_else(|| Qcow2Error::BeyondEnd(offset).at(offset))?;
        if let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end))
            && let Some(bytes) = self.first.get(from..to)
        {
            return Ok(Some(bytes.to_vec()));
        }
        if !self.is_skimming && self.parts >= PARTS {
            return Ok(None);
        }
        self.parts = self.parts.saturating_add(1);
        let bytes = match self.is_skimming {
            true => self.source.skim(offset, length).await?,
            false => self.source.part(offset, length).await?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        if bytes.len() as u64 != length {
            return Err(Qcow2Error::Truncated("tables").at(offset));
        }
        self.watches.push(Watch::new(offset, length, Sha256::digest(&bytes).into()));
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_tables_are_read_together() {
        let k = 1024;
        assert_eq!(group(&[(64 * k, 0)], 64 * k), (1, 64 * k));
        assert_eq!(group(&[(0, 0), (64 * k, 1), (192 * k, 2), (513 * k, 3)], 64 * k), (3, 256 * k));
        assert_eq!(group(&[(0, 0), (0, 1)], 64 * k), (2, 64 * k));
        let many: Vec<_> = (0..100).map(|n| (n * 64 * k, 0)).collect();
        assert_eq!(group(&many, 64 * k), (16, 1024 * k));
        assert_eq!(group(&[(0, 0), (2048 * k, 1)], 2048 * k), (1, 2048 * k));
    }
}

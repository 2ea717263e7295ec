//! Level-1 and level-2 tables: entries into extents and zero ranges. Pure.

use super::header::Header;
use super::map::{Kind, Map};
use super::{Qcow2Error, be64};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// What a level-1 table says: for each level-2 table its offset in the file, `None` where its part of the disk is zero.
pub(crate) fn parse_l1(header: &Header, bytes: &[u8]) -> Result<Vec<Option<u64>>, Qcow2Error> {
    (0..header.l1_entries as usize)
        .map(|index| parse_l1_entry(header, bytes.get(index * 8..).unwrap_or_default()))
        .collect()
}

/// As [`parse_l1`], the one entry at the start of `bytes`.
pub(crate) fn parse_l1_entry(header: &Header, bytes: &[u8]) -> Result<Option<u64>, Qcow2Error> {
    let entry = be64(bytes, 0).ok_or(Qcow2Error::Truncated("L1 table"))?;
    let offset = entry & OFFSET;
    if entry & !(OFFSET | COPIED) != 0
        || !offset.is_multiple_of(header.cluster())
        || offset.checked_add(header.cluster()).is_none()
    {
        return Err(Qcow2Error::Entry(entry));
    }
    Ok((offset != 0).then_some(offset))
}

/// Reads the level-2 table number `index`: its clusters go into `map`, and every range of the disk that is zero to `zero`
/// (offset and length, on the disk, in order). `file` is the file's length, where known.
pub(crate) fn parse_l2(
    header: &Header,
    index: usize,
    bytes: &[u8],
    file: Option<u64>,
    map: &mut Map,
    zero: &mut Zeroes,
) -> Result<(), Qcow2Error> {
    let cluster = header.cluster();
    let first = index as u64 * header.l2_entries();
    let clusters = header.virtual_size.div_ceil(cluster).saturating_sub(first).min(header.l2_entries());
    for slot in 0..clusters {
        // A table is a cluster of entries, so the slot fits any usize.
        let at = usize::try_from(slot * header.l2_entry_length())
            .map_err(|_| Qcow2Error::Truncated("L2 table"))?;
        let entry = be64(bytes, at).ok_or(Qcow2Error::Truncated("L2 table"))?;
        let subclusters = match header.extended {
            true => Some(Subclusters(be64(bytes, at + 8).ok_or(Qcow2Error::Truncated("L2 table"))?)),
            false => None,
        };
        let offset = (first + slot) * cluster;
        let mut place = Place { header, file, map: &mut *map, zero: &mut *zero };
        match (entry & COMPRESSED != 0, subclusters) {
            (true, Some(subclusters)) if subclusters.0 != 0 => {
                return Err(Qcow2Error::Subclusters(subclusters.0));
            }
            (true, _) => {
                let (host, kind) = compressed(header, entry);
                place.add(offset, host, kind)?;
            }
            (false, None) => match plain(header, entry)? {
                Some(host) => place.add(offset, host, Kind::Plain(1))?,
                None => place.zero(offset, cluster),
            },
            (false, Some(subclusters)) => {
                let host = plain(header, entry)?;
                for (number, at) in (offset..header.virtual_size.min(offset + cluster))
                    .step_by(usize::try_from(header.grain()).unwrap_or(usize::MAX))
                    .enumerate()
                {
                    match subclusters.get(number)? {
                        false => place.zero(at, header.grain()),
                        true => {
                            let host = host.ok_or(Qcow2Error::Subclusters(subclusters.0))?;
                            place.add(at, host + (at - offset), Kind::Plain(1))?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Where the entries of a table go.
struct Place<'t> {
    header: &'t Header,
    file: Option<u64>,
    map: &'t mut Map,
    zero: &'t mut Zeroes,
}

impl Place<'_> {
    /// What is at the disk's `offset` is at `host` in the file.
    fn add(&mut self, offset: u64, host: u64, kind: Kind) -> Result<(), Qcow2Error> {
        if host == 0 || self.file.is_some_and(|file| host >= file) {
            return Err(Qcow2Error::BeyondEnd(host));
        }
        let grain = self.header.grain();
        // The header bounds the number of grains to 31 bits.
        let guest = u32::try_from(offset / grain).map_err(|_| Qcow2Error::TooFragmented("map"))?;
        self.map.add(host, guest, kind, grain)
    }

    /// The disk is zero at `offset`.
    fn zero(&mut self, offset: u64, length: u64) {
        self.zero.add(offset, length.min(self.header.virtual_size - offset));
    }
}

/// The bitmap of an extended entry: below, which sub-clusters are allocated; above, which read as zeroes.
#[derive(Clone, Copy)]
struct Subclusters(u64);

impl Subclusters {
    /// Whether a sub-cluster has data. One that is neither allocated nor zero would come from a backing file; there is none.
    fn get(self, number: usize) -> Result<bool, Qcow2Error> {
        let (allocated, zero) = (self.0 >> number & 1 != 0, self.0 >> (number + 32) & 1 != 0);
        if allocated && zero { Err(Qcow2Error::Subclusters(self.0)) } else { Ok(allocated) }
    }
}

/// Notes the part of the disk as zero that a missing level-2 table stands for.
pub(crate) fn missing_l2(header: &Header, index: usize, zero: &mut Zeroes) {
    let offset = (index as u64).saturating_mul(header.l2_span());
    zero.add(offset, header.l2_span().min(header.virtual_size.saturating_sub(offset)));
}

fn plain(header: &Header, entry: u64) -> Result<Option<u64>, Qcow2Error> {
    let offset = entry & OFFSET;
    // Extended entries have their own way to say zero.
    let zero = if header.version >= 3 && !header.extended { ZERO } else { 0 };
    if entry & !(OFFSET | COPIED | zero) != 0
        || !offset.is_multiple_of(header.cluster())
        || offset.checked_add(header.cluster()).is_none()
    {
        return Err(Qcow2Error::Entry(entry));
    }
    // A zero cluster may have a place in the file; it reads as zeroes all the same.
    Ok((entry & zero == 0 && offset != 0).then_some(offset))
}

/// A compressed entry: below bit x the byte offset, from there the number of further 512-byte sectors.
fn compressed(header: &Header, entry: u64) -> (u64, Kind) {
    let size_bits = header.cluster_bits - 8;
    let offset_bits = 62 - size_bits;
    let host = entry & ((1 << offset_bits) - 1);
    let further = (entry >> offset_bits) & ((1 << size_bits) - 1);
    // At most 13 bits.
    let sectors = u32::try_from(further).unwrap_or(u32::MAX >> 1).saturating_add(1);
    (host, Kind::Compressed(sectors))
}

/// Zero ranges of the disk, neighbours joined.
#[derive(Default)]
pub(crate) struct Zeroes(pub(crate) Vec<(u64, u64)>);

impl Zeroes {
    fn add(&mut self, offset: u64, length: u64) {
        match self.0.last_mut() {
            _ if length == 0 => {}
            Some((start, so_far)) if start.checked_add(*so_far) == Some(offset) => *so_far += length,
            _ => self.0.push((offset, length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::Codec;

    fn header(version: u32) -> Header {
        Header {
            version,
            cluster_bits: 16,
            virtual_size: 5 * 65536 + 512,
            l1_offset: 0x30000,
            l1_entries: 1,
            codec: Codec::Zlib,
            extended: false,
            tables: Vec::new(),
        }
    }

    fn table(entries: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        bytes.resize(65536, 0);
        bytes
    }

    #[test]
    fn entries_become_extents_and_zero_ranges() {
        let entries =
            [0x50000 | COPIED, 0, ZERO | 0x90000, 0x60000 | COPIED, COMPRESSED | (2 << 54) | 0x70123, 0];
        let (mut map, mut zero) = (Map::default(), Zeroes::default());
        parse_l2(&header(3), 0, &table(&entries), Some(0x80000), &mut map, &mut zero).unwrap();
        assert_eq!(zero.0, [(0x10000, 0x20000), (0x50000, 512)]);
        let extents: Vec<_> =
            std::iter::from_fn(|| map.take_before(u64::MAX)).map(|e| (e.host, e.guest, e.kind())).collect();
        assert_eq!(
            extents,
            [(0x50000, 0, Kind::Plain(1)), (0x60000, 3, Kind::Plain(1)), (0x70123, 4, Kind::Compressed(3))]
        );
    }

    /// What an extended entry and its bitmap become: extents (file offset, grain, grains) and zero ranges.
    type Parsed = (Vec<(u64, u32, Kind)>, Vec<(u64, u64)>);

    fn extended(entry: u64, bitmap: u64) -> Result<Parsed, Qcow2Error> {
        let header = Header { virtual_size: 65536, extended: true, ..header(3) };
        let (mut map, mut zero) = (Map::default(), Zeroes::default());
        parse_l2(&header, 0, &table(&[entry, bitmap]), Some(0x80000), &mut map, &mut zero)?;
        let extents = std::iter::from_fn(|| map.take_before(u64::MAX));
        Ok((extents.map(|e| (e.host, e.guest, e.kind())).collect(), zero.0))
    }

    #[test]
    fn subclusters_are_data_zero_or_nothing_each_by_itself() {
        // Allocated: 0, 1, 5. Zero: 2. Neither: the rest.
        let (extents, zero) = extended(0x50000 | COPIED, 0b10_0011 | 1 << 34).unwrap();
        assert_eq!(extents, [(0x50000, 0, Kind::Plain(2)), (0x52800, 5, Kind::Plain(1))]);
        assert_eq!(zero, [(0x1000, 0x1800), (0x3000, 0xd000)]);
        let (extents, zero) = extended(COMPRESSED | 0x70123, 0).unwrap();
        assert_eq!((extents, zero), (vec![(0x70123, 0, Kind::Compressed(1))], vec![]));
        let (extents, zero) = extended(0, 0).unwrap();
        assert_eq!((extents, zero), (vec![], vec![(0, 65536)]));
    }

    #[test]
    fn subclusters_that_contradict_are_refused() {
        let contradictions = [(0x50000, 1 | 1 << 32), (0, 1), (COMPRESSED | 0x70123, 1), (0x50000 | ZERO, 1)];
        for (entry, bitmap) in contradictions {
            assert!(extended(entry, bitmap).is_err(), "{entry:#x} {bitmap:#x}");
        }
    }

    #[test]
    fn wrong_entries_are_refused() {
        for (version, entry) in
            [(2, ZERO), (3, 0x50200), (3, 0x50002), (3, 0x50000 | 1 << 60), (3, 0x80000), (3, COMPRESSED)]
        {
            let (mut map, mut zero) = (Map::default(), Zeroes::default());
            assert!(
                parse_l2(&header(version), 0, &table(&[entry]), Some(0x80000), &mut map, &mut zero).is_err(),
                "{entry:#x}"
            );
        }
        assert!(parse_l1(&header(3), &[0; 7]).is_err());
        assert!(parse_l1(&header(3), &0x50200u64.to_be_bytes()).is_err());
        assert_eq!(parse_l1(&header(3), &(0x50000u64 | COPIED).to_be_bytes()), Ok(vec![Some(0x50000)]));
        assert_eq!(parse_l1(&header(3), &[0; 8]), Ok(vec![None]));
    }
}

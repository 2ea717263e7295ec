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
        .map(|index| {
            let entry = be64(bytes, index * 8).ok_or(Qcow2Error::Truncated("L1 table"))?;
            let offset = entry & OFFSET;
            if entry & !(OFFSET | COPIED) != 0
                || !offset.is_multiple_of(header.cluster())
                || offset.checked_add(header.cluster()).is_none()
            {
                return Err(Qcow2Error::Entry(entry));
            }
            Ok((offset != 0).then_some(offset))
        })
        .collect()
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
        // A table has cluster/8 entries, so the slot fits any usize.
        let at = usize::try_from(slot * 8).map_err(|_| Qcow2Error::Truncated("L2 table"))?;
        let entry = be64(bytes, at).ok_or(Qcow2Error::Truncated("L2 table"))?;
        // The header bounds the number of clusters to 31 bits.
        let guest = u32::try_from(first + slot).map_err(|_| Qcow2Error::TooFragmented("map"))?;
        let (host, kind) = if entry & COMPRESSED != 0 {
            compressed(header, entry)
        } else {
            match plain(header, entry)? {
                Some(host) => (host, Kind::Plain(1)),
                None => {
                    let offset = u64::from(guest) * cluster;
                    zero.add(offset, cluster.min(header.virtual_size - offset));
                    continue;
                }
            }
        };
        if host == 0 || file.is_some_and(|file| host >= file) {
            return Err(Qcow2Error::BeyondEnd(host));
        }
        map.add(host, guest, kind, cluster)?;
    }
    Ok(())
}

/// Notes the part of the disk as zero that a missing level-2 table stands for.
pub(crate) fn missing_l2(header: &Header, index: usize, zero: &mut Zeroes) {
    let offset = (index as u64).saturating_mul(header.l2_span());
    zero.add(offset, header.l2_span().min(header.virtual_size.saturating_sub(offset)));
}

fn plain(header: &Header, entry: u64) -> Result<Option<u64>, Qcow2Error> {
    let offset = entry & OFFSET;
    let zero = if header.version >= 3 { ZERO } else { 0 };
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

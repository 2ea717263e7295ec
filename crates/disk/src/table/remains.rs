//! What is left of partition tables on a disk, damaged or stale ones too: whatever they name has to look empty afterwards.
//!
//! Checksums do not count: a table that another system repairs names partitions as well as a sound one.

use super::mbr::Mbr;
use crate::Source;

/// Entries of a GPT that are looked at: 128 are usual.
const ENTRIES_LIMIT: usize = 4096;

/// Places in bytes, as (start, length).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Partitions: primary, extended, logical, and those of both copies of a GPT.
    pub(crate) partitions: Vec<(u64, u64)>,
    /// The copies of a GPT: headers and entries.
    pub(crate) copies: Vec<(u64, u64)>,
}

impl Remains {
    /// Reads what can be read, for sectors of 512 and of 4096 bytes and of the disk's own size: an enclosure may have shown the disk
    /// with other sectors when it was partitioned.
    pub(crate) fn read<S: Source + ?Sized>(source: &S, sector_bytes: u32) -> Self {
        let mut remains = Self::default();
        let mut sizes = vec![sector_bytes, 512, 4096];
        sizes.sort_unstable();
        sizes.dedup();
        for sector in sizes {
            if let Ok(head) = source.bytes(0, 512)
                && let Some(mbr) = Mbr::read(source, &head, sector)
            {
                let partitions = mbr.partitions.iter().map(|part| (part.start_byte, part.size_byte));
                remains.partitions.extend(partitions.filter(|_| !mbr.is_protective));
            }
            let sector = u64::from(sector);
            let last = (source.size() / sector).saturating_sub(1);
            let other = remains.gpt(source, sector, 1);
            for at in [Some(last), other].into_iter().flatten() {
                remains.gpt(source, sector, at);
            }
        }
        for list in [&mut remains.partitions, &mut remains.copies] {
            list.sort_unstable();
            list.dedup();
        }
        remains
    }

    /// Reads one copy of a GPT (UEFI specification, 5.3.2), whose header is in sector `at`. Returns where the other copy is.
    fn gpt<S: Source + ?Sized>(&mut self, source: &S, sector: u64, at: u64) -> Option<u64> {
        let offset = at.checked_mul(sector)?;
        let header = source.bytes(offset, 92).ok()?;
        if header.get(..8)? != b"EFI PART" {
            return None;
        }
        let long = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
        self.copies.push((offset, sector));
        let entry = usize::try_from(short(84)?).ok().filter(|bytes| (128..=4096).contains(bytes))?;
        let count = usize::try_from(short(80)?).unwrap_or(ENTRIES_LIMIT).min(ENTRIES_LIMIT);
        let entries_at = long(72)?.checked_mul(sector)?;
        for number in 0..count {
            let place = u64::try_from(number * entry).ok().and_then(|from| entries_at.checked_add(from))?;
            let Ok(bytes) = source.bytes(place, 48) else { break };
            let field = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
            let (first, last) = (field(32)?, field(40)?);
            let is_used = bytes.get(..16)? != [0; 16];
            if let Some(sectors) = last.checked_sub(first).and_then(|sectors| sectors.checked_add(1))
                && let (Some(start), Some(length)) = (first.checked_mul(sector), sectors.checked_mul(sector))
                && is_used
                && start < source.size()
            {
                self.partitions.push((start, length));
            }
        }
        self.copies.push((entries_at, u64::try_from(count * entry).ok()?));
        long(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::gpt::tests::disk;
    use proptest::prelude::*;

    #[test]
    fn partitions_of_damaged_and_of_stale_tables_are_known() {
        let sound = disk(512, 4096, &[(1, 64, 127), (3, 1000, 1999)]);
        let expected = [(64 * 512, 64 * 512), (1000 * 512, 1000 * 512)];
        assert_eq!(Remains::read(&sound, 512).partitions, expected);
        // Without the MBR, without the first copy, with wrong checksums, on a disk that has larger sectors now.
        let mut damaged = sound.clone();
        damaged[..512].fill(0);
        damaged[512 + 16] ^= 1;
        damaged[1024 + 16] ^= 1;
        assert_eq!(Remains::read(&damaged, 4096).partitions, expected);
        damaged[512..520].fill(0);
        assert_eq!(Remains::read(&damaged, 512).partitions, expected);
        // A disk that has grown: the second copy is where the first one says.
        let mut grown = sound.clone();
        grown.resize(8192 * 512, 0);
        assert!(Remains::read(&grown, 512).copies.contains(&(4095 * 512, 512)));
        assert_eq!(Remains::read(&vec![0_u8; 8192], 512), Remains::default());
    }

    proptest! {
        #[test]
        fn junk_is_read_without_panic(junk in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..4) {
            let mut image = vec![0u8; 8192];
            let start = [0, 512, 1024, 4096][at];
            image[start..start + junk.len()].copy_from_slice(&junk);
            image[512..520].copy_from_slice(b"EFI PART");
            let _ = Remains::read(&image, 512);
        }
    }
}

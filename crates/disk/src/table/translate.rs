//! A GPT for sectors of one size, rewritten for sectors of another: the same partitions at the same bytes.
//!
//! Pure but for [`Store`]. What can not be kept to the byte is refused with the reason.

use std::io;

use super::gpt::Gpt;
use super::mbr::{Record, records};
use super::{MbrRecord, Partition};
use crate::Store;

/// A table that can be rewritten, and what it becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    from: u32,
    to: u32,
    gpt: Gpt,
    /// Where the image's own second copy ends, in bytes.
    old_backup_end: u64,
}

impl Translation {
    /// Reads the table for sectors of `from` bytes at the start of a disk image, and plans the same one for sectors of `to`
    /// bytes on a disk of `disk` bytes. `head` must hold the whole table: some 64 KiB.
    ///
    /// # Errors
    /// Why it can not be rewritten, and what to do.
    pub fn plan(head: &[u8], from: u32, to: u32, disk: u64) -> Result<Self, String> {
        let protective = records(head).ok_or("there is no protective MBR")?;
        if protective.iter().filter(|record| record.id != 0).count() != 1 {
            return Err("its MBR is a hybrid of GPT and MBR: publish the image with a protective MBR".into());
        }
        let old = Gpt::read_first_copy(head, from)
            .map_err(|reason| format!("its GPT for sectors of {from} bytes can not be read: {reason}"))?;
        let gpt = old.for_sectors(to, disk)?;
        let sectors = old.other_sector.checked_add(1).ok_or("its header names an absurd place")?;
        let old_backup_end =
            sectors.checked_mul(u64::from(from)).ok_or("its header names an absurd place")?;
        Ok(Self { from, to, gpt, old_backup_end })
    }

    /// The partitions, which lie where they did.
    pub fn partitions(&self) -> &[Partition] {
        &self.gpt.partitions
    }

    /// The table that the disk will have.
    pub(crate) fn into_table(self) -> Gpt {
        self.gpt
    }

    /// **Writes** the protective MBR and both copies, and clears what is left of the old ones. Boot code stays.
    ///
    /// # Errors
    /// What the store says.
    pub fn write(&self, store: &(impl Store + ?Sized)) -> io::Result<()> {
        self.clear_old_backup(store)?;
        // From the sector after the MBR up to where partitions may begin, in either measure: nobody else's.
        let from = u64::from(self.from);
        let end = self.gpt.first_usable_byte().max(self.gpt.first_usable_byte_in(from));
        let partitions = self.gpt.partitions.iter().map(|partition| partition.start_byte);
        let end = partitions.fold(end, u64::min);
        let gap = usize::try_from(end.saturating_sub(512)).map_err(io::Error::other)?;
        store.write_at(512, &vec![0; gap])?;
        for (offset, bytes) in self.gpt.copies().map_err(io::Error::other)? {
            store.write_at(offset, &bytes)?;
        }
        self.write_protective(store)
    }

    fn write_protective(&self, store: &(impl Store + ?Sized)) -> io::Result<()> {
        let mut sector = store.bytes(0, 512)?;
        let sectors = u32::try_from(self.gpt.other_sector).unwrap_or(u32::MAX);
        let old = records(&sector).unwrap_or([Record { status: 0, id: 0, first: 0, sectors: 0 }; 4]);
        for (slot, record) in sector.get_mut(446..510).unwrap_or_default().chunks_exact_mut(16).zip(old) {
            if record.id != 0 {
                let mut bytes = MbrRecord { first: 1, sectors, ..record }.encode();
                // Where a GPT begins, in cylinder, head and sector: what inspectors look for.
                for (byte, chs) in bytes.iter_mut().skip(1).zip([0x00, 0x02, 0x00]) {
                    *byte = chs;
                }
                slot.copy_from_slice(&bytes);
            }
        }
        store.write_at(0, &sector)
    }

    /// The image's second copy would tell of another disk to whoever looks for it in the old measure.
    fn clear_old_backup(&self, store: &(impl Store + ?Sized)) -> io::Result<()> {
        let header = self.old_backup_end.saturating_sub(u64::from(self.from));
        let start = header.saturating_sub(self.gpt.entries_length());
        let partitions_end = self
            .gpt
            .partitions
            .iter()
            .map(|partition| partition.start_byte.saturating_add(partition.size_byte))
            .fold(0, u64::max);
        let is_there = store.bytes(header, 8).is_ok_and(|magic| magic == b"EFI PART");
        if !is_there || start < partitions_end {
            return Ok(());
        }
        let length = usize::try_from(self.old_backup_end - start).map_err(io::Error::other)?;
        store.write_at(start, &vec![0; length])
    }

    /// Bytes of the sectors that the new table counts in.
    pub fn sector_bytes(&self) -> u32 {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::tests::Memory;
    use crate::table::Table;
    use crate::table::gpt::tests::disk;

    fn translated(image: &[u8], from: u32, to: u32, size: usize) -> Result<Vec<u8>, String> {
        let translation = Translation::plan(image, from, to, size as u64)?;
        let mut bytes = image.to_vec();
        bytes.resize(size, 0);
        let memory = Memory::new(bytes);
        translation.write(&memory).unwrap();
        Ok(memory.into_inner())
    }

    #[test]
    fn partitions_stay_at_their_bytes_and_both_copies_are_sound_there_and_back() {
        let used = [(1, 2048, 4095), (14, 64, 71), (15, 72, 2047)];
        let image = disk(512, 8192, &used);
        let before = Table::read(&image, 512).unwrap();
        let there = translated(&image, 512, 4096, 6 << 20).unwrap();
        let after = Table::read(&there, 4096).unwrap();
        assert_eq!(before.partitions(), after.partitions());
        let Table::Gpt(gpt) = &after else { panic!("{after:?}") };
        assert!(gpt.is_intact(&there), "and the second copy is at the end of the larger disk");
        assert_eq!((gpt.first_usable_sector, gpt.other_sector), (6, (6 << 20) / 4096 - 1));
        assert_eq!(&there[454..458], [1, 0, 0, 0]);
        assert_eq!(&there[458..462], ((6u32 << 20) / 4096 - 1).to_le_bytes());
        assert_eq!(&there[447..450], [0, 2, 0]);
        let old = (8192 - 33) * 512..8192 * 512;
        assert!(there[old].iter().all(|byte| *byte == 0), "the old second copy is gone");
        assert!(Table::read(&there, 512).is_err(), "and so is the first");

        let back = translated(&there, 4096, 512, 6 << 20).unwrap();
        assert_eq!(Table::read(&back, 512).unwrap().partitions(), before.partitions());
        assert!(Table::read(&back, 4096).is_err());
        assert_eq!(back[64 * 512..4096 * 512], image[64 * 512..4096 * 512], "no byte of a partition changed");
    }

    #[test]
    fn what_does_not_fit_the_larger_sectors_is_refused_with_the_reason() {
        for (used, words) in [
            ((1, 2049, 4096), "partition 1 does not start"),
            ((3, 2048, 4096), "partition 3 does not end"),
            ((2, 40, 47), "partition 2 starts"),
        ] {
            let error = translated(&disk(512, 8192, &[used]), 512, 4096, 4 << 20).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let image = disk(512, 8192, &[(1, 2048, 8151)]);
        assert!(translated(&image, 512, 4096, 4 << 20).is_ok());
        let error = Translation::plan(&image, 512, 4096, 3 << 20).unwrap_err();
        assert!(error.contains("too small"), "{error}");
    }

    #[test]
    fn a_hybrid_or_damaged_table_is_refused() {
        let mut image = disk(512, 8192, &[(1, 2048, 4095)]);
        image[466] = 0x83;
        image[474] = 1;
        assert!(Translation::plan(&image, 512, 4096, 4 << 20).unwrap_err().contains("hybrid"));
        let mut image = disk(512, 8192, &[(1, 2048, 4095)]);
        image[512 + 60] ^= 1;
        assert!(Translation::plan(&image, 512, 4096, 4 << 20).unwrap_err().contains("checksum"));
    }

    proptest! {
        #[test]
        fn junk_is_planned_without_panic(
            patches in proptest::collection::vec((446..2048usize, any::<u8>()), 0..40), disk_bytes: u64,
        ) {
            let mut image = disk(512, 256, &[(1, 64, 103)]);
            for (at, byte) in patches {
                image[at] = byte;
            }
            for (from, to) in [(512, 4096), (4096, 512)] {
                let _ = Translation::plan(&image, from, to, disk_bytes);
            }
        }

        #[test]
        fn aligned_partitions_survive_whatever_their_place(start in 8u64..100, length in 1u64..100, room in 0usize..20) {
            let (first, last) = (start * 8, (start + length) * 8 - 1);
            let image = disk(512, 2048, &[(5, first, last)]);
            let size = (2 << 20) + room * 4096;
            let there = translated(&image, 512, 4096, size).unwrap();
            let table = Table::read(&there, 4096).unwrap();
            let places: Vec<_> = table.partitions().iter().map(|p| (p.number, p.start_byte, p.size_byte)).collect();
            prop_assert_eq!(places, [(5, first * 512, length * 4096)]);
        }
    }
}

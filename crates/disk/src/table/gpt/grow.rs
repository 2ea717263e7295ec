//! Room for one more entry in a table whose entries are all in use. Pure: changes the table in memory only.

use super::Gpt;
use crate::Source;

/// Bytes that the UEFI specification (5.3) reserves for the entries, and that nearly every table has.
const USUAL_BYTES: u64 = 16 << 10;

impl Gpt {
    /// Returns true if an entry is free.
    fn has_free_entry(&self) -> bool {
        self.entries.chunks_exact(self.entry_bytes).any(|entry| entry.iter().take(16).all(|byte| *byte == 0))
    }

    /// Makes sure that an entry is free, for a disk of `size_bytes`. A full table grows to the usual 16 KiB, or as far as the
    /// first copy has room: up to the first partition, and only over bytes that are zero in `source`, as boot code of some
    /// boards lies there. The second copy grows towards the partitions by the same amount.
    ///
    /// # Errors
    /// There is no room. The table is unchanged then.
    pub(crate) fn make_room<S: Source + ?Sized>(
        &mut self,
        source: &S,
        size_bytes: u64,
    ) -> Result<(), String> {
        if self.has_free_entry() {
            return Ok(());
        }
        let current = self.entries_sectors();
        let usual = USUAL_BYTES.div_ceil(u64::from(self.sector_bytes).max(1));
        let wanted = usual.max(current.saturating_add(1));
        let room = self.room_behind_entries(source, wanted.saturating_sub(current));
        for sectors in (current..=current.saturating_add(room)).rev() {
            if let Some(grown) = self.grown_to(sectors, size_bytes) {
                tracing::info!(
                    from = self.entry_count(),
                    to = grown.entry_count(),
                    "all entries of the GPT are in use; the table grows"
                );
                *self = grown;
                return Ok(());
            }
        }
        Err(format!(
            "all {} entries of its GPT are in use, and there is no room for more in front of the first partition or behind \
             the last one; use an image whose table has more entries (128 are usual)",
            self.entry_count()
        ))
    }

    /// Returns how many sectors behind the first copy's entries are free, `limit` at the most.
    fn room_behind_entries<S: Source + ?Sized>(&self, source: &S, limit: u64) -> u64 {
        let sector = u64::from(self.sector_bytes).max(1);
        let Some(end) = self.entries_sector.checked_add(self.entries_sectors()) else { return 0 };
        let first_partition = self.partitions.iter().map(|partition| partition.start_byte / sector).min();
        let free = first_partition.map_or(limit, |first| first.saturating_sub(end)).min(limit);
        let length = usize::try_from(sector).unwrap_or(512);
        let is_zero = |at: u64| {
            let bytes = at.checked_mul(sector).and_then(|offset| source.bytes(offset, length).ok());
            bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
        };
        (0..free).find(|index| !is_zero(end.saturating_add(*index))).unwrap_or(free)
    }

    /// Returns the same table with entries that fill this many sectors, if both copies have room and more entries come of it.
    fn grown_to(&self, sectors: u64, size_bytes: u64) -> Option<Self> {
        let bytes = usize::try_from(sectors.checked_mul(u64::from(self.sector_bytes))?).ok()?;
        let length = bytes.checked_div(self.entry_bytes)?.checked_mul(self.entry_bytes)?;
        if length <= self.entries.len() {
            return None;
        }
        let mut grown = self.clone();
        grown.entries.resize(length, 0);
        let end = self.entries_sector.checked_add(grown.entries_sectors())?;
        grown.first_usable_sector = self.first_usable_sector.max(end);
        grown.fit(size_bytes).ok()?;
        Some(grown)
    }

    /// Returns how many partitions the table has room for.
    fn entry_count(&self) -> usize {
        self.entries.len() / self.entry_bytes.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::disk_with_entries;
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const SIZE: u64 = 8192 * 512;

    fn read(disk: &[u8]) -> Gpt {
        Gpt::read(disk, 512, 0).unwrap()
    }

    /// Partitions of 8 sectors from `first` on, as many as there are entries.
    fn full(entries: usize, first: u64) -> Vec<u8> {
        let used: Vec<_> = (1..=entries)
            .map(|number| {
                let at = first + 8 * (u64::try_from(number).unwrap() - 1);
                (number, at, at + 7)
            })
            .collect();
        disk_with_entries(512, 8192, entries, &used)
    }

    #[test]
    fn full_table_grows_to_the_usual_size_and_keeps_its_partitions() {
        for entries in [1, 2, 4, 5, 56, 100] {
            let disk = full(entries, 2048);
            let mut gpt = read(&disk);
            let before = gpt.partitions.clone();
            gpt.make_room(&disk, SIZE).unwrap();
            assert_eq!(gpt.entry_count(), 128, "{entries}");
            assert_eq!(gpt.partitions, before);
            assert_eq!(gpt.first_usable_sector, 34);
            assert_eq!(gpt.last_usable_sector, 8191 - 33);
            let number = gpt.add(Uuid::from_u128(1), Uuid::from_u128(2), "", 4096, 4103).unwrap();
            assert_eq!(usize::try_from(number).unwrap(), entries + 1);
        }
        // One more sector than the usual ones.
        let disk = full(128, 2048);
        let mut gpt = read(&disk);
        gpt.make_room(&disk, SIZE).unwrap();
        assert_eq!((gpt.entry_count(), gpt.first_usable_sector), (132, 35));
    }

    #[test]
    fn table_with_a_free_entry_stays_as_it_is() {
        let disk = disk_with_entries(512, 8192, 4, &[(1, 2048, 4095), (3, 4096, 4103)]);
        let mut gpt = read(&disk);
        let before = gpt.clone();
        gpt.make_room(&disk, SIZE).unwrap();
        assert_eq!(gpt, before);
    }

    #[test]
    fn growth_ends_at_the_first_partition_and_at_bytes_that_are_in_use() {
        // The rest of the one sector of entries is room for two more, whatever lies behind.
        let disk = full(2, 3);
        let mut gpt = read(&disk);
        gpt.make_room(&disk, SIZE).unwrap();
        assert_eq!(gpt.entry_count(), 4);

        let mut disk = full(4, 2048);
        disk[16 * 512] = 0xea; // boot code of a board
        let mut gpt = read(&disk);
        gpt.make_room(&disk, SIZE).unwrap();
        assert_eq!((gpt.entry_count(), gpt.first_usable_sector), (13 * 4 + 4, 34));

        let disk = full(8, 5);
        let mut gpt = read(&disk);
        gpt.make_room(&disk, SIZE).unwrap();
        assert_eq!(gpt.entry_count(), 12);
    }

    #[test]
    fn table_without_room_is_refused_and_unchanged() {
        let reason = |disk: &Vec<u8>, size: u64| {
            let mut gpt = read(disk);
            let before = gpt.clone();
            let reason = gpt.make_room(disk, size).unwrap_err();
            assert_eq!(gpt, before);
            reason
        };
        for (entries, first) in [(4, 3), (8, 4), (128, 34)] {
            let text = reason(&full(entries, first), SIZE);
            assert!(text.contains(&format!("all {entries} entries")) && text.contains("128"), "{text}");
        }
        let mut occupied = full(4, 2048);
        occupied[3 * 512 + 511] = 1;
        assert!(reason(&occupied, SIZE).contains("no room"));
        // The last partition ends right before the second copy.
        let disk = disk_with_entries(512, 8192, 4, &[(1, 40, 47), (2, 48, 55), (3, 56, 63), (4, 64, 8189)]);
        assert!(reason(&disk, SIZE).contains("no room"));
        let mut gpt = read(&disk);
        gpt.make_room(&disk, SIZE + 512 * 40).unwrap();
    }

    proptest! {
        #[test]
        fn growth_never_reaches_a_partition_or_bytes_in_use(
            entries in 1usize..140, first in 3u64..80, used in 3u64..80, size in 2048u64..9000,
        ) {
            let width = (u64::try_from(entries).unwrap() * 128).div_ceil(512);
            prop_assume!(first >= 2 + width);
            let mut disk = full(entries, first);
            let at = usize::try_from(used * 512).unwrap();
            let is_free = used >= 2 + width && used < first;
            if is_free {
                disk[at] = 1;
            }
            let mut gpt = read(&disk);
            if gpt.make_room(&disk, size * 512).is_ok() {
                prop_assert!(gpt.has_free_entry());
                let end = 2 + gpt.entries_sectors();
                prop_assert!(end <= first);
                prop_assert!(!is_free || end <= used);
                prop_assert!(gpt.first_usable_sector >= end);
            }
        }
    }
}

//! GUID partition table (UEFI specification 2.10, 5.3): reading either copy, adding partitions, writing both copies.

mod grow;
mod header;

use uuid::{Uuid, uuid};

use super::{Partition, PartitionType};
use crate::{Device, Source};
use header::{Header, crc32};

/// EFI system partition.
pub const ESP_TYPE: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Type of a BIOS boot partition: room for grub on a disk that boots with BIOS.
pub const BIOS_BOOT_TYPE: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// Linux file system.
pub const LINUX_FILE_SYSTEM_TYPE: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// Largest entry array accepted: 64 times the usual one. What a damaged header asks for must not cost memory.
const ENTRIES_LIMIT: u64 = 1 << 20;
const LEGACY_BOOTABLE: u64 = 1 << 2;

/// A GPT as it was read, with the raw entries, so that writing it back changes nothing that was not meant to change.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt {
    /// Identifies the disk.
    pub disk_guid: Uuid,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// Used partitions by number.
    pub partitions: Vec<Partition>,
    /// Last sector partitions may use.
    pub last_usable_sector: u64,
    /// First sector partitions may use.
    pub first_usable_sector: u64,
    /// Where the header says that its other copy is.
    pub other_sector: u64,
    /// The number at offset 440 of the protective MBR.
    pub mbr_signature: u32,
    /// Whether the first copy was damaged and this is the one from the end of the disk.
    pub is_from_backup: bool,
    entries_sector: u64,
    entry_bytes: usize,
    entries: Vec<u8>,
}

impl Gpt {
    /// One without partitions, for a disk of this size: 128 entries of 128 bytes, as everywhere.
    pub(super) fn empty(disk_guid: Uuid, size_bytes: u64, sector_bytes: u32) -> Result<Self, String> {
        let mut gpt = Self {
            disk_guid,
            sector_bytes,
            partitions: Vec::new(),
            last_usable_sector: 0,
            first_usable_sector: 0,
            other_sector: 0,
            mbr_signature: 0,
            is_from_backup: false,
            entries_sector: 2,
            entry_bytes: 128,
            entries: vec![0; 128 * 128],
        };
        gpt.first_usable_sector = gpt.entries_sector + gpt.entries_sectors();
        gpt.fit(size_bytes)?;
        Ok(gpt)
    }

    pub(super) fn read<S: Source + ?Sized>(
        source: &S,
        sector_bytes: u32,
        mbr_signature: u32,
    ) -> Result<Self, String> {
        let last = (source.size() / u64::from(sector_bytes)).saturating_sub(1);
        let first_error = match Self::read_copy(source, sector_bytes, 1) {
            Ok(gpt) => return Ok(Self { mbr_signature, ..gpt }),
            Err(reason) => reason,
        };
        if let Ok(gpt) = Self::read_copy(source, sector_bytes, last) {
            return Ok(Self { mbr_signature, is_from_backup: true, ..gpt });
        }
        for other in [512u64, 4096].into_iter().filter(|other| *other != u64::from(sector_bytes)) {
            if source.bytes(other, 8).is_ok_and(|magic| magic == b"EFI PART") {
                return Err(format!(
                    "the GPT was made for sectors of {other} bytes, this disk has {sector_bytes}; use an image made for \
                     this kind of disk"
                ));
            }
        }
        Err(format!("the MBR announces a GPT, but {first_error}"))
    }

    fn read_copy<S: Source + ?Sized>(source: &S, sector_bytes: u32, at: u64) -> Result<Self, String> {
        let unreadable = |error: std::io::Error| format!("it can not be read: {error}");
        let sector_length = usize::try_from(sector_bytes).map_err(|_| "absurd sector size")?;
        let offset = at.checked_mul(u64::from(sector_bytes)).ok_or("it lies beyond the disk")?;
        let header = Header::parse(&source.bytes(offset, sector_length).map_err(unreadable)?, at)?;
        let length = u64::from(header.entry_count) * u64::from(header.entry_bytes);
        if length > ENTRIES_LIMIT {
            return Err("its header asks for absurdly many entries".into());
        }
        let length = usize::try_from(length).map_err(|_| "absurd length of the entries")?;
        let offset = header.entries_sector.checked_mul(u64::from(sector_bytes)).ok_or("absurd entries")?;
        let entries = source.bytes(offset, length).map_err(unreadable)?;
        if crc32(&entries) != header.entries_crc {
            return Err("the checksum of its entries is wrong".into());
        }
        let entry_bytes = usize::try_from(header.entry_bytes).map_err(|_| "absurd length of an entry")?;
        let mut gpt = Self {
            disk_guid: header.disk_guid,
            sector_bytes,
            partitions: Vec::new(),
            last_usable_sector: header.last_usable,
            first_usable_sector: header.first_usable,
            other_sector: header.other_sector,
            mbr_signature: 0,
            is_from_backup: false,
            // The copy at the end has entries of its own; the first copy's usual place is sector 2.
            entries_sector: if at == 1 { header.entries_sector } else { 2 },
            entry_bytes,
            entries,
        };
        gpt.partitions = gpt.parse_entries()?;
        Ok(gpt)
    }

    fn parse_entries(&self) -> Result<Vec<Partition>, String> {
        let mut partitions = Vec::new();
        for (number, entry) in (1u32..).zip(self.entries.chunks_exact(self.entry_bytes)) {
            let field = |at: usize| -> Option<[u8; 8]> { entry.get(at..at + 8)?.try_into().ok() };
            let guid = |at: usize| -> Option<Uuid> {
                Some(Uuid::from_bytes_le(entry.get(at..at + 16)?.try_into().ok()?))
            };
            let short = || "an entry is too short".to_owned();
            let kind = guid(0).ok_or_else(short)?;
            if kind.is_nil() {
                continue;
            }
            let first = u64::from_le_bytes(field(32).ok_or_else(short)?);
            let last = u64::from_le_bytes(field(40).ok_or_else(short)?);
            let flags = u64::from_le_bytes(field(48).ok_or_else(short)?);
            let bad = || format!("partition {number} has an impossible place");
            let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1)).ok_or_else(bad)?;
            let bytes = |sectors: u64| sectors.checked_mul(u64::from(self.sector_bytes)).ok_or_else(bad);
            let name: Vec<u16> = entry
                .get(56..128)
                .unwrap_or_default()
                .chunks_exact(2)
                .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
                .take_while(|unit| *unit != 0)
                .collect();
            partitions.push(Partition {
                number,
                start_byte: bytes(first)?,
                size_byte: bytes(sectors)?,
                kind: PartitionType::Guid(kind),
                name: String::from_utf16_lossy(&name),
                uuid: guid(16).ok_or_else(short)?.to_string(),
                bootable: flags & LEGACY_BOOTABLE != 0,
            });
        }
        Ok(partitions)
    }

    /// Whether both copies are there, agree, and the second lies in the last sector.
    pub(crate) fn is_intact<S: Source + ?Sized>(&self, source: &S) -> bool {
        let last = (source.size() / u64::from(self.sector_bytes)).saturating_sub(1);
        if self.is_from_backup || self.other_sector != last {
            return false;
        }
        Self::read_copy(source, self.sector_bytes, last).is_ok_and(|backup| {
            backup.entries == self.entries
                && backup.disk_guid == self.disk_guid
                && backup.last_usable_sector == self.last_usable_sector
        })
    }

    fn entries_sectors(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX).div_ceil(u64::from(self.sector_bytes))
    }

    /// Takes the size of the disk into account: the backup goes to its end, partitions may reach up to the backup.
    pub(crate) fn fit(&mut self, size_bytes: u64) -> Result<(), String> {
        let sectors = size_bytes / u64::from(self.sector_bytes);
        let last = sectors.checked_sub(1).ok_or("the disk is empty")?;
        let last_usable = last
            .checked_sub(self.entries_sectors() + 1)
            .filter(|last_usable| *last_usable >= self.first_usable_sector)
            .ok_or("the disk is too small for a GPT")?;
        let end = (last_usable + 1).saturating_mul(u64::from(self.sector_bytes));
        for partition in &self.partitions {
            if partition.start_byte.checked_add(partition.size_byte).is_none_or(|stop| stop > end) {
                return Err(format!(
                    "partition {} reaches beyond the space the disk has for partitions; the disk is too small",
                    partition.number
                ));
            }
        }
        // A copy that the image brought lies where it lies. One made anew must not destroy data.
        let entries_end = self
            .entries_sector
            .saturating_add(self.entries_sectors())
            .saturating_mul(u64::from(self.sector_bytes));
        if self.is_from_backup
            && let Some(partition) =
                self.partitions.iter().find(|partition| partition.start_byte < entries_end)
        {
            return Err(format!(
                "its first copy is damaged, and partition {} starts where a new one would go; publish the image with an \
                 intact table",
                partition.number
            ));
        }
        (self.other_sector, self.last_usable_sector) = (last, last_usable);
        Ok(())
    }

    /// Adds a partition in the first free entry and returns its number. First and last sector are included. Where none may be
    /// free, [`Gpt::make_room`] comes first.
    pub(crate) fn add(
        &mut self,
        kind: Uuid,
        guid: Uuid,
        name: &str,
        first: u64,
        last: u64,
    ) -> Result<u32, String> {
        let mut free = None;
        for (number, entry) in (1u32..).zip(self.entries.chunks_exact_mut(self.entry_bytes)) {
            if entry.iter().take(16).all(|byte| *byte == 0) {
                free = Some((number, entry));
                break;
            }
        }
        let (number, entry) = free.ok_or("all its entries are in use")?;
        entry.fill(0);
        let fields = [
            kind.to_bytes_le().to_vec(),
            guid.to_bytes_le().to_vec(),
            first.to_le_bytes().to_vec(),
            last.to_le_bytes().to_vec(),
            vec![0; 8], // attributes
            name.encode_utf16().take(36).flat_map(u16::to_le_bytes).collect(),
        ];
        for (slot, byte) in entry.iter_mut().zip(fields.concat()) {
            *slot = byte;
        }
        self.partitions = self.parse_entries()?;
        Ok(number)
    }

    /// **Writes** both copies: the backup first, so that one good copy exists at every moment; the head of the disk last.
    pub(crate) fn write(&self, device: &Device) -> Result<(), String> {
        let text = |error: crate::Error| chain(&error);
        let [backup_entries, backup, entries, header] = self.copies()?;
        for (offset, bytes) in [backup_entries, backup] {
            device.write_at(offset, &bytes).map_err(text)?;
        }
        device.flush().map_err(text)?;
        for (offset, bytes) in [entries, header] {
            device.write_at(offset, &bytes).map_err(text)?;
        }
        self.write_protective_mbr(device).map_err(text)
    }

    /// What to write where, in bytes: entries and header of the backup, entries and header of the first copy.
    pub(super) fn copies(&self) -> Result<[(u64, Vec<u8>); 4], String> {
        let sector = u64::from(self.sector_bytes);
        let last = self.other_sector;
        let backup_entries = last.checked_sub(self.entries_sectors()).ok_or("the disk is too small")?;
        let mut entries = self.entries.clone();
        entries.resize(usize::try_from(self.entries_sectors() * sector).map_err(|_| "absurd length")?, 0);
        let at = |sectors: u64| sectors.checked_mul(sector).ok_or("its header names an absurd place");
        Ok([
            (at(backup_entries)?, entries.clone()),
            (at(last)?, self.header(last, 1, backup_entries)),
            (at(self.entries_sector)?, entries),
            (at(1)?, self.header(1, last, self.entries_sector)),
        ])
    }

    /// The first copy alone, from the first bytes of a disk.
    pub(super) fn read_first_copy(head: &[u8], sector_bytes: u32) -> Result<Self, String> {
        Self::read_copy(head, sector_bytes, 1)
    }

    /// Bytes that the entries take.
    pub(super) fn entries_length(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// Where partitions may begin, in bytes.
    pub(super) fn first_usable_byte(&self) -> u64 {
        self.first_usable_byte_in(u64::from(self.sector_bytes))
    }

    /// Where they might, if sectors were of `sector` bytes.
    pub(super) fn first_usable_byte_in(&self, sector: u64) -> u64 {
        (2 + self.entries_length().div_ceil(sector)).saturating_mul(sector)
    }

    /// The same partitions at the same bytes, for sectors of another size on a disk of `disk` bytes.
    pub(super) fn for_sectors(&self, sector_bytes: u32, disk: u64) -> Result<Self, String> {
        let (from, to) = (u64::from(self.sector_bytes), u64::from(sector_bytes));
        let mut gpt = Self { sector_bytes, entries_sector: 2, mbr_signature: 0, ..self.clone() };
        gpt.first_usable_sector = 2 + gpt.entries_sectors();
        for partition in &self.partitions {
            let number = partition.number;
            let Some(end) = partition.start_byte.checked_add(partition.size_byte) else {
                return Err(format!("partition {number} has an impossible place"));
            };
            for (byte, verb) in [(partition.start_byte, "start"), (end, "end")] {
                if !byte.is_multiple_of(to) {
                    return Err(format!(
                        "partition {number} does not {verb} on a boundary of {to} bytes (byte {byte}): publish the image with \
                         its partitions aligned to 1 MiB"
                    ));
                }
            }
            if partition.start_byte < gpt.first_usable_byte() {
                return Err(format!(
                    "partition {number} starts at byte {}, and the table takes the first {} bytes on such a disk: publish the \
                     image with its partitions aligned to 1 MiB",
                    partition.start_byte,
                    gpt.first_usable_byte()
                ));
            }
            let slot = usize::try_from(number).unwrap_or_default().saturating_sub(1);
            let entry =
                gpt.entries.chunks_exact_mut(self.entry_bytes).nth(slot).ok_or("an entry is missing")?;
            for (at, sector) in [(32, partition.start_byte / to), (40, (end / to).saturating_sub(1))] {
                let field = entry.get_mut(at..at + 8).ok_or("an entry is too short")?;
                field.copy_from_slice(&sector.to_le_bytes());
            }
        }
        tracing::debug!(
            from,
            to,
            partitions = self.partitions.len(),
            "GPT rewritten for another sector size"
        );
        gpt.partitions = gpt.parse_entries()?;
        gpt.fit(disk)?;
        Ok(gpt)
    }

    fn header(&self, at: u64, other: u64, entries_sector: u64) -> Vec<u8> {
        let count = self.entries.len() / self.entry_bytes.max(1);
        let header = Header {
            other_sector: other,
            first_usable: self.first_usable_sector,
            last_usable: self.last_usable_sector,
            disk_guid: self.disk_guid,
            entries_sector,
            entry_count: u32::try_from(count).unwrap_or_default(),
            entry_bytes: u32::try_from(self.entry_bytes).unwrap_or_default(),
            entries_crc: crc32(&self.entries),
        };
        let mut sector = header.encode(at);
        sector.resize(usize::try_from(self.sector_bytes).unwrap_or(512), 0);
        sector
    }

    /// Makes the one protective record cover the grown disk. A hybrid MBR, made by hand for odd firmware, is left alone.
    fn write_protective_mbr(&self, device: &Device) -> Result<(), crate::Error> {
        let length = usize::try_from(self.sector_bytes).unwrap_or(512);
        let mut sector = device
            .bytes(0, length)
            .map_err(crate::Error::io(format!("reading the first sector of {}", device.path().display())))?;
        let records: Vec<u8> = sector.get(446..510).unwrap_or_default().to_vec();
        let used = records.chunks_exact(16).filter(|record| record.get(4).is_some_and(|id| *id != 0)).count();
        let is_first = records.get(4) == Some(&0xee) && records.get(8..12) == Some(&[1, 0, 0, 0]);
        if used != 1 || !is_first {
            return Ok(());
        }
        let size = u32::try_from(self.other_sector).unwrap_or(u32::MAX).to_le_bytes();
        if records.get(12..16) != Some(&size) {
            for (slot, byte) in sector.iter_mut().skip(446 + 12).zip(size) {
                *slot = byte;
            }
            device.write_at(0, &sector)?;
        }
        Ok(())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A GPT disk in memory with entries in the given places: (number, first, last).
    pub(crate) fn disk(sector: u32, sectors: u64, used: &[(usize, u64, u64)]) -> Vec<u8> {
        disk_with_entries(sector, sectors, 128, used)
    }

    /// The same with room for so many partitions.
    pub(crate) fn disk_with_entries(
        sector: u32,
        sectors: u64,
        entries: usize,
        used: &[(usize, u64, u64)],
    ) -> Vec<u8> {
        let unit = usize::try_from(sector).unwrap();
        let mut gpt = Gpt {
            disk_guid: Uuid::from_u128(7),
            sector_bytes: sector,
            partitions: vec![],
            last_usable_sector: 0,
            first_usable_sector: 34,
            other_sector: 0,
            mbr_signature: 0,
            is_from_backup: false,
            entries_sector: 2,
            entry_bytes: 128,
            entries: vec![0; entries * 128],
        };
        for (number, first, last) in used {
            let at = (number - 1) * 128;
            gpt.entries[at..at + 16].copy_from_slice(&LINUX_FILE_SYSTEM_TYPE.to_bytes_le());
            gpt.entries[at + 16] = u8::try_from(*number).unwrap();
            gpt.entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            gpt.entries[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
            gpt.entries[at + 56..at + 60].copy_from_slice(&[b'p', 0, b'1', 0]);
        }
        gpt.fit(sectors * u64::from(sector)).unwrap();
        let mut disk = vec![0; usize::try_from(sectors).unwrap() * unit];
        let mut put = |at: u64, data: &[u8]| {
            let at = usize::try_from(at).unwrap() * unit;
            disk[at..at + data.len()].copy_from_slice(data);
        };
        let last = sectors - 1;
        put(2, &gpt.entries);
        put(1, &gpt.header(1, last, 2));
        put(last - gpt.entries_sectors(), &gpt.entries);
        put(last, &gpt.header(last, 1, last - gpt.entries_sectors()));
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk[450] = 0xee;
        disk[454] = 1;
        disk[458..462].fill(0xff);
        disk
    }

    #[test]
    fn numbers_with_gaps_and_names_are_read() {
        let disk = disk(512, 8192, &[(1, 2048, 4095), (14, 40, 47), (15, 48, 2047)]);
        let gpt = Gpt::read(&disk, 512, 0).unwrap();
        let numbers: Vec<_> = gpt.partitions.iter().map(|p| (p.number, p.start_byte, p.size_byte)).collect();
        assert_eq!(
            numbers,
            [(1, 2048 * 512, 2048 * 512), (14, 40 * 512, 8 * 512), (15, 48 * 512, 2000 * 512)]
        );
        assert_eq!(gpt.partitions[0].name, "p1");
        assert!(gpt.is_intact(&disk));
    }

    #[test]
    fn the_backup_is_used_when_the_first_copy_is_damaged() {
        let mut disk = disk(4096, 512, &[(1, 64, 100)]);
        disk[4096 + 20] ^= 1;
        disk[4096 + 60] ^= 1;
        let gpt = Gpt::read(&disk, 4096, 0).unwrap();
        assert!(gpt.is_from_backup && !gpt.is_intact(&disk));
        assert_eq!(gpt.partitions.len(), 1);
    }

    #[test]
    fn another_sector_size_is_named_in_the_error() {
        let disk = disk(512, 8192, &[(1, 2048, 4095)]);
        let error = Gpt::read(&disk, 4096, 0).unwrap_err();
        assert!(error.contains("made for sectors of 512 bytes"), "{error}");
    }

    #[test]
    fn a_partition_beyond_a_smaller_disk_is_refused() {
        let disk = disk(512, 8192, &[(1, 2048, 8000)]);
        let mut gpt = Gpt::read(&disk, 512, 0).unwrap();
        assert!(gpt.fit(7000 * 512).unwrap_err().contains("too small"));
        assert_eq!(gpt.other_sector, 8191, "nothing changed");
    }

    #[test]
    fn a_first_copy_is_not_made_anew_over_a_partition() {
        let mut disk = disk(512, 8192, &[(1, 20, 4095)]);
        let mut intact = Gpt::read(&disk, 512, 0).unwrap();
        assert!(intact.fit(8192 * 512).is_ok(), "what the image has itself is its own affair");
        disk[512 + 20] ^= 1;
        let mut gpt = Gpt::read(&disk, 512, 0).unwrap();
        assert!(gpt.is_from_backup);
        let reason = gpt.fit(8192 * 512).unwrap_err();
        assert!(reason.contains("partition 1"), "{reason}");
    }

    proptest! {
        #[test]
        fn damage_anywhere_is_noticed_or_harmless(at in 512..1024usize, bit in 0..8u8) {
            let good = disk(512, 256, &[(1, 64, 100)]);
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let gpt = Gpt::read(&bad, 512, 0).unwrap();
            prop_assert_eq!(gpt.is_from_backup, at < 512 + 92);
        }

        #[test]
        fn junk_is_read_without_panic(
            patches in proptest::collection::vec((512..2048usize, any::<u8>()), 0..40), fix_checksum in any::<bool>(),
        ) {
            let mut disk = disk(512, 256, &[(1, 64, 100)]);
            for (at, byte) in patches {
                disk[at] = byte;
            }
            if fix_checksum {
                disk[512 + 16..512 + 20].fill(0);
                let sum = crc32(&disk[512..512 + 92]);
                disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = Gpt::read(&disk, 512, 0);
        }
    }
}

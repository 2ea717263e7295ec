//! Master boot record: primary and logical partitions, and adding one primary partition.

use super::{Partition, PartitionType};
use crate::Source;

/// System id of an EFI system partition.
pub const ESP_MBR_TYPE: u8 = 0xef;
/// System id of the record that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// Logical partitions followed; more are not seen in practice, and the chain may run in a circle.
const LOGICAL_LIMIT: u32 = 60;

/// An MBR as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Mbr {
    /// The number at offset 440.
    pub signature: u32,
    /// Logical sector size in bytes.
    pub sector_bytes: u32,
    /// Used partitions by number: primary and extended 1 to 4, logical from 5.
    pub partitions: Vec<Partition>,
    pub(crate) is_protective: bool,
}

/// One 16-byte record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub status: u8,
    pub id: u8,
    pub first: u32,
    pub sectors: u32,
}

impl Record {
    /// System id of FAT32 addressed by sector number: what `parted ... mkpart primary fat32` sets.
    pub(crate) const FAT32_LBA: u8 = 0x0c;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let &[status, _, _, _, id, _, _, _, a, b, c, d, e, f, g, h] = bytes else { return None };
        let (first, sectors) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        Some(Self { status, id, first, sectors })
    }

    /// With the cylinder, head and sector fields at their end stop: "use the sector number".
    pub(crate) fn encode(self) -> [u8; 16] {
        let mut bytes = [0u8; 16];
        let [a, b, c, d] = self.first.to_le_bytes();
        let [e, f, g, h] = self.sectors.to_le_bytes();
        bytes.copy_from_slice(&[
            self.status,
            0xfe,
            0xff,
            0xff,
            self.id,
            0xfe,
            0xff,
            0xff,
            a,
            b,
            c,
            d,
            e,
            f,
            g,
            h,
        ]);
        bytes
    }

    fn is_used(self) -> bool {
        self.id != 0 && self.sectors != 0
    }

    fn is_extended(self) -> bool {
        matches!(self.id, 0x05 | 0x0f | 0x85)
    }
}

/// The four records of a sector; `None` when it is no MBR (a boot sector of a file system has other bytes there).
pub(crate) fn records(sector: &[u8]) -> Option<[Record; 4]> {
    if sector.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let mut records = [Record { status: 0, id: 0, first: 0, sectors: 0 }; 4];
    for (slot, bytes) in records.iter_mut().zip(sector.get(446..510)?.chunks_exact(16)) {
        *slot = Record::parse(bytes)?;
    }
    records.iter().all(|record| record.status & 0x7f == 0).then_some(records)
}

/// Returns the number (from 1) of the first record whose sixteen bytes are all zero. A record of type 0 with other bytes is in
/// use: an isohybrid image marks itself so, active and from sector 0 on.
pub(crate) fn free_record(sector: &[u8]) -> Option<u32> {
    let records = sector.get(446..510)?.chunks_exact(16);
    (1u32..).zip(records).find(|(_, record)| record.iter().all(|byte| *byte == 0)).map(|(number, _)| number)
}

/// Returns where the last of the four records ends, in sectors, whatever its type.
pub(crate) fn records_end(sector: &[u8]) -> u64 {
    let ends = records(sector).into_iter().flatten();
    ends.map(|record| u64::from(record.first) + u64::from(record.sectors)).max().unwrap_or(0)
}

impl Mbr {
    /// `head` is the first 512 bytes of `source`. `None` when there is no MBR.
    pub(super) fn read<S: Source + ?Sized>(source: &S, head: &[u8], sector_bytes: u32) -> Option<Self> {
        let primary = records(head)?;
        // An empty FAT or NTFS volume has zeroes where the records are: its own magic tells.
        let is_boot_sector = head.get(54..57) == Some(b"FAT")
            || head.get(82..87) == Some(b"FAT32")
            || head.get(3..7) == Some(b"NTFS");
        if is_boot_sector && primary.iter().all(|record| !record.is_used()) {
            return None;
        }
        let signature =
            head.get(440..444).and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)))?;
        let mut mbr = Self { signature, sector_bytes, partitions: Vec::new(), is_protective: false };
        for (number, record) in (1u32..).zip(primary) {
            if record.id == PROTECTIVE {
                mbr.is_protective = true;
            }
            if record.is_used() {
                mbr.push(number, record, 0);
            }
        }
        if let Some(extended) = primary.iter().find(|record| record.is_extended()) {
            mbr.read_logical(source, u64::from(extended.first));
        }
        Some(mbr)
    }

    /// Follows the chain of extended boot records: the first record of each is a partition, the second the link.
    fn read_logical<S: Source + ?Sized>(&mut self, source: &S, extended: u64) {
        let mut at = extended;
        let mut number = 5;
        for _ in 0..LOGICAL_LIMIT {
            let Ok(sector) = source.bytes(at.saturating_mul(u64::from(self.sector_bytes)), 512) else {
                return;
            };
            let Some([partition, link, ..]) = records(&sector) else { return };
            if partition.is_used() {
                self.push(number, partition, at);
                number += 1;
            }
            if !link.is_extended() || link.first == 0 {
                return;
            }
            at = extended + u64::from(link.first);
        }
    }

    fn push(&mut self, number: u32, record: Record, base: u64) {
        let sector = u64::from(self.sector_bytes);
        self.partitions.push(Partition {
            number,
            // 33 bits of sectors of at most 64 KiB: no overflow.
            start_byte: (base + u64::from(record.first)) * sector,
            size_byte: u64::from(record.sectors) * sector,
            kind: PartitionType::Id(record.id),
            name: String::new(),
            uuid: format!("{:08x}-{number:02x}", self.signature),
            bootable: record.status & 0x80 != 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;
    use proptest::prelude::*;

    fn put(disk: &mut [u8], sector: usize, slot: usize, record: Record) {
        let at = sector * 512 + 446 + slot * 16;
        disk[at..at + 16].copy_from_slice(&record.encode());
        disk[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn record(id: u8, first: u32, sectors: u32) -> Record {
        Record { status: 0, id, first, sectors }
    }

    #[test]
    fn primary_and_logical_partitions_are_read() {
        let mut disk = vec![0u8; 512 * 100];
        disk[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        put(&mut disk, 0, 0, Record { status: 0x80, ..record(0x83, 8, 8) });
        put(&mut disk, 0, 2, record(0xef, 16, 4));
        put(&mut disk, 0, 3, record(0x05, 20, 60));
        put(&mut disk, 20, 0, record(0x83, 2, 10));
        put(&mut disk, 20, 1, record(0x05, 20, 20));
        put(&mut disk, 40, 0, record(0x82, 2, 10));
        let table = Table::read(&disk, 512).unwrap();
        let found: Vec<_> =
            table.partitions().iter().map(|p| (p.number, p.start_byte / 512, p.uuid.as_str())).collect();
        assert_eq!(
            found,
            [
                (1, 8, "1a2b3c4d-01"),
                (3, 16, "1a2b3c4d-03"),
                (4, 20, "1a2b3c4d-04"),
                (5, 22, "1a2b3c4d-05"),
                (6, 42, "1a2b3c4d-06"),
            ]
        );
        assert!(table.partitions()[0].bootable);
        assert_eq!(table.esp().map(|esp| esp.number), Some(3));
        assert_eq!(table.disk_signature(), "0x1a2b3c4d");
        assert_eq!(table.kind(), "dos");
        assert!(table.validate("x", 512 * 100).is_ok());
        assert!(table.validate("x", 512 * 50).is_err());
    }

    #[test]
    fn a_circle_of_logical_partitions_ends() {
        let mut disk = vec![0u8; 512 * 40];
        put(&mut disk, 0, 0, record(0x05, 20, 20));
        put(&mut disk, 20, 0, record(0x83, 2, 4));
        put(&mut disk, 20, 1, record(0x05, 10, 10));
        put(&mut disk, 30, 1, record(0x05, 10, 10));
        assert!(Table::read(&disk, 512).unwrap().partitions().len() < 70);
    }

    #[test]
    fn what_has_no_partition_fails_validation() {
        assert_eq!(Table::read(&vec![0u8; 4096], 512).unwrap(), Table::None);
        assert!(Table::None.validate("x", 4096).unwrap_err().to_string().contains("there is none"));
        let mut empty = vec![0u8; 4096];
        empty[510..512].copy_from_slice(&[0x55, 0xaa]);
        let table = Table::read(&empty, 512).unwrap();
        assert_eq!(table.kind(), "dos");
        assert!(table.validate("x", 4096).is_err());
        empty[54..57].copy_from_slice(b"FAT");
        assert_eq!(Table::read(&empty, 512).unwrap(), Table::None);
    }

    #[test]
    fn record_with_any_byte_set_is_not_free() {
        let mut sector = vec![0u8; 512];
        assert_eq!(free_record(&sector), Some(1));
        put(&mut sector, 0, 1, record(0x83, 8, 8));
        sector[446] = 0x80; // active, and of type 0
        assert_eq!(free_record(&sector), Some(3));
        put(&mut sector, 0, 2, record(0, 100, 40_000));
        assert_eq!(records_end(&sector), 40_100, "a record of type 0 takes its place too");
        sector[446 + 48 + 15] = 1;
        assert_eq!(free_record(&sector), None);
    }

    #[test]
    fn an_mbr_that_announces_a_missing_gpt_is_an_error() {
        let mut disk = vec![0u8; 512 * 100];
        put(&mut disk, 0, 0, record(0xee, 1, 99));
        assert!(Table::read(&disk, 512).unwrap_err().to_string().contains("no GPT header"));
    }

    proptest! {
        #[test]
        fn records_read_back(status in prop_oneof![Just(0u8), Just(0x80)], id: u8, first: u32, sectors: u32) {
            let record = Record { status, id, first, sectors };
            prop_assert_eq!(Record::parse(&record.encode()), Some(record));
        }

        #[test]
        fn junk_is_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 512..3000), flags in proptest::bool::ANY,
        ) {
            let mut bytes = bytes;
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            if flags {
                for slot in 0..4 {
                    bytes[446 + slot * 16] &= 0x80;
                }
            }
            let _ = Table::read(&bytes, 512);
        }
    }
}

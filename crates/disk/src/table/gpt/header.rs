//! The header of a GPT as bytes, and the checksum that it and its entries are held to.

use uuid::Uuid;

/// What a header says. Sectors are numbers of sectors of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the other copy's header is.
    pub(super) other_sector: u64,
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) disk_guid: Uuid,
    pub(super) entries_sector: u64,
    pub(super) entry_count: u32,
    /// Bytes of one entry.
    pub(super) entry_bytes: u32,
    pub(super) entries_crc: u32,
}

impl Header {
    /// The header in `sector`, which is number `at` of the disk. Any other, a damaged and a senseless one are told apart.
    pub(super) fn parse(sector: &[u8], at: u64) -> Result<Self, String> {
        let le32 = |offset: usize| -> Option<u32> {
            Some(u32::from_le_bytes(sector.get(offset..offset + 4)?.try_into().ok()?))
        };
        let le64 = |offset: usize| -> Option<u64> {
            Some(u64::from_le_bytes(sector.get(offset..offset + 8)?.try_into().ok()?))
        };
        let parse = || -> Option<Result<Self, String>> {
            if sector.get(..8)? != b"EFI PART" {
                return Some(Err("there is no GPT header".into()));
            }
            let length = usize::try_from(le32(12)?).ok()?;
            let mut covered = sector.get(..length).filter(|_| length >= 92)?.to_vec();
            covered.get_mut(16..20)?.fill(0);
            if crc32(&covered) != le32(16)? {
                return Some(Err("the checksum of its header is wrong".into()));
            }
            if le64(24)? != at {
                return Some(Err("its header belongs to another place".into()));
            }
            let header = Self {
                other_sector: le64(32)?,
                first_usable: le64(40)?,
                last_usable: le64(48)?,
                disk_guid: Uuid::from_bytes_le(sector.get(56..72)?.try_into().ok()?),
                entries_sector: le64(72)?,
                entry_count: le32(80)?,
                entry_bytes: le32(84)?,
                entries_crc: le32(88)?,
            };
            let size = header.entry_bytes;
            let sane = (128..=4096).contains(&size) && size.is_power_of_two() && header.entry_count > 0;
            Some(if sane { Ok(header) } else { Err("its header has an absurd entry size".into()) })
        };
        parse().unwrap_or_else(|| Err("its header is damaged".into()))
    }

    /// The 92 bytes of a header in sector `at`, with their checksum.
    pub(super) fn encode(&self, at: u64) -> Vec<u8> {
        let mut header = Vec::with_capacity(92);
        header.extend(b"EFI PART");
        header.extend(0x0001_0000_u32.to_le_bytes());
        header.extend(92u32.to_le_bytes());
        header.extend([0; 8]); // checksum, filled in below; reserved
        for number in [at, self.other_sector, self.first_usable, self.last_usable] {
            header.extend(number.to_le_bytes());
        }
        header.extend(self.disk_guid.to_bytes_le());
        header.extend(self.entries_sector.to_le_bytes());
        for number in [self.entry_count, self.entry_bytes, self.entries_crc] {
            header.extend(number.to_le_bytes());
        }
        let checksum = crc32(&header).to_le_bytes();
        for (slot, byte) in header.iter_mut().skip(16).zip(checksum) {
            *slot = byte;
        }
        header
    }
}

/// CRC-32 as GPT, gzip and Ethernet use it, bit by bit: it covers some 16 KiB a few times per deployment.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn a_header_reads_back_at_its_place_alone(
            numbers: [u64; 4], count in 1..u32::MAX, power in 7..13u32, crc: u32, at in 1..u64::MAX, guid: u128,
        ) {
            let [other_sector, first_usable, last_usable, entries_sector] = numbers;
            let header = Header {
                other_sector, first_usable, last_usable, entries_sector,
                disk_guid: Uuid::from_u128(guid), entry_count: count, entry_bytes: 1 << power, entries_crc: crc,
            };
            let bytes = header.encode(at);
            prop_assert_eq!(Header::parse(&bytes, at), Ok(header));
            prop_assert!(Header::parse(&bytes, at - 1).is_err_and(|reason| reason.contains("another place")));
        }
    }
}

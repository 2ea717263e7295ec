//! Reads files of a FAT12, FAT16 or FAT32 file system: EFI system partitions, config drives. Never writes.
//!
//! Own reader because the bytes come from a tenant's image and are read by the first process of the machine: every offset is
//! checked, chains and directories are bounded, nothing is trusted. Layout: Microsoft's FAT32 specification 1.03.

use crate::{Error, Source};

/// Most entries looked at in one directory: what a FAT directory can hold (65536 of 32 bytes).
const DIRECTORY_LIMIT: usize = 65_536 * 32;

/// An open file system.
pub struct Fat<'a, S: Source + ?Sized> {
    source: &'a S,
    width: Width,
    cluster_bytes: u64,
    fat_start: u64,
    root: Root,
    data_start: u64,
    clusters: u32,
    serial: u32,
    boot_label: [u8; LABEL],
}

/// Length of a label, and of a short name, padded with blanks.
pub(crate) const LABEL: usize = 11;
/// Length of an entry of a directory.
pub(crate) const RECORD: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Clone, Copy)]
enum Root {
    Fixed { start: u64, length: usize },
    Cluster(u32),
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Long name, or the short one where there is none.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes; 0 for a directory.
    pub size: u32,
    /// Attributes and times.
    pub(crate) stamp: Stamp,
    first_cluster: u32,
}

/// What a directory says of a file besides its name, length and place, as it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bits: read-only 1, hidden 2, system 4, directory 16, archive 32.
    pub(crate) attributes: u8,
    /// Date, time, and hundredths of a second beyond it.
    pub(crate) created: (u16, u16, u8),
    /// Date.
    pub(crate) accessed: u16,
    /// Date and time.
    pub(crate) modified: (u16, u16),
}

impl Stamp {
    fn of(record: &[u8; RECORD]) -> Self {
        let word = |low: u8, high: u8| u16::from_le_bytes([low, high]);
        Self {
            attributes: record[11],
            created: (word(record[16], record[17]), word(record[14], record[15]), record[13]),
            accessed: word(record[18], record[19]),
            modified: (word(record[24], record[25]), word(record[22], record[23])),
        }
    }
}

fn fail(reason: impl Into<String>) -> Error {
    Error::Fat { reason: reason.into() }
}

impl<'a, S: Source + ?Sized> Fat<'a, S> {
    /// Reads the boot sector.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        let boot = source.bytes(0, 512).map_err(Error::io("reading the FAT boot sector"))?;
        let byte = |at: usize| boot.get(at).copied().unwrap_or_default();
        let le16 = |at: usize| u16::from_le_bytes([byte(at), byte(at + 1)]);
        let le32 = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
        if le16(510) != 0xaa55 {
            return Err(fail("no boot sector signature"));
        }
        let sector_bytes = u32::from(le16(11));
        let cluster_sectors = u32::from(byte(13));
        let reserved = u32::from(le16(14));
        let fats = u32::from(byte(16));
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            || !cluster_sectors.is_power_of_two()
            || reserved == 0
            || !(1..=4).contains(&fats)
        {
            return Err(fail("no valid parameter block"));
        }
        let root_entries = u32::from(le16(17));
        let total = match le16(19) {
            0 => le32(32),
            small => u32::from(small),
        };
        let fat_sectors = match le16(22) {
            0 => le32(36),
            small => u32::from(small),
        };
        let root_sectors = (root_entries * 32).div_ceil(sector_bytes);
        let meta = u64::from(reserved) + u64::from(fats) * u64::from(fat_sectors) + u64::from(root_sectors);
        let data_sectors =
            u64::from(total).checked_sub(meta).filter(|sectors| *sectors > 0 && fat_sectors > 0);
        let data_sectors = data_sectors.ok_or_else(|| fail("the parameter block contradicts itself"))?;
        let clusters = u32::try_from(data_sectors / u64::from(cluster_sectors))
            .map_err(|_| fail("too many clusters"))?;
        // The count of clusters alone decides the width.
        let width = match clusters {
            ..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => Width::Fat32,
        };
        let root_start =
            (u64::from(reserved) + u64::from(fats) * u64::from(fat_sectors)) * u64::from(sector_bytes);
        let (root, ids) = match width {
            // A FAT32 boot sector on a volume too small for FAT32: others read it by this field too.
            _ if root_entries == 0 => (Root::Cluster(le32(44)), 67),
            Width::Fat32 => return Err(fail("FAT32 with a fixed root directory")),
            Width::Fat12 | Width::Fat16 => {
                let length = usize::from(le16(17)) * 32;
                (Root::Fixed { start: root_start, length }, 39)
            }
        };
        let width = if root_entries == 0 { Width::Fat32 } else { width };
        let mut boot_label = [0; LABEL];
        boot_label.copy_from_slice(boot.get(ids + 4..ids + 15).unwrap_or(&[0; LABEL]));
        Ok(Self {
            source,
            width,
            cluster_bytes: u64::from(cluster_sectors) * u64::from(sector_bytes),
            fat_start: u64::from(reserved) * u64::from(sector_bytes),
            root,
            data_start: meta * u64::from(sector_bytes),
            clusters,
            serial: le32(ids),
            boot_label,
        })
    }

    /// The volume's serial number, `XXXX-XXXX`.
    pub fn serial(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    /// The serial number as the number that it is.
    pub(crate) fn volume_id(&self) -> u32 {
        self.serial
    }

    /// The label in the boot sector.
    pub(crate) fn boot_sector_label(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.boot_label);
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty() && text != "NO NAME").then(|| text.to_owned())
    }

    /// The label in the root directory.
    pub fn volume_label(&self) -> Result<Option<String>, Error> {
        let record = parse_directory(&self.root_bytes()?).1;
        Ok(record.map(|record| label_text(&record)))
    }

    /// The label in the boot sector, and the entry of the root directory that is one, byte for byte.
    pub(crate) fn labels(&self) -> Result<Labels, Error> {
        Ok(Labels { boot: self.boot_label, record: parse_directory(&self.root_bytes()?).1 })
    }

    /// The entries of the root directory.
    pub fn root(&self) -> Result<Vec<Entry>, Error> {
        Ok(parse_directory(&self.root_bytes()?).0)
    }

    /// The entries of a directory, in the order in which they lie there, without `.` and `..`.
    pub fn directory(&self, entry: &Entry) -> Result<Vec<Entry>, Error> {
        if !entry.is_directory {
            return Err(fail(format!("`{}` is no directory", entry.name)));
        }
        // A link to cluster 0 is a link to the root.
        if entry.first_cluster == 0 {
            return self.root();
        }
        Ok(parse_directory(&self.chain(entry.first_cluster, DIRECTORY_LIMIT)?).0)
    }

    /// A file's bytes; an error if there are more than `limit`.
    pub fn file(&self, entry: &Entry, limit: usize) -> Result<Vec<u8>, Error> {
        let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
        if entry.is_directory || size > limit {
            return Err(fail(format!("`{}` is no file of at most {limit} bytes", entry.name)));
        }
        let mut bytes = Vec::with_capacity(size.min(1 << 20));
        for piece in self.pieces(entry) {
            bytes.extend(piece?);
        }
        Ok(bytes)
    }

    /// A file's bytes, a cluster at a time.
    pub(crate) fn pieces<'f>(&'f self, entry: &'f Entry) -> Pieces<'f, 'a, S> {
        let left = usize::try_from(entry.size).unwrap_or(usize::MAX);
        Pieces { fat: self, name: &entry.name, cluster: Some(entry.first_cluster), left }
    }

    fn root_bytes(&self) -> Result<Vec<u8>, Error> {
        match self.root {
            Root::Fixed { start, length } => {
                self.source.bytes(start, length).map_err(Error::io("reading the FAT root directory"))
            }
            Root::Cluster(first) => self.chain(first, DIRECTORY_LIMIT),
        }
    }

    /// The bytes of a chain of clusters, up to the cluster that reaches `limit`. The limit ends a chain that runs in a circle.
    fn chain(&self, first: u32, limit: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        let length = self.cluster_length()?;
        while bytes.len() < limit {
            bytes.extend(self.cluster(cluster, length)?);
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(bytes)
    }

    fn cluster_length(&self) -> Result<usize, Error> {
        usize::try_from(self.cluster_bytes).map_err(|_| fail("cluster too large"))
    }

    /// The first `length` bytes of a cluster.
    fn cluster(&self, cluster: u32, length: usize) -> Result<Vec<u8>, Error> {
        let index = cluster.checked_sub(2).filter(|index| *index < self.clusters);
        let index = index.ok_or_else(|| fail(format!("cluster {cluster} is out of range")))?;
        let offset = self.data_start + u64::from(index) * self.cluster_bytes;
        self.source.bytes(offset, length).map_err(Error::io("reading a FAT cluster"))
    }

    /// The cluster after this one; `None` at the end of the chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Error> {
        let number = u64::from(cluster);
        let read = |offset: u64, length: usize| {
            let bytes = self.source.bytes(self.fat_start + offset, length);
            let mut word = [0u8; 4];
            for (slot, byte) in word.iter_mut().zip(bytes.map_err(Error::io("reading the FAT"))?) {
                *slot = byte;
            }
            Ok::<u32, Error>(u32::from_le_bytes(word))
        };
        let (next, end) = match self.width {
            Width::Fat12 => {
                let pair = read(number + number / 2, 2)?;
                (if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff8)
            }
            Width::Fat16 => (read(number * 2, 2)?, 0xfff8),
            Width::Fat32 => (read(number * 4, 4)? & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < end).then_some(next))
    }
}

/// The names of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) boot: [u8; LABEL],
    pub(crate) record: Option<[u8; RECORD]>,
}

/// The clusters of a file.
pub(crate) struct Pieces<'f, 'a, S: Source + ?Sized> {
    fat: &'f Fat<'a, S>,
    name: &'f str,
    cluster: Option<u32>,
    left: usize,
}

impl<S: Source + ?Sized> Iterator for Pieces<'_, '_, S> {
    type Item = Result<Vec<u8>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let piece = self.piece();
        // Nothing comes after an error. The length ends a chain that runs in a circle.
        self.left = piece.as_ref().map_or(0, |piece| self.left - piece.len());
        Some(piece)
    }
}

impl<S: Source + ?Sized> Pieces<'_, '_, S> {
    fn piece(&mut self) -> Result<Vec<u8>, Error> {
        let cluster = self.cluster.ok_or_else(|| fail(format!("`{}` ends before its length", self.name)))?;
        let length = self.fat.cluster_length()?.min(self.left);
        let piece = self.fat.cluster(cluster, length)?;
        if length < self.left {
            self.cluster = self.fat.next(cluster)?;
        }
        Ok(piece)
    }
}

fn label_text(record: &[u8; RECORD]) -> String {
    String::from_utf8_lossy(&record[..LABEL]).trim().to_owned()
}

/// The entries of a directory, and the one that is the volume's label.
fn parse_directory(bytes: &[u8]) -> (Vec<Entry>, Option<[u8; RECORD]>) {
    let mut entries = Vec::new();
    let mut label = None;
    let mut long = LongName::default();
    for record in bytes.chunks_exact(RECORD) {
        let Ok(record) = <&[u8; RECORD]>::try_from(record) else { break };
        match record[0] {
            0 => break,
            0xe5 => {
                long = LongName::default();
                continue;
            }
            _ => {}
        }
        let attributes = record[11];
        if attributes & 0x3f == 0x0f {
            long.take(record);
            continue;
        }
        let name = std::mem::take(&mut long).finish(record).unwrap_or_else(|| short_name(record));
        if attributes & 0x08 != 0 {
            label = label.or((!label_text(record).is_empty()).then_some(*record));
            continue;
        }
        if name == "." || name == ".." {
            continue;
        }
        let high = u32::from(u16::from_le_bytes([record[20], record[21]]));
        let low = u32::from(u16::from_le_bytes([record[26], record[27]]));
        let is_directory = attributes & 0x10 != 0;
        let size = u32::from_le_bytes([record[28], record[29], record[30], record[31]]);
        let size = if is_directory { 0 } else { size };
        let stamp = Stamp::of(record);
        entries.push(Entry { name, is_directory, size, stamp, first_cluster: high << 16 | low });
    }
    (entries, label)
}

/// A long name is spread over records before the short one, last piece first.
#[derive(Default)]
struct LongName {
    /// Pieces as they came, so from the end of the name.
    pieces: Vec<[u16; 13]>,
    expected: u8,
    checksum: u8,
}

impl LongName {
    fn take(&mut self, record: &[u8; 32]) {
        let order = record[0];
        if order & 0x40 != 0 {
            *self = Self { pieces: Vec::new(), expected: order & 0x3f, checksum: record[13] };
        }
        if order & 0x3f != self.expected || self.expected == 0 || record[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let unit = |at: usize| {
            u16::from_le_bytes([
                record.get(at).copied().unwrap_or_default(),
                record.get(at + 1).copied().unwrap_or_default(),
            ])
        };
        self.pieces.push(places.map(unit));
        self.expected -= 1;
    }

    fn finish(self, record: &[u8; 32]) -> Option<String> {
        let checksum = record[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.pieces.is_empty() || self.expected != 0 || checksum != self.checksum {
            return None;
        }
        let units: Vec<u16> =
            self.pieces.iter().rev().flatten().copied().take_while(|unit| *unit != 0).collect();
        Some(String::from_utf16_lossy(&units))
    }
}

fn short_name(record: &[u8; 32]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    // Byte 12: Windows and Linux mark names that are all lower case there.
    // A first byte of 0xe5 would mean "deleted" and is written as 0x05.
    let base = record.map(|byte| if byte == 0x05 { 0xe5 } else { byte });
    let name = part(&base[..8], record[12] & 0x08 != 0);
    let extension = part(&record[8..11], record[12] & 0x10 != 0);
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_follow_their_case_bits() {
        let mut record = [0u8; 32];
        record[..11].copy_from_slice(b"BOOTX64 EFI");
        assert_eq!(short_name(&record), "BOOTX64.EFI");
        record[12] = 0x18;
        assert_eq!(short_name(&record), "bootx64.efi");
    }

    /// A small FAT12 volume: 1 reserved sector, 1 FAT of 1 sector, 16 root entries, clusters of 512 bytes.
    fn volume() -> Vec<u8> {
        let mut volume = vec![0u8; 64 * 512];
        volume[11..13].copy_from_slice(&512u16.to_le_bytes());
        volume[13] = 1;
        volume[14] = 1;
        volume[16] = 1;
        volume[17] = 16;
        volume[19] = 64;
        volume[22] = 1;
        volume[39..43].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        volume[43..54].copy_from_slice(b"NO NAME    ");
        volume[510..512].copy_from_slice(&[0x55, 0xaa]);
        volume
    }

    #[test]
    fn a_chain_that_runs_in_a_circle_ends() {
        let mut volume = volume();
        volume[1024..1035].copy_from_slice(b"LOOP       ");
        volume[1024 + 11] = 0x10;
        volume[1024 + 26] = 2;
        volume[512 + 3] = 2; // cluster 2 follows cluster 2
        let fat = Fat::open(&volume).unwrap();
        assert_eq!(fat.serial(), "1234-ABCD");
        let root = fat.root().unwrap();
        assert_eq!(root.len(), 1);
        assert_eq!(fat.directory(&root[0]).unwrap(), []);
        assert!(fat.file(&root[0], 10).is_err());
    }

    proptest! {
        #[test]
        fn junk_is_read_without_panic(
            patches in proptest::collection::vec((0..2048usize, any::<u8>()), 0..60),
        ) {
            let mut volume = volume();
            for (at, byte) in patches {
                volume[at] = byte;
            }
            if let Ok(fat) = Fat::open(&volume) {
                let _ = fat.volume_label();
                for entry in fat.root().unwrap_or_default() {
                    let _ = (fat.directory(&entry), fat.file(&entry, 100_000));
                }
            }
        }
    }
}

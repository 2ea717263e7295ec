//! An empty ext4 file system (kernel documentation, filesystems/ext4), for the ephemeral partition where the ramdisk has no
//! `mkfs.ext4`.
//!
//! With a journal, extents and checksums of the group descriptors, so that the inode tables of all but the first group are
//! left to the kernel, which zeroes them after the first mount: making one writes a few MiB, whatever the size. Without the
//! newer features that this is not worth: 64-bit block numbers, checksums of all metadata, flexible groups.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::layout::Planned;
use crate::{Error, Target};

const BLOCK: u64 = 4096;
const BLOCKS_PER_GROUP: u64 = 32768;
const INODE_BYTES: u64 = 256;
/// Bytes of the file system for each inode, as `mke2fs` has it.
const BYTES_PER_INODE: u64 = 16384;
const DESCRIPTOR_BYTES: u64 = 32;
/// A last group with fewer data blocks than this is left out.
const SMALLEST_GROUP: u64 = 50;

const ROOT_INODE: u64 = 2;
const JOURNAL_INODE: u64 = 8;
/// The first inode that is not reserved; `lost+found` gets it.
const FIRST_INODE: u64 = 11;
const LOST_BLOCKS: u64 = 4;

/// Feature words: has_journal, ext_attr, dir_index; filetype, extents; sparse_super, large_file, huge_file, gdt_csum,
/// dir_nlink, extra_isize.
const COMPATIBLE: u32 = 0x04 | 0x08 | 0x20;
const INCOMPATIBLE: u32 = 0x02 | 0x40;
const READ_ONLY_COMPATIBLE: u32 = 0x01 | 0x02 | 0x08 | 0x10 | 0x20 | 0x40;

/// Flags of a group: its inode table, its block bitmap were never written; its inode table is zeroed.
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;

/// What is to be written, in order of writing.
enum Piece {
    Data { offset: u64, bytes: Vec<u8> },
    Zero { offset: u64, length: u64 },
}

/// **Makes an empty ext4 file system** with a label of at most 16 bytes. Returns its UUID.
pub fn make_ext4(target: &Target, partition: &Planned, label: &str) -> Result<Uuid, Error> {
    let uuid = Uuid::new_v4();
    let fail = |reason: String| Error::Table { device: target.device().display().to_string(), reason };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let identity =
        Identity { uuid, seed: Uuid::new_v4(), label, now: u32::try_from(now).unwrap_or_default() };
    let pieces = Geometry::of(partition.size_byte).map_err(fail)?.pieces(&identity);
    let device = target.open()?;
    for piece in pieces {
        match piece {
            Piece::Data { offset, bytes } => device.write_at(partition.start_byte + offset, &bytes)?,
            Piece::Zero { offset, length } => super::zero(&device, partition.start_byte + offset, length)?,
        }
    }
    device.flush()?;
    Ok(uuid)
}

struct Identity<'a> {
    uuid: Uuid,
    /// Of the hashes in directories.
    seed: Uuid,
    label: &'a str,
    /// Seconds since 1970.
    now: u32,
}

/// How many of what there are, and where.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    blocks: u64,
    groups: u64,
    inodes_per_group: u64,
    journal_blocks: u64,
}

impl Geometry {
    fn of(size_bytes: u64) -> Result<Self, String> {
        let mut blocks = size_bytes / BLOCK;
        if u32::try_from(blocks).is_err() {
            return Err("an ext4 file system of 16 TiB and more needs mkfs.ext4 in the ramdisk".into());
        }
        loop {
            let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
            let inodes = (blocks * BLOCK / BYTES_PER_INODE).div_ceil(groups.max(1));
            let geometry = Self {
                blocks,
                groups,
                // Whole blocks of the inode table.
                inodes_per_group: inodes.next_multiple_of(BLOCK / INODE_BYTES).max(BLOCK / INODE_BYTES),
                journal_blocks: match blocks {
                    ..32768 => 1024,
                    32768..262_144 => 4096,
                    _ => 16384,
                },
            };
            let first_needs =
                geometry.metadata(0) + 1 + LOST_BLOCKS + geometry.journal_blocks + SMALLEST_GROUP;
            if groups == 0 || geometry.blocks_in(0) < first_needs {
                return Err(format!(
                    "{size_bytes} bytes are too small for an ext4 file system with a journal"
                ));
            }
            let last = groups - 1;
            if last > 0 && geometry.blocks_in(last) < geometry.metadata(last) + SMALLEST_GROUP {
                blocks = last * BLOCKS_PER_GROUP;
                continue;
            }
            return Ok(geometry);
        }
    }

    fn blocks_in(&self, group: u64) -> u64 {
        self.blocks.saturating_sub(group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.groups * DESCRIPTOR_BYTES).div_ceil(BLOCK)
    }

    fn inode_table_blocks(&self) -> u64 {
        self.inodes_per_group * INODE_BYTES / BLOCK
    }

    /// Blocks of copies of superblock and descriptors at the start of a group.
    fn copies(&self, group: u64) -> u64 {
        if has_copy(group) { 1 + self.descriptor_blocks() } else { 0 }
    }

    /// Blocks at the start of a group that hold no files: copies, two bitmaps, the inode table.
    fn metadata(&self, group: u64) -> u64 {
        self.copies(group) + 2 + self.inode_table_blocks()
    }

    fn block_bitmap(&self, group: u64) -> u64 {
        group * BLOCKS_PER_GROUP + self.copies(group)
    }

    /// Blocks in use in a group.
    fn used(&self, group: u64) -> u64 {
        let files = if group == 0 { 1 + LOST_BLOCKS + self.journal_blocks } else { 0 };
        self.metadata(group) + files
    }

    fn root_block(&self) -> u64 {
        self.metadata(0)
    }

    fn lost_block(&self) -> u64 {
        self.root_block() + 1
    }

    fn journal_block(&self) -> u64 {
        self.lost_block() + LOST_BLOCKS
    }

    fn pieces(&self, identity: &Identity<'_>) -> Vec<Piece> {
        let at = |block: u64, bytes: Vec<u8>| Piece::Data { offset: block * BLOCK, bytes };
        let mut pieces = vec![
            Piece::Zero { offset: self.journal_block() * BLOCK, length: self.journal_blocks * BLOCK },
            at(self.journal_block(), self.journal_header(identity)),
            at(self.root_block(), root_directory()),
            at(self.lost_block(), lost_directory()),
        ];
        let last = self.groups - 1;
        for group in if last == 0 { vec![0] } else { vec![0, last] } {
            pieces.push(at(self.block_bitmap(group), self.bitmap(group)));
        }
        let used: Vec<u64> = (0..FIRST_INODE).collect();
        let inode_bitmap = bits(|inode| inode >= self.inodes_per_group || used.contains(&inode));
        pieces.push(at(self.block_bitmap(0) + 1, inode_bitmap));
        let table = self.block_bitmap(0) + 2;
        pieces.push(Piece::Zero { offset: table * BLOCK, length: self.inode_table_blocks() * BLOCK });
        for (number, inode) in [
            (ROOT_INODE, inode(0o040_755, 3, 1, self.root_block(), identity.now)),
            (JOURNAL_INODE, inode(0o100_600, 1, self.journal_blocks, self.journal_block(), identity.now)),
            (FIRST_INODE, inode(0o040_700, 2, LOST_BLOCKS, self.lost_block(), identity.now)),
        ] {
            pieces.push(Piece::Data { offset: table * BLOCK + (number - 1) * INODE_BYTES, bytes: inode });
        }
        // The first superblock last: without it there is no file system.
        let descriptors = self.descriptors(&identity.uuid);
        for group in (0..self.groups).rev().filter(|group| has_copy(*group)) {
            let start = group * BLOCKS_PER_GROUP;
            pieces.push(at(start + 1, descriptors.clone()));
            let within = if group == 0 { 1024 } else { 0 };
            pieces.push(Piece::Data {
                offset: start * BLOCK + within,
                bytes: self.superblock(group, identity),
            });
        }
        pieces
    }

    fn bitmap(&self, group: u64) -> Vec<u8> {
        let (used, total) = (self.used(group), self.blocks_in(group));
        bits(|block| block < used || block >= total)
    }

    fn descriptors(&self, uuid: &Uuid) -> Vec<u8> {
        let last = self.groups - 1;
        let mut all = Vec::new();
        for group in 0..self.groups {
            let bitmap = self.block_bitmap(group);
            let inodes = if group == 0 { self.inodes_per_group - FIRST_INODE } else { self.inodes_per_group };
            let flags = match group {
                0 => INODE_ZEROED,
                group if group == last => INODE_UNINIT,
                _ => INODE_UNINIT | BLOCK_UNINIT,
            };
            let mut entry = Record::new(DESCRIPTOR_BYTES);
            entry.le32(0, bitmap).le32(4, bitmap + 1).le32(8, bitmap + 2);
            entry.le16(12, self.blocks_in(group) - self.used(group)).le16(14, inodes);
            entry.le16(16, if group == 0 { 2 } else { 0 }).le16(18, u64::from(flags)).le16(28, inodes);
            let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
            let head = entry.0.get(..30).unwrap_or_default();
            let sum = crc16(&[uuid.as_bytes(), number.as_slice(), head].concat());
            entry.le16(30, u64::from(sum));
            all.extend(entry.0);
        }
        all.resize(usize::try_from(self.descriptor_blocks() * BLOCK).unwrap_or_default(), 0);
        all
    }

    fn superblock(&self, group: u64, identity: &Identity<'_>) -> Vec<u8> {
        let inodes = self.groups * self.inodes_per_group;
        let free: u64 = (0..self.groups).map(|group| self.blocks_in(group) - self.used(group)).sum();
        let now = u64::from(identity.now);
        let mut block = Record::new(1024);
        block.le32(0, inodes).le32(4, self.blocks).le32(8, self.blocks / 20);
        block.le32(12, free).le32(16, inodes - FIRST_INODE);
        // Blocks and clusters of 1024 << 2 bytes.
        block.le32(24, 2).le32(28, 2).le32(32, BLOCKS_PER_GROUP).le32(36, BLOCKS_PER_GROUP);
        block.le32(40, self.inodes_per_group).le32(48, now).le16(54, 0xffff);
        // Magic; clean; go on after errors; revision 1.
        block.le16(56, 0xef53).le16(58, 1).le16(60, 1).le32(64, now).le32(76, 1);
        block.le32(84, FIRST_INODE).le16(88, INODE_BYTES).le16(90, group);
        block
            .le32(92, COMPATIBLE.into())
            .le32(96, INCOMPATIBLE.into())
            .le32(100, READ_ONLY_COMPATIBLE.into());
        block.bytes(104, identity.uuid.as_bytes());
        block.bytes(120, identity.label.as_bytes().get(..16).unwrap_or(identity.label.as_bytes()));
        block.le32(224, JOURNAL_INODE).bytes(236, identity.seed.as_bytes());
        // Hashes by half MD4, with signed characters; user attributes and access lists; a copy of the journal's inode.
        block.bytes(252, &[1, 1]).le32(256, 0x0c).le32(264, now).le16(348, 32).le16(350, 32).le32(352, 1);
        block.bytes(268, &extents(self.journal_blocks, self.journal_block()));
        block.le32(332, self.journal_blocks * BLOCK);
        block.0
    }

    /// The superblock of an empty journal (jbd2), big-endian.
    fn journal_header(&self, identity: &Identity<'_>) -> Vec<u8> {
        let mut block = Record::new(BLOCK);
        let fields = [0xc03b_3998, 4, 0, BLOCK, self.journal_blocks, 1, 1];
        for (field, at) in fields.into_iter().zip((0..).step_by(4)) {
            block.bytes(at, &u32::try_from(field).unwrap_or_default().to_be_bytes());
        }
        block.bytes(48, identity.uuid.as_bytes()).bytes(64, &1u32.to_be_bytes());
        block.0
    }
}

/// Whether a group has copies of superblock and descriptors: 0, 1, and powers of 3, 5 and 7 (sparse_super).
fn has_copy(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

/// A block of bits.
fn bits(is_set: impl Fn(u64) -> bool) -> Vec<u8> {
    (0..BLOCK).map(|byte| (0..8).fold(0, |sum, bit| sum | u8::from(is_set(byte * 8 + bit)) << bit)).collect()
}

/// The tree of a file that lies in one piece: a header and one extent.
fn extents(blocks: u64, first: u64) -> Vec<u8> {
    let mut tree = Record::new(60);
    tree.le16(0, 0xf30a).le16(2, 1).le16(4, 4).le16(16, blocks).le32(20, first);
    tree.0
}

fn inode(mode: u64, links: u64, blocks: u64, first: u64, now: u32) -> Vec<u8> {
    const EXTENTS: u64 = 0x8_0000;
    let mut inode = Record::new(INODE_BYTES);
    let now = u64::from(now);
    inode.le16(0, mode).le32(4, blocks * BLOCK).le32(8, now).le32(12, now).le32(16, now).le16(26, links);
    inode.le32(28, blocks * (BLOCK / 512)).le32(32, EXTENTS).bytes(40, &extents(blocks, first));
    inode.le16(128, 32).le32(144, now);
    inode.0
}

fn root_directory() -> Vec<u8> {
    let mut block = Record::new(BLOCK);
    block.entry(0, ROOT_INODE, 12, b".").entry(12, ROOT_INODE, 12, b"..");
    block.entry(24, FIRST_INODE, BLOCK - 24, b"lost+found");
    block.0
}

fn lost_directory() -> Vec<u8> {
    let mut blocks = Record::new(LOST_BLOCKS * BLOCK);
    blocks.entry(0, FIRST_INODE, 12, b".").entry(12, ROOT_INODE, BLOCK - 12, b"..");
    for block in 1..LOST_BLOCKS {
        blocks.le16(usize::try_from(block * BLOCK).unwrap_or_default() + 4, BLOCK);
    }
    blocks.0
}

/// Bytes with little-endian numbers at places. What would lie outside, or does not fit, is a mistake in this file, which the
/// tests find; it is left out.
struct Record(Vec<u8>);

impl Record {
    fn new(length: u64) -> Self {
        Self(vec![0; usize::try_from(length).unwrap_or_default()])
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        for (slot, byte) in self.0.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
        self
    }

    fn le16(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes(at, &u16::try_from(value).unwrap_or_default().to_le_bytes())
    }

    fn le32(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes(at, &u32::try_from(value).unwrap_or_default().to_le_bytes())
    }

    /// A directory's entry for a directory.
    fn entry(&mut self, at: usize, inode: u64, length: u64, name: &[u8]) -> &mut Self {
        const DIRECTORY: u8 = 2;
        let name_length = u8::try_from(name.len()).unwrap_or_default();
        self.le32(at, inode).le16(at + 4, length).bytes(at + 6, &[name_length, DIRECTORY]).bytes(at + 8, name)
    }
}

/// CRC-16 with the polynomial 0x8005, reflected, from all ones.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(u16::MAX, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| (crc >> 1) ^ (0xa001 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::probe;

    #[test]
    fn copies_lie_where_sparse_super_wants_them() {
        let copies: Vec<u64> = (0..130).filter(|group| has_copy(*group)).collect();
        assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn sizes_that_can_not_be_are_refused() {
        for (size, text) in [(0, "too small"), (4 << 20, "too small"), (1 << 44, "mkfs.ext4")] {
            let error = Geometry::of(size).unwrap_err();
            assert!(error.contains(text), "{size}: {error}");
        }
        // A last group of a few blocks is no group.
        assert_eq!(Geometry::of((128 << 20) + 40 * BLOCK).unwrap().blocks, BLOCKS_PER_GROUP);
        assert_eq!(Geometry::of(256 << 20).unwrap().groups, 2);
    }

    #[test]
    fn label_and_uuid_are_recognised() {
        let identity =
            Identity { uuid: Uuid::from_bytes([9; 16]), seed: Uuid::nil(), label: "ephemeral0", now: 1 };
        let mut image = vec![0; 16 << 20];
        for piece in Geometry::of(16 << 20).unwrap().pieces(&identity) {
            if let Piece::Data { offset, bytes } = piece {
                let offset = usize::try_from(offset).unwrap();
                image[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let found = probe(&image).unwrap();
        assert_eq!((found.kind, found.label.as_deref()), ("ext4", Some("ephemeral0")));
        assert_eq!(found.uuid, Some(identity.uuid.to_string()));
    }
}

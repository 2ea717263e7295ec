//! Writes qcow2 images that qemu-img would not: any order of tables and data, compressed and plain clusters mixed.
#![allow(dead_code, missing_docs, clippy::cast_possible_truncation)]

use std::io::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As qemu-img convert: L1, then each table before its data.
    Natural,
    /// All data, then the tables, then L1.
    DataFirst,
    /// Everything anywhere.
    Shuffled(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub version: u32,
    pub cluster_bits: u32,
    /// `None`: nothing is compressed.
    pub zstd: Option<bool>,
    /// Of ten clusters, how many are compressed, if any are.
    pub compressed: u64,
    pub order: Order,
    /// Write all-zero clusters as such (flag in version 3, unallocated in 2) and not as data.
    pub zero_clusters: bool,
    /// Extended level-2 entries: sub-clusters that are zero are so marked or left out.
    pub extended: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: 3,
            cluster_bits: 16,
            zstd: None,
            compressed: 10,
            order: Order::Natural,
            zero_clusters: true,
            extended: false,
        }
    }
}

enum Item {
    L1,
    Table(usize),
    Plain(usize),
    /// Compressed clusters packed byte to byte.
    Packed(Vec<(usize, Vec<u8>)>),
}

pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn pack(bytes: &[u8], zstd: bool) -> Vec<u8> {
    if zstd {
        return zstd::bulk::compress(bytes, 1).unwrap();
    }
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The qcow2 file for the disk image `raw`, whose length is a multiple of 512.
pub fn build(raw: &[u8], options: Options) -> Vec<u8> {
    let cluster = 1usize << options.cluster_bits;
    let entry_length = if options.extended { 16 } else { 8 };
    let per_table = cluster / entry_length;
    let clusters = raw.len().div_ceil(cluster);
    let tables = clusters.div_ceil(per_table);
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ raw.len() as u64;
    let content = |guest: usize| {
        let mut bytes = raw[guest * cluster..raw.len().min((guest + 1) * cluster)].to_vec();
        bytes.resize(cluster, 0);
        bytes
    };
    // What goes where, in guest order first.
    let mut items = vec![Item::L1];
    let mut used = vec![false; tables];
    let mut entries = vec![vec![0u64; per_table]; tables];
    let mut bitmaps = vec![vec![0u64; per_table]; tables];
    for table in 0..tables {
        let mut data = Vec::new();
        let mut run: Vec<(usize, Vec<u8>)> = Vec::new();
        for guest in table * per_table..clusters.min((table + 1) * per_table) {
            let bytes = content(guest);
            if options.zero_clusters && bytes.iter().all(|b| *b == 0) {
                if options.version == 3 && random(&mut state).is_multiple_of(2) {
                    match options.extended {
                        true => bitmaps[table][guest % per_table] = u64::MAX << 32,
                        false => entries[table][guest % per_table] = 1,
                    }
                    used[table] = true;
                }
                continue;
            }
            used[table] = true;
            if let Some(zstd) = options.zstd
                && random(&mut state) % 10 < options.compressed
            {
                let packed = pack(&bytes, zstd);
                if packed.len() < cluster {
                    run.push((guest, packed));
                    if run.len() > 12 {
                        data.push(Item::Packed(std::mem::take(&mut run)));
                    }
                    continue;
                }
            }
            data.push(Item::Plain(guest));
        }
        if !run.is_empty() {
            data.push(Item::Packed(run));
        }
        if used[table] {
            items.push(Item::Table(table));
        }
        items.extend(data);
    }
    match options.order {
        Order::Natural => {}
        Order::DataFirst => items.sort_by_key(|item| match item {
            Item::Plain(_) | Item::Packed(_) => 0,
            Item::Table(_) => 1,
            Item::L1 => 2,
        }),
        Order::Shuffled(seed) => {
            let mut state = seed | 1;
            for i in (1..items.len()).rev() {
                items.swap(i, random(&mut state) as usize % (i + 1));
            }
        }
    }
    // Places, then bytes.
    let mut file = vec![0u8; cluster];
    let mut l1 = vec![0u64; tables];
    let mut l1_offset = 0;
    let mut table_offsets = vec![0usize; tables];
    for item in items {
        let offset = file.len();
        match item {
            Item::L1 => {
                l1_offset = offset;
                file.resize(offset + (tables * 8).next_multiple_of(cluster), 0);
            }
            Item::Table(table) => {
                l1[table] = offset as u64 | 1 << 63;
                table_offsets[table] = offset;
                file.resize(offset + cluster, 0);
            }
            Item::Plain(guest) => {
                entries[guest / per_table][guest % per_table] = offset as u64 | 1 << 63;
                let mut bytes = content(guest);
                if options.extended {
                    bitmaps[guest / per_table][guest % per_table] = subclusters(&mut bytes, &mut state);
                }
                file.extend(bytes);
            }
            Item::Packed(run) => {
                for (guest, bytes) in run {
                    let at = file.len();
                    let further = (at + bytes.len() - 1) / 512 - at / 512;
                    let size_bits = options.cluster_bits - 8;
                    entries[guest / per_table][guest % per_table] =
                        1 << 62 | (further as u64) << (62 - size_bits) | at as u64;
                    file.extend(bytes);
                }
                file.resize(file.len().next_multiple_of(cluster), 0xee);
            }
        }
    }
    for (table, offset) in table_offsets.iter().enumerate().filter(|(_, offset)| **offset != 0) {
        for (slot, entry) in entries[table].iter().enumerate() {
            file[offset + slot * entry_length..][..8].copy_from_slice(&entry.to_be_bytes());
            if options.extended {
                let bitmap = bitmaps[table][slot].to_be_bytes();
                file[offset + slot * entry_length + 8..][..8].copy_from_slice(&bitmap);
            }
        }
    }
    for (table, entry) in l1.iter().enumerate() {
        file[l1_offset + table * 8..][..8].copy_from_slice(&entry.to_be_bytes());
    }
    file[..4].copy_from_slice(b"QFI\xfb");
    file[4..8].copy_from_slice(&options.version.to_be_bytes());
    file[20..24].copy_from_slice(&options.cluster_bits.to_be_bytes());
    file[24..32].copy_from_slice(&(raw.len() as u64).to_be_bytes());
    file[36..40].copy_from_slice(&(tables as u32).to_be_bytes());
    file[40..48].copy_from_slice(&(l1_offset as u64).to_be_bytes());
    if options.version == 3 {
        file[96..100].copy_from_slice(&4u32.to_be_bytes());
        file[100..104].copy_from_slice(&112u32.to_be_bytes());
        if options.zstd == Some(true) {
            file[79] = 8;
            file[104] = 1;
        }
        if options.extended {
            file[79] |= 16;
        }
    }
    file
}

/// The bitmap of a cluster's sub-clusters. Those that are zero are marked so or left out, and hold garbage in the file.
fn subclusters(bytes: &mut [u8], state: &mut u64) -> u64 {
    let length = bytes.len() / 32;
    let mut bitmap = 0;
    for (number, part) in bytes.chunks_mut(length).enumerate() {
        if part.iter().any(|b| *b != 0) {
            bitmap |= 1 << number;
        } else {
            part.fill(0xee);
            bitmap |= (random(state) & 1) << (number + 32);
        }
    }
    bitmap
}

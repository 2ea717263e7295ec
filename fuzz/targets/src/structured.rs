//! Inputs of which random bytes would never be one: a sound file is made, then changed where it hurts.

use imaging::Format;

use crate::images::{Outcome, both_ways};
use crate::qcow2_image::{Options, Order, build, random};

/// The largest disk inside a qcow2 file, in sectors of 512 bytes: the disk in memory less what the last cluster may add.
const SECTORS: usize = 6000;

/// Takes numbers off the front of an input; zero where it has ended.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A qcow2 file of any layout. As it was made it must arrive byte for byte; changed, it may only be refused or written whole.
pub(crate) fn qcow2_layout(data: &[u8]) {
    let mut numbers = Numbers(data);
    let options = options(&mut numbers);
    let raw = content(usize::from(numbers.word()) % SECTORS + 1, u64::from(numbers.word()));
    let mut file = build(&raw, options);
    let sound = numbers.is_empty();
    while !numbers.is_empty() {
        change(&mut file, &mut numbers, options);
    }
    let outcome = both_ways(&file, Format::Qcow2);
    if sound {
        assert_arrived(&raw, outcome, options);
    }
}

fn options(numbers: &mut Numbers<'_>) -> Options {
    let flags = numbers.byte();
    let version = if flags & 1 == 0 { 3 } else { 2 };
    // 4 KiB to 128 KiB most often; the rarer sizes cost more time a run.
    let cluster_bits = 9 + u32::from(numbers.byte()) % 10;
    let zstd = match flags >> 1 & 3 {
        0 => None,
        1 => Some(false),
        _ => Some(version == 3),
    };
    let order = match flags >> 3 & 3 {
        0 | 1 => Order::Natural,
        2 => Order::DataFirst,
        _ => Order::Shuffled(u64::from(numbers.byte())),
    };
    Options {
        version,
        cluster_bits,
        zstd,
        compressed: u64::from(flags >> 6) * 3 + 1,
        order,
        zero_clusters: flags & 0x20 == 0,
        extended: version == 3 && cluster_bits >= 14 && numbers.byte() & 1 == 1,
    }
}

/// Runs of zeroes, of a pattern and of noise.
fn content(sectors: usize, seed: u64) -> Vec<u8> {
    let length = sectors * 512;
    let mut state = seed << 1 | 1;
    let mut raw = Vec::with_capacity(length);
    while raw.len() < length {
        let run = usize::try_from(random(&mut state) % 40_000).unwrap_or_default() + 1;
        match random(&mut state) % 3 {
            0 => raw.resize(raw.len() + run, 0),
            1 => raw.extend((1..=250).cycle().take(run)),
            _ => (0..run / 8).for_each(|_| raw.extend(random(&mut state).to_le_bytes())),
        }
    }
    raw.truncate(length);
    raw
}

/// One change: a field of the header, an entry of a table, or any byte.
fn change(file: &mut [u8], numbers: &mut Numbers<'_>, options: Options) {
    let cluster = 1usize << options.cluster_bits;
    let (what, which) = (numbers.byte(), usize::from(numbers.word()));
    let place = match what & 3 {
        0 => which % 112,
        // The tables lie in the first clusters as often as not.
        1 => cluster + which % cluster,
        2 => cluster * (1 + which % 8) + (which >> 3) * 8 % cluster,
        _ => which * 512 + usize::from(numbers.word()) % 512,
    };
    let value = numbers.byte();
    let operation = what >> 2;
    let Some(byte) = file.get_mut(place) else { return };
    *byte = match operation & 3 {
        0 => value,
        1 => *byte ^ value,
        2 => byte.wrapping_add(value),
        _ => *byte ^ 1 << (value & 7),
    };
    if operation & 4 != 0 {
        // A whole entry somewhere else: two that share clusters, or one beyond the end.
        let from = place - place % 8;
        let entry: Vec<u8> = file.get(from..from + 8).unwrap_or_default().to_vec();
        let to = from + usize::from(value) * 8;
        if let Some(space) = file.get_mut(to..to + entry.len()) {
            space.copy_from_slice(&entry);
        }
    }
}

fn assert_arrived(raw: &[u8], outcome: Outcome, options: Options) {
    match outcome {
        Ok((disk, covered)) => {
            assert_eq!(usize::try_from(covered), Ok(raw.len()), "{options:?}");
            assert!(disk.get(..raw.len()) == Some(raw), "a sound image arrives changed: {options:?}");
        }
        Err(error) => panic!("a sound image is refused: {}: {options:?}", error.report()),
    }
}

/// A disk with a GPT whose checksums fit, whatever its fields say. The first byte says what is made to fit.
pub(crate) fn gpt(data: &[u8]) {
    let Some((flags, disk)) = data.split_first() else { return };
    let sector = if flags & 1 == 0 { 512 } else { 4096 };
    let mut disk = disk.to_vec();
    if flags & 2 == 0 {
        put(&mut disk, 510, &[0x55, 0xaa]);
        put(&mut disk, 450, &[0xee]);
        for record in 0..4 {
            let at = 446 + record * 16;
            let status = disk.get(at).copied().unwrap_or_default() & 0x80;
            put(&mut disk, at, &[status]);
        }
    }
    let last = (disk.len() / sector).saturating_sub(1);
    for (bit, header) in [(4, 1), (8, last)] {
        if flags & bit == 0 {
            fit_header(&mut disk, header, sector);
        }
    }
    crate::disks::partition_table(&disk);
}

/// Gives a header its magic, its place and both checksums.
fn fit_header(disk: &mut [u8], at: usize, sector: usize) {
    let start = at * sector;
    let Some(header) = disk.get(start..start + sector) else { return };
    let le32 = |offset: usize| {
        let bytes = header.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or_default())
    };
    let entries_sector = le32(72);
    let entries_length = le32(80).saturating_mul(le32(84));
    let header_length = le32(12);
    let entries = entries_sector.saturating_mul(sector);
    let entries = disk.get(entries..entries.saturating_add(entries_length)).map(crc32);
    put(disk, start, b"EFI PART");
    put(disk, start + 24, &u64::try_from(at).unwrap_or_default().to_le_bytes());
    if let Some(checksum) = entries {
        put(disk, start + 88, &checksum.to_le_bytes());
    }
    put(disk, start + 16, &[0; 4]);
    if let Some(header) = disk.get(start..start + header_length.min(sector)) {
        let checksum = crc32(header);
        put(disk, start + 16, &checksum.to_le_bytes());
    }
}

/// An ISO 9660 file system from its sector 16 on: what lies before belongs to whoever boots from it, and is never read here.
pub(crate) fn iso9660(data: &[u8]) {
    let mut disk = vec![0; 16 << 11];
    disk.extend_from_slice(data);
    crate::disks::iso9660(&disk);
}

/// A disk of a length in KiB, then pieces of it: an offset of three bytes, a length of one, and that many bytes. What recognises
/// file systems looks at places far apart, which inputs of that size would leave to chance.
pub(crate) fn probe(data: &[u8]) {
    let mut numbers = Numbers(data);
    let mut disk = vec![0; usize::from(numbers.byte()) << 10];
    while !numbers.is_empty() {
        let offset = usize::from(numbers.byte()) << 16 | usize::from(numbers.word());
        let length = usize::from(numbers.byte()).min(numbers.0.len());
        let (piece, rest) = numbers.0.split_at(length);
        put(&mut disk, offset, piece);
        numbers = Numbers(rest);
    }
    crate::disks::contents(&disk);
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(space) = disk.get_mut(at..at + bytes.len()) {
        space.copy_from_slice(bytes);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

use super::*;
use crate::table::gpt_tests::disk_with_entries;

const DISK: u64 = 128 * MIB;
/// Sectors of an image of 24 MiB.
const IMAGE: u64 = 24 << 11;

/// What can be read of an image: all of it, or nothing but the head.
struct Bytes<'a> {
    image: &'a [u8],
    is_seekable: bool,
    asked: Vec<u64>,
}

impl ImageBytes for Bytes<'_> {
    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>> {
        self.asked.push(offset);
        let start = usize::try_from(offset).unwrap();
        self.is_seekable.then(|| self.image[start..].iter().take(length).copied().collect())
    }
}

fn check_in(image: &[u8], room: Room, is_seekable: bool) -> (Result<(), String>, Vec<u64>) {
    let mut bytes = Bytes { image, is_seekable, asked: Vec::new() };
    let head = image.get(..64 << 10).unwrap_or(image);
    let result = room.check(head, &mut bytes).map_err(|error| error.to_string());
    (result, bytes.asked)
}

fn room(length: u64) -> Room {
    Room { sector_bytes: 512, disk_bytes: DISK, length, translates: false }
}

fn check(image: &[u8]) -> Result<(), String> {
    check_in(image, room(MIB), true).0
}

fn gpt(entries: usize, first: u64) -> Vec<u8> {
    let used: Vec<_> = (1..=entries)
        .map(|number| {
            let at = first + 64 * (u64::try_from(number).unwrap() - 1);
            (number, at, at + 63)
        })
        .collect();
    disk_with_entries(512, IMAGE, entries, &used)
}

fn mbr(records: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut image = vec![0u8; usize::try_from(IMAGE * 512).unwrap()];
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (slot, (status, id, first, sectors)) in records.iter().enumerate() {
        let record = MbrRecord { status: *status, id: *id, first: *first, sectors: *sectors };
        image[446 + slot * 16..462 + slot * 16].copy_from_slice(&record.encode());
    }
    image
}

/// The start of an ISO 9660 file system of that label.
fn label(image: &mut [u8], sector: usize) {
    let at = sector * 512;
    image[at + 0x8001..at + 0x8006].copy_from_slice(b"CD001");
    image[at + 0x8028..at + 0x8030].copy_from_slice(b"Config-2");
}

#[test]
fn full_gpt_is_refused_only_where_the_table_cannot_grow() {
    for (entries, first) in [(1, 2048), (2, 2048), (4, 2048), (2, 3), (128, 2048)] {
        assert_eq!(check(&gpt(entries, first)), Ok(()), "{entries} entries, first sector {first}");
    }
    for (entries, first) in [(4, 3), (8, 4), (128, 34)] {
        let reason = check(&gpt(entries, first)).unwrap_err();
        assert!(reason.contains(&format!("all {entries} entries")), "{reason}");
    }
}

#[test]
fn mbr_record_of_type_zero_that_is_not_empty_is_in_use() {
    let iso = (0x80, 0, 0, 40_000);
    let esp = (0, 0xef, 4476, 2000);
    assert_eq!(check(&mbr(&[iso, esp])), Ok(()));
    let full = mbr(&[iso, esp, (0, 0x83, 41_000, 100), (0, 0x83, 42_000, 100)]);
    assert!(check(&full).unwrap_err().contains("four primary partitions"));
    let flag_alone = mbr(&[(0x80, 0, 0, 0), (0, 0x83, 2048, 100), esp, (0, 0x83, 42_000, 100)]);
    assert!(check(&flag_alone).unwrap_err().contains("four primary partitions"));
    // What the record covers is not free: it ends 0.5 MiB before the end of the disk.
    let large = mbr(&[(0x80, 0, 0, (127 << 11) + 1024), esp]);
    assert!(check(&large).unwrap_err().contains("no room"));
}

#[test]
fn partition_that_the_image_labels_config_2_needs_no_entry() {
    let mut image =
        mbr(&[(0x80, 0x83, 2048, 2048), (0, 0x83, 4096, 4096), (0, 0x83, 10_000, 64), (0, 7, 11_000, 64)]);
    assert!(check(&image).unwrap_err().contains("four primary"));
    label(&mut image, 4096);
    assert_eq!(check(&image), Ok(()));
    let reason = check_in(&image, room(4 * MIB), true).0.unwrap_err();
    assert!(reason.contains("do not fit into partition 2"), "{reason}");
    label(&mut image, 2048);
    assert!(check(&image).unwrap_err().contains("partitions 1 and 2 are both labelled"));
}

#[test]
fn image_that_cannot_be_searched_is_judged_after_the_write() {
    let image =
        mbr(&[(0x80, 0x83, 2048, 2048), (0, 0x83, 4096, 4096), (0, 0x83, 10_000, 64), (0, 7, 11_000, 64)]);
    assert_eq!(check_in(&image, room(MIB), false).0, Ok(()));
    // Without partitions there is nothing to search.
    let used = [(1, 40, IMAGE - 40)];
    let large = Room { disk_bytes: IMAGE * 512, ..room(MIB) };
    let (result, asked) = check_in(&disk_with_entries(512, IMAGE, 128, &used), large, true);
    assert!(result.unwrap_err().contains("no room at the end"));
    assert_eq!(asked, [40 * 512]);
}

#[test]
fn image_is_read_only_where_the_place_depends_on_it() {
    let usual = disk_with_entries(512, IMAGE, 128, &[(1, 2048, 10_239), (2, 10_240, 40_000)]);
    assert_eq!(check_in(&usual, room(MIB), true), (Ok(()), vec![]));
    let mut small = disk_with_entries(512, IMAGE, 128, &[(1, 2048, 10_239), (2, 10_240, 10_999)]);
    label(&mut small, 10_240);
    let (result, asked) = check_in(&small, room(MIB), true);
    assert!(result.unwrap_err().contains("do not fit into partition 2"));
    assert_eq!(asked, [10_240 * 512]);
}

#[test]
fn what_the_head_does_not_tell_is_no_refusal() {
    let mut damaged = gpt(2, 2048);
    damaged[512 + 60] ^= 1;
    assert_eq!(check(&damaged), Ok(()));
    let other = disk_with_entries(4096, IMAGE / 8, 2, &[(1, 256, 511), (2, 512, 1023)]);
    assert_eq!(check(&other), Ok(()));
    let translated = Room { translates: true, ..room(MIB) };
    assert_eq!(check_in(&other, translated, true).0, Ok(()));
    let small = Room { translates: true, disk_bytes: 4 * MIB, ..room(MIB) };
    let tight = disk_with_entries(4096, 1024, 2, &[(1, 256, 511), (2, 512, 1000)]);
    assert!(check_in(&tight, small, true).0.unwrap_err().contains("no room"));
}

#[test]
fn disk_image_without_a_table_is_refused() {
    let reason = check(&vec![0; 1 << 20]).unwrap_err();
    assert!(reason.contains("no partition table"), "{reason}");
}

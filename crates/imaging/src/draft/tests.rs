#![allow(clippy::cast_possible_truncation)]

use proptest::prelude::*;

use super::*;
use crate::sink::MemorySink;

const MIB: u64 = 1 << 20;

/// A disk whose last page is half a one, with an image of noise on it.
fn disk() -> (MemorySink, Vec<u8>) {
    let size = 4 * MIB as usize + 2048;
    let image: Vec<u8> = (0..size).map(|at| (at / 7 + at / 4096) as u8 | 1).collect();
    (MemorySink::new(size, 0), image)
}

fn unverified<'a>(sink: &'a mut MemorySink, image: &[u8]) -> Unverified<'a> {
    let mut disk = Unverified::begin(sink, Some(image.len() as u64)).unwrap();
    disk.write_at(0, image).unwrap();
    disk
}

fn all(disk: &mut Unverified<'_>) -> Vec<u8> {
    let mut space = vec![0; disk.size() as usize];
    disk.read_at(0, &mut space).unwrap();
    space
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_writes_read_back_at_once_and_reach_the_disk_when_they_are_applied(
        writes in proptest::collection::vec((0u64..4 * MIB + 2048, 1usize..20_000, any::<bool>(), any::<bool>()), 1..12),
    ) {
        let (disk, image) = disk();
        let mut sink = disk.clone();
        let mut unverified = unverified(&mut sink, &image);
        let before = disk.contents();
        let mut model = image.clone();
        let mut changes = Changes::new(&mut unverified);
        for (number, (offset, length, is_zero, is_aligned)) in writes.into_iter().enumerate() {
            let offset = if is_aligned { offset - offset % 4096 } else { offset };
            let length = length.min(model.len() - offset as usize);
            let data = vec![if is_zero { 0 } else { number as u8 + 100 }; length];
            changes.write_at(offset, &data).unwrap();
            let place = offset as usize..offset as usize + length;
            model[place.clone()].copy_from_slice(&data);
            let around = place.start.saturating_sub(5000)..(place.end + 5000).min(model.len());
            let mut found = vec![0; around.len()];
            changes.read_at(around.start as u64, &mut found).unwrap();
            prop_assert!(found == model[around.clone()]);
            changes.read_image(around.start as u64, &mut found).unwrap();
            prop_assert!(found == image[around]);
        }
        prop_assert!(disk.contents() == before, "nothing goes to the disk before");
        changes.apply(true).unwrap();
        prop_assert!(all(&mut unverified) == model);
        let middle = MIB as usize..3 * MIB as usize;
        prop_assert!(disk.contents()[middle.clone()] == model[middle]);
        prop_assert!(disk.contents()[..MIB as usize].iter().all(|byte| *byte == 0), "its ends come with the commit");
    }
}

#[test]
fn writes_side_by_side_go_to_the_disk_together_and_zeroes_as_such() {
    let (disk, image) = disk();
    let mut sink = disk.clone();
    let mut unverified = unverified(&mut sink, &image);
    let before = disk.writes();
    let mut changes = Changes::new(&mut unverified);
    // Last things first, and each byte three times.
    for value in [1, 0, 2] {
        for page in (0..32).rev() {
            changes.write_at(2 * MIB + page * 4096, &[value; 4096]).unwrap();
        }
    }
    for page in 32..96 {
        changes.write_at(2 * MIB + page * 4096, &[0; 4096]).unwrap();
    }
    assert_eq!(changes.pages.values().flatten().count(), 32, "zeroes take no memory");
    changes.apply(false).unwrap();
    assert_eq!(disk.writes() - before, 2);
}

#[test]
fn a_range_beyond_the_disk_is_refused() {
    let (disk, image) = disk();
    let mut sink = disk.clone();
    let mut unverified = unverified(&mut sink, &image);
    let mut changes = Changes::new(&mut unverified);
    let end = image.len() as u64;
    for offset in [end - 1, end, u64::MAX] {
        assert!(changes.write_at(offset, &[1, 2]).is_err());
        assert!(changes.read_at(offset, &mut [0, 0]).is_err());
    }
    assert!(changes.failed().is_none(), "the disk did not fail");
}

#[test]
fn damage_in_what_was_changed_is_found_where_it_is_read_back() {
    for (at, is_zero) in [(2 * MIB + 5000, false), (2 * MIB + 300_000, false), (2 * MIB + 5000, true)] {
        for read_back in [true, false] {
            let (disk, image) = disk();
            let mut sink = disk.clone();
            let mut unverified = unverified(&mut sink, &image);
            let mut changes = Changes::new(&mut unverified);
            changes.write_at(2 * MIB, &vec![if is_zero { 0 } else { 9 }; 400_000]).unwrap();
            disk.damage_at(at as usize, 0x40);
            match changes.apply(read_back) {
                Err(Error::ReadBack { offset, length }) if read_back => {
                    assert!((offset..offset + length).contains(&at), "{at}: {offset} and {length}");
                }
                other => assert!(other.is_ok() && !read_back, "{other:?}"),
            }
        }
    }
}

#[test]
fn a_disk_that_can_not_be_written_is_named_by_operation_and_offset() {
    let (disk, image) = disk();
    let mut sink = disk.clone();
    let mut unverified = unverified(&mut sink, &image);
    let mut changes = Changes::new(&mut unverified);
    changes.write_at(2 * MIB, &[9; 4096]).unwrap();
    changes.write_at(2 * MIB + 4096, &[0; 4096]).unwrap();
    disk.fail_at(2 * MIB + 4096);
    let error = changes.apply(true).unwrap_err().report();
    assert!(error.contains("zeroing") && error.contains(&(2 * MIB + 4096).to_string()), "{error}");
}

#[test]
fn a_disk_that_can_not_be_read_is_remembered_whatever_is_made_of_it() {
    let mut sink = crate::sink::NullSink::new(4 * MIB);
    let mut unverified = Unverified::begin(&mut sink, None).unwrap();
    let mut changes = Changes::new(&mut unverified);
    assert!(changes.read_image(2 * MIB, &mut [0; 512]).is_err());
    let _ = changes.write_at(2 * MIB, &[7; 512]);
    let error = changes.failed().unwrap().report();
    assert!(error.contains("reading") && error.contains(&(2 * MIB).to_string()), "{error}");
}

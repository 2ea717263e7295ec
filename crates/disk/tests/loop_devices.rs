//! Claiming, repairing and extending real block devices: loop devices over files this test makes. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use disk::{AllowList, GptFix, Policy, Refusal, Target, fix_gpt, list};
use sys::{Host, MountRequest};

mod support;

use support::{LOSETUP, Loop, MIB, SGDISK, able, gpt_image_on_larger_disk, is_clean, run};

#[test]
fn loop_claims_are_refused_unless_allowed_and_free() {
    if !able(&[LOSETUP, "/usr/sbin/mkfs.ext4"]) {
        return;
    }
    let device = Loop::new(32, 512);
    let host = Host::real();
    let target = device.claim().unwrap();
    assert_eq!((target.size_bytes(), target.logical_sector_bytes()), (32 * MIB, 512));
    assert!(target.contents().is_empty());
    let disk = target.disk().clone();
    drop(target);

    for (policy, expected) in [
        (Policy { allow: None, in_ramdisk: false }, "must be named"),
        (Policy { allow: Some(AllowList::parse("sda").unwrap()), in_ramdisk: true }, "not on the allow-list"),
    ] {
        let refusal = Target::claim(&host, &disk, &policy).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    assert!(
        list(&host, None).unwrap().iter().all(|disk| disk.name != device.node),
        "a loop is no disk by itself"
    );

    let held = sys::device::open_exclusive(Path::new(&device.node)).unwrap();
    assert!(matches!(device.claim(), Err(Refusal::Busy { .. })), "{:?}", device.claim());
    drop(held);

    run(&["/usr/sbin/mkfs.ext4", "-q", "-L", "data", &device.node]);
    let contents = device.claim().unwrap().contents();
    assert_eq!(contents.to_string(), "ext4 `data` on the whole disk");
    let mount_point = tempfile::tempdir().unwrap();
    host.kernel().mount(&MountRequest::new(&device.node, mount_point.path(), "ext4")).unwrap();
    let refusal = device.claim();
    host.kernel().unmount(mount_point.path()).unwrap();
    assert!(matches!(&refusal, Err(Refusal::Mounted { .. })), "{refusal:?}");
    device.claim().unwrap();

    let read_only = Loop::attach(&device.file, 512, &["--read-only"]);
    assert!(matches!(read_only.claim(), Err(Refusal::ReadOnly { .. })));
}

#[test]
fn loop_a_disk_that_somebody_holds_for_a_moment_is_waited_for() {
    if !able(&[LOSETUP]) {
        return;
    }
    let device = Loop::new(8, 512);
    let target = device.claim().unwrap();
    let held = sys::device::open_exclusive(Path::new(&device.node)).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        drop(held);
    });
    disk::wipe_metadata(&target).unwrap();
    holder.join().unwrap();
}

#[test]
fn loop_backup_table_moves_to_the_end_and_numbers_stay() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    for sector in [512, 4096] {
        let device = gpt_image_on_larger_disk(sector);
        let before = device.table();
        assert!(!run(&[SGDISK, "-v", &device.node]).contains("No problems found"));
        let target = device.claim().unwrap();
        assert_eq!(fix_gpt(&target).unwrap(), GptFix::Moved);
        is_clean(&device);
        assert_eq!(fix_gpt(&target).unwrap(), GptFix::Correct);
        assert_eq!(device.table().partitions(), before.partitions());
        let numbers: Vec<_> = before.partitions().iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 14, 15], "sector {sector}");
        assert_eq!(before.esp().map(|esp| esp.number), Some(15));
        before.validate(&device.node, 96 * MIB).unwrap();
        // A damaged first copy is restored from the backup.
        let mut node = File::options().write(true).open(&device.node).unwrap();
        node.seek(SeekFrom::Start(u64::from(sector))).unwrap();
        node.write_all(&[0; 512]).unwrap();
        drop(node);
        assert_eq!(fix_gpt(&device.claim().unwrap()).unwrap(), GptFix::Moved);
        is_clean(&device);
        assert_eq!(device.table().partitions(), before.partitions());
    }
}

#[test]
fn loop_a_claimed_disk_that_was_swapped_is_not_written() {
    if !able(&[LOSETUP]) {
        return;
    }
    let device = Loop::new(8, 512);
    let target = device.claim().unwrap();
    target.confirm().unwrap();
    // The same name, another disk: the file behind the device grows.
    File::options().write(true).open(&device.file).unwrap().set_len(9 * MIB).unwrap();
    run(&[LOSETUP, "--set-capacity", &device.node]);
    assert!(matches!(target.confirm(), Err(Refusal::Swapped { .. })), "{:?}", target.confirm());
    assert!(disk::wipe_metadata(&target).is_err());
}

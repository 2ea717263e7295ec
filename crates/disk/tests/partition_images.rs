//! The disk of a partition image: tables, file systems and swap space that other programs must accept, on loop devices that
//! this test makes. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use std::path::Path;

use disk::layout::{Label, Layout, Role, Wishes};
use disk::table::{Table, write_table};
use disk::{Patience, format, partition_path, show_partitions};
use support::{Loop, MIB, SGDISK, able, run, try_run};
use sys::Host;

const SFDISK: &str = "/usr/sbin/sfdisk";
const BLKID: &str = "/usr/sbin/blkid";
const FSCK_VFAT: &str = "/usr/sbin/fsck.vfat";
const MKSWAP: &str = "/usr/sbin/mkswap";

const FULL: Wishes = Wishes {
    label: Label::Gpt,
    is_uefi: true,
    is_power: false,
    esp_mib: 550,
    bios_boot_mib: 1,
    root_mib: 20,
    swap_mib: 8,
    ephemeral_mib: 10,
    config_drive_mib: 1,
};

/// What `blkid` finds at a place of the device, as `NAME=value` lines.
fn blkid(device: &Loop, offset: u64, size: u64) -> String {
    run(&[BLKID, "-p", "-o", "export", "-O", &offset.to_string(), "-S", &size.to_string(), &device.node])
}

#[test]
fn loop_new_gpt_satisfies_the_usual_tools() {
    if !able(&[SFDISK, SGDISK]) {
        return;
    }
    for sector in [512, 4096] {
        let device = Loop::new(700, sector);
        let target = device.claim().unwrap();
        let layout = Layout::plan(&FULL, target.size_bytes(), sector).unwrap();
        let table = write_table(&target, &layout).unwrap();
        assert_eq!(table, device.table());
        let report = run(&[SGDISK, "-v", &device.node]);
        assert!(report.contains("No problems found"), "{report}");
        let dump = run(&[SFDISK, "--dump", &device.node]);
        let per = MIB / u64::from(sector);
        for (role, kind, start, size) in [
            (Role::Esp, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", 1, 550),
            (Role::Ephemeral, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 551, 10),
            (Role::Swap, "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", 561, 8),
            (Role::ConfigDrive, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 569, 1),
            (Role::Root, "0FC63DAF-8483-4772-8E79-3D69D8477DE4", 570, 20),
        ] {
            let number = layout.get(role).unwrap().number;
            let node = partition_path(&device.node, number);
            let line = dump.lines().find(|line| line.starts_with(&format!("{node} :"))).unwrap();
            let fields = line.replace(' ', "");
            let expected = format!("start={},size={},type={kind}", start * per, size * per);
            assert!(fields.contains(&expected) && fields.contains("name=\"primary\""), "{line}\n{expected}");
        }
    }
}

#[test]
fn loop_new_mbr_satisfies_the_usual_tools() {
    if !able(&[SFDISK]) {
        return;
    }
    let device = Loop::new(64, 512);
    let target = device.claim().unwrap();
    let wishes = Wishes { label: Label::Mbr, is_uefi: false, ..FULL };
    write_table(&target, &Layout::plan(&wishes, target.size_bytes(), 512).unwrap()).unwrap();
    let verdict = run(&[SFDISK, "--verify", &device.node]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let dump = run(&[SFDISK, "--dump", &device.node]).replace(' ', "");
    for line in [
        "p1:start=2048,size=20480,type=83",
        "p2:start=22528,size=16384,type=82",
        "p3:start=38912,size=2048,type=83",
        "p4:start=40960,size=40960,type=83,bootable",
    ] {
        assert!(dump.contains(line), "{line}: {dump}");
    }
}

#[test]
fn loop_swap_space_equals_that_of_mkswap() {
    if !able(&[MKSWAP, BLKID]) {
        return;
    }
    let device = Loop::new(700, 512);
    let target = device.claim().unwrap();
    let layout = Layout::plan(&FULL, target.size_bytes(), 512).unwrap();
    let swap = layout.get(Role::Swap).unwrap();
    let uuid = format::make_swap(&target, swap, "swap1").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(swap.size_byte).unwrap();
    run(&[MKSWAP, "-L", "swap1", "-U", &uuid.to_string(), file.path().to_str().unwrap()]);
    let expected = std::fs::read(file.path()).unwrap();
    let found = device.read(swap.start_byte, expected.len());
    assert!(found == expected, "the bytes differ from those of mkswap");
    let report = blkid(&device, swap.start_byte, swap.size_byte);
    for line in ["TYPE=swap", "LABEL=swap1", &format!("UUID={uuid}")] {
        assert!(report.lines().any(|found| found == line), "{line}: {report}");
    }
}

#[test]
fn loop_an_efi_system_partition_is_sound_and_holds_files() {
    if !able(&[FSCK_VFAT, BLKID]) {
        return;
    }
    for sector in [512, 4096] {
        let device = Loop::new(700, sector);
        let target = device.claim().unwrap();
        let layout = Layout::plan(&FULL, target.size_bytes(), sector).unwrap();
        let esp = layout.get(Role::Esp).unwrap();
        let uuid = format::make_esp(&target, esp, "efi-part").unwrap();
        let report = blkid(&device, esp.start_byte, esp.size_byte);
        for line in ["TYPE=vfat", "VERSION=FAT32", "LABEL=efi-part", &format!("UUID={uuid}")] {
            assert!(report.lines().any(|found| found == line), "{line}: {report}");
        }
        let copy = tempfile::NamedTempFile::new().unwrap();
        let bytes = device.read(esp.start_byte, usize::try_from(esp.size_byte).unwrap());
        std::fs::write(copy.path(), bytes).unwrap();
        let file = copy.path().to_str().unwrap();
        run(&[FSCK_VFAT, "-n", file]);
        let used = std::fs::File::open(&device.file).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&used.metadata().unwrap());
        assert!(blocks * 512 < 8 * MIB, "only its tables are written, not 550 MiB: {blocks} blocks");
        if sector == 512 && try_run(&["/usr/bin/mcopy", "-V"], "").is_some() {
            run(&["/usr/bin/mmd", "-i", file, "::EFI", "::EFI/BOOT"]);
            run(&["/usr/bin/mcopy", "-i", file, "/etc/hostname", "::EFI/BOOT/a long name.txt"]);
            run(&[FSCK_VFAT, "-n", file]);
        }
    }
}

#[test]
fn loop_the_kernel_is_told_of_partitions_that_it_does_not_find() {
    if !able(&[]) {
        return;
    }
    let host = Host::real();
    let device = Loop::new(700, 512);
    let target = device.claim().unwrap();
    let plan = |wishes: &Wishes| Layout::plan(wishes, target.size_bytes(), 512).unwrap();
    for wishes in [FULL, Wishes { swap_mib: 0, ..FULL }, Wishes { root_mib: 30, ..FULL }] {
        let table = write_table(&target, &plan(&wishes)).unwrap();
        show_partitions(&host, &device.node, &table, Patience::default()).unwrap();
        for partition in table.partitions() {
            let node = partition_path(&device.node, partition.number);
            let found = run(&["/usr/sbin/blockdev", "--getsize64", &node]);
            assert_eq!(found.trim(), partition.size_byte.to_string(), "{node}");
        }
        let gone = partition_path(&device.node, u32::try_from(table.partitions().len()).unwrap() + 1);
        assert!(!Path::new(&format!("/sys/class/block/{}", gone.trim_start_matches("/dev/"))).exists());
    }
    // So that the device can be detached.
    show_partitions(&host, &device.node, &Table::None, Patience::default()).unwrap();
}

#[test]
fn loop_ext4_is_sound_to_those_who_know_it_and_takes_files() {
    const E2FSCK: &str = "/usr/sbin/e2fsck";
    const DUMPE2FS: &str = "/usr/sbin/dumpe2fs";
    const DEBUGFS: &str = "/usr/sbin/debugfs";
    if !able(&[E2FSCK, DUMPE2FS, DEBUGFS]) {
        return;
    }
    // One group; a last group of few blocks; many groups, with copies in some of them.
    for (ephemeral_mib, sector) in [(32, 512), (257, 512), (3333, 4096)] {
        let device = Loop::new(ephemeral_mib + 700, sector);
        let target = device.claim().unwrap();
        let layout = Layout::plan(&Wishes { ephemeral_mib, ..FULL }, target.size_bytes(), sector).unwrap();
        let partition = layout.get(Role::Ephemeral).unwrap();
        let uuid = format::make_ext4(&target, partition, "ephemeral0").unwrap();
        let table = write_table(&target, &layout).unwrap();
        show_partitions(&Host::real(), &device.node, &table, Patience::default()).unwrap();
        let node = partition_path(&device.node, partition.number);
        run(&[E2FSCK, "-fn", &node]);
        let head = run(&[DUMPE2FS, "-h", &node]);
        for line in
            [format!("Filesystem UUID:          {uuid}"), "Filesystem volume name:   ephemeral0".into()]
        {
            assert!(head.contains(&line), "{line}: {head}");
        }
        run(&[DEBUGFS, "-w", "-R", "write /etc/hostname file", &node]);
        run(&[E2FSCK, "-fn", &node]);
        if ephemeral_mib > 128 {
            let copy = run(&[DUMPE2FS, "-h", "-o", "superblock=32768", "-o", "blocksize=4096", &node]);
            assert!(copy.contains(&uuid.to_string()), "{copy}");
        }
        show_partitions(&Host::real(), &device.node, &Table::None, Patience::default()).unwrap();
    }
}

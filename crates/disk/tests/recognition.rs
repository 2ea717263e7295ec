//! What other programs make is recognised as those programs say: file systems against `blkid`, FAT against mtools.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::path::Path;

use disk::Device;
use disk::fat::{Entry, Fat};
use disk::probe::{FileSystem, probe_device};
use sys::{CommandLine, Runner, SystemRunner};

/// Reports that a test leaves something out, past the capture of its output: it is counted. At most once a test.
fn skipped(missing: &[&str]) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} not installed", missing.join(", "));
}

/// Runs a tool; `None` when it is not installed.
fn run(argv: &[&str]) -> Option<String> {
    match SystemRunner.run(&CommandLine::new(argv.iter().copied())) {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(sys::RunError::Start { .. }) => None,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

fn blkid(file: &str, key: &str) -> Option<String> {
    let text = run(&["/usr/sbin/blkid", "-p", "-o", "value", "-s", key, file])?;
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

#[test]
fn file_systems_are_recognised_as_blkid_recognises_them() {
    if run(&["/usr/sbin/blkid", "--version"]).is_none() {
        return skipped(&["blkid"]);
    }
    let mut missing = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    let key = key.to_str().unwrap();
    let luks = ["/usr/sbin/cryptsetup", "luksFormat", "-q", "--key-file", key];
    let luks = |options: &[&'static str]| {
        [&luks[..], &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"], options].concat()
    };
    for (index, command) in [
        &["/usr/sbin/mkfs.ext2", "-q", "-L", "root"][..],
        &["/usr/sbin/mkfs.ext3", "-q"],
        &["/usr/sbin/mkfs.ext4", "-q", "-L", "root"],
        &["/usr/sbin/mkfs.vfat", "-n", "CONFIG-2"],
        &["/usr/sbin/mkswap", "-L", "swap1"],
        &["/usr/bin/genisoimage", "-quiet", "-J", "-r", "-V", "config-2", "-o"],
        &["/usr/bin/genisoimage", "-quiet", "-V", "config-2", "-o"],
        &["/usr/sbin/mkfs.xfs", "-q", "-L", "root"],
        &["/usr/sbin/mkfs.btrfs", "-q", "-L", "data"],
        &luks(&["--type", "luks1"]),
        &luks(&["--type", "luks2", "--label", "secrets"]),
    ]
    .iter()
    .enumerate()
    {
        let file = directory.path().join(index.to_string());
        std::fs::File::create(&file).unwrap().set_len(320 << 20).unwrap();
        let file = file.to_str().unwrap();
        let argv = if command[0].ends_with("genisoimage") {
            [command, &[file, source][..]].concat()
        } else {
            [command, &[file][..]].concat()
        };
        if run(&argv).is_none() {
            missing.push(command[0]);
            continue;
        }
        let FileSystem { kind, label, uuid } = probe_device(Path::new(file)).unwrap().unwrap();
        assert_eq!(Some(kind.to_owned()), blkid(file, "TYPE"), "{command:?}");
        assert_eq!(label, blkid(file, "LABEL"), "{command:?}");
        assert_eq!(uuid, blkid(file, "UUID"), "{command:?}");
    }
    if !missing.is_empty() {
        skipped(&missing);
    }
}

/// The checksum of LVM's labels: CRC-32 from a start of its own, and not turned over at the end.
fn lvm_checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[test]
fn members_of_volume_groups_and_arrays_are_recognised_as_blkid_recognises_them() {
    if run(&["/usr/sbin/blkid", "--version"]).is_none() {
        return skipped(&["blkid"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let blank = || vec![0u8; 4 << 20]; // on what could be a floppy, blkid looks for none of these
    let mut volume = blank();
    volume[512..520].copy_from_slice(b"LABELONE");
    volume[520..528].copy_from_slice(&1u64.to_le_bytes());
    volume[532..536].copy_from_slice(&32u32.to_le_bytes());
    volume[536..544].copy_from_slice(b"LVM2 001");
    volume[544..576].copy_from_slice(b"abcdef0123456789ABCDEFghijklmnop");
    let sum = lvm_checksum(&volume[532..1024]);
    volume[528..532].copy_from_slice(&sum.to_le_bytes());
    let magic = 0xa92b_4efc_u32.to_le_bytes();
    let mut new_member = blank();
    new_member[4096..4100].copy_from_slice(&magic);
    new_member[4100] = 1;
    new_member[4112..4128].copy_from_slice(&[0x17; 16]);
    new_member[4128..4136].copy_from_slice(b"node:big");
    new_member[4096 + 144] = 8;
    let mut old_member = blank();
    let at = (4 << 20) - (64 << 10);
    old_member[at..at + 4].copy_from_slice(&magic);
    old_member[at + 8] = 90;
    old_member[at + 20..at + 24].copy_from_slice(&[1, 2, 3, 4]);
    old_member[at + 52..at + 64].copy_from_slice(&[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    for (name, image) in
        [("LVM2_member", volume), ("linux_raid_member", new_member), ("linux_raid_member", old_member)]
    {
        let file = directory.path().join(name);
        std::fs::write(&file, image).unwrap();
        let path = file.to_str().unwrap();
        let found = probe_device(&file).unwrap().unwrap();
        assert_eq!(found.kind, name);
        assert_eq!(blkid(path, "TYPE").as_deref(), Some(name), "{}", found.uuid.unwrap());
        assert_eq!(found.uuid, blkid(path, "UUID"), "{name}");
        assert_eq!(found.label, blkid(path, "LABEL"), "{name}");
        assert!(found.uuid.is_some());
    }
}

#[test]
fn files_of_every_width_of_fat_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let original = directory.path().join("original");
    std::fs::write(&original, &content).unwrap();
    for (width, mebibytes, sector, cluster) in [
        ("12", 4, "512", "4"),
        ("16", 40, "512", "4"),
        ("32", 64, "512", "1"),
        ("16", 64, "4096", "1"),
        ("32", 300, "4096", "1"),
    ] {
        let file = directory.path().join(format!("{width}-{sector}"));
        std::fs::File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        let file = file.to_str().unwrap();
        if run(&["/usr/sbin/mkfs.vfat", "-F", width, "-S", sector, "-s", cluster, "-i", "1234abcd", file])
            .is_none()
            || run(&["/usr/bin/mmd", "-i", file, "::EFI", "::EFI/a vendor's directory"]).is_none()
        {
            return skipped(&["mkfs.vfat or mmd"]);
        }
        let to = "::EFI/a vendor's directory/A Long Name, with ümläuts.CSV";
        run(&["/usr/bin/mcopy", "-i", file, original.to_str().unwrap(), to]);
        run(&["/usr/bin/mcopy", "-i", file, original.to_str().unwrap(), "::EFI/deleted"]);
        run(&["/usr/bin/mdel", "-i", file, "::EFI/deleted"]);

        let device = Device::open(Path::new(file)).unwrap();
        let fat = Fat::open(&device).unwrap();
        assert_eq!(fat.serial(), "1234-ABCD");
        let find = |entries: Vec<Entry>, name: &str| {
            entries.into_iter().find(|entry| entry.name.starts_with(name)).unwrap()
        };
        let efi = fat.directory(&find(fat.root().unwrap(), "EFI")).unwrap();
        assert_eq!(efi.len(), 1, "what was deleted is gone");
        let vendor = fat.directory(&find(efi, "a vendor's directory")).unwrap();
        let long = find(vendor, "A Long Name, with ");
        assert!(long.name.ends_with(".CSV"), "{}", long.name);
        assert!(fat.file(&long, content.len()).unwrap() == content, "FAT{width}, sectors of {sector}");
        assert!(fat.file(&long, content.len() - 1).is_err(), "the limit holds");
    }
}

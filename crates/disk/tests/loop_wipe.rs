//! Wiping metadata and overwriting on loop devices, judged by `wipefs` of util-linux. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use disk::Error;
use disk::erase::{Finished, Overwrite, STALL_LIMIT, overwrite};
use support::{LOSETUP, Loop, MIB, SGDISK, able, run, try_run};
use sys::{Host, MountRequest};

const WIPEFS: &str = "/usr/sbin/wipefs";
const GIB: u64 = 1024 * MIB;

fn put(device: &Loop, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(&device.node).unwrap();
    file.write_all_at(bytes, offset).unwrap();
    file.sync_all().unwrap();
}

/// A window of a disk as a device; detached when dropped.
fn window(device: &Loop, (start, length): (u64, u64)) -> Loop {
    let (start, length) = (start.to_string(), length.to_string());
    Loop::attach(&device.file, 512, &["--offset", &start, "--sizelimit", &length])
}

fn found(node: &str) -> String {
    run(&[WIPEFS, "--no-act", "--noheadings", "--output", "TYPE,OFFSET", node])
}

/// What makers leave, by hand where there is no maker on this machine: name as `wipefs` has it, and what writes it to a device.
type Maker = (&'static str, fn(&Loop, u64));

const MD_MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

fn md1(device: &Loop, at: u64) {
    let mut block = vec![0_u8; 4096];
    block[..4].copy_from_slice(&MD_MAGIC);
    block[4] = 1;
    block[16..32].fill(7);
    block[144..152].copy_from_slice(&(at / 512).to_le_bytes());
    put(device, at, &block);
}

const MAKERS: &[Maker] = &[
    ("crypto_LUKS", |device, _| {
        let made = try_run(
            &[
                "/usr/sbin/cryptsetup",
                "luksFormat",
                "--batch-mode",
                "--type",
                "luks2",
                "--luks2-metadata-size",
                "4m",
                "--pbkdf",
                "pbkdf2",
                "--pbkdf-force-iterations",
                "1000",
                &device.node,
                "-",
            ],
            "secret",
        );
        assert!(made.is_some());
    }),
    ("ext4", |device, _| drop(run(&["/usr/sbin/mkfs.ext4", "-q", "-F", &device.node]))),
    ("linux_raid_member", |device, _| md1(device, 0)),
    ("linux_raid_member", |device, _| md1(device, 4096)),
    ("linux_raid_member", |device, size| md1(device, (size / 512 - 16) / 8 * 8 * 512)),
    ("linux_raid_member", |device, size| {
        let mut block = vec![0_u8; 4096];
        block[..4].copy_from_slice(&MD_MAGIC);
        block[8..12].copy_from_slice(&90_u32.to_le_bytes());
        put(device, (size & !0xffff) - 0x10000, &block);
    }),
    ("zfs_member", |device, size| {
        let end = size / (256 << 10) * (256 << 10);
        for label in [0, 256 << 10, end - (512 << 10), end - (256 << 10)] {
            for block in 0..128 {
                put(device, label + (128 << 10) + block * 1024, &0x00ba_b10c_u64.to_le_bytes());
            }
        }
    }),
    ("VMFS_volume_member", |device, _| {
        let mut block = vec![7_u8; 512];
        block[..4].copy_from_slice(&[0x0d, 0xd0, 0x01, 0xc0]);
        put(device, MIB, &block);
    }),
    ("VMFS", |device, _| {
        let mut block = vec![7_u8; 512];
        block[..4].copy_from_slice(&[0x5e, 0xf1, 0xab, 0x2f]);
        put(device, 2 * MIB, &block);
    }),
    ("drbd", |device, size| {
        let mut block = vec![0_u8; 4096];
        block[60..64].copy_from_slice(&[0x83, 0x74, 0x02, 0x6b]);
        put(device, size - 4096, &block);
    }),
    ("ceph_bluestore", |device, size| {
        put(device, 0, b"bluestore block device\n");
        if size > GIB + 4096 {
            put(device, GIB, b"bluestore block device\n");
        }
    }),
];

/// The places that `wipefs` does not look at.
fn is_free_of_copies(device: &Loop, size: u64) {
    for (at, magic) in [(GIB, b"bluestore block device".as_slice()), (64 * MIB + 0x40, b"_BHRfS_M")] {
        if size > at + 512 {
            assert_ne!(device.read(at, magic.len()), magic, "at {at}");
        }
    }
}

#[test]
fn loop_wipefs_finds_nothing_on_the_disk_nor_on_its_old_partitions() {
    if !able(&[LOSETUP, WIPEFS, SGDISK, "/usr/sbin/sfdisk", "/usr/sbin/cryptsetup", "/usr/sbin/mkfs.ext4"]) {
        return;
    }
    let size = 2 * GIB;
    for (kind, make) in MAKERS {
        for place in ["disk", "gpt", "logical"] {
            let device = Loop::new(2048, 512);
            let part = match place {
                "disk" => (0, size),
                "gpt" => {
                    run(&[SGDISK, "-n", "5:40M:+1500M", &device.node]);
                    (40 * MIB, 1500 * MIB)
                }
                _ => {
                    let table = "label: dos\n,100M,83\n,,5\nstart=206849,size=3072000,type=83\n";
                    try_run(&["/usr/sbin/sfdisk", "--quiet", "--no-reread", &device.node], table);
                    let table = device.table();
                    let logical = table.partitions().iter().find(|part| part.number == 5).unwrap();
                    (logical.start_byte, logical.size_byte)
                }
            };
            let inner = window(&device, part);
            make(&inner, part.1);
            put(&inner, 64 * MIB + 0x40, b"_BHRfS_M");
            assert!(found(&inner.node).contains(kind), "{kind} on {place}: {}", found(&inner.node));
            drop(inner);
            if place == "gpt" {
                // A damaged table names partitions too.
                put(&device, 512 + 16, &[1, 2, 3, 4]);
            }
            disk::wipe_metadata(&device.claim().unwrap()).unwrap();
            assert_eq!(found(&device.node), "", "{kind} on {place}: the disk");
            let inner = window(&device, part);
            assert_eq!(found(&inner.node), "", "{kind} on {place}: the partition");
            is_free_of_copies(&inner, part.1);
        }
    }
}

/// A disk of 64 MiB on a file system with room for its parts at 0 (8 MiB) and 40 MiB (4 MiB): every other sector cannot be written.
struct Failing {
    device: Option<Loop>,
    directory: tempfile::TempDir,
}

impl Failing {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let request = MountRequest::new("tmpfs", directory.path(), "tmpfs").options("size=12m,huge=never");
        Host::real().kernel().mount(&request).unwrap();
        let path = directory.path().join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(64 * MIB).unwrap();
        for (start, mebibytes) in [(0, 8), (40, 4)] {
            for mebibyte in start..start + mebibytes {
                file.write_all_at(&vec![0xaa; 1 << 20], mebibyte * MIB).unwrap();
            }
        }
        Self { device: Some(Loop::attach(&path, 512, &[])), directory }
    }

    fn device(&self) -> &Loop {
        self.device.as_ref().unwrap()
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.device = None;
        let _ = Host::real().kernel().detach(self.directory.path());
    }
}

#[test]
fn loop_sectors_that_cannot_be_written_are_named_and_all_others_are_overwritten() {
    if !able(&[LOSETUP]) {
        return;
    }
    let failing = Failing::new();
    let target = failing.device().claim().unwrap();
    let how = Overwrite { random_passes: 0, zero_pass: true, verify: false };
    let error = overwrite(&target, &how, STALL_LIMIT, &mut |_| ControlFlow::Continue(())).unwrap_err();
    let Error::Erase { device, reason } = &error else { panic!("{error:?}") };
    assert_eq!(*device, failing.device().node);
    assert!(
        reason.contains("2 ranges, 54525952 bytes in all: bytes 8388608 to 41943039, 46137344 to 67108863"),
        "{reason}"
    );
    for (start, length) in [(0, 8 << 20), (40 * MIB, 4 << 20)] {
        assert!(failing.device().read(start, length).iter().all(|byte| *byte == 0), "at {start}");
    }
}

#[test]
fn loop_metadata_that_cannot_be_cleared_fails_the_disk_by_range_and_the_rest_is_cleared() {
    if !able(&[LOSETUP]) {
        return;
    }
    let failing = Failing::new();
    let error = disk::wipe_metadata(&failing.device().claim().unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("metadata could not be cleared: 1 range, 1048576 bytes in all: bytes 66060288 to"),
        "{error}"
    );
    assert!(failing.device().read(0, 1 << 20).iter().all(|byte| *byte == 0));
}

#[test]
fn loop_a_disk_that_does_not_answer_is_left_behind_with_its_name() {
    if !able(&[LOSETUP, "/usr/sbin/mkfs.ext4", "/usr/sbin/fsfreeze"]) {
        return;
    }
    let below = Loop::new(64, 512);
    run(&["/usr/sbin/mkfs.ext4", "-q", &below.node]);
    let mount_point = tempfile::tempdir().unwrap();
    let place = mount_point.path().to_str().unwrap().to_owned();
    Host::real().kernel().mount(&MountRequest::new(&below.node, mount_point.path(), "ext4")).unwrap();
    let file = mount_point.path().join("disk");
    File::create(&file).unwrap().set_len(16 * MIB).unwrap();
    let device = Loop::attach(Path::new(&file), 512, &[]);
    let target = device.claim().unwrap();
    let limit = Duration::from_secs(2);
    let how = Overwrite { random_passes: 1, zero_pass: false, verify: false };
    run(&["/usr/sbin/fsfreeze", "--freeze", &place]);
    let started = Instant::now();
    let overwritten = overwrite(&target, &how, limit, &mut |_| ControlFlow::Continue(()));
    let elapsed = started.elapsed();
    run(&["/usr/sbin/fsfreeze", "--unfreeze", &place]);
    assert!(
        matches!(&overwritten, Err(Error::Stalled { device, .. }) if device == target_name(&target)),
        "{overwritten:?}"
    );
    assert!(overwritten.unwrap_err().to_string().contains("does not answer: no request ended for 2 s"));
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    // The write that hung ended, and no other follows: the disk is free again.
    let freed = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(100));
        overwrite(&target, &how, STALL_LIMIT, &mut |_| ControlFlow::Continue(()))
    });
    assert!(freed.take(100).any(|result| matches!(result, Ok(Finished::Completely))));
    drop(target);
    drop(device);
    Host::real().kernel().detach(mount_point.path()).unwrap();
}

fn target_name(target: &disk::Target) -> &str {
    &target.disk().name
}

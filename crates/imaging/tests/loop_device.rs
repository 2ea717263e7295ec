//! Images onto real block devices: loop devices over files that the test made, with both sector sizes, by direct I/O.
//! Needs root and loop devices; says so where it skips.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
#![allow(clippy::disallowed_methods)] // a test sets loop devices up with losetup

mod support;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use events::Events;
use imaging::{BlockSink, Cancel, DeviceSink, ErrorKind, Format};
use support::qcow2::{Options, build};
use support::*;

/// A loop device over a file of its own, full of 0xa5; detached when dropped.
struct Loop {
    device: PathBuf,
    backing: tempfile::NamedTempFile,
}

impl Loop {
    /// `None`, with a word about it, where there are no loop devices to be had.
    fn new(size: usize, sector: u32) -> Option<Self> {
        if OpenOptions::new().read(true).write(true).open("/dev/loop-control").is_err() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: needs root and loop devices\n"),
            ); // past cargo's capture: it counts
            return None;
        }
        let mut backing = tempfile::NamedTempFile::new().unwrap();
        backing.write_all(&vec![0xa5; size]).unwrap();
        backing.flush().unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(backing.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Some(Self { device, backing })
    }

    fn contents(&self) -> Vec<u8> {
        // Through the backing file: what the device really holds, not what a cache says.
        std::fs::read(self.backing.path()).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(status.is_ok_and(|s| s.success()), "{} was not detached", self.device.display());
    }
}

fn put(
    device: &Path,
    file: &[u8],
    format: Format,
    faults: &[Fault],
) -> Result<imaging::Written, imaging::Error> {
    let server = Server::new(file.to_vec()).faults(faults.to_vec());
    let sink = DeviceSink::open(device).unwrap();
    let request = imaging::ImageRequest { read_back: true, ..request(server.url(), file, format) };
    imaging::write_image(&request, &transport(), Box::new(sink), &Events::default(), &Cancel::new())
}

fn assert_contents(disk: &Loop, raw: &[u8]) {
    let contents = disk.contents();
    assert!(contents[..raw.len()] == *raw, "the image arrived");
    let tail = contents.len() - MIB;
    assert!(contents[raw.len()..tail].iter().all(|b| *b == 0xa5), "nothing between image and tail changed");
    assert!(contents[tail..].iter().all(|b| *b == 0), "the old backup table is gone");
}

#[test]
fn loop_raw_and_qcow2_replace_old_contents_on_both_sector_sizes() {
    // Ends inside a sector of 512 and of 4096 bytes.
    let odd = disk_image(9 * MIB + 12_345, 1);
    let raw = disk_image(9 * MIB + 512, 2);
    for sector in [512, 4096] {
        let Some(disk) = Loop::new(24 * MIB, sector) else { return };
        let sink = DeviceSink::open(&disk.device).unwrap();
        assert_eq!((sink.size(), sink.logical_sector_size()), (24 * MIB as u64, sector));
        drop(sink);
        put(&disk.device, &odd, Format::Raw, &[]).unwrap();
        assert_contents(&disk, &odd);
        drop(disk);
        for (cluster_bits, zstd) in [(16, None), (9, None), (16, Some(false)), (12, Some(true))] {
            let Some(disk) = Loop::new(24 * MIB, sector) else { return };
            let file = build(&raw, Options { cluster_bits, zstd, ..Options::default() });
            put(&disk.device, &file, Format::Qcow2, &[]).unwrap();
            assert_contents(&disk, &raw);
        }
    }
}

#[test]
fn loop_a_wrong_digest_leaves_both_ends_zero_on_the_device() {
    let Some(disk) = Loop::new(24 * MIB, 512) else { return };
    let raw = disk_image(24 * MIB, 3);
    let flipped = [const { Fault::Flip(10_000_000) }; 3];
    let error = put(&disk.device, &raw, Format::Raw, &flipped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
    let contents = disk.contents();
    assert!(contents[..MIB].iter().all(|b| *b == 0) && contents[23 * MIB..].iter().all(|b| *b == 0));
    // And a second try on the same disk succeeds.
    put(&disk.device, &raw, Format::Raw, &[]).unwrap();
    assert!(disk.contents() == raw);
}

#[test]
fn loop_a_disk_in_use_is_refused() {
    let Some(disk) = Loop::new(4 * MIB, 512) else { return };
    let first = DeviceSink::open(&disk.device).unwrap();
    let error = DeviceSink::open(&disk.device).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Write);
    assert!(error.report().contains("busy"), "{}", error.report());
    drop(first);
    assert!(DeviceSink::open(&disk.device).is_ok());
}

#[test]
fn loop_zero_ranges_and_unaligned_writes_touch_only_what_they_name() {
    for sector in [512, 4096] {
        let Some(disk) = Loop::new(4 * MIB, sector) else { return };
        let mut model = vec![0xa5u8; 4 * MIB];
        let mut sink = DeviceSink::open(&disk.device).unwrap();
        let data: Vec<u8> = (0..600_000u32).map(|i| (i % 241) as u8).collect();
        for (offset, length) in
            [(0, 512), (1000, 10), (5000, 4096), (8192, 300_001), (511, 600_000), (4095, 2)]
        {
            sink.write_at(offset as u64, &data[..length]).unwrap();
            model[offset..offset + length].copy_from_slice(&data[..length]);
        }
        for (offset, length) in [(100, 5), (700_001, 200_000), (2 * MIB, MIB), (4 * MIB - 5, 5), (9000, 1)] {
            sink.zero_range(offset as u64, length as u64).unwrap();
            model[offset..offset + length].fill(0);
        }
        sink.flush().unwrap();
        sink.committed();
        drop(sink);
        assert!(disk.contents() == model, "sector size {sector}");
    }
}

#[test]
fn loop_what_was_handed_over_is_seen_by_all_that_comes_after() {
    for sector in [512, 4096] {
        let Some(disk) = Loop::new(4 * MIB, sector) else { return };
        let mut model = vec![0xa5u8; 4 * MIB];
        let mut sink = DeviceSink::open(&disk.device).unwrap();
        let mut seed = u64::from(sector);
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for round in 0..400usize {
            // Every kind on ranges that overlap, of whole sectors most of the time.
            let unit = if draw(4) == 0 { 1 } else { 4096 };
            let offset = draw(3 * MIB / unit) * unit;
            let length = (1 + draw(MIB / unit)) * unit;
            let range = offset..offset + length;
            match draw(8) {
                0 => {
                    sink.zero_range(offset as u64, length as u64).unwrap();
                    model[range].fill(0);
                }
                1 => {
                    let mut found = vec![0; length];
                    sink.read_at(offset as u64, &mut found).unwrap();
                    assert!(found == model[range], "round {round}");
                }
                2 => {
                    let data = vec![round as u8; length];
                    sink.write_at(offset as u64, &data).unwrap();
                    model[range].fill(round as u8);
                }
                _ => {
                    let data = vec![round as u8 ^ 0x3c; length];
                    sink.submit(offset as u64, data.as_slice().into()).unwrap();
                    model[range].copy_from_slice(&data);
                }
            }
        }
        sink.flush().unwrap();
        assert!(disk.contents() == model, "sector size {sector}");
    }
}

#[test]
fn loop_a_write_that_fails_later_tells_where() {
    let Some(disk) = Loop::new(8 * MIB, 512) else { return };
    let mut sink = DeviceSink::open(&disk.device).unwrap();
    // The disk shrinks under the sink's hands.
    disk.backing.as_file().set_len(4 * MIB as u64).unwrap();
    let status = Command::new("losetup").arg("--set-capacity").arg(&disk.device).status().unwrap();
    assert!(status.success());
    let data = vec![1; MIB];
    let mut told = None;
    for offset in [MIB, 5 * MIB, 2 * MIB, 3 * MIB] {
        told = told.or(sink.submit(offset as u64, data.as_slice().into()).err());
    }
    let error = told.or(sink.flush().err()).unwrap();
    assert!(
        error.to_string().starts_with("writing at offset 5242880, 1048576 bytes: the disk is gone"),
        "{error}"
    );
    // Told once: what comes after is on the disk.
    sink.submit(MIB as u64, data.as_slice().into()).unwrap();
    sink.flush().unwrap();
    drop(sink);
    assert!(disk.contents()[MIB..2 * MIB] == data);
}

#[test]
fn a_plain_file_is_no_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    File::create(file.path()).unwrap();
    assert_eq!(DeviceSink::open(file.path()).unwrap_err().kind(), ErrorKind::Write);
}

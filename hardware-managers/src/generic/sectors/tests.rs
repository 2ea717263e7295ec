//! The whole way of an image through `imaging`, on a disk in memory with sectors of 4096 bytes that fails where the test says.

#![allow(clippy::disallowed_methods)] // the image is made by the tools of the machine

use std::fmt;
use std::process::Command;
use std::sync::Arc;

use disk::Region;
use disk::fat::{Entry, Fat};
use disk::table::Table;
use events::Events;
use imaging::{
    BlockSink, Cancel, Checks, ErrorKind, ExpectedDigest, Format, FrailSink, ImageRequest, MemorySink,
    Proxies, Transport, Trouble, Written,
};
use sha2::{Digest, Sha256};

use super::*;

const MIB: usize = 1 << 20;
const IMAGE: usize = 4 * MIB;
const DISK: usize = 5 * MIB;
const ESP: (usize, usize) = (MIB, MIB);
const ROOT: (usize, usize) = (2 * MIB, MIB);
const FILE: usize = 300_000;
const OLD: u8 = 0xa5;

fn tool(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251 + usize::from(seed)) % 255).unwrap() + 1).collect()
}

struct Bench {
    image: Vec<u8>,
    request: ImageRequest,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// An image for sectors of 512 bytes: an EFI system partition with files, and a root of noise.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (esp, loader, image_path) = (path("esp"), path("loader"), path("image"));
        std::fs::write(&esp, vec![0; ESP.1]).unwrap();
        std::fs::write(&loader, noise(FILE, 1)).unwrap();
        tool("/usr/sbin/mkfs.vfat", &["-n", "EFI", "-i", "1a2b3c4d", &esp]);
        tool("/usr/bin/mmd", &["-i", &esp, "::EFI", "::EFI/BOOT"]);
        tool("/usr/bin/mcopy", &["-i", &esp, &loader, "::EFI/BOOT/BOOTX64.EFI"]);
        tool("/usr/bin/mcopy", &["-i", &esp, &loader, "::EFI/BOOT/a rather long name.efi"]);
        std::fs::write(&image_path, vec![0; IMAGE]).unwrap();
        let place = |number: u32, (start, size): (usize, usize)| {
            format!("--new={number}:{}:{}", start / 512, (start + size) / 512 - 1)
        };
        let arguments = ["--clear", "--set-alignment=1", &place(1, ESP), &place(2, ROOT), &image_path];
        tool("/usr/sbin/sgdisk", &arguments);
        let mut image = std::fs::read(&image_path).unwrap();
        image[ESP.0..ESP.0 + ESP.1].copy_from_slice(&std::fs::read(&esp).unwrap());
        image[ROOT.0..ROOT.0 + ROOT.1].copy_from_slice(&noise(ROOT.1, 2));
        std::fs::write(&image_path, &image).unwrap();
        let digest: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
        let request = ImageRequest {
            label: "test".into(),
            sources: vec![format!("file://{image_path}")],
            digest: ExpectedDigest::from_hex(&digest).unwrap(),
            signature: None,
            format: Format::Raw,
            checks: Checks { whole_disk: true, ..Checks::default() },
            translate: Some(Arc::new(ForSectors(4096))),
            preflight: None,
            authorization: None,
            proxies: Proxies::default(),
            read_back: true,
        };
        Self { image, request, _folder: folder }
    }

    fn write(&self, sink: impl BlockSink + 'static) -> Result<Written, imaging::Error> {
        let transport = Transport { attempts: 1, ..Transport::default() };
        imaging::write_image(&self.request, &transport, Box::new(sink), &Events::default(), &Cancel::new())
    }

    /// How many operations a write has.
    fn steps(&self) -> u32 {
        let sink = FrailSink::new(&blank(), None);
        self.write(sink.clone()).unwrap();
        sink.operations()
    }

    /// Whether the partitions are those of a disk that was finished.
    fn is_whole(&self, contents: &[u8]) -> bool {
        let esp = Region::new(contents, ESP.0 as u64, ESP.1 as u64);
        let files = || -> Option<bool> {
            let fat = Fat::open(&esp).ok()?;
            let mut entries = fat.root().ok()?;
            for name in ["EFI", "BOOT"] {
                let below = entries.into_iter().find(|entry| entry.name == name)?;
                entries = fat.directory(&below).ok()?;
            }
            let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
            let same = |entry: &Entry| fat.file(entry, MIB).is_ok_and(|bytes| bytes == noise(FILE, 1));
            Some(names == ["BOOTX64.EFI", "a rather long name.efi"] && entries.iter().all(same))
        };
        let root = ROOT.0..ROOT.0 + ROOT.1;
        esp.bytes(11, 2).unwrap() == 4096u16.to_le_bytes()
            && files() == Some(true)
            && contents[root.clone()] == self.image[root]
    }

    fn assert_next_succeeds(&self, disk: &MemorySink) {
        self.write(disk.clone()).unwrap();
        let contents = disk.contents();
        let table = Table::read(&contents, 4096).unwrap();
        let places: Vec<_> = table.partitions().iter().map(|p| (p.start_byte, p.size_byte)).collect();
        assert_eq!(places, [ESP, ROOT].map(|(start, size)| (start as u64, size as u64)));
        assert!(self.is_whole(&contents) && disk.is_committed());
    }
}

fn blank() -> MemorySink {
    MemorySink::with_sectors(DISK, OLD, 4096)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn has_no_ends(disk: &MemorySink) -> bool {
    let contents = disk.contents();
    is_zero(&contents[..MIB]) && is_zero(&contents[DISK - MIB..]) && !disk.is_committed()
}

#[test]
fn a_disk_that_fails_once_anywhere_in_a_translation_does_not_boot_and_takes_the_next_image() {
    let bench = Bench::new();
    let mut seen = Vec::new();
    for step in 1..=bench.steps() {
        let disk = blank();
        let error = bench.write(FrailSink::new(&disk, Some(Trouble::Once(step)))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Write, "step {step}: {}", error.report());
        if error.left_disk_unbootable() {
            assert!(has_no_ends(&disk), "step {step}: an end was left");
        } else {
            assert!(error.report().contains("may still boot the old system"), "{}", error.report());
            assert!(disk.contents()[MIB..DISK - MIB].iter().all(|byte| *byte == OLD));
        }
        assert!(error.report().contains("at offset"), "step {step}: {}", error.report());
        seen.push(error.report());
        bench.assert_next_succeeds(&disk);
    }
    // The volume made anew is among what failed: it is written where the first byte of its partition is once more.
    let first = |text: &&String| text.contains(&format!("at offset {},", ESP.0)) && text.contains("writing");
    assert_eq!(seen.iter().filter(first).count(), 2, "{seen:#?}");
}

#[test]
fn a_disk_that_dies_or_loses_power_anywhere_in_a_translation_boots_nothing_half() {
    let bench = Bench::new();
    for step in 1..=bench.steps() {
        for trouble in
            [Trouble::Dies(step), Trouble::PowerLoss(step, 1), Trouble::PowerLoss(step, 0x9e37_79b9)]
        {
            let disk = blank();
            assert!(bench.write(FrailSink::new(&disk, Some(trouble))).is_err());
            let contents = disk.contents();
            let is_untouched = contents[MIB..DISK - MIB].iter().all(|byte| *byte == OLD);
            let boots = !is_zero(&contents[..MIB]) || !is_zero(&contents[DISK - MIB..]);
            assert!(!boots || is_untouched || bench.is_whole(&contents), "{trouble:?}");
            bench.assert_next_succeeds(&disk);
        }
    }
}

/// Has the disk lie from the translation on: what was streamed has been read back by then.
struct Damaging(MemorySink, usize);

impl fmt::Debug for Damaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Damaging")
    }
}

impl Translate for Damaging {
    fn judge(&self, head: &[u8], table: u32, disk: u64) -> Result<(), String> {
        ForSectors(4096).judge(head, table, disk)
    }

    fn rewrite(&self, disk: &mut dyn Draft, table: u32, image: u64) -> Result<(), String> {
        ForSectors(4096).rewrite(disk, table, image)?;
        self.0.damage_at(self.1, 0x10);
        Ok(())
    }
}

#[test]
fn damage_in_what_a_translation_wrote_is_found_by_reading_back() {
    let mut bench = Bench::new();
    let reference = blank();
    bench.write(reference.clone()).unwrap();
    let contents = reference.contents();
    let file = noise(FILE, 1);
    let of_file = contents[ESP.0..].windows(4096).rposition(|bytes| bytes == &file[4096..8192]).unwrap();
    let name = contents[ESP.0..].windows(11).position(|bytes| bytes == b"BOOTX64 EFI").unwrap();
    // The boot sector, both ends of the allocation table, an entry of a directory, a file, the table and its second copy.
    for at in [ESP.0, ESP.0 + 4096, ESP.0 + 8191, ESP.0 + name, ESP.0 + of_file + 77, 4096, DISK - 4096] {
        for read_back in [true, false] {
            let disk = blank();
            bench.request.translate = Some(Arc::new(Damaging(disk.clone(), at)));
            bench.request.read_back = read_back;
            match bench.write(disk.clone()) {
                Err(imaging::Error::Unbootable(error)) if read_back => match *error {
                    imaging::Error::ReadBack { offset, length } => {
                        let range = offset..offset + length;
                        assert!(range.contains(&(at as u64)), "{at} is not in {range:?}");
                        assert!(has_no_ends(&disk), "{at}");
                    }
                    other => panic!("{at}: {}", other.report()),
                },
                other => assert!(other.is_ok() && !read_back, "{at}: {other:?}"),
            }
        }
    }
}

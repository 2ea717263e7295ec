//! Headers and tables of qcow2 images changed one field at a time: what `qemu-img` does not open is refused before a byte is written,
//! what it finds sound and opens arrives as it reads it, and what reaches beyond the end of the file never becomes a disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)] // a test runs the real tool
#![allow(clippy::cast_possible_truncation)]

mod support;

use std::path::Path;
use std::process::Command;

use imaging::{ErrorKind, Format, MemorySink};
use support::*;

fn qemu_img(arguments: &[&str]) -> Option<bool> {
    match Command::new("qemu-img").args(arguments).output() {
        Ok(output) => Some(output.status.success()),
        Err(_) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: no qemu-img\n")); // past cargo's capture: it counts
            None
        }
    }
}

/// What qemu-img says of a file.
struct Verdict {
    opens: bool,
    /// `check` finds nothing.
    sound: bool,
    /// What `convert` makes of it.
    disk: Option<Vec<u8>>,
}

fn judged(file: &[u8], folder: &Path) -> Verdict {
    let (image, raw) = (folder.join("image"), folder.join("raw"));
    let (image_name, raw_name) = (image.display().to_string(), raw.display().to_string());
    std::fs::write(&image, file).unwrap();
    let run = |arguments: &[&str]| qemu_img(arguments).unwrap();
    let opens = run(&["info", "-f", "qcow2", &image_name]);
    let sound = opens && run(&["check", "-q", "-f", "qcow2", &image_name]);
    let converts = opens && run(&["convert", "-f", "qcow2", "-O", "raw", &image_name, &raw_name]);
    Verdict { opens, sound, disk: converts.then(|| std::fs::read(&raw).unwrap()) }
}

fn be32(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

fn be64(value: u64) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// Fields of the header, and values that are odd, too large, or too far away.
fn header_changes(file: u64) -> Vec<(usize, Vec<u8>)> {
    let beyond = file.next_multiple_of(65536);
    let mut changes = Vec::new();
    let mut add32 = |at: usize, values: &[u32]| changes.extend(values.iter().map(|value| (at, be32(*value))));
    add32(4, &[0, 1, 2, 4]);
    add32(16, &[9, u32::MAX]);
    add32(20, &[0, 8, 17, 21, 22, u32::MAX]);
    add32(32, &[3, u32::MAX]);
    add32(36, &[0, 1, 2, 100, 0x40_0001, 0x7fff_ffff, u32::MAX]);
    add32(56, &[129, 1 << 20, u32::MAX]);
    add32(60, &[65_537, 0x7fff_ffff, u32::MAX]);
    add32(96, &[0, 6, 7, u32::MAX]);
    add32(100, &[0, 103, 104, 105, 111, 112, 120, 4096, 65_536, 65_544, u32::MAX]);
    // The first extension: its type and its length.
    for kind in [0u32, 0xe279_2aca, 0x6803_f857, 0x2385_2875, 0x0537_be77, 0x1234_5678] {
        for length in [0u32, 8, 23, 24, 65_416, 65_417, u32::MAX] {
            changes.push((112, [be32(kind), be32(length), be64(0)].concat()));
        }
    }
    for (at, values) in [
        (8, vec![1 << 40, u64::MAX]),
        (24, vec![511, 512, 1000, 1 << 20, 1 << 40, 1 << 63, u64::MAX]),
        (40, vec![4096, 1 << 63, u64::MAX << 16]),
        (48, vec![4096, 1 << 63, u64::MAX << 16]),
        (64, vec![512, 1 << 63, u64::MAX << 16]),
        (72, vec![1, 2, 8, 32, 64, 1 << 40]),
        (80, vec![u64::MAX]),
        (88, vec![1, 4, 1 << 40]),
    ] {
        changes.extend(values.into_iter().map(|value| (at, be64(value))));
    }
    // One snapshot at many places; how many of them there are decides how far they reach.
    changes.push((60, [be32(1), be64(beyond + 512)].concat()));
    changes.push((60, [be32(65_537), be64(beyond)].concat()));
    changes
}

#[test]
fn what_qemu_img_does_not_open_is_refused_and_what_it_finds_sound_arrives() {
    if qemu_img(&["--version"]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("base"), disk_image(2 * MIB, 71)).unwrap();
    let (mut refused, mut taken) = (0, 0);
    for options in ["compat=1.1", "compat=0.10"] {
        let made =
            qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-o", options, &path("base"), &path("made")]);
        assert_eq!(made, Some(true));
        let good = std::fs::read(path("made")).unwrap();
        for (at, value) in header_changes(good.len() as u64) {
            let mut file = good.clone();
            file[at..at + value.len()].copy_from_slice(&value);
            let verdict = judged(&file, folder.path());
            for server in [Server::new(file.clone()), Server::without_ranges(file.clone())] {
                let disk = MemorySink::new(4 * MIB, 0xa5);
                let result = write(&request(server.url(), &file, Format::Qcow2), &disk);
                let shown = format!("{options} at {at} {value:02x?}: {result:?}");
                match (&verdict, result) {
                    (Verdict { opens: false, .. }, result) => {
                        assert_eq!(
                            result.map_err(|error| error.kind()).unwrap_err(),
                            ErrorKind::InvalidImage,
                            "{shown}"
                        );
                        assert_eq!(disk.writes(), 0, "{shown}");
                        refused += 1;
                    }
                    (Verdict { sound: true, disk: Some(raw), .. }, Ok(_)) => {
                        assert!(disk.contents()[..raw.len()] == raw[..], "{shown}");
                        taken += 1;
                    }
                    // No disk at all, which QEMU can open and nobody can deploy; and what is larger than this disk.
                    (Verdict { sound: true, disk: Some(raw), .. }, Err(_)) => {
                        assert!(raw.is_empty() || raw.len() > 4 * MIB, "{shown}");
                    }
                    // QEMU opens it and finds faults in it.
                    (Verdict { .. }, _) => {}
                }
            }
        }
    }
    assert!(refused > 150 && taken > 80, "{refused} refused, {taken} taken");
}

/// A table that reaches beyond the file is found before the first write where the length is known, and before the commit where it is not.
#[test]
fn tables_beyond_the_end_of_the_file_never_become_a_disk() {
    let raw = disk_image(2 * MIB, 72);
    let good = qcow2::build(&raw, qcow2::Options::default());
    let beyond = (good.len() as u64).next_multiple_of(65536);
    let changes = [
        (36, be32(0x40_0000), "L1 table"),
        (40, be64(beyond), "L1 table"),
        (48, [be64(beyond), be32(1)].concat(), "reference count table"),
        (56, be32(100), "reference count table"),
        (60, [be32(1), be64(beyond)].concat(), "snapshot table"),
        (60, [be32(65_536), be64(65536)].concat(), "snapshot table"),
    ];
    for (at, value, table) in changes {
        let mut file = good.clone();
        file[at..at + value.len()].copy_from_slice(&value);
        for (server, length_is_known) in [
            (Server::new(file.clone()), true),
            (Server::without_ranges(file.clone()), true),
            (Server::without_ranges(file.clone()).faults([Fault::Unannounced]), false),
        ] {
            let disk = MemorySink::new(3 * MIB, 0xa5);
            let error = write(&request(server.url(), &file, Format::Qcow2), &disk).unwrap_err();
            let report = error.report();
            assert_eq!(error.kind(), ErrorKind::InvalidImage, "{report}");
            if length_is_known {
                assert!(report.contains(table) && report.contains("beyond the end"), "{table}: {report}");
                assert_eq!(disk.writes(), 0, "{table}: {report}");
            }
            assert!(!disk.is_committed());
        }
    }
}

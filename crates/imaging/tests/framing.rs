//! What the programs make, and what they make of what follows a compressed stream: taken here as there.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)] // a test runs the real tools

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use imaging::{DecoderMemory, ErrorKind, Format, MemorySink, Rule, Transport, Written};
use support::*;

/// Runs a filter of a shell. Returns its exit status and what it wrote; `None` where its program is missing.
fn filter(line: &str, input: &[u8]) -> Option<(i32, Vec<u8>)> {
    let program = line.split(' ').next().unwrap();
    let mut child = match Command::new("sh")
        .args(["-c", &format!("command -v {program} >/dev/null || exit 99; {line}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => panic!("sh: {error}"),
    };
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let input = input.to_vec();
    // A program that gives up early closes its input.
    let feeder = std::thread::spawn(move || drop(to.write_all(&input)));
    let mut output = Vec::new();
    from.read_to_end(&mut output).unwrap();
    feeder.join().unwrap();
    let status = child.wait().unwrap().code().unwrap();
    if status == 99 {
        let _ = std::io::stderr().write_fmt(format_args!("SKIPPED: no {program}\n")); // past cargo's capture: it counts
        return None;
    }
    Some((status, output))
}

fn put(published: &[u8], memory: DecoderMemory) -> (Result<Written, imaging::Error>, MemorySink) {
    let server = Server::new(published.to_vec());
    let disk = MemorySink::new(5 * MIB, 0xa5);
    let transport = Transport { decoder_memory: memory, ..transport() };
    let request = request(server.url(), published, Format::Raw);
    let events = events::Events::default();
    let result =
        imaging::write_image(&request, &transport, Box::new(disk.clone()), &events, &imaging::Cancel::new());
    (result, disk)
}

#[test]
fn what_the_programs_make_in_any_of_their_ways_arrives() {
    let image = disk_image(3 * MIB + 777, 61);
    let lines = [
        "gzip -1",
        "pigz -1",
        "pigz -i",
        "bgzip",
        "bzip2 -1",
        "bzip2 -9",
        "lbzip2 -1",
        "pbzip2 -c",
        "xz -9 -T2",
        "xz -T2 --block-size=300KiB",
        "xz -0 --check=none",
        "xz -0 --check=crc32",
        "xz -0 --check=sha256",
        "xz --x86 --lzma2=preset=0",
        "xz --arm64 --lzma2=preset=0",
        "xz --delta=dist=4 --lzma2=preset=0",
        "zstd -q -T0 --rsyncable",
        "zstd -q -1 --no-check",
        "zstd -q --stream-size=3146505 -3",
        "zstd -q --ultra -22",
        "zstd -q --long=27",
        "pzstd -q -p 2 -c -",
    ];
    for line in lines {
        let Some((status, published)) = filter(line, &image) else { continue };
        assert_eq!(status, 0, "{line}");
        let (result, disk) = put(&published, DecoderMemory::Share(Some(800 << 20)));
        let written = result.unwrap_or_else(|error| panic!("{line}: {}", error.report()));
        assert_eq!(written.published_bytes, published.len() as u64, "{line}");
        assert_disk(&disk, &image, 0xa5);
    }
}

#[test]
fn every_tail_is_taken_or_refused_as_by_the_program() {
    let image = disk_image(200_000, 62);
    let padding = [0u8; 700];
    let tails: [&[u8]; 24] = [
        b"",
        b"x",
        b"xy",
        b"FWx0 metadata of a longer kind",
        b"\0",
        &padding[..4],
        &padding[..5],
        &padding,
        b"\0\0x",
        b"\x1f",
        b"\x1f\x8b",
        b"\x1f\x8b\x08",
        b"\x1f\x8b\x07abcdefghijk",
        b"B",
        b"BZh",
        b"BZh0",
        b"BZh9abc",
        b"\x28\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18",
        b"\x50\x2a\x4d\x18\0\0\0\0",
        b"\x5f\x2a\x4d\x18\x03\0\0\0abc",
        b"\x50\x2a\x4d\x18\x05\0\0\0abc",
        b"\xfd7zXZ\0",
        b"\0\0\0\0\0\0\0\0x",
    ];
    for (compress, unpack) in [
        ("gzip -1", "gzip -dc"),
        ("bzip2 -1", "bzip2 -dc"),
        ("xz -0", "xz -dc"),
        ("zstd -q -1", "zstd -q -dc"),
    ] {
        let Some((_, member)) = filter(compress, &image) else { continue };
        let Some((_, empty)) = filter(compress, b"") else { continue };
        for tail in tails {
            for file in [[&member[..], tail].concat(), [&empty[..], &member, &empty, tail].concat()] {
                let Some((status, content)) = filter(unpack, &file) else { continue };
                // gzip ends with 2 after a warning.
                let taken = status == 0 || (status == 2 && unpack.starts_with("gzip"));
                let (result, disk) = put(&file, DecoderMemory::default());
                assert_eq!(result.is_ok(), taken, "{unpack} {tail:?} {result:?}");
                match result {
                    Ok(_) => assert_disk(&disk, &content, 0xa5),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{unpack} {tail:?}");
                        assert!(!disk.is_committed());
                    }
                }
            }
        }
    }
}

#[test]
fn a_compressed_file_with_nothing_inside_is_refused_before_a_byte_is_written() {
    for line in ["gzip", "bzip2", "xz", "zstd -q"] {
        let Some((_, published)) = filter(line, b"") else { continue };
        let (result, disk) = put(&published, DecoderMemory::default());
        let error = result.unwrap_err();
        assert!(error.report().contains("empty"), "{line}: {}", error.report());
        assert_eq!(disk.writes(), 0);
    }
}

#[test]
fn other_compressions_and_archives_are_refused_by_name_before_a_byte_is_written() {
    let image = disk_image(MIB, 63);
    let lines = [
        ("lz4 -q -c", "lz4"),
        ("lz4 -q -l -c", "lz4"),
        ("xz --format=lzma -0 -c", "lzma"),
        ("lzma -9 -c", "lzma"),
        ("lzop -1 -c", "lzop"),
        ("lzip -0 -c", "lzip"),
        ("compress -f -c", "compress"),
        ("pigz -z -c", "zlib"),
        ("zip -q - -", "zip"),
    ];
    for (line, name) in lines {
        let Some((status, published)) = filter(line, &image) else { continue };
        // compress ends with 2 where the file grew.
        assert!(status == 0 || status == 2, "{line}");
        let (result, disk) = put(&published, DecoderMemory::default());
        let error = result.unwrap_err();
        assert_eq!((error.rule(), disk.writes()), (Some(Rule::WritableFormat), 0), "{line}");
        assert!(error.report().contains(name), "{line}: {}", error.report());
        let inside = gzip(&published);
        let (result, disk) = put(&inside, DecoderMemory::default());
        let error = result.unwrap_err();
        assert_eq!((error.rule(), disk.writes()), (Some(Rule::RawInside), 0), "gzip of {line}");
        assert!(error.report().contains(name), "{line}: {}", error.report());
    }
}

/// The first bytes of the disk come out of the file only after its first megabyte, so they are looked at when they come.
#[test]
fn what_a_long_skippable_frame_hides_is_looked_at_when_it_comes() {
    let skippable = |length: usize| {
        let header = [&[0x50, 0x2a, 0x4d, 0x18][..], &u32::try_from(length).unwrap().to_le_bytes()].concat();
        [header, vec![7; length]].concat()
    };
    let mut image = disk_image(2 * MIB, 64);
    let published = [skippable(3 * MIB), zstd::encode_all(&image[..], 1).unwrap()].concat();
    let (result, disk) = put(&published, DecoderMemory::default());
    result.unwrap();
    assert_disk(&disk, &image, 0xa5);
    image[..4].copy_from_slice(b"QFI\xfb");
    let published = [skippable(3 * MIB), zstd::encode_all(&image[..], 1).unwrap()].concat();
    let (result, disk) = put(&published, DecoderMemory::default());
    assert_eq!(result.unwrap_err().rule(), Some(Rule::RawInside));
    assert_unbootable(&disk);
}

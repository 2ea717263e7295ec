//! qcow2 images, our own and qemu-img's: what ends up on the disk, and what is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::path::Path;

use imaging::{ErrorKind, Format, MemorySink};
use proptest::prelude::*;
use support::qcow2::{Options, Order, build};
use support::*;

fn arrives(server: &Server, file: &[u8], raw: &[u8]) -> imaging::Written {
    let disk = MemorySink::new(raw.len() + 3 * MIB, 0xa5);
    let written = write(&request(server.url(), file, Format::Qcow2), &disk).unwrap();
    assert_disk(&disk, raw, 0xa5);
    assert_eq!((written.published_bytes, written.virtual_size), (file.len() as u64, raw.len() as u64));
    assert_eq!(written.data_bytes + written.zeroed_bytes, raw.len() as u64, "each byte of the disk once");
    written
}

#[test]
fn every_cluster_size_version_and_codec_arrives_with_and_without_ranges() {
    let raw = disk_image(6 * MIB + 1024, 1);
    for cluster_bits in [9, 12, 16, 21] {
        for (version, zstd) in [(2, None), (2, Some(false)), (3, None), (3, Some(false)), (3, Some(true))] {
            let file = build(&raw, Options { version, cluster_bits, zstd, ..Options::default() });
            arrives(&Server::new(file.clone()), &file, &raw);
            arrives(&Server::without_ranges(file.clone()), &file, &raw);
        }
    }
}

#[test]
fn extended_entries_arrive_with_and_without_ranges() {
    let raw = disk_image(6 * MIB + 1024, 12);
    for cluster_bits in [14, 16, 21] {
        for zstd in [None, Some(true)] {
            let options = Options { cluster_bits, zstd, compressed: 3, extended: true, ..Options::default() };
            let file = build(&raw, options);
            arrives(&Server::new(file.clone()), &file, &raw);
            arrives(&Server::without_ranges(file.clone()), &file, &raw);
        }
    }
}

#[test]
fn tables_after_their_data_are_read_first_where_ranges_are_honoured() {
    let raw = disk_image(20 * MIB, 2);
    let file = build(&raw, Options { order: Order::DataFirst, zero_clusters: false, ..Options::default() });
    let server = Server::new(file.clone());
    arrives(&server, &file, &raw);
    assert!(server.sent() < file.len() as u64 * 11 / 10);
    assert!(server.seen()[1].range.is_some());
}

#[test]
fn tables_after_their_data_take_further_downloads_where_no_ranges_are_honoured() {
    let raw = disk_image(20 * MIB, 2);
    // All tables last, and only those of the second level late.
    let late = build(&raw, Options { order: Order::DataFirst, zero_clusters: false, ..Options::default() });
    let mut first = late.clone();
    let l1 = u64::from_be_bytes(late[40..48].try_into().unwrap()) as usize;
    assert!(l1 > 12 * MIB);
    // A copy of the level-1 table takes the place of the first cluster behind the header, which nothing maps then.
    let spare = first.len();
    first.extend_from_within(65536..2 * 65536);
    first.copy_within(l1..l1 + 65536, 65536);
    first[40..48].copy_from_slice(&65536u64.to_be_bytes());
    let table = u64::from_be_bytes(late[l1..l1 + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00;
    for entry in first[table as usize..table as usize + 65536].chunks_exact_mut(8) {
        let value = u64::from_be_bytes(entry.try_into().unwrap());
        if value & 0x00ff_ffff_ffff_fe00 == 65536 {
            entry.copy_from_slice(&(value - 65536 + spare as u64).to_be_bytes());
        }
    }
    for (file, restarted) in [(late, 0), (first, 1)] {
        let server = Server::without_ranges(file.clone());
        let written = arrives(&server, &file, &raw);
        assert_eq!(written.restarted, restarted);
        assert!(server.sent() < file.len() as u64 * 5, "{} of {}", server.sent(), file.len());
    }
}

#[test]
fn tables_that_change_between_reading_and_streaming_are_refused() {
    let raw = disk_image(8 * MIB, 3);
    let file = build(&raw, Options { order: Order::DataFirst, zero_clusters: false, ..Options::default() });
    // The stream comes first, the part second: it is the part that is wrong, while the digest is right.
    let server = Server::new(file.clone()).faults([
        Fault::None,
        Fault::None,
        Fault::Flip(file.len() as u64 - 65536 * 2 + 6),
    ]);
    let disk = MemorySink::new(9 * MIB, 0xa5);
    let error = write(&request(server.url(), &file, Format::Qcow2), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage, "{}", error.report());
    assert!(!disk.is_committed());
}

#[test]
fn a_cut_qcow2_transfer_goes_on_where_it_broke() {
    let raw = disk_image(12 * MIB, 4);
    for zstd in [None, Some(false), Some(true)] {
        let file = build(&raw, Options { zstd, ..Options::default() });
        let at = file.len() as u64 / 2;
        let server = Server::new(file.clone()).faults([Fault::Cut(at), Fault::None]);
        let written = arrives(&server, &file, &raw);
        assert_eq!(written.resumed, 1);
        assert!(server.sent() < file.len() as u64 * 11 / 10, "{} of {}", server.sent(), file.len());
    }
}

#[test]
fn damage_in_transfer_is_told_as_a_digest_that_does_not_match() {
    let raw = disk_image(6 * MIB, 5);
    for zstd in [None, Some(false), Some(true)] {
        let file = build(&raw, Options { zstd, ..Options::default() });
        for at in [70_000, 140_000, file.len() as u64 / 2, file.len() as u64 - 65_536 * 2] {
            let server = Server::new(file.clone()).faults([Fault::Flip(at)]);
            let disk = MemorySink::new(7 * MIB, 0xa5);
            let request = request(server.url(), &file, Format::Qcow2);
            let error = write_once(&request, &disk).unwrap_err();
            // Damage in the tables at the front is seen before anything is written.
            if error.left_disk_unbootable() {
                assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{}", error.report());
                assert!(error.report().contains(&request.digest.hex()));
                assert_unbootable(&disk);
            } else {
                assert_eq!((error.kind(), disk.writes()), (ErrorKind::InvalidImage, 0));
            }
        }
    }
}

#[test]
fn an_image_damaged_before_it_was_published_is_told_as_damaged() {
    let raw = disk_image(4 * MIB, 6);
    let mut file = build(&raw, Options { zstd: Some(true), ..Options::default() });
    // The level-2 table comes third; a compressed entry has bit 62 set and its offset in the low 54 bits.
    let entries = file[2 * 65536..3 * 65536].chunks(8).map(|e| u64::from_be_bytes(e.try_into().unwrap()));
    let packed = entries.into_iter().find(|e| e >> 62 == 1).unwrap() & ((1 << 54) - 1);
    file[packed as usize..][..64].fill(0xff);
    let server = Server::new(file.clone());
    let disk = MemorySink::new(5 * MIB, 0xa5);
    let error = write(&request(server.url(), &file, Format::Qcow2), &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.report().contains("compressed cluster"), "{}", error.report());
    assert_unbootable(&disk);
}

#[test]
fn what_is_refused_is_refused_by_its_rule_before_a_write() {
    let raw = disk_image(2 * MIB, 7);
    let good = build(&raw, Options::default());
    let with = |offset: usize, value: &[u8]| {
        let mut file = good.clone();
        file[offset..offset + value.len()].copy_from_slice(value);
        file
    };
    let l1 = 65536;
    for (file, words) in [
        (with(8, &200u64.to_be_bytes()), "backing file"),
        (with(79, &[4]), "external file"),
        (with(35, &[2]), "encrypted"),
        (with(72, &[1]), "unknown incompatible features"),
        (with(7, &[9]), "version 9"),
        (with(104, &[5]), "compression type"),
        (with(l1, &(1u64 << 40).to_be_bytes()), "beyond the end"),
        (with(l1, &0x20001u64.to_be_bytes()), "reserved bits"),
        (good[..80].to_vec(), "ends inside"),
        (good[..l1 + 4].to_vec(), "beyond the end"),
    ] {
        let server = Server::new(file.clone());
        let disk = MemorySink::new(3 * MIB, 0xa5);
        let error = write(&request(server.url(), &file, Format::Qcow2), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.report().contains(words), "{words}: {}", error.report());
        assert_eq!(disk.writes(), 0, "{words}");
    }
    let server = Server::new(good.clone());
    let disk = MemorySink::new(2 * MIB - 512, 0xa5);
    let error = write(&request(server.url(), &good, Format::Qcow2), &disk).unwrap_err();
    assert_eq!((error.kind(), disk.writes()), (ErrorKind::OutOfSpace, 0));
}

#[test]
fn two_clusters_of_the_disk_may_share_one_of_the_file() {
    let mut raw = disk_image(3 * MIB, 8);
    let twin: Vec<u8> = (0..65536u32).map(|i| (i % 253) as u8 | 1).collect();
    raw[65536 * 5..65536 * 6].copy_from_slice(&twin);
    raw[65536 * 40..65536 * 41].copy_from_slice(&twin);
    let mut file = build(&raw, Options::default());
    let table = 65536 * 2;
    let entry = file[table + 5 * 8..table + 6 * 8].to_vec();
    file[table + 40 * 8..table + 41 * 8].copy_from_slice(&entry);
    arrives(&Server::new(file.clone()), &file, &raw);
    arrives(&Server::without_ranges(file.clone()), &file, &raw);
}

#[test]
fn a_file_source_is_read_in_parts_too() {
    let raw = disk_image(20 * MIB, 9);
    let file = build(&raw, Options { order: Order::Shuffled(3), zstd: Some(false), ..Options::default() });
    let place = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(place.path(), &file).unwrap();
    let disk = MemorySink::new(20 * MIB, 0xa5);
    let url = format!("file://{}", place.path().display());
    write(&request(url, &file, Format::Qcow2), &disk).unwrap();
    assert_disk(&disk, &raw, 0xa5);
}

/// qemu-img, with a limit by construction: local files of a few megabytes.
#[allow(clippy::disallowed_methods)] // a test runs the real tool
fn qemu_img(arguments: &[&str]) -> bool {
    match std::process::Command::new("qemu-img").args(arguments).output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => false,
    }
}

#[test]
fn what_qemu_img_writes_arrives() {
    if !qemu_img(&["--version"]) {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: no qemu-img\n")); // past cargo's capture: it counts
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let small = disk_image(30 * MIB, 10);
    std::fs::write(path("small"), &small).unwrap();
    // Past 512 MiB, where a second table begins.
    let mut large = small.clone();
    large.resize(514 * MIB, 0);
    large.extend(disk_image(3 * MIB, 11));
    std::fs::write(path("large"), &large).unwrap();
    for (raw, options) in [
        (&large, ""),
        (&large, "-c"),
        (&large, "-W"),
        (&small, "-o compat=0.10"),
        (&small, "-c -o compat=0.10"),
        (&small, "-c -o compression_type=zstd"),
        (&small, "-c -W -o compression_type=zstd"),
        (&small, "-o cluster_size=4096"),
        (&small, "-c -o cluster_size=4096"),
        (&small, "-o cluster_size=2M"),
        (&small, "-c -o cluster_size=2M"),
        (&small, "-o preallocation=metadata"),
        (&small, "-o lazy_refcounts=on"),
        (&large, "-o extended_l2=on"),
        (&small, "-c -o extended_l2=on"),
        (&small, "-o extended_l2=on,cluster_size=16k"),
        (&small, "-S 4k -o extended_l2=on,cluster_size=2M"),
    ] {
        let from = path(if raw.len() == small.len() { "small" } else { "large" });
        let to = path("qcow2");
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options.split_whitespace());
        arguments.extend([from.as_str(), to.as_str()]);
        qemu_img(&arguments);
        let file = std::fs::read(Path::new(&to)).unwrap();
        eprintln!("{options}: {} bytes", file.len());
        arrives(&Server::new(file.clone()), &file, raw);
        arrives(&Server::without_ranges(file.clone()), &file, raw);
    }
}

#[test]
fn overlays_and_foreign_formats_of_qemu_img_are_refused() {
    if !qemu_img(&["--version"]) {
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: no qemu-img\n")); // past cargo's capture: it counts
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (base, image) = (path("base"), path("image"));
    std::fs::write(&base, vec![1; MIB]).unwrap();
    let data = path("data");
    let external = format!("data_file={data}");
    for (arguments, declared, words) in [
        (vec!["create", "-f", "qcow2", "-F", "raw", "-b", &base, &image], Format::Qcow2, "backing file"),
        (vec!["create", "-f", "qcow2", "-o", &external, &image, "1M"], Format::Qcow2, "external file"),
        (vec!["convert", "-O", "vmdk", &base, &image], Format::Raw, "vmdk"),
        (vec!["convert", "-O", "vdi", &base, &image], Format::Raw, "vdi"),
        (vec!["convert", "-O", "vhdx", &base, &image], Format::Raw, "vhdx"),
        (vec!["convert", "-O", "vpc", &base, &image], Format::Raw, "vhd"),
        (vec!["convert", "-O", "qed", &base, &image], Format::Raw, "qed"),
        (vec!["convert", "-O", "qcow2", &base, &image], Format::Raw, "qcow2"),
    ] {
        let _ = std::fs::remove_file(&image);
        qemu_img(&arguments);
        let file = std::fs::read(&image).unwrap();
        let disk = MemorySink::new(3 * MIB, 0xa5);
        let error = write(&request(Server::new(file.clone()).url(), &file, declared), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.report().contains(words), "{words}: {}", error.report());
        assert_eq!(disk.writes(), 0);
    }
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![Just(2u32), Just(3)],
        9u32..=18,
        proptest::option::of(any::<bool>()),
        0u64..=10,
        prop_oneof![Just(Order::Natural), Just(Order::DataFirst), any::<u64>().prop_map(Order::Shuffled)],
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(version, cluster_bits, zstd, compressed, order, zero_clusters, extended)| Options {
            version,
            cluster_bits,
            // Version 2 knows zlib only.
            zstd: zstd.map(|zstd| zstd && version == 3),
            compressed,
            order,
            zero_clusters,
            extended: extended && version == 3 && cluster_bits >= 14,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_layout_cut_anywhere_arrives_whole(
        sectors in 1usize..6000,
        seed in any::<u64>(),
        options in options(),
        cut in any::<prop::sample::Index>(),
        ranges in any::<bool>(),
    ) {
        let raw = disk_image(sectors * 512, seed);
        let file = build(&raw, options);
        let server = if ranges { Server::new(file.clone()) } else { Server::without_ranges(file.clone()) };
        let server = server.faults([Fault::Cut(cut.index(file.len()) as u64)]);
        // Files here are shorter than the window, so that even a server without ranges serves any layout.
        arrives(&server, &file, &raw);
    }

    #[test]
    fn an_image_with_garbage_in_it_never_boots_and_never_panics(
        sectors in 1usize..6000,
        seed in any::<u64>(),
        options in options(),
        at in any::<prop::sample::Index>(),
        garbage in proptest::collection::vec(any::<u8>(), 1..64),
        ranges in any::<bool>(),
    ) {
        let raw = disk_image(sectors * 512, seed);
        let good = build(&raw, options);
        let mut file = good.clone();
        let at = at.index(file.len());
        let end = (at + garbage.len()).min(file.len());
        file[at..end].copy_from_slice(&garbage[..end - at]);
        prop_assume!(file != good);
        let server = if ranges { Server::new(file.clone()) } else { Server::without_ranges(file) };
        let disk = MemorySink::new(raw.len() + 2 * MIB, 0xa5);
        prop_assert!(write(&request(server.url(), &good, Format::Qcow2), &disk).is_err());
        if disk.writes() > 0 {
            assert_unbootable(&disk);
        }
    }
}

//! Raw images inside gzip, zstd, xz and bzip2: what ends up on the disk, and what is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::io::Write as _;

use imaging::{
    Cancel, DecoderMemory, Error, ErrorKind, Format, ImageRequest, MemorySink, Transport, Written,
};
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use support::*;

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// With a dictionary of this many bytes, whatever the length.
fn xz_with(bytes: &[u8], dictionary: u32) -> Vec<u8> {
    let mut options = LzmaOptions::new_preset(0).unwrap();
    options.dict_size(dictionary);
    let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    xz_with(bytes, 1 << 20)
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;
const ALL: [(&str, Compress); 4] = [("gzip", gzip), ("zstd", zstd), ("xz", xz), ("bzip2", bzip2)];

#[test]
fn a_compressed_raw_image_is_unpacked_onto_the_disk() {
    let image = disk_image(5 * MIB + 12_345, 21);
    for (name, compress) in ALL {
        let published = compress(&image);
        let server = Server::new(published.clone());
        let disk = MemorySink::new(9 * MIB, 0xa5);
        let written = write(&request(server.url(), &published, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(written.published_bytes, published.len() as u64, "{name}");
        assert_eq!(written.virtual_size, image.len() as u64, "{name}");
    }
}

/// Data and zeroes in every mixture of blocks: more zeroes in a row than are waited for, more data than a buffer, an end inside of either.
#[test]
fn blocks_of_data_and_zeroes_in_any_order_end_up_where_they_belong() {
    const BLOCK: usize = 64 << 10;
    for end in ["z", "d", "zd", "dz"] {
        let plan = format!("d{}{}{}{end}", "z".repeat(600), "dz".repeat(30), "d".repeat(40));
        let mut image = Vec::new();
        for (number, kind) in plan.chars().enumerate() {
            let length = if number + 1 == plan.len() { 777 } else { BLOCK };
            let value = if kind == 'z' { 0 } else { number as u8 | 1 };
            image.resize(image.len() + length, value);
        }
        let published = zstd(&image);
        let server = Server::new(published.clone());
        let disk = MemorySink::new(image.len() + 3 * MIB, 0xa5);
        let written = write(&request(server.url(), &published, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(written.data_bytes + written.zeroed_bytes, image.len() as u64, "{end}");
    }
}

#[test]
fn members_one_after_the_other_are_one_image() {
    let image = disk_image(3 * MIB, 22);
    let (front, back) = image.split_at(1_300_001);
    for (name, compress) in ALL {
        let published = [compress(front), compress(back)].concat();
        let server = Server::new(published.clone());
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let written = write(&request(server.url(), &published, Format::Raw), &disk).unwrap();
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(written.virtual_size, image.len() as u64, "{name}");
    }
}

#[test]
fn a_cut_transfer_of_a_compressed_image_is_resumed() {
    let image = disk_image(6 * MIB, 23);
    for (_, compress) in ALL {
        let published = compress(&image);
        let cut = published.len() as u64 * 3 / 4;
        let server = Server::new(published.clone()).faults([Fault::Cut(cut)]);
        let disk = MemorySink::new(6 * MIB, 0xa5);
        assert_eq!(write(&request(server.url(), &published, Format::Raw), &disk).unwrap().resumed, 1);
        assert_disk(&disk, &image, 0xa5);
        assert_eq!(server.sent(), published.len() as u64);
    }
}

/// A flipped byte breaks the decompressor long before the end; what is told is still the digest.
#[test]
fn a_flipped_byte_anywhere_is_a_wrong_digest() {
    let image = disk_image(4 * MIB, 24);
    for (name, compress) in ALL {
        let published = compress(&image);
        for at in [published.len() / 2, published.len() - 3] {
            let server = Server::new(published.clone()).faults([Fault::Flip(at as u64)]);
            let disk = MemorySink::new(6 * MIB, 0xa5);
            let error = write_once(&request(server.url(), &published, Format::Raw), &disk).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ChecksumMismatch, "{name} at {at}: {}", error.report());
            assert_unbootable(&disk);
        }
    }
}

#[test]
fn an_image_published_broken_is_invalid_and_leaves_no_bootable_disk() {
    let image = disk_image(4 * MIB, 25);
    for (name, compress) in ALL {
        let mut published = compress(&image);
        published.truncate(published.len() / 2);
        let server = Server::new(published.clone());
        let disk = MemorySink::new(6 * MIB, 0xa5);
        let error = write(&request(server.url(), &published, Format::Raw), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{name}: {}", error.report());
        assert!(error.report().contains(name), "{}", error.report());
        assert_unbootable(&disk);
    }
}

#[test]
fn what_is_inside_must_be_raw_and_is_looked_at_before_a_byte_is_written() {
    let mut image = disk_image(2 * MIB, 26);
    image[..4].copy_from_slice(b"QFI\xfb");
    for (name, compress) in ALL {
        let published = compress(&image);
        let server = Server::new(published.clone());
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let error = write(&request(server.url(), &published, Format::Raw), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.report().contains(name) && error.report().contains("qcow2"), "{}", error.report());
        assert!(!error.left_disk_unbootable());
        assert_eq!(disk.contents(), vec![0xa5; 4 * MIB], "{name}: untouched");
    }
}

#[test]
fn a_disk_that_is_too_small_is_told() {
    let image = disk_image(4 * MIB, 27);
    for (name, compress) in ALL {
        let published = compress(&image);
        let server = Server::new(published.clone());
        let disk = MemorySink::new(3 * MIB, 0xa5);
        let error = write(&request(server.url(), &published, Format::Raw), &disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{name}: {}", error.report());
    }
}

fn write_by(request: &ImageRequest, disk: &MemorySink, transport: &Transport) -> Result<Written, Error> {
    imaging::write_image(
        request,
        transport,
        Box::new(disk.clone()),
        &events::Events::default(),
        &Cancel::new(),
    )
}

fn zstd_long(bytes: &[u8], window: u32) -> Vec<u8> {
    let mut long = zstd::Encoder::new(Vec::new(), 1).unwrap();
    long.window_log(window).unwrap();
    long.include_contentsize(false).unwrap();
    long.write_all(bytes).unwrap();
    long.finish().unwrap()
}

#[test]
fn windows_beyond_the_memory_limit_are_refused_before_a_byte_is_written() {
    let image = disk_image(2 * MIB, 28);
    // What `xz -9` makes, and `zstd --ultra -22` or `--long=27`; and what each needs.
    for (published, needed) in [(xz_with(&image, 64 << 20), "65 MiB"), (zstd_long(&image, 27), "129 MiB")] {
        for memory in [DecoderMemory::Share(Some(90 << 20)), DecoderMemory::Limit(60 << 20)] {
            let server = Server::new(published.clone());
            let disk = MemorySink::new(4 * MIB, 0xa5);
            let transport = Transport { decoder_memory: memory, ..transport() };
            let request = request(server.url(), &published, Format::Raw);
            let error = write_by(&request, &disk, &transport).unwrap_err();
            assert_eq!((error.kind(), disk.writes()), (ErrorKind::InvalidImage, 0));
            let text = error.report();
            let there =
                if memory == DecoderMemory::Limit(60 << 20) { "60 MiB" } else { "90 MiB are available" };
            let remedies = ["ferric-image-decoder-memory", "write --memory"];
            for part in [needed, there].iter().chain(&remedies) {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}

#[test]
fn a_machine_with_memory_unpacks_windows_of_64_and_128_mib() {
    let image = disk_image(3 * MIB, 30);
    for published in [xz_with(&image, 64 << 20), zstd_long(&image, 27)] {
        let server = Server::new(published.clone());
        let disk = MemorySink::new(4 * MIB, 0xa5);
        let transport = Transport { decoder_memory: DecoderMemory::Share(Some(600 << 20)), ..transport() };
        write_by(&request(server.url(), &published, Format::Raw), &disk, &transport).unwrap();
        assert_disk(&disk, &image, 0xa5);
    }
}

#[test]
fn a_qcow2_image_in_a_compressed_file_can_not_be_declared() {
    let published = gzip(&disk_image(MIB, 29));
    let server = Server::new(published.clone());
    let disk = MemorySink::new(4 * MIB, 0xa5);
    let error = write(&request(server.url(), &published, Format::Qcow2), &disk).unwrap_err();
    assert!(error.report().contains("gzip"), "{}", error.report());
    assert!(!error.left_disk_unbootable());
}

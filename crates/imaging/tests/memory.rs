//! How much memory a write takes: one test in a process of its own, so that the peak it reads is its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing)]

mod support;

use events::Events;
use imaging::{Cancel, ExpectedDigest, Format, ImageRequest, NullSink, Proxies};
use sha2::Digest;
use support::{Content, Server, transport};

/// A gigabyte and more that exists nowhere.
struct Pattern(u64);

impl Content for Pattern {
    fn len(&self) -> u64 {
        self.0
    }
    fn read(&self, offset: u64, space: &mut [u8]) {
        // Whole words only matter for speed: offsets are multiples of the server's buffer.
        for (i, word) in space.chunks_mut(8).enumerate() {
            let value = (offset + i as u64 * 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
    }
}

/// A qcow2 file with one large preallocated run of clusters: header, L1, the tables, the data.
struct Qcow2Pattern {
    head: Vec<u8>,
    data: Pattern,
}

impl Qcow2Pattern {
    fn new(clusters: u64) -> Self {
        let tables = clusters.div_ceil(8192);
        let first = 2 + tables;
        let mut head = vec![0u8; (first as usize) << 16];
        head[..4].copy_from_slice(b"QFI\xfb");
        head[7] = 2;
        head[23] = 16;
        head[24..32].copy_from_slice(&(clusters << 16).to_be_bytes());
        head[36..40].copy_from_slice(&(tables as u32).to_be_bytes());
        head[40..48].copy_from_slice(&(1u64 << 16).to_be_bytes());
        for table in 0..tables {
            let entry = (2 + table) << 16 | 1 << 63;
            head[65536 + table as usize * 8..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        for cluster in 0..clusters {
            // Neighbours swapped, so that no two join: the map is as large as it gets.
            let entry = (first + (cluster ^ 1)) << 16 | 1 << 63;
            head[(2usize << 16) + cluster as usize * 8..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        Self { head, data: Pattern(clusters << 16) }
    }
}

impl Content for Qcow2Pattern {
    fn len(&self) -> u64 {
        self.head.len() as u64 + self.data.0
    }
    fn read(&self, offset: u64, space: &mut [u8]) {
        self.data.read(offset, space);
        let head = self.head.get(offset as usize..).unwrap_or_default();
        let count = head.len().min(space.len());
        space[..count].copy_from_slice(&head[..count]);
    }
}

fn digest(content: &impl Content) -> ExpectedDigest {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    while at < content.len() {
        let count = (content.len() - at).min(buffer.len() as u64) as usize;
        content.read(at, &mut buffer[..count]);
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    ExpectedDigest::from_parts("sha256", &hex::encode(hasher.finalize())).unwrap()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn stream(server: &Server, digest: ExpectedDigest, format: Format, size: u64) {
    let request = ImageRequest {
        label: "large".into(),
        sources: vec![server.url()],
        digest,
        format,
        checks: imaging::Checks::default(),
        translate: None,
        preflight: None,
        authorization: None,
        proxies: Proxies::default(),
        signature: None,
        read_back: false,
    };
    let sink = Box::new(NullSink::new(size));
    imaging::write_image(&request, &transport(), sink, &Events::default(), &Cancel::new()).unwrap();
}

#[test]
fn a_large_image_takes_no_more_memory_than_a_small_one() {
    const LIMIT_KIB: u64 = 48 * 1024;
    let size = 1 << 30;
    let raw = Pattern(size);
    let expected = digest(&raw);
    stream(&Server::new(raw), expected, Format::Raw, size);
    let after_raw = peak_kib();
    assert!(after_raw < LIMIT_KIB, "raw: {after_raw} KiB");
    let size = size / 2;
    let qcow2 = Qcow2Pattern::new(size >> 16);
    let expected = digest(&qcow2);
    stream(&Server::without_ranges(qcow2), expected.clone(), Format::Qcow2, size);
    let after_learning = peak_kib();
    assert!(after_learning < LIMIT_KIB, "qcow2 without ranges: {after_learning} KiB");
    stream(&Server::new(Qcow2Pattern::new(size >> 16)), expected, Format::Qcow2, size);
    let after_known = peak_kib();
    assert!(after_known < LIMIT_KIB, "qcow2: {after_known} KiB");
    eprintln!("peak resident: raw {after_raw} KiB, then qcow2 {after_learning} KiB, {after_known} KiB");
}

//! What tests that write to loop devices share: the device, an HTTP server for one file, an image that makes a disk.
//!
//! **A test writes to no block device but the one it made.**

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::disallowed_methods)] // losetup is run by the test itself, not by the code under test
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that this is a test

pub mod partition;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const MIB: usize = 1 << 20;
/// Room for an image and for a config drive partition of 64 MiB.
pub const DISK_BYTES: u64 = 160 * MIB as u64;

/// A loop device over a sparse file; detached when dropped.
pub struct Loop {
    pub path: PathBuf,
    /// Where its file is; none where another process made it.
    directory: Option<TempDir>,
}

impl Loop {
    /// A device whose every byte was written before; `None`, with a word about it, where there are no loop devices.
    pub fn new() -> Option<Self> {
        Self::of(DISK_BYTES, 512)
    }

    /// As [`Loop::new`], of another size and with other sectors.
    pub fn of(bytes: u64, sector: u32) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/loop-control").is_err() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: loop devices need root and /dev/loop-control\n"),
            ); // past cargo's capture: it counts
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        let mut disk = File::create(&file).unwrap();
        disk.set_len(bytes).unwrap();
        for at in [0, bytes - MIB as u64] {
            disk.seek(SeekFrom::Start(at)).unwrap();
            disk.write_all(&vec![0xa5; MIB]).unwrap();
        }
        let output = Command::new("/usr/sbin/losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Some(Self { path, directory: Some(directory) })
    }

    /// Over a file that is there.
    pub fn over(file: &Path) -> Self {
        let output = Command::new("/usr/sbin/losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Self { path, directory: Some(tempfile::tempdir().unwrap()) }
    }

    /// One that another process of the same test made, and will detach.
    pub fn of_parent(path: PathBuf) -> Self {
        Self { path, directory: None }
    }

    /// What the allow-list calls it.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Bytes of the device.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the first MiB is as it was made.
    pub fn is_untouched(&self) -> bool {
        self.read(0, MIB).iter().all(|byte| *byte == 0xa5)
    }

    pub fn has_zeroed_head(&self) -> bool {
        self.read(0, MIB).iter().all(|byte| *byte == 0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if self.directory.is_some() {
            let _ = Command::new("/usr/sbin/losetup").arg("--detach").arg(&self.path).output();
        }
    }
}

/// A whole-disk image of 8 MiB: an MBR with signature `0x1a2b3c4d` and one partition from 1 MiB on, then noise.
pub fn image() -> Vec<u8> {
    let mut image: Vec<u8> = Vec::with_capacity(8 * MIB);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while image.len() < 8 * MIB {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        image.extend(state.to_be_bytes());
    }
    image[..512].fill(0);
    image[440..444].copy_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
    image[446 + 4] = 0x83;
    image[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    image[446 + 12..446 + 16].copy_from_slice(&(7 * 2048_u32).to_le_bytes());
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image
}

/// A config drive as far as it is looked at: ISO 9660 with the label `config-2`.
pub fn config_drive() -> Vec<u8> {
    let mut iso = vec![0; 64 * 1024];
    iso[0x8000..0x8006].copy_from_slice(b"\x01CD001");
    iso[0x8006] = 1;
    iso[0x8000 + 40..0x8000 + 72].fill(b' ');
    iso[0x8000 + 40..0x8000 + 48].copy_from_slice(b"config-2");
    iso[0x8800..0x8806].copy_from_slice(b"\xffCD001");
    iso[60_000..60_014].copy_from_slice(b"meta data here");
    iso
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves `files` by name on the loopback until the process ends, whole, one request a connection.
pub fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let files = Arc::new(files);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let files = Arc::clone(&files);
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let name = request.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
                let body = files.iter().find(|(file, _)| *file == name).map(|(_, body)| body.as_slice());
                let (status, body) = body.map_or(("404 Not Found", &b""[..]), |body| ("200 OK", body));
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // A client that has seen enough hangs up.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            });
        }
    });
    url
}

/// Serves a disk image as a registry that wants no credentials does: under the tag `v1` of the repository `disk`. Gives
/// `host:port/disk`.
pub fn registry(disk: &[u8]) -> String {
    let blob = format!("sha256:{}", sha256(disk));
    let manifest = format!(r#"{{"layers": [{{"digest": "{blob}", "size": {}}}]}}"#, disk.len()).into_bytes();
    let by_digest = format!("v2/disk/manifests/sha256:{}", sha256(&manifest));
    let url = serve(vec![
        ("v2/disk/manifests/v1", manifest.clone()),
        (by_digest.leak(), manifest),
        (format!("v2/disk/blobs/{blob}").leak(), disk.to_vec()),
    ]);
    format!("{}/disk", url.trim_start_matches("http://"))
}

/// A file in a directory that lives as long as the test.
pub fn file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Runs a program that must succeed; gives what it printed.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

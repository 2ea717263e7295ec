//! A machine made of a temporary directory, for the tests of this crate.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sys::Host;
use sys::fake::{FakeRunner, RecordingKernel};
use tempfile::TempDir;

/// Files below a directory that stands for `/`, and what the kernel would say.
pub(crate) struct Fixture {
    root: TempDir,
    addresses: Vec<(String, std::net::IpAddr)>,
    permanent: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), addresses: Vec::new(), permanent: Vec::new() }
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        self.bytes(path, text.as_bytes())
    }

    pub(crate) fn bytes(self, path: &str, bytes: &[u8]) -> Self {
        fs::write(self.place(path), bytes).unwrap();
        self
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.place(path)).unwrap();
        self
    }

    /// A symbolic link; the target is relative to the directory that holds the link, as in sysfs.
    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.place(path)).unwrap();
        self
    }

    /// A disk of so many bytes, with a bus behind it, as the disk list wants to see it.
    pub(crate) fn disk(self, name: &str, bytes: u64) -> Self {
        let block = format!("/sys/block/{name}");
        self.file(&format!("{block}/size"), &format!("{}\n", bytes / 512))
            .file(&format!("{block}/dev"), "8:0\n")
            .file(&format!("{block}/device/type"), "0\n")
            .file(&format!("{block}/queue/logical_block_size"), "512\n")
            .file(&format!("{block}/queue/rotational"), "0\n")
    }

    pub(crate) fn address(mut self, interface: &str, ip: &str) -> Self {
        self.addresses.push((interface.into(), ip.parse().unwrap()));
        self
    }

    pub(crate) fn permanent(mut self, interface: &str, mac: &[u8]) -> Self {
        self.permanent.push((interface.into(), mac.into()));
        self
    }

    pub(crate) fn host(&self) -> Host {
        let mut kernel = RecordingKernel::default();
        kernel.addresses = self.addresses.clone();
        kernel.permanent = self.permanent.iter().cloned().collect();
        Host::new(self.root.path(), Arc::new(FakeRunner::default()), Arc::new(kernel))
    }
}

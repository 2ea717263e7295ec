//! A machine made of a temporary directory, for the tests of this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sys::fake::{FakeRunner, RecordingKernel};
use sys::{Host, IpmiRequest};
use tempfile::TempDir;

/// Files below a directory that stands for `/`, and what the kernel would say.
pub(crate) struct Fixture {
    root: TempDir,
    addresses: Vec<(String, std::net::IpAddr)>,
    permanent: Vec<(String, Vec<u8>)>,
    link_modes: Vec<(String, Vec<u32>)>,
    frames: Vec<(String, Vec<u8>)>,
    controller: Option<Arc<Controller>>,
}

/// Plays the management controller.
type Controller = dyn Fn(&Path, &IpmiRequest) -> std::io::Result<Vec<u8>> + Send + Sync;

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            addresses: Vec::new(),
            permanent: Vec::new(),
            link_modes: Vec::new(),
            frames: Vec::new(),
            controller: None,
        }
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

    pub(crate) fn link_modes(mut self, interface: &str, modes: &[u32]) -> Self {
        self.link_modes.push((interface.into(), modes.into()));
        self
    }

    /// The frame that is heard on an interface.
    pub(crate) fn hears(mut self, interface: &str, frame: &[u8]) -> Self {
        self.frames.push((interface.into(), frame.into()));
        self
    }

    pub(crate) fn controller(
        mut self,
        answer: impl Fn(&Path, &IpmiRequest) -> std::io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        self.controller = Some(Arc::new(answer));
        self
    }

    pub(crate) fn host(&self) -> Host {
        self.machine().0
    }

    /// The machine, and its kernel for questions about what it was asked.
    pub(crate) fn machine(&self) -> (Host, Arc<RecordingKernel>) {
        let mut kernel = RecordingKernel::default();
        kernel.addresses = self.addresses.clone();
        kernel.permanent = self.permanent.iter().cloned().collect();
        kernel.link_modes = self.link_modes.iter().cloned().collect();
        kernel.frames = self.frames.iter().cloned().collect();
        if let Some(controller) = self.controller.clone() {
            kernel.controller = Some(Box::new(move |device, request| controller(device, request)));
        }
        let kernel = Arc::new(kernel);
        (Host::new(self.root.path(), Arc::new(FakeRunner::default()), kernel.clone()), kernel)
    }
}

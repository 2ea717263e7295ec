//! A [`Host`]: where files are read, who runs programs, who calls the kernel.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::linux::LinuxKernel;
use crate::{Kernel, Runner, SystemRunner};

/// The machine, as a value that is passed down. Clones share the same machine.
#[derive(Clone)]
pub struct Host {
    root: PathBuf,
    runner: Arc<dyn Runner>,
    kernel: Arc<dyn Kernel>,
}

impl Host {
    /// The machine this process runs on.
    pub fn real() -> Self {
        Self::new("/", Arc::new(SystemRunner), Arc::new(LinuxKernel))
    }

    /// A machine made of parts: a directory that stands for `/`, somebody who runs programs, somebody who plays kernel.
    pub fn new(root: impl Into<PathBuf>, runner: Arc<dyn Runner>, kernel: Arc<dyn Kernel>) -> Self {
        Self { root: root.into(), runner, kernel }
    }

    /// Where an absolute path of the machine lies: below the fixture directory in tests, unchanged on the real machine.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.root.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Runs programs.
    pub fn runner(&self) -> &dyn Runner {
        self.runner.as_ref()
    }

    /// Calls the kernel.
    pub fn kernel(&self) -> &dyn Kernel {
        self.kernel.as_ref()
    }

    /// The text of a small file such as a sysfs attribute, trimmed; `None` when it is missing, unreadable or empty.
    pub fn attribute(&self, absolute: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read(self.path(absolute)).ok()?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A small file's number.
    pub fn number<N: std::str::FromStr>(&self, absolute: impl AsRef<Path>) -> Option<N> {
        self.attribute(absolute)?.parse().ok()
    }

    /// The sorted names in a directory; empty when it does not exist.
    pub fn names(&self, absolute: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.path(absolute)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Whether the machine was started by UEFI firmware.
    pub fn is_uefi(&self) -> bool {
        self.path("/sys/firmware/efi").exists()
    }
}

//! A block device made of a sparse file, for tests that write to a disk without a virtual machine.
//!
//! Needs root. **A test writes to no block device but one of these.**

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// An attached loop device; dropping it detaches it and leaves the file.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: PathBuf,
}

impl LoopDevice {
    /// Why loop devices can not be used here, if so: `loop_*` tests print it and skip.
    pub fn unavailable() -> Option<&'static str> {
        if !Path::new("/dev/loop-control").exists() {
            return Some("no /dev/loop-control: the kernel has no loop devices here");
        }
        match File::options().read(true).write(true).open("/dev/loop-control") {
            Ok(_) => None,
            Err(_) => Some("loop devices need root"),
        }
    }

    /// Makes `file` a sparse file of `bytes` zeros (**an existing one is emptied**) and attaches it.
    ///
    /// # Errors
    /// The file can not be made, or no loop device is free.
    pub fn create(file: &Path, bytes: u64) -> Result<Self> {
        Self::create_with_sectors(file, bytes, 512)
    }

    /// The same with sectors of `sector` bytes.
    ///
    /// # Errors
    /// As [`LoopDevice::create`].
    pub fn create_with_sectors(file: &Path, bytes: u64, sector: u32) -> Result<Self> {
        let made = File::create(file).with_context(|| format!("creating {}", file.display()))?;
        made.set_len(bytes).with_context(|| format!("sizing {} to {bytes} bytes", file.display()))?;
        Self::attach_with_sectors(file, sector)
    }

    /// Attaches a file as it is.
    ///
    /// # Errors
    /// `losetup` fails: no right to, or no free device.
    pub fn attach(file: &Path) -> Result<Self> {
        Self::attach_with_sectors(file, 512)
    }

    fn attach_with_sectors(file: &Path, sector: u32) -> Result<Self> {
        let output = Command::new("/usr/sbin/losetup")
            .args(["--find", "--show", "--sector-size", &sector.to_string()])
            .arg(file)
            .output()
            .context("running losetup")?;
        if !output.status.success() {
            bail!("losetup of {} failed: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        Ok(Self { path, file: file.to_owned() })
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        match Command::new("/usr/sbin/losetup").arg("--detach").arg(&self.path).output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("could not detach {}: {other:?}", self.path.display()),
        }
    }
}

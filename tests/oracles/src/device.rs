//! Loop devices with sectors of a chosen size over files that a test made. Detached when dropped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tools::run;

/// An attached loop device.
pub struct Loop(PathBuf);

impl Loop {
    /// Attaches a file. Needs root and free loop devices.
    pub fn attach(file: &Path, sector_bytes: u32) -> Result<Self> {
        let sector = sector_bytes.to_string();
        let file = file.to_str().context("the name of the file")?;
        let device = run("losetup", &["--find", "--show", "--sector-size", &sector, file])?;
        Ok(Self(device.trim().into()))
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let device = self.0.display().to_string();
        if let Err(error) = run("losetup", &["--detach", &device]) {
            eprintln!("{device} stays attached: {error:#}");
        }
    }
}

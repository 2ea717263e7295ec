//! `ferric-agent write` as a person runs it: images on a server that misbehaves, and a loop device to write them to.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};

use crate::{FileServer, LoopDevice, Scratch, dist, noise_file, skipped};

/// A folder of images that is served, and a device that is written.
pub struct WriteBench {
    /// The test's folder; the images are in `images`.
    pub scratch: Scratch,
    /// Serves the images.
    pub server: FileServer,
    /// The only device that may be written.
    pub device: LoopDevice,
}

impl WriteBench {
    /// A device of `bytes` of old content, so that zeroes have to be written and the head has something to lose. `None`,
    /// having said why, where there are no loop devices.
    ///
    /// # Errors
    /// The folder, the server or the device can not be made.
    pub fn used(name: &str, bytes: u64) -> Result<Option<Self>> {
        Self::new(name, |file| {
            noise_file(file, bytes, 8)?;
            LoopDevice::attach(file)
        })
    }

    /// As [`WriteBench::used`], with a sparse device of zeroes and sectors of `sector` bytes.
    ///
    /// # Errors
    /// As there.
    pub fn blank(name: &str, bytes: u64, sector: u32) -> Result<Option<Self>> {
        Self::new(name, |file| LoopDevice::create_with_sectors(file, bytes, sector))
    }

    fn new(name: &str, device: impl FnOnce(&Path) -> Result<LoopDevice>) -> Result<Option<Self>> {
        if let Some(why) = LoopDevice::unavailable() {
            skipped(why);
            return Ok(None);
        }
        let scratch = Scratch::new(name)?;
        std::fs::create_dir(scratch.join("images"))?;
        let server = FileServer::start(scratch.join("images"))?;
        let device = device(&scratch.join("disk"))?;
        Ok(Some(Self { scratch, server, device }))
    }

    /// The test passed: its folder goes.
    pub fn passed(self) {
        self.scratch.passed();
    }

    /// Where an image lies.
    pub fn image(&self, name: &str) -> PathBuf {
        self.scratch.join("images").join(name)
    }

    /// The digest of an image, in hexadecimal.
    ///
    /// # Errors
    /// `sha256sum` fails.
    pub fn sha256(&self, name: &str) -> Result<String> {
        let output = Command::new("/usr/bin/sha256sum").arg(self.image(name)).output()?;
        ensure!(output.status.success(), "sha256sum: {}", words(&output));
        Ok(String::from_utf8(output.stdout)?.split(' ').next().unwrap_or_default().to_owned())
    }

    /// `ferric-agent write` of an image with its digest to the device; `allowed` is the allow-list.
    ///
    /// # Errors
    /// As [`WriteBench::sha256`]; there is no `ferric-agent` in `dist/`.
    pub fn command(&self, name: &str, allowed: Option<&Path>) -> Result<Command> {
        let mut command = Command::new(dist("ferric-agent")?);
        command.arg("write").args(["--url", &self.server.url(name), "--sha256", &self.sha256(name)?]);
        if let Some(allowed) = allowed {
            command.arg("--disks").arg(allowed);
        }
        command.arg(self.device.path()).stdin(Stdio::null());
        Ok(command)
    }
}

/// What a program said on its standard error.
pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

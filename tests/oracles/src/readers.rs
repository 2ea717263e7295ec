//! The readers of qcow2.

#[cfg(feature = "qcow2-rs")]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::{Context, Result};
use imaging::Written;
use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};

use crate::Opinion;
use crate::tools::run;

/// Ferric: the whole path of a deployment, onto a disk in memory.
pub fn ferric(image: &Path, size: u64) -> Result<(Vec<u8>, Written)> {
    Ok(fuzz_targets::written_disk(image, usize::try_from(size)?)?)
}

/// `qemu-img convert`.
pub fn qemu_img(image: &Path) -> Result<Vec<u8>> {
    let raw = image.with_extension("raw");
    let (from, to) = (text(image)?, text(&raw)?);
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from, to])?;
    let disk = std::fs::read(&raw)?;
    std::fs::remove_file(&raw)?;
    Ok(disk)
}

/// imago, a library of one of QEMU's block layer maintainers. Its release knows neither zstd nor extended level-2 entries.
pub fn imago(image: &Path) -> Result<Opinion> {
    // Only the image itself: what it refers to is none of ours.
    let storage = <File as imago::Storage>::open(imago::StorageOpenOptions::new().filename(image))?;
    let opened = Qcow2::<File>::builder(storage).open(DenyImplicitOpenGate::default());
    let qcow2 = match opened {
        Ok(qcow2) => qcow2,
        Err(error) => return Ok(Opinion::Unable(error.to_string())),
    };
    let access = FormatAccess::new(qcow2);
    let mut disk = vec![0; usize::try_from(access.size())?];
    match access.read(disk.as_mut_slice(), 0) {
        Ok(()) => Ok(Opinion::Disk(disk)),
        Err(error) if error.to_string().contains("Unsupported") => Ok(Opinion::Unable(error.to_string())),
        Err(error) => Err(error).context("imago"),
    }
}

/// qcow2-rs, the library of a user-space block driver. It panics on what it does not know.
#[cfg(feature = "qcow2-rs")]
pub fn qcow2_rs(image: &Path, size: u64) -> Result<Opinion> {
    use anyhow::ensure;
    use qcow2_rs::dev::Qcow2DevParams;
    use qcow2_rs::helpers::Qcow2IoBuf;
    use qcow2_rs::utils::qcow2_setup_dev_tokio;

    /// What is read at a time.
    const READ: usize = 1 << 20;
    let read = || -> Result<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let params = Qcow2DevParams::new(9, None, None, true, false);
            let device = qcow2_setup_dev_tokio(image, &params).await.map_err(|e| anyhow::anyhow!("{e}"))?;
            let size = usize::try_from(size)?;
            let mut disk = Vec::with_capacity(size);
            while disk.len() < size {
                let want = READ.min(size - disk.len());
                let mut part = Qcow2IoBuf::<u8>::new(want);
                let offset = u64::try_from(disk.len())?;
                let count = device.read_at(&mut part, offset).await.map_err(|e| anyhow::anyhow!("{e}"))?;
                ensure!(count > 0, "nothing at {offset}");
                disk.extend_from_slice(part.get(..count).context("a length beyond the buffer")?);
            }
            Ok(disk)
        })
    };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(disk)) => Ok(Opinion::Disk(disk)),
        Ok(Err(error)) => Ok(Opinion::Unable(format!("{error:#}"))),
        Err(_) => Ok(Opinion::Unable("it panicked".into())),
    }
}

/// qcow2-rs was left out of the build.
#[cfg(not(feature = "qcow2-rs"))]
pub fn qcow2_rs(_image: &Path, _size: u64) -> Result<Opinion> {
    Ok(Opinion::Unable("left out".into()))
}

/// A path as text.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

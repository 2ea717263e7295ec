//! The readers of qcow2.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use imaging::Written;
use imago::file::File;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};

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

/// What an image asks of its reader. Whoever is not made for it is not asked; every other failure is one.
struct Needs {
    cluster_bytes: u64,
    zstd: bool,
    extended: bool,
}

impl Needs {
    /// Source: QEMU, docs/interop/qcow2.txt: header, incompatible features, compression type.
    fn of(image: &Path) -> Result<Self> {
        let mut header = [0; 105];
        std::fs::File::open(image)?.read_exact(&mut header)?;
        let is_v3 = header[4..8] == [0, 0, 0, 3];
        let features = if is_v3 { header[79] } else { 0 };
        Ok(Self {
            cluster_bytes: 1 << header[23],
            zstd: features & 8 != 0 && header[104] == 1,
            extended: features & 16 != 0,
        })
    }
}

/// imago, a library of one of QEMU's block layer maintainers. `None` for zstd and extended entries, which 0.2 does not know.
pub fn imago(image: &Path) -> Result<Option<Vec<u8>>> {
    let needs = Needs::of(image)?;
    if needs.zstd || needs.extended {
        return Ok(None);
    }
    // Only the image itself: what it refers to is none of ours.
    let storage = <File as imago::Storage>::open(imago::StorageOpenOptions::new().filename(image))?;
    let qcow2 =
        Qcow2::<File>::builder(storage).open(DenyImplicitOpenGate::default()).context("imago, opening")?;
    let access = FormatAccess::new(qcow2);
    let mut disk = vec![0; usize::try_from(access.size())?];
    access.read(disk.as_mut_slice(), 0).context("imago, reading")?;
    Ok(Some(disk))
}

/// qcow2-rs, the library of a user-space block driver. `None` for what 0.1 does not know: zstd, extended entries, and clusters
/// below 4 KiB, where it panics (its slices of a table, in `src/dev.rs`, are larger than the table).
#[cfg(feature = "qcow2-rs")]
pub fn qcow2_rs(image: &Path, size: u64) -> Result<Option<Vec<u8>>> {
    use anyhow::{anyhow, ensure};
    use qcow2_rs::dev::Qcow2DevParams;
    use qcow2_rs::helpers::Qcow2IoBuf;
    use qcow2_rs::utils::qcow2_setup_dev_tokio;

    /// What is read at a time.
    const READ: usize = 1 << 20;
    let needs = Needs::of(image)?;
    if needs.zstd || needs.extended || needs.cluster_bytes < 4096 {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let params = Qcow2DevParams::new(9, None, None, true, false);
        let opened = qcow2_setup_dev_tokio(image, &params).await;
        let device = opened.map_err(|error| anyhow!("qcow2-rs, opening: {error}"))?;
        let size = usize::try_from(size)?;
        let mut disk = Vec::with_capacity(size);
        while disk.len() < size {
            let mut part = Qcow2IoBuf::<u8>::new(READ.min(size - disk.len()));
            let offset = u64::try_from(disk.len())?;
            let count = device.read_at(&mut part, offset).await;
            let count = count.map_err(|error| anyhow!("qcow2-rs, reading at {offset}: {error}"))?;
            ensure!(count > 0, "qcow2-rs: nothing at {offset}");
            disk.extend_from_slice(part.get(..count).context("a length beyond the buffer")?);
        }
        Ok(Some(disk))
    })
}

/// qcow2-rs was left out of the build.
#[cfg(not(feature = "qcow2-rs"))]
pub fn qcow2_rs(_image: &Path, _size: u64) -> Result<Option<Vec<u8>>> {
    Ok(None)
}

/// A path as text.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

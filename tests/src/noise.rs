//! Disk images that need not boot: small, quick to hash, and impossible to make smaller.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// A disk of `bytes` bytes (at least 2 MiB) that no compression and no zero detection makes smaller: an MBR with one Linux
/// partition from the first MiB to the end, noise everywhere else. An MBR, because a GPT's copy at the end of the disk would be
/// moved by whoever writes the image to a larger one. The same `seed` gives the same bytes. A block device is overwritten.
///
/// # Errors
/// The file can not be written, or is too small or too large for an MBR.
pub fn noise_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    out.write_all(&master_boot_record(bytes)?)?;
    let mut written = 512;
    while written < bytes {
        // xorshift64: quick, and random enough for a disk nobody reads
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let take = usize::try_from(bytes - written).unwrap_or(8).min(8);
        out.write_all(word.get(..take).unwrap_or(&word))?;
        written += 8;
    }
    out.flush()?;
    Ok(())
}

/// A sector with one partition of type Linux (UEFI specification, 5.2.1).
fn master_boot_record(bytes: u64) -> Result<Vec<u8>> {
    let first: u32 = 2048;
    let sectors =
        u32::try_from(bytes / 512)?.checked_sub(first).context("too small for a partition at 1 MiB")?;
    let mut sector = vec![0; 446];
    sector.extend([0x00, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    sector.extend(first.to_le_bytes());
    sector.extend(sectors.to_le_bytes());
    sector.extend([0; 48]);
    sector.extend([0x55, 0xaa]);
    Ok(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_a_disk_with_one_partition_and_the_same_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, seed| {
            noise_file(&dir.path().join(name), 2 << 20, seed).unwrap();
            std::fs::read(dir.path().join(name)).unwrap()
        };
        let (one, same, other) = (read("a", 1), read("b", 1), read("c", 2));
        assert_eq!(one.len(), 2 << 20);
        assert_eq!(
            (one[450], &one[454..462], &one[510..512]),
            (0x83, &[0, 8, 0, 0, 0, 8, 0, 0][..], &[0x55, 0xaa][..])
        );
        assert_eq!(one, same);
        assert_ne!(one[512..], other[512..]);
    }
}

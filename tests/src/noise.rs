//! Disk images that need not boot: small, quick to hash, and impossible to make smaller.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// A file of `bytes` bytes that no compression and no zero detection makes smaller, for tests that deploy something which
/// need not boot. The first sector says in ASCII what it is; the same `seed` gives the same bytes.
///
/// # Errors
/// The file can not be written.
pub fn noise_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut written = 0;
    while written < bytes {
        // xorshift64: quick, and random enough for a disk nobody reads
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = if written == 0 { *b"FERRICTE" } else { state.to_le_bytes() };
        let take = usize::try_from(bytes - written).unwrap_or(8).min(8);
        out.write_all(word.get(..take).unwrap_or(&word))?;
        written += 8;
    }
    out.flush()?;
    Ok(())
}

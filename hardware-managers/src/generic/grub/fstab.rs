//! The line of `/etc/fstab` that mounts the EFI system partition. Source: data plane page, 5.3, step 9.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Larger ones are left alone.
const LIMIT: u64 = 1 << 20;

/// Appends the line to `fstab` in the directory `etc`, if the file exists and lacks it. `key` is `UUID=...` or
/// `PARTUUID=...`. A link is not followed.
pub(super) fn add_esp(etc: &Path, key: &str) -> std::io::Result<()> {
    let path = etc.join("fstab");
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= LIMIT => {}
        Ok(_) => return Err(std::io::Error::other("it is no file that can be edited")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mut file = std::fs::File::options().read(true).write(true).open(&path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let line = format!("{key}\t/boot/efi\tvfat\tumask=0077\t0\t1\n");
    let text = String::from_utf8_lossy(&bytes);
    if text.lines().any(|found| found == line.trim_end()) {
        return Ok(());
    }
    let gap = if bytes.is_empty() || bytes.ends_with(b"\n") { "" } else { "\n" };
    file.seek(SeekFrom::End(0))?;
    file.write_all(format!("{gap}{line}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "UUID=AAAA-BBBB\t/boot/efi\tvfat\tumask=0077\t0\t1\n";

    #[test]
    fn the_line_is_added_once_and_only_to_a_file_that_is_there() {
        let etc = tempfile::tempdir().unwrap();
        let path = etc.path().join("fstab");
        add_esp(etc.path(), "UUID=AAAA-BBBB").unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "LABEL=root / ext4").unwrap();
        for _ in 0..2 {
            add_esp(etc.path(), "UUID=AAAA-BBBB").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("LABEL=root / ext4\n{LINE}"));
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(etc.path().join("elsewhere"), &path).unwrap();
        assert!(add_esp(etc.path(), "UUID=AAAA-BBBB").is_err());
        assert!(!etc.path().join("elsewhere").exists());
    }
}

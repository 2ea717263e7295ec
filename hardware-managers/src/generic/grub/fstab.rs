//! The image's `/etc/fstab`: the line that mounts the EFI system partition (data plane page, 5.3, step 9), and what is mounted where.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Larger ones are left alone.
const LIMIT: u64 = 1 << 20;

/// Appends the line to `fstab` in the directory `etc`, if the file exists and lacks it. `key` is `UUID=...` or
/// `PARTUUID=...`. A link is not followed.
pub(super) fn add_esp(etc: &Path, key: &str) -> std::io::Result<()> {
    let Some(path) = existing(etc)? else { return Ok(()) };
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

/// What is mounted on `place` (`/boot`), as the file names it: `UUID=...`. `None` where nothing is.
pub(super) fn source_of(etc: &Path, place: &str) -> std::io::Result<Option<String>> {
    let Some(path) = existing(etc)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    let source = |line: &str| {
        let mut words = line.split_whitespace();
        let source = words.next().filter(|word| !word.starts_with('#'))?;
        (words.next()?.trim_end_matches('/') == place).then(|| source.to_owned())
    };
    Ok(text.lines().find_map(source))
}

/// The file, if it is there. A link is not followed.
fn existing(etc: &Path) -> std::io::Result<Option<PathBuf>> {
    let path = etc.join("fstab");
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= LIMIT => Ok(Some(path)),
        Ok(_) => Err(std::io::Error::other("it is no file of its own, or too large")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_on_a_place_is_found_and_comments_are_not() {
        let etc = tempfile::tempdir().unwrap();
        let found = |text: &str| {
            std::fs::write(etc.path().join("fstab"), text).unwrap();
            source_of(etc.path(), "/boot").unwrap()
        };
        assert_eq!(found("#UUID=a /boot ext4\n\nUUID=b / ext4 defaults 0 1\nUUID=c\t/boot/efi vfat\n"), None);
        assert_eq!(found("UUID=b / ext4\nLABEL=BOOT /boot/ ext4\n").as_deref(), Some("LABEL=BOOT"));
        std::fs::remove_file(etc.path().join("fstab")).unwrap();
        assert_eq!(source_of(etc.path(), "/boot").unwrap(), None);
    }

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

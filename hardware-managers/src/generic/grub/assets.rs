//! The boot loaders that an image carries below `/boot/efi`, copied to the EFI system partition that was made for it.
//! Source: data plane page, 5.3, step 5.

use std::fs;
use std::io;
use std::path::Path;

/// Far above what any image has below `/boot/efi`.
const DEPTH_LIMIT: usize = 16;
const FILE_LIMIT: usize = 10_000;
/// What grub reads next to itself.
const GRUB_FILES: [&str; 2] = ["grub.cfg", "grubenv"];

/// Copies the tree `from` (the image's `EFI`) to `to` (the partition's). Vendor directories that lack grub's configuration get
/// it from `grub`, the image's `/boot/grub2`, where that is. Links are left out: FAT has none.
pub(super) fn copy(from: &Path, to: &Path, grub: Option<&Path>) -> io::Result<()> {
    copy_tree(from, to, 0, &mut 0)?;
    let Some(grub) = grub else { return Ok(()) };
    for entry in fs::read_dir(to)? {
        let vendor = entry?;
        if !vendor.file_type()?.is_dir() || vendor.file_name().eq_ignore_ascii_case("boot") {
            continue;
        }
        for name in GRUB_FILES {
            let (source, target) = (grub.join(name), vendor.path().join(name));
            let is_file = fs::symlink_metadata(&source).is_ok_and(|found| found.is_file());
            if is_file && !target.exists() {
                fs::copy(&source, &target)?;
            }
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path, depth: usize, files: &mut usize) -> io::Result<()> {
    if depth > DEPTH_LIMIT {
        return Err(io::Error::other("its directories are nested too deeply"));
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        *files += 1;
        if *files > FILE_LIMIT {
            return Err(io::Error::other("it has too many files"));
        }
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, depth + 1, files)?;
        } else if kind.is_file() {
            // Not `fs::copy`, which takes the permissions along: FAT has none to set.
            io::copy(&mut fs::File::open(entry.path())?, &mut fs::File::create(&target)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_come_along_and_vendors_get_the_configuration_they_lack() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to, grub] =
            ["image/EFI", "esp/EFI", "image/grub2"].map(|path| directory.path().join(path));
        for (path, text) in [
            ("image/EFI/BOOT/BOOTX64.EFI", "fallback"),
            ("image/EFI/redhat/shimx64.efi", "shim"),
            ("image/EFI/redhat/grub.cfg", "own"),
            ("image/EFI/other/grubx64.efi", "grub"),
            ("image/grub2/grub.cfg", "made"),
            ("image/grub2/grubenv", "env"),
        ] {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", from.join("redhat/link")).unwrap();
        copy(&from, &to, Some(&grub)).unwrap();
        for (path, text) in [
            ("BOOT/BOOTX64.EFI", "fallback"),
            ("redhat/grub.cfg", "own"),
            ("redhat/grubenv", "env"),
            ("other/grub.cfg", "made"),
        ] {
            assert_eq!(fs::read_to_string(to.join(path)).unwrap(), text, "{path}");
        }
        assert!(!to.join("redhat/link").exists() && !to.join("BOOT/grub.cfg").exists());
    }
}

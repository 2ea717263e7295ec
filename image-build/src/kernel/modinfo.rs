//! What a module says of itself in its `.modinfo` section: `key=value` strings, each ended by NUL (kernel: include/linux/moduleinfo).
//!
//! `modules.builtin.modinfo` has the same strings with `module.` in front, for what is compiled into the kernel.

use std::collections::BTreeSet;

/// What the ramdisk needs to know of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules that must be loaded before it.
    pub depends: Vec<String>,
    /// Patterns of the hardware, file systems and so on that it serves, as the module has them.
    pub aliases: Vec<String>,
    /// Soft dependencies, whole (`pre: crypto-crc32c`), as the module has them.
    pub softdeps: Vec<String>,
    /// Modules it may make use of later (`weakdep=`, Linux 6.11 and on).
    pub weakdeps: Vec<String>,
    /// Firmware files it may ask for, relative to `/lib/firmware`.
    pub firmware: Vec<String>,
}

impl ModInfo {
    /// Reads a `.modinfo` section. What is not understood is skipped: other keys are none of our business.
    pub fn parse(section: &[u8]) -> ModInfo {
        let mut info = ModInfo::default();
        for entry in section.split(|&byte| byte == 0) {
            let text = String::from_utf8_lossy(entry);
            let Some((key, value)) = text.split_once('=') else { continue };
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            match key {
                "depends" => {
                    info.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(normalize))
                }
                "alias" => info.aliases.push(value.to_owned()),
                "softdep" => info.softdeps.push(value.to_owned()),
                "weakdep" => info.weakdeps.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        info
    }

    /// The names a soft or weak dependency asks for, without `pre:` and `post:`.
    pub fn soft_names(&self) -> impl Iterator<Item = String> {
        let entries = self.softdeps.iter().chain(&self.weakdeps);
        entries.flat_map(|entry| entry.split_whitespace()).filter(|word| !word.ends_with(':')).map(normalize)
    }
}

/// What a module asks the kernel for by name when it is used (`request_module`), and no `.modinfo` says. In a ramdisk
/// without modprobe nobody would answer, so it is written down as a soft dependency.
///
/// vfat: the code page of its short names and the character set of its long ones (kernel configuration
/// `FAT_DEFAULT_CODEPAGE`, `FAT_DEFAULT_IOCHARSET`: 437 and ascii in Debian, 437 and iso8859-1 in Ubuntu).
pub const UNSAID: &[(&str, &str)] = &[("vfat", "pre: nls_cp437 nls_ascii nls_iso8859_1")];

/// Names in `modules.builtin.modinfo` that need no module: builtin modules and their aliases, normalized.
pub fn builtin_names(builtin: &str, builtin_modinfo: &[u8]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = builtin.lines().map(name_of_path).collect();
    for entry in builtin_modinfo.split(|&byte| byte == 0) {
        let text = String::from_utf8_lossy(entry);
        let Some((module, rest)) = text.split_once('.') else { continue };
        names.insert(normalize(module));
        if let Some(alias) = rest.strip_prefix("alias=") {
            names.insert(normalize(alias));
        }
    }
    names
}

/// Module names know no difference between `-` and `_`; kmod writes `_`. Inside brackets of a pattern `-` is a range and stays.
pub fn normalize(name: &str) -> String {
    let mut in_brackets = false;
    let fold = |letter: char| {
        match letter {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '-' if !in_brackets => return '_',
            _ => {}
        }
        letter
    };
    name.chars().map(fold).collect()
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko` is the module `virtio_rng`.
pub fn name_of_path(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path).trim();
    normalize(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_a_module_says_of_itself() {
        let info = ModInfo::parse(
            b"softdep=pre: crypto-crc32c\0\0alias=fs-ext4\0alias=ext3\0depends=jbd2,mb-cache,crc16\0firmware=a/b.bin\0license=GPL\0",
        );
        assert_eq!(info.depends, ["jbd2", "mb_cache", "crc16"]);
        assert_eq!(info.aliases, ["fs-ext4", "ext3"]);
        assert_eq!(info.soft_names().collect::<Vec<_>>(), ["crypto_crc32c"]);
        assert_eq!(info.firmware, ["a/b.bin"]);
    }

    #[test]
    fn pre_and_post_are_not_names() {
        let info = ModInfo { softdeps: vec!["pre: a-b c post: d".to_owned()], ..ModInfo::default() };
        assert_eq!(info.soft_names().collect::<Vec<_>>(), ["a_b", "c", "d"]);
    }

    #[test]
    fn dashes_fold_outside_brackets_only() {
        assert_eq!(normalize("pci-x[0-9]-y"), "pci_x[0-9]_y");
        assert_eq!(name_of_path("kernel/drivers/char/hw_random/virtio-rng.ko.xz"), "virtio_rng");
    }

    #[test]
    fn builtin_modules_are_known_by_name_and_alias() {
        let names =
            builtin_names("kernel/fs/fuse-x.ko\n", b"crc32c.alias=crypto-crc32c\0crc32c.license=GPL\0");
        assert!(names.contains("fuse_x") && names.contains("crypto_crc32c") && names.contains("crc32c"));
    }

    proptest! {
        #[test]
        fn junk_never_panics_and_never_gives_empty_names(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut section = b"depends=".to_vec();
            section.extend_from_slice(&junk);
            let info = ModInfo::parse(&section);
            prop_assert!(info.depends.iter().all(|name| !name.is_empty()));
            let _ = builtin_names("", &section);
        }

        #[test]
        fn what_was_written_is_read_back(names in proptest::collection::vec("[a-z_0-9]{1,12}", 0..6)) {
            let section = format!("license=GPL\0depends={}\0", names.join(","));
            prop_assert_eq!(ModInfo::parse(section.as_bytes()).depends, names);
        }
    }
}

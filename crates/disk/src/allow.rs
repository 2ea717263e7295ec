//! The allow-list: the only disks that may be written, when it is set (`ferric-disks=`, `--disks`).

use std::fmt;

use wire::Disk;

use crate::Error;
use crate::glob;

/// Exact device names, and patterns over what stays the same across reboots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// `/dev/sda`.
    Name(String),
    Serial(String),
    Wwn(String),
    /// Without `/dev/disk/by-path/`.
    ByPath(String),
}

const BY_PATH: &str = "/dev/disk/by-path/";

impl AllowList {
    /// Reads `sda,/dev/vdb,serial:ABC*,wwn:0x5*,by-path:pci-0000:00*`: device names are exact; `*` and `?` work in serial
    /// numbers, world-wide names and by-path names.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut entries = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            entries.push(Entry::parse(item)?);
        }
        if entries.is_empty() {
            let reason = "names no disk: write e.g. `sda`, `serial:ABC*` or `by-path:pci-0000:00*`";
            return Err(Error::AllowList { entry: text.into(), reason: reason.into() });
        }
        Ok(Self { entries })
    }

    /// Whether this disk is on the list.
    pub fn permits(&self, disk: &Disk) -> bool {
        self.entries.iter().any(|entry| entry.permits(disk))
    }
}

impl Entry {
    fn parse(item: &str) -> Result<Self, Error> {
        let fail = |reason: &str| Error::AllowList { entry: item.into(), reason: reason.into() };
        let pattern = |text: &str| match text.trim() {
            "" => Err(fail("has an empty pattern")),
            text => Ok(text.to_owned()),
        };
        if let Some(text) = item.strip_prefix("serial:") {
            return Ok(Self::Serial(pattern(text)?));
        }
        if let Some(text) = item.strip_prefix("wwn:") {
            return Ok(Self::Wwn(pattern(text)?));
        }
        if let Some(text) = item.strip_prefix("by-path:") {
            return Ok(Self::ByPath(pattern(text.strip_prefix(BY_PATH).unwrap_or(text))?));
        }
        if let Some(text) = item.strip_prefix(BY_PATH) {
            return Ok(Self::ByPath(pattern(text)?));
        }
        let name = item.strip_prefix("/dev/").unwrap_or(item);
        if name.contains(['*', '?', '[']) {
            return Err(fail(
                "device names are exact; use `serial:`, `wwn:` or `by-path:` for patterns, which survive a reboot",
            ));
        }
        let plain =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | ':' | '!');
        if name.is_empty()
            || name.starts_with(['/', '.'])
            || name.contains("..")
            || name.contains(':')
            || !name.chars().all(plain)
        {
            return Err(fail(
                "is no device name; write `sda`, `/dev/sda`, `serial:...`, `wwn:...` or `by-path:...`",
            ));
        }
        Ok(Self::Name(format!("/dev/{name}")))
    }

    fn permits(&self, disk: &Disk) -> bool {
        let any = |pattern: &str, values: &[&Option<String>]| {
            values.iter().filter_map(|value| value.as_deref()).any(|value| glob::matches(pattern, value))
        };
        match self {
            Self::Name(name) => *name == disk.name,
            Self::Serial(pattern) => any(pattern, &[&disk.serial]),
            Self::Wwn(pattern) => {
                let pattern = pattern.to_ascii_lowercase();
                let lower = |value: &Option<String>| value.as_ref().map(|text| text.to_ascii_lowercase());
                any(&pattern, &[&lower(&disk.wwn), &lower(&disk.wwn_with_extension)])
            }
            Self::ByPath(pattern) => disk
                .by_path
                .as_deref()
                .is_some_and(|path| glob::matches(pattern, path.strip_prefix(BY_PATH).unwrap_or(path))),
        }
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match entry {
                Entry::Name(name) => f.write_str(name)?,
                Entry::Serial(pattern) => write!(f, "serial:{pattern}")?,
                Entry::Wwn(pattern) => write!(f, "wwn:{pattern}")?,
                Entry::ByPath(pattern) => write!(f, "by-path:{pattern}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(name: &str) -> Disk {
        Disk { name: name.into(), ..Disk::default() }
    }

    #[test]
    fn device_names_are_exact() {
        let allow = AllowList::parse("sda, /dev/vdb,/dev/loop0").unwrap();
        for (name, permitted) in [
            ("/dev/sda", true),
            ("/dev/sda1", false),
            ("/dev/sdaa", false),
            ("/dev/vdb", true),
            ("/dev/loop0", true),
            ("/dev/loop1", false),
        ] {
            assert_eq!(allow.permits(&disk(name)), permitted, "{name}");
        }
        assert_eq!(allow.to_string(), "/dev/sda,/dev/vdb,/dev/loop0");
    }

    #[test]
    fn patterns_match_serial_wwn_and_path() {
        let a = Disk {
            serial: Some("ABC123".into()),
            wwn: Some("0x5000C500".into()),
            by_path: Some("/dev/disk/by-path/pci-0000:00:1f.2-ata-1.0".into()),
            ..disk("/dev/sdx")
        };
        for (text, permitted) in [
            ("serial:ABC*", true),
            ("serial:abc*", false),
            ("serial:B*", false),
            ("wwn:0x5*", true),
            ("wwn:0X5000c500", true),
            ("by-path:pci-0000:00*", true),
            ("/dev/disk/by-path/pci-0000:00*", true),
            ("by-path:/dev/disk/by-path/pci-0000:00:1f.2-ata-1.0", true),
            ("by-path:pci-0001*", false),
            ("serial:*", true),
        ] {
            assert_eq!(AllowList::parse(text).unwrap().permits(&a), permitted, "{text}");
            assert!(!AllowList::parse(text).unwrap().permits(&disk("/dev/sdy")), "{text} without ids");
        }
    }

    #[test]
    fn entries_that_could_mean_more_than_one_thing_are_refused() {
        for text in ["", " , ", "/dev/sd*", "sd?", "serial:", "wwn: ", "/etc/../dev/sda", "uuid:x", "a b"] {
            assert!(AllowList::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_printed_reads_back(text in "[ -~]{0,40}") {
            if let Ok(allow) = AllowList::parse(&text) {
                prop_assert_eq!(AllowList::parse(&allow.to_string()).unwrap(), allow);
            }
        }
    }
}

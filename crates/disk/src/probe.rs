//! Recognises what lies on a disk or partition by its magic numbers: file systems, swap, members of arrays and mappings.
//!
//! Own probing, because neither `blkid` nor the udev database is there. It reads a few sectors and trusts nothing.

use uuid::Uuid;

use crate::Source;
use crate::fat::Fat;

/// What was recognised. Names are those of `blkid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// `ext4`, `xfs`, `vfat`, `iso9660`, `swap`, `LVM2_member`, `linux_raid_member`, `crypto_LUKS`, `btrfs`, ...
    pub kind: &'static str,
    /// The label, without padding.
    pub label: Option<String>,
    /// The UUID in the form usual for this kind: `XXXX-XXXX` for vfat.
    pub uuid: Option<String>,
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)?;
        if let Some(label) = &self.label {
            write!(f, " `{label}`")?;
        }
        Ok(())
    }
}

/// Looks at the start (and for arrays the end) of `source`. `None` when nothing is recognised or it can not be read.
pub fn probe<S: Source + ?Sized>(source: &S) -> Option<FileSystem> {
    let probes = [luks, raid, lvm, xfs, ext, btrfs, iso9660, swap, ntfs, squashfs, gfs2, vfat];
    probes.iter().find_map(|probe| probe(&Window(source)))
}

/// Reads that answer nothing rather than fail.
struct Window<'a, S: Source + ?Sized>(&'a S);

trait Look {
    fn at(&self, offset: u64, length: usize) -> Option<Vec<u8>>;
    fn size(&self) -> u64;
    fn fat(&self) -> Option<FileSystem>;

    fn magic(&self, offset: u64, magic: &[u8]) -> Option<()> {
        (self.at(offset, magic.len())? == magic).then_some(())
    }

    fn text(&self, offset: u64, length: usize) -> Option<String> {
        let bytes = self.at(offset, length)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(bytes.get(..end)?).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn uuid(&self, offset: u64) -> Option<String> {
        let bytes: [u8; 16] = self.at(offset, 16)?.try_into().ok()?;
        (bytes != [0; 16]).then(|| Uuid::from_bytes(bytes).to_string())
    }

    fn le32(&self, offset: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(offset, 4)?.try_into().ok()?))
    }
}

impl<S: Source + ?Sized> Look for Window<'_, S> {
    fn at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        self.0.bytes(offset, length).ok()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn fat(&self) -> Option<FileSystem> {
        let fat = Fat::open(self.0).ok()?;
        // The label in the root directory counts; the one in the boot sector may be stale.
        let label = fat.volume_label().ok().flatten().or_else(|| fat.boot_sector_label());
        Some(FileSystem { kind: "vfat", label, uuid: Some(fat.serial()) })
    }
}

fn ext(look: &dyn Look) -> Option<FileSystem> {
    look.magic(1080, &[0x53, 0xef])?;
    let (compatible, incompatible) = (look.le32(1024 + 92)?, look.le32(1024 + 96)?);
    // has_journal; extents, 64bit, flex_bg, ... : what ext3 does not know.
    let kind = match (compatible & 0x4, incompatible & !0x16) {
        (_, 8) => "jbd",
        (_, 1..) => "ext4",
        (0, 0) => "ext2",
        (_, 0) => "ext3",
    };
    Some(FileSystem { kind, label: look.text(1024 + 120, 16), uuid: look.uuid(1024 + 104) })
}

fn xfs(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0, b"XFSB")?;
    Some(FileSystem { kind: "xfs", label: look.text(108, 12), uuid: look.uuid(32) })
}

fn btrfs(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0x10040, b"_BHRfS_M")?;
    Some(FileSystem { kind: "btrfs", label: look.text(0x1012b, 256), uuid: look.uuid(0x10020) })
}

fn iso9660(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0x8001, b"CD001")?;
    let label = joliet_label(look).or_else(|| look.text(0x8028, 32));
    // The modification time, or the creation time where there is none, as blkid makes a UUID of it.
    let date = [0x8000 + 830, 0x8000 + 813].iter().filter_map(|offset| look.text(*offset, 16)).find(|date| {
        date.len() == 16 && date.bytes().all(|b| b.is_ascii_digit()) && !date.starts_with("0000")
    });
    let uuid = date.and_then(|date| {
        let part = |from: usize, to: usize| date.get(from..to);
        let head = [part(0, 4)?, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?];
        Some(format!("{}-{}", head.join("-"), part(14, 16)?))
    });
    Some(FileSystem { kind: "iso9660", label, uuid })
}

/// The volume name of the Joliet tree (UCS-2), which can hold lower case where the plain one can not.
fn joliet_label(look: &dyn Look) -> Option<String> {
    for sector in 17..32u64 {
        let at = sector * 2048;
        look.magic(at + 1, b"CD001")?;
        match look.at(at, 1)?.first()? {
            2 if look.magic(at + 88, b"%/").is_some() => {
                let units: Vec<u16> = look
                    .at(at + 40, 32)?
                    .chunks_exact(2)
                    .filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
                    .collect();
                let label = String::from_utf16_lossy(&units);
                let label = label.trim_matches(|c: char| c == '\0' || c.is_whitespace());
                return (!label.is_empty()).then(|| label.to_owned());
            }
            255 => return None,
            _ => {}
        }
    }
    None
}

fn swap(look: &dyn Look) -> Option<FileSystem> {
    let page =
        [4096u64, 16384, 65536].into_iter().find(|page| look.magic(page - 10, b"SWAPSPACE2").is_some());
    page?;
    Some(FileSystem { kind: "swap", label: look.text(1024 + 28, 16), uuid: look.uuid(1024 + 12) })
}

fn lvm(look: &dyn Look) -> Option<FileSystem> {
    for sector in 0..4u64 {
        if look.magic(sector * 512, b"LABELONE").is_some() {
            look.magic(sector * 512 + 24, b"LVM2 001")?;
            let header = u64::from(look.le32(sector * 512 + 20)?).min(480);
            let uuid = look.text(sector * 512 + header, 32).and_then(|id| dashed(&id));
            return Some(FileSystem { kind: "LVM2_member", label: None, uuid });
        }
    }
    None
}

/// The identifier of a physical volume as LVM prints it: 6, 4, 4, 4, 4, 4 and 6 characters.
fn dashed(id: &str) -> Option<String> {
    let places = [(0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32)];
    let parts: Option<Vec<&str>> = places.iter().map(|(from, to)| id.get(*from..*to)).collect();
    parts.map(|parts| parts.join("-"))
}

/// Members of Linux software arrays: version 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end.
fn raid(look: &dyn Look) -> Option<FileSystem> {
    const MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    let near_end = (look.size() / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    for offset in [Some(4096), Some(0), near_end].into_iter().flatten() {
        if look.magic(offset, &MAGIC).is_some() && look.le32(offset + 4)? == 1 {
            let (label, uuid) = (look.text(offset + 32, 32), look.uuid(offset + 16));
            return Some(FileSystem { kind: "linux_raid_member", label, uuid });
        }
    }
    let old = (look.size() & !0xffff).checked_sub(0x10000)?;
    look.magic(old, &MAGIC)?;
    // Four numbers, the first apart from the others (linux/raid/md_p.h).
    let words: Option<Vec<u32>> = [20, 52, 56, 60].iter().map(|at| look.le32(old + at)).collect();
    let bytes: Vec<u8> = words?.into_iter().flat_map(u32::to_be_bytes).collect();
    let uuid = Uuid::from_slice(&bytes).ok().map(|uuid| uuid.to_string());
    Some(FileSystem { kind: "linux_raid_member", label: None, uuid })
}

fn luks(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0, b"LUKS\xba\xbe\x00")?;
    let label = look.magic(6, &[0, 2]).and_then(|()| look.text(24, 48));
    Some(FileSystem { kind: "crypto_LUKS", label, uuid: look.text(168, 40) })
}

fn ntfs(look: &dyn Look) -> Option<FileSystem> {
    look.magic(3, b"NTFS    ")?;
    let serial = look.at(72, 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let uuid = serial.filter(|serial| *serial != 0).map(|serial| format!("{serial:016X}"));
    Some(FileSystem { kind: "ntfs", label: None, uuid })
}

fn squashfs(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0, b"hsqs")?;
    Some(FileSystem { kind: "squashfs", ..FileSystem::default() })
}

/// The shared-disk file system that erasing must spare.
fn gfs2(look: &dyn Look) -> Option<FileSystem> {
    look.magic(0x10000, &[0x01, 0x16, 0x19, 0x70])?;
    Some(FileSystem { kind: "gfs2", ..FileSystem::default() })
}

fn vfat(look: &dyn Look) -> Option<FileSystem> {
    look.fat()
}

/// As [`probe`], for an error that is worth telling.
pub fn probe_device(path: &std::path::Path) -> Result<Option<FileSystem>, crate::Error> {
    let device = crate::Device::open(path)?;
    Ok(probe(&device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; length];
        for (offset, bytes) in parts {
            image[*offset..*offset + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    #[test]
    fn file_systems_are_known_by_their_magic() {
        let id = [0x11u8; 16];
        let id_text = "11111111-1111-1111-1111-111111111111";
        let end = 1 << 20;
        for (kind, label, uuid, parts) in [
            (
                "ext2",
                Some("boot"),
                Some(id_text),
                vec![(1080, &[0x53, 0xef][..]), (1128, &id), (1144, b"boot")],
            ),
            ("ext3", None, None, vec![(1080, &[0x53, 0xef][..]), (1116, &[4])]),
            ("ext4", None, None, vec![(1080, &[0x53, 0xef][..]), (1116, &[4]), (1120, &[0x42])]),
            ("xfs", Some("root"), Some(id_text), vec![(0, &b"XFSB"[..]), (32, &id), (108, b"root")]),
            (
                "btrfs",
                Some("b"),
                Some(id_text),
                vec![(0x10040, &b"_BHRfS_M"[..]), (0x10020, &id), (0x1012b, b"b")],
            ),
            ("iso9660", Some("config-2"), None, vec![(0x8001, &b"CD001"[..]), (0x8028, b"config-2   ")]),
            ("swap", Some("s"), Some(id_text), vec![(4086, &b"SWAPSPACE2"[..]), (1036, &id), (1052, b"s")]),
            (
                "LVM2_member",
                None,
                Some("abcdef-0123-4567-89AB-CDEF-ghij-klmnop"),
                vec![
                    (512, &b"LABELONE"[..]),
                    (532, &[32]),
                    (536, b"LVM2 001"),
                    (544, b"abcdef0123456789ABCDEFghijklmnop"),
                ],
            ),
            (
                "linux_raid_member",
                Some("h:0"),
                Some(id_text),
                vec![(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1][..]), (4112, &id), (4128, b"h:0")],
            ),
            ("linux_raid_member", None, None, vec![(end - 8192, &[0xfc, 0x4e, 0x2b, 0xa9, 1][..])]),
            (
                "linux_raid_member",
                None,
                Some("04030201-0807-0605-0c0b-0a09100f0e0d"),
                vec![
                    (end - 65536, &[0xfc, 0x4e, 0x2b, 0xa9][..]),
                    (end - 65536 + 20, &[1, 2, 3, 4]),
                    (end - 65536 + 52, &[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
                ],
            ),
            ("crypto_LUKS", None, Some("abc"), vec![(0, &b"LUKS\xba\xbe\0\x01"[..]), (168, b"abc")]),
            (
                "ntfs",
                None,
                Some("0807060504030201"),
                vec![(3, &b"NTFS    "[..]), (72, &[1, 2, 3, 4, 5, 6, 7, 8])],
            ),
            ("gfs2", None, None, vec![(0x10000, &[1, 0x16, 0x19, 0x70][..])]),
        ] {
            let found = probe(&image(end, &parts)).unwrap_or_else(|| panic!("{kind} not recognised"));
            let expected = FileSystem { kind, label: label.map(Into::into), uuid: uuid.map(Into::into) };
            assert_eq!(found, expected);
        }
        assert_eq!(probe(&vec![0u8; end]), None);
        assert_eq!(probe(&Vec::new()), None);
    }

    proptest! {
        #[test]
        fn junk_is_probed_without_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..9000), magic in 0..4usize,
        ) {
            let (offset, text): (usize, &[u8]) =
                [(0, &b"LUKS\xba\xbe\0"[..]), (1080, &[0x53, 0xef]), (512, b"LABELONE"), (510, &[0x55, 0xaa])][magic];
            if let Some(slot) = bytes.get_mut(offset..offset + text.len()) {
                slot.copy_from_slice(text);
            }
            let _ = probe(&bytes);
        }
    }
}

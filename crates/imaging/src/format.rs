//! The declared image format, and the guard that looks at an image's first bytes before anything is written.
//!
//! Pure. The guard refuses what is plainly something else than declared (data plane 1.8): writing a qcow2 file as if it
//! were raw leaves a disk that does not boot, and trusting a "raw" image that is a qcow2 is how host files leak.

use std::fmt;
use std::str::FromStr;

use crate::compressed::Compression;

/// The format an image is declared to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk, one for one. Ironic's `gpt` and `iso` mean the same bytes and may be passed as this.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        })
    }
}

/// The format name is not one that can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image format {0:?} is not supported: publish the image as raw or qcow2")]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text.to_ascii_lowercase().as_str() {
            "raw" => Ok(Format::Raw),
            "qcow2" => Ok(Format::Qcow2),
            _ => Err(FormatError(text.to_owned())),
        }
    }
}

/// How many leading bytes [`Format::detect`] wants to see (fewer only if the image is shorter).
pub const DETECT_BYTES: usize = 512;

/// (offset, magic, name) of what may not be declared raw. VMDK descriptors are text; LUKS is a legal disk content in
/// theory, but never a disk that boots.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "vdi"),
    (0, b"LUKS\xba\xbe", "luks"),
];

pub(crate) const QCOW_MAGIC: &[u8] = b"QFI\xfb";

/// What an image's first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// One of the formats that can be written. Raw is what bears no other format's magic.
    Known(Format),
    /// A compressed file. The disk inside is written if it is raw.
    Compressed(Compression),
    /// A format that is refused, by name.
    Foreign(&'static str),
}

impl fmt::Display for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detected::Known(format) => format.fmt(f),
            Detected::Compressed(compression) => compression.fmt(f),
            Detected::Foreign(name) => f.write_str(name),
        }
    }
}

impl Format {
    /// Tells the format by magic from an image's first [`DETECT_BYTES`].
    pub fn detect(head: &[u8]) -> Detected {
        if head.starts_with(QCOW_MAGIC) {
            return Detected::Known(Format::Qcow2);
        }
        if let Some(compression) = Compression::detect(head) {
            return Detected::Compressed(compression);
        }
        FOREIGN
            .iter()
            .find(|(offset, magic, _)| head.get(*offset..).is_some_and(|rest| rest.starts_with(magic)))
            .map_or(Detected::Known(Format::Raw), |(_, _, name)| Detected::Foreign(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_magic_is_seen_and_ordinary_disks_are_raw() {
        for (offset, magic, name) in FOREIGN {
            let mut head = vec![0u8; DETECT_BYTES];
            head[*offset..offset + magic.len()].copy_from_slice(magic);
            assert_eq!(Format::detect(&head), Detected::Foreign(name));
        }
        assert_eq!(Format::detect(b"QFI\xfb\0\0\0\x03"), Detected::Known(Format::Qcow2));
        let mut mbr = vec![0u8; DETECT_BYTES];
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(Format::detect(&mbr), Detected::Known(Format::Raw));
        assert_eq!(Format::detect(b""), Detected::Known(Format::Raw));
        assert_eq!(Format::detect(b"QFI"), Detected::Known(Format::Raw));
    }

    #[test]
    fn names_read_back() {
        for format in [Format::Raw, Format::Qcow2] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("vmdk".parse::<Format>().is_err());
    }
}

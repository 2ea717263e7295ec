//! The format that an image is declared to have.

use std::fmt;
use std::str::FromStr;

/// The format an image is declared to have. What it really is, [`crate::Kind`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The bytes of the disk, one for one. Ironic's `gpt` means the same and is read as this.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
    /// An ISO 9660 or UDF file system, written as it is.
    Iso,
    /// Nothing is declared: the image's first bytes decide. Ironic's `unknown`.
    Detect,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Iso => "iso",
            Format::Detect => "unknown",
        })
    }
}

/// The format name is not one that can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "image format {0:?} is not supported: convert the image with `qemu-img convert -O qcow2`, and publish it as raw or qcow2"
)]
pub struct FormatError(String);

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text.to_ascii_lowercase().as_str() {
            "raw" | "gpt" => Ok(Format::Raw),
            "qcow2" => Ok(Format::Qcow2),
            "iso" => Ok(Format::Iso),
            "" | "unknown" => Ok(Format::Detect),
            _ => Err(FormatError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for format in [Format::Raw, Format::Qcow2, Format::Iso, Format::Detect] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("gpt".parse(), Ok(Format::Raw));
        assert_eq!("".parse(), Ok(Format::Detect));
    }

    #[test]
    fn an_unsupported_name_says_how_to_convert() {
        for name in ["vmdk", "vhd", "vhdx", "vdi", "qed", "luks", "ami"] {
            let text = name.parse::<Format>().unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("qemu-img convert -O qcow2"), "{text}");
        }
    }
}

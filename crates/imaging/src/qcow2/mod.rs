//! QEMU's copy-on-write format, read in file order and taken apart as it streams by.
//!
//! The format (docs/interop/qcow2.rst in QEMU) needs its tables before its data: where the source can read parts, the
//! tables are read first ([`plan`]); else they are picked out of the stream, which runs a bounded distance ahead of the
//! writing ([`stream`]). Nothing that an image says is trusted: sizes are bounded, sums are checked, and what would make
//! this reader open other files (backing file, external data file) is refused, as are encrypted images.

mod decompress;
mod header;
mod layout;
mod map;
mod peek;
mod plan;
mod stream;
mod tables;

pub(crate) use decompress::{Batch, Codec, Decompressor};
pub(crate) use peek::peek;
pub(crate) use plan::plan;

use crate::inspect::Rule;

/// A rule that a qcow2 image breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// The file ends inside something that must be whole.
    #[error("the file ends inside its {0}")]
    Truncated(&'static str),
    /// Neither version 2 nor 3.
    #[error("rule {rule}: version {0} is not supported, versions 2 and 3 are", rule = Rule::Qcow2Version)]
    Version(u32),
    /// It is an overlay of another file.
    #[error(
        "rule {}: it has a backing file: flatten it with qemu-img convert -O qcow2",
        Rule::Qcow2BackingFile
    )]
    BackingFile,
    /// Its data lies in another file.
    #[error(
        "rule {}: it keeps its data in an external file: convert it with qemu-img convert -O qcow2",
        Rule::Qcow2ExternalData
    )]
    ExternalData,
    /// It is encrypted (1 is the old AES, 2 is LUKS).
    #[error("rule {rule}: it is encrypted (method {0}): publish it unencrypted", rule = Rule::Qcow2Encryption)]
    Encrypted(u32),
    /// The sub-clusters of a cluster contradict each other or its place.
    #[error("the sub-cluster bitmap {0:#018x} of a table entry contradicts itself or the entry")]
    Subclusters(u64),
    /// It uses incompatible features that this reader does not know.
    #[error("rule {rule}: it uses unknown incompatible features ({0:#x})", rule = Rule::Qcow2Features)]
    UnknownFeatures(u64),
    /// Its compression type is unknown, or contradicts its feature bits.
    #[error("its compression type {0} is unknown or contradicts its feature bits")]
    Compression(u8),
    /// A header field has a value that the format does not allow.
    #[error("its {field} is {value}, which the format does not allow")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Its tables need more memory than an agent may spend.
    #[error("its {0} needs more memory than allowed: convert it with a larger cluster_size")]
    TooFragmented(&'static str),
    /// A table entry has bits set that the format reserves.
    #[error("a table entry {0:#018x} has reserved bits set or is not aligned")]
    Entry(u64),
    /// A table entry points beyond the end of the file.
    #[error("a table entry points beyond the end of the file, to offset {0}")]
    BeyondEnd(u64),
    /// A table of the header reaches beyond the end of the file.
    #[error(
        "its {table} reaches to offset {end}, beyond the end of the file; the file was cut off or is damaged"
    )]
    TableBeyondEnd {
        /// Which table.
        table: &'static str,
        /// The offset after its last byte.
        end: u64,
    },
    /// The tables come too late in the file for a source that can not be read in parts.
    #[error(
        "its tables come after the data they map, and the server does not honour Range requests: \
         enable them, or rewrite the image with qemu-img convert"
    )]
    TablesTooLate,
    /// The tables in the stream are not those that were read before.
    #[error("its tables changed while it was read")]
    Changed,
    /// A compressed cluster does not decompress to a cluster.
    #[error("a compressed cluster is damaged ({0})")]
    Compressed(String),
}

impl Qcow2Error {
    /// Whether damage in transfer can look like this, so that the digest decides what to tell.
    pub(crate) fn may_be_damage(&self) -> bool {
        !matches!(self, Qcow2Error::TablesTooLate | Qcow2Error::TooFragmented(_))
    }

    /// The rule that is broken, where it is one and not damage.
    pub(crate) fn rule(&self) -> Option<Rule> {
        match self {
            Qcow2Error::Version(_) => Some(Rule::Qcow2Version),
            Qcow2Error::BackingFile => Some(Rule::Qcow2BackingFile),
            Qcow2Error::ExternalData => Some(Rule::Qcow2ExternalData),
            Qcow2Error::Encrypted(_) => Some(Rule::Qcow2Encryption),
            Qcow2Error::UnknownFeatures(_) => Some(Rule::Qcow2Features),
            Qcow2Error::Truncated(_)
            | Qcow2Error::Subclusters(_)
            | Qcow2Error::Compression(_)
            | Qcow2Error::Field { .. }
            | Qcow2Error::TooFragmented(_)
            | Qcow2Error::Entry(_)
            | Qcow2Error::BeyondEnd(_)
            | Qcow2Error::TableBeyondEnd { .. }
            | Qcow2Error::TablesTooLate
            | Qcow2Error::Changed
            | Qcow2Error::Compressed(_) => None,
        }
    }

    pub(crate) fn at(self, offset: u64) -> crate::Error {
        crate::Error::Qcow2 { offset, source: self }
    }
}

/// A big-endian number at `offset`, if `bytes` reaches that far.
fn be64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(offset..offset.checked_add(8)?)?.try_into().ok()?))
}

/// As [`be64`], four bytes.
fn be32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?))
}

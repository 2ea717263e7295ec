//! How much memory unpacking an image may take. The window or dictionary of an image decides how much it needs.

use std::fmt;

/// The memory that unpacking an image may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderMemory {
    /// A quarter of the bytes that are available, and never less than [`DecoderMemory::LEAST`]. `None` where it is not known how
    /// many are available.
    Share(Option<u64>),
    /// This many bytes, whatever is available.
    Limit(u64),
}

impl DecoderMemory {
    /// Bytes that an image may take on every machine: a window of 16 MiB and what else a decompressor needs.
    pub const LEAST: u64 = 24 * 1024 * 1024;

    /// Returns the limit in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            DecoderMemory::Share(available) => (available.unwrap_or(0) / 4).max(Self::LEAST),
            DecoderMemory::Limit(bytes) => bytes,
        }
    }
}

impl Default for DecoderMemory {
    fn default() -> Self {
        DecoderMemory::Share(None)
    }
}

/// The limit, and where it comes from.
impl fmt::Display for DecoderMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.bytes() >> 20)?;
        match self {
            DecoderMemory::Limit(_) => f.write_str(" (as configured)"),
            DecoderMemory::Share(Some(available)) => {
                write!(
                    f,
                    " ({} MiB are available, and by default a quarter of that may be used)",
                    available >> 20
                )
            }
            DecoderMemory::Share(None) => f.write_str(" (the default)"),
        }
    }
}

/// A decompressor's need of more bytes than it may take.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes of memory are needed")]
pub(super) struct NeedsMemory(pub(super) u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_is_available_may_be_taken_and_never_less_than_the_least() {
        let mib = 1024 * 1024;
        for (memory, expected) in [
            (DecoderMemory::Share(None), 24),
            (DecoderMemory::Share(Some(0)), 24),
            (DecoderMemory::Share(Some(96 * mib)), 24),
            (DecoderMemory::Share(Some(400 * mib)), 100),
            (DecoderMemory::Limit(3 * mib), 3),
        ] {
            assert_eq!(memory.bytes(), expected * mib, "{memory}");
        }
        assert!(DecoderMemory::Share(Some(80 * mib)).to_string().starts_with("24 MiB (80 MiB are available"));
    }
}

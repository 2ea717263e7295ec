//! What goes wrong with disks. Refusals to destroy something are a type of their own, [`crate::Refusal`].

use std::io;

/// A failure, with the operation and what it worked on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the operands that the text names
pub enum Error {
    /// The system refused to read or write.
    #[error("{action}")]
    Io {
        action: String,
        #[source]
        source: io::Error,
    },
    /// An allow-list that can not be read.
    #[error("disk allow-list entry `{entry}`: {reason}")]
    AllowList { entry: String, reason: String },
    /// A root device hint that can not be read.
    #[error("root device hint `{hint}`: {reason}")]
    Hint { hint: String, reason: String },
    /// A partition table that is damaged or that does not suit what was asked.
    #[error("partition table of {device}: {reason}")]
    Table { device: String, reason: String },
    /// A config drive that can not be decoded or placed.
    #[error("config drive: {reason}")]
    ConfigDrive { reason: String },
    /// A disk that could not be made to erase itself.
    #[error("erasing {device}: {reason}")]
    Erase { device: String, reason: String },
    /// A disk that takes requests and does not end them.
    #[error(
        "{device} does not answer: no request ended for {seconds} s (at byte {at}), and one is still under way; power-cycle the \
         machine before the disk is used again, and replace the disk if the error comes back"
    )]
    Stalled { device: String, seconds: u64, at: u64 },
    /// A file system that can not be read.
    #[error("FAT file system: {reason}")]
    Fat { reason: String },
    /// The same of an optical disc's.
    #[error("ISO 9660 file system: {reason}")]
    Iso { reason: String },
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    pub(crate) fn config_drive(reason: impl Into<String>) -> Self {
        Self::ConfigDrive { reason: reason.into() }
    }
}

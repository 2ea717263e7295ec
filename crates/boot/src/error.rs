//! What goes wrong with boot entries.

use std::io;

/// A failure, with the operation and what it worked on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the operands that the text names
pub enum Error {
    /// The EFI system partition can not be read.
    #[error("reading the EFI system partition {partition} of {device}")]
    Esp {
        device: String,
        partition: u32,
        #[source]
        source: disk::Error,
    },
    /// efivarfs is not there.
    #[error("{path} holds no EFI variables; is efivarfs mounted there?")]
    NoVariables { path: String },
    /// A variable can not be read.
    #[error("reading the EFI variable {name}")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    /// A variable can not be written or deleted.
    #[error("{action} the EFI variable {name}{advice}")]
    Write {
        action: &'static str,
        name: String,
        advice: &'static str,
        #[source]
        source: io::Error,
    },
    /// A variable reads back differently.
    #[error("the firmware did not keep the EFI variable {name} as it was written")]
    NotKept { name: String },
    /// All numbers are taken.
    #[error("all 65536 boot entries are in use; delete some (clean step `clean_uefi_nvram`)")]
    NoFreeNumber,
    /// A boot entry that would not fit its format.
    #[error("the boot entry `{label}` is too long")]
    TooLong { label: String },
}

impl Error {
    pub(crate) fn write(action: &'static str, name: &str, source: io::Error) -> Self {
        // efivarfs gives ENOSPC when the firmware's store is full, EROFS when mounted read-only, EIO for firmware errors.
        let advice = match source.kind() {
            io::ErrorKind::StorageFull => {
                "; the firmware's variable store is full: delete entries (clean step `clean_uefi_nvram`) or crash records \
                 (`erase_pstore`)"
            }
            io::ErrorKind::ReadOnlyFilesystem => "; efivarfs is mounted read-only: mount it read-write",
            io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied => "; the firmware refuses it",
            _ => "",
        };
        Self::Write { action, name: name.into(), advice, source }
    }
}

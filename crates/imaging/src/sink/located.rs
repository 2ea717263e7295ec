//! An error of a disk that knows where it happened: with several writes under way, whoever hears of it does not.

use std::io;

/// What failed, in bytes from the start of the disk.
#[derive(Debug, thiserror::Error)]
#[error("{operation} at offset {offset}, {length} bytes: {source}")]
pub(crate) struct Located {
    /// `writing`, `zeroing`, `reading`.
    pub(crate) operation: &'static str,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) source: io::Error,
}

impl Located {
    /// An error of the kernel on a range that was inside the disk when it was opened.
    pub(super) fn new(operation: &'static str, offset: u64, length: u64, error: io::Error) -> Self {
        // That there is no space for it now means that the disk has no size any more.
        let source = match error.kind() {
            io::ErrorKind::StorageFull => io::Error::new(
                io::ErrorKind::NotFound,
                format!("the disk is gone, it was pulled or its controller lost it ({error})"),
            ),
            _ => error,
        };
        Self { operation, offset, length, source }
    }

    /// The place out of an error; the error as it was where it has none.
    pub(crate) fn of(error: io::Error) -> Result<Self, io::Error> {
        error.downcast()
    }
}

impl From<Located> for io::Error {
    fn from(located: Located) -> Self {
        io::Error::new(located.source.kind(), located)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_and_cause_come_out_of_an_error_whole() {
        let error = io::Error::from(Located::new("writing", 4096, 512, io::Error::from_raw_os_error(5)));
        let located = Located::of(error).unwrap();
        assert_eq!((located.operation, located.offset, located.length), ("writing", 4096, 512));
        assert_eq!(located.source.raw_os_error(), Some(5));
        assert!(Located::of(io::ErrorKind::NotFound.into()).is_err());
    }

    #[test]
    fn a_disk_without_room_for_its_own_sectors_is_said_to_be_gone() {
        let located = Located::new("writing", 0, 512, io::Error::from_raw_os_error(28)); // ENOSPC
        assert!(located.source.to_string().starts_with("the disk is gone"), "{located}");
    }
}

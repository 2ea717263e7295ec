//! `file:` sources: an image on a local file system, for offline use.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// An open file and its size.
pub(crate) struct LocalFile {
    path: PathBuf,
    file: File,
    pub(crate) size: Option<u64>,
}

impl LocalFile {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let wrap = |source| Error::File { path: path.to_owned(), offset: 0, source };
        // Looked at before it is opened: opening a pipe waits for a writer, maybe for ever.
        let kind = std::fs::metadata(path).map_err(wrap)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let reason = "it is neither a file nor a block device";
            return Err(wrap(io::Error::new(ErrorKind::InvalidInput, reason)));
        }
        let file = File::open(path).map_err(wrap)?;
        // The size of a block device is found by reading to its end.
        let size = if kind.is_file() { Some(file.metadata().map_err(wrap)?.len()) } else { None };
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// Fills `space` from `offset` on; less only where the file ends.
    pub(crate) fn read(&self, offset: u64, space: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0usize;
        while let Some(rest) = space.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(rest, at) {
                Ok(0) if self.size.is_some_and(|size| at < size) => {
                    return Err(self.failed(at, io::Error::new(ErrorKind::UnexpectedEof, "it was cut short")));
                }
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(at, source)),
            }
        }
        Ok(done)
    }

    fn failed(&self, offset: u64, source: io::Error) -> Error {
        Error::File { path: self.path.clone(), offset, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrinks_is_an_error_and_not_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 1000]).unwrap();
        let local = LocalFile::open(file.path()).unwrap();
        let mut space = [0; 600];
        assert_eq!(local.read(0, &mut space).unwrap(), 600);
        file.as_file().set_len(800).unwrap();
        assert!(local.read(600, &mut space).unwrap_err().report().contains("offset 800"));
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        for path in ["/", "/dev/null", "/dev/tty"] {
            let error = LocalFile::open(path.as_ref()).err().unwrap();
            assert!(
                error.report().contains("neither a file nor a block device"),
                "{path}: {}",
                error.report()
            );
        }
    }
}

//! `file:` sources: an image on a local file system, for offline use.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
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
        let file = File::open(path).map_err(wrap)?;
        let metadata = file.metadata().map_err(wrap)?;
        if metadata.is_dir() {
            return Err(wrap(ErrorKind::IsADirectory.into()));
        }
        // A device or a pipe has no size that counts.
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// Fills `space` from `offset` on; less only where the file ends.
    pub(crate) fn read(&self, offset: u64, space: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0usize;
        while let Some(rest) = space.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(done as u64);
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::File { path: self.path.clone(), offset: at, source }),
            }
        }
        Ok(done)
    }
}

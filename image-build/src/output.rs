//! The output folder. Files are written under other names and renamed when all of them are whole, so that an interrupted
//! build leaves the ones from before as they were.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// An output folder that this process alone writes to.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    // Held until dropped; the kernel lets go of it however the process ends.
    _lock: File,
    written: Vec<&'static str>,
}

impl Output {
    /// Makes the folder if need be, and locks it against a second build.
    pub fn open(folder: &Path) -> Result<Output> {
        fs::create_dir_all(folder).map_err(Error::file("making the output folder", folder))?;
        let lock = File::open(folder).map_err(Error::file("opening", folder))?;
        match lock.try_lock() {
            Ok(()) => Ok(Output { folder: folder.to_path_buf(), _lock: lock, written: Vec::new() }),
            Err(TryLockError::WouldBlock) => Err(Error::bad(
                folder,
                "another ferric-image is building into this folder; wait for it, or give another --output",
            )),
            Err(TryLockError::Error(error)) => Err(Error::file("locking", folder)(error)),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where `name` will be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts the file that will be `name`.
    pub fn create(&mut self, name: &'static str) -> Result<File> {
        let path = self.partial(name);
        let file = File::create(&path).map_err(Error::file("creating", &path))?;
        self.written.push(name);
        Ok(file)
    }

    /// Flushes all files to disk and gives them their names.
    pub fn commit(mut self) -> Result<()> {
        for name in &self.written {
            let path = self.partial(name);
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::file("flushing", &path))?;
        }
        for name in &self.written {
            let path = self.path(name);
            fs::rename(self.partial(name), &path).map_err(Error::file("renaming to", &path))?;
        }
        self.written.clear();
        Ok(())
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}.partial"))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        for name in &self.written {
            // Of a build that failed: litter, which the next build would overwrite anyway.
            let _ = fs::remove_file(self.partial(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn old_files_stay_until_all_new_ones_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernel"), b"old").unwrap();
        let mut output = Output::open(folder.path()).unwrap();
        output.create("kernel").unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(folder.path().join("kernel")).unwrap(), b"old");
        output.commit().unwrap();
        assert_eq!(fs::read(folder.path().join("kernel")).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_build_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut output = Output::open(folder.path()).unwrap();
        output.create("kernel").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_second_build_into_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Output::open(folder.path()).unwrap();
        assert!(Output::open(folder.path()).unwrap_err().to_string().contains("another ferric-image"));
        drop(first);
        Output::open(folder.path()).unwrap();
    }
}

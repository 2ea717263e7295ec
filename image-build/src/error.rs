//! The one error type of this crate. Texts name the operation and its operands, and end with what to do where a person can mend it.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong while building or reading a ramdisk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read, written or renamed.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried, as a verb: `reading`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Something read from a file is not what it should be.
    #[error("{}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Writing the compressed archive failed.
    #[error("compressing the initramfs")]
    Compress(#[source] io::Error),
    /// The request itself can not be met.
    #[error("{0}")]
    Request(String),
    /// A command of the system failed.
    #[error("{0}")]
    Command(String),
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an I/O error that happened while doing `action` to `path`.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::File { action, path: path.to_path_buf(), source }
    }

    /// The content of `path` is not acceptable.
    pub fn bad(path: &Path, problem: impl Into<String>) -> Error {
        Error::BadFile { path: path.to_path_buf(), problem: problem.into() }
    }
}

//! Bytes at offsets: what partition tables and file systems are read from.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Error;

/// Something with a length whose bytes can be read at any offset.
pub trait Source {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `data` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` beyond the end, else what the system says.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// `length` bytes at `offset`.
    fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length));
        // Before the allocation: a length read from disk must not cost memory.
        if end.is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut data = vec![0; length];
        self.read_at(offset, &mut data)?;
        Ok(data)
    }
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        data.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, data)
    }
}

/// Bytes that can be read and written at offsets: the disk, or what stands for it until it is committed.
pub trait Store: Source {
    /// **Writes** all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// A part of a source, such as a partition.
pub struct Region<'a, S: Source + ?Sized> {
    source: &'a S,
    start: u64,
    length: u64,
}

impl<'a, S: Source + ?Sized> Region<'a, S> {
    /// `length` bytes of `source` from `start` on, cut at the source's end.
    pub fn new(source: &'a S, start: u64, length: u64) -> Self {
        let start = start.min(source.size());
        Self { source, start, length: length.min(source.size() - start) }
    }
}

impl<S: Source + ?Sized> Source for Region<'_, S> {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_at(self.start + offset, data)
    }
}

/// An open block device or image file, read through the page cache.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    size: u64,
    sector_bytes: u32,
}

impl Device {
    /// Opens a device or an image file for reading.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let action = || format!("opening {}", path.display());
        Self::new(sys::device::open_read(path).map_err(Error::io(action()))?, path)
            .map_err(Error::io(action()))
    }

    /// Opens a device for **writing**, for this process alone. Only [`crate::Target`] may say which.
    pub(crate) fn open_exclusive(path: &Path) -> Result<Self, Error> {
        let action = || format!("opening {} for writing", path.display());
        Self::new(sys::device::open_exclusive(path).map_err(Error::io(action()))?, path)
            .map_err(Error::io(action()))
    }

    /// Opens a device for **writing** beside the arrays that hold parts of it. Only [`crate::Holder`] may say which.
    pub(crate) fn open_beside_arrays(path: &Path) -> Result<Self, Error> {
        let action = || format!("opening {} for writing", path.display());
        Self::new(sys::device::open_shared(path).map_err(Error::io(action()))?, path)
            .map_err(Error::io(action()))
    }

    fn new(mut file: File, path: &Path) -> io::Result<Self> {
        let size = file.seek(SeekFrom::End(0))?;
        let sector_bytes = sys::device::logical_sector_bytes(&file)?;
        Ok(Self { file, path: path.into(), size, sector_bytes })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Logical sector size in bytes; 512 for an image file.
    pub fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// **Writes** all of `data` at `offset`.
    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.file.write_all_at(data, offset).map_err(Error::io(format!(
            "writing {} bytes to {} at {offset}",
            data.len(),
            self.path.display()
        )))
    }

    /// Waits until everything written is on stable storage.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io(format!("flushing {}", self.path.display())))
    }
}

impl Source for Device {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::{Ref, RefCell};

    use super::*;

    /// A disk in memory.
    pub(crate) struct Memory(RefCell<Vec<u8>>);

    impl Memory {
        pub(crate) fn new(bytes: Vec<u8>) -> Self {
            Self(RefCell::new(bytes))
        }

        pub(crate) fn bytes_now(&self) -> Ref<'_, Vec<u8>> {
            self.0.borrow()
        }

        pub(crate) fn into_inner(self) -> Vec<u8> {
            self.0.into_inner()
        }
    }

    impl Source for Memory {
        fn size(&self) -> u64 {
            self.0.borrow().size()
        }

        fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
            self.0.borrow().read_at(offset, data)
        }
    }

    impl Store for Memory {
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let at = usize::try_from(offset).unwrap();
            self.0.borrow_mut()[at..at + data.len()].copy_from_slice(data);
            Ok(())
        }
    }
}

//! An image made for sectors of one size on a disk with sectors of another: the table rewritten, FAT volumes made anew.
//!
//! Called by `imaging` after the digest matched and before the disk boots; what it knows of tables and file systems is in
//! `disk`.

use std::cell::RefCell;
use std::io;

use disk::format::refit;
use disk::table::Translation;
use disk::{Source, Store};
use imaging::{Draft, Translate};

/// Rewrites for sectors of this many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForSectors(pub(super) u32);

/// As much of a disk's start as a table may take.
const HEAD: u64 = 1 << 20;

impl Translate for ForSectors {
    fn judge(&self, head: &[u8], table: u32, disk: u64) -> Result<(), String> {
        Translation::plan(head, table, self.0, disk).map(|_| ())
    }

    fn rewrite(&self, disk: &mut dyn Draft, table: u32, _image: u64) -> Result<(), String> {
        let draft = Shared { size: disk.size(), draft: RefCell::new(disk) };
        let length = usize::try_from(HEAD.min(draft.size)).map_err(|error| error.to_string())?;
        let head = draft.bytes(0, length).map_err(|error| format!("reading the image's table: {error}"))?;
        let translation = Translation::plan(&head, table, self.0, draft.size)?;
        let anew = refit(&Image(&draft), &draft, translation.partitions(), self.0)?;
        translation.write(&draft).map_err(|error| format!("writing the table: {error}"))?;
        tracing::info!(from = table, to = self.0, fat_partitions = ?anew, "partition table rewritten");
        Ok(())
    }
}

/// The disk that an image is written to, as what tables and file systems are read from and written to.
struct Shared<'a> {
    size: u64,
    draft: RefCell<&'a mut dyn Draft>,
}

impl Source for Shared<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.draft.borrow_mut().read_at(offset, data)
    }
}

impl Store for Shared<'_> {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.draft.borrow_mut().write_at(offset, data)
    }
}

/// The same disk as the image has it, whatever is written meanwhile.
struct Image<'s, 'a>(&'s Shared<'a>);

impl Source for Image<'_, '_> {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.draft.borrow_mut().read_image(offset, data)
    }
}

#[cfg(test)]
mod tests;

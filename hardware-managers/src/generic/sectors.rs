//! An image made for sectors of one size on a disk with sectors of another: the table rewritten, FAT volumes made anew.
//!
//! Called by `imaging` after the digest matched and before the disk boots; what it knows of tables and file systems is in
//! `disk`.

use std::cell::RefCell;
use std::collections::VecDeque;
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
        let image = Image { draft: &draft, blocks: RefCell::default() };
        let anew = refit(&image, &draft, translation.partitions(), self.0)?;
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

/// The same disk as the image has it, whatever is written meanwhile. A file system is read in small pieces, each of which would cost
/// a read past all caches.
struct Image<'s, 'a> {
    draft: &'s Shared<'a>,
    /// The last blocks that were read, the newest at the end: one of an allocation table, one of a file, two of directories.
    blocks: RefCell<VecDeque<(u64, Vec<u8>)>>,
}

/// Bytes that are read at once.
const BLOCK: u64 = 128 << 10;
const BLOCKS: usize = 4;

impl Image<'_, '_> {
    fn block(&self, start: u64) -> io::Result<Vec<u8>> {
        let mut blocks = self.blocks.borrow_mut();
        let there = blocks.iter().position(|(at, _)| *at == start).and_then(|index| blocks.remove(index));
        if let Some((_, block)) = there {
            return Ok(block);
        }
        let length = BLOCK.min(self.draft.size.saturating_sub(start));
        let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.draft.draft.borrow_mut().read_image(start, &mut block)?;
        Ok(block)
    }

    fn keep(&self, start: u64, block: Vec<u8>) {
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() >= BLOCKS {
            blocks.pop_front();
        }
        blocks.push_back((start, block));
    }
}

impl Source for Image<'_, '_> {
    fn size(&self) -> u64 {
        self.draft.size
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let start = at - at % BLOCK;
            let block = self.block(start)?;
            let from = usize::try_from(at - start).map_err(io::Error::other)?;
            let count = rest.len().min(block.len().saturating_sub(from));
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(block.get(from..from + count).unwrap_or_default());
            self.keep(start, block);
            at += u64::try_from(count).map_err(io::Error::other)?;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Changes to a verified image. They stay in memory until all are known, so what fails on the way leaves the disk alone; then each
//! goes to the disk once and in order, and is read back there where that is asked for.

use std::collections::BTreeMap;
use std::io;

use sys::AlignedBuffer;

use crate::error::Error;
use crate::hold_back::Unverified;
use crate::translate::Draft;

/// As large as the largest sectors, so that whoever writes sectors writes whole pages.
const PAGE: usize = 4096;
/// Pages that lie side by side are written up to so many at a time: 256 KiB.
const AT_ONCE: usize = 64;

/// Changes, and the disk below them.
pub(crate) struct Changes<'d, 'a> {
    disk: &'d mut Unverified<'a>,
    /// By number. `None`: zeroes.
    pages: BTreeMap<u64, Option<Box<[u8]>>>,
    /// Of the disk, which tells more than what is made of it on the way up.
    failed: Option<Error>,
}

impl<'d, 'a> Changes<'d, 'a> {
    pub(crate) fn new(disk: &'d mut Unverified<'a>) -> Self {
        Self { disk, pages: BTreeMap::new(), failed: None }
    }

    /// What the disk failed with, if it did.
    pub(crate) fn failed(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// **Writes** all changes, except for what is held back, and compares if asked to: what is held back is compared when it is committed.
    pub(crate) fn apply(self, read_back: bool) -> Result<(), Error> {
        let Self { disk, pages, .. } = self;
        let end = disk.size();
        let runs = runs(&pages, end);
        for run in &runs {
            match run.is_zero {
                true => disk.zero_range(run.start, run.length as u64)?,
                false => disk.write_at(run.start, &bytes(&pages, run))?,
            }
        }
        if !read_back {
            return Ok(());
        }
        disk.flush()?;
        let mut buffer = AlignedBuffer::new(PAGE * AT_ONCE);
        for run in &runs {
            let found = buffer.get_mut(..run.length).unwrap_or_default();
            disk.read_at(run.start, found)?;
            if *found != bytes(&pages, run) {
                return Err(Error::ReadBack { offset: run.start, length: run.length as u64 });
            }
        }
        Ok(())
    }

    /// The number of a page, where `offset` lies in it, and how long it is: the last one of a disk may be shorter.
    fn place(&self, offset: u64) -> io::Result<(u64, usize, usize)> {
        let page = PAGE as u64;
        let number = offset / page;
        let length = page.min(self.disk.size().saturating_sub(number * page));
        let fit = |value: u64| usize::try_from(value).map_err(io::Error::other);
        Ok((number, fit(offset % page)?, fit(length)?))
    }

    fn read_disk(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, space).map_err(|error| {
            let text = io::Error::other(error.report());
            if matches!(error, Error::Disk { .. }) {
                self.failed.get_or_insert(error);
            }
            text
        })
    }

    fn page(&mut self, number: u64, length: usize) -> io::Result<&mut [u8]> {
        let fresh = match self.pages.get(&number) {
            Some(Some(_)) => None,
            Some(None) => Some(vec![0; length]),
            None => {
                let mut fresh = vec![0; length];
                self.read_disk(number * PAGE as u64, &mut fresh)?;
                Some(fresh)
            }
        };
        let page = self.pages.entry(number).or_default();
        if let Some(fresh) = fresh {
            *page = Some(fresh.into_boxed_slice());
        }
        page.as_deref_mut().ok_or_else(|| io::Error::other("a page is missing"))
    }
}

/// Pages side by side, in bytes.
struct Run {
    start: u64,
    length: usize,
    is_zero: bool,
}

fn runs(pages: &BTreeMap<u64, Option<Box<[u8]>>>, end: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, page) in pages {
        let start = number * PAGE as u64;
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
        let is_zero = page.is_none();
        match runs.last_mut() {
            Some(run)
                if run.is_zero == is_zero
                    && run.start + run.length as u64 == start
                    && run.length < AT_ONCE * PAGE =>
            {
                run.length += length;
            }
            _ => runs.push(Run { start, length, is_zero }),
        }
    }
    runs
}

fn bytes(pages: &BTreeMap<u64, Option<Box<[u8]>>>, run: &Run) -> Vec<u8> {
    if run.is_zero {
        return vec![0; run.length];
    }
    let first = run.start / PAGE as u64;
    let end = first + run.length.div_ceil(PAGE) as u64;
    pages.range(first..end).filter_map(|(_, page)| page.as_deref()).flatten().copied().collect()
}

impl Draft for Changes<'_, '_> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        // First the disk, then what is written above it: there is little of that in most reads.
        let end = offset.saturating_add(space.len() as u64);
        let numbers = offset / PAGE as u64..end.div_ceil(PAGE as u64);
        let pages = self.pages.range(numbers.clone()).count() as u64;
        if pages < numbers.end - numbers.start {
            self.read_disk(offset, space)?;
        }
        for (number, page) in self.pages.range(numbers) {
            let start = number * PAGE as u64;
            let length = page.as_deref().map_or(PAGE, <[u8]>::len);
            let from = usize::try_from(offset.saturating_sub(start)).map_err(io::Error::other)?;
            let at = usize::try_from(start.saturating_sub(offset)).map_err(io::Error::other)?;
            let count = (length - from).min(space.len() - at);
            let part = space.get_mut(at..at + count).unwrap_or_default();
            match page {
                Some(page) => part.copy_from_slice(page.get(from..from + count).unwrap_or_default()),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn read_image(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        self.read_disk(offset, space)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= self.disk.size());
        if end.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the range ends beyond the disk"));
        }
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (number, from, length) = self.place(at)?;
            let (now, later) = rest.split_at(rest.len().min(length - from));
            let is_zero = now.iter().all(|byte| *byte == 0);
            match (is_zero, now.len() == length) {
                (true, true) => drop(self.pages.insert(number, None)),
                (true, false) if self.pages.get(&number) == Some(&None) => {}
                (false, true) => drop(self.pages.insert(number, Some(now.into()))),
                (_, false) => {
                    let page = self.page(number, length)?;
                    page.get_mut(from..from + now.len()).unwrap_or_default().copy_from_slice(now);
                }
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

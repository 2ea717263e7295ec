//! Which bytes of the file belong where on the disk, in the order of the file. Compact, for it is what grows with an image.
//!
//! The disk is counted in grains: clusters, or sub-clusters where an image has them.

use super::Qcow2Error;
use super::header::Header;

/// The most extents kept at a time, 16 bytes each: 16 MiB, or 64 GiB of compressed 64 KiB clusters. Uncompressed clusters
/// that follow each other in file and disk share one extent.
const LIMIT: usize = 1024 * 1024;

/// Set in [`Extent::size`] for a compressed cluster.
const COMPRESSED: u32 = 1 << 31;

/// Grains of the disk, or one compressed cluster, and where the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offset in the file.
    pub(crate) host: u64,
    /// First grain on the disk.
    pub(crate) guest: u32,
    /// Grains; or, with the top bit, bytes of compressed data rounded up to whole sectors, in sectors.
    size: u32,
}

/// What an extent's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This many grains as they are.
    Plain(u32),
    /// One compressed cluster, in this many sectors from the one where it starts.
    Compressed(u32),
}

impl Extent {
    pub(crate) fn kind(&self) -> Kind {
        if self.size & COMPRESSED == 0 {
            Kind::Plain(self.size)
        } else {
            Kind::Compressed(self.size & !COMPRESSED)
        }
    }
}

/// Extents still to come, in the order of the file.
#[derive(Default)]
pub(crate) struct Map {
    extents: Vec<Extent>,
    next: usize,
    sorted: bool,
}

impl Map {
    /// Adds grains of `grain` bytes. Runs that continue the last one added are joined.
    pub(crate) fn add(&mut self, host: u64, guest: u32, kind: Kind, grain: u64) -> Result<(), Qcow2Error> {
        let size = match kind {
            Kind::Plain(grains) => {
                if let Some(last) = self.extents.get_mut(self.next..).and_then(<[Extent]>::last_mut)
                    && last.size & COMPRESSED == 0
                    && last.size + grains < COMPRESSED
                    && last.guest.checked_add(last.size) == Some(guest)
                    && last.host.checked_add(u64::from(last.size) * grain) == Some(host)
                {
                    last.size += grains;
                    return Ok(());
                }
                grains
            }
            Kind::Compressed(sectors) => sectors | COMPRESSED,
        };
        if self.extents.len() - self.next >= LIMIT {
            return Err(Qcow2Error::TooFragmented("map"));
        }
        if self.extents.len() == self.extents.capacity() {
            self.forget_used();
            // In steps, not doubling: doubling would need twice the bound for a moment.
            self.extents.reserve_exact(16 * 1024);
        }
        self.extents.push(Extent { host, guest, size });
        self.sorted = false;
        Ok(())
    }

    fn forget_used(&mut self) {
        self.extents.drain(..self.next);
        self.next = 0;
    }

    /// Where the file has the grain at this offset of the disk: for a compressed cluster, where the cluster is.
    pub(crate) fn find(&self, offset: u64, header: &Header) -> Option<(u64, Kind)> {
        let grain = header.grain();
        self.extents.iter().find_map(|extent| {
            let inside = (offset / grain).checked_sub(u64::from(extent.guest))?;
            match extent.kind() {
                Kind::Plain(grains) if inside < u64::from(grains) => {
                    Some((extent.host.checked_add(inside * grain)?, extent.kind()))
                }
                Kind::Compressed(_) if inside < header.cluster() / grain => {
                    Some((extent.host, extent.kind()))
                }
                Kind::Plain(_) | Kind::Compressed(_) => None,
            }
        })
    }

    /// The file offset of the next extent.
    pub(crate) fn peek(&mut self) -> Option<u64> {
        if !self.sorted {
            self.forget_used();
            self.extents.sort_unstable_by_key(|extent| extent.host);
            self.sorted = true;
        }
        self.extents.get(self.next).map(|extent| extent.host)
    }

    /// Takes the next extent if it starts before `end`.
    pub(crate) fn take_before(&mut self, end: u64) -> Option<Extent> {
        if self.peek()? >= end {
            return None;
        }
        let extent = self.extents.get(self.next).copied();
        self.next += 1;
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_and_extents_come_in_file_order() {
        let mut map = Map::default();
        map.add(0x50000, 7, Kind::Plain(1), 0x10000).unwrap();
        map.add(0x60000, 8, Kind::Plain(1), 0x10000).unwrap();
        map.add(0x70000, 10, Kind::Plain(1), 0x10000).unwrap();
        map.add(0x30000, 11, Kind::Plain(1), 0x10000).unwrap();
        map.add(0x41234, 12, Kind::Compressed(3), 0x10000).unwrap();
        let mut seen = Vec::new();
        while let Some(extent) = map.take_before(0x70000) {
            seen.push((extent.host, extent.guest, extent.kind()));
        }
        assert_eq!(
            seen,
            [(0x30000, 11, Kind::Plain(1)), (0x41234, 12, Kind::Compressed(3)), (0x50000, 7, Kind::Plain(2))]
        );
        // Later additions join neither what is gone nor disturb what is left.
        map.add(0x80000, 11, Kind::Plain(1), 0x10000).unwrap();
        assert_eq!(map.take_before(u64::MAX).map(|e| (e.host, e.kind())), Some((0x70000, Kind::Plain(2))));
        assert_eq!(map.take_before(u64::MAX), None);
    }

    #[test]
    fn the_map_is_bounded() {
        let mut map = Map::default();
        let added =
            (0u32..).take_while(|n| map.add(u64::from(*n) * 0x1000, 3, Kind::Compressed(1), 0x10000).is_ok());
        assert_eq!(added.count(), LIMIT);
    }
}

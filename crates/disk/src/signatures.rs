//! Signatures that lie beyond the first and last MiB of a disk or partition: second headers, mirrors and labels by which `wipefs`, or
//! the system that made them, still finds what was there. Reads only; [`crate::wipe_metadata`] clears them.

use std::io;

use crate::Source;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What is cleared where a signature does not say how long its block is.
const BLOCK: u64 = 64 * KIB;

/// A signature at fixed places: where blocks begin, where in the block the magic bytes are, and the bytes.
struct Fixed {
    starts: &'static [u64],
    at: u64,
    magic: &'static [u8],
}

const BCACHE: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];

/// Places from the start. Those of the first MiB are cleared in any case.
const FIXED: &[Fixed] = &[
    // Ceph writes copies of a BlueStore label at these places of large disks.
    Fixed { starts: &[GIB, 10 * GIB, 100 * GIB, 1000 * GIB], at: 0, magic: b"bluestore block device" },
    // Mirrors of the superblock.
    Fixed { starts: &[64 * MIB, 256 * GIB, 1024 * 1024 * GIB], at: 0x40, magic: b"_BHRfS_M" },
    // VMFS: the volume's header, then the file system's.
    Fixed { starts: &[MIB], at: 0, magic: &[0x0d, 0xd0, 0x01, 0xc0] },
    Fixed { starts: &[2 * MIB], at: 0, magic: &[0x5e, 0xf1, 0xab, 0x2f] },
    Fixed { starts: &[2 * MIB], at: 24, magic: &BCACHE },
    Fixed { starts: &[2 * MIB], at: 24, magic: &BCACHEFS },
    // Backups of OCFS2.
    Fixed { starts: &[GIB, 4 * GIB, 16 * GIB, 64 * GIB, 256 * GIB, 1024 * GIB], at: 0, magic: b"OCFSV2" },
];

/// Where the second header of LUKS2 may be, by the size of the first.
const LUKS2: [u64; 9] =
    [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB, 2 * MIB, 4 * MIB];
/// Sectors of 512 bytes from the end, for Promise FastTrak; the others of its places are in the last MiB.
const PROMISE: u64 = 3087;

/// Returns what is to be cleared in `source` (a disk, or a partition of it), as (start, length) in bytes. A place that cannot be read is
/// among it: what is there is not known. `beat` is called before each read, with its offset.
pub(crate) fn places<S: Source + ?Sized>(source: &S, beat: &mut dyn FnMut(u64)) -> Vec<(u64, u64)> {
    let mut look = Look { source, beat, found: Vec::new() };
    for Fixed { starts, at, magic } in FIXED {
        for start in *starts {
            look.at(*start, *at, magic, BLOCK);
        }
    }
    for start in LUKS2 {
        look.luks2(start, b"SKUL\xba\xbe");
    }
    look.luks2(0, b"LUKS\xba\xbe");
    if let Some(start) = (source.size() / 512).checked_sub(PROMISE) {
        look.at(start * 512, 0, b"Promise Technology, Inc.", BLOCK);
    }
    look.bcachefs();
    look.udf();
    look.found
}

struct Look<'a, S: Source + ?Sized> {
    source: &'a S,
    beat: &'a mut dyn FnMut(u64),
    found: Vec<(u64, u64)>,
}

impl<S: Source + ?Sized> Look<'_, S> {
    /// Reads some bytes; `None` beyond the end.
    fn read(&mut self, offset: u64, length: usize) -> Option<io::Result<Vec<u8>>> {
        let end = u64::try_from(length).ok().and_then(|length| offset.checked_add(length))?;
        (end <= self.source.size()).then(|| {
            (self.beat)(offset);
            self.source.bytes(offset, length)
        })
    }

    fn at(&mut self, start: u64, at: u64, magic: &[u8], length: u64) {
        let Some(offset) = start.checked_add(at) else { return };
        match self.read(offset, magic.len()) {
            Some(Ok(bytes)) if bytes == magic => self.found.push((start, length)),
            Some(Err(_)) => self.found.push((start, length)),
            Some(Ok(_)) | None => {}
        }
    }

    /// A header of LUKS2 with its JSON area, which says how to open each key slot.
    fn luks2(&mut self, start: u64, magic: &[u8]) {
        let Some(read) = self.read(start, 16) else { return };
        let Ok(bytes) = read else {
            self.found.push((start, BLOCK));
            return;
        };
        if bytes.get(..6) == Some(magic) && bytes.get(6..8) == Some(&[0, 2]) {
            let size = bytes.get(8..16).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
            self.found.push((start, size.unwrap_or_default().clamp(4 * KIB, 4 * MIB)));
        }
    }

    /// The copies that the layout of bcachefs names, in sectors of 512 bytes.
    fn bcachefs(&mut self) {
        const LAYOUT: u64 = 7 * 512;
        let Some(Ok(layout)) = self.read(LAYOUT, 512) else { return };
        if layout.get(..16) != Some(&BCACHEFS) {
            return;
        }
        let count = usize::from(layout.get(18).copied().unwrap_or_default()).min(61);
        for entry in layout.get(24..).unwrap_or_default().chunks_exact(8).take(count) {
            let sector = entry.try_into().map(u64::from_le_bytes).unwrap_or_default();
            if let Some(start) = sector.checked_mul(512) {
                self.at(start, 24, &BCACHEFS, BLOCK);
            }
        }
    }

    /// The anchors of UDF (ECMA-167, 3/8.4.2.1): block 256, the last, and 256 before it.
    fn udf(&mut self) {
        for shift in 9..=15 {
            let block = 1u64 << shift;
            let last = (self.source.size() / block).saturating_sub(1);
            for number in [Some(256), Some(last), last.checked_sub(256)].into_iter().flatten() {
                let start = number.saturating_mul(block);
                let Some(Ok(tag)) = self.read(start, 16) else { continue };
                let location =
                    tag.get(12..16).and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
                if tag.get(..2) == Some(&[2, 0]) && location.map(u64::from) == Some(number) {
                    self.found.push((start, block));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A disk of any size that is zero except for a few bytes, and that cannot be read in one place.
    struct Sparse {
        size: u64,
        bytes: BTreeMap<u64, Vec<u8>>,
        unreadable: u64,
    }

    impl Source for Sparse {
        fn size(&self) -> u64 {
            self.size
        }
        fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
            if offset == self.unreadable {
                return Err(io::Error::from_raw_os_error(5));
            }
            for (at, byte) in (offset..).zip(data) {
                let (start, bytes) = self.bytes.range(..=at).next_back().unwrap_or((&0, &self.bytes[&0]));
                *byte = bytes.get(usize::try_from(at - start).unwrap()).copied().unwrap_or(0);
            }
            Ok(())
        }
    }

    fn found(size: u64, bytes: &[(u64, &[u8])]) -> Vec<(u64, u64)> {
        let mut all = BTreeMap::from([(0, vec![0])]);
        all.extend(bytes.iter().map(|(at, bytes)| (*at, bytes.to_vec())));
        places(&Sparse { size, bytes: all, unreadable: u64::MAX }, &mut |_| ())
    }

    #[test]
    fn copies_of_headers_and_labels_are_found_wherever_they_lie() {
        let luks = [b"SKUL\xba\xbe\0\x02".as_slice(), &(4 * MIB).to_be_bytes()].concat();
        let tib = 1024 * GIB;
        let layout =
            [&BCACHEFS[..], &[0, 11, 2, 0, 0, 0, 0, 0], &8u64.to_le_bytes(), &40_000u64.to_le_bytes()];
        let anchor = |number: u32| {
            let mut tag = [2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            tag[12..].copy_from_slice(&number.to_le_bytes());
            tag
        };
        for (size, bytes, expected) in [
            (tib, vec![(100 * GIB, b"bluestore block device".as_slice())], vec![(100 * GIB, BLOCK)]),
            (
                tib,
                vec![(64 * MIB + 0x40, b"_BHRfS_M"), (256 * GIB + 0x40, b"_BHRfS_M")],
                vec![(64 * MIB, BLOCK), (256 * GIB, BLOCK)],
            ),
            (tib, vec![(MIB, &[0x0d, 0xd0, 0x01, 0xc0])], vec![(MIB, BLOCK)]),
            (tib, vec![(4 * MIB, &luks)], vec![(4 * MIB, 4 * MIB)]),
            (tib, vec![(2 * MIB + 24, &BCACHE)], vec![(2 * MIB, BLOCK)]),
            (
                32 * MIB,
                vec![(32 * MIB - 3087 * 512, b"Promise Technology, Inc.")],
                vec![(32 * MIB - 3087 * 512, BLOCK)],
            ),
            (
                tib,
                vec![(3584, &layout.concat()), (40_000 * 512 + 24, &BCACHEFS)],
                vec![(40_000 * 512, BLOCK)],
            ),
            (tib, vec![(256 * 4096, &anchor(256))], vec![(MIB, 4096)]),
            (tib, vec![(256 * 4096, &anchor(255))], vec![]),
            (10 * MIB, vec![], vec![]),
            (512, vec![], vec![]),
        ] {
            assert_eq!(found(size, &bytes), expected);
        }
    }

    #[test]
    fn a_place_that_cannot_be_read_is_cleared_as_well() {
        let disk = Sparse { size: 2 * GIB, bytes: BTreeMap::from([(0, vec![0])]), unreadable: GIB };
        let mut beats = 0;
        let found = places(&disk, &mut |_| beats += 1);
        assert!(found.contains(&(GIB, BLOCK)) && beats > 10, "{found:?}");
    }
}

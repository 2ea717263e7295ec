//! Making a disk look empty: partition tables and the signatures of file systems, arrays and volume groups.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use sys::{AlignedBuffer, Host};

use crate::erase::careful::{Care, Careful};
use crate::erase::damage::Damage;
use crate::erase::medium::Medium;
use crate::erase::watch::{Left, Pulse, watched};
use crate::erase::{STALL_LIMIT, stalled};
use crate::list::kernel_name;
use crate::table::Remains;
use crate::{Error, Region, Source, Target, signatures};

/// How much is zeroed at each end. Most signatures that are looked for when a disk is probed lie within: partition tables,
/// file system superblocks up to 64 KiB, LVM labels and metadata, md superblocks at either end, ZFS labels, the metadata of
/// firmware RAID. [`signatures`] knows the others.
const END_BYTES: u64 = 1 << 20;
/// Bytes per write.
const CHUNK: u64 = 1 << 20;

/// **Clears every place by which something could be recognised**, on every partition and then on the disk itself, and flushes: the
/// first and last MiB of each, and the copies of headers that lie between (`wipefs -n` finds nothing afterwards). What lies
/// between stays readable: this is no erasure of data. Partitions are those that the kernel shows and those that any table on the disk
/// names, sound or not. The kernel still has the old partitions afterwards, until the caller makes it read the table again.
///
/// # Errors
/// [`Error::Erase`] with every range that could not be cleared; the others are. [`Error::Stalled`] when the disk does not answer.
pub fn wipe_metadata(target: &Target) -> Result<(), Error> {
    wipe_metadata_within(target, STALL_LIMIT)
}

/// As [`wipe_metadata`], with a limit for the time that no request ends.
///
/// # Errors
/// As [`wipe_metadata`].
pub fn wipe_metadata_within(target: &Target, stall_limit: Duration) -> Result<(), Error> {
    wipe(target, stall_limit, true, Vec::new())
}

/// **Clears the same places of these parts** (start and length in bytes) and of nothing else, and flushes: so that a new partition
/// shows nothing of what lay there before.
///
/// # Errors
/// As [`wipe_metadata`].
pub fn wipe_parts(target: &Target, parts: &[(u64, u64)]) -> Result<(), Error> {
    wipe(target, STALL_LIMIT, false, parts.to_vec())
}

/// Returns the ranges that must be zero for nothing of the old content of a disk to be recognised: those that [`wipe_metadata`]
/// clears, in its order. Reads only; without an answer of the disk within ten minutes the ends of the disk alone.
pub fn old_metadata(target: &Target) -> Vec<(u64, u64)> {
    collected(target, true, Vec::new())
}

/// Returns the ranges that [`wipe_parts`] would clear. Reads only.
pub fn metadata_of_parts(target: &Target, parts: &[(u64, u64)]) -> Vec<(u64, u64)> {
    collected(target, false, parts.to_vec())
}

fn collected(target: &Target, with_old: bool, parts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let (opener, size) = (target.opener(), target.size_bytes());
    let of_caller = parts.clone();
    let found = watched(STALL_LIMIT, &mut |_| ControlFlow::Continue(()), move |pulse| {
        let device = opener.read()?;
        let parts = if with_old {
            old_parts(&device, opener.host(), opener.name(), device.sector_bytes())
        } else {
            parts
        };
        Ok::<_, Error>(ranges(&device, &parts, device.sector_bytes(), pulse))
    });
    match found {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => {
            let whole = with_old.then_some((0, size));
            metadata_ranges(of_caller.into_iter().chain(whole), size)
        }
    }
}

fn wipe(target: &Target, limit: Duration, with_old: bool, parts: Vec<(u64, u64)>) -> Result<(), Error> {
    if target.is_stalled() {
        return Err(stalled(target, limit, 0));
    }
    let opener = target.opener();
    let ended = watched(limit, &mut |_| ControlFlow::Continue(()), move |pulse| {
        // Held while it is looked at: nothing may change in between.
        let device = opener.open()?;
        let source = opener.read()?;
        let sector = source.sector_bytes();
        let parts = if with_old { old_parts(&source, opener.host(), opener.name(), sector) } else { parts };
        let ranges = ranges(&source, &parts, sector, pulse);
        drop(source);
        let mut damage = Damage::default();
        // What the cache still holds of the places would be read instead of the zeroes.
        let flushed = clear(&device, &ranges, Care::default(), &mut damage, pulse);
        if let Err(error) = device.drop_cache() {
            tracing::debug!(device = opener.name(), %error, "the kernel keeps its buffers");
        }
        damage.log(opener.name(), "not cleared");
        let device = opener.name().to_owned();
        match (damage.is_empty(), flushed) {
            (true, Ok(())) => Ok(()),
            (true, Err(source)) => Err(Error::Io { action: format!("flushing {device}"), source }),
            (false, _) => {
                let reason = format!("metadata could not be cleared: {}", damage.text());
                Err(Error::Erase { device, reason })
            }
        }
    });
    match ended {
        Ok(result) => result,
        Err(Left::Hung { at }) => Err(stalled(target, limit, at)),
        Err(Left::Stopped) => {
            let action = format!("wiping {}", target.disk().name);
            Err(Error::Io { action, source: io::Error::other("no thread could be started") })
        }
    }
}

/// The partitions that the kernel shows, those that tables name, the tables, and the disk itself last.
fn old_parts<S: Source + ?Sized>(source: &S, host: &Host, device: &str, sector: u32) -> Vec<(u64, u64)> {
    let remains = Remains::read(source, sector);
    let mut parts = kernel_partitions(host, device);
    parts.extend(remains.partitions);
    parts.sort_unstable();
    parts.dedup();
    parts.extend(remains.copies);
    parts.push((0, source.size()));
    parts
}

/// Start and size of the partitions that the kernel shows, in bytes: of tables too that are not read here.
fn kernel_partitions(host: &Host, device: &str) -> Vec<(u64, u64)> {
    let disk = format!("/sys/block/{}", kernel_name(device));
    let names = host.names(&disk).unwrap_or_default();
    let parts = names.into_iter().filter_map(|name| {
        host.attribute(format!("{disk}/{name}/partition"))?;
        let sectors = |file: &str| host.number::<u64>(format!("{disk}/{name}/{file}"));
        Some((sectors("start")?.checked_mul(512)?, sectors("size")?.checked_mul(512)?))
    });
    parts.collect()
}

/// The ends of each part, and the signatures within it, in whole sectors.
fn ranges<S: Source + ?Sized>(
    source: &S,
    parts: &[(u64, u64)],
    sector: u32,
    pulse: &Pulse,
) -> Vec<(u64, u64)> {
    let mut ranges = metadata_ranges(parts.iter().copied(), source.size());
    for (start, length) in parts.iter().filter(|(_, length)| *length > END_BYTES) {
        let region = Region::new(source, *start, *length);
        let mut beat = |at: u64| {
            let _ = pulse.beat(start.saturating_add(at));
        };
        for (at, length) in signatures::places(&region, &mut beat) {
            ranges.push((start.saturating_add(at), length.min(region.size().saturating_sub(at))));
        }
    }
    let sector = u64::from(sector.max(1));
    for (start, length) in &mut ranges {
        let end = start.saturating_add(*length).div_ceil(sector).saturating_mul(sector);
        *start -= *start % sector;
        *length = end.min(source.size()).saturating_sub(*start);
    }
    ranges
}

/// **Writes zeroes to ranges.** What cannot be written is passed over and put down.
fn clear(
    medium: &dyn Medium,
    ranges: &[(u64, u64)],
    care: Care,
    damage: &mut Damage,
    pulse: &Pulse,
) -> io::Result<()> {
    let zeroes = AlignedBuffer::new(usize::try_from(CHUNK).unwrap_or_default());
    let mut careful = Careful::new(care, medium.sector_bytes());
    for (start, length) in ranges {
        let mut at = *start;
        let end = start.saturating_add(*length);
        while at < end {
            let step = (end - at).min(CHUNK);
            if careful.is_lost() {
                damage.add(
                    at,
                    step,
                    &io::Error::other("not tried, the disk failed for too long or went away"),
                );
            } else {
                // Nobody asks this work to stop.
                let _ = careful.run((at, step), damage, &mut |at| pulse.beat(at), &mut |at, length| {
                    let data = usize::try_from(length).ok().and_then(|length| zeroes.get(..length));
                    medium.write_at(at, data.unwrap_or_default())
                });
            }
            at += step;
        }
    }
    let _ = pulse.beat(medium.size());
    medium.flush()
}

/// Returns both ends of each of these ranges (start and length in bytes), cut at the end of the disk. Empty ranges are left out.
pub fn metadata_ranges(parts: impl Iterator<Item = (u64, u64)>, size_bytes: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (start, length) in parts {
        let length = length.min(size_bytes.saturating_sub(start));
        let (head, tail) = ends(length);
        ranges.push((start, head));
        ranges.push((start + (length - tail), tail));
    }
    ranges.retain(|(_, length)| *length > 0);
    ranges
}

/// How long the first and the last part of a range of this length are; together never more than it.
fn ends(length: u64) -> (u64, u64) {
    let head = length.min(END_BYTES);
    (head, (length - head).min(END_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_covered_and_never_more_than_there_is() {
        let mib = END_BYTES;
        for (length, head, tail) in
            [(0, 0, 0), (512, 512, 0), (mib, mib, 0), (mib + 512, mib, 512), (5 * mib, mib, mib)]
        {
            assert_eq!(ends(length), (head, tail), "{length}");
        }
    }

    #[test]
    fn signatures_of_a_part_are_cleared_in_whole_sectors_and_never_beyond_it() {
        let mut disk = vec![0_u8; 8 << 20];
        disk[(3 << 20)..(3 << 20) + 4].copy_from_slice(&[0x0d, 0xd0, 0x01, 0xc0]);
        let part = (2 << 20, (2 << 20) + 512);
        let found = ranges(&disk, &[part], 4096, &Pulse::default());
        let mib = 1 << 20;
        assert_eq!(found, [(2 * mib, mib), (3 * mib, mib + 4096), (3 * mib, 64 << 10)]);
    }

    #[test]
    fn partitions_of_the_kernel_are_among_the_old_ones() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/block/sda/sda5");
        std::fs::create_dir_all(&directory).unwrap();
        for (file, text) in [("partition", "5"), ("start", "64"), ("size", "128")] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        let host = sys::fake::host(root.path());
        let parts = old_parts(&vec![0_u8; 1 << 20], &host, "/dev/sda", 512);
        assert_eq!(parts, [(64 * 512, 128 * 512), (0, 1 << 20)]);
    }
}

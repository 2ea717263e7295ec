//! Where the header says that tables lie: each is held to the limits of QEMU when the header is read, and to the length of the file
//! as soon as that is known. Tables that are not read here (reference counts, snapshots, bitmaps) count as well: a header that puts
//! them outside the file belongs to a file that was cut off or made up. Pure.
//!
//! Source: `qcow2_do_open` and `qcow2_read_extensions` as `qemu-img` 7.2 behaves.

use super::{Qcow2Error, be32, be64};

/// Bytes of the level-1 table, of the table of reference counts, and number of snapshots, at the most.
const LARGEST_L1: u64 = 32 * 1024 * 1024;
const LARGEST_REFCOUNTS: u64 = 8 * 1024 * 1024;
const MOST_SNAPSHOTS: u64 = 65_536;
/// The least bytes of a snapshot's entry.
const SNAPSHOT: u64 = 40;

/// Bitmaps at the most, the least bytes of one in their directory, and the most.
const MOST_BITMAPS: u64 = 65_535;
const LEAST_BITMAP: u64 = 24;
const LARGEST_BITMAP: u64 = 1024;

/// Header extensions: their types.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const CRYPTO: u32 = 0x0537_be77;
const BITMAPS: u32 = 0x2385_2875;
/// Bytes that the name of a backing file's format takes at the most.
const LONGEST_FORMAT_NAME: u32 = 15;

/// A part of the file that a table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    name: &'static str,
    /// Offset after its last byte.
    end: u64,
}

impl Table {
    /// A table of `entries` entries of `entry` bytes, at an offset that is a multiple of the cluster, and of `most` bytes at the most.
    fn new(
        [name, offset_name, count_name]: [&'static str; 3],
        offset: u64,
        (entries, entry, most): (u64, u64, u64),
        cluster: u64,
    ) -> Result<Self, Qcow2Error> {
        let length = entries.checked_mul(entry).filter(|length| *length <= most);
        let length = length.ok_or(Qcow2Error::Field { field: count_name, value: entries })?;
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        match end.filter(|_| offset.is_multiple_of(cluster)) {
            Some(end) => Ok(Self { name, end }),
            None => Err(Qcow2Error::Field { field: offset_name, value: offset }),
        }
    }
}

/// Reads the fields about tables, and the header's extensions, which begin at `extensions` and end with the first cluster.
pub(super) fn tables(
    bytes: &[u8],
    version: u32,
    cluster: u64,
    extensions: u64,
) -> Result<Vec<Table>, Qcow2Error> {
    let truncated = || Qcow2Error::Truncated("header");
    let u32_at = |offset| be32(bytes, offset).map(u64::from).ok_or_else(truncated);
    let u64_at = |offset| be64(bytes, offset).ok_or_else(truncated);
    let l1 = ["L1 table", "L1 table offset", "L1 table size"];
    let counts = ["reference count table", "reference count table offset", "reference count table size"];
    let snapshots = ["snapshot table", "snapshot table offset", "number of snapshots"];
    let mut tables = vec![
        Table::new(l1, u64_at(40)?, (u32_at(36)?, 8, LARGEST_L1), cluster)?,
        Table::new(counts, u64_at(48)?, (u32_at(56)?, cluster, LARGEST_REFCOUNTS), cluster)?,
        Table::new(snapshots, u64_at(64)?, (u32_at(60)?, SNAPSHOT, SNAPSHOT * MOST_SNAPSHOTS), cluster)?,
    ];
    // An old header has no automatic features.
    let has_bitmaps = version >= 3 && u64_at(88)? & 1 != 0;
    let mut at = extensions;
    // What the file does not have reads as zeroes, which end the extensions.
    while let (Some(kind), Some(length)) = (field(bytes, at, 0), field(bytes, at, 4)) {
        let data = at.saturating_add(8);
        if at >= cluster {
            break;
        }
        let field_of = |field| Qcow2Error::Field { field, value: u64::from(length) };
        if data.saturating_add(u64::from(length)) > cluster {
            return Err(field_of("header extension length"));
        }
        match kind {
            END => break,
            BACKING_FORMAT if length > LONGEST_FORMAT_NAME => return Err(field_of("backing format length")),
            CRYPTO => return Err(field_of("encryption header of an image without encryption")),
            BITMAPS if length != 24 => return Err(field_of("bitmaps extension length")),
            BITMAPS if has_bitmaps => {
                let start = usize::try_from(data).map_err(|_| truncated())?;
                tables.push(bitmaps(bytes.get(start..).unwrap_or_default(), cluster)?);
            }
            _ => {}
        }
        at = data.saturating_add(u64::from(length).next_multiple_of(8));
    }
    Ok(tables)
}

fn field(bytes: &[u8], at: u64, offset: usize) -> Option<u32> {
    be32(bytes, usize::try_from(at).ok()?.checked_add(offset)?)
}

/// The directory of the bitmaps.
fn bitmaps(extension: &[u8], cluster: u64) -> Result<Table, Qcow2Error> {
    let truncated = || Qcow2Error::Truncated("header");
    let number = |offset| be32(extension, offset).map(u64::from).ok_or_else(truncated);
    let (count, reserved) = (number(0)?, number(4)?);
    let length = be64(extension, 8).ok_or_else(truncated)?;
    let offset = be64(extension, 16).ok_or_else(truncated)?;
    if reserved != 0 {
        return Err(Qcow2Error::Field { field: "reserved field of the bitmaps extension", value: reserved });
    }
    if count == 0 || count > MOST_BITMAPS || count * LEAST_BITMAP > length {
        return Err(Qcow2Error::Field { field: "number of bitmaps", value: count });
    }
    let names = ["bitmap directory", "bitmap directory offset", "bitmap directory size"];
    Table::new(names, offset, (length, 1, MOST_BITMAPS * LARGEST_BITMAP), cluster)
}

/// Holds the tables to the length of the file.
pub(super) fn within(tables: &[Table], file: u64) -> Result<(), Qcow2Error> {
    match tables.iter().find(|table| table.end > file) {
        None => Ok(()),
        Some(table) => Err(Qcow2Error::TableBeyondEnd { table: table.name, end: table.end }),
    }
}

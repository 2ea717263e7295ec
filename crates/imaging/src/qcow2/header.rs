//! The header: parsed, and held to the rules that decide whether the image is taken at all. Pure.

use super::layout::{self, Table};
use super::{Codec, Qcow2Error, be32, be64};

const CRYPT_NONE: u32 = 0;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Among the automatic features: the external data file is raw. There is none here.
const RAW_EXTERNAL_DATA: u64 = 1 << 1;
/// Reference counts have 64 bits at the most, as a power of two.
const LARGEST_REFCOUNT_ORDER: u32 = 6;

/// The unit of a disk's size.
const SECTOR: u64 = 512;

/// Sub-clusters of a cluster, where there are any, as a power of two.
const SUBCLUSTER_BITS: u32 = 5;
/// The smallest clusters that may have sub-clusters: those are of 512 bytes then.
const LEAST_EXTENDED_CLUSTER_BITS: u32 = 14;

/// Bytes of the header of version 2, and the least of version 3.
const V2_LENGTH: usize = 72;
const V3_LENGTH: u32 = 104;

/// The most level-1 entries that are kept: 256 TiB with 64 KiB clusters.
const L1_LIMIT: u64 = 512 * 1024;

/// What of a header matters for reading the active image. Internal snapshots only add clusters that nothing here refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) virtual_size: u64,
    pub(crate) l1_offset: u64,
    /// Level-1 entries that the virtual size needs; the table may have more.
    pub(crate) l1_entries: u32,
    pub(crate) codec: Codec,
    /// Whether level-2 entries are twice as long and say of each 32nd of a cluster whether it is there.
    pub(crate) extended: bool,
    /// Every table that the header names.
    pub(crate) tables: Vec<Table>,
}

impl Header {
    /// Parses the first bytes of an image, magic included.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Qcow2Error> {
        let truncated = || Qcow2Error::Truncated("header");
        let u32_at = |offset| be32(bytes, offset).ok_or_else(truncated);
        let u64_at = |offset| be64(bytes, offset).ok_or_else(truncated);
        let version = u32_at(4)?;
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version));
        }
        if bytes.len() < V2_LENGTH {
            return Err(truncated());
        }
        // Without an offset there is none, whatever length its name has.
        if u64_at(8)? != 0 {
            return Err(Qcow2Error::BackingFile);
        }
        let cluster_bits = u32_at(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::Field { field: "cluster_bits", value: cluster_bits.into() });
        }
        let crypt = u32_at(32)?;
        if crypt != CRYPT_NONE {
            return Err(Qcow2Error::Encrypted(crypt));
        }
        let Features { codec, extended, length } = match version {
            2 => Features { codec: Codec::Zlib, extended: false, length: V2_LENGTH as u64 },
            _ => features(bytes, cluster_bits)?,
        };
        let virtual_size = u64_at(24)?;
        let cluster = 1u64 << cluster_bits;
        let tables = layout::tables(bytes, version, cluster, length)?;
        // A level-1 entry maps one level-2 table: a cluster full of entries, of one cluster each.
        let per_l1 = cluster * (cluster / entry_length(extended));
        let needed = virtual_size.div_ceil(per_l1);
        let grains = virtual_size.div_ceil(1 << grain_bits(cluster_bits, extended));
        // A disk is whole sectors; QEMU leaves out what is less.
        let sectors = virtual_size - virtual_size % SECTOR;
        if sectors == 0 || grains > u64::from(u32::MAX >> 1) {
            return Err(Qcow2Error::Field { field: "virtual size", value: virtual_size });
        }
        let l1_size = u64::from(u32_at(36)?);
        if l1_size < needed {
            return Err(Qcow2Error::Field { field: "L1 table size", value: l1_size });
        }
        if needed > L1_LIMIT {
            return Err(Qcow2Error::TooFragmented("L1 table"));
        }
        let l1_offset = u64_at(40)?;
        if l1_offset == 0 {
            return Err(Qcow2Error::Field { field: "L1 table offset", value: l1_offset });
        }
        let l1_entries = u32::try_from(needed)
            .map_err(|_| Qcow2Error::Field { field: "virtual size", value: virtual_size })?;
        Ok(Self {
            version,
            cluster_bits,
            virtual_size: sectors,
            l1_offset,
            l1_entries,
            codec,
            extended,
            tables,
        })
    }

    /// Holds every table that the header names to the length of the file, in bytes.
    pub(crate) fn within(&self, file: u64) -> Result<(), Qcow2Error> {
        layout::within(&self.tables, file)
    }

    /// Bytes of a cluster.
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of the unit in which clusters are allocated: a cluster, or a sub-cluster of it.
    pub(crate) fn grain(&self) -> u64 {
        1 << grain_bits(self.cluster_bits, self.extended)
    }

    /// Bytes of a level-2 entry.
    pub(crate) fn l2_entry_length(&self) -> u64 {
        entry_length(self.extended)
    }

    /// Entries of a level-2 table.
    pub(crate) fn l2_entries(&self) -> u64 {
        self.cluster() / self.l2_entry_length()
    }

    /// Bytes of the disk that one level-2 table maps.
    pub(crate) fn l2_span(&self) -> u64 {
        self.cluster() * self.l2_entries()
    }

    /// Bytes of the level-1 table that matter.
    pub(crate) fn l1_length(&self) -> u64 {
        u64::from(self.l1_entries) * 8
    }
}

fn entry_length(extended: bool) -> u64 {
    if extended { 16 } else { 8 }
}

fn grain_bits(cluster_bits: u32, extended: bool) -> u32 {
    if extended { cluster_bits - SUBCLUSTER_BITS } else { cluster_bits }
}

/// What version 3 adds.
struct Features {
    codec: Codec,
    /// Whether level-2 entries are extended.
    extended: bool,
    /// Bytes of the header, where its extensions begin.
    length: u64,
}

/// Reads the feature bits and the compression type of version 3.
fn features(bytes: &[u8], cluster_bits: u32) -> Result<Features, Qcow2Error> {
    let truncated = || Qcow2Error::Truncated("header");
    let incompatible = be64(bytes, 72).ok_or_else(truncated)?;
    // Dirty means that reference counts may be wrong; nothing here reads them.
    let known = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
    if incompatible & !known != 0 {
        return Err(Qcow2Error::UnknownFeatures(incompatible & !known));
    }
    // A repair is advised before anybody writes to such an image. Reading is what qemu-img and Ironic's agent allow, and the
    // digest is of these very bytes.
    if incompatible & CORRUPT != 0 {
        tracing::warn!("the qcow2 image is marked corrupt; qemu-img check tells more");
    }
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(Qcow2Error::ExternalData);
    }
    let extended = incompatible & EXTENDED_L2 != 0;
    if extended && cluster_bits < LEAST_EXTENDED_CLUSTER_BITS {
        return Err(Qcow2Error::Field {
            field: "cluster_bits with extended L2 entries",
            value: cluster_bits.into(),
        });
    }
    let length = be32(bytes, 100).ok_or_else(truncated)?;
    if length < V3_LENGTH || length > 1 << cluster_bits {
        return Err(Qcow2Error::Field { field: "header length", value: length.into() });
    }
    let declared = if length > V3_LENGTH { *bytes.get(104).ok_or_else(truncated)? } else { 0 };
    let codec = match declared {
        0 => Codec::Zlib,
        1 => Codec::Zstd,
        other => return Err(Qcow2Error::Compression(other)),
    };
    // The bit is set exactly when the type is not zlib.
    if (incompatible & COMPRESSION_TYPE != 0) != (codec != Codec::Zlib) {
        return Err(Qcow2Error::Compression(declared));
    }
    let autoclear = be64(bytes, 88).ok_or_else(truncated)?;
    if autoclear & RAW_EXTERNAL_DATA != 0 {
        return Err(Qcow2Error::Field { field: "set of automatic features", value: autoclear });
    }
    let order = be32(bytes, 96).ok_or_else(truncated)?;
    if order > LARGEST_REFCOUNT_ORDER {
        return Err(Qcow2Error::Field { field: "reference count order", value: order.into() });
    }
    Ok(Features { codec, extended, length: length.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0u8; 112];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&16u32.to_be_bytes());
        bytes[24..32].copy_from_slice(&(10u64 << 30).to_be_bytes());
        bytes[36..40].copy_from_slice(&20u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&(3u64 << 16).to_be_bytes());
        bytes[100..104].copy_from_slice(&112u32.to_be_bytes());
        bytes
    }

    fn with(offset: usize, value: &[u8]) -> Result<Header, Qcow2Error> {
        let mut bytes = header();
        bytes[offset..offset + value.len()].copy_from_slice(value);
        Header::parse(&bytes)
    }

    #[test]
    fn a_plain_header_is_read() {
        let header = Header::parse(&header()).unwrap();
        assert_eq!(header.virtual_size, 10 << 30);
        assert_eq!((header.cluster(), header.l2_entries(), header.l1_entries), (65536, 8192, 20));
        assert_eq!(header.codec, Codec::Zlib);
    }

    #[test]
    fn each_rule_refuses_by_its_name() {
        use Qcow2Error as E;
        assert_eq!(with(4, &1u32.to_be_bytes()), Err(E::Version(1)));
        assert_eq!(with(4, &4u32.to_be_bytes()), Err(E::Version(4)));
        assert_eq!(with(8, &4096u64.to_be_bytes()), Err(E::BackingFile));
        assert!(with(16, &9u32.to_be_bytes()).is_ok(), "a length without an offset is no backing file");
        assert_eq!(with(32, &2u32.to_be_bytes()), Err(E::Encrypted(2)));
        assert_eq!(with(72, &EXTERNAL_DATA.to_be_bytes()), Err(E::ExternalData));
        assert_eq!(with(72, &(1u64 << 40).to_be_bytes()), Err(E::UnknownFeatures(1 << 40)));
        assert_eq!(with(72, &COMPRESSION_TYPE.to_be_bytes()), Err(E::Compression(0)));
        assert_eq!(with(104, &[1]), Err(E::Compression(1)));
        assert_eq!(with(104, &[7]), Err(E::Compression(7)));
        for (offset, value) in [(20, 8u32), (20, 22), (36, 19), (100, 96), (100, 65_537), (96, 7)] {
            assert!(matches!(with(offset, &value.to_be_bytes()), Err(E::Field { .. })), "{offset} {value}");
        }
        for (offset, value) in
            [(24, 0u64), (24, 511), (24, u64::MAX - 511), (40, 0), (40, 4096), (40, u64::MAX)]
        {
            assert!(with(offset, &value.to_be_bytes()).is_err(), "{offset} {value}");
        }
    }

    #[test]
    fn a_size_that_is_no_whole_sectors_ends_with_the_last_whole_one() {
        assert_eq!(with(24, &1000u64.to_be_bytes()).unwrap().virtual_size, 512);
    }

    #[test]
    fn tables_beyond_the_limits_of_qemu_are_refused_by_name() {
        let number = |value: u32| value.to_be_bytes().to_vec();
        let offset = |value: u64| value.to_be_bytes().to_vec();
        let cases = [
            (36, number(0x40_0001), "L1 table size"),
            (36, number(0x7fff_ffff), "L1 table size"),
            (36, number(u32::MAX), "L1 table size"),
            (56, number(129), "reference count table size"),
            (56, number(u32::MAX), "reference count table size"),
            (48, offset(4096), "reference count table offset"),
            (48, offset(u64::MAX << 16), "reference count table offset"),
            (60, number(65_537), "number of snapshots"),
            (60, number(u32::MAX), "number of snapshots"),
            (64, offset(512), "snapshot table offset"),
            (64, offset(u64::MAX << 16), "snapshot table offset"),
            (88, offset(2), "set of automatic features"),
        ];
        for (at, value, expected) in cases {
            match with(at, &value) {
                Err(Qcow2Error::Field { field, .. }) => assert_eq!(field, expected),
                other => panic!("{at} {value:?}: {other:?}"),
            }
        }
        for (at, value) in
            [(36, number(0x40_0000)), (56, number(128)), (60, number(65_536)), (64, offset(1 << 50))]
        {
            assert!(with(at, &value).is_ok(), "{at} {value:?}");
        }
    }

    #[test]
    fn every_table_must_lie_inside_the_file() {
        let end = |at, value: &[u8]| with(at, value).unwrap().tables.len();
        assert_eq!(end(60, &0u32.to_be_bytes()), 3);
        let mut bytes = header();
        bytes[48..56].copy_from_slice(&(5u64 << 16).to_be_bytes());
        bytes[59] = 2;
        bytes[63] = 3;
        bytes[64..72].copy_from_slice(&(8u64 << 16).to_be_bytes());
        let header = Header::parse(&bytes).unwrap();
        let beyond = |table, end| Err(Qcow2Error::TableBeyondEnd { table, end });
        assert_eq!(header.within((8 << 16) + 120), Ok(()));
        assert_eq!(header.within((8 << 16) + 119), beyond("snapshot table", (8 << 16) + 120));
        assert_eq!(header.within((7 << 16) - 1), beyond("reference count table", 7 << 16));
        assert_eq!(header.within((3 << 16) + 159), beyond("L1 table", (3 << 16) + 160));
    }

    /// A header whose extensions are these types, lengths and contents.
    fn extended_by(extensions: &[(u32, u32, &[u8])]) -> Result<Header, Qcow2Error> {
        let mut bytes = header();
        bytes[95] = 1;
        for (kind, length, data) in extensions {
            bytes.extend([kind.to_be_bytes(), length.to_be_bytes()].concat());
            bytes.extend(*data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        Header::parse(&bytes)
    }

    #[test]
    fn header_extensions_are_held_to_the_first_cluster_and_to_their_kind() {
        let bitmaps = |count: u32, reserved: u32, length: u64, offset: u64| {
            [&count.to_be_bytes()[..], &reserved.to_be_bytes(), &length.to_be_bytes(), &offset.to_be_bytes()]
                .concat()
        };
        let sound = bitmaps(1, 0, 32, 1 << 20);
        let header =
            extended_by(&[(0x6803_f857, 3, b"abc"), (0x2385_2875, 24, &sound), (0, 0, b"")]).unwrap();
        assert_eq!(
            header.within(1 << 20),
            Err(Qcow2Error::TableBeyondEnd { table: "bitmap directory", end: (1 << 20) + 32 })
        );
        assert!(extended_by(&[(0x1234_5678, 65_536 - 120, b"")]).is_ok());
        assert!(
            extended_by(&[(0, 0, b""), (0x1234_5678, u32::MAX, b"")]).is_ok(),
            "behind the end is nothing"
        );
        let refused: [(u32, u32, Vec<u8>); 11] = [
            (0x1234_5678, u32::MAX, vec![]),
            (0x1234_5678, 65_536 - 119, vec![]),
            (0, u32::MAX, vec![]),
            (0xe279_2aca, 16, vec![]),
            (0x0537_be77, 16, vec![]),
            (0x2385_2875, 23, sound),
            (0x2385_2875, 24, bitmaps(0, 0, 32, 1 << 20)),
            (0x2385_2875, 24, bitmaps(65_536, 0, 1 << 24, 1 << 20)),
            (0x2385_2875, 24, bitmaps(1, 0, 1 << 40, 1 << 20)),
            (0x2385_2875, 24, bitmaps(1, 0, 32, 512)),
            (0x2385_2875, 24, bitmaps(1, 1, 32, 1 << 20)),
        ];
        for (kind, length, data) in refused {
            let found = extended_by(&[(kind, length, &data)]);
            assert!(matches!(found, Err(Qcow2Error::Field { .. })), "{kind:#x} {length} {found:?}");
        }
    }

    #[test]
    fn extended_entries_are_twice_as_long_and_need_clusters_of_16_kib() {
        let mut bytes = header();
        bytes[79] = 16;
        bytes[39] = 40;
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.l2_entries(), header.l1_entries, header.grain()), (4096, 40, 2048));
        bytes[39] = 39;
        assert!(Header::parse(&bytes).is_err(), "the level-1 table is too short now");
        bytes[23] = 13;
        assert!(matches!(Header::parse(&bytes), Err(Qcow2Error::Field { .. })));
    }

    #[test]
    fn dirty_images_are_taken_and_zstd_needs_both_its_marks() {
        assert!(with(72, &DIRTY.to_be_bytes()).is_ok());
        assert!(with(72, &CORRUPT.to_be_bytes()).is_ok(), "and so are those marked corrupt, as by qemu-img");
        let mut bytes = header();
        bytes[79] = 8;
        bytes[104] = 1;
        assert_eq!(Header::parse(&bytes).unwrap().codec, Codec::Zstd);
    }

    proptest! {
        #[test]
        fn no_header_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), plausible in any::<bool>()) {
            if plausible {
                for (to, from) in bytes.iter_mut().zip(header()).take(24) {
                    *to = from;
                }
            }
            let _ = Header::parse(&bytes);
        }
    }
}

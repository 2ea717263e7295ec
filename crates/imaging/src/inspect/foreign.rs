//! Files that are no disk and that nothing here unpacks: other compressions, archives, packages, and images of other programs. Told
//! by their first bytes, so that they are refused by name instead of being written over a disk. Pure.

use super::table;

/// A kind of file that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// The name, with its article.
    pub(crate) name: &'static str,
    /// What to do about it.
    pub(crate) advice: &'static str,
}

const REPACK: &str = "unpack it, and publish the disk raw or compressed by gzip, zstd, xz or bzip2";
const EXTRACT: &str = "extract the disk image, and publish that";
const PACKAGE: &str = "publish a disk image instead";

/// (offset, magic, name, advice). None of these begins a disk: each is four bytes or longer.
const MAGIC: &[(usize, &[u8], &str, &str)] = &[
    (0, &[0x04, 0x22, 0x4d, 0x18], "an lz4 file", REPACK),
    (0, &[0x02, 0x21, 0x4c, 0x18], "an lz4 file (legacy frames)", REPACK),
    (0, b"\x89LZO\0\r\n\x1a\n", "an lzop file", REPACK),
    (0, b"LZIP", "an lzip file", REPACK),
    (0, b"LRZI", "an lrzip file", REPACK),
    (0, b"bvx2", "an LZFSE file", REPACK),
    (0, b"bvxn", "an LZFSE file", REPACK),
    (0, b"bvx-", "an LZFSE file", REPACK),
    (0, b"\xff\x06\0\0sNaPpY", "a snappy file", REPACK),
    (0, &[0x1e, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x22, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x23, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x24, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x25, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x26, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, &[0x27, 0xb5, 0x2f, 0xfd], "a file of an old zstd", REPACK),
    (0, b"PK\x03\x04", "a zip archive", EXTRACT),
    (0, b"PK\x05\x06", "a zip archive", EXTRACT),
    (0, b"PK\x07\x08", "a zip archive", EXTRACT),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", EXTRACT),
    (0, b"Rar!\x1a\x07", "a rar archive", EXTRACT),
    (2, b"-lh0-", "an lha archive", EXTRACT),
    (2, b"-lh5-", "an lha archive", EXTRACT),
    (2, b"-lh6-", "an lha archive", EXTRACT),
    (2, b"-lh7-", "an lha archive", EXTRACT),
    (257, b"ustar\0", "a tar archive", EXTRACT),
    (257, b"ustar ", "a tar archive", EXTRACT),
    (0, b"070701", "a cpio archive", EXTRACT),
    (0, b"070702", "a cpio archive", EXTRACT),
    (0, b"070707", "a cpio archive", EXTRACT),
    (0, b"!<arch>\n", "an ar archive or a Debian package", PACKAGE),
    (0, &[0xed, 0xab, 0xee, 0xdb], "an RPM package", PACKAGE),
    (0, b"xar!", "a xar archive", EXTRACT),
    (0, b"MSCF\0\0\0\0", "a cabinet file", EXTRACT),
    (0, b"MSWIM\0\0\0", "a WIM file", "apply it to a disk image, and publish that"),
    (0, b"WLPWM\0\0\0", "a WIM file", "apply it to a disk image, and publish that"),
    (0, &[0x3a, 0xff, 0x26, 0xed], "an Android sparse image", "convert it with simg2img"),
    (0, b"partclone-image", "an image of partclone", "restore it into a disk image, and publish that"),
    (0, b"\0ntfsclone-image", "an image of ntfsclone", "restore it into a disk image, and publish that"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image", "convert it with ewfexport"),
    (0, b"WithoutFreeSpace", "a Parallels image", "convert it with `qemu-img convert -f parallels -O qcow2`"),
    (0, b"WithouFreSpacExt", "a Parallels image", "convert it with `qemu-img convert -f parallels -O qcow2`"),
];

impl Foreign {
    /// Recognises a file by its first bytes.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let marked =
            |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        if let Some((.., name, advice)) = MAGIC.iter().find(|(offset, magic, ..)| marked(*offset, magic)) {
            return Some(Self { name, advice });
        }
        // What follows has no magic worth the name. A disk with a partition table may begin with any code.
        if table::is_there(head) || table::has_gpt(head) {
            return None;
        }
        let found = |name, advice| Some(Self { name, advice });
        match head {
            _ if is_lzma(head) => found("an lzma file (legacy, not xz)", REPACK),
            _ if is_tar(head) => found("a tar archive", EXTRACT),
            _ if is_zlib(head) => found("a zlib file or an Apple disk image", REPACK),
            [0x1f, 0x9d, bits, ..] if bits & 0x60 == 0 && (9..=16).contains(&(bits & 0x1f)) => {
                found("a file of compress (.Z)", REPACK)
            }
            [0x1f, 0x8b, ..] => found("a gzip file of an unknown method", REPACK),
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                found("a file of skippable frames, as lz4 has them", REPACK)
            }
            [0x71, 0xc7, ..] | [0xc7, 0x71, ..] if is_old_cpio(head) => found("a cpio archive", EXTRACT),
            _ => None,
        }
    }
}

/// A header of LZMA_Alone, held to what XZ Utils hold it to: properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, and a size that
/// is unknown or below 256 GiB. Its data begins with a zero byte.
fn is_lzma(head: &[u8]) -> bool {
    let Some((&[properties, a, b, c, d, ref size @ ..], data)) = head.split_first_chunk::<13>() else {
        return false;
    };
    let dictionary = u32::from_le_bytes([a, b, c, d]);
    let size: [u8; 8] = *size;
    let size = u64::from_le_bytes(size);
    let round = dictionary == u32::MAX
        || dictionary.is_power_of_two()
        || (dictionary.is_multiple_of(3) && (dictionary / 3).is_power_of_two());
    properties < 9 * 5 * 5
        && dictionary >= 4096
        && round
        && (size == u64::MAX || (1..1 << 38).contains(&size))
        && data.first() == Some(&0)
}

/// The first header of a tar archive, of any age: its checksum is right.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else { return false };
    let sum: u64 = (0u64..)
        .zip(header)
        .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
        .sum();
    let text = header.get(148..156).unwrap_or_default();
    let digits = std::str::from_utf8(text).unwrap_or_default().trim_matches([' ', '\0']);
    header.first() != Some(&0) && !digits.is_empty() && u64::from_str_radix(digits, 8) == Ok(sum)
}

/// A zlib stream: its header is divisible by 31, and its data can be unpacked as far as it is here.
fn is_zlib(head: &[u8]) -> bool {
    let [method @ 0x78, flags @ (0x01 | 0x5e | 0x9c | 0xda), ..] = head else { return false };
    let mut space = vec![0; 64 * 1024];
    let mut stream = flate2::Decompress::new(true);
    let sound = stream.decompress(head, &mut space, flate2::FlushDecompress::None).is_ok();
    (u16::from(*method) << 8 | u16::from(*flags)).is_multiple_of(31) && sound && stream.total_out() > 0
}

/// The binary header of an old cpio archive, in either order of bytes: a name of a plausible length that ends in a zero.
fn is_old_cpio(head: &[u8]) -> bool {
    let field = head.get(20..22).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok());
    let swapped = head.first() == Some(&0x71);
    let length =
        field.map(|bytes| if swapped { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) });
    let Some(length) = length.map(usize::from).filter(|length| (2..1024).contains(length)) else {
        return false;
    };
    let name = head.get(26..26 + length).unwrap_or_default();
    name.split_last().is_some_and(|(end, name)| *end == 0 && name.iter().all(|byte| *byte >= b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(marks: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0u8; 4096];
        for (offset, mark) in marks {
            head[*offset..offset + mark.len()].copy_from_slice(mark);
        }
        head
    }

    #[test]
    fn every_mark_is_recognised_at_its_place_and_inside_a_compressed_file() {
        for (offset, magic, name, advice) in MAGIC {
            let expected = Some(Foreign { name, advice });
            assert_eq!(Foreign::of(&head(&[(*offset, magic)])), expected);
            assert_eq!(Foreign::of(&head(&[(offset + 1, magic)])), None, "{name} elsewhere");
            // A boot sector does not end like this by chance, and its code does not begin like that.
            assert_eq!(Foreign::of(&head(&[(*offset, magic), (510, &[0x55, 0xaa])])), expected);
        }
        assert_eq!(Foreign::of(b""), None);
        assert_eq!(Foreign::of(&[0; 100]), None);
    }

    #[test]
    fn weak_marks_are_held_to_what_follows_and_a_partition_table_beats_them() {
        let lzma = [&[0x5d, 0, 0, 0x80, 0][..], &[0xff; 8], &[0, 1]].concat();
        let known_size = [&[0x5d, 0, 0, 0, 4][..], &[0, 0, 0x10, 0, 0, 0, 0, 0], &[0, 1]].concat();
        let mut tar = head(&[(0, b"disk.img"), (100, b"0000644\0"), (124, b"00000001000\0")]);
        let sum: u32 = 8 * 32 + tar.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let zlib = {
            use std::io::Write;
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&[7; 5000]).unwrap();
            encoder.finish().unwrap()
        };
        let cpio = [&[0xc7, 0x71][..], &[0; 18], &[5, 0], &[0; 4], b"disk\0"].concat();
        let weak: [(&[u8], &str); 7] = [
            (&lzma, "lzma"),
            (&known_size, "lzma"),
            (&tar, "tar"),
            (&zlib, "zlib"),
            (&[0x1f, 0x9d, 0x90, 0, 0], ".Z"),
            (&cpio, "cpio"),
            (&[0x1f, 0x8b, 7], "gzip"),
        ];
        for (mark, name) in weak {
            let found = Foreign::of(&head(&[(0, mark)])).unwrap();
            assert!(found.name.contains(name), "{name}: {}", found.name);
            assert_eq!(Foreign::of(&head(&[(0, mark), (510, &[0x55, 0xaa])])), None, "{name}");
            assert_eq!(Foreign::of(&head(&[(0, mark), (512, b"EFI PART")])), None, "{name}");
        }
        // Code that begins like them, and is none of them.
        for (offset, odd) in [(3, 0x85u8), (5, 1), (13, 9)] {
            let mut code = lzma.clone();
            code[offset] = odd;
            assert_eq!(Foreign::of(&head(&[(0, &code)])), None, "{offset}");
        }
        assert_eq!(Foreign::of(&head(&[(0, &[0x78, 0x9c, 0xff, 0xff, 0xff])])), None);
        assert_eq!(Foreign::of(&head(&[(0, &[0x1f, 0x9d, 0xff])])), None);
        assert_eq!(Foreign::of(&head(&[(0, &[0xc7, 0x71, 1])])), None);
    }
}

//! What an image is, told by its first bytes. Pure.
//!
//! The same kinds, recognised by the same bytes, as in the inspector that Ironic uses (data plane page, 1.8).

use std::fmt;

use super::table;

/// What an image's first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What bears no other format's marks.
    Raw,
    /// A raw disk with an MBR, which may announce a GPT.
    Gpt,
    /// ISO 9660 or UDF.
    Iso,
    /// QEMU's copy-on-write format.
    Qcow2,
    /// QEMU's enhanced disk, given up long ago.
    Qed,
    /// Microsoft's format, growing variant. The fixed one is a raw disk with a footer, and is taken for that.
    Vhd,
    /// Its successor.
    Vhdx,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// An encrypted volume.
    Luks,
}

/// How many leading bytes tell every kind: ISO 9660 comes last.
pub(crate) const LOOK: usize = 64 * 1024;

/// (offset, magic, kind).
const MAGIC: &[(usize, &[u8], Kind)] = &[
    (0, b"QFI\xfb", Kind::Qcow2),
    (0, b"QED\0", Kind::Qed),
    (0, b"KDMV", Kind::Vmdk),
    (0, b"COWD", Kind::Vmdk),
    (0, b"# Disk DescriptorFile", Kind::Vmdk),
    (0, b"conectix", Kind::Vhd),
    (0, b"vhdxfile", Kind::Vhdx),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], Kind::Vdi),
    (0, b"LUKS\xba\xbe", Kind::Luks),
    (0x8001, b"CD001", Kind::Iso),
    (0x8001, b"NSR02", Kind::Iso),
    (0x8001, b"NSR03", Kind::Iso),
];

impl Kind {
    /// Every kind but raw whose marks `head` bears; none of them means raw.
    pub(crate) fn all(head: &[u8]) -> Vec<Self> {
        let marked =
            |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        let magic =
            MAGIC.iter().filter(|(offset, magic, _)| marked(*offset, magic)).map(|(_, _, kind)| *kind);
        magic.chain(table::is_there(head).then_some(Kind::Gpt)).collect()
    }

    /// Ironic's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Raw => "raw",
            Kind::Gpt => "gpt",
            Kind::Iso => "iso",
            Kind::Qcow2 => "qcow2",
            Kind::Qed => "qed",
            Kind::Vhd => "vhd",
            Kind::Vhdx => "vhdx",
            Kind::Vmdk => "vmdk",
            Kind::Vdi => "vdi",
            Kind::Luks => "luks",
        }
    }

    /// Whether the file's bytes are the disk's.
    pub(crate) fn is_plain(self) -> bool {
        match self {
            Kind::Raw | Kind::Gpt | Kind::Iso => true,
            Kind::Qcow2 | Kind::Qed | Kind::Vhd | Kind::Vhdx | Kind::Vmdk | Kind::Vdi | Kind::Luks => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_magic_is_seen_at_its_place_and_nowhere_else() {
        for (offset, magic, kind) in MAGIC {
            let mut head = vec![0u8; LOOK];
            head[*offset..offset + magic.len()].copy_from_slice(magic);
            assert_eq!(Kind::all(&head), [*kind]);
            head.insert(0, 0);
            assert_eq!(Kind::all(&head), []);
        }
        assert_eq!(Kind::all(b""), []);
        assert_eq!(Kind::all(b"QFI"), []);
    }

    #[test]
    fn a_boot_sector_of_fat_is_no_partition_table_and_a_hybrid_is_two_kinds() {
        let mut head = vec![0u8; LOOK];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(Kind::all(&head), [Kind::Gpt]);
        head[0x10] = 2;
        head[0x15] = 0xf8;
        assert_eq!(Kind::all(&head), []);
        head[0x10] = 0;
        head[0x8001..0x8006].copy_from_slice(b"CD001");
        assert_eq!(Kind::all(&head), [Kind::Iso, Kind::Gpt]);
    }
}

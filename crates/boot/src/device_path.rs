//! EFI device paths (UEFI specification 2.10, chapter 10): making the one that points to a file on a partition, and
//! showing any in the form `efibootmgr` prints, as far as its nodes are common.

use uuid::Uuid;

/// Where a boot loader lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardDrive {
    /// Partition number.
    pub number: u32,
    /// First sector.
    pub first_sector: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// How the partition is recognised.
    pub signature: Signature,
}

/// What identifies a partition to the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// Number at offset 440 of the disk.
    Mbr(u32),
    /// GUID of the GPT partition.
    Gpt(Uuid),
}

/// End of the entire path.
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// `HD(...)/File(...)/End`. `path` has backslashes and starts with one. `None` when the path is too long for a node.
pub fn to_file(drive: &HardDrive, path: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![4, 1, 42, 0];
    bytes.extend(drive.number.to_le_bytes());
    bytes.extend(drive.first_sector.to_le_bytes());
    bytes.extend(drive.sectors.to_le_bytes());
    match drive.signature {
        Signature::Mbr(signature) => {
            bytes.extend(signature.to_le_bytes());
            bytes.extend([0; 12]);
            bytes.extend([1, 1]);
        }
        Signature::Gpt(guid) => {
            bytes.extend(guid.to_bytes_le());
            bytes.extend([2, 2]);
        }
    }
    let units: Vec<u8> = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    bytes.extend([4, 4]);
    bytes.extend(u16::try_from(units.len().checked_add(4)?).ok()?.to_le_bytes());
    bytes.extend(units);
    bytes.extend(END);
    Some(bytes)
}

/// One node: type, subtype, data.
type Node<'a> = (u8, u8, &'a [u8]);

/// The nodes up to the end of the path, or up to damage.
fn nodes(path: &[u8]) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    let mut rest = path;
    while let [kind, subtype, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let data = length.checked_sub(4).and_then(|length| tail.get(..length));
        let Some(data) = data.filter(|_| *kind & 0x7f != 0x7f) else { break };
        nodes.push((*kind, *subtype, data));
        rest = tail.get(data.len()..).unwrap_or_default();
    }
    nodes
}

/// Whether `efibootmgr`'s users, Ironic among them, count an entry with this path: one that starts at a disk, a bus or a
/// firmware file, not at an address in memory (data plane page, 5.2.2).
pub fn is_bootable(path: &[u8]) -> bool {
    matches!(
        nodes(path).first(),
        Some((1, 4, _) | (2, _, _) | (3, 10 | 15, _) | (4, 1 | 6 | 7, _) | (5, 1, _))
    )
}

/// The path as text, `HD(1,GPT,<guid>,0x800,0x100000)/File(\EFI\BOOT\BOOTX64.EFI)`.
pub fn text(path: &[u8]) -> String {
    nodes(path).into_iter().map(node_text).collect::<Vec<_>>().join("/")
}

fn node_text((kind, subtype, data): Node<'_>) -> String {
    let byte = |at: usize| data.get(at).copied().unwrap_or_default();
    let le32 = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    let le64 = |at: usize| u64::from(le32(at)) | u64::from(le32(at + 4)) << 32;
    let guid = |at: usize| {
        let bytes = data.get(at..at + 16).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or_else(|| "?".to_owned(), |bytes| Uuid::from_bytes_le(bytes).to_string())
    };
    match (kind, subtype) {
        (1, 1) => format!("Pci(0x{:x},0x{:x})", byte(1), byte(0)),
        (1, 4) => format!("VenHw({})", guid(0)),
        // PNP0A03 and PNP0A08 are PCI roots.
        (2, 1) if matches!(le32(0), 0x0a03_41d0 | 0x0a08_41d0) => format!("PciRoot(0x{:x})", le32(4)),
        (2, 1) => format!("Acpi(0x{:08x},0x{:x})", le32(0), le32(4)),
        (3, 5) => format!("USB({},{})", byte(0), byte(1)),
        (3, 10) => format!("VenMsg({})", guid(0)),
        (3, 11) => {
            let address: String = data.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            format!("MAC({address},{})", byte(32))
        }
        (3, 12) => "IPv4(0.0.0.0)".to_owned(),
        (3, 13) => "IPv6([::])".to_owned(),
        (3, 15) => "UsbClass()".to_owned(),
        (3, 18) => format!("Sata({},{},{})", le16(data, 0), le16(data, 2), le16(data, 4)),
        (3, 23) => format!("NVMe(0x{:x})", le32(0)),
        (3, 24) => "Uri()".to_owned(),
        (4, 1) => {
            let place = format!("0x{:x},0x{:x}", le64(4), le64(12));
            match byte(37) {
                2 => format!("HD({},GPT,{},{place})", le32(0), guid(20)),
                _ => format!("HD({},MBR,0x{:08x},{place})", le32(0), le32(20)),
            }
        }
        (4, 2) => format!("CDROM({},0x{:x},0x{:x})", le32(0), le64(4), le64(12)),
        (4, 4) => {
            let units: Vec<u16> = data
                .chunks_exact(2)
                .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
                .take_while(|unit| *unit != 0)
                .collect();
            format!("File({})", String::from_utf16_lossy(&units))
        }
        (4, 6) => format!("FvFile({})", guid(0)),
        (4, 7) => format!("FvVol({})", guid(0)),
        (5, 1) => format!("BBS(0x{:x})", le16(data, 0)),
        (kind, subtype) => format!("Path({kind},{subtype})"),
    }
}

fn le16(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([
        data.get(at).copied().unwrap_or_default(),
        data.get(at + 1).copied().unwrap_or_default(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::uuid;

    #[test]
    fn paths_read_as_efibootmgr_prints_them() {
        let drive = HardDrive {
            number: 1,
            first_sector: 0x800,
            sectors: 0x100000,
            signature: Signature::Gpt(uuid!("12345678-9abc-def0-1122-334455667788")),
        };
        let path = to_file(&drive, "\\EFI\\BOOT\\BOOTX64.EFI").unwrap();
        assert_eq!(
            text(&path),
            "HD(1,GPT,12345678-9abc-def0-1122-334455667788,0x800,0x100000)/File(\\EFI\\BOOT\\BOOTX64.EFI)"
        );
        assert!(is_bootable(&path));
        let drive = HardDrive { signature: Signature::Mbr(0x1a2b_3c4d), ..drive };
        assert!(text(&to_file(&drive, "\\x").unwrap()).starts_with("HD(1,MBR,0x1a2b3c4d,0x800,0x100000)"));
        let memory =
            [1, 3, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 4, 0];
        assert!(!is_bootable(&memory));
        let pci = [2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, 2, 0x7f, 0xff, 4, 0];
        assert_eq!(text(&pci), "PciRoot(0x0)/Pci(0x2,0x0)");
    }

    proptest! {
        #[test]
        fn junk_is_shown_without_panic(path in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (text(&path), is_bootable(&path));
        }
    }
}

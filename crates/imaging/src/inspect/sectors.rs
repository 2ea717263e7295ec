//! For which sector size an image's partition table was made. Pure.
//!
//! Tables count in sectors, so one made for sectors of 512 bytes means other places on a disk with sectors of 4096. The header
//! of a GPT lies in sector 1 and tells at once. An MBR does not tell: what lies where its partitions begin does.

use super::rules::{Refusal, Rule};
use super::table::{self, Record};

/// How much of a partition's start tells a file system: as far as btrfs has its mark.
pub(crate) const START: usize = 68 * 1024;

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The table suits the disk, or there is none, or nothing tells.
    Suits,
    /// It was made for sectors of another size.
    Other(Mismatch),
    /// It was, if there is a file system at this place.
    Ask(u64, Mismatch),
}

/// A partition table for another kind of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Whether it is a GPT.
    pub(crate) is_gpt: bool,
    /// Bytes of the sectors that it was made for.
    pub(crate) table: u32,
    /// Bytes of the disk's sectors.
    pub(crate) disk: u32,
}

impl Mismatch {
    pub(crate) fn refusal(self) -> Refusal {
        let Self { is_gpt, table, disk } = self;
        let advice = match is_gpt {
            true => {
                "use an image made for such disks, or set translate_sector_size to have the table rewritten"
            }
            false => "use an image made for such disks",
        };
        let kind = if is_gpt { "GPT" } else { "MBR" };
        Rule::SectorSize.broken(format!(
            "its {kind} is made for sectors of {table} bytes, and the disk has sectors of {disk}: {advice}"
        ))
    }
}

/// Judges by `head`, the first bytes of the disk image. `image` is its size, where known; `disk` the disk's sector size in bytes.
pub(crate) fn judge(head: &[u8], image: Option<u64>, disk: u32) -> Verdict {
    let table = match disk {
        512 => 4096,
        4096 => 512,
        _ => return Verdict::Suits,
    };
    if !table::is_there(head) {
        return Verdict::Suits;
    }
    let records = table::records(head);
    let is_gpt = table::is_protective(&records);
    let mismatch = Mismatch { is_gpt, table, disk };
    match is_gpt {
        true if has_header(head, table) && !has_header(head, disk) => Verdict::Other(mismatch),
        true => Verdict::Suits,
        false => judge_mbr(head, &records, image, mismatch),
    }
}

/// Whether the header of a GPT lies in sector 1.
fn has_header(head: &[u8], sector: u32) -> bool {
    let at = usize::try_from(sector).unwrap_or(usize::MAX);
    let rest = head.get(at..).unwrap_or_default();
    rest.starts_with(b"EFI PART") && rest.get(24..32) == Some(&1u64.to_le_bytes())
}

fn judge_mbr(head: &[u8], records: &[Record], image: Option<u64>, mismatch: Mismatch) -> Verdict {
    let used = || records.iter().filter(|record| record.id != 0 && record.sectors != 0);
    let Some(first) = used().find(|record| !matches!(record.id, 0x05 | 0x0f | 0x85)) else {
        return Verdict::Suits;
    };
    let at = |sector: u32| u64::from(first.first) * u64::from(sector);
    let here = look(head, at(mismatch.disk));
    if here == Some(true) {
        return Verdict::Suits;
    }
    let there = at(mismatch.table);
    let fits = |sector: u32| {
        let end = |record: &Record| (u64::from(record.first) + u64::from(record.sectors)) * u64::from(sector);
        image.map(|size| used().all(|record| end(record) <= size))
    };
    match look(head, there) {
        Some(true) => Verdict::Other(mismatch),
        // The partitions end with the image, and not far beyond it.
        _ if fits(mismatch.disk) == Some(false) && fits(mismatch.table) == Some(true) => {
            Verdict::Other(mismatch)
        }
        Some(false) => Verdict::Suits,
        // It is asked for only where something is wrong already, or the disk is of the rare kind.
        None if here == Some(false) || mismatch.disk == 4096 => Verdict::Ask(there, mismatch),
        None => Verdict::Suits,
    }
}

/// Whether a file system begins at this offset; `None` where `head` does not reach that far.
fn look(head: &[u8], offset: u64) -> Option<bool> {
    let rest = head.get(usize::try_from(offset).ok()?..)?;
    (rest.len() >= 4096).then(|| is_file_system(rest))
}

/// Whether these are the first bytes of a file system, or of what takes the place of one.
pub(crate) fn is_file_system(bytes: &[u8]) -> bool {
    const MARKS: &[(usize, &[u8])] = &[
        (0, b"XFSB"),
        (0, b"LUKS\xba\xbe"),
        (512, b"LABELONE"),
        (1080, &[0x53, 0xef]),
        (4086, b"SWAPSPACE2"),
        (65_600, b"_BHRfS_M"),
    ];
    let is_boot_sector =
        matches!(bytes.first(), Some(0xeb | 0xe9)) && bytes.get(510..512) == Some(&[0x55, 0xaa]);
    let marked = |(at, mark): &(usize, &[u8])| bytes.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    is_boot_sector || MARKS.iter().any(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpt(headers: &[usize]) -> Vec<u8> {
        let mut head = vec![0u8; 64 * 1024];
        head[450] = 0xee;
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        for at in headers {
            head[*at..at + 8].copy_from_slice(b"EFI PART");
            head[at + 24] = 1;
        }
        head
    }

    /// An MBR with one partition in these sectors, and an ext4 superblock in a partition at `there`.
    fn mbr(first: u32, sectors: u32, there: Option<usize>) -> Vec<u8> {
        let mut head = vec![0u8; 1 << 20];
        head[450] = 0x83;
        head[454..458].copy_from_slice(&first.to_le_bytes());
        head[458..462].copy_from_slice(&sectors.to_le_bytes());
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        if let Some(at) = there {
            head[at + 1080..at + 1082].copy_from_slice(&[0x53, 0xef]);
        }
        head
    }

    fn other(is_gpt: bool, table: u32, disk: u32) -> Mismatch {
        Mismatch { is_gpt, table, disk }
    }

    #[test]
    fn a_gpt_tells_by_where_its_header_lies() {
        for (table, disk) in [(512, 4096), (4096, 512)] {
            let head = gpt(&[table]);
            let (table, disk) = (u32::try_from(table).unwrap(), u32::try_from(disk).unwrap());
            assert_eq!(judge(&head, None, disk), Verdict::Other(other(true, table, disk)));
            assert_eq!(judge(&head, None, table), Verdict::Suits);
        }
        for head in [gpt(&[]), gpt(&[512, 4096]), vec![0; 9000], vec![0; 3]] {
            assert_eq!(judge(&head, None, 512), Verdict::Suits);
            assert_eq!(judge(&head, None, 4096), Verdict::Suits);
        }
        let mut stale = gpt(&[4096]);
        stale[450] = 0x83;
        assert_eq!(judge(&stale, None, 512), Verdict::Suits, "nothing announces it");
    }

    #[test]
    fn an_mbr_tells_by_its_size_or_by_what_its_first_partition_holds() {
        let size = Some(64 << 20);
        let small = other(false, 512, 4096);
        let large = other(false, 4096, 512);
        assert_eq!(judge(&mbr(2048, 120_000, None), size, 4096), Verdict::Other(small));
        assert_eq!(judge(&mbr(2048, 120_000, None), None, 4096), Verdict::Ask(1 << 20, small));
        assert_eq!(judge(&mbr(2048, 120_000, None), size, 512), Verdict::Suits, "an ordinary image");
        assert_eq!(judge(&mbr(64, 120_000, Some(64 * 512)), size, 512), Verdict::Suits);
        assert_eq!(judge(&mbr(64, 120_000, Some(64 * 512)), None, 4096), Verdict::Other(small));
        assert_eq!(judge(&mbr(256, 16_000, None), size, 512), Verdict::Ask(1 << 20, large));
        assert_eq!(judge(&mbr(64, 16_000, Some(64 * 4096)), size, 512), Verdict::Other(large));
        assert_eq!(judge(&mbr(64, 16_000, Some(64 * 4096)), size, 4096), Verdict::Suits);
        assert_eq!(judge(&mbr(0, 0, None), size, 4096), Verdict::Suits);
    }

    #[test]
    fn file_systems_are_known_by_their_marks() {
        let mut start = vec![0u8; START];
        assert!(!is_file_system(&start) && !is_file_system(&[]));
        start[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        assert!(is_file_system(&start));
        let mut fat = vec![0u8; 512];
        fat[0] = 0xeb;
        fat[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(is_file_system(&fat));
    }

    #[test]
    fn a_refusal_says_both_sizes_and_what_to_do() {
        let text = other(true, 512, 4096).refusal().to_string();
        for part in ["sector-size", "512", "4096", "translate_sector_size"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!other(false, 512, 4096).refusal().to_string().contains("translate"), "an MBR can not be");
    }
}

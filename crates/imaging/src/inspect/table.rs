//! The MBR at the start of a disk image, as far as the rules for images go. Pure.

use super::rules::{Refusal, Rule};

const RECORDS: usize = 446;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// System id of the record that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// Cylinder 0, head 0, sector 2: where a GPT begins, in the numbers of long ago.
const PROTECTIVE_CHS: [u8; 3] = [0, 2, 0];

/// One of the four records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) status: u8,
    pub(super) start_chs: [u8; 3],
    pub(super) id: u8,
    pub(super) first: u32,
    pub(super) sectors: u32,
}

/// Whether there is an MBR, and not the boot sector of a FAT volume, which ends in the same bytes.
pub(super) fn is_there(head: &[u8]) -> bool {
    let is_fat = head.get(0x10) == Some(&2) && head.get(0x15) == Some(&0xf8);
    head.get(510..512) == Some(&SIGNATURE) && !is_fat
}

/// Whether a GPT header lies where sectors of 512 or 4096 bytes have it.
pub(super) fn has_gpt(head: &[u8]) -> bool {
    [512, 4096].iter().any(|at| head.get(*at..).is_some_and(|rest| rest.starts_with(b"EFI PART")))
}

/// Bytes at the start of a disk that show whether there is a table.
pub(super) const SEEN: usize = 4096 + 8;

/// Whether there is anything that could be a partition table: the signature of an MBR, in a boot sector of FAT as well, or a GPT.
pub(super) fn may_be_there(head: &[u8]) -> bool {
    head.get(510..512) == Some(&SIGNATURE) || has_gpt(head)
}

/// Its records.
pub(super) fn records(head: &[u8]) -> Vec<Record> {
    let bytes = head.get(RECORDS..RECORDS + 64).unwrap_or_default();
    bytes.chunks_exact(16).filter_map(parse).collect()
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let &[status, head, sector, cylinder, id, _, _, _, a, b, c, d, e, f, g, h] = bytes else { return None };
    Some(Record {
        status,
        start_chs: [head, sector, cylinder],
        id,
        first: u32::from_le_bytes([a, b, c, d]),
        sectors: u32::from_le_bytes([e, f, g, h]),
    })
}

/// Whether a GPT is announced.
pub(super) fn is_protective(records: &[Record]) -> bool {
    records.iter().any(|record| record.id == PROTECTIVE)
}

/// Holds the records to the rules.
pub(super) fn check(head: &[u8]) -> Result<(), Refusal> {
    let records = records(head);
    for (number, record) in (1u32..).zip(&records) {
        if record.status & 0x7f != 0 {
            let detail = format!("record {number} has the boot flag {:#04x}", record.status);
            return Err(Rule::TableBootFlag.broken(detail));
        }
        if record.id != PROTECTIVE {
            continue;
        }
        if record.start_chs != PROTECTIVE_CHS {
            let [head, sector, cylinder] = record.start_chs;
            let detail = format!("record {number} starts at {head:#04x} {sector:#04x} {cylinder:#04x}");
            return Err(Rule::TableProtectiveChs.broken(detail));
        }
        if record.first != 1 {
            let detail = format!("record {number} starts at sector {}", record.first);
            return Err(Rule::TableProtectiveStart.broken(detail));
        }
    }
    let used: Vec<u32> =
        (1u32..).zip(&records).filter(|(_, record)| record.id != 0).map(|(number, _)| number).collect();
    if used.is_empty() {
        return Err(Rule::TableEmpty.broken("it has no partition".into()));
    }
    if is_protective(&records) && used != [1] {
        return Err(Rule::TableProtectiveAlone.broken(format!("records {used:?} are in use")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(records: &[(usize, [u8; 16])]) -> Vec<u8> {
        let mut head = vec![0u8; 512];
        for (slot, record) in records {
            head[RECORDS + slot * 16..][..16].copy_from_slice(record);
        }
        head[510..].copy_from_slice(&SIGNATURE);
        head
    }

    fn record(status: u8, chs: [u8; 3], id: u8, first: u8) -> [u8; 16] {
        [status, chs[0], chs[1], chs[2], id, 0xff, 0xff, 0xff, first, 0, 0, 0, 0xff, 0, 0, 0]
    }

    #[test]
    fn each_rule_is_broken_by_what_it_forbids_and_by_nothing_else() {
        let gpt = record(0, PROTECTIVE_CHS, PROTECTIVE, 1);
        let linux = record(0x80, [0x20, 0x21, 0], 0x83, 64);
        for sound in [with(&[(0, gpt)]), with(&[(0, linux)]), with(&[(3, linux), (1, linux)])] {
            assert_eq!(check(&sound), Ok(()));
        }
        let cases = [
            (with(&[(0, record(0x01, [0; 3], 0x83, 64))]), Rule::TableBootFlag),
            (with(&[(0, linux), (2, record(0xff, [0; 3], 0, 0))]), Rule::TableBootFlag),
            (with(&[(0, record(0, [0, 1, 0], PROTECTIVE, 1))]), Rule::TableProtectiveChs),
            (with(&[(0, record(0, PROTECTIVE_CHS, PROTECTIVE, 2))]), Rule::TableProtectiveStart),
            (with(&[(1, gpt)]), Rule::TableProtectiveAlone),
            (with(&[(0, gpt), (1, linux)]), Rule::TableProtectiveAlone),
            (with(&[]), Rule::TableEmpty),
        ];
        for (head, rule) in cases {
            assert_eq!(check(&head).map_err(|refusal| refusal.rule), Err(rule));
        }
    }

    proptest! {
        #[test]
        fn no_first_sector_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = (is_there(&bytes), check(&bytes));
        }
    }
}

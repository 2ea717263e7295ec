//! Choosing the disk an image goes to, with the reason for and against each one.

use std::fmt;

use wire::Disk;

use crate::hints::gib_text;
use crate::{AllowList, Hints};

/// The least size a disk must have to be chosen without hints: 4 GiB, as in Ironic (data plane page, 2.2).
pub const DEFAULT_MINIMUM_BYTES: u64 = 4 << 30;

/// The chosen disk, if any, and what was thought of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The disk to write to.
    pub chosen: Option<Disk>,
    /// One for each disk, in the order of the list.
    pub verdicts: Vec<Verdict>,
}

/// What was thought of one disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The disk.
    pub disk: Disk,
    /// Whether it could be the one. Several may match; one is chosen.
    pub matched: bool,
    /// Why, and why not, one phrase each.
    pub reasons: Vec<String>,
}

/// Chooses among `disks`: with hints the first that satisfies all of them, in the order of the list; without hints the
/// smallest of at least [`DEFAULT_MINIMUM_BYTES`], by name where sizes are equal. Disks that match a hint of `skip` and
/// disks outside the allow-list are never chosen.
pub fn select(disks: &[Disk], hints: Option<&Hints>, allow: Option<&AllowList>, skip: &[Hints]) -> Selection {
    let verdicts: Vec<Verdict> = disks.iter().map(|disk| judge(disk, hints, allow, skip)).collect();
    let mut candidates: Vec<&Disk> = verdicts.iter().filter(|v| v.matched).map(|v| &v.disk).collect();
    if hints.is_none() {
        candidates.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    }
    Selection { chosen: candidates.first().map(|disk| (*disk).clone()), verdicts }
}

fn judge(disk: &Disk, hints: Option<&Hints>, allow: Option<&AllowList>, skip: &[Hints]) -> Verdict {
    let mut matched = true;
    let mut reasons = Vec::new();
    if let Some(allow) = allow
        && !allow.permits(disk)
    {
        matched = false;
        reasons.push(format!("is not on the allow-list `{allow}`"));
    }
    for hints in skip.iter().filter(|hints| hints.matches(disk)) {
        matched = false;
        reasons.push(format!("is to be skipped ({hints})"));
    }
    match hints {
        Some(hints) => {
            for verdict in hints.explain(disk) {
                matched &= verdict.matched;
                reasons.push(verdict.reason);
            }
        }
        None if disk.size < DEFAULT_MINIMUM_BYTES => {
            matched = false;
            reasons.push(format!("{} is less than 4 GiB", gib_text(disk.size)));
        }
        None => reasons.push(format!("{} is large enough; the smallest is taken", gib_text(disk.size))),
    }
    Verdict { disk: disk.clone(), matched, reasons }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.verdicts {
            let is_chosen = self.chosen.as_ref().is_some_and(|chosen| chosen.name == verdict.disk.name);
            let word = match (is_chosen, verdict.matched) {
                (true, _) => "chosen",
                (false, true) => "possible",
                (false, false) => "no",
            };
            writeln!(f, "{} ({word}): {}", verdict.disk.name, verdict.reasons.join("; "))?;
        }
        match &self.chosen {
            Some(disk) => write!(f, "chosen: {}", disk.name),
            None if self.verdicts.is_empty() => f.write_str("there is no disk"),
            None => f.write_str("no disk is suitable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn disk(name: &str, bytes: u64) -> Disk {
        Disk { name: name.into(), size: bytes, ..Disk::default() }
    }

    const GIB: u64 = 1 << 30;

    fn name(selection: &Selection) -> Option<&str> {
        selection.chosen.as_ref().map(|disk| disk.name.as_str())
    }

    #[test]
    fn without_hints_the_smallest_large_enough_disk_is_taken() {
        let disks = [
            disk("/dev/sda", 20 * GIB),
            disk("/dev/sdc", 4 * GIB),
            disk("/dev/sdb", 4 * GIB),
            disk("/dev/sdd", 4 * GIB - 1),
        ];
        let selection = select(&disks, None, None, &[]);
        assert_eq!(name(&selection), Some("/dev/sdb"));
        assert_eq!(selection.verdicts.iter().filter(|v| v.matched).count(), 3);
        assert_eq!(name(&select(&disks[3..], None, None, &[])), None);
        assert_eq!(select(&[], None, None, &[]).to_string(), "there is no disk");
    }

    #[test]
    fn with_hints_the_first_in_the_order_of_the_list_is_taken() {
        let disks = [disk("/dev/sdb", 20 * GIB), disk("/dev/sda", 10 * GIB), disk("/dev/sdc", GIB)];
        let hints = Hints::parse(&json!({"size": ">= 1"})).unwrap();
        assert_eq!(name(&select(&disks, Some(&hints), None, &[])), Some("/dev/sdb"));
    }

    #[test]
    fn skipped_and_forbidden_disks_are_never_chosen_and_say_why() {
        let disks = [disk("/dev/sda", 5 * GIB), disk("/dev/sdb", 6 * GIB), disk("/dev/sdc", 7 * GIB)];
        let allow = AllowList::parse("sda,sdc").unwrap();
        let skip = [Hints::parse(&json!({"name": "/dev/sda"})).unwrap()];
        let selection = select(&disks, None, Some(&allow), &skip);
        assert_eq!(name(&selection), Some("/dev/sdc"));
        let text = selection.to_string();
        assert!(text.contains("/dev/sda (no): is to be skipped"), "{text}");
        assert!(text.contains("/dev/sdb (no): is not on the allow-list"), "{text}");
        assert!(text.ends_with("chosen: /dev/sdc"), "{text}");
    }
}

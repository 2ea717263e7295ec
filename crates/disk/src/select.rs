//! Choosing the disk an image goes to, with the reason for and against each one.

use std::fmt;

use wire::Disk;

use crate::hints::gib_text;
use crate::{AllowList, HintVerdict, Hints, Paths, Situation};

/// The least size a disk must have to be chosen without hints: 4 GiB, as in Ironic (data plane page, 2.2).
pub const DEFAULT_MINIMUM_BYTES: u64 = 4 << 30;

/// How many bytes of reasons an error carries, in all and for one disk: what fits a screen. The rest is in `explain`.
const SUMMARY_LIMIT: usize = 3000;
const PHRASE_LIMIT: usize = 600;

/// What a disk is chosen by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// The node's root device hints.
    pub hints: Option<&'a Hints>,
    /// The only disks that may be written.
    pub allow: Option<&'a AllowList>,
    /// What speaks against disks seen together: arrays, paths, the skip list.
    pub situation: Option<&'a Situation>,
    /// The device that RAID configuration made the root volume: it goes before hints.
    pub root_volume: Option<&'a str>,
}

/// The chosen disk, if any, and what was thought of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The disk to write to.
    pub chosen: Option<Disk>,
    /// The paths to the chosen disk, where it has several and no multipath device stands for them.
    pub paths: Option<Paths>,
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
    /// What each hint says of it.
    pub hints: Vec<HintVerdict>,
    /// What else speaks for or against it, one phrase each.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Everything said of it, one phrase each; of hints, those that speak against it first.
    pub fn phrases(&self) -> Vec<String> {
        let (against, for_it): (Vec<_>, Vec<_>) = self.hints.iter().partition(|verdict| !verdict.matched);
        let hints = against.into_iter().chain(for_it).map(ToString::to_string);
        self.reasons.iter().cloned().chain(hints).collect()
    }
}

/// Chooses among `disks`: the root volume of the RAID configuration; else with hints the first disk that satisfies all of them,
/// in the order of the list; without hints the smallest of at least [`DEFAULT_MINIMUM_BYTES`], by name where sizes are equal.
///
/// Disks outside the allow-list and those that the situation rules out are never chosen. Of several paths to one disk
/// that all match, the best is.
pub fn select(disks: &[Disk], rules: &Rules<'_>) -> Selection {
    let mut verdicts: Vec<Verdict> = disks.iter().map(|disk| judge(disk, rules)).collect();
    let paths = rules.situation.map_or(&[][..], |situation| situation.paths.as_slice());
    for paths in paths {
        keep_best_path(paths, &mut verdicts);
    }
    let mut candidates: Vec<&Disk> = verdicts.iter().filter(|v| v.matched).map(|v| &v.disk).collect();
    if rules.hints.is_none() {
        candidates.sort_by(|a, b| (a.size, &a.name).cmp(&(b.size, &b.name)));
    }
    let chosen = candidates.first().map(|disk| (*disk).clone());
    let leads_there = |paths: &&Paths| chosen.as_ref().is_some_and(|disk| paths.devices.contains(&disk.name));
    let paths = paths.iter().find(leads_there).cloned();
    Selection { chosen, paths, verdicts }
}

/// Two names of one disk are one candidate.
fn keep_best_path(paths: &Paths, verdicts: &mut [Verdict]) {
    let matches = |device: &&String| verdicts.iter().any(|v| v.matched && v.disk.name == **device);
    let Some(best) = paths.devices.iter().find(matches) else { return };
    for verdict in verdicts.iter_mut().filter(|v| v.matched && v.disk.name != *best) {
        if paths.devices.contains(&verdict.disk.name) {
            verdict.matched = false;
            verdict.reasons.push(format!("is another path to the same disk as {best} ({})", paths.identity));
        }
    }
}

fn judge(disk: &Disk, rules: &Rules<'_>) -> Verdict {
    let mut matched = true;
    let mut reasons = Vec::new();
    if let Some(allow) = rules.allow
        && !allow.permits(disk)
    {
        matched = false;
        reasons.push(format!("is not on the allow-list `{allow}`"));
    }
    if let Some(reason) = rules.situation.and_then(|situation| situation.ruled_out.get(&disk.name)) {
        matched = false;
        reasons.push(reason.clone());
    }
    let mut hints = Vec::new();
    match (rules.root_volume, rules.hints) {
        (Some(volume), _) if volume == disk.name => {
            reasons.push("is the root volume of the RAID configuration, which goes before hints".into());
        }
        (Some(volume), _) => {
            matched = false;
            reasons.push(format!("is not {volume}, the root volume of the RAID configuration"));
        }
        (None, Some(wanted)) => {
            hints = wanted.explain(disk);
            matched &= hints.iter().all(|verdict| verdict.matched);
        }
        (None, None) if disk.size < DEFAULT_MINIMUM_BYTES => {
            matched = false;
            reasons.push(format!("{} is less than 4 GiB", gib_text(disk.size)));
        }
        (None, None) => {
            reasons.push(format!("{} is large enough; the smallest is taken", gib_text(disk.size)))
        }
    }
    Verdict { disk: disk.clone(), matched, hints, reasons }
}

impl Selection {
    /// Why no disk was chosen, in one line of bounded length: the disks that came closest first.
    pub fn summary(&self) -> String {
        let objections = |verdict: &Verdict| {
            verdict.reasons.len() + verdict.hints.iter().filter(|hint| !hint.matched).count()
        };
        let mut verdicts: Vec<&Verdict> = self.verdicts.iter().collect();
        verdicts.sort_by_key(|verdict| objections(verdict));
        let mut text = String::new();
        for (index, verdict) in verdicts.iter().enumerate() {
            let against = verdict.hints.iter().filter(|hint| !hint.matched).map(ToString::to_string);
            let phrases: Vec<String> = verdict.reasons.iter().cloned().chain(against).collect();
            let phrase = shortened(&format!("{}: {}", verdict.disk.name, phrases.join(", ")), PHRASE_LIMIT);
            let separator = if index > 0 { "; " } else { "" };
            if text.len() + phrase.len() > SUMMARY_LIMIT {
                let rest = verdicts.len() - index;
                text.push_str(&format!("{separator}{rest} more disks (`ferric-agent explain` shows all)"));
                break;
            }
            text.push_str(separator);
            text.push_str(&phrase);
        }
        if text.is_empty() { "there is no disk".into() } else { text }
    }
}

/// At most so many bytes of a text, with a mark where it was cut.
fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().find(|(at, _)| *at >= limit) {
        Some((at, _)) => format!("{} [...]", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
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
            writeln!(f, "{} ({word}): {}", verdict.disk.name, verdict.phrases().join("; "))?;
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
    use crate::SkipList;
    use serde_json::json;
    use std::collections::BTreeMap;

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
        let selection = select(&disks, &Rules::default());
        assert_eq!(name(&selection), Some("/dev/sdb"));
        assert_eq!(selection.verdicts.iter().filter(|v| v.matched).count(), 3);
        assert_eq!(name(&select(&disks[3..], &Rules::default())), None);
        assert_eq!(select(&[], &Rules::default()).to_string(), "there is no disk");
    }

    #[test]
    fn with_hints_the_first_in_the_order_of_the_list_is_taken() {
        let disks = [disk("/dev/sdb", 20 * GIB), disk("/dev/sda", 10 * GIB), disk("/dev/sdc", GIB)];
        let hints = Hints::parse(&json!({"size": ">= 1"})).unwrap();
        assert_eq!(
            name(&select(&disks, &Rules { hints: Some(&hints), ..Rules::default() })),
            Some("/dev/sdb")
        );
    }

    #[test]
    fn skipped_and_forbidden_disks_are_never_chosen_and_say_why() {
        let disks = [disk("/dev/sda", 5 * GIB), disk("/dev/sdb", 6 * GIB), disk("/dev/sdc", 7 * GIB)];
        let allow = AllowList::parse("sda,sdc").unwrap();
        let skip = SkipList::parse(&json!([{"name": "/dev/sdz"}, {"name": "/dev/sda"}])).unwrap();
        let host = sys::fake::host("/nonexistent");
        let situation = Situation::look(&host, &disks, &skip, &BTreeMap::new());
        let rules = Rules { allow: Some(&allow), situation: Some(&situation), ..Rules::default() };
        let selection = select(&disks, &rules);
        assert_eq!(name(&selection), Some("/dev/sdc"));
        let text = selection.to_string();
        assert!(text.contains("/dev/sda (no): is to be skipped"), "{text}");
        assert!(text.contains("/dev/sdb (no): is not on the allow-list"), "{text}");
        assert!(text.ends_with("chosen: /dev/sdc"), "{text}");
    }

    #[test]
    fn the_root_volume_of_the_raid_configuration_goes_before_hints() {
        let disks = [disk("/dev/sda", 20 * GIB), disk("/dev/md0", GIB)];
        let hints = Hints::parse(&json!({"name": "/dev/sda"})).unwrap();
        let rules = |volume| Rules { hints: Some(&hints), root_volume: volume, ..Rules::default() };
        assert_eq!(name(&select(&disks, &rules(Some("/dev/md0")))), Some("/dev/md0"));
        assert_eq!(name(&select(&disks, &rules(None))), Some("/dev/sda"));
        let gone = select(&disks, &rules(Some("/dev/md9")));
        assert_eq!(name(&gone), None);
        assert!(gone.summary().contains("is not /dev/md9, the root volume"), "{}", gone.summary());
    }

    #[test]
    fn what_the_situation_rules_out_is_not_chosen() {
        let disks = [disk("/dev/sda", 5 * GIB), disk("/dev/sdb", 6 * GIB)];
        let mut situation = Situation::default();
        situation.ruled_out.insert("/dev/sda".into(), "is part of the array /dev/md0".into());
        let selection = select(&disks, &Rules { situation: Some(&situation), ..Rules::default() });
        assert_eq!(name(&selection), Some("/dev/sdb"));
        assert!(
            selection.to_string().contains("/dev/sda (no): is part of the array /dev/md0"),
            "{selection}"
        );
    }

    #[test]
    fn of_several_paths_that_match_the_best_is_taken_and_the_others_say_so() {
        let disks = [disk("/dev/sda", 5 * GIB), disk("/dev/sdb", 6 * GIB), disk("/dev/sdc", 5 * GIB)];
        let both = Paths { identity: "WWN 0x5".into(), devices: vec!["/dev/sdc".into(), "/dev/sda".into()] };
        let situation = Situation { paths: vec![both.clone()], ..Situation::default() };
        let rules = Rules { situation: Some(&situation), ..Rules::default() };
        let selection = select(&disks, &rules);
        assert_eq!(name(&selection), Some("/dev/sdc"));
        assert_eq!(selection.paths, Some(both.clone()));
        let text = selection.to_string();
        assert!(text.contains("/dev/sda (no): 5 GiB is large enough"), "{text}");
        assert!(text.contains("is another path to the same disk as /dev/sdc (WWN 0x5)"), "{text}");
        let hints = Hints::parse(&json!({"name": "/dev/sda"})).unwrap();
        let by_name = select(&disks, &Rules { hints: Some(&hints), ..rules });
        assert_eq!(
            (name(&by_name), by_name.paths.as_ref()),
            (Some("/dev/sda"), Some(&both)),
            "who names a path gets it"
        );
        let hints = Hints::parse(&json!({"size": 6})).unwrap();
        assert_eq!(select(&disks, &Rules { hints: Some(&hints), ..rules }).paths, None);
    }

    #[test]
    fn the_summary_names_the_nearest_miss_first_and_is_bounded() {
        let hints = Hints::parse(&json!({"size": 5, "serial": "x".repeat(500), "vendor": "s!= a"})).unwrap();
        let rules = Rules { hints: Some(&hints), ..Rules::default() };
        let mut disks: Vec<Disk> = (0..400).map(|n| disk(&format!("/dev/sd{n}"), GIB)).collect();
        disks.push(disk("/dev/near", 5 * GIB));
        let summary = select(&disks, &rules).summary();
        assert!(summary.starts_with("/dev/near: serial nothing does not satisfy"), "{summary}");
        assert!(!summary.contains("vendor"), "what speaks for a disk is no reason: {summary}");
        assert!(summary.len() < SUMMARY_LIMIT + 200, "{}", summary.len());
        assert!(summary.contains("more disks"), "{summary}");
        assert_eq!(select(&[], &rules).summary(), "there is no disk");
        assert_eq!(shortened("äöü", 3), "äö [...]");
    }
}

//! What a RAID configuration asks for, checked as a whole: every problem is named, not only the first. Pure.
//!
//! Source: data plane page, 9.2.

use std::collections::BTreeSet;

use disk::Hints;
use hwm::Error;
use serde_json::Value;

use super::failed;
use crate::generic::partition::boot_mode::is_true;

/// How data are spread over the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Stripes,
    Mirror,
    MirroredStripes,
    Parity,
    DoubleParity,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self::Stripes),
            "1" => Some(Self::Mirror),
            "1+0" => Some(Self::MirroredStripes),
            "5" => Some(Self::Parity),
            "6" => Some(Self::DoubleParity),
            _ => None,
        }
    }

    /// As mdadm names it.
    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Stripes => "0",
            Self::Mirror => "1",
            Self::MirroredStripes => "10",
            Self::Parity => "5",
            Self::DoubleParity => "6",
        }
    }

    /// The fewest members that make sense.
    pub(super) fn fewest_members(self) -> usize {
        match self {
            Self::Stripes | Self::Mirror | Self::MirroredStripes => 2,
            Self::Parity => 3,
            Self::DoubleParity => 4,
        }
    }
}

/// How much of each disk an array takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Size {
    /// So many GiB.
    Gib(u64),
    /// What is left.
    Max,
}

/// An array to make.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogicalDisk {
    /// The name it gets.
    pub(super) volume: Option<String>,
    pub(super) level: Level,
    pub(super) size: Size,
    /// One for each member; all disks where there are none.
    pub(super) physical_disks: Option<Vec<Hints>>,
}

/// What is wanted, in the order in which it is made: the one that takes the rest comes last. `None` where the configuration
/// has no logical disk of ours.
///
/// # Errors
/// `SoftwareRaid` with all that is wrong.
pub(super) fn parse(config: &Value, kept: &BTreeSet<String>) -> Result<Option<Vec<LogicalDisk>>, Error> {
    let listed = config.get("logical_disks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if listed.is_empty() {
        return Err(failed("the RAID configuration has no logical_disks: give one or two"));
    }
    let is_ours = |disk: &Value| disk.get("controller").and_then(Value::as_str) == Some("software");
    if !listed.iter().any(is_ours) {
        return Ok(None);
    }
    let mut problems = Vec::new();
    if listed.len() > 2 {
        problems.push(format!("there are {} logical disks: at most 2 are supported", listed.len()));
    }
    if !listed.iter().all(is_ours) {
        problems.push(
            "some logical disks have the controller `software`, others have not: all must have it".into(),
        );
    }
    volume_names(listed, kept, &mut problems);
    if listed.iter().filter(|disk| disk.get("is_root_volume").is_some_and(is_true)).count() > 1 {
        problems.push("more than one logical disk is_root_volume".into());
    }
    let mut wanted = Vec::new();
    for (index, disk) in listed.iter().enumerate() {
        let mut reader =
            Reader { name: format!("logical disk {}", index + 1), disk, problems: &mut problems };
        let (level, size) = (reader.level(index), reader.size());
        let (volume, physical_disks) = (reader.volume(), reader.physical_disks());
        if let (Some(level), Some(size)) = (level, size) {
            wanted.push(LogicalDisk { volume, level, size, physical_disks });
        }
    }
    if wanted.iter().filter(|disk| disk.size == Size::Max).count() > 1 {
        problems.push("only one logical disk can have the size_gb MAX".into());
    }
    if !problems.is_empty() {
        return Err(failed(format!("the RAID configuration can not be applied: {}", problems.join("; "))));
    }
    wanted.sort_by_key(|disk| disk.size == Size::Max);
    Ok(Some(wanted))
}

fn volume_names(listed: &[Value], kept: &BTreeSet<String>, problems: &mut Vec<String>) {
    let names: Vec<Option<&str>> =
        listed.iter().map(|disk| disk.get("volume_name").and_then(Value::as_str)).collect();
    let mut seen = BTreeSet::new();
    for name in names.iter().flatten() {
        if !seen.insert(name) {
            problems.push(format!("two logical disks have the volume_name {name}"));
        }
    }
    if !kept.is_empty() && names.iter().any(Option::is_none) {
        problems.push(
            "properties.skip_block_devices keeps volumes by name, so every logical disk must have a volume_name".into(),
        );
    }
}

/// Reads one logical disk and writes down what is wrong with it.
struct Reader<'a> {
    name: String,
    disk: &'a Value,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn problem(&mut self, text: impl std::fmt::Display) {
        self.problems.push(format!("{}: {text}", self.name));
    }

    fn level(&mut self, index: usize) -> Option<Level> {
        let text = match self.disk.get("raid_level") {
            Some(Value::String(text)) => text.clone(),
            other => other.map(Value::to_string).unwrap_or_default(),
        };
        match Level::parse(&text) {
            // Firmware and boot loaders read what lies on a mirror.
            Some(level) if index > 0 || level == Level::Mirror => Some(level),
            _ if index == 0 => {
                self.problem(format_args!(
                    "its raid_level is `{text}`: the first logical disk must be \"1\""
                ));
                None
            }
            _ => {
                self.problem(format_args!(
                    "its raid_level is `{text}`: give \"0\", \"1\", \"1+0\", \"5\" or \"6\""
                ));
                None
            }
        }
    }

    fn size(&mut self) -> Option<Size> {
        let given = self.disk.get("size_gb");
        let size = match given {
            Some(Value::String(text)) if text == "MAX" => Some(Size::Max),
            Some(Value::String(text)) => text.trim().parse().ok().map(Size::Gib),
            other => other.and_then(Value::as_u64).map(Size::Gib),
        };
        let size = size.filter(|size| *size != Size::Gib(0));
        if size.is_none() {
            let given = given.map(Value::to_string).unwrap_or_else(|| "missing".into());
            self.problem(format_args!("its size_gb is {given}: give a number of GiB or \"MAX\""));
        }
        size
    }

    fn volume(&mut self) -> Option<String> {
        match self.disk.get("volume_name") {
            None | Some(Value::Null) => None,
            // A superblock has room for 32 bytes with the end mark; `:` parts host and name, a blank ends the name.
            Some(Value::String(name))
                if (1..=31).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte))
                    && !name.starts_with(['-', '.']) =>
            {
                Some(name.clone())
            }
            Some(other) => {
                self.problem(format_args!(
                    "its volume_name is {other}: give up to 31 letters, digits and `_-.+`, the first no `-` or `.`"
                ));
                None
            }
        }
    }

    fn physical_disks(&mut self) -> Option<Vec<Hints>> {
        let listed = match self.disk.get("physical_disks") {
            None | Some(Value::Null) => return None,
            Some(Value::Array(listed)) if listed.len() >= 2 => listed,
            Some(_) => {
                self.problem("its physical_disks is not a list of two or more hints");
                return None;
            }
        };
        let mut hints = Vec::new();
        for hint in listed {
            match Hints::parse(hint) {
                Ok(parsed) => hints.push(parsed),
                Err(error) => self.problem(hwm::chain(&error)),
            }
        }
        Some(hints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(config: Value) -> String {
        parse(&config, &BTreeSet::new()).unwrap_err().to_string()
    }

    fn disk(level: &str, size: Value) -> Value {
        json!({"controller": "software", "raid_level": level, "size_gb": size})
    }

    #[test]
    fn the_disk_that_takes_the_rest_is_made_last() {
        let config = json!({"logical_disks": [disk("1", json!("MAX")), disk("0", json!("50"))]});
        let wanted = parse(&config, &BTreeSet::new()).unwrap().unwrap();
        let order: Vec<_> = wanted.iter().map(|disk| (disk.level, disk.size)).collect();
        assert_eq!(order, [(Level::Stripes, Size::Gib(50)), (Level::Mirror, Size::Max)]);
    }

    #[test]
    fn every_level_of_the_second_disk_has_mdadms_name() {
        for (level, argument, fewest) in
            [("0", "0", 2), ("1", "1", 2), ("1+0", "10", 2), ("5", "5", 3), ("6", "6", 4)]
        {
            let config = json!({"logical_disks": [disk("1", json!(10)), disk(level, json!("MAX"))]});
            let wanted = parse(&config, &BTreeSet::new()).unwrap().unwrap();
            assert_eq!((wanted[1].level.argument(), wanted[1].level.fewest_members()), (argument, fewest));
        }
    }

    #[test]
    fn a_configuration_of_other_controllers_is_none_of_ours() {
        let config = json!({"logical_disks": [{"raid_level": "1", "size_gb": 5}]});
        assert_eq!(parse(&config, &BTreeSet::new()).unwrap(), None);
    }

    #[test]
    fn each_rule_is_named() {
        let with = |key: &str, value: Value| {
            let mut one = disk("1", json!(10));
            one[key] = value;
            json!({"logical_disks": [one]})
        };
        let one = disk("1", json!(10));
        let named = |name: &str| json!({"controller": "software", "raid_level": "1", "size_gb": 1, "volume_name": name});
        let root = json!({"controller": "software", "raid_level": "1", "size_gb": 1, "is_root_volume": true});
        for (config, words) in [
            (json!({}), "no logical_disks"),
            (json!({"logical_disks": []}), "no logical_disks"),
            (json!({"logical_disks": [one, one, one]}), "at most 2"),
            (json!({"logical_disks": [one, {"raid_level": "1", "size_gb": 1}]}), "all must have it"),
            (json!({"logical_disks": [named("a"), named("a")]}), "volume_name a"),
            (json!({"logical_disks": [root, root]}), "is_root_volume"),
            (json!({"logical_disks": [disk("5", json!(1))]}), "must be \"1\""),
            (json!({"logical_disks": [one, disk("2", json!(1))]}), "\"1+0\""),
            (json!({"logical_disks": [disk("1", json!("MAX")), disk("0", json!("MAX"))]}), "MAX"),
            (with("size_gb", json!(0)), "size_gb is 0"),
            (with("size_gb", json!("much")), "size_gb"),
            (with("volume_name", json!("a b")), "volume_name"),
            (with("volume_name", json!("--force")), "volume_name"),
            (with("volume_name", json!("x".repeat(32))), "volume_name"),
            (with("physical_disks", json!("sda")), "two or more"),
            (with("physical_disks", json!([{"name": "/dev/sda"}])), "two or more"),
            (with("physical_disks", json!([{"name": "/dev/sda"}, {}])), "is empty"),
            (with("physical_disks", json!([{"name": "/dev/sda"}, {"colour": "red"}])), "colour"),
        ] {
            let text = problems(config.clone());
            assert!(text.contains(words), "{config}: {text}");
        }
    }

    #[test]
    fn all_problems_are_in_one_error() {
        let text = problems(
            json!({"logical_disks": [disk("5", json!("MAX")), disk("9", json!("MAX")), disk("1", json!(-1))]}),
        );
        for words in ["at most 2", "must be \"1\"", "logical disk 2", "logical disk 3: its size_gb is -1"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn volumes_that_are_kept_by_name_want_names_everywhere() {
        let kept = BTreeSet::from(["data".to_owned()]);
        let config = json!({"logical_disks": [disk("1", json!(10))]});
        let text = parse(&config, &kept).unwrap_err().to_string();
        assert!(text.contains("skip_block_devices"), "{text}");
    }
}

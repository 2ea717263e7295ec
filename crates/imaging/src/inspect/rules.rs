//! The rules that decide whether an image is taken, each with a name that stays and a sentence. Pure.

use std::fmt;

/// A rule that an image may break. The names are stable: scripts and people look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// It is of one format only.
    OneFormat,
    /// It is what it is declared to be.
    DeclaredFormat,
    /// Its format is permitted.
    PermittedFormat,
    /// Its format can be written in one pass.
    WritableFormat,
    /// A compressed file holds a raw disk.
    RawInside,
    /// qcow2: version 2 or 3.
    Qcow2Version,
    /// qcow2: no backing file.
    Qcow2BackingFile,
    /// qcow2: no external data file.
    Qcow2ExternalData,
    /// qcow2: no feature that is not known.
    Qcow2Features,
    /// qcow2: not encrypted.
    Qcow2Encryption,
    /// Boot flags are 0x00 or 0x80.
    TableBootFlag,
    /// The record that protects a GPT starts at the right cylinder, head and sector.
    TableProtectiveChs,
    /// It starts at sector 1.
    TableProtectiveStart,
    /// It is the first and only one.
    TableProtectiveAlone,
    /// There is a partition.
    TableEmpty,
    /// There is a partition table, where a config drive is to become a partition of it.
    TableMissing,
    /// The partition table is for sectors of the disk's size.
    SectorSize,
    /// A table that is to be rewritten for another sector size can be.
    SectorTranslation,
    /// A config drive finds a place beside the image.
    ConfigDrive,
}

impl Rule {
    /// All of them.
    pub const ALL: &'static [Rule] = &[
        Rule::OneFormat,
        Rule::DeclaredFormat,
        Rule::PermittedFormat,
        Rule::WritableFormat,
        Rule::RawInside,
        Rule::Qcow2Version,
        Rule::Qcow2BackingFile,
        Rule::Qcow2ExternalData,
        Rule::Qcow2Features,
        Rule::Qcow2Encryption,
        Rule::TableBootFlag,
        Rule::TableProtectiveChs,
        Rule::TableProtectiveStart,
        Rule::TableProtectiveAlone,
        Rule::TableEmpty,
        Rule::TableMissing,
        Rule::SectorSize,
        Rule::SectorTranslation,
        Rule::ConfigDrive,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::OneFormat => "one-format",
            Rule::DeclaredFormat => "declared-format",
            Rule::PermittedFormat => "permitted-format",
            Rule::WritableFormat => "writable-format",
            Rule::RawInside => "raw-inside",
            Rule::Qcow2Version => "qcow2-version",
            Rule::Qcow2BackingFile => "qcow2-backing-file",
            Rule::Qcow2ExternalData => "qcow2-external-data",
            Rule::Qcow2Features => "qcow2-features",
            Rule::Qcow2Encryption => "qcow2-encryption",
            Rule::TableBootFlag => "table-boot-flag",
            Rule::TableProtectiveChs => "table-protective-chs",
            Rule::TableProtectiveStart => "table-protective-start",
            Rule::TableProtectiveAlone => "table-protective-alone",
            Rule::TableEmpty => "table-empty",
            Rule::TableMissing => "table-missing",
            Rule::SectorSize => "sector-size",
            Rule::SectorTranslation => "sector-translation",
            Rule::ConfigDrive => "config-drive",
        }
    }

    /// What it demands.
    pub fn sentence(self) -> &'static str {
        match self {
            Rule::OneFormat => "an image must be of one format only",
            Rule::DeclaredFormat => "an image must be what it is declared to be",
            Rule::PermittedFormat => "the format must be among permitted_image_formats",
            Rule::WritableFormat => "only raw and qcow2 images can be written",
            Rule::RawInside => "a compressed file must hold a raw disk",
            Rule::Qcow2Version => "qcow2 must be of version 2 or 3",
            Rule::Qcow2BackingFile => "qcow2 must have no backing file",
            Rule::Qcow2ExternalData => "qcow2 must hold its data itself",
            Rule::Qcow2Features => "qcow2 must use no unknown incompatible feature",
            Rule::Qcow2Encryption => "qcow2 must not be encrypted",
            Rule::TableBootFlag => "boot flags in an MBR must be 0x00 or 0x80",
            Rule::TableProtectiveChs => "the MBR record of a GPT must start at head 0, sector 2, cylinder 0",
            Rule::TableProtectiveStart => "the MBR record of a GPT must start at sector 1",
            Rule::TableProtectiveAlone => "the MBR record of a GPT must be the first and only one",
            Rule::TableEmpty => "an MBR must have a partition",
            Rule::TableMissing => "an image must have a partition table where a config drive comes with it",
            Rule::SectorSize => "the partition table must be made for the disk's sector size",
            Rule::SectorTranslation => "a partition table must fit the sectors that it is rewritten for",
            Rule::ConfigDrive => "a config drive must find a place beside the image",
        }
    }

    /// A refusal by this rule; `detail` says what of the image breaks it, and what to do.
    pub fn broken(self, detail: String) -> Refusal {
        Refusal { rule: self, detail }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An image that breaks a rule, found before a byte was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image is refused by the rule {rule} ({}): {detail}", rule.sentence())]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// What of the image breaks it, and what to do.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_each_rules_own_and_are_said_with_their_sentence() {
        let names: HashSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
        for rule in Rule::ALL {
            let text = rule.broken("this is so".into()).to_string();
            assert!(text.contains(rule.name()) && text.contains(rule.sentence()), "{text}");
            assert!(text.ends_with("this is so"), "{text}");
        }
    }
}

//! Root device hints: the operator's words for "that disk there".
//!
//! Grammar and quirks are those of Ironic (`ironic_lib`'s and the agent's `device_hints.py`, data plane page, 2.3): comparison
//! ignores case, no operator means equality, `=` on a size means "at least", a size is an exact number of GiB, a missing
//! value equals the text `none`, serial numbers and world-wide names match when any of the disk's names does.
//! Better than the original: `<range-in>` works on a size, and a by-path hint may use the older name of the same place.

mod wanted;

use std::fmt;

use serde_json::Value;
use wire::Disk;

use crate::{Error, bus_path};
use wanted::{Compare, Test, parse_boolean, parse_size, parse_text, percent_encode};

const GIB: u64 = 1 << 30;

/// A set of hints; a disk must satisfy all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Hints {
    hints: Vec<Hint>,
}

/// What one hint says about one disk. Its text says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintVerdict {
    /// The hint: `serial`, `size`, ...
    pub hint: &'static str,
    /// What the operator wants, as he wrote it.
    pub wanted: String,
    /// What the disk has: several where it bears several names, none where it has none.
    pub found: Vec<String>,
    /// Whether the disk satisfies the hint.
    pub matched: bool,
}

impl fmt::Display for HintVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.found.as_slice() {
            [] => "nothing".to_owned(),
            names => format!("`{}`", names.join("` or `")),
        };
        let verb = if self.matched { "satisfies" } else { "does not satisfy" };
        write!(f, "{} {found} {verb} `{}`", self.hint, self.wanted)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Hint {
    key: Key,
    /// As the operator wrote it.
    text: String,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Size,
    Rotational,
    Model,
    Vendor,
    Serial,
    Wwn,
    WwnWithExtension,
    WwnVendorExtension,
    Name,
    Hctl,
    ByPath,
    Tran,
}

const KEYS: [(&str, Key); 12] = [
    ("size", Key::Size),
    ("rotational", Key::Rotational),
    ("model", Key::Model),
    ("vendor", Key::Vendor),
    ("serial", Key::Serial),
    ("wwn", Key::Wwn),
    ("wwn_with_extension", Key::WwnWithExtension),
    ("wwn_vendor_extension", Key::WwnVendorExtension),
    ("name", Key::Name),
    ("hctl", Key::Hctl),
    ("by_path", Key::ByPath),
    ("tran", Key::Tran),
];

impl Hints {
    /// Reads hints as they stand in `properties.root_device`: an object, or its JSON as text.
    /// Null and an empty object are an error here: callers treat them as "no hints".
    pub fn parse(value: &Value) -> Result<Self, Error> {
        let whole = |reason: &str| Error::Hint { hint: value.to_string(), reason: reason.into() };
        let reread;
        let object = match value {
            Value::Object(object) => object,
            Value::String(text) => {
                reread = serde_json::from_str::<Value>(text).map_err(|_| whole("is no JSON object"))?;
                reread.as_object().ok_or_else(|| whole("is no JSON object"))?
            }
            _ => return Err(whole("is no JSON object")),
        };
        if object.is_empty() {
            return Err(whole("is empty"));
        }
        let hints = object.iter().map(|(name, value)| Hint::parse(name, value)).collect::<Result<_, _>>()?;
        Ok(Self { hints })
    }

    /// Whether a disk satisfies every hint.
    pub fn matches(&self, disk: &Disk) -> bool {
        self.hints.iter().all(|hint| hint.matches(disk))
    }

    /// What each hint says about a disk.
    pub fn explain(&self, disk: &Disk) -> Vec<HintVerdict> {
        self.hints.iter().map(|hint| hint.explain(disk)).collect()
    }
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, hint) in self.hints.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} `{}`", hint.name(), hint.text)?;
        }
        Ok(())
    }
}

impl Hint {
    fn parse(name: &str, value: &Value) -> Result<Self, Error> {
        let fail =
            |reason: String| Error::Hint { hint: format!("{name}={}", value.to_string().trim()), reason };
        let Some((_, key)) = KEYS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = KEYS.iter().map(|(known, _)| *known).collect();
            return Err(fail(format!("unknown hint; known are {}", known.join(", "))));
        };
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(fail("must be text, a number or a boolean".into())),
        };
        let test = match key {
            Key::Size if value.is_boolean() => Err("is not a number of GiB".into()),
            Key::Size => parse_size(&text),
            Key::Rotational => parse_boolean(&text).map(Test::Rotational),
            _ if !value.is_string() => Err("must be text".into()),
            _ => parse_text(&text),
        };
        Ok(Self { key: *key, test: test.map_err(fail)?, text })
    }

    fn name(&self) -> &'static str {
        KEYS.iter().find(|(_, key)| *key == self.key).map_or("", |(name, _)| name)
    }

    fn matches(&self, disk: &Disk) -> bool {
        match &self.test {
            Test::Never => false,
            Test::Size(compare, gib) => {
                compare.holds(&u128::from(disk.size), &(u128::from(*gib) * u128::from(GIB)))
            }
            Test::SizeRange(from, from_included, to, to_included) => {
                let size = u128::from(disk.size);
                let low = u128::from(*from) * u128::from(GIB);
                let high = u128::from(*to) * u128::from(GIB);
                (if *from_included { size >= low } else { size > low })
                    && (if *to_included { size <= high } else { size < high })
            }
            Test::Rotational(wanted) => disk.rotational == *wanted,
            Test::Text(Compare::Equal, wanted) => self.any_name(disk, |value| value == wanted),
            Test::Text(Compare::NotEqual, wanted) => {
                any(&self.values(disk), |value| value != wanted)
                    && !any(&self.older_names(disk), |value| value == wanted)
            }
            Test::Text(compare, wanted) => any(&self.values(disk), |value| {
                compare.holds(&percent_encode(value), &percent_encode(wanted))
            }),
            Test::Contains(parts) => {
                self.any_name(disk, |value| parts.iter().all(|part| value.contains(part.as_str())))
            }
            Test::AnyOf(choices) => self.any_name(disk, |value| choices.iter().any(|choice| choice == value)),
        }
    }

    fn any_name(&self, disk: &Disk, test: impl Fn(&str) -> bool) -> bool {
        any(&self.values(disk), &test) || any(&self.older_names(disk), &test)
    }

    /// The disk's names for this attribute. A missing single value is the text `none`; a missing list is empty.
    fn values(&self, disk: &Disk) -> Vec<String> {
        let single = |value: &Option<String>| vec![value.clone().unwrap_or_else(|| "none".into())];
        match self.key {
            Key::Size => vec![disk.size.to_string()],
            Key::Rotational => vec![disk.rotational.to_string()],
            Key::Model => single(&disk.model),
            Key::Vendor => single(&disk.vendor),
            Key::Name => vec![disk.name.clone()],
            Key::Hctl => single(&disk.hctl),
            Key::Tran => single(&disk.tran),
            Key::WwnWithExtension => single(&disk.wwn_with_extension),
            Key::WwnVendorExtension => single(&disk.wwn_vendor_extension),
            Key::Serial => serial_numbers(disk),
            Key::Wwn => world_wide_names(disk),
            Key::ByPath => single(&disk.by_path),
        }
    }

    /// Other names of the same value. They may be asked for, but a disk does not differ from its own name for having them.
    fn older_names(&self, disk: &Disk) -> Vec<String> {
        match (self.key, &disk.by_path) {
            (Key::ByPath, Some(path)) => bus_path::aliases(path, disk.tran.as_deref()),
            _ => Vec::new(),
        }
    }

    fn explain(&self, disk: &Disk) -> HintVerdict {
        let found = match self.key {
            Key::Size => vec![gib_text(disk.size)],
            _ => self.values(disk),
        };
        HintVerdict { hint: self.name(), wanted: self.text.clone(), found, matched: self.matches(disk) }
    }
}

/// Whether one of the values passes, compared in small letters. Empty ones never do.
fn any(values: &[String], test: impl Fn(&str) -> bool) -> bool {
    values.iter().map(|value| value.trim().to_lowercase()).any(|value| !value.is_empty() && test(&value))
}

/// The serial numbers that udev knows a disk by: its own, the identifier of its unit, the long form with the model.
fn serial_numbers(disk: &Disk) -> Vec<String> {
    let mut names: Vec<String> = disk.serial.iter().cloned().collect();
    if let Some(hex) = disk.wwn_with_extension.as_deref().and_then(|name| name.strip_prefix("0x")) {
        names.extend([hex.to_owned(), format!("3{hex}")]);
    }
    if let (Some(model), Some(serial), Some("sata" | "ata" | "nvme")) =
        (&disk.model, &disk.serial, disk.tran.as_deref())
    {
        names.push(format!("{}_{serial}", model.split_whitespace().collect::<Vec<_>>().join("_")));
    }
    // `usb_id`: vendor, model, serial number, and the place in the device.
    if let (Some(vendor), Some(model), Some(serial), Some("usb")) =
        (&disk.vendor, &disk.model, &disk.serial, disk.tran.as_deref())
    {
        let place = disk.hctl.as_deref().and_then(|hctl| hctl.splitn(3, ':').nth(2)).unwrap_or("0:0");
        let words = format!("{vendor} {model}");
        let words: Vec<&str> = words.split_whitespace().collect();
        names.push(format!("{}_{serial}-{place}", words.join("_")));
    }
    names
}

/// The world-wide name with its extension and without.
fn world_wide_names(disk: &Disk) -> Vec<String> {
    let mut names: Vec<String> = disk.wwn.iter().cloned().collect();
    if disk.wwn_vendor_extension.is_some()
        && let Some(short) = disk.wwn_with_extension.as_deref().and_then(|name| name.get(..18))
    {
        names.push(short.to_owned());
    }
    names
}

/// `10 GiB`, `10.5 GiB`, and the exact bytes where they are no round number.
pub(crate) fn gib_text(bytes: u64) -> String {
    if bytes.is_multiple_of(GIB) {
        return format!("{} GiB", bytes / GIB);
    }
    let tenths = u128::from(bytes) * 10 / u128::from(GIB);
    format!("{}.{} GiB ({bytes} bytes)", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn a() -> Disk {
        Disk {
            name: "/dev/sda".into(),
            size: 10 * GIB + 5,
            model: Some("Foo Bar 123".into()),
            vendor: Some("ATA".into()),
            serial: Some("ABC".into()),
            wwn: Some("0x5000".into()),
            rotational: true,
            hctl: Some("1:0:0:0".into()),
            tran: Some("sata".into()),
            by_path: Some("/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0".into()),
            ..Disk::default()
        }
    }

    fn b() -> Disk {
        Disk {
            name: "/dev/nvme0n1".into(),
            size: 20 * GIB,
            model: Some("NVME X".into()),
            tran: Some("nvme".into()),
            ..Disk::default()
        }
    }

    /// The golden vectors of the data plane page, A.3 (run against the original), and what Ferric adds.
    #[test]
    fn hints_match_as_ironic_matches_them() {
        for (hint, expected) in [
            (json!({"size": 10}), ""),
            (json!({"size": 20}), "B"),
            (json!({"size": "20"}), "B"),
            (json!({"size": ">= 10"}), "AB"),
            (json!({"size": "= 10"}), "AB"),
            (json!({"size": "=10"}), "AB"),
            (json!({"size": "<= 10"}), ""),
            (json!({"size": "> 10"}), "AB"),
            (json!({"size": "< 20"}), "A"),
            (json!({"size": "== 20"}), "B"),
            (json!({"size": "<or> 10 <or> 20"}), ""),
            (json!({"size": "!= 20"}), "A"),
            (json!({"size": "<range-in> [ 5 15 ]"}), "A"),
            (json!({"size": "<range-in> [ 5 20 )"}), "A"),
            (json!({"size": "<range-in> ( 20 30 ]"}), ""),
            (json!({"size": "<range-in> [20 20]"}), "B"),
            (json!({"model": "foo bar 123"}), "A"),
            (json!({"model": "<in> bar"}), "A"),
            (json!({"model": "<in> BAR"}), "A"),
            (json!({"model": "<in> foo bar"}), "A"),
            (json!({"model": "s!= foo"}), "AB"),
            (json!({"model": "s== NVME X"}), "B"),
            (json!({"model": "s< g"}), "A"),
            (json!({"model": "s>= nvme x"}), "B"),
            (json!({"model": "<or> foo bar 123 <or> nvme x"}), "AB"),
            (json!({"serial": "abc"}), "A"),
            (json!({"serial": "Foo_Bar_123_ABC"}), "A"),
            (json!({"serial": "s!= abc"}), "A"),
            (json!({"serial": "none"}), ""),
            (json!({"wwn": "0x5000"}), "A"),
            (json!({"vendor": "none"}), "B"),
            (json!({"hctl": "none"}), "B"),
            (json!({"hctl": "1:0:0:0"}), "A"),
            (json!({"tran": "nvme"}), "B"),
            (json!({"rotational": "0"}), "B"),
            (json!({"rotational": false}), "B"),
            (json!({"rotational": "Yes"}), "A"),
            (json!({"name": "<in> nvme"}), "B"),
            (json!({"name": "/dev/sda"}), "A"),
            (json!({"name": "<or> /dev/sda <or> /dev/nvme0n1"}), "AB"),
            (json!({"by_path": "/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0"}), "A"),
            (json!({"by_path": "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"}), "A"),
            (json!({"by_path": "s!= /dev/disk/by-path/pci-0000:00:1f.2-ata-2"}), "B"),
            (json!({"by_path": "s!= /dev/disk/by-path/pci-0000:00:1f.2-ata-2.0"}), "B"),
            (json!({"model": "<in> bar <in> foo"}), "A"),
            (json!({"model": "<in> bar <in> x"}), ""),
            (json!({"name": "/dev/sda", "rotational": false}), ""),
            (json!("{\"name\": \"/dev/sda\"}"), "A"),
        ] {
            let hints = Hints::parse(&hint).unwrap_or_else(|error| panic!("{hint}: {error}"));
            let matched = [(a(), "A"), (b(), "B")].map(|(disk, letter)| match hints.matches(&disk) {
                true => letter,
                false => "",
            });
            assert_eq!(matched.concat(), expected, "{hint}");
            let explained = hints.explain(&a()).iter().all(|verdict| verdict.matched);
            assert_eq!(explained, hints.matches(&a()), "{hint}");
        }
    }

    #[test]
    fn hints_that_ironic_rejects_are_rejected() {
        for hint in [
            json!({"size": "10.5"}),
            json!({"size": -1}),
            json!({"size": 0}),
            json!({"size": true}),
            json!({"size": "<in> 1"}),
            json!({"size": "<range-in> 5 15"}),
            json!({"size": "<range-in> [ 15 5 ]"}),
            json!({"model": "<all-in> foo bar"}),
            json!({"model": "== foo"}),
            json!({"model": ""}),
            json!({"model": "s=="}),
            json!({"model": 5}),
            json!({"model": null}),
            json!({"rotational": "maybe"}),
            json!({"colour": "red"}),
            json!({}),
            json!(null),
            json!([]),
            json!("sda"),
        ] {
            assert!(Hints::parse(&hint).is_err(), "{hint}");
        }
    }

    #[test]
    fn an_operator_that_does_not_work_on_text_is_refused_with_those_that_do() {
        for (hint, instead) in [
            (json!({"model": "<all-in> foo bar"}), &["`<in>`", "`<or>`"][..]),
            (json!({"serial": "<range-in> [ 1 5 ]"}), &["`<in>`", "`<or>`"]),
            (json!({"model": ">= 5"}), &["`s==`", "`<in>`"]),
            (json!({"vendor": "== foo"}), &["`s==`", "`s!=`"]),
        ] {
            let text = Hints::parse(&hint).unwrap_err().to_string();
            for word in instead {
                assert!(text.contains(word), "{hint}: {word} is not in {text}");
            }
        }
    }

    #[test]
    fn a_long_world_wide_name_matches_with_and_without_extension() {
        let long = "0x6000c2900102030405060708090a0b0c";
        let disk = Disk {
            wwn: Some(long.into()),
            wwn_with_extension: Some(long.into()),
            wwn_vendor_extension: Some("0x05060708090a0b0c".into()),
            ..Disk::default()
        };
        for name in [long, "0x6000c29001020304"] {
            assert!(Hints::parse(&json!({"wwn": name})).unwrap().matches(&disk), "{name}");
        }
        assert!(
            Hints::parse(&json!({"serial": "36000c2900102030405060708090a0b0c"})).unwrap().matches(&disk)
        );
    }

    #[test]
    fn order_is_that_of_the_encoded_text() {
        assert_eq!(percent_encode("foo (bar)/x"), "foo%20%28bar%29/x");
        assert_eq!(percent_encode("1:0:0:0"), "1%3A0%3A0%3A0");
    }

    proptest! {
        #[test]
        fn any_hint_is_read_or_refused_and_never_panics(
            key in prop_oneof![Just("size"), Just("model"), Just("serial"), Just("rotational"), Just("by_path")],
            operator in prop_oneof![Just(""), Just("<or>"), Just("<in>"), Just("<range-in>"), Just("s<="), Just(">")],
            text in "\\PC{0,20}",
        ) {
            if let Ok(hints) = Hints::parse(&json!({key: format!("{operator}{text}")})) {
                let _ = (hints.matches(&a()), hints.explain(&b()), hints.to_string());
            }
        }
    }
}

//! `properties.skip_block_devices`: disks and arrays that nobody may choose or erase (data plane page, 2.4).

use serde_json::Value;
use wire::Disk;

use crate::{Error, Hints};

/// A skip list as the node has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SkipList {
    hints: Vec<Hints>,
    volumes: Vec<String>,
}

impl SkipList {
    /// Reads a list of hints and of `{"volume_name": NAME}`, or its JSON as text. An entry with a `volume_name` speaks of the
    /// software array of that name alone. Null and an empty list skip nothing.
    ///
    /// # Errors
    /// What is no list, an entry that is no hints, and an empty one: it would skip every disk or none.
    pub fn parse(value: &Value) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Hint { hint: value.to_string(), reason: reason.into() };
        let reread;
        let list = match value {
            Value::Null => return Ok(Self::default()),
            Value::Array(list) => list,
            Value::String(text) if text.trim().is_empty() => return Ok(Self::default()),
            Value::String(text) => {
                reread = serde_json::from_str::<Value>(text).map_err(|_| wrong("is no JSON list"))?;
                reread.as_array().ok_or_else(|| wrong("is no JSON list"))?
            }
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong("is no list of hints")),
        };
        let mut skip = Self::default();
        for entry in list {
            match entry.get("volume_name") {
                None => skip.hints.push(Hints::parse(entry)?),
                Some(Value::String(name)) if !name.trim().is_empty() => skip.volumes.push(name.trim().into()),
                Some(_) => return Err(wrong("has a volume_name that is no text")),
            }
        }
        Ok(skip)
    }

    /// The hints that a disk satisfies, and is therefore skipped by.
    pub fn hints_for(&self, disk: &Disk) -> Option<&Hints> {
        self.hints.iter().find(|hints| hints.matches(disk))
    }

    /// Names of arrays to leave alone.
    pub fn volumes(&self) -> &[String] {
        &self.volumes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_hints_or_names_of_arrays() {
        let list = json!([{"name": "/dev/sda"}, {"volume_name": "large"}, {"vendor": "none", "size": ">= 5"},
                          {"volume_name": "home", "name": "/dev/sdz"}]);
        let skip = SkipList::parse(&list).unwrap();
        assert_eq!(skip, SkipList::parse(&json!(list.to_string())).unwrap(), "as text");
        assert_eq!(skip.volumes(), ["large", "home"]);
        let disk = |name: &str, vendor: Option<&str>| Disk {
            name: name.into(),
            size: 6 << 30,
            vendor: vendor.map(Into::into),
            ..Disk::default()
        };
        assert!(skip.hints_for(&disk("/dev/sda", Some("ATA"))).is_some());
        assert!(skip.hints_for(&disk("/dev/sdb", None)).is_some());
        assert!(skip.hints_for(&disk("/dev/sdb", Some("ATA"))).is_none());
        assert!(
            skip.hints_for(&disk("/dev/sdz", Some("ATA"))).is_none(),
            "hints beside a volume_name do not count"
        );
    }

    #[test]
    fn an_empty_list_skips_nothing_and_nonsense_is_an_error() {
        for nothing in [json!(null), json!([]), json!(""), json!("[]")] {
            assert_eq!(SkipList::parse(&nothing).unwrap(), SkipList::default());
        }
        for wrong in [
            json!({}),
            json!("sda"),
            json!(5),
            json!([{}]),
            json!(["sda"]),
            json!([{"colour": "red"}]),
            json!([{"volume_name": 5}]),
            json!([{"volume_name": ""}]),
        ] {
            assert!(SkipList::parse(&wrong).is_err(), "{wrong}");
        }
    }
}

//! The step `clean_uefi_nvram`: deletes firmware boot entries whose device path matches a pattern.
//! Source: data plane page, 7.5.

use hwm::{Context, Error};
use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use super::arguments::invalid;
use super::firmware;

/// Entries that a disk's system made: partitions, and the usual loaders.
const DEFAULT_PATTERNS: [&str; 3] = [r"^HD\(", r"shim.*\.efi", r"grub.*\.efi"];

/// Reads the argument `match_patterns`: null, or a list of regular expressions. They are searched for without regard to
/// case. Look-around and back-references, which Python knows, are refused.
pub(crate) fn patterns(argument: Option<&Value>) -> Result<Vec<Regex>, Error> {
    let compile = |text: &str| {
        RegexBuilder::new(text).case_insensitive(true).build().map_err(|error| {
            invalid(format!("the match_patterns must be a list of regular expressions: `{text}`: {error}"))
        })
    };
    match argument {
        None | Some(Value::Null) => DEFAULT_PATTERNS.into_iter().map(compile).collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => compile(text),
                other => Err(invalid(format!("the match_patterns must be a list of strings, not {other}"))),
            })
            .collect(),
        Some(other) => Err(invalid(format!("the match_patterns must be a list of strings: {other}"))),
    }
}

/// **Deletes every boot entry** whose device path matches one of the patterns. Labels do not count.
///
/// # Errors
/// Also on a machine that was not started by UEFI: it has no entries to look at.
pub(crate) fn clean(cx: &Context, patterns: &[Regex]) -> Result<(), Error> {
    let fail = |action: String| move |error| Error::other(action, error);
    // Where it cannot be mounted, listing the entries fails with what is missing.
    let _mounted = firmware::variables(&cx.host).unwrap_or_else(|error| {
        tracing::debug!(%error, "efivarfs was not mounted");
        None
    });
    let entries = boot::current_entries(&cx.host).map_err(fail("listing the boot entries".into()))?;
    for entry in entries.iter().filter(|entry| entry.is_bootable) {
        let Some(pattern) = patterns.iter().find(|pattern| pattern.is_match(&entry.path_text)) else {
            continue;
        };
        let (number, label, path) = (entry.number, &entry.option.description, &entry.path_text);
        tracing::info!(number, %label, %path, %pattern, "deleting a boot entry");
        boot::delete_entry(&cx.host, number)
            .map_err(fail(format!("deleting the boot entry Boot{number:04X} `{label}`")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use boot::LoadOption;
    use boot::device_path::{HardDrive, Signature, to_file};
    use serde_json::json;

    const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

    fn variable(data: &[u8]) -> Vec<u8> {
        [&7u32.to_le_bytes()[..], data].concat()
    }

    /// Boot0001: a disk; Boot0002: the firmware's own menu; Boot0003: a disk's entry for Windows.
    fn machine() -> Fixture {
        let drive = HardDrive { number: 1, first_sector: 2048, sectors: 4096, signature: Signature::Mbr(7) };
        let menu = [&[2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0][..], &[0x7f, 0xff, 4, 0]].concat();
        let mut machine = Fixture::new();
        for (number, label, path) in [
            (1, "grub", to_file(&drive, r"\EFI\debian\shimx64.efi").unwrap()),
            (2, "shimx64.efi", menu),
            (3, "Windows", to_file(&drive, r"\EFI\Microsoft\bootmgfw.efi").unwrap()),
        ] {
            let data = variable(&LoadOption::new(label, path).encode().unwrap());
            machine = machine.bytes(&format!("/sys/firmware/efi/efivars/Boot{number:04X}-{GLOBAL}"), &data);
        }
        let order = variable(&[3, 0, 1, 0, 2, 0]);
        machine.bytes(&format!("/sys/firmware/efi/efivars/BootOrder-{GLOBAL}"), &order)
    }

    fn left(argument: Value) -> (Vec<u16>, Vec<u16>) {
        let machine = machine();
        let cx = Context::new(machine.host(), events::Events::default());
        clean(&cx, &patterns(Some(&argument)).unwrap()).unwrap();
        let numbers = boot::current_entries(&cx.host).unwrap().iter().map(|entry| entry.number).collect();
        (numbers, boot::efivars::boot_order(&cx.host).unwrap())
    }

    #[test]
    fn entries_go_by_their_path_and_never_by_their_label() {
        assert_eq!(left(Value::Null), (vec![2], vec![2]));
        assert_eq!(left(json!(["SHIM.*"])), (vec![2, 3], vec![3, 2]));
        assert_eq!(left(json!([r"\\EFI\\Microsoft\\"])), (vec![1, 2], vec![1, 2]));
        assert_eq!(left(json!(["^shim"])), (vec![1, 2, 3], vec![3, 1, 2]));
        assert_eq!(left(json!([])), (vec![1, 2, 3], vec![3, 1, 2]));
    }

    #[test]
    fn patterns_that_are_none_are_refused_before_anything_is_deleted() {
        for argument in
            [json!("HD"), json!({}), json!([1]), json!(["("]), json!(["ok", null]), json!([r"(?=x)"])]
        {
            let error = patterns(Some(&argument)).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{argument}: {error:?}");
            assert!(error.to_string().contains("match_patterns"), "{error}");
        }
    }

    #[test]
    fn a_machine_without_uefi_fails_and_says_so() {
        let cx = Context::new(Fixture::new().host(), events::Events::default());
        let error = clean(&cx, &patterns(None).unwrap()).unwrap_err();
        assert!(hwm::chain(&error).contains("efivarfs"), "{error:?}");
    }
}

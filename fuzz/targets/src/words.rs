//! Short texts: hints, digests, references.

use disk::{AllowList, Hints, Rules, SkipList, Verdict, select};
use imaging::{ExpectedDigest, Format, OciReference, PublicKey, TrustedKeys};
use serde_json::Value;
use wire::Disk;

/// A public key in minisign's form, of 42 bytes that are nobody's key.
const KEY: &str = "RWQAAQIDBAUGBwABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/// Hints and skip lists as JSON; the same text as an allow-list.
pub(crate) fn root_device_hints(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let disks = disks();
    let allow = AllowList::parse(text).ok();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let _ = SkipList::parse(&value);
    let Ok(hints) = Hints::parse(&value) else { return };
    let _ = hints.to_string();
    for disk in &disks {
        let verdicts = hints.explain(disk);
        assert_eq!(
            hints.matches(disk),
            verdicts.iter().all(|verdict| verdict.matched),
            "the explanation is another than the verdict: {verdicts:?}"
        );
    }
    for allow in [None, allow.as_ref()] {
        let rules = Rules { hints: Some(&hints), allow, ..Rules::default() };
        let selection = select(&disks, &rules);
        let _ = selection.verdicts.iter().map(Verdict::phrases).collect::<Vec<_>>();
        if let Some(chosen) = selection.chosen {
            assert!(hints.matches(&chosen), "chosen against its hints: {chosen:?}");
        }
    }
}

/// Two disks that differ in everything hints can name.
fn disks() -> Vec<Disk> {
    let text = |text: &str| Some(text.to_owned());
    let full = Disk {
        name: "/dev/sda".into(),
        model: text("Fast Disk 2000"),
        size: 480 << 30,
        rotational: true,
        wwn: text("0x5000c500a1b2c3d4"),
        serial: text("Z1X2C3"),
        vendor: text("ACME"),
        wwn_with_extension: text("0x5000c500a1b2c3d40x1234"),
        wwn_vendor_extension: text("0x1234"),
        hctl: text("6:0:0:0"),
        by_path: text("/dev/disk/by-path/pci-0000:00:1f.2-ata-1"),
        logical_sectors: Some(512),
        physical_sectors: Some(4096),
        tran: text("sata"),
    };
    vec![full, Disk { name: "/dev/nvme0n1".into(), size: u64::MAX, ..Disk::default() }]
}

/// What is read from one word of a request.
pub(crate) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = ExpectedDigest::parse(text) {
        let again = ExpectedDigest::parse(&digest.to_string());
        assert!(again.is_ok_and(|again| again == digest), "{digest} does not read back");
    }
    if let Ok(reference) = text.parse::<OciReference>() {
        let again = reference.to_string().parse::<OciReference>();
        assert!(
            again.as_ref().is_ok_and(|again| again.to_string() == reference.to_string()),
            "{reference} does not read back: {again:?}"
        );
    }
    if let Ok(format) = text.parse::<Format>() {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        let again = text.trim().lines().last().map(str::parse::<PublicKey>);
        assert_eq!(again, Some(Ok(key)), "the word of a key is another key");
    }
}

/// A signature file, where a key is trusted whose secret nobody has.
pub(crate) fn signature(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = KEY.parse::<PublicKey>();
    let trusted = TrustedKeys(key.into_iter().collect());
    assert!(!trusted.0.is_empty(), "the key of this target is none");
    assert!(trusted.accept(text).is_err(), "a signature by nobody is taken");
}

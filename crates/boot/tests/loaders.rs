//! Which files of an EFI system partition get a boot entry.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use boot::loaders::{Loader, find};
use hadris_fat::format::FatTypeSelection;
use support::{fat, put_file};

/// What is found in a partition with these files, each in a directory of `EFI`, in this order.
fn found(files: &[(&str, &str, &[u8])]) -> Vec<Loader> {
    let bytes = fat(FatTypeSelection::Fat16, 16, |volume, root| {
        let efi = volume.create_dir(root, "EFI").unwrap();
        let mut made: Vec<(&str, _)> = Vec::new();
        for (directory, name, content) in files {
            if !made.iter().any(|(known, _)| known == directory) {
                made.push((directory, volume.create_dir(&efi, directory).unwrap()));
            }
            let (_, into) = made.iter().find(|(known, _)| known == directory).unwrap();
            put_file(volume, into, name, content);
        }
    });
    find(&bytes).unwrap()
}

fn csv(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn unnamed(path: &str) -> Loader {
    Loader { label: None, path: path.into() }
}

#[test]
fn every_known_name_counts_in_any_case_and_no_other() {
    for name in [
        "bootia32.efi",
        "BOOTX64.EFI",
        "bootia64.efi",
        "bootarm.efi",
        "BootAA64.efi",
        "bootriscv32.efi",
        "bootriscv64.efi",
        "bootriscv128.efi",
        "grubaa64.efi",
        "winload.efi",
    ] {
        assert_eq!(found(&[("x", name, b"l")]), [unnamed(&format!("\\EFI\\x\\{name}"))], "{name}");
    }
    for name in ["shimx64.efi", "grubx64.efi", "bootx64.efi.bak", "mmx64.efi", "bootmgfw.efi"] {
        assert_eq!(found(&[("x", name, b"l")]), [], "{name}");
    }
    let line = csv("shimx64.efi,system");
    for name in ["bootx64.csv", "BOOTAA64.CSV", "boot.csv"] {
        let expected = Loader { label: Some("system".into()), path: r"\EFI\x\shimx64.efi".into() };
        assert_eq!(found(&[("x", name, &line)]), [expected], "{name}");
    }
    assert_eq!(found(&[("x", "bootia32.csv", &line)]), [], "as upstream");
}

#[test]
fn loaders_come_in_the_order_of_the_partition_and_the_first_csv_stands_alone() {
    let line = csv("shimx64.efi,first,,x\nother.efi,second");
    let (loader, second) = (("BOOT", "bootx64.efi", &b"l"[..]), ("alpha", "bootia32.efi", &b"l"[..]));
    assert_eq!(
        found(&[loader, second]),
        [unnamed(r"\EFI\BOOT\bootx64.efi"), unnamed(r"\EFI\alpha\bootia32.efi")]
    );
    assert_eq!(found(&[second, loader])[0], unnamed(r"\EFI\alpha\bootia32.efi"));
    let decided = [Loader { label: Some("first".into()), path: r"\EFI\alpha\shimx64.efi".into() }];
    let later = csv("grubx64.efi,later");
    assert_eq!(
        found(&[loader, second, ("alpha", "boot.csv", &line), ("beta", "boot.csv", &later)]),
        decided,
        "the loaders before it are forgotten"
    );
}

#[test]
fn a_csv_that_names_nothing_is_passed_over() {
    let loader = ("BOOT", "bootx64.efi", &b"l"[..]);
    for broken in [&b""[..], b"\xff\xfe", &csv("shimx64.efi"), b"\x00\xd8,\x00"] {
        assert_eq!(found(&[("alpha", "boot.csv", broken), loader]), [unnamed(r"\EFI\BOOT\bootx64.efi")]);
    }
}

//! Which files of an EFI system partition get a boot entry.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use boot::Firmware;
use boot::loaders::{Found, Loader, find};
use hadris_fat::format::FatTypeSelection;
use support::{fat, put_file};

/// What is found in a partition with these files, each in a directory of `EFI`, in this order.
fn search(files: &[(&str, &str, &[u8])], firmware: Firmware) -> Found {
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
    find(&bytes, firmware).unwrap()
}

fn found(files: &[(&str, &str, &[u8])]) -> Vec<Loader> {
    search(files, Firmware::X64).into_loaders()
}

fn csv(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn unnamed(path: &str) -> Loader {
    Loader { label: None, path: path.into() }
}

fn named(label: &str, path: &str) -> Loader {
    Loader { label: Some(label.into()), path: path.into() }
}

#[test]
fn every_known_name_counts_in_any_case_on_its_own_architecture_and_no_other() {
    for (name, firmware) in [
        ("bootia32.efi", Firmware::Ia32),
        ("BOOTX64.EFI", Firmware::X64),
        ("bootia64.efi", Firmware::Other),
        ("bootarm.efi", Firmware::Arm),
        ("BootAA64.efi", Firmware::Aa64),
        ("bootriscv32.efi", Firmware::Other),
        ("bootriscv64.efi", Firmware::RiscV64),
        ("bootriscv128.efi", Firmware::Other),
        ("grubaa64.efi", Firmware::Aa64),
        ("winload.efi", Firmware::X64),
    ] {
        let file = [("x", name, &b"l"[..])];
        let expected = [unnamed(&format!("\\EFI\\x\\{name}"))];
        for here in [Firmware::X64, Firmware::Ia32, Firmware::Aa64, Firmware::Arm, Firmware::RiscV64] {
            let starts = here == firmware || name == "winload.efi";
            let found = search(&file, here).into_loaders();
            assert_eq!(found, if starts { &expected[..] } else { &[] }, "{name} on {here:?}");
        }
        assert_eq!(search(&file, Firmware::Other).into_loaders(), expected, "{name}");
    }
    for name in ["shimx64.efi", "grubx64.efi", "bootx64.efi.bak", "mmx64.efi", "bootmgfw.efi"] {
        assert_eq!(search(&[("x", name, b"l")], Firmware::Other), Found::default(), "{name}");
    }
    let line = csv("shim.efi,system");
    for (name, firmware) in [
        ("bootx64.csv", Firmware::X64),
        ("BOOTAA64.CSV", Firmware::Aa64),
        ("boot.csv", Firmware::X64),
        ("boot.csv", Firmware::RiscV64),
        ("BOOTIA32.CSV", Firmware::Ia32),
    ] {
        let files = [("x", name, &line[..]), ("x", "shim.efi", b"l")];
        assert_eq!(search(&files, firmware).into_loaders(), [named("system", r"\EFI\x\shim.efi")], "{name}");
    }
    for (name, firmware) in [
        ("bootia32.csv", Firmware::X64),
        ("bootia32.csv", Firmware::Other),
        ("bootaa64.csv", Firmware::X64),
        ("bootx64.csv", Firmware::Ia32),
    ] {
        let files = [("x", name, &line[..]), ("x", "shim.efi", b"l")];
        assert_eq!(search(&files, firmware), Found::default(), "{name} on {firmware:?}");
    }
}

#[test]
fn loaders_come_in_the_order_of_the_partition_and_the_first_csv_stands_alone() {
    let line = csv("shimx64.efi,first,,x\nother.efi,second");
    let (loader, second) = (("BOOT", "bootx64.efi", &b"l"[..]), ("alpha", "bootx64.efi", &b"l"[..]));
    assert_eq!(
        found(&[loader, second]),
        [unnamed(r"\EFI\BOOT\bootx64.efi"), unnamed(r"\EFI\alpha\bootx64.efi")]
    );
    assert_eq!(found(&[second, loader])[0], unnamed(r"\EFI\alpha\bootx64.efi"));
    let shim = ("alpha", "shimx64.efi", &b"l"[..]);
    let later = csv("grubx64.efi,later");
    let files = [
        loader,
        second,
        shim,
        ("alpha", "boot.csv", &line),
        ("beta", "grubx64.efi", b"l"),
        ("beta", "boot.csv", &later),
    ];
    assert_eq!(
        found(&files),
        [named("first", r"\EFI\alpha\shimx64.efi")],
        "the loaders before it are forgotten"
    );
}

#[test]
fn csv_that_names_no_loader_that_is_there_is_passed_over() {
    let loader = ("BOOT", "bootx64.efi", &b"l"[..]);
    for broken in [
        &b""[..],
        b"\xff\xfe",
        &csv("shimx64.efi"),
        &csv("shimx64.efi,alpha"),
        &csv("empty.efi,alpha\n..\\BOOT\\bootx64.efi,alpha\ndirectory.efi,alpha"),
        &csv("# shimx64.efi,alpha\n\n,\n,,,\n"),
        b"\x00\xd8,\x00",
        &[b'x'; 70_000],
    ] {
        let files = [("alpha", "boot.csv", broken), ("alpha", "empty.efi", b""), loader];
        let found = search(&files, Firmware::X64);
        assert!(found.has_csv && found.named.is_none());
        assert_eq!(found.into_loaders(), [unnamed(r"\EFI\BOOT\bootx64.efi")]);
    }
    assert_eq!(found(&[("BOOT", "bootx64.efi", b"")]), [], "an empty file is no loader");
}

#[test]
fn next_line_and_next_vendor_count_where_a_loader_is_missing() {
    let shim = ("alpha", "shimx64.efi", &b"l"[..]);
    for text in [
        "\nshimx64.efi,alpha,,x\n",
        "\r\n\r\nshimx64.efi,alpha",
        "gone.efi,old,,x\nshimx64.efi,alpha,,x\n",
        "# loaders\nshimx64.efi,alpha,,x\n",
        " shimx64.efi ,alpha,,x\n",
        "shimx64.efi,alpha\0",
        "\u{feff}shimx64.efi,alpha",
        "\u{feff}\nshimx64.efi,alpha",
    ] {
        let line = csv(text);
        let expected = [named("alpha", r"\EFI\alpha\shimx64.efi")];
        assert_eq!(found(&[shim, ("alpha", "boot.csv", &line)]), expected, "{text:?}");
    }
    let (old, new) = (csv("shimx64.efi,old"), csv("shimx64.efi,new"));
    let files = [
        ("old", "bootx64.csv", &old[..]),
        ("new", "shimx64.efi", b"l"),
        ("new", "bootx64.csv", &new),
        ("BOOT", "bootx64.efi", b"l"),
    ];
    assert_eq!(found(&files), [named("new", r"\EFI\new\shimx64.efi")]);
    let two = [("new", "bootx64.csv", &old[..]), ("new", "shimx64.efi", b"l"), ("new", "boot.csv", &new)];
    assert_eq!(found(&two), [named("old", r"\EFI\new\shimx64.efi")]);
}

#[test]
fn names_of_loaders_are_found_in_any_case_and_below_other_directories() {
    let shim = ("alpha", "shimx64.efi", &b"l"[..]);
    for (text, path) in [
        ("SHIMX64.EFI,a", r"\EFI\alpha\SHIMX64.EFI"),
        (r"\efi\ALPHA\shimx64.efi,a", r"\efi\ALPHA\shimx64.efi"),
        ("/EFI/alpha/shimx64.efi,a", r"\EFI\alpha\shimx64.efi"),
    ] {
        let line = csv(text);
        assert_eq!(
            found(&[shim, ("beta", "boot.csv", b""), ("alpha", "boot.csv", &line)]),
            [named("a", path)]
        );
    }
    let bare = csv("shimx64.efi");
    assert_eq!(
        found(&[shim, ("alpha", "boot.csv", &bare)]),
        [unnamed(r"\EFI\alpha\shimx64.efi")],
        "without a label"
    );
}

#[test]
fn files_of_a_directory_come_before_those_of_its_subdirectories() {
    let bytes = fat(FatTypeSelection::Fat16, 16, |volume, root| {
        let efi = volume.create_dir(root, "EFI").unwrap();
        let alpha = volume.create_dir(&efi, "alpha").unwrap();
        let inner = volume.create_dir(&alpha, "inner").unwrap(); // stands in the directory before the file does
        put_file(volume, &inner, "bootx64.efi", b"l");
        put_file(volume, &alpha, "bootx64.efi", b"l");
        let beta = volume.create_dir(&efi, "beta").unwrap();
        put_file(volume, &beta, "bootx64.efi", b"l");
    });
    assert_eq!(
        find(&bytes, Firmware::X64).unwrap().into_loaders(),
        [
            unnamed(r"\EFI\alpha\bootx64.efi"),
            unnamed(r"\EFI\alpha\inner\bootx64.efi"),
            unnamed(r"\EFI\beta\bootx64.efi"),
        ]
    );
}

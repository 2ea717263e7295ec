//! Images made for sectors of one size on loop devices with sectors of another: refused, or rewritten where that is asked for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test

mod support;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use disk::AllowList;
use disk::table::Table;
use events::Events;
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Error, Registry, StepCall};
use imaging::Transport;
use serde_json::{Value, json};
use support::{Loop, MIB, file, serve, sha256, tool};
use sys::Host;
use wire::StepKind;

const DISK: u64 = 192 * MIB as u64;
const ESP: (usize, usize) = (MIB, 64 * MIB);
const ROOT: (usize, usize) = (65 * MIB, 30 * MIB);

fn deploy(disk: &Loop, image_info: Value, settings: Settings) -> Result<Value, Error> {
    let transport =
        Transport { attempts: 2, retry_interval: Duration::from_millis(10), ..Transport::default() };
    let allow = Some(AllowList::parse(disk.name()).unwrap());
    let deployment = Deployment::new(Settings { allow, transport, disk_wait_attempts: 1, ..settings });
    let host = Host::real();
    let registry = Registry::probe(&host, builtin(&deployment));
    let node = json!({"instance_info": {"root_device": {"name": disk.name()}}});
    let cx = Context::new(host, Events::default()).with_node(node);
    let arguments = json!({"image_info": image_info, "configdrive": null}).as_object().unwrap().clone();
    let call = StepCall { kind: StepKind::Deploy, step: "write_image".into(), arguments, ports: json!([]) };
    registry.run_step(&call, &cx)
}

/// A disk image for sectors of `sector` bytes: an ESP with files, an ext4 root; as UEFI images are.
fn image(directory: &Path, sector: u32) -> Vec<u8> {
    let esp = file(directory, "esp", &vec![0; ESP.1]);
    let esp_name = esp.to_str().unwrap();
    tool(
        "/usr/sbin/mkfs.vfat",
        &["-F", "16", "-S", &sector.to_string(), "-n", "EFI", "-i", "1a2b3c4d", esp_name],
    );
    let loader = file(directory, "loader", &noise(3 * MIB));
    for name in ["::EFI", "::EFI/debian", "::EFI/BOOT"] {
        tool("/usr/bin/mmd", &["-i", esp_name, name]);
    }
    for name in ["::EFI/debian/shimx64.efi", "::EFI/BOOT/BOOTX64.EFI", "::EFI/debian/a rather long name.cfg"]
    {
        tool("/usr/bin/mcopy", &["-i", esp_name, loader.to_str().unwrap(), name]);
    }
    let root = file(directory, "root", &vec![0; ROOT.1]);
    tool("/usr/sbin/mkfs.ext4", &["-q", "-b", "4096", "-L", "root", root.to_str().unwrap()]);
    // sgdisk takes a file's sectors to be of 512 bytes: a loop device tells it otherwise.
    let disk = Loop::of(96 * MIB as u64, sector).unwrap();
    let at = |bytes: usize| (bytes / usize::try_from(sector).unwrap()).to_string();
    let partition = |number: &str, (start, size): (usize, usize)| {
        format!("--new={number}:{}:{}", at(start), {
            let end = start + size;
            (end / usize::try_from(sector).unwrap() - 1).to_string()
        })
    };
    tool(
        "/usr/sbin/sgdisk",
        &[
            "--clear",
            "--set-alignment=1",
            &partition("15", ESP),
            "--typecode=15:ef00",
            &partition("1", ROOT),
            "--change-name=1:root",
            disk.name(),
        ],
    );
    let mut bytes = disk.read(0, 96 * MIB);
    for (path, (start, _)) in [(&esp, ESP), (&root, ROOT)] {
        let part = std::fs::read(path).unwrap();
        bytes[start..start + part.len()].copy_from_slice(&part);
    }
    bytes
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    })
    .take(length)
    .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn qcow2(directory: &Path, raw: &[u8]) -> Vec<u8> {
    let (from, to) = (file(directory, "raw", raw), directory.join("qcow2"));
    let arguments =
        ["convert", "-f", "raw", "-c", "-O", "qcow2", from.to_str().unwrap(), to.to_str().unwrap()];
    tool("/usr/bin/qemu-img", &arguments);
    std::fs::read(to).unwrap()
}

fn info(published: &[u8], format: Value, translate: Option<bool>) -> Value {
    let url = serve(vec![("test.img", published.to_vec())]);
    let mut info = json!({"id": "test.img", "urls": [format!("{url}/test.img")], "disk_format": format,
                          "os_hash_algo": "sha256", "os_hash_value": sha256(published)});
    if let Some(translate) = translate {
        info["translate_sector_size"] = json!(translate);
    }
    info
}

/// The table that both Ferric and sgdisk read, the ESP's files by mtools, the file systems by their checkers.
fn assert_usable(disk: &Loop, directory: &Path, image: &[u8], sector: u32) {
    let report = tool("/usr/sbin/sgdisk", &["--verify", disk.name()]);
    assert!(report.contains("No problems found"), "{report}");
    let table = Table::read_device(&disk.path).unwrap();
    let places: Vec<_> = table.partitions().iter().map(|p| (p.number, p.start_byte, p.size_byte)).collect();
    let place = |number: u32, (start, size): (usize, usize)| (number, start as u64, size as u64);
    assert_eq!(places, [place(1, ROOT), place(15, ESP)]);
    assert_eq!(table.sector_bytes(), sector);
    let esp = file(directory, "esp-after", &disk.read(ESP.0 as u64, ESP.1));
    let esp = esp.to_str().unwrap();
    let checked = tool("/usr/sbin/fsck.vfat", &["-n", esp]);
    assert!(!checked.contains("differ") && checked.contains("files"), "{checked}");
    for name in ["::EFI/debian/shimx64.efi", "::EFI/BOOT/BOOTX64.EFI", "::EFI/debian/a rather long name.cfg"]
    {
        let copy = directory.join("copy");
        let _ = std::fs::remove_file(&copy);
        tool("/usr/bin/mcopy", &["-i", esp, name, copy.to_str().unwrap()]);
        assert_eq!(std::fs::read(&copy).unwrap(), noise(3 * MIB), "{name}");
    }
    let found = disk::probe::probe(&std::fs::read(esp).unwrap()).unwrap();
    assert_eq!((found.label.as_deref(), found.uuid.as_deref()), (Some("EFI"), Some("1A2B-3C4D")));
    assert_eq!(disk.read(ROOT.0 as u64, ROOT.1), image[ROOT.0..ROOT.0 + ROOT.1]);
}

#[test]
fn loop_an_image_for_other_sectors_is_refused_before_a_byte_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::of(DISK, 4096) else { return };
    let image = image(directory.path(), 512);
    let packed = qcow2(directory.path(), &image);
    for (published, format) in [
        (image.clone(), json!("raw")),
        (image.clone(), Value::Null),
        (packed, json!("qcow2")),
        (gzip(&image), json!("raw")),
    ] {
        let error = deploy(&disk, info(&published, format, None), Settings::default()).unwrap_err();
        assert!(matches!(error, Error::InvalidImage { .. }), "{error:?}");
        let text = error.to_string();
        for part in ["sector-size", "512", "4096", "translate_sector_size"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(disk.is_untouched());
    }
    // An image's own word counts more than the setting.
    let settings = Settings { translate_sector_size: true, ..Settings::default() };
    let info = info(&image, json!("raw"), Some(false));
    assert!(deploy(&disk, info, settings).unwrap_err().to_string().contains("sector-size"));
    assert!(disk.is_untouched());
}

#[test]
fn loop_a_table_for_512_is_rewritten_for_4096_with_its_fat_volume() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::of(DISK, 4096) else { return };
    let image = image(directory.path(), 512);
    let packed = qcow2(directory.path(), &image);
    for (published, format) in
        [(image.clone(), json!("raw")), (packed, json!("qcow2")), (gzip(&image), Value::Null)]
    {
        let settings = Settings { verify_writes: true, ..Settings::default() };
        deploy(&disk, info(&published, format, Some(true)), settings)
            .unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
        assert_usable(&disk, directory.path(), &image, 4096);
        let sector = disk.read(ESP.0 as u64 + 11, 2);
        assert_eq!(sector, 4096u16.to_le_bytes(), "the FAT volume counts in the disk's sectors");
    }
}

#[test]
fn loop_a_table_for_4096_is_rewritten_for_512_and_its_file_systems_stay() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::of(DISK, 512) else { return };
    let image = image(directory.path(), 4096);
    let error = deploy(&disk, info(&image, json!("raw"), None), Settings::default()).unwrap_err();
    assert!(error.to_string().contains("sector-size") && disk.is_untouched(), "{error}");
    let settings = Settings { translate_sector_size: true, ..Settings::default() };
    deploy(&disk, info(&image, json!("raw"), None), settings)
        .unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
    assert_usable(&disk, directory.path(), &image, 512);
    assert_eq!(disk.read(ESP.0 as u64, ESP.1), image[ESP.0..ESP.0 + ESP.1]);
}

#[test]
fn loop_what_can_not_be_used_on_larger_sectors_leaves_no_table() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Loop::of(DISK, 4096) else { return };
    let mut image = image(directory.path(), 512);
    let small = file(directory.path(), "small", &vec![0; ROOT.1]);
    tool("/usr/sbin/mkfs.ext4", &["-q", "-b", "1024", small.to_str().unwrap()]);
    image[ROOT.0..ROOT.0 + ROOT.1].copy_from_slice(&std::fs::read(small).unwrap());
    let error = deploy(&disk, info(&image, json!("raw"), Some(true)), Settings::default()).unwrap_err();
    let text = error.to_string();
    for part in ["sector-translation", "partition 1", "1024", "mkfs.ext4 -b 4096", "does not boot"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(disk.has_zeroed_head());
    let end = disk.read(DISK - MIB as u64, MIB);
    assert!(end.iter().all(|byte| *byte == 0), "nor a second copy of one");
    // A digest that does not match: nothing is rewritten either.
    let mut wrong = info(&image, json!("raw"), Some(true));
    wrong["os_hash_value"] = json!("5".repeat(64));
    assert!(matches!(deploy(&disk, wrong, Settings::default()), Err(Error::ImageChecksum { .. })));
    assert!(disk.has_zeroed_head());
}

#[test]
fn loop_an_mbr_for_other_sectors_is_refused_and_can_not_be_rewritten() {
    let Some(disk) = Loop::of(DISK, 4096) else { return };
    let mut image = support::image();
    for translate in [None, Some(true)] {
        let error = deploy(&disk, info(&image, json!("raw"), translate), Settings::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sector-size") && text.contains("MBR") && disk.is_untouched(), "{text}");
    }
    // Where the size says nothing, the file system does: compressed, the image's length is not known.
    image[MIB + 1080..MIB + 1082].copy_from_slice(&[0x53, 0xef]);
    image[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    image[446 + 12..446 + 16].copy_from_slice(&8_u32.to_le_bytes());
    let error = deploy(&disk, info(&image, json!("raw"), None), Settings::default()).unwrap_err();
    assert!(error.to_string().contains("sector-size") && disk.is_untouched(), "{error}");
}

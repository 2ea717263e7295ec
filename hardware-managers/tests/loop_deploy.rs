//! The story "this image onto that disk" on a loop device: through the step that a conductor sends, and its refusals.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test

mod support;

use std::sync::Arc;

use base64::Engine;
use disk::AllowList;
use events::{EventKind, Events, Phase};
use flate2::Compression;
use flate2::write::GzEncoder;
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Error, Registry, StepCall};
use imaging::Transport;
use serde_json::{Value, json};
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;
use support::{DISK_BYTES, Loop, MIB, config_drive, image, registry, serve, sha256};
use sys::Host;
use wire::StepKind;

struct Machine {
    registry: Registry,
    deployment: Arc<Deployment>,
    cx: Context,
}

/// A machine that may write only to `allowed`, told by hints to write to `hinted`.
fn machine(allowed: &str, hinted: &str) -> Machine {
    let transport =
        Transport { attempts: 2, retry_interval: Duration::from_millis(10), ..Transport::default() };
    let deployment = Deployment::new(Settings {
        allow: Some(AllowList::parse(allowed).unwrap()),
        transport,
        disk_wait_attempts: 1,
        ..Settings::default()
    });
    let host = Host::real();
    let registry = Registry::probe(&host, builtin(&deployment));
    let node = json!({"instance_info": {"root_device": {"name": hinted}}});
    let cx = Context::new(host, Events::default()).with_node(node);
    Machine { registry, deployment, cx }
}

impl Machine {
    fn run(&self, kind: StepKind, step: &str, arguments: Value) -> Result<Value, Error> {
        let arguments = arguments.as_object().unwrap().clone();
        self.registry.run_step(&StepCall { kind, step: step.into(), arguments, ports: json!([]) }, &self.cx)
    }

    fn write_image(&self, image_info: Value, configdrive: Value) -> Result<Value, Error> {
        let arguments = json!({"image_info": image_info, "configdrive": configdrive});
        self.run(StepKind::Deploy, "write_image", arguments)
    }

    fn events(&self) -> Vec<EventKind> {
        self.cx.events.after(0, 1000).events.into_iter().map(|event| event.kind).collect()
    }
}

fn info(url: &str, digest: &str) -> Value {
    json!({"id": "test.raw", "urls": [format!("{url}/test.raw")], "disk_format": "raw",
           "os_hash_algo": "sha256", "os_hash_value": digest})
}

fn conductor_form(drive: &[u8]) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(drive).unwrap();
    base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap())
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn loop_step_writes_the_image_and_the_config_drive_and_remembers_the_disk() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    assert_eq!(machine.deployment.partition_uuids(), json!({}));

    let result = machine
        .write_image(info(&url, &sha256(&image)), json!(conductor_form(&config_drive())))
        .unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
    let text =
        format!("prepare_image: image (test.raw) written to device {} root_uuid=0x1a2b3c4d", disk.name());
    assert_eq!(result, json!({ "result": text }));
    assert_eq!(machine.deployment.partition_uuids(), json!({"root uuid": "0x1a2b3c4d"}));

    let written = disk.read(0, image.len());
    assert_eq!(written[512..], image[512..], "everything but the partition table is as published");
    assert_eq!(written[..462], image[..462], "code, signature and first entry too");
    let last = disk.read(DISK_BYTES - 64 * MIB as u64, config_drive().len());
    assert_eq!(last, config_drive());

    let events = machine.events();
    let notice = events.iter().position(|event| matches!(event, EventKind::Notice { message } if message.contains("destroys") && message.contains(disk.name())));
    let write =
        events.iter().position(|event| matches!(event, EventKind::PhaseStarted { phase: Phase::Write, .. }));
    assert!(notice.unwrap() < write.unwrap(), "said before it was done: {events:?}");
    assert!(matches!(events.last(), Some(EventKind::PhaseFinished { phase: Phase::ConfigDrive, .. })));
}

#[test]
fn loop_the_same_image_again_is_written_looked_at_and_given_its_config_drive_again() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    for drive in [config_drive(), [config_drive(), vec![0x77; 4096]].concat()] {
        let argument = json!(conductor_form(&drive));
        machine.write_image(info(&url, &sha256(&image)), argument).unwrap();
        assert_eq!(disk.read(512, image.len() - 512), image[512..]);
        assert_eq!(drive_on(&disk)[..drive.len()], drive, "the config drive is that of this time");
        // Somebody else's bytes, in the middle.
        let mut device = std::fs::File::options().write(true).open(&disk.path).unwrap();
        device.seek(SeekFrom::Start(4 * MIB as u64)).unwrap();
        device.write_all(&[0x5a; 4096]).unwrap();
        device.sync_all().unwrap();
    }
    // By the same name and URL, and not what it was: it is looked at as the first was, and refused before anything is written.
    let before = disk.read(0, MIB);
    let mut without_table = image.clone();
    without_table[510..512].fill(0);
    let url = serve(vec![("test.raw", without_table.clone())]);
    for _ in 0..2 {
        let error =
            machine.write_image(info(&url, &sha256(&without_table)), json!(conductor_form(&config_drive())));
        assert!(matches!(error, Err(Error::InvalidImage { .. })), "{error:?}");
        assert_eq!(disk.read(0, MIB), before, "no place for a config drive without a table");
    }
}

/// A disk image with an MBR of these records: status, type, first sector, sectors.
fn mbr(records: &[(u8, u8, u32, u32)]) -> Vec<u8> {
    let mut image = image();
    image[446..510].fill(0);
    for (slot, (status, id, first, sectors)) in records.iter().enumerate() {
        let record = &mut image[446 + slot * 16..462 + slot * 16];
        (record[0], record[4]) = (*status, *id);
        record[8..12].copy_from_slice(&first.to_le_bytes());
        record[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    image
}

#[test]
fn loop_image_that_leaves_no_place_for_the_config_drive_is_refused_before_the_first_byte() {
    let Some(disk) = Loop::new() else { return };
    let machine = machine(disk.name(), disk.name());
    let iso = (0x80, 0, 0, 8000);
    let records = [iso, (0, 0xef, 2048, 64), (0, 0x83, 4096, 64), (0, 0x83, 8192, 64)];
    let full = mbr(&records);
    // The server sends no parts of files.
    let url = serve(vec![("test.raw", full.clone())]);
    for _ in 0..2 {
        let before = disk.read(0, MIB);
        let result = machine.write_image(info(&url, &sha256(&full)), json!(conductor_form(&config_drive())));
        let Err(Error::InvalidImage { message }) = result else { panic!("{result:?}") };
        for part in ["config-drive", "four primary partitions", "config-2"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("written and verified"), "{message}");
        assert_eq!(disk.read(0, MIB), before);
    }
    // Without a config drive there is nothing to refuse.
    let url = serve(vec![("test.raw", full.clone())]);
    machine.write_image(info(&url, &sha256(&full)), Value::Null).unwrap();

    let beside_iso = mbr(&[iso, (0, 0xef, 2048, 64)]);
    let url = serve(vec![("test.raw", beside_iso.clone())]);
    machine.write_image(info(&url, &sha256(&beside_iso)), json!(conductor_form(&config_drive()))).unwrap();
    let table = disk.read(446, 64);
    assert_eq!(table[..32], beside_iso[446..478], "the records of the image stay");
    assert_eq!(table[36], 0x0c, "an empty record is taken");
    assert_eq!(drive_on(&disk)[..config_drive().len()], config_drive());
}

/// A partition that the image labels `config-2` takes the drive where no record is free, and its label is looked for even where the
/// server sends no parts of files.
#[test]
fn loop_labelled_partition_of_a_full_table_is_found_before_the_write() {
    let Some(disk) = Loop::new() else { return };
    let machine = machine(disk.name(), disk.name());
    let mut full =
        mbr(&[(0x80, 0x83, 2048, 64), (0, 0x83, 2112, 64), (0, 0x83, 2176, 64), (0, 0x83, 4096, 2048)]);
    full[4096 * 512..4096 * 512 + config_drive().len()].copy_from_slice(&config_drive());
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&full).unwrap();
    // The server sends no parts of files.
    for published in [full.clone(), gzip.finish().unwrap()] {
        let url = serve(vec![("test.raw", published.clone())]);
        machine.write_image(info(&url, &sha256(&published)), json!(conductor_form(&config_drive()))).unwrap();
        assert_eq!(disk.read(4096 * 512, config_drive().len()), config_drive());
        assert_eq!(disk.read(446, 64), full[446..510]);
    }
}

#[test]
fn loop_wrong_digest_leaves_the_head_zero_and_is_named() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let wrong = "5".repeat(64);
    let error = machine.write_image(info(&url, &wrong), Value::Null).unwrap_err();
    assert!(matches!(error, Error::ImageChecksum { .. }), "{error:?}");
    for part in [wrong.as_str(), &sha256(&image), "does not boot"] {
        assert!(error.to_string().contains(part), "{part} is missing: {error}");
    }
    assert!(disk.has_zeroed_head());
    assert_eq!(machine.deployment.partition_uuids(), json!({}));
}

#[test]
fn loop_disk_outside_the_allow_list_is_not_even_seen() {
    let (Some(disk), Some(other)) = (Loop::new(), Loop::new()) else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(other.name(), disk.name());
    let error = machine.write_image(info(&url, &sha256(&image)), Value::Null).unwrap_err();
    assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
    assert!(disk.is_untouched() && other.is_untouched());
}

#[test]
fn loop_what_can_fail_beforehand_fails_before_the_disk_is_touched() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone()), ("SUMS", b"no digest here\n".to_vec())]);
    let digest = sha256(&image);
    let with = |key: &str, value: Value| {
        let mut info = info(&url, &digest);
        info[key] = value;
        info
    };
    let cases = [
        (with("urls", json!([format!("{url}/absent")])), Value::Null),
        (with("disk_format", json!("qcow2")), Value::Null),
        (with("disk_format", json!("vmdk")), Value::Null),
        (with("image_type", json!("partition")), Value::Null),
        (with("os_hash_value", json!(format!("{url}/SUMS"))), Value::Null),
        (with("id", json!("test.raw")), json!("this is no base64!")),
        (with("id", json!("test.raw")), json!(format!("{url}/absent"))),
    ];
    for (info, drive) in cases {
        let machine = machine(disk.name(), disk.name());
        let error = machine.write_image(info.clone(), drive).unwrap_err();
        assert!(disk.is_untouched(), "{info}: {error}");
    }
}

#[test]
fn loop_a_registry_is_a_source_with_and_without_a_digest_of_its_own() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let repository = registry(&image);
    let (tag, digest) = (format!("oci://{repository}:v1"), sha256(&image));
    for extra in [
        json!({"disk_format": "raw"}),
        json!({"disk_format": null}),
        json!({"disk_format": "raw", "checksum": digest}),
        json!({"disk_format": "raw", "urls": ["http://127.0.0.1:9/absent", tag.clone()]}),
    ] {
        let mut info = json!({"id": "disk:v1", "urls": [tag.clone()]});
        info.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let machine = machine(disk.name(), disk.name());
        let result = machine.write_image(info, Value::Null);
        let result = result.unwrap_or_else(|error| panic!("{extra}: {}", hwm::chain(&error)));
        assert!(result["result"].as_str().unwrap().contains("image (disk:v1) written"), "{result}");
        assert_eq!(disk.read(512, image.len() - 512), image[512..]);
    }
    let machine = machine(disk.name(), disk.name());
    let other = json!({"id": "disk:v1", "urls": [tag], "disk_format": "raw", "checksum": "5".repeat(64)});
    let error = machine.write_image(other, Value::Null).unwrap_err();
    assert!(matches!(error, Error::ImageChecksum { .. }), "{error:?}");
    let absent = json!({"id": "disk:v2", "urls": [format!("oci://{repository}:v2")], "disk_format": "raw"});
    let error = machine.write_image(absent, Value::Null).unwrap_err();
    assert!(matches!(error, Error::ImageDownload { .. }), "{error:?}");
    assert!(error.to_string().contains("404"), "{error}");
}

#[test]
fn loop_undeclared_format_is_found_and_checksum_files_are_read() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let sums = format!("{}  other.raw\n{} *test.raw\n", "0".repeat(64), sha256(&image));
    let url = serve(vec![("test.raw", image.clone()), ("SHA256SUMS", sums.into_bytes())]);
    let machine = machine(disk.name(), disk.name());
    let info = json!({"id": "test.raw", "urls": [format!("{url}/test.raw")], "checksum": format!("{url}/SHA256SUMS")});
    machine.write_image(info, Value::Null).unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
    assert_eq!(disk.read(0, image.len()), image);
}

#[test]
fn loop_image_without_partition_table_is_refused_after_writing() {
    let Some(disk) = Loop::new() else { return };
    let mut image = image();
    image[510..512].fill(0);
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let error = machine.write_image(info(&url, &sha256(&image)), Value::Null).unwrap_err();
    assert!(matches!(error, Error::InvalidImage { .. }), "{error:?}");
    assert!(error.to_string().contains("allow_no_partition_table"), "{error}");
    assert_eq!(machine.deployment.partition_uuids(), json!({}));
}

#[test]
fn loop_image_without_partition_table_is_written_where_that_is_allowed_and_no_config_drive_needs_one() {
    let Some(disk) = Loop::new() else { return };
    let mut image = image();
    image[510..512].fill(0);
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let before = disk.read(0, MIB);
    let mut info = info(&url, &sha256(&image));
    info["allow_no_partition_table"] = json!(true);
    let error = machine.write_image(info.clone(), json!(conductor_form(&config_drive()))).unwrap_err();
    assert!(matches!(error, Error::InvalidImage { .. }), "{error:?}");
    assert!(error.to_string().contains("table-missing"), "{error}");
    assert!(disk.read(0, MIB) == before, "nothing was written");
    machine.write_image(info, Value::Null).unwrap();
    assert!(disk.read(0, image.len()) == image);
}

#[test]
fn loop_cancelled_write_ends_without_a_bootable_disk() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let cx = machine.cx.clone();
    machine.cx.events.listen(move |event| {
        if matches!(event.kind, EventKind::PhaseStarted { phase: Phase::Write, .. }) {
            cx.cancel();
        }
    });
    let error = machine.write_image(info(&url, &sha256(&image)), Value::Null).unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert!(disk.has_zeroed_head());
}

#[test]
fn loop_erasing_metadata_wipes_allowed_disks_and_leaves_the_rest() {
    let (Some(disk), Some(skipped)) = (Loop::new(), Loop::new()) else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let mut machine = machine(&format!("{},{}", disk.name(), skipped.name()), disk.name());
    machine.write_image(info(&url, &sha256(&image)), Value::Null).unwrap();
    let node = json!({"properties": {"skip_block_devices": [{"name": skipped.name()}]}});
    machine.cx = machine.cx.with_node(node);

    let result = machine.run(StepKind::Clean, "erase_devices_metadata", json!({})).unwrap();
    assert_eq!(result, Value::Null);
    assert!(disk.has_zeroed_head());
    let partition = disk.read(MIB as u64, 7 * MIB);
    assert!(partition[..MIB].iter().all(|byte| *byte == 0), "the partition's superblock is gone");
    assert!(partition[6 * MIB..].iter().all(|byte| *byte == 0), "its end too");
    assert!(find(&partition, &image[3 * MIB..3 * MIB + 64]), "what lies between is not erased");
    assert!(skipped.is_untouched());
    let refused = machine.run(StepKind::Clean, "erase_devices_metadata", json!({"force": true}));
    assert!(matches!(refused, Err(Error::Arguments { .. })));
}

#[test]
fn loop_a_disk_that_other_machines_share_stops_the_erasure_before_it_begins() {
    let (Some(disk), Some(shared)) = (Loop::new(), Loop::new()) else { return };
    let mut image = image();
    image[446 + 4] = 0xfb; // VMFS
    let url = serve(vec![("test.raw", image.clone())]);
    let both = format!("{},{}", disk.name(), shared.name());
    let machine = machine(&both, shared.name());
    machine.write_image(info(&url, &sha256(&image)), Value::Null).unwrap();
    let error = machine.run(StepKind::Clean, "erase_devices_metadata", json!({})).unwrap_err();
    assert!(matches!(error, Error::ProtectedDevice { .. }), "{error:?}");
    assert!(error.to_string().contains(shared.name()) && error.to_string().contains("skip_block_devices"));
    assert!(disk.is_untouched());
    assert_eq!(shared.read(0, image.len()), image);
}

#[test]
fn loop_gpt_of_a_smaller_image_is_fitted_to_the_disk_before_the_config_drive_is_added() {
    let Some(disk) = Loop::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = support::file(directory.path(), "test.raw", &vec![0; 8 * MIB]);
    let table = ["--new=1:2048:8191", "--typecode=1:ef00", "--new=5:8192:0", "--change-name=5:root"];
    support::tool("/usr/sbin/sgdisk", &[&table[..], &[file.to_str().unwrap()]].concat());
    let image = std::fs::read(&file).unwrap();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let result =
        machine.write_image(info(&url, &sha256(&image)), json!(conductor_form(&config_drive()))).unwrap();
    assert!(result["result"].as_str().unwrap().ends_with("root_uuid=0x00000000"), "{result}");

    let report = support::tool("/usr/sbin/sgdisk", &["--verify", "--print", disk.name()]);
    assert!(report.contains("No problems found"), "{report}");
    let before = support::tool("/usr/sbin/sgdisk", &["--print", file.to_str().unwrap()]);
    let guid = before.lines().find(|line| line.starts_with("Disk identifier")).unwrap();
    assert!(report.lines().any(|line| line == guid), "another disk: {report}");
    let named =
        report.lines().any(|line| line.trim_start().starts_with("5 ") && line.trim_end().ends_with(" root"));
    assert!(named, "{report}");
    let partitions: Vec<_> = report.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let numbers: Vec<_> = partitions.iter().filter(|word| ["1", "2", "5"].contains(word)).collect();
    assert_eq!(numbers, [&"1", &"2", &"5"], "the image keeps its numbers: {report}");
    let end = disk.read(DISK_BYTES - 66 * MIB as u64, 66 * MIB);
    assert!(find(&end, b"meta data here"));
}

/// The bytes where the config drive of an MBR disk goes.
fn drive_on(disk: &Loop) -> Vec<u8> {
    disk.read(DISK_BYTES - 64 * MIB as u64, 64 * MIB)
}

#[test]
fn loop_config_drive_by_url_comes_in_every_form() {
    let image = image();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&config_drive()).unwrap();
    let text = conductor_form(&config_drive()).into_bytes();
    let wrapped: Vec<u8> = text.chunks(76).flat_map(|line| [line, b"\n"].concat()).collect();
    let forms = vec![
        ("test.raw", image.clone()),
        ("base64", text),
        ("wrapped", wrapped),
        ("gzip", gzip.finish().unwrap()),
        ("raw", config_drive()),
        ("page", b"<html>no such thing</html>".to_vec()),
    ];
    let url = serve(forms);
    for form in ["base64", "wrapped", "gzip", "raw"] {
        let Some(disk) = Loop::new() else { return };
        let machine = machine(disk.name(), disk.name());
        let scheme_in_capitals = format!("HTTP{}/{form}", url.trim_start_matches("http"));
        machine
            .write_image(info(&url, &sha256(&image)), json!(scheme_in_capitals))
            .unwrap_or_else(|error| panic!("{form}: {}", hwm::chain(&error)));
        assert_eq!(drive_on(&disk)[..config_drive().len()], config_drive(), "{form}");
    }
    for form in ["page", "absent"] {
        let Some(disk) = Loop::new() else { return };
        let machine = machine(disk.name(), disk.name());
        let drive = json!(format!("{url}/{form}"));
        let error = machine.write_image(info(&url, &sha256(&image)), drive).unwrap_err();
        assert!(matches!(error, Error::Deployment { .. }), "{form}: {error:?}");
        assert!(error.to_string().starts_with("config drive: "), "{error}");
        assert!(disk.is_untouched(), "{form}");
    }
}

#[test]
fn loop_config_drive_that_nobody_knows_is_written_as_it_is_and_the_argument_beats_the_image_info() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    let mut info = info(&url, &sha256(&image));
    info["configdrive"] = json!(conductor_form(&config_drive()));
    let unknown = b"some file system of the future".repeat(1000);
    machine.write_image(info.clone(), json!(conductor_form(&unknown))).unwrap();
    assert_eq!(drive_on(&disk)[..unknown.len()], unknown);
    machine.write_image(info, Value::Null).unwrap();
    assert_eq!(
        drive_on(&disk)[..config_drive().len()],
        config_drive(),
        "the old place of it counts without an argument"
    );
}

#[test]
fn loop_config_drive_is_made_anew_where_the_option_says_so() {
    let Some(disk) = Loop::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    support::file(&tree, "meta_data.json", b"{}");
    let iso = directory.path().join("iso");
    let arguments =
        ["-quiet", "-J", "-r", "-V", "config-2", "-o", iso.to_str().unwrap(), tree.to_str().unwrap()];
    support::tool("/usr/bin/genisoimage", &arguments);
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = machine(disk.name(), disk.name());
    machine.deployment.configure(|settings| settings.config_drive_rebuild = true);
    let drive = conductor_form(&std::fs::read(&iso).unwrap());
    machine.write_image(info(&url, &sha256(&image)), json!(drive)).unwrap();
    let written = support::file(directory.path(), "written", &drive_on(&disk));
    let listing = support::tool("/usr/bin/mdir", &["-i", written.to_str().unwrap(), "::"]);
    assert!(listing.contains("CONFIG-2") && listing.contains("meta_data.json"), "{listing}");
}

#[test]
fn loop_qcow2_is_unpacked_onto_the_disk_declared_or_not_with_a_config_drive_by_url() {
    let image = image();
    let directory = tempfile::tempdir().unwrap();
    let raw = support::file(directory.path(), "raw", &image);
    let packed = directory.path().join("test.qcow2");
    let arguments = ["convert", "-c", "-O", "qcow2", raw.to_str().unwrap(), packed.to_str().unwrap()];
    support::tool("/usr/bin/qemu-img", &arguments);
    let packed = std::fs::read(&packed).unwrap();
    let drive = conductor_form(&config_drive()).into_bytes();
    let url = serve(vec![("test.raw", packed.clone()), ("drive", drive)]);
    for format in [json!("qcow2"), Value::Null] {
        let Some(disk) = Loop::new() else { return };
        let machine = machine(disk.name(), disk.name());
        let mut info = info(&url, &sha256(&packed));
        info["disk_format"] = format;
        machine
            .write_image(info, json!(format!("{url}/drive")))
            .unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
        assert_eq!(disk.read(512, image.len() - 512), image[512..]);
        let drive = disk.read(DISK_BYTES - 64 * MIB as u64, config_drive().len());
        assert_eq!(drive, config_drive());
    }
}

#[test]
fn step_lists_of_the_registry_carry_the_version() {
    let machine = machine("/dev/none0", "/dev/none0");
    for (kind, steps) in [
        (
            StepKind::Clean,
            json!([
                "erase_devices",
                "erase_devices_metadata",
                "erase_devices_express",
                "erase_pstore",
                "clean_uefi_nvram"
            ]),
        ),
        (
            StepKind::Deploy,
            json!([
                "erase_devices_metadata",
                "clean_uefi_nvram",
                "write_image",
                "inject_files",
                "execute_bootc_install"
            ]),
        ),
        (StepKind::Service, json!(["write_image", "inject_files", "execute_bootc_install"])),
    ] {
        let list = machine.registry.steps(kind, &machine.cx).unwrap().to_value().unwrap();
        assert_eq!(list["hardware_manager_version"]["generic_hardware_manager"], json!("1.2"));
        let listed = list[format!("{}_steps", kind.name())]["GenericHardwareManager"].as_array().unwrap();
        // Those of software RAID are there where this machine has mdadm.
        let listed = listed.iter().filter(|step| step["interface"] != "raid");
        let names: Vec<_> = listed.map(|step| step["step"].clone()).collect();
        assert_eq!(Value::Array(names), steps);
    }
    assert!(matches!(machine.run(StepKind::Clean, "brew_coffee", json!({})), Err(Error::NoManager { .. })));
}

#[test]
fn inventory_of_this_machine_has_every_key() {
    let machine = machine("/dev/none0", "/dev/none0");
    let inventory = machine.registry.inventory(&machine.cx).unwrap();
    assert!(inventory.cpu.count > 0 && inventory.memory.total.is_some());
    let value = serde_json::to_value(&inventory).unwrap();
    for key in ["interfaces", "cpu", "disks", "memory", "system_vendor", "boot", "hostname", "bmc_address"] {
        assert!(value.get(key).is_some(), "{key}");
    }
    assert!(inventory.disks.iter().all(|disk| !disk.name.contains("loop")));
}

//! Partition tables that sfdisk and sgdisk made, as they and Ferric read them: on files with sectors of 512 bytes, on loop devices
//! with sectors of 4096.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use disk::table::{PartitionType, Table};
use oracles::device::Loop;
use oracles::readers::text;
use oracles::tools::{has, run, run_with, skipped};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Scripts for sfdisk, the size of the disk in MiB.
const SCRIPTS: &[(&str, u64)] = &[
    (
        "label: gpt\nsize=4MiB, type=uefi, name=\"EFI system\"\nsize=8MiB, type=linux, name=\"root, größer\"\ntype=swap\n",
        64,
    ),
    // Numbers with gaps, as Ubuntu's images have them.
    (
        "label: gpt\n14: size=4MiB, type=21686148-6449-6E6F-744E-656564454649\n15: size=8MiB, type=uefi\n1: type=linux\n",
        64,
    ),
    ("label: gpt\ntable-length: 4\nsize=4MiB\nsize=4MiB, attrs=\"LegacyBIOSBootable\"\n", 32),
    ("label: gpt\n", 16),
    ("label: dos\nlabel-id: 0x1a2b3c4d\nsize=4MiB, type=c, bootable\nsize=8MiB, type=83\ntype=82\n", 64),
    (
        "label: dos\nsize=4MiB, type=ef\nsize=30MiB, type=5\nsize=4MiB, type=83\nsize=4MiB, type=83\nsize=2MiB, type=82\n",
        64,
    ),
    ("label: dos\nlabel-id: 0x00000000\nsize=1MiB, type=83\n3: size=1MiB, start=8MiB, type=8e\n", 16),
    ("label: dos\nsize=40MiB, type=f\nsize=4MiB, type=83\n4: size=4MiB, start=50MiB, type=83\n", 64),
];

/// What both say of a partition.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    number: u32,
    start_byte: u64,
    size_byte: u64,
    kind: String,
    uuid: String,
    name: String,
    bootable: bool,
}

fn ours(path: &Path, sector_bytes: u32) -> Result<(Table, Vec<Found>)> {
    let bytes = std::fs::read(path)?;
    let table = Table::read(&bytes, sector_bytes)?;
    let found = table.partitions().iter().map(|partition| Found {
        number: partition.number,
        start_byte: partition.start_byte,
        size_byte: partition.size_byte,
        kind: match partition.kind {
            PartitionType::Guid(guid) => guid.to_string().to_uppercase(),
            PartitionType::Id(id) => format!("{id:x}"),
        },
        uuid: partition.uuid.to_lowercase(),
        name: partition.name.clone(),
        bootable: partition.bootable,
    });
    let found = found.collect();
    Ok((table, found))
}

/// `sfdisk --json` of a file or device; the PARTUUIDs of an MBR are made of its label, as the kernel does.
fn sfdisk(path: &Path, sector_bytes: u32) -> Result<Vec<Found>> {
    let json: Value = serde_json::from_str(&run("sfdisk", &["--json", text(path)?])?)?;
    let table = json.get("partitiontable").context("no table")?;
    let word =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_gpt = word(table, "label") == "gpt";
    let id = word(table, "id").trim_start_matches("0x").to_lowercase();
    let partitions = table.get("partitions").and_then(Value::as_array).cloned().unwrap_or_default();
    let device = text(path)?;
    partitions
        .iter()
        .map(|partition| {
            let node = word(partition, "node");
            let digits = node.strip_prefix(device).context("a node of another device")?;
            let number: u32 = digits.trim_start_matches('p').parse()?;
            let sectors = |key: &str| partition.get(key).and_then(Value::as_u64).context("a number");
            let flagged = partition.get("bootable").and_then(Value::as_bool).unwrap_or_default();
            Ok(Found {
                number,
                start_byte: sectors("start")? * u64::from(sector_bytes),
                size_byte: sectors("size")? * u64::from(sector_bytes),
                kind: word(partition, "type"),
                uuid: if is_gpt {
                    word(partition, "uuid").to_lowercase()
                } else {
                    format!("{id}-{number:02x}")
                },
                name: word(partition, "name"),
                bootable: flagged || word(partition, "attrs").contains("LegacyBIOSBootable"),
            })
        })
        .collect()
}

fn blank(folder: &Path, mib: u64) -> Result<PathBuf> {
    let path = folder.join("disk");
    let _ = std::fs::remove_file(&path);
    std::fs::File::create(&path)?.set_len(mib * MIB)?;
    Ok(path)
}

#[test]
fn tables_of_sfdisk_are_read_alike() -> Result<()> {
    if !has("sfdisk") {
        skipped("no sfdisk");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (script, mib) in SCRIPTS {
        let path = blank(folder.path(), *mib)?;
        run_with("sfdisk", &["--quiet", text(&path)?], script)?;
        let (table, found) = ours(&path, 512)?;
        let theirs = sfdisk(&path, 512)?;
        ensure!(found == theirs, "{script}\nferric: {found:#?}\nsfdisk: {theirs:#?}");
        ensure!(table.kind() == if script.contains("gpt") { "gpt" } else { "dos" }, "{script}");
        same_identity(&path, &table)?;
    }
    Ok(())
}

/// The identity of the whole table, as blkid tells it.
fn same_identity(path: &Path, table: &Table) -> Result<()> {
    let tell = run("blkid", &["-p", "-o", "export", text(path)?])?;
    let value = |key: &str| tell.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    ensure!(value("PTTYPE") == Some(table.kind()), "{tell}");
    let uuid = match table {
        Table::Gpt(gpt) => Some(gpt.disk_guid.to_string()),
        Table::Mbr(mbr) => (mbr.signature != 0).then(|| format!("{:08x}", mbr.signature)),
        Table::None => None,
    };
    ensure!(value("PTUUID").map(str::to_lowercase) == uuid, "{tell}\nferric: {uuid:?}");
    Ok(())
}

#[test]
fn tables_of_sgdisk_are_read_alike() -> Result<()> {
    if !has("sgdisk") || !has("sfdisk") {
        skipped("no sgdisk and sfdisk");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for arguments in [
        &["--new=1:2048:+4M", "--typecode=1:ef00", "--change-name=1:esp", "--new=9:0:0"][..],
        &["--set-alignment=1", "--new=1:34:40", "--new=2:41:41", "--new=128:0:0"],
        &["--resize-table=256", "--new=200:0:+1M", "--attributes=200:set:2"],
        &["--new=1:0:+8M", "--hybrid=1:EE"],
    ] {
        let path = blank(folder.path(), 32)?;
        let file = text(&path)?.to_owned();
        let arguments: Vec<&str> = arguments.iter().copied().chain([file.as_str()]).collect();
        run("sgdisk", &arguments)?;
        let (table, found) = ours(&path, 512)?;
        ensure!(matches!(table, Table::Gpt(_)), "{arguments:?}: {}", table.kind());
        let hybrid = arguments.iter().any(|word| word.starts_with("--hybrid"));
        // sfdisk shows the other table of a hybrid disk; sgdisk is asked alone.
        if !hybrid {
            let theirs = sfdisk(&path, 512)?;
            ensure!(found == theirs, "{arguments:?}\nferric: {found:#?}\nsfdisk: {theirs:#?}");
        }
        for partition in &found {
            let tell = run("sgdisk", &[&format!("--info={}", partition.number), &file])?;
            let says = |text: &str| tell.contains(text);
            ensure!(
                says(&format!("unique GUID: {}", partition.uuid.to_uppercase())),
                "{tell}\n{partition:?}"
            );
            ensure!(says(&format!("First sector: {} ", partition.start_byte / 512)), "{tell}\n{partition:?}");
            ensure!(
                says(&format!("Partition size: {} sectors", partition.size_byte / 512)),
                "{tell}\n{partition:?}"
            );
            ensure!(says(&format!("GUID code: {}", partition.kind)), "{tell}\n{partition:?}");
            ensure!(says(&format!("Partition name: '{}'", partition.name)), "{tell}\n{partition:?}");
        }
        // With the first copy gone, the second tells the same.
        let mut damaged = std::fs::read(&path)?;
        damaged[512..1024].fill(0);
        std::fs::write(&path, damaged)?;
        let (again, from_backup) = ours(&path, 512)?;
        ensure!(matches!(&again, Table::Gpt(gpt) if gpt.is_from_backup), "{arguments:?}");
        ensure!(from_backup == found, "{arguments:?}: the backup tells another story");
    }
    Ok(())
}

#[test]
fn loop_tables_with_sectors_of_4096_bytes_are_read_alike() -> Result<()> {
    if !has("sfdisk") || !Path::new("/dev/loop-control").exists() {
        skipped("no sfdisk and loop devices");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    for (script, mib) in SCRIPTS {
        let path = blank(folder.path(), *mib)?;
        let Ok(device) = Loop::attach(&path, 4096) else {
            skipped("no loop device can be attached (root is needed)");
            return Ok(());
        };
        run_with("sfdisk", &["--quiet", "--no-reread", "--no-tell-kernel", text(device.path())?], script)?;
        let theirs = sfdisk(device.path(), 4096)?;
        let table = Table::read_device(device.path())?;
        ensure!(table.sector_bytes() == 4096, "{script}: {}", table.sector_bytes());
        let (_, found) = ours(&path, 4096)?;
        ensure!(
            table.partitions().len() == found.len(),
            "{script}: the device tells another story than its file"
        );
        ensure!(found == theirs, "{script}\nferric: {found:#?}\nsfdisk: {theirs:#?}");
    }
    Ok(())
}

//! File systems as blkid and Ferric recognise them: kind, label and UUID, on files that the makers of file systems made.

use std::path::Path;

use anyhow::{Result, ensure};
use disk::probe::probe;
use oracles::readers::text;
use oracles::tools::{has, run, skipped};

const MIB: u64 = 1 << 20;

/// A maker of file systems: program, arguments before the file, size of the file in MiB.
const MAKERS: &[(&str, &[&str], u64)] = &[
    ("mkfs.ext2", &["-q", "-F", "-L", "old root"], 4),
    ("mkfs.ext3", &["-q", "-F", "-L", "root"], 8),
    ("mkfs.ext4", &["-q", "-F", "-L", "cloudimg-rootfs", "-U", "6f2b5e84-9b3c-4d0a-8f11-0123456789ab"], 8),
    ("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"], 8),
    ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-L", "sixteen-letters!"], 8),
    ("mkfs.xfs", &["-q", "-f", "-L", "root"], 300),
    ("mkfs.xfs", &["-q", "-f", "-m", "crc=0"], 300),
    ("mkfs.btrfs", &["-q", "-f", "-L", "a label with blanks"], 128),
    ("mkfs.vfat", &["-F", "12", "-n", "ESP"], 2),
    ("mkfs.vfat", &["-F", "16", "-n", "EFI SYSTEM"], 16),
    ("mkfs.vfat", &["-F", "32", "-i", "1a2b3c4d"], 64),
    ("mkfs.vfat", &["-F", "32", "-S", "4096", "-n", "CONFIG-2"], 300),
    ("mkswap", &["-q", "-L", "swap1"], 4),
    ("mkswap", &["-q", "-p", "65536"], 4),
    ("mkfs.ntfs", &["-q", "-F", "-L", "Windows"], 16),
    (
        "cryptsetup",
        &[
            "luksFormat",
            "-q",
            "--type",
            "luks1",
            "--pbkdf-force-iterations=1000",
            "--key-file=/dev/zero",
            "--keyfile-size=8",
        ],
        16,
    ),
    (
        "cryptsetup",
        &[
            "luksFormat",
            "-q",
            "--type",
            "luks2",
            "--label",
            "safe",
            "--pbkdf=pbkdf2",
            "--pbkdf-force-iterations=1000",
            "--key-file=/dev/zero",
            "--keyfile-size=8",
        ],
        32,
    ),
];

/// What blkid says: kind, label, UUID.
type Identity = (String, Option<String>, Option<String>);

fn blkid(path: &Path) -> Result<Identity> {
    let tell = run("blkid", &["-p", "-o", "export", text(path)?])?;
    let value = |key: &str| {
        // Blanks are told with a backslash.
        tell.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.replace('\\', "")))
    };
    Ok((value("TYPE").unwrap_or_default(), value("LABEL"), value("UUID")))
}

fn ours(path: &Path) -> Result<Identity> {
    let found = probe(&std::fs::read(path)?).unwrap_or_default();
    Ok((found.kind.to_owned(), found.label, found.uuid))
}

/// Kinds whose label and UUID are not read, as nothing asks for them: docs/testing.md.
fn is_kind_only(kind: &str) -> bool {
    matches!(kind, "ntfs" | "LVM2_member" | "squashfs" | "gfs2")
}

fn compare(path: &Path, what: &str) -> Result<()> {
    let (theirs, ours) = (blkid(path)?, ours(path)?);
    if is_kind_only(&theirs.0) {
        ensure!(ours.0 == theirs.0, "{what}: ferric says {ours:?}, blkid says {theirs:?}");
    } else {
        ensure!(ours == theirs, "{what}: ferric says {ours:?}, blkid says {theirs:?}");
    }
    Ok(())
}

#[test]
fn file_systems_are_recognised_alike() -> Result<()> {
    if let Some(missing) = MAKERS.iter().map(|maker| maker.0).chain(["blkid"]).find(|program| !has(program)) {
        skipped(&format!("no {missing}"));
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk");
    let mut wrong = Vec::new();
    for (program, arguments, mib) in MAKERS {
        let _ = std::fs::remove_file(&path);
        std::fs::File::create(&path)?.set_len(mib * MIB)?;
        let arguments: Vec<&str> = arguments.iter().copied().chain([text(&path)?]).collect();
        run(program, &arguments)?;
        if let Err(error) = compare(&path, &format!("{program} {arguments:?}")) {
            wrong.push(format!("{error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn discs_are_recognised_alike() -> Result<()> {
    let maker = ["genisoimage", "mkisofs"].into_iter().find(|program| has(program));
    let (Some(maker), true) = (maker, has("blkid")) else {
        skipped("no genisoimage and blkid");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (tree, path) = (folder.path().join("tree"), folder.path().join("disk"));
    std::fs::create_dir_all(tree.join("openstack/latest"))?;
    std::fs::write(tree.join("openstack/latest/meta_data.json"), "{}")?;
    for options in [&["-V", "config-2"][..], &["-J", "-r", "-V", "config-2"], &["-J", "-V", "Ein Name"], &[]]
    {
        let mut arguments = vec!["-quiet", "-o", text(&path)?];
        arguments.extend(options);
        arguments.push(text(&tree)?);
        run(maker, &arguments)?;
        compare(&path, &format!("{maker} {options:?}"))?;
    }
    Ok(())
}

#[test]
fn compressed_trees_are_recognised_alike() -> Result<()> {
    if !has("blkid") || !has("mksquashfs") {
        skipped("no blkid and mksquashfs");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (tree, path) = (folder.path().join("tree"), folder.path().join("disk"));
    std::fs::create_dir_all(tree.join("etc"))?;
    std::fs::write(tree.join("etc/hostname"), "node-1\n")?;
    run("mksquashfs", &[text(&tree)?, text(&path)?, "-quiet", "-no-progress"])?;
    compare(&path, "mksquashfs")
}

/// Members of volume groups, on loop devices: their maker takes nothing else.
#[test]
fn loop_members_of_volume_groups_are_recognised_alike() -> Result<()> {
    if !has("blkid") || !has("pvcreate") {
        skipped("no blkid and pvcreate");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("disk");
    std::fs::File::create(&path)?.set_len(16 * MIB)?;
    let Ok(device) = oracles::device::Loop::attach(&path, 512) else {
        skipped("no loop device can be attached (root is needed)");
        return Ok(());
    };
    run("pvcreate", &["--force", "--yes", text(device.path())?])?;
    drop(device);
    compare(&path, "pvcreate")
}

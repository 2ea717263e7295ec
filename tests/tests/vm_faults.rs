//! What goes wrong on the way ends well: nothing unverified boots, a cut is resumed, the controller may die.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Disk, Fault, FileServer, Firmware, Node, Outcome, Scratch, Shape, Vm, VmConfig, debian_image,
    head_is_zero, noise_file, patient, same_content, skip_vm, until,
};

const MIB: u64 = 1 << 20;

/// An image of noise, 64 MiB, with its SHA-512.
fn noise(dir: &Path, seed: u64) -> Result<(PathBuf, String)> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("noise.raw");
    noise_file(&path, 64 * MIB, seed)?;
    // Tests may start processes; this one is a fact that no code of ours has computed.
    #[allow(clippy::disallowed_methods)]
    let output = Command::new("/usr/bin/sha512sum").arg(&path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok((path, text.split(' ').next().unwrap_or_default().to_owned()))
}

fn bench(name: &str, shape: Shape) -> Result<Option<(Bench, Node)>> {
    if skip_vm()? {
        return Ok(None);
    }
    let bench = Bench::start(Scratch::new(name)?, &["--qemu-outgoing", "ramdisk"])?; // the images lie on a server of this test
    let node = bench.node("node-1", "52:54:00:fe:88:02", shape)?;
    Ok(Some((bench, node)))
}

fn deploy(bench: &Bench, url: &str, sha512: &str, format: &str) -> Result<Outcome> {
    let checksum = format!("sha512:{sha512}");
    let arguments =
        ["deploy", "node-1", "--image", url, "--checksum", &checksum, "--format", format, "--watch"];
    bench.controller.run(&arguments, patient(600))
}

#[test]
fn vm_flipped_bit_ends_in_deploy_failed_and_the_disk_does_not_boot() -> Result<()> {
    let Some((bench, node)) = bench("flip", Shape::QUICK)? else { return Ok(()) };
    let debian = debian_image()?;
    let images = FileServer::start(debian.dir())?;
    let size = std::fs::metadata(debian.path("disk.raw"))?.len();
    images.fault("disk.raw", Fault::FlipByte(size * 9 / 10));
    let sha512 = debian.sha512("disk.raw")?;
    // The image is fetched again where its digest is wrong; a gigabyte is enough of that once more.
    let once = "ipa-image-download-connection-retries=1 ipa-image-download-connection-retry-interval=1";
    bench.controller.ferric(&["node", "set", "node-1", "--kernel-params", once])?.ok()?;

    let outcome = deploy(&bench, &images.guest_url("disk.raw"), &sha512, "raw")?;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let shown = bench.controller.node("node-1")?;
    assert_eq!(shown["provision_state"], "deploy failed");
    let error = shown["last_error"].as_str().unwrap_or_default();
    assert!(
        error.contains(&sha512) && error.contains("node-1"),
        "the error must name the node and the digest: {error}"
    );
    assert!(images.traffic("disk.raw").sent >= size, "the whole image should have been sent");

    // It was written, and yet there is nothing to boot.
    head_is_zero(&node.disk)?;
    ensure!(used(&node.disk)? > 50 * MIB, "nothing was written at all: the fault was not met");
    bench.controller.ferric(&["node", "power", "off", "node-1"])?;
    does_not_boot(&node.disk, &bench.scratch)?;
    drop(node);
    bench.passed();
    Ok(())
}

/// Fails unless both firmwares find nothing to boot on the disk, and say so.
fn does_not_boot(disk: &Path, scratch: &Scratch) -> Result<()> {
    let start = |firmware, name| {
        let disk = Disk { snapshot: true, ..Disk::new(disk) };
        Vm::start(&VmConfig::new(firmware).disk(disk), scratch.path(), name)
    };
    let uefi = start(Firmware::Uefi, "after-uefi")?;
    uefi.serial.wait_for("Not Found", patient(60))?; // OVMF, of the boot entry for the disk
    uefi.serial.wait_for("Shell>", patient(60))?; // the last of its boot entries
    let bios = start(Firmware::Bios, "after-bios")?;
    bios.bios.wait_for("No bootable device", patient(60))?;
    Ok(())
}

#[test]
fn vm_disk_without_its_head_does_not_boot() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    // What an interrupted write leaves: all of the image but the first MiB. On a disk of just the image's size, where the
    // table's copy is at the end, a firmware could be tempted to restore the table from it.
    let scratch = Scratch::new("headless")?;
    let disk = scratch.join("disk");
    std::fs::copy(debian_image()?.path("disk.raw"), &disk)?;
    let file = std::fs::File::options().write(true).open(&disk)?;
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 1 << 20], 0)?;
    does_not_boot(&disk, &scratch)?;
    scratch.passed();
    Ok(())
}

/// Bytes that a sparse file takes.
fn used(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

#[test]
fn vm_cut_connection_is_resumed_where_it_was() -> Result<()> {
    let Some((bench, node)) = bench("cut", Shape::NOISE)? else { return Ok(()) };
    let (image, sha512) = noise(&bench.scratch.join("images"), 1)?;
    let images = FileServer::start(bench.scratch.join("images"))?;
    let size = 64 * MIB;
    images.fault("noise.raw", Fault::CutOnce(size * 9 / 10));

    deploy(&bench, &images.guest_url("noise.raw"), &sha512, "raw")?
        .ok()
        .with_context(|| node.serial.tail())?;
    assert_eq!(bench.controller.state("node-1")?, "active");
    let traffic = images.traffic("noise.raw");
    assert!(traffic.sent < size * 11 / 10, "{traffic:?}");
    let resumed = traffic.ranges.iter().flatten().any(|range| !range.starts_with("bytes=0-"));
    assert!(resumed, "no request for the rest: {traffic:?}");
    bench.controller.ferric(&["node", "power", "off", "node-1"])?;
    same_content(&node.disk, &image)?;
    drop(node);
    bench.passed();
    Ok(())
}

#[test]
fn vm_deploy_goes_on_when_the_controller_is_killed_and_restarted() -> Result<()> {
    let Some((mut bench, node)) = bench("kill", Shape::NOISE)? else { return Ok(()) };
    let (image, sha512) = noise(&bench.scratch.join("images"), 2)?;
    let images = FileServer::start(bench.scratch.join("images"))?;
    // Long enough to be killed in the middle of.
    images.fault("noise.raw", Fault::Pace(4 * MIB));

    let checksum = format!("sha512:{sha512}");
    let url = images.guest_url("noise.raw");
    bench.controller.ferric(&[
        "deploy",
        "node-1",
        "--image",
        &url,
        "--checksum",
        &checksum,
        "--format",
        "raw",
    ])?;
    let log = std::fs::File::create(bench.scratch.join("watch.log"))?;
    let mut watch =
        bench.controller.command(&["watch", "node-1"]).stdout(log).stderr(Stdio::null()).spawn()?;
    until("a third of the image to be sent", patient(240), || {
        Ok((images.traffic("noise.raw").sent > 21 * MIB).then_some(()))
    })
    .with_context(|| node.serial.tail())?;
    bench.controller.kill()?;
    std::thread::sleep(Duration::from_secs(3));
    bench.controller.restart()?;
    let state = bench.controller.state("node-1")?;
    assert!(["deploying", "wait call-back"].contains(&state.as_str()), "after the restart: {state}");

    bench.controller.run(&["watch", "node-1"], patient(300))?.ok().with_context(|| node.serial.tail())?;
    assert_eq!(bench.controller.state("node-1")?, "active");
    // The one who watched from the beginning has seen it through as well.
    let watched = until("the first watcher to end", patient(30), || Ok(watch.try_wait()?));
    let _ = watch.kill(); // if it has not ended
    let _ = watch.wait();
    assert!(watched?.success());
    let traffic = images.traffic("noise.raw");
    assert!(traffic.sent < 64 * MIB * 11 / 10, "the image was sent again: {traffic:?}");
    bench.controller.ferric(&["node", "power", "off", "node-1"])?;
    same_content(&node.disk, &image)?;
    drop(node);
    bench.passed();
    Ok(())
}

#[test]
fn vm_disk_outside_the_allow_list_is_not_written() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    // The machine has one disk, and the kernel's command line allows another one alone.
    // The image lies on a server of this test.
    let arguments = ["--kernel-params", "ferric-disks=/dev/vdb", "--qemu-outgoing", "ramdisk"];
    let bench = Bench::start(Scratch::new("allow")?, &arguments)?;
    let node = bench.node("node-1", "52:54:00:fe:88:03", Shape::NOISE)?;
    let (_, sha512) = noise(&bench.scratch.join("images"), 3)?;
    let images = FileServer::start(bench.scratch.join("images"))?;

    let outcome = deploy(&bench, &images.guest_url("noise.raw"), &sha512, "raw")?;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let shown = bench.controller.node("node-1")?;
    assert_eq!(shown["provision_state"], "deploy failed");
    let error = shown["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("allow-list"), "refused for another reason: {error}");
    let used = used(&node.disk)?;
    assert_eq!(used, 0, "{used} bytes were written to a disk that is not allowed");
    drop(node);
    bench.passed();
    Ok(())
}

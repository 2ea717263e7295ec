//! The main job, end to end: a blank machine boots the ramdisk, gets an image, reboots, and the deployed Debian says so.

use anyhow::{Context, Result};
use e2e::{Bench, Firmware, Scratch, Shape, debian_image, patient, skip_vm};

fn deploys(name: &str, shape: Shape, image: &str, root: &str) -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    let debian = debian_image()?;
    let images = debian.dir().to_str().context("path")?;
    let bench = Bench::start(Scratch::new(name)?, &["--images", images])?;
    let node = bench.node("node-1", "52:54:00:fe:88:01", shape)?;
    let config = bench.config_drive("deployed-1", "hello from the test")?;

    let image_path = debian.path(image);
    let checksum = format!("sha512:{}", debian.sha512(image)?);
    #[rustfmt::skip]
    let deploy = bench.controller.run(
        &[
            "deploy", "node-1", "--image", image_path.to_str().context("path")?, "--checksum", &checksum,
            "--config-drive", config.to_str().context("path")?, "--watch",
        ],
        patient(600),
    )?;
    deploy.ok().with_context(|| node.serial.tail())?;
    assert_eq!(bench.controller.state("node-1")?, "active");

    let line = node.serial.wait_for("FERRIC-DEPLOYED", patient(240))?;
    assert_eq!(line.field("hostname"), Some("deployed-1"));
    assert_eq!(line.field("message"), Some("hello from the test"));
    assert_ne!(line.field("config-drive"), Some("none"));
    assert_eq!(line.field("firmware"), Some(if shape.firmware == Firmware::Uefi { "uefi" } else { "bios" }));
    assert_eq!(line.field("root"), Some(root));

    let timeline = bench.controller.ferric(&["timeline", "node-1", "--json"])?.json()?;
    let marks: Vec<_> =
        timeline.as_array().context("no timeline")?.iter().filter_map(|mark| mark["mark"].as_str()).collect();
    for mark in ["power on", "lookup", "first byte", "last byte", "verified", "boot from disk", "active"] {
        assert!(marks.contains(&mark), "no {mark:?} in {marks:?}");
    }
    drop(node);
    bench.passed();
    Ok(())
}

#[test]
fn vm_compressed_qcow2_is_deployed_over_the_network_on_uefi() -> Result<()> {
    deploys("net-uefi", Shape { boot: "pxe", ..Shape::QUICK }, "disk-zlib.qcow2", "/dev/vda3")
}

#[test]
fn vm_compressed_qcow2_is_deployed_over_the_network_on_bios() -> Result<()> {
    let shape = Shape { firmware: Firmware::Bios, boot: "pxe", ..Shape::QUICK };
    deploys("net-bios", shape, "disk-zstd.qcow2", "/dev/vda3")
}

#[test]
fn vm_raw_image_is_deployed_to_nvme_on_uefi() -> Result<()> {
    deploys("raw-uefi", Shape { bus: "nvme", ..Shape::QUICK }, "disk.raw", "/dev/nvme0n1p3")
}

#[test]
fn vm_plain_qcow2_is_deployed_to_scsi_on_uefi() -> Result<()> {
    deploys("qcow2-uefi", Shape { bus: "scsi", ..Shape::QUICK }, "disk.qcow2", "/dev/sda3")
}

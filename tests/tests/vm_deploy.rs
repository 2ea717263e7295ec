//! The main job, end to end: a blank machine boots the ramdisk, gets an image, reboots, and the deployed Debian says so.
//!
//! On UEFI it also says which boot entry of the firmware it was started by: that of the image's own boot loader.

use anyhow::{Context, Result};
use e2e::{Bench, Firmware, Scratch, Shape, debian_image, patient, skip_vm};

/// What is deployed, and what its system must say.
struct Case {
    name: &'static str,
    shape: Shape,
    image: &'static str,
    /// More arguments of `ferric deploy`.
    more: &'static [&'static str],
    root: &'static str,
}

/// What makes `root.qcow2` a disk: with the config drive the root partition is the third one, on UEFI the fourth.
const PARTITIONS: &[&str] = &["--root-gb", "1", "--swap-mb", "64"];

impl Case {
    fn deploy(&self) -> Result<()> {
        if skip_vm()? {
            return Ok(());
        }
        let debian = debian_image()?;
        let images = debian.dir().to_str().context("path")?;
        let serve: &[&str] = match self.more {
            PARTITIONS => &["--images", images, "--enable-bios-bootloader-install"],
            _ => &["--images", images],
        };
        let bench = Bench::start(Scratch::new(self.name)?, serve)?;
        let node = bench.node("node-1", "52:54:00:fe:88:01", self.shape)?;
        let config = bench.config_drive("deployed-1", "hello from the test")?;

        let image_path = debian.path(self.image);
        let checksum = format!("sha512:{}", debian.sha512(self.image)?);
        #[rustfmt::skip]
        let command = [
            "deploy", "node-1", "--image", image_path.to_str().context("path")?, "--checksum", &checksum,
            "--config-drive", config.to_str().context("path")?, "--watch",
        ];
        let deploy = bench.controller.run(&[&command, self.more].concat(), patient(600))?;
        deploy.ok().with_context(|| node.serial.tail())?;
        assert_eq!(bench.controller.state("node-1")?, "active");

        let line = node.serial.wait_for("FERRIC-DEPLOYED", patient(240))?;
        assert_eq!(line.field("hostname"), Some("deployed-1"));
        assert_eq!(line.field("message"), Some("hello from the test"));
        assert_ne!(line.field("config-drive"), Some("none"));
        let (firmware, entry) =
            if self.shape.firmware == Firmware::Uefi { ("uefi", "debian") } else { ("bios", "") };
        assert_eq!(line.field("firmware"), Some(firmware));
        assert_eq!(line.field("entry"), Some(entry), "{}", line.text);
        assert_eq!(line.field("root"), Some(self.root));

        let timeline = bench.controller.ferric(&["timeline", "node-1", "--json"])?.json()?;
        let marks: Vec<_> = timeline
            .as_array()
            .context("no timeline")?
            .iter()
            .filter_map(|mark| mark["mark"].as_str())
            .collect();
        for mark in ["power on", "lookup", "first byte", "last byte", "verified", "boot from disk", "active"]
        {
            assert!(marks.contains(&mark), "no {mark:?} in {marks:?}");
        }
        drop(node);
        bench.passed();
        Ok(())
    }
}

#[test]
fn vm_compressed_qcow2_is_deployed_over_the_network_on_uefi() -> Result<()> {
    let shape = Shape { boot: "pxe", ..Shape::QUICK };
    Case { name: "net-uefi", shape, image: "disk-zlib.qcow2", more: &[], root: "/dev/vda3" }.deploy()
}

#[test]
fn vm_compressed_qcow2_is_deployed_over_the_network_on_bios() -> Result<()> {
    let shape = Shape { firmware: Firmware::Bios, boot: "pxe", ..Shape::QUICK };
    Case { name: "net-bios", shape, image: "disk-zstd.qcow2", more: &[], root: "/dev/vda3" }.deploy()
}

#[test]
fn vm_raw_image_is_deployed_to_nvme_on_uefi() -> Result<()> {
    let shape = Shape { bus: "nvme", ..Shape::QUICK };
    Case { name: "raw-uefi", shape, image: "disk.raw", more: &[], root: "/dev/nvme0n1p3" }.deploy()
}

#[test]
fn vm_plain_qcow2_is_deployed_to_scsi_on_uefi() -> Result<()> {
    let shape = Shape { bus: "scsi", ..Shape::QUICK };
    Case { name: "qcow2-uefi", shape, image: "disk.qcow2", more: &[], root: "/dev/sda3" }.deploy()
}

#[test]
fn vm_image_for_large_sectors_is_deployed_to_4kn_nvme_on_uefi() -> Result<()> {
    let shape = Shape { bus: "nvme", sector: 4096, ..Shape::QUICK };
    Case { name: "4kn-uefi", shape, image: "disk-4kn.qcow2", more: &[], root: "/dev/nvme0n1p3" }.deploy()
}

/// The ordinary image: with `translate_sector_size` its table is rewritten and its ESP made anew. What is read back includes both.
#[test]
fn vm_image_for_small_sectors_is_translated_and_boots_from_4kn_nvme_on_uefi() -> Result<()> {
    let parameters = "ferric-translate-sector-size=1";
    let shape = Shape { bus: "nvme", sector: 4096, parameters, ..Shape::QUICK };
    let more = &["--verify"];
    Case { name: "translated-4kn", shape, image: "disk-zstd.qcow2", more, root: "/dev/nvme0n1p3" }.deploy()
}

#[test]
fn vm_partition_image_is_made_to_boot_by_its_own_grub_on_uefi() -> Result<()> {
    let shape = Shape::QUICK;
    Case { name: "partition-uefi", shape, image: "root.qcow2", more: PARTITIONS, root: "/dev/vda4" }.deploy()
}

#[test]
fn vm_partition_image_is_made_to_boot_by_its_own_grub_on_bios() -> Result<()> {
    let shape = Shape { firmware: Firmware::Bios, ..Shape::QUICK };
    Case { name: "partition-bios", shape, image: "root.qcow2", more: PARTITIONS, root: "/dev/vda3" }.deploy()
}

#[test]
fn vm_partition_image_is_made_to_boot_from_4kn_nvme_on_uefi() -> Result<()> {
    let shape = Shape { bus: "nvme", sector: 4096, ..Shape::QUICK };
    Case { name: "partition-4kn", shape, image: "root.qcow2", more: PARTITIONS, root: "/dev/nvme0n1p4" }
        .deploy()
}

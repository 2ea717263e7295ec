//! Which modules are wanted: the two profiles, as tables, and what a user adds by name.
//!
//! A rule is a module's name, or a folder below `kernel/` with a slash at its end. Rules name what is *wanted*; what those
//! need is found by [`closure`](super::closure). A rule that this kernel has nothing for is no error: kernels differ, and
//! much is built in.

use std::collections::BTreeSet;

use super::closure::Finder;
use super::modinfo::normalize;
use super::package::Kernel;
use crate::{Error, Result};

/// A set of drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Virtual machines: QEMU/KVM, VMware, Hyper-V, Xen, and the usual clouds. Smallest.
    Vm,
    /// Everything of `vm`, and servers: every Ethernet, SCSI, SAS, RAID, Fibre Channel, SATA and NVMe driver.
    Server,
}

impl Profile {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Vm => "vm",
            Profile::Server => "server",
        }
    }

    fn rules(self) -> impl Iterator<Item = &'static str> {
        let server: &[&str] = match self {
            Profile::Vm => &[],
            Profile::Server => SERVER,
        };
        EVERYWHERE.iter().chain(server).copied()
    }
}

/// What every machine that is deployed needs, and the devices that virtual machines have.
const EVERYWHERE: &[&str] = &[
    // Virtual devices.
    "drivers/virtio/",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
    "virtio_scsi",
    "qemu_fw_cfg",
    "hv_vmbus",
    "hv_utils",
    "hv_storvsc",
    "hv_netvsc",
    "pci_hyperv",
    "hyperv_keyboard",
    "vmw_pvscsi",
    "vmxnet3",
    "xen_blkfront",
    "xen_netfront",
    // Disks that hypervisors and clouds offer, and what is on top of every disk.
    "nvme",
    "ahci",
    "ata_generic",
    "ata_piix",
    "mptspi",
    "mptsas",
    "megaraid_sas",
    "sd_mod",
    "sr_mod",
    "sg",
    "loop",
    // Ethernet that hypervisors and clouds offer.
    "8139cp",
    "8139too",
    "e1000",
    "e1000e",
    "ena",
    "gve",
    "iavf",
    "igb",
    "igbvf",
    "ixgbevf",
    "mana",
    "ne2k_pci",
    "pcnet32",
    "tulip",
    "bonding",
    "8021q",
    "af_packet",
    // File systems of images, config drives and EFI, with the character sets vfat asks for by name.
    "ext4",
    "xfs",
    "btrfs",
    "vfat",
    "isofs",
    "udf",
    "efivarfs",
    // Crash records in the firmware's variables and in memory that outlives a reboot: `erase_pstore` deletes them.
    "efi_pstore",
    "ramoops",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    // Checksums that file systems and RAID ask the crypto layer for by name.
    "crc32c_generic",
    "crc32c_intel",
    "crct10dif_generic",
    "crct10dif_pclmul",
    "libcrc32c",
    // Software RAID and device mapper.
    "md_mod",
    "linear",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "dm_mod",
    "dm_multipath",
    "dm_round_robin",
    "dm_queue_length",
    "dm_service_time",
    // USB: host controllers, storage, keyboards.
    "xhci_pci",
    "ehci_pci",
    "ohci_pci",
    "uhci_hcd",
    "usb_storage",
    "uas",
    "usbhid",
    "hid_generic",
    // Management controller and TPM.
    "ipmi_si",
    "ipmi_devintf",
    "ipmi_msghandler",
    "ipmi_poweroff",
    "tpm_crb",
    "tpm_tis",
];

/// What real servers have besides.
const SERVER: &[&str] = &[
    "drivers/net/ethernet/",
    "drivers/net/phy/",
    "drivers/net/mdio/",
    "drivers/net/pcs/",
    "drivers/net/team/",
    "drivers/scsi/",
    "drivers/message/fusion/",
    "drivers/ata/",
    "drivers/nvme/host/",
    "drivers/nvdimm/",
    "drivers/acpi/nfit/",
    "drivers/usb/host/",
    "drivers/usb/storage/",
    "drivers/mmc/core/",
    "drivers/char/ipmi/",
    "drivers/char/tpm/",
    "drivers/char/hw_random/",
    // NVMe behind Intel's volume management device.
    "vmd",
    "mtip32xx",
    "sdhci_pci",
    "sdhci_acpi",
    "dm_crypt",
    "dm_raid",
    "dm_snapshot",
    "dm_thin_pool",
    "squashfs",
    "overlay",
    "iscsi_ibft",
    // I2C hosts: some management controllers speak over SMBus (ipmi_ssif).
    "i2c_i801",
    "i2c_piix4",
    // USB network: the management controller's host interface and common dongles.
    "asix",
    "ax88179_178a",
    "cdc_eem",
    "cdc_ether",
    "cdc_ncm",
    "r8152",
    "rndis_host",
    "smsc75xx",
    "smsc95xx",
    "dmi_sysfs",
    "wmi",
];

/// Inside the folders above, but of no use here, and not small.
const NOT_WANTED: &[&str] = &[
    // Laptops' PC cards, and the chips of switches.
    "drivers/scsi/pcmcia/",
    "drivers/net/ethernet/mellanox/mlxsw/",
    // The target's side of Fibre Channel: machines that offer disks to others.
    "drivers/scsi/elx/",
    "tcm_qla2xxx",
    // NVMe and IP over fabrics whose drivers are not here.
    "mptlan",
    "nvme_rdma",
    "scsi_debug",
];

/// The modules that `profile` and the user's `extra` rules want. An extra rule that matches nothing is an error.
pub fn wanted(
    kernel: &Kernel,
    finder: &Finder<'_>,
    profile: Profile,
    extra: &[String],
) -> Result<BTreeSet<usize>> {
    let mut wanted = BTreeSet::new();
    for rule in profile.rules() {
        wanted.extend(matching(kernel, finder, rule).filter(|&number| {
            let module = kernel.modules.get(number);
            module.is_some_and(|module| {
                !module.name.ends_with("_cs")
                    && !NOT_WANTED.iter().any(|rule| rule_matches(rule, &module.path, &module.name))
            })
        }));
    }
    for rule in extra {
        let mut found = false;
        for number in matching(kernel, finder, rule) {
            found = true;
            wanted.insert(number);
        }
        if !found && !finder.is_builtin(&normalize(rule)) {
            let release = &kernel.release;
            let advice = "give a module's name, or a folder such as drivers/infiniband/";
            return Err(Error::Request(format!(
                "--module {rule}: kernel {release} has no such module; {advice}"
            )));
        }
    }
    Ok(wanted)
}

fn matching<'a>(
    kernel: &'a Kernel,
    finder: &'a Finder<'a>,
    rule: &'a str,
) -> Box<dyn Iterator<Item = usize> + 'a> {
    if rule.ends_with('/') {
        let all = kernel.modules.iter().enumerate();
        Box::new(
            all.filter(move |(_, module)| rule_matches(rule, &module.path, &module.name))
                .map(|(number, _)| number),
        )
    } else {
        Box::new(finder.by_name(&normalize(rule)).into_iter())
    }
}

fn rule_matches(rule: &str, path: &str, name: &str) -> bool {
    if rule.contains('/') {
        path.strip_prefix("kernel/").unwrap_or(path).starts_with(rule.strip_prefix("kernel/").unwrap_or(rule))
    } else {
        normalize(rule) == name
    }
}

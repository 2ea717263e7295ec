//! Drivers: loads the kernel modules that the hardware asks for, at start-up and for as long as the machine runs.
//!
//! There is no udev. The kernel names what a device needs in its `modalias`; the index that depmod made maps that to module
//! files. Devices that are there are found on the buses ([`devices`]), later ones announce themselves ([`hotplug`]), and what
//! only the kernel itself can know it wants (a file system's character set) it asks the [`helper`] for. A module that is missing
//! or finds no device is no error.

mod devices;
pub mod helper;
mod hotplug;
mod index;
mod loader;
mod pattern;

use std::thread;
use std::time::{Duration, Instant};

use sys::Host;

use crate::cmdline::Cmdline;
use index::Index;
use loader::Loader;

/// Loaded whatever the hardware says: what no device asks for by itself, but the agent's work does.
const ALWAYS: [&str; 12] = [
    "af_packet",
    "virtio_pci",
    "virtio_mmio",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "sd_mod",
    "sr_mod",
    "usb_storage",
    "ipmi_devintf",
    "efivarfs",
];
/// Wanted later than the network: nobody waits for them, and whoever is quicker has them by the [`helper`]. (Under emulation xfs
/// alone takes more than a second.)
const LATER: [&str; 9] =
    ["vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "ext4", "isofs", "xfs", "loop"];
/// The machine counts as settled when no device has announced itself for this long.
const QUIET: Duration = Duration::from_millis(200);
/// How often the wait looks.
const LOOK: Duration = Duration::from_millis(20);

/// Drivers that are being loaded in the background.
pub(super) struct Drivers {
    host: Host,
    loader: Loader,
    started: Instant,
}

/// Starts loading. Returns at once.
pub(super) fn start(host: &Host, cmdline: &Cmdline) -> Drivers {
    let started = Instant::now();
    let release = host.attribute("/proc/sys/kernel/osrelease").unwrap_or_default();
    let index = Index::read(host, &release);
    tracing::debug!(
        release,
        modules = index.len(),
        milliseconds = started.elapsed().as_millis(),
        "module index"
    );
    if index.len() == 0 {
        tracing::warn!(
            release,
            "no kernel modules in this ramdisk for this kernel; only built-in drivers work"
        );
    }
    let loader = Loader::start(host, index, cmdline);
    hotplug::start(host, &loader);
    // Devices first: the machine's network card is worth more than anything nobody has asked for.
    loader.want_devices(devices::modaliases(host));
    for name in ALWAYS {
        loader.want_module(name);
    }
    Drivers { host: host.clone(), loader, started }
}

impl Drivers {
    /// Waits until everything asked for is loaded, no device has announced itself for a moment, and the buses show
    /// nothing new; `limit` at most.
    pub(super) fn settle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            if Instant::now() >= deadline {
                tracing::warn!(busy = ?self.loader.busy(), "drivers are still looking for devices: going on without them");
                return;
            }
            if !self.loader.is_idle() || self.loader.quiet_for() < QUIET {
                thread::sleep(LOOK);
                continue;
            }
            if !self.loader.want_devices(devices::modaliases(&self.host)) {
                break;
            }
        }
        for name in LATER {
            self.loader.want_module(name);
        }
        let (loaded, failed) = self.loader.counts();
        tracing::info!(
            loaded,
            failed,
            milliseconds = self.started.elapsed().as_millis(),
            "drivers are loaded"
        );
    }
}

//! Virtual media: what the conductor hands over on a floppy or a disc that the BMC plays, when the kernel command line says
//! `boot_method=vmedia`. Source: ironic-python-agent `utils.py` (agent protocol page, 5.3).
//!
//! Two devices may be there. A *parameter floppy* holds `parameters.txt`, whose words go before those of the kernel command line. A
//! *config disc* holds configuration files, which are copied to the same places of the ramdisk before any is read, and perhaps the
//! static network of the machine. Both are read in-process: no mount, no file system driver. `init` calls this once the drivers are
//! loaded, `cli` when the agent is an ordinary process. **Nothing is ever written to a device.**

mod copy;
mod devices;

use std::thread;
use std::time::{Duration, Instant};

use disk::{Device, Files};
use sys::Host;

use crate::cmdline::Cmdline;
use devices::Role;

/// How often devices are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How long the second device may take once one is there.
const GRACE: Duration = Duration::from_secs(2);
/// The largest parameter file, and the largest file on the disc, in bytes.
const LARGEST_FILE: usize = 1 << 20;
/// Where the disc describes a static network.
const NETWORK_DATA: &str = "openstack/latest/network_data.json";

/// Why virtual media can not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The floppy can not be read.
    #[error("configuring the agent from virtual media: reading {file} on {device}")]
    Read {
        /// The device.
        device: String,
        /// What was read.
        file: &'static str,
        /// Why.
        #[source]
        source: disk::Error,
    },
    /// The floppy lacks its one file.
    #[error(
        "configuring the agent from virtual media: {device} has no file parameters.txt; is it the right floppy image?"
    )]
    NoParameters {
        /// The device.
        device: String,
    },
    /// A file of the disc can not be copied.
    #[error("configuring the agent from virtual media: copying {path} from {device}")]
    Copy {
        /// The device.
        device: String,
        /// Where to.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Media {
    /// The static network that the disc describes: JSON, as it came.
    pub network_data: Option<Vec<u8>>,
    /// What to tell a person.
    pub notices: Vec<String>,
}

/// Whether the boot loader says that there is virtual media.
pub fn is_used(cmdline: &Cmdline) -> bool {
    cmdline.get("boot_method") == Some("vmedia")
}

/// Reads the parameters into `cmdline` and copies the files; devices may take until `patience` is over to appear.
///
/// Does nothing unless the kernel command line says `boot_method=vmedia`.
pub fn take(host: &Host, cmdline: &mut Cmdline, patience: Duration) -> Result<Media, Error> {
    let mut media = Media::default();
    if !is_used(cmdline) {
        return Ok(media);
    }
    let found = look(host, patience);
    if let Some(device) = &found.floppy {
        let parameters = parameters(host, device)?;
        let names: Vec<_> = parameters.iter().map(|(name, _)| name.to_owned()).collect();
        media.notices.push(format!("virtual media: parameters {} from {device}", names.join(", ")));
        cmdline.override_with(&parameters);
    }
    if let Some(device) = &found.disc {
        let disc = open(host, device, "the file system")?;
        let files = Files::open(&disc).map_err(failed(device, "the file system"))?;
        let copied = copy::configuration(host, device, &files)?;
        if !copied.is_empty() {
            media.notices.push(format!("virtual media: {} from {device}", copied.join(", ")));
        }
        media.network_data = network_data(cmdline, device, &disc, &files);
    }
    if found.floppy.is_none() && found.disc.is_none() {
        media.notices.push(format!(
            "boot_method=vmedia, but no virtual media was found in {} s; going on with the kernel command line alone",
            patience.as_secs()
        ));
    }
    Ok(media)
}

/// The devices, by their names in `/dev`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    floppy: Option<String>,
    disc: Option<String>,
}

/// Waits for the devices: for both, or for one and a moment more.
fn look(host: &Host, patience: Duration) -> Found {
    let started = Instant::now();
    let mut first = None;
    loop {
        let found = Found {
            floppy: devices::find(host, Role::Parameters),
            disc: devices::find(host, Role::Configuration),
        };
        let any = found.floppy.is_some() || found.disc.is_some();
        if any {
            first.get_or_insert_with(Instant::now);
        }
        let both = found.floppy.is_some() && found.disc.is_some();
        let grace_is_over = first.is_some_and(|first: Instant| first.elapsed() >= GRACE);
        if both || grace_is_over || started.elapsed() >= patience {
            return found;
        }
        thread::sleep(LOOK.min(patience));
    }
}

fn failed(device: &str, file: &'static str) -> impl FnOnce(disk::Error) -> Error {
    let device = device.to_owned();
    move |source| Error::Read { device, file, source }
}

fn open(host: &Host, device: &str, file: &'static str) -> Result<Device, Error> {
    Device::open(&host.path(device)).map_err(failed(device, file))
}

fn parameters(host: &Host, device: &str) -> Result<Cmdline, Error> {
    const FILE: &str = "parameters.txt";
    let floppy = open(host, device, FILE)?;
    let files = Files::open(&floppy).map_err(failed(device, FILE))?;
    let text = files.read(FILE, LARGEST_FILE).map_err(failed(device, FILE))?;
    let text = text.ok_or_else(|| Error::NoParameters { device: device.to_owned() })?;
    Ok(Cmdline::parse(&String::from_utf8_lossy(&text)))
}

/// The network that the disc describes. A disc from somebody else is not believed: the boot loader names the publisher.
fn network_data(
    cmdline: &Cmdline,
    device: &str,
    disc: &Device,
    files: &Files<'_, Device>,
) -> Option<Vec<u8>> {
    let data = files.read(NETWORK_DATA, LARGEST_FILE).unwrap_or_else(|error| {
        tracing::warn!(
            device,
            error = hwm::chain(&error),
            "the network data on virtual media can not be read"
        );
        None
    })?;
    if let Some(expected) = cmdline.get("ir_pub_id") {
        let publisher = devices::publisher(disc).unwrap_or_default();
        if !publisher.eq_ignore_ascii_case(expected) {
            tracing::warn!(device, publisher, expected, "network data of another publisher is not used");
            return None;
        }
    }
    Some(data)
}

#[cfg(test)]
mod tests;

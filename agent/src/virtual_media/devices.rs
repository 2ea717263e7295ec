//! Which block device is virtual media. A disk of the machine never is, whatever its label says.

use disk::{Device, Source, probe};
use sys::Host;

/// The largest USB disk that counts, in bytes: discs are small, and a disk that somebody works with is not to be believed.
const LARGEST_DISK: u64 = 4 << 30;

/// What a device is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The floppy with the parameter file.
    Parameters,
    /// The disc with configuration files.
    Configuration,
}

impl Role {
    fn labels(self) -> &'static [&'static str] {
        match self {
            Role::Parameters => &["ir-vfd-dev"],
            Role::Configuration => &["config-2", "vmedia_boot_iso"],
        }
    }
}

/// The node of the first device that fits: by its label, or a floppy also by its model.
pub(super) fn find(host: &Host, role: Role) -> Option<String> {
    let names = host.names("/sys/class/block").unwrap_or_default();
    let media: Vec<_> = names.into_iter().filter(|name| is_media(host, name)).collect();
    let labelled = media.iter().find(|name| {
        let label = label(host, &node(name));
        label.is_some_and(|label| role.labels().iter().any(|wanted| label.eq_ignore_ascii_case(wanted)))
    });
    let by_model = || {
        let model =
            |name: &str| host.attribute(format!("/sys/class/block/{name}/device/model")).unwrap_or_default();
        // An optical drive of that model has the disc, not the floppy.
        media
            .iter()
            .find(|name| !is_optical(host, name) && model(name).to_lowercase().contains("virtual media"))
    };
    match role {
        Role::Parameters => labelled.or_else(by_model).map(|name| node(name)),
        Role::Configuration => labelled.map(|name| node(name)),
    }
}

/// Whether a device can be virtual media at all: an optical drive, or a small USB disk; whole, and with something in it.
fn is_media(host: &Host, name: &str) -> bool {
    if host.path(format!("/sys/class/block/{name}/partition")).exists() {
        return false;
    }
    let disk = disk::describe(host, name);
    let is_small_usb_disk = disk.tran.as_deref() == Some("usb") && disk.size < LARGEST_DISK;
    disk.size > 0 && (is_optical(host, name) || is_small_usb_disk)
}

/// SCSI's peripheral device type 5.
fn is_optical(host: &Host, name: &str) -> bool {
    host.number(format!("/sys/class/block/{name}/device/type")) == Some(5_u8)
}

fn node(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

fn label(host: &Host, node: &str) -> Option<String> {
    let device = match Device::open(&host.path(node)) {
        Ok(device) => device,
        Err(error) => {
            tracing::debug!(node, error = hwm::chain(&error), "no medium to look at"); // an empty drive
            return None;
        }
    };
    probe::probe(&device)?.label
}

/// The publisher that an ISO 9660 disc names.
pub(super) fn publisher(disc: &impl Source) -> Option<String> {
    // The primary volume descriptor: sector 16, field 318 (ECMA-119, 8.4.20).
    let text = disc.bytes(16 * 2048 + 318, 128).ok()?;
    Some(String::from_utf8_lossy(&text).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

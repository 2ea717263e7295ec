//! Where a disk is plugged in: the by-path name as udev's `path_id` forms it, and the transport as `lsblk` names it.
//!
//! There is no udev in the ramdisk, yet operators write hints with the names that udev gives. The names are derived from
//! the device's place in `/sys/devices`. An ATA, USB or virtio disk has further names: [`aliases`].

use std::path::{Path, PathBuf};

use sys::Host;

/// The name without `/dev/disk/by-path/`, in its present form; `None` where udev gives none.
pub(crate) fn by_path(host: &Host, name: &str) -> Option<String> {
    let leaf = std::fs::canonicalize(host.path(format!("/sys/block/{name}"))).ok()?;
    let top = std::fs::canonicalize(host.path("/sys/devices")).ok()?;
    let mut walk = Walk { host, leaf: &leaf, parts: Vec::new(), parent_known: false, transport_known: false };
    let real_parent;
    let mut current = leaf.parent();
    if leaf.ancestors().any(|directory| subsystem(directory).as_deref() == Some("nvme-subsystem")) {
        // A namespace with several controllers hangs below none of them. As udev: it is at the controller that has its number.
        real_parent = controller_of(host, name)?;
        current = Some(&real_parent);
    }
    while let Some(directory) = current.filter(|directory| *directory != top && directory.starts_with(&top)) {
        current = walk.visit(directory);
    }
    if !walk.parent_known || !walk.transport_known || walk.parts.is_empty() {
        return None;
    }
    walk.parts.reverse();
    Some(walk.parts.join("-"))
}

/// The other names that the same place has in udev: `...-ata-1` for `...-ata-1.0`, `virtio-pci-...` for `pci-...`, `...-usbv2-0:1` for
/// `...-usb-0:1`.
pub(crate) fn aliases(by_path: &str, transport: Option<&str>) -> Vec<String> {
    let (directory, name) = by_path.rsplit_once('/').map_or(("", by_path), |(d, n)| (d, n));
    let full = |name: String| if directory.is_empty() { name } else { format!("{directory}/{name}") };
    let mut names = Vec::new();
    if let Some((stem, port)) = name.rsplit_once("-ata-")
        && let Some(port) = port.strip_suffix(".0")
    {
        names.push(full(format!("{stem}-ata-{port}")));
    }
    // udev since 255 names the revision of USB too.
    if let Some((stem, port)) = name.split_once("-usb-0:") {
        names.extend([2, 3].map(|revision| full(format!("{stem}-usbv{revision}-0:{port}"))));
    }
    if transport == Some("virtio") && name.starts_with("pci-") {
        names.push(full(format!("virtio-{name}")));
    }
    names
}

/// `sata`, `nvme`, `sas`, ...; `None` where the kernel does not tell.
pub(crate) fn transport(host: &Host, name: &str) -> Option<String> {
    for (prefix, transport) in [("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc")] {
        if name.starts_with(prefix) {
            return Some(transport.into());
        }
    }
    let leaf = std::fs::canonicalize(host.path(format!("/sys/block/{name}"))).ok()?;
    let scsi_host = leaf.ancestors().filter_map(file_name).find(|name| is_scsi_host(name))?;
    let class = |class: &str| host.path(format!("/sys/class/{class}/{scsi_host}")).exists();
    let found = if class("spi_host") {
        "spi"
    } else if class("fc_host") {
        let name = host.attribute(format!("/sys/class/fc_host/{scsi_host}/symbolic_name"));
        if name.is_some_and(|name| name.contains(" over ")) { "fcoe" } else { "fc" }
    } else if class("sas_host") || has_ancestor(&leaf, "end_device-") {
        "sas"
    } else if class("iscsi_host") {
        "iscsi"
    } else if leaf.ancestors().any(|directory| subsystem(directory).as_deref() == Some("usb")) {
        "usb"
    } else {
        let driver = host.attribute(format!("/sys/class/scsi_host/{scsi_host}/proc_name"))?;
        if driver.starts_with("ahci") || driver.starts_with("sata") {
            "sata"
        } else if driver.contains("ata") {
            "ata"
        } else {
            return None;
        }
    };
    Some(found.into())
}

struct Walk<'a> {
    host: &'a Host,
    leaf: &'a Path,
    /// From the disk towards the root.
    parts: Vec<String>,
    parent_known: bool,
    transport_known: bool,
}

impl Walk<'_> {
    /// Takes in one device on the way up and says where to go on.
    fn visit<'p>(&mut self, directory: &'p Path) -> Option<&'p Path> {
        let name = file_name(directory)?;
        let Some(subsystem) = subsystem(directory) else { return directory.parent() };
        let part = match subsystem.as_str() {
            "scsi" if is_scsi_address(&name) => {
                self.transport_known = true;
                return match self.scsi(directory, &name) {
                    Some(part) => {
                        self.parts.push(part);
                        directory.parent()
                    }
                    None => None, // as udev: what is above does not tell where this disk is
                };
            }
            "usb" if name.contains('-') => {
                self.transport_known = true;
                format!("usb-0:{}", name.split_once('-')?.1)
            }
            "nvme" => {
                self.parent_known = true;
                self.transport_known = true;
                let namespace =
                    std::fs::read_to_string(self.leaf.join("nsid")).ok().map(|id| id.trim().to_owned());
                format!("nvme-{}", namespace?)
            }
            "virtio" => {
                self.transport_known = true;
                return Some(skip(directory, "virtio"));
            }
            "pci" => {
                self.parent_known = true;
                format!("pci-{name}")
            }
            "platform" => {
                self.parent_known = true;
                self.transport_known = true;
                format!("platform-{name}")
            }
            "acpi" | "xen" => {
                self.parent_known = true;
                format!("{subsystem}-{name}")
            }
            "ccw" => {
                self.parent_known = true;
                self.transport_known = true;
                format!("ccw-{name}")
            }
            _ => return directory.parent(),
        };
        self.parts.push(part);
        Some(skip(directory, &subsystem))
    }

    /// The part for a SCSI device `H:C:T:L`, by what it hangs on.
    fn scsi(&mut self, directory: &Path, name: &str) -> Option<String> {
        let numbers: Vec<u32> = name.split(':').map_while(|part| part.parse().ok()).collect();
        let &[number, channel, target, unit] = numbers.as_slice() else { return None };
        let lun = match unit {
            0..256 => format!("lun-{unit}"),
            _ => format!("lun-0x{:04x}{:04x}00000000", unit & 0xffff, unit >> 16),
        };
        let attribute = |path: String| self.host.attribute(path);
        let names: Vec<String> = directory.ancestors().filter_map(file_name).collect();
        let ancestor = |prefix: &str| names.iter().find(|name| name.starts_with(prefix)).cloned();
        let target_name = names.iter().find(|name| name.starts_with("target")).cloned();

        if ancestor("rport-").is_some() {
            self.parent_known = true;
            let port = attribute(format!("/sys/class/fc_transport/{}/port_name", target_name?))?;
            return Some(format!("fc-{port}-{lun}"));
        }
        if let Some(end_device) = ancestor("end_device-") {
            self.parent_known = true;
            let port = ancestor("port-")?;
            let of_device = |key: &str| attribute(format!("/sys/class/sas_device/{end_device}/{key}"));
            if attribute(format!("/sys/class/sas_port/{port}/num_phys"))? != "1" {
                return Some(format!("sas-{}-{lun}", of_device("sas_address")?));
            }
            let phy = of_device("phy_identifier")?;
            let position = names.iter().position(|name| *name == port)?;
            let expander = names.get(position + 1)?;
            return Some(match attribute(format!("/sys/class/sas_device/{expander}/sas_address")) {
                Some(address) => format!("sas-exp{address}-phy{phy}-{lun}"),
                None => format!("sas-phy{phy}-{lun}"),
            });
        }
        if let Some(session) = ancestor("session") {
            self.parent_known = true;
            let number = session.strip_prefix("session")?;
            let connection = format!("/sys/class/iscsi_connection/connection{number}:0");
            let portal = attribute(format!("{connection}/persistent_address"))?;
            let port = attribute(format!("{connection}/persistent_port"))?;
            let name = attribute(format!("/sys/class/iscsi_session/{session}/targetname"))?;
            return Some(format!("ip-{portal}:{port}-iscsi-{name}-{lun}"));
        }
        if let Some(ata) = names.iter().find(|name| is_numbered(name, "ata")) {
            let port = attribute(format!("/sys/class/ata_port/{ata}/port_no"))?;
            // A port multiplier numbers its ports as channels; master and slave differ in the target.
            return Some(match channel {
                0 => format!("ata-{port}.{target}"),
                _ => format!("ata-{port}.{channel}.0"),
            });
        }
        let host_directory =
            directory.ancestors().find(|d| file_name(d).is_some_and(|n| is_scsi_host(&n)))?;
        let controller = host_directory.parent()?;
        if let Some(id) = std::fs::read_to_string(controller.join("device_id")).ok()
            && let Some(id) = id.trim().strip_prefix('{').and_then(|id| id.strip_suffix('}'))
        {
            return Some(format!("vmbus-{}-{lun}", id.replace('-', "")));
        }
        let lowest = std::fs::read_dir(controller)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("host")?.parse::<u32>().ok())
            .min();
        let number = number.saturating_sub(lowest.unwrap_or(number));
        Some(format!("scsi-{number}:{channel}:{target}:{unit}"))
    }
}

/// The device directory of the controller `nvme0` of a namespace `nvme0n1`, where there is one of that name.
fn controller_of(host: &Host, name: &str) -> Option<PathBuf> {
    let digits: String = name.strip_prefix("nvme")?.chars().take_while(char::is_ascii_digit).collect();
    std::fs::canonicalize(host.path(format!("/sys/class/nvme/nvme{digits}"))).ok()
}

/// The first directory above that is no longer of this subsystem.
fn skip<'p>(directory: &'p Path, name: &str) -> &'p Path {
    let mut current = directory;
    while subsystem(current).as_deref() == Some(name) {
        match current.parent() {
            Some(parent) => current = parent,
            None => break,
        }
    }
    current
}

fn subsystem(directory: &Path) -> Option<String> {
    let link: PathBuf = std::fs::read_link(directory.join("subsystem")).ok()?;
    file_name(&link)
}

fn file_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn has_ancestor(leaf: &Path, prefix: &str) -> bool {
    leaf.ancestors().filter_map(file_name).any(|name| name.starts_with(prefix))
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn is_scsi_host(name: &str) -> bool {
    is_numbered(name, "host")
}

fn is_scsi_address(name: &str) -> bool {
    name.split(':').count() == 4 && name.split(':').all(|part| part.parse::<u32>().is_ok())
}

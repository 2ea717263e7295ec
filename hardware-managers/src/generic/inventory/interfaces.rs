//! Network interfaces that Ironic may make ports of.

use std::net::IpAddr;

use hwm::Error;
use sys::Host;
use wire::Interface;

use super::{infiniband, link_modes};

pub(super) const NET: &str = "/sys/class/net";

/// Every interface with hardware behind it (or a bond, or a VLAN) and a MAC address, sorted by name.
pub(crate) fn read(host: &Host) -> Result<Vec<Interface>, Error> {
    let names = host.names(NET).map_err(|e| Error::other(format!("listing {NET}"), e))?;
    let addresses = host.kernel().interface_addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "interface addresses can not be read");
        Vec::new()
    });
    Ok(names
        .iter()
        .filter(|name| counts(host, name))
        .filter_map(|name| interface(host, name, &addresses))
        .collect())
}

/// Source: ironic-python-agent `netutils.py`: a device link, a bond, or a VLAN by its name.
pub(super) fn counts(host: &Host, name: &str) -> bool {
    let has = |part: &str| host.path(format!("{NET}/{name}/{part}")).exists();
    is_vlan(name) || has("device") || has("bonding")
}

/// `eth0.7`: nothing but digits after the first dot.
fn is_vlan(name: &str) -> bool {
    let id = name.split_once('.').map(|(_, id)| id);
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

fn interface(host: &Host, name: &str, addresses: &[(String, IpAddr)]) -> Option<Interface> {
    let vendor = host.attribute(format!("{NET}/{name}/device/vendor"));
    let hardware = Hardware::read(host, name, vendor.as_deref())?;
    let attribute = |part: &str| host.attribute(format!("{NET}/{name}/{part}"));
    let own = || addresses.iter().filter(|(interface, _)| interface == name).map(|(_, ip)| ip);
    let ipv4 = own().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(v4.to_string()) } else { None });
    let ipv6 = own().find_map(|ip| match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(format!("{v6}%{name}")),
        IpAddr::V6(v6) => Some(v6.to_string()),
        IpAddr::V4(_) => None,
    });
    Some(Interface {
        name: name.to_owned(),
        mac_address: hardware.mac_address,
        ipv4_address: ipv4,
        ipv6_address: ipv6,
        has_carrier: attribute("carrier").as_deref() == Some("1"),
        lldp: None,
        vendor,
        product: attribute("device/device"),
        client_id: hardware.client_id,
        biosdevname: firmware_name(host, name),
        // What it can do at best, not what it does now: a machine is chosen by it.
        speed_mbps: link_modes::fastest_mbps(&host.kernel().supported_link_modes(name).unwrap_or_default()),
        pci_address: link_name(host, &format!("{NET}/{name}/device")),
        driver: link_name(host, &format!("{NET}/{name}/device/driver")),
    })
}

/// The hardware address, and the DHCP client id that goes with it on InfiniBand.
struct Hardware {
    mac_address: String,
    client_id: Option<String>,
}

impl Hardware {
    /// The permanent address, else the current one; `None` when there is neither, or when it is one of the host-side
    /// addresses of management NICs, which would clash between machines. Source: data plane page, 10.2.
    fn read(host: &Host, name: &str, vendor: Option<&str>) -> Option<Self> {
        let permanent =
            host.kernel().permanent_address(name).ok().filter(|bytes| bytes.iter().any(|byte| *byte != 0));
        let address = match permanent {
            Some(bytes) => bytes,
            None => bytes(&host.attribute(format!("{NET}/{name}/address"))?)?,
        };
        let hardware = match infiniband::identity(&address, vendor) {
            Some(identity) => {
                Self { mac_address: colons(&identity.mac), client_id: Some(identity.client_id) }
            }
            None => Self { mac_address: colons(&address), client_id: None },
        };
        if address.first() == Some(&0xfa) {
            let mac = hardware.mac_address;
            tracing::warn!(
                interface = name,
                mac,
                "interface left out: addresses starting with fa are not unique"
            );
            return None;
        }
        Some(hardware)
    }
}

/// `aa:bb:cc` of any length.
pub(super) fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect()
}

/// The name that the firmware gives an interface on the board, in the words of biosdevname: `em` and its number there. The
/// kernel has the number from SMBIOS (type 41) or ACPI. Virtual machines and VLANs have none.
fn firmware_name(host: &Host, name: &str) -> Option<String> {
    let number: u32 = host.number(format!("{NET}/{name}/device/index"))?;
    let cpuinfo = host.attribute("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let virtual_machine = flags.split_whitespace().any(|flag| flag == "hypervisor");
    (!virtual_machine && number > 0 && !is_vlan(name)).then(|| format!("em{number}"))
}

/// The last component of where a symbolic link points.
fn link_name(host: &Host, link: &str) -> Option<String> {
    let target = std::fs::read_link(host.path(link)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    fn nic(machine: Fixture, name: &str, address: &str) -> Fixture {
        machine
            .link(&format!("/sys/class/net/{name}/device"), "../../devices/pci0000:00/0000:00:03.0")
            .directory("/sys/class/devices/pci0000:00/0000:00:03.0")
            .file(&format!("/sys/class/net/{name}/address"), &format!("{address}\n"))
    }

    fn names(machine: &Fixture) -> Vec<String> {
        read(&machine.host()).unwrap().into_iter().map(|i| i.name).collect()
    }

    #[test]
    fn only_hardware_bonds_and_vlans_count() {
        let machine = nic(Fixture::new(), "eth0", "52:54:00:00:00:01")
            .file("/sys/class/net/lo/address", "00:00:00:00:00:00\n")
            .file("/sys/class/net/dummy0/address", "52:54:00:00:00:09\n")
            .file("/sys/class/net/bond0/bonding/mode", "802.3ad 4\n")
            .file("/sys/class/net/bond0/address", "52:54:00:00:00:02\n")
            .file("/sys/class/net/eth0.7/address", "52:54:00:00:00:01\n")
            .file("/sys/class/net/veth.x/address", "52:54:00:00:00:03\n")
            .file("/sys/class/net/a.b.7/address", "52:54:00:00:00:04\n");
        assert_eq!(names(&machine), ["bond0", "eth0", "eth0.7"]);
    }

    #[test]
    fn permanent_address_beats_the_current_one() {
        let machine = nic(Fixture::new(), "eth0", "52:54:00:00:00:01")
            .permanent("eth0", &[0x02, 0xfc, 0, 0, 0, 0x0a])
            .file("/sys/class/net/eth1/address", "52:54:00:AB:00:02\n")
            .link("/sys/class/net/eth1/device", "../../devices/pci0000:00/0000:00:03.0")
            .permanent("eth1", &[0; 6]);
        let macs: Vec<_> = read(&machine.host()).unwrap().into_iter().map(|i| i.mac_address).collect();
        assert_eq!(macs, ["02:fc:00:00:00:0a", "52:54:00:ab:00:02"]);
    }

    #[test]
    fn interfaces_without_address_or_with_a_clashing_one_are_left_out() {
        let machine = nic(nic(Fixture::new(), "eth0", "FA:16:3e:00:00:01"), "eth1", "");
        assert_eq!(names(&machine), Vec::<String>::new());
    }

    #[test]
    fn details_come_from_the_device_and_the_kernel() {
        let machine = nic(Fixture::new(), "eth0", "52:54:00:00:00:01")
            .file("/sys/class/net/eth0/carrier", "1\n")
            .file("/sys/class/net/eth0/speed", "1000\n") // what it does now
            .link_modes("eth0", &[5, 6, 12])
            .file("/sys/class/devices/pci0000:00/0000:00:03.0/vendor", "0x1af4\n")
            .file("/sys/class/devices/pci0000:00/0000:00:03.0/device", "0x1000\n")
            .link("/sys/class/devices/pci0000:00/0000:00:03.0/driver", "../../bus/pci/drivers/virtio_net")
            .address("lo", "127.0.0.1")
            .address("eth0", "fe80::1")
            .address("eth0", "192.0.2.7")
            .address("eth0", "192.0.2.8")
            .address("eth0", "fd00::7");
        let nic = read(&machine.host()).unwrap().remove(0);
        assert_eq!(nic.ipv4_address.as_deref(), Some("192.0.2.7"));
        assert_eq!(nic.ipv6_address.as_deref(), Some("fe80::1%eth0"));
        assert_eq!((nic.has_carrier, nic.speed_mbps), (true, Some(10000)));
        assert_eq!((nic.vendor.as_deref(), nic.product.as_deref()), (Some("0x1af4"), Some("0x1000")));
        assert_eq!(
            (nic.pci_address.as_deref(), nic.driver.as_deref()),
            (Some("0000:00:03.0"), Some("virtio_net"))
        );
    }

    #[test]
    fn unknown_speed_is_null_and_unreadable_carrier_is_false() {
        let machine =
            nic(Fixture::new(), "eth0", "52:54:00:00:00:01").file("/sys/class/net/eth0/speed", "10000\n");
        let nic = read(&machine.host()).unwrap().remove(0);
        assert_eq!((nic.has_carrier, nic.speed_mbps, nic.ipv4_address), (false, None, None));
        assert_eq!((nic.biosdevname, nic.client_id), (None, None));
    }

    #[test]
    fn infiniband_has_a_short_address_and_a_client_id() {
        let long = "a0:00:00:27:fe:80:00:00:00:00:00:00:7c:fe:90:03:00:29:26:52";
        let machine = nic(Fixture::new(), "ib0", long)
            .file("/sys/class/devices/pci0000:00/0000:00:03.0/vendor", "0x15b3\n");
        let card = read(&machine.host()).unwrap().remove(0);
        assert_eq!(card.mac_address, "7c:fe:90:29:26:52");
        assert_eq!(
            card.client_id.as_deref(),
            Some("ff:00:00:00:00:00:02:00:00:02:c9:00:7c:fe:90:03:00:29:26:52")
        );
        let other = nic(Fixture::new(), "ib0", long);
        assert_eq!(read(&other.host()).unwrap().remove(0).mac_address, long);
    }

    #[test]
    fn an_interface_on_the_board_has_the_name_of_the_firmware_unless_the_machine_is_virtual() {
        let machine = nic(Fixture::new(), "eth0", "52:54:00:00:00:01")
            .file("/sys/class/devices/pci0000:00/0000:00:03.0/index", "2\n")
            .file("/proc/cpuinfo", "flags\t\t: fpu vme\n");
        assert_eq!(read(&machine.host()).unwrap().remove(0).biosdevname.as_deref(), Some("em2"));
        let machine = machine.file("/proc/cpuinfo", "flags\t\t: fpu hypervisor\n");
        assert_eq!(read(&machine.host()).unwrap().remove(0).biosdevname, None);
    }
}

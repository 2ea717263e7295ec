//! Interfaces that are made of others: VLANs and bonds, by `NETLINK_ROUTE`. The kernel asks for the driver it needs.

use std::io;

use super::route::{attribute, request};

// Numbers of linux/rtnetlink.h and if_link.h.
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFF_UP: u32 = 1;
/// The longest name of an interface, in bytes.
pub const LONGEST_NAME: usize = 15;
/// How often a bond looks whether its members have a carrier, in milliseconds.
const BOND_WATCH: u32 = 100;

/// How a bond uses its members; the numbers of linux/if_bonding.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the kernel's own
pub enum BondMode {
    BalanceRoundRobin = 0,
    ActiveBackup = 1,
    BalanceXor = 2,
    Broadcast = 3,
    Lacp = 4,
    BalanceTlb = 5,
    BalanceAlb = 6,
}

/// Makes the interface `name` for the packets of VLAN `id` (1 to 4094) on another one. `AlreadyExists` when it is there.
pub fn create_vlan(parent: u32, name: &str, id: u16) -> io::Result<()> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes());
    create(name, "vlan", &data, Some(parent))
}

/// Makes the interface `name` of several others, which [`set_master`] names. `AlreadyExists` when it is there.
pub fn create_bond(name: &str, mode: BondMode) -> io::Result<()> {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_BOND_MODE, &[mode as u8]);
    attribute(&mut data, IFLA_BOND_MIIMON, &BOND_WATCH.to_ne_bytes());
    create(name, "bond", &data, None)
}

/// Makes the interface `name` of several others, which [`set_master`] names: a switch. `AlreadyExists` when it is there.
pub fn create_bridge(name: &str) -> io::Result<()> {
    create(name, "bridge", &[], None)
}

/// Gives an interface, which must be down, another name.
pub fn set_name(interface: u32, name: &str) -> io::Result<()> {
    check_name(name)?;
    let mut body = header(interface, 0, 0)?;
    attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    request(RTM_NEWLINK, 0, &body)
}

/// Takes away an interface that was made.
pub fn delete(interface: u32) -> io::Result<()> {
    request(RTM_DELLINK, 0, &header(interface, 0, 0)?)
}

/// Makes an interface a member of a bond, for which it must be down, or of a bridge.
pub fn set_master(interface: u32, bond: u32) -> io::Result<()> {
    let mut body = header(interface, 0, 0)?;
    attribute(&mut body, IFLA_MASTER, &bond.to_ne_bytes());
    request(RTM_NEWLINK, 0, &body)
}

/// Sets a link down.
pub fn set_down(interface: u32) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &header(interface, 0, IFF_UP)?)
}

/// Gives an interface another hardware address.
pub fn set_mac(interface: u32, mac: [u8; 6]) -> io::Result<()> {
    let mut body = header(interface, 0, 0)?;
    attribute(&mut body, IFLA_ADDRESS, &mac);
    request(RTM_NEWLINK, 0, &body)
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['/', ' ', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{name}` cannot name an interface"),
        ));
    }
    Ok(())
}

fn create(name: &str, kind: &str, data: &[u8], parent: Option<u32>) -> io::Result<()> {
    check_name(name)?;
    let mut body = header(0, 0, 0)?;
    attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    if let Some(parent) = parent {
        attribute(&mut body, IFLA_LINK, &parent.to_ne_bytes());
    }
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, kind.as_bytes());
    attribute(&mut info, IFLA_INFO_DATA, data);
    attribute(&mut body, IFLA_LINKINFO, &info);
    request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// `ifinfomsg`.
fn header(interface: u32, flags: u32, change: u32) -> io::Result<Vec<u8>> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let mut body = vec![0; 4]; // family, padding, type
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::route::{interface_index, set_up, tests::in_own_network};

    #[test]
    fn netns_vlans_and_bonds_are_made_once_and_bad_names_not_at_all() {
        in_own_network(|| {
            create("under0", "veth", &[], None).unwrap(); // an Ethernet, with a peer that nobody uses
            let under = interface_index("under0").unwrap();
            assert!(create_vlan(under, "a name", 1).is_err());
            assert!(create_vlan(under, "name-of-16-bytes", 1).is_err());
            set_mac(under, [2, 0, 0, 0, 0, 7]).unwrap();
            set_name(under, "other0").unwrap();
            assert_eq!(interface_index("other0").unwrap(), under);
            set_name(under, "under0").unwrap();
            set_up(under).unwrap();
            set_down(under).unwrap();
            create("under1", "veth", &[], None).unwrap();
            delete(interface_index("under1").unwrap()).unwrap();
            assert!(interface_index("under1").is_err());
            match create_vlan(under, "under0.12", 12) {
                Ok(()) => {
                    interface_index("under0.12").unwrap();
                    let again = create_vlan(under, "under0.12", 12).unwrap_err();
                    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
                }
                Err(error) => skip("VLANs", &error),
            }
            match create_bond("bond7", BondMode::ActiveBackup) {
                Ok(()) => {
                    let bond = interface_index("bond7").unwrap();
                    set_master(under, bond).unwrap();
                    set_up(bond).unwrap();
                }
                Err(error) => skip("bonds", &error),
            }
        });
    }

    fn skip(what: &str, error: &io::Error) {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: this kernel makes no {what}: {error}\n"),
        ); // past cargo's capture: it counts
    }
}

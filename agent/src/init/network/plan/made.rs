//! Interfaces that are made of others or renamed, and routes: `vlan=`, `bond=`, `bridge=`, `ifname=`, `rd.route=`. Pure.
//! Source: dracut.cmdline(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sys::net::link::{BondMode, LONGEST_NAME};

use super::super::mac::Mac;
use super::address::{fields, mask_of};
use super::ip::MTU;

/// `vlan=NAME:PARENT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Vlan {
    pub name: String,
    pub id: u16,
    /// The name of an interface, or a MAC address.
    pub parent: String,
}

/// `bond=NAME:MEMBERS:OPTIONS:MTU` or `bridge=NAME:MEMBERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Group {
    pub name: String,
    pub kind: GroupKind,
    /// Names of interfaces, or MAC addresses.
    pub members: Vec<String>,
    pub mtu: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum GroupKind {
    /// With the options that stand in sysfs by these names.
    Bond {
        mode: BondMode,
        options: Vec<(String, String)>,
    },
    Bridge,
}

/// `rd.route=NETWORK/PREFIX:GATEWAY:INTERFACE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct StaticRoute {
    pub destination: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    /// Without one it is the interface whose network holds the gateway.
    pub device: Option<String>,
}

/// Reads `vlan=`. The id is the number at the end of the name: `vlan5`, `vlan0005`, `eth0.5`, `eth0.0005`.
pub(super) fn vlan(text: &str) -> Result<Vlan, String> {
    let fields = fields(text);
    let name = fields.first().map(String::as_str).unwrap_or_default();
    let (before, number) = match name.rsplit_once('.') {
        Some((parent, number)) => (parent, Some(number)),
        None => ("", name.strip_prefix("vlan")),
    };
    let id = number.and_then(|number| number.parse().ok()).filter(|id| (1..=4094).contains(id));
    let id = id.ok_or("its name ends in no id from 1 to 4094; use vlan=eth0.5:eth0 or vlan=vlan5:eth0")?;
    let parent = fields.get(1).map(String::as_str).filter(|parent| !parent.is_empty()).unwrap_or(before);
    if parent.is_empty() {
        return Err("it names no interface to stand on; use vlan=vlan5:eth0".into());
    }
    Ok(Vlan { name: interface_name(name)?, id, parent: parent.to_owned() })
}

/// Reads `bond=`. The second value names the parts that are not understood.
pub(super) fn bond(text: &str) -> Result<(Group, Vec<String>), String> {
    let fields = fields(text);
    let field = |number: usize| fields.get(number).map(String::as_str).filter(|field| !field.is_empty());
    let mut complaints = Vec::new();
    let (mut mode, mut options) = (BondMode::BalanceRoundRobin, Vec::new());
    for option in
        field(2).into_iter().flat_map(|options| options.split(',')).filter(|option| !option.is_empty())
    {
        match option.split_once('=') {
            Some(("mode", value)) => match bond_mode(value) {
                Some(known) => mode = known,
                None => complaints
                    .push(format!("its mode `{value}` is not one of the kernel's; balance-rr is taken")),
            },
            Some((key, value)) if is_option(key) && !value.is_empty() => {
                options.push((key.to_owned(), value.replace(';', ",")));
            }
            Some(_) | None => {
                complaints.push(format!("its option `{option}` is not understood and left out"))
            }
        }
    }
    let mtu = field(3).and_then(|text| {
        let mtu = text.parse().ok().filter(|mtu| MTU.contains(mtu));
        if mtu.is_none() {
            complaints.push(format!("its packet size (MTU) `{text}` is not understood and left out"));
        }
        mtu
    });
    let members = members(field(1), &["eth0", "eth1"]);
    let name = interface_name(field(0).unwrap_or("bond0"))?;
    Ok((Group { name, kind: GroupKind::Bond { mode, options }, members, mtu }, complaints))
}

/// Reads `bridge=`.
pub(super) fn bridge(text: &str) -> Result<Group, String> {
    let fields = fields(text);
    let field = |number: usize| fields.get(number).map(String::as_str).filter(|field| !field.is_empty());
    let name = interface_name(field(0).unwrap_or("br0"))?;
    Ok(Group { name, kind: GroupKind::Bridge, members: members(field(1), &["eth0"]), mtu: None })
}

/// Reads `ifname=NAME:MAC`.
pub(super) fn rename(text: &str) -> Result<(Mac, String), String> {
    let (name, mac) = text.split_once(':').ok_or("expected NAME:MAC")?;
    let mac = mac.parse().map_err(|error| format!("`{mac}`: {error}"))?;
    Ok((mac, interface_name(name)?))
}

/// Reads `rd.route=`.
pub(super) fn route(text: &str) -> Result<StaticRoute, String> {
    const FORM: &str = "expected NETWORK/PREFIX:GATEWAY:INTERFACE, IPv6 addresses in brackets";
    let fields = fields(text);
    let field = |number: usize| fields.get(number).map(String::as_str).filter(|field| !field.is_empty());
    let gateway: Option<IpAddr> = field(1)
        .map(|text| text.parse().map_err(|_| format!("its gateway `{text}` is not an IP address")))
        .transpose()?;
    let network = field(0).ok_or(FORM)?;
    let (destination, prefix) = match (network.split_once('/'), network) {
        (None, "default") => match gateway {
            Some(IpAddr::V6(_)) => (Ipv6Addr::UNSPECIFIED.into(), 0),
            Some(IpAddr::V4(_)) | None => (Ipv4Addr::UNSPECIFIED.into(), 0),
        },
        (Some((address, mask)), _) => {
            let address: IpAddr =
                address.parse().map_err(|_| format!("its network `{network}` is not understood; {FORM}"))?;
            let prefix = mask_of(mask, address)
                .ok_or_else(|| format!("its mask `{mask}` is not understood; {FORM}"))?;
            (network_of(address, prefix), prefix)
        }
        (None, _) => {
            let address: IpAddr =
                network.parse().map_err(|_| format!("its network `{network}` is not understood; {FORM}"))?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    let device = field(2).map(str::to_owned);
    if gateway.is_none() && device.is_none() {
        return Err(format!("it has neither a gateway nor an interface; {FORM}"));
    }
    if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.is_ipv4()) {
        return Err("its gateway is of another IP version than its network".into());
    }
    Ok(StaticRoute { destination, prefix, gateway, device })
}

/// The network of an address: the kernel refuses bits beyond the prefix.
fn network_of(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from(u32::from(v4) & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from(u128::from(v6) & mask).into()
        }
    }
}

fn members(text: Option<&str>, default: &[&str]) -> Vec<String> {
    match text {
        Some(text) => text.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        None => default.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// The kernel's names and numbers of the ways a bond uses its members.
pub(in super::super) fn bond_mode(text: &str) -> Option<BondMode> {
    Some(match text {
        "balance-rr" | "0" => BondMode::BalanceRoundRobin,
        "active-backup" | "1" => BondMode::ActiveBackup,
        "balance-xor" | "2" => BondMode::BalanceXor,
        "broadcast" | "3" => BondMode::Broadcast,
        "802.3ad" | "4" => BondMode::Lacp,
        "balance-tlb" | "5" => BondMode::BalanceTlb,
        "balance-alb" | "6" => BondMode::BalanceAlb,
        _ => return None,
    })
}

/// The name of a file in sysfs, not a way out of its folder.
fn is_option(key: &str) -> bool {
    !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn interface_name(name: &str) -> Result<String, String> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits =
        (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(usual) && name != "." && name != "..";
    fits.then(|| name.to_owned()).ok_or_else(|| {
        format!(
            "`{name}` cannot name an interface; use 1 to {LONGEST_NAME} letters, digits and `.`, `_`, `-`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vlans_have_their_id_in_their_name() {
        for (text, name, id, parent) in [
            ("vlan5:eth0", "vlan5", 5, "eth0"),
            ("vlan0005:eth1", "vlan0005", 5, "eth1"),
            ("eth0.77:eth0", "eth0.77", 77, "eth0"),
            ("eth0.0077:52-54-00-00-00-01", "eth0.0077", 77, "52-54-00-00-00-01"),
            ("eth0.77", "eth0.77", 77, "eth0"),
            ("bond0.12:bond0", "bond0.12", 12, "bond0"),
        ] {
            let expected = Vlan { name: name.into(), id, parent: parent.into() };
            assert_eq!(vlan(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "vlan5",
            "lan:eth0",
            "eth0.0:eth0",
            "vlan4095:eth0",
            "vlan/5:eth0",
            "vlan00000000000005:eth0",
        ] {
            assert!(!vlan(text).unwrap_err().is_empty(), "{text}");
        }
    }

    #[test]
    fn bonds_and_bridges_have_the_defaults_of_dracut() {
        let (group, complaints) =
            bond("bond7:eth2,eth3:mode=802.3ad,miimon=100,arp_ip_target=10.0.0.1;10.0.0.2:9000").unwrap();
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!((group.name.as_str(), group.mtu), ("bond7", Some(9000)));
        assert_eq!(group.members, ["eth2", "eth3"]);
        let options =
            vec![("miimon".into(), "100".into()), ("arp_ip_target".into(), "10.0.0.1,10.0.0.2".into())];
        assert_eq!(group.kind, GroupKind::Bond { mode: BondMode::Lacp, options });
        let (group, _) = bond("").unwrap();
        assert_eq!((group.name.as_str(), group.members.len()), ("bond0", 2));
        let (group, complaints) = bond("bond0:eth0:mode=glue,../x=1,odd:tiny").unwrap();
        assert_eq!(complaints.len(), 4, "{complaints:?}");
        assert_eq!(group.members, ["eth0"]);
        let group = bridge("br1:eth0,eth1").unwrap();
        assert_eq!((group.name.as_str(), group.kind), ("br1", GroupKind::Bridge));
        assert!(bond("a/b:eth0").is_err());
    }

    #[test]
    fn routes_and_names_are_read() {
        let read = |text: &str| {
            route(text).map(|r| {
                format!(
                    "{}/{} {:?} {:?}",
                    r.destination,
                    r.prefix,
                    r.gateway.map(|g| g.to_string()),
                    r.device
                )
            })
        };
        assert_eq!(
            read("192.0.2.7/24:10.0.0.1:eth1").unwrap(),
            r#"192.0.2.0/24 Some("10.0.0.1") Some("eth1")"#
        );
        assert_eq!(
            read("192.0.2.0/255.255.255.0:10.0.0.1").unwrap(),
            r#"192.0.2.0/24 Some("10.0.0.1") None"#
        );
        assert_eq!(
            read("[2001:db8:9::]/48:[fd00::1]:eth0").unwrap(),
            r#"2001:db8:9::/48 Some("fd00::1") Some("eth0")"#
        );
        assert_eq!(read("192.0.2.9::eth0").unwrap(), r#"192.0.2.9/32 None Some("eth0")"#);
        assert_eq!(read("default:10.0.0.1").unwrap(), r#"0.0.0.0/0 Some("10.0.0.1") None"#);
        for text in [
            "",
            "192.0.2.0/24",
            "192.0.2.0/33:10.0.0.1",
            "x/24:10.0.0.1",
            "192.0.2.0/24:x",
            "192.0.2.0/24:[fd00::1]",
        ] {
            assert!(!route(text).unwrap_err().is_empty(), "{text}");
        }
        assert_eq!(rename("lan0:52:54:00:00:00:01"), Ok((Mac([0x52, 0x54, 0, 0, 0, 1]), "lan0".into())));
        assert!(rename("lan0").is_err() && rename("a/b:52:54:00:00:00:01").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9:.,=/\\[\\]-]{0,60}") {
            let _ = (vlan(&text), bond(&text), bridge(&text), rename(&text), route(&text));
        }
    }
}

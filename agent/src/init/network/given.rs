//! The static network that virtual media describes: OpenStack's `network_data.json`. Pure.
//!
//! Links are cards (named by their MAC address), bonds of cards, and VLANs on either; networks are addresses and routes on links.
//! Source: nova's `doc/api_schemas/network_data.json`, which Ironic fills from a node's `network_data`.

use std::net::IpAddr;

use serde::Deserialize;
use sys::net::link::{BondMode, LONGEST_NAME};

use super::mac::Mac;
use super::plan::{self, StaticAddress, prefix_of};

/// What is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub links: Vec<GivenLink>,
    pub name_servers: Vec<IpAddr>,
}

/// One link and what is on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenLink {
    /// Its name in the description; a bond has it as its name, where it can be one.
    pub id: String,
    pub kind: LinkKind,
    pub mtu: Option<u32>,
    pub mac: Option<Mac>,
    pub addresses: Vec<StaticAddress>,
    pub routes: Vec<GivenRoute>,
    /// Whether it asks for an IPv4 address by DHCP.
    pub dhcp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    Card,
    Bond { mode: BondMode, members: Vec<String> },
    Vlan { parent: String, id: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenRoute {
    pub destination: IpAddr,
    pub prefix: u8,
    pub gateway: IpAddr,
}

impl Given {
    /// Reads the JSON. What is not understood is left out, with a word about it in the second value.
    pub(super) fn parse(bytes: &[u8]) -> (Self, Vec<String>) {
        let document: Document = match serde_json::from_slice(bytes) {
            Ok(document) => document,
            Err(error) => {
                return (Self::default(), vec![format!("network_data.json is not understood: {error}")]);
            }
        };
        let mut complaints = Vec::new();
        let mut given = Self::default();
        for link in document.links {
            let id = link.id.clone();
            match link.read() {
                Ok(link) => given.links.push(link),
                Err(reason) => complaints.push(format!("network_data.json: link {id}: {reason}")),
            }
        }
        let mut servers: Vec<String> =
            document.services.into_iter().filter(|s| s.kind == "dns").map(|s| s.address).collect();
        for network in document.networks {
            servers.extend(network.dns_nameservers.iter().cloned());
            let services = network.services.iter().filter(|service| service.kind == "dns");
            servers.extend(services.map(|service| service.address.clone()));
            let Some(link) = given.links.iter_mut().find(|link| link.id == network.link) else {
                complaints.push(format!(
                    "network_data.json: network {}: there is no link {}",
                    network.id, network.link
                ));
                continue;
            };
            if let Err(reason) = network.put_on(link) {
                complaints.push(format!("network_data.json: network {}: {reason}", network.id));
            }
        }
        for server in servers {
            match server.parse() {
                Ok(server) if !given.name_servers.contains(&server) => given.name_servers.push(server),
                Ok(_) => {}
                Err(_) => complaints.push(format!("network_data.json: name server `{server}` is no address")),
            }
        }
        (given, complaints)
    }

    /// The card with this address.
    pub(super) fn card(&self, mac: Mac) -> Option<&GivenLink> {
        self.links.iter().find(|link| link.kind == LinkKind::Card && link.mac == Some(mac))
    }

    /// The bond that a link is a member of.
    pub(super) fn bond_of(&self, member: &str) -> Option<&GivenLink> {
        self.links.iter().find(|link| {
            matches!(&link.kind, LinkKind::Bond { members, .. } if members.iter().any(|id| id == member))
        })
    }

    /// The VLANs on a link.
    pub(super) fn vlans_on<'a>(&'a self, parent: &'a str) -> impl Iterator<Item = (&'a GivenLink, u16)> {
        self.links.iter().filter_map(move |link| match &link.kind {
            LinkKind::Vlan { parent: on, id } if on == parent => Some((link, *id)),
            LinkKind::Vlan { .. } | LinkKind::Card | LinkKind::Bond { .. } => None,
        })
    }
}

impl GivenLink {
    /// The name of the interface that a bond becomes.
    pub(super) fn bond_name(&self) -> String {
        let fits = (1..=LONGEST_NAME).contains(&self.id.len());
        if fits && self.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.id.clone()
        } else {
            "bond0".into()
        }
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    links: Vec<LinkDocument>,
    #[serde(default)]
    networks: Vec<NetworkDocument>,
    #[serde(default)]
    services: Vec<ServiceDocument>,
}

#[derive(Deserialize)]
struct LinkDocument {
    id: String,
    #[serde(rename = "type", default)]
    kind: String,
    ethernet_mac_address: Option<String>,
    vlan_mac_address: Option<String>,
    mtu: Option<u32>,
    bond_mode: Option<serde_json::Value>,
    #[serde(default)]
    bond_links: Vec<String>,
    vlan_id: Option<u16>,
    vlan_link: Option<String>,
}

#[derive(Deserialize)]
struct NetworkDocument {
    #[serde(default)]
    id: String,
    link: String,
    #[serde(rename = "type", default)]
    kind: String,
    ip_address: Option<String>,
    netmask: Option<String>,
    #[serde(default)]
    routes: Vec<RouteDocument>,
    #[serde(default)]
    dns_nameservers: Vec<String>,
    #[serde(default)]
    services: Vec<ServiceDocument>,
}

#[derive(Deserialize)]
struct RouteDocument {
    network: String,
    netmask: Option<String>,
    gateway: String,
}

#[derive(Deserialize)]
struct ServiceDocument {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    address: String,
}

impl LinkDocument {
    fn read(self) -> Result<GivenLink, String> {
        let mac = self.vlan_mac_address.or(self.ethernet_mac_address);
        let mac =
            mac.map(|text| text.parse::<Mac>().map_err(|error| format!("`{text}`: {error}"))).transpose()?;
        let kind = match self.kind.as_str() {
            "bond" => LinkKind::Bond { mode: bond_mode(self.bond_mode.as_ref())?, members: self.bond_links },
            "vlan" => {
                let id = self
                    .vlan_id
                    .filter(|id| (1..=4094).contains(id))
                    .ok_or("it has no VLAN id from 1 to 4094")?;
                LinkKind::Vlan { parent: self.vlan_link.ok_or("it has no vlan_link")?, id }
            }
            // `phy`, and the kinds of virtual cards: bridge, ovs, tap, vif, ...
            _ => LinkKind::Card,
        };
        if kind == LinkKind::Card && mac.is_none() {
            return Err("it has no ethernet_mac_address".into());
        }
        let (addresses, routes) = (Vec::new(), Vec::new());
        Ok(GivenLink { id: self.id, kind, mtu: self.mtu, mac, addresses, routes, dhcp: false })
    }
}

/// The kernel's names and numbers.
fn bond_mode(value: Option<&serde_json::Value>) -> Result<BondMode, String> {
    let text = match value {
        None => return Ok(BondMode::ActiveBackup), // works with every switch
        Some(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    };
    plan::bond_mode(&text).ok_or_else(|| format!("`{text}` is not a bond mode of the kernel's"))
}

impl NetworkDocument {
    fn put_on(&self, link: &mut GivenLink) -> Result<(), String> {
        match (&self.ip_address, self.kind.as_str()) {
            (Some(text), _) => {
                let (address, length) =
                    text.split_once('/').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
                let address: IpAddr = address.parse().map_err(|_| format!("`{text}` is no address"))?;
                let prefix = prefix(address, length.or(self.netmask.as_deref()))?;
                link.addresses.push(StaticAddress { address, prefix, gateway: None });
            }
            (None, "ipv4_dhcp" | "ipv4_dhcp4") => link.dhcp = true,
            // The kernel and the router advertisements see to it.
            (None, kind) if kind.starts_with("ipv6") => {}
            (None, kind) => return Err(format!("it has no ip_address, and its type is `{kind}`")),
        }
        for route in &self.routes {
            let (network, length) =
                route.network.split_once('/').map_or((route.network.as_str(), None), |(a, b)| (a, Some(b)));
            let destination: IpAddr = network.parse().map_err(|_| format!("`{network}` is no network"))?;
            let gateway = route.gateway.parse().map_err(|_| format!("`{}` is no gateway", route.gateway))?;
            let prefix = prefix(destination, length.or(route.netmask.as_deref()))?;
            link.routes.push(GivenRoute { destination, prefix, gateway });
        }
        Ok(())
    }
}

/// A mask in dots, in colons, or as a number of bits.
fn prefix(address: IpAddr, mask: Option<&str>) -> Result<u8, String> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(mask) = mask else { return Ok(if address.is_unspecified() { 0 } else { longest }) };
    let prefix = match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
        (Ok(prefix), _) => Some(prefix),
        (_, Ok(IpAddr::V4(mask))) => prefix_of(mask),
        (_, Ok(IpAddr::V6(mask))) => {
            let bits = u128::from(mask);
            (bits.count_ones() == bits.leading_ones())
                .then(|| u8::try_from(bits.leading_ones()).unwrap_or(128))
        }
        _ => None,
    };
    prefix.filter(|prefix| *prefix <= longest).ok_or_else(|| format!("`{mask}` is no network mask"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = r#"{
        "links": [
            {"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:01", "mtu": 9000},
            {"id": "b", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:02"},
            {"id": "bond7", "type": "bond", "bond_mode": "802.3ad", "bond_links": ["a", "b"], "ethernet_mac_address": "52:54:00:00:00:01"},
            {"id": "v", "type": "vlan", "vlan_id": 12, "vlan_link": "bond7", "vlan_mac_address": "52:54:00:00:00:01"},
            {"id": "c", "type": "vif", "ethernet_mac_address": "52:54:00:00:00:03"}],
        "networks": [
            {"id": "n0", "link": "v", "type": "ipv4", "ip_address": "192.0.2.9", "netmask": "255.255.255.0",
             "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}], "dns_nameservers": ["192.0.2.53"]},
            {"id": "n1", "link": "v", "type": "ipv6", "ip_address": "2001:db8::9/64",
             "routes": [{"network": "::", "netmask": "::", "gateway": "2001:db8::1"}]},
            {"id": "n2", "link": "c", "type": "ipv4_dhcp"}, {"id": "n3", "link": "c", "type": "ipv6_slaac"}],
        "services": [{"type": "dns", "address": "2001:db8::53"}, {"type": "dns", "address": "192.0.2.53"}]}"#;

    #[test]
    fn cards_bonds_vlans_addresses_and_routes_are_read() {
        let (given, complaints) = Given::parse(WHOLE.as_bytes());
        assert!(complaints.is_empty(), "{complaints:?}");
        let card = given.card("52:54:00:00:00:02".parse().unwrap()).unwrap();
        let bond = given.bond_of(&card.id).unwrap();
        assert!(matches!(&bond.kind, LinkKind::Bond { mode: BondMode::Lacp, members } if members.len() == 2));
        assert_eq!(bond.bond_name(), "bond7");
        let (vlan, id) = given.vlans_on(&bond.id).next().unwrap();
        assert_eq!(id, 12);
        let shown: Vec<_> =
            vlan.addresses.iter().map(|fixed| format!("{}/{}", fixed.address, fixed.prefix)).collect();
        assert_eq!(shown, ["192.0.2.9/24", "2001:db8::9/64"]);
        let ways: Vec<_> = vlan
            .routes
            .iter()
            .map(|way| format!("{}/{} {}", way.destination, way.prefix, way.gateway))
            .collect();
        assert_eq!(ways, ["0.0.0.0/0 192.0.2.1", "::/0 2001:db8::1"]);
        let plain = given.card("52:54:00:00:00:03".parse().unwrap()).unwrap();
        assert!(plain.dhcp && plain.addresses.is_empty());
        assert_eq!(given.card("52:54:00:00:00:01".parse().unwrap()).unwrap().mtu, Some(9000));
        assert_eq!(given.name_servers.len(), 2, "each once");
    }

    #[test]
    fn what_makes_no_sense_is_left_out_with_a_word() {
        let text = r#"{"links": [{"id": "a", "type": "phy"}, {"id": "v", "type": "vlan", "vlan_id": 5000, "vlan_link": "a"},
            {"id": "x", "type": "bond", "bond_mode": "glue"}, {"id": "c", "ethernet_mac_address": "52:54:00:00:00:03"}],
            "networks": [{"id": "n", "link": "nowhere"}, {"id": "o", "link": "c", "type": "ipv4", "ip_address": "192.0.2.9", "netmask": "255.0.255.0"}],
            "services": [{"type": "dns", "address": "dns.example"}]}"#;
        let (given, complaints) = Given::parse(text.as_bytes());
        assert_eq!((given.links.len(), complaints.len()), (1, 6), "{complaints:?}");
        let (nothing, complaints) = Given::parse(b"<html>");
        assert_eq!((nothing, complaints.len()), (Given::default(), 1));
    }

    proptest! {
        #[test]
        fn any_patch_is_survived(at in 0_usize..WHOLE.len(), byte: u8) {
            let mut bytes = WHOLE.as_bytes().to_vec();
            bytes[at] = byte;
            let _ = Given::parse(&bytes);
        }
    }
}

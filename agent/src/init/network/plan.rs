//! What the kernel command line wants of the network: `ip=`, `nameserver=`, `BOOTIF=` and the words of dracut.cmdline(7).
//!
//! What is not understood, or not supported, is reported by its name and passed over: a machine with DHCP is worth more than a
//! strict one.

mod address;
mod ip;
mod made;

use std::net::IpAddr;

use super::given::Given;
use super::link::Link;
use super::mac::Mac;
use crate::cmdline::Cmdline;
pub(super) use address::{is_within, prefix_of};
pub(super) use ip::{Method, Request, StaticAddress};
pub(super) use made::{Group, GroupKind, StaticRoute, Vlan, bond_mode};

/// Parameters for the network that others know and that change nothing here; with the reason.
const WITHOUT_EFFECT: [(&str, &str); 3] = [
    (
        "net.ifnames",
        "interfaces keep the names that the kernel gives them, eth0 and so on; ifname= names them anew",
    ),
    (
        "biosdevname",
        "interfaces keep the names that the kernel gives them, eth0 and so on; ifname= names them anew",
    ),
    ("rd.neednet", "the network is always brought up"),
];
/// Values of those parameters that ask for nothing else than what happens anyway.
const HARMLESS: [(&str, &str); 3] = [("net.ifnames", "0"), ("biosdevname", "0"), ("rd.neednet", "1")];
/// Parameters for the network that are not supported; a dot at the end stands for all that begin so.
const UNSUPPORTED: [&str; 9] =
    ["team", "rd.znet", "rd.znet_ifname", "ib.pkey", "rd.ethtool", "rd.net.", "rd.dhcp.", "rd.ib.", "nm."];

/// What to do with which interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// One an `ip=`. Empty: DHCP everywhere.
    pub requests: Vec<Request>,
    /// The interface that the machine was booted from.
    pub boot_interface: Option<Mac>,
    /// The interface that is to count as that one: `bootdev=`.
    boot_device: Option<String>,
    /// The static network that virtual media describes: goes before the rest, for the cards that it names.
    pub given: Given,
    /// Name servers that go before those of DHCP.
    pub name_servers: Vec<IpAddr>,
    /// Whether the name servers of DHCP and of routers are left out: `rd.peerdns=0`.
    pub ignores_peer_dns: bool,
    pub vlans: Vec<Vlan>,
    /// VLANs of the option `enable_vlan_interfaces`: an interface's name or MAC address, and an id.
    pub extra_vlans: Vec<(String, u16)>,
    /// Bonds and bridges.
    pub groups: Vec<Group>,
    pub routes: Vec<StaticRoute>,
    /// Names for the cards with these addresses.
    names: Vec<(Mac, String)>,
    /// What was not understood, in words.
    pub complaints: Vec<String>,
}

impl Plan {
    pub(super) fn new(cmdline: &Cmdline) -> Self {
        let mut plan = Self::default();
        plan.read_boot_interface(cmdline);
        for text in cmdline.all("ip") {
            let (request, complaints) = ip::request(text);
            plan.complaints.extend(complaints.into_iter().map(|complaint| format!("ip={text}: {complaint}")));
            plan.requests.extend(request);
        }
        for text in cmdline.all("nameserver") {
            match text.trim_matches(['[', ']']).parse() {
                Ok(server) => plan.name_servers.push(server),
                Err(_) => plan.complaints.push(format!("nameserver={text} is ignored: not an IP address")),
            }
        }
        plan.ignores_peer_dns =
            cmdline.get("rd.peerdns").is_some_and(|value| matches!(value, "0" | "no" | "off"));
        plan.read_made(cmdline);
        plan.name_the_rest(cmdline);
        plan
    }

    fn read_boot_interface(&mut self, cmdline: &Cmdline) {
        self.boot_device = cmdline.get("bootdev").filter(|name| !name.is_empty()).map(str::to_owned);
        if matches!(cmdline.get("rd.bootif"), Some("0" | "no" | "off")) {
            return; // dracut: BOOTIF counts for nothing
        }
        if let Some(text) = cmdline.get("BOOTIF").filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(mac) => self.boot_interface = Some(mac),
                Err(error) => self.complaints.push(format!("BOOTIF={text} is ignored: {error}")),
            }
        }
    }

    fn read_made(&mut self, cmdline: &Cmdline) {
        let complain = |complaints: &mut Vec<String>, key: &str, text: &str, reason: String| {
            complaints.push(format!("{key}={text} is ignored: {reason}"));
        };
        let complaints = &mut self.complaints;
        for text in cmdline.all("vlan") {
            match made::vlan(text) {
                Ok(vlan) => self.vlans.push(vlan),
                Err(reason) => complain(complaints, "vlan", text, reason),
            }
        }
        for text in with_bare(cmdline, "bond") {
            match made::bond(text) {
                Ok((group, odd)) => {
                    complaints.extend(odd.into_iter().map(|odd| format!("bond={text}: {odd}")));
                    self.groups.push(group);
                }
                Err(reason) => complain(complaints, "bond", text, reason),
            }
        }
        for text in with_bare(cmdline, "bridge") {
            match made::bridge(text) {
                Ok(group) => self.groups.push(group),
                Err(reason) => complain(complaints, "bridge", text, reason),
            }
        }
        for text in cmdline.all("ifname") {
            match made::rename(text) {
                Ok(name) => self.names.push(name),
                Err(reason) => complain(complaints, "ifname", text, reason),
            }
        }
        for text in cmdline.all("rd.route") {
            match made::route(text) {
                Ok(route) => self.routes.push(route),
                Err(reason) => complain(complaints, "rd.route", text, reason),
            }
        }
    }

    /// Nothing that asks for a network is passed over in silence.
    fn name_the_rest(&mut self, cmdline: &Cmdline) {
        for (key, reason) in WITHOUT_EFFECT {
            if let Some(value) = cmdline.get(key)
                && !HARMLESS.contains(&(key, value))
            {
                self.complaints.push(format!("{key}={value} changes nothing: {reason}"));
            }
        }
        let is_unsupported = |key: &str| {
            UNSUPPORTED.iter().any(|known| *known == key || (known.ends_with('.') && key.starts_with(known)))
        };
        let keys = cmdline.iter().map(|(key, _)| key).chain(cmdline.flags());
        let mut named: Vec<&str> = keys.filter(|key| is_unsupported(key)).collect();
        named.dedup();
        for key in named {
            self.complaints.push(format!("{key} is not supported by this agent and is ignored"));
        }
    }

    /// The requests for an interface: those that name it, or those without a device. Statics of the latter kind mean the
    /// interface booted from; where that is not known, `first` says whether this is the first interface of the machine.
    /// Empty when no `ip=` concerns it.
    pub(super) fn requests_for(&self, link: &Link, first: bool) -> Vec<&Request> {
        let names = |request: &&Request| request.device.as_deref().is_some_and(|device| means(device, link));
        let named: Vec<&Request> = self.requests.iter().filter(names).collect();
        if !named.is_empty() {
            return named;
        }
        let is_known = self.boot_interface.is_some() || self.boot_device.is_some();
        let meant = !link.is_made && if is_known { self.is_boot_interface(link) } else { first };
        let unnamed = self.requests.iter().filter(|request| request.device.is_none());
        let concerns = |request: &&Request| match request.method {
            Method::Static(_) => meant,
            Method::Dhcp | Method::Dhcp6 | Method::RouterAdvertisement | Method::Off => true,
        };
        unnamed.filter(concerns).collect()
    }

    /// Whether a link is the one that the machine was booted from.
    pub(super) fn is_boot_interface(&self, link: &Link) -> bool {
        match (self.boot_interface, self.boot_device.as_deref()) {
            (Some(boot), _) => !link.is_made && boot == link.permanent,
            (None, Some(device)) => means(device, link),
            (None, None) => false,
        }
    }

    /// Whether the interface that the machine was booted from is known.
    pub(super) fn knows_boot_interface(&self) -> bool {
        self.boot_interface.is_some() || self.boot_device.is_some()
    }

    /// The name that a card is to have, where it is to have another one.
    pub(super) fn name_for(&self, link: &Link) -> Option<&str> {
        let (_, name) = self.names.iter().find(|(mac, _)| *mac == link.permanent)?;
        (*name != link.name).then_some(name.as_str())
    }

    /// The bond or bridge that a link is a member of.
    pub(super) fn group_of(&self, link: &Link) -> Option<&Group> {
        self.groups.iter().find(|group| group.members.iter().any(|member| means(member, link)))
    }

    /// The VLANs that stand on a link. Those of the option are on cards alone, and named after them.
    pub(super) fn all_vlans_on(&self, link: &Link) -> Vec<Vlan> {
        let mut vlans: Vec<Vlan> =
            self.vlans.iter().filter(|vlan| means(&vlan.parent, link)).cloned().collect();
        let extra = self.extra_vlans.iter().filter(|(parent, _)| !link.is_made && means(parent, link));
        for (_, id) in extra {
            if vlans.iter().all(|vlan| vlan.id != *id) {
                vlans.push(Vlan { name: format!("{}.{id}", link.name), id: *id, parent: link.name.clone() });
            }
        }
        vlans
    }

    /// Whether a link is a VLAN that the option asks for.
    pub(super) fn is_extra_vlan(&self, link: &Link) -> bool {
        let id = link.name.rsplit_once('.').and_then(|(_, id)| id.parse().ok());
        link.is_made && id.is_some_and(|id: u16| self.extra_vlans.iter().any(|(_, extra)| *extra == id))
    }

    /// Everything that names an interface which is not among these: the parameter and the name, `ip=eth7`.
    pub(super) fn missing(&self, links: &[Link]) -> Vec<String> {
        let is_there = |device: &str| {
            links.iter().any(|link| means(device, link))
                || self.vlans.iter().any(|vlan| vlan.name == device)
                || self.groups.iter().any(|group| group.name == device)
                || self
                    .names
                    .iter()
                    .any(|(mac, name)| name == device && links.iter().any(|l| l.permanent == *mac))
        };
        let mut missing: Vec<String> = Vec::new();
        let mut look = |parameter: &str, device: &str| {
            let line = format!("{parameter}={device}");
            if !is_there(device) && !missing.contains(&line) {
                missing.push(line);
            }
        };
        self.requests
            .iter()
            .filter_map(|request| request.device.as_deref())
            .for_each(|device| look("ip", device));
        self.vlans.iter().for_each(|vlan| look("vlan", &vlan.parent));
        for group in &self.groups {
            let parameter = match group.kind {
                GroupKind::Bond { .. } => "bond",
                GroupKind::Bridge => "bridge",
            };
            group.members.iter().for_each(|member| look(parameter, member));
        }
        self.routes
            .iter()
            .filter_map(|route| route.device.as_deref())
            .for_each(|device| look("rd.route", device));
        self.boot_device.iter().for_each(|device| look("bootdev", device));
        for (mac, name) in &self.names {
            if !links.iter().any(|link| link.permanent == *mac) {
                missing.push(format!("ifname={name}:{mac}"));
            }
        }
        missing
    }

    /// Whether the command line asks for no network at all.
    pub(super) fn is_off(&self) -> bool {
        !self.requests.is_empty() && self.requests.iter().all(|request| request.method == Method::Off)
    }

    /// The host name that the command line gives.
    pub(super) fn host_name(&self) -> Option<&str> {
        self.requests.iter().find_map(|request| request.host_name.as_deref())
    }

    /// All name servers that the command line gives.
    pub(super) fn all_name_servers(&self) -> impl Iterator<Item = IpAddr> {
        self.name_servers
            .iter()
            .chain(self.requests.iter().flat_map(|request| &request.name_servers))
            .chain(&self.given.name_servers)
            .copied()
    }
}

/// Whether a device of a parameter is this link: by name, or by the address that it had when it was found.
pub(super) fn means(device: &str, link: &Link) -> bool {
    device == link.name || (!link.is_made && device.parse() == Ok(link.permanent))
}

/// Every value of a parameter; the bare word counts as an empty one.
fn with_bare<'a>(cmdline: &'a Cmdline, key: &'a str) -> impl Iterator<Item = &'a str> {
    cmdline.all(key).chain(cmdline.has_flag(key).then_some(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, mac: u8) -> Link {
        Link::new(name.into(), Mac([mac; 6]))
    }

    fn fixed(address: &str, prefix: u8, gateway: Option<&str>) -> Method {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Method::Static(StaticAddress { address: address.parse().unwrap(), prefix, gateway })
    }

    #[test]
    fn nonsense_is_reported_and_leaves_dhcp() {
        let plan = Plan::new(&Cmdline::parse("ip=warp BOOTIF=x nameserver=y nameserver=[2001:db8::53]"));
        assert_eq!(plan.complaints.len(), 3, "{:?}", plan.complaints);
        assert_eq!(plan.name_servers.len(), 1);
        assert!(plan.requests.is_empty(), "one bad word leaves DHCP");
    }

    #[test]
    fn requests_reach_the_interfaces_they_mean() {
        let methods = |text: &str| {
            let plan = Plan::new(&Cmdline::parse(text));
            let of = |link: &Link, first| {
                plan.requests_for(link, first).iter().map(|request| request.method).collect::<Vec<_>>()
            };
            (of(&link("eth0", 1), true), of(&link("eth1", 2), false))
        };
        let address = fixed("10.0.0.9", 24, None);
        let six = fixed("fd00::9", 64, None);
        assert_eq!(methods(""), (vec![], vec![]));
        assert_eq!(methods("ip=eth1:dhcp"), (vec![], vec![Method::Dhcp]));
        assert_eq!(methods("ip=10.0.0.9:::24"), (vec![address], vec![]));
        assert_eq!(methods("ip=10.0.0.9:::24 ip=[fd00::9]:::64"), (vec![address, six], vec![]));
        assert_eq!(
            methods("ip=10.0.0.9:::24::eth1 ip=[fd00::9]:::64::eth1:none"),
            (vec![], vec![address, six])
        );
        assert_eq!(methods("ip=10.0.0.9:::24 BOOTIF=02:02:02:02:02:02"), (vec![], vec![address]));
        assert_eq!(methods("ip=10.0.0.9:::24 bootdev=eth1"), (vec![], vec![address]));
        assert_eq!(methods("ip=10.0.0.9:::24 BOOTIF=02:02:02:02:02:02 rd.bootif=0"), (vec![address], vec![]));
        assert_eq!(methods("ip=02-02-02-02-02-02:dhcp"), (vec![], vec![Method::Dhcp]));
        assert_eq!(methods("ip=10.0.0.9:::24::01-02-02-02-02-02-02:none"), (vec![], vec![address]));
        assert_eq!(methods("ip=eth0:off ip=dhcp"), (vec![Method::Off], vec![Method::Dhcp]));
        assert!(Plan::new(&Cmdline::parse("ip=none")).is_off());
        assert!(!Plan::new(&Cmdline::parse("")).is_off());
    }

    #[test]
    fn every_word_of_dracut_for_the_network_works_or_is_named() {
        let complaints = |text: &str| Plan::new(&Cmdline::parse(text)).complaints;
        for text in [
            "rd.neednet=1",
            "net.ifnames=0",
            "biosdevname=0",
            "rd.peerdns=0",
            "bootdev=eth0",
            "bond",
            "bridge",
        ] {
            assert!(complaints(text).is_empty(), "{text}: {:?}", complaints(text));
        }
        for text in [
            "team=team0:eth0",
            "net.ifnames=1",
            "rd.net.timeout.dhcp=10",
            "rd.znet=qeth,0.0.0600",
            "ib.pkey=ib0.8004",
            "vlan=x:eth0",
            "rd.route=nonsense",
            "ifname=a",
            "bond=b:eth0:mode=glue",
        ] {
            let word = text.split('=').next().unwrap();
            assert!(
                complaints(text).iter().any(|line| line.contains(word)),
                "{text}: {:?}",
                complaints(text)
            );
        }
        let plan = Plan::new(&Cmdline::parse(
            "vlan=eth0.5:eth0 bond=bond0:eth1,eth2:mode=1 bridge=br0:eth3 ifname=lan:02:02:02:02:02:02 rd.route=192.0.2.0/24:10.0.0.1",
        ));
        assert!(plan.complaints.is_empty(), "{:?}", plan.complaints);
        assert_eq!(plan.all_vlans_on(&link("eth0", 1)).len(), 1);
        assert_eq!(plan.group_of(&link("eth2", 3)).map(|group| group.name.as_str()), Some("bond0"));
        assert_eq!(plan.group_of(&link("eth3", 4)).map(|group| group.kind.clone()), Some(GroupKind::Bridge));
        assert_eq!(plan.name_for(&link("eth9", 2)), Some("lan"));
        assert_eq!(plan.name_for(&link("lan", 2)), None);
        assert_eq!(plan.routes.len(), 1);
    }

    #[test]
    fn vlans_of_the_option_are_made_with_their_card_by_name_or_address_each_once() {
        let mut plan = Plan::new(&Cmdline::parse("vlan=vlan7:eth0"));
        plan.extra_vlans =
            vec![("eth0".into(), 5), ("02:02:02:02:02:02".into(), 6), ("eth0".into(), 5), ("eth0".into(), 7)];
        let names =
            |link: &Link| plan.all_vlans_on(link).into_iter().map(|vlan| vlan.name).collect::<Vec<_>>();
        assert_eq!(names(&link("eth0", 1)), ["vlan7", "eth0.5"]);
        assert_eq!(names(&link("eth1", 2)), ["eth1.6"]);
        let vlan = Link::made("eth0.5".into(), Mac([1; 6]));
        assert!(names(&vlan).is_empty());
    }

    #[test]
    fn devices_that_are_not_there_are_named_with_their_parameter() {
        let plan = Plan::new(&Cmdline::parse(
            "ip=eth7:dhcp ip=eth0:dhcp ip=eth0.5:dhcp ip=lan:dhcp vlan=eth0.5:eth0 vlan=vlan6:eth8 bond=bond0:eth0,eth9 \
             ifname=lan:02:02:02:02:02:02 rd.route=192.0.2.0/24::eth6",
        ));
        let there = [link("eth0", 1), link("eth1", 2)];
        assert_eq!(plan.missing(&there), ["ip=eth7", "vlan=eth8", "bond=eth9", "rd.route=eth6"]);
        let plan = Plan::new(&Cmdline::parse("ip=02-02-02-02-02-02:dhcp"));
        assert_eq!(plan.missing(&there), Vec::<String>::new());
        assert_eq!(plan.missing(&there[..1]), ["ip=02-02-02-02-02-02"]);
    }
}

//! The network of a machine that has nothing but the agent: links up, addresses by DHCP or from the kernel command line, names.
//!
//! Every Ethernet interface is brought up and asked at the same time, each on a thread of its own; the one the machine was booted
//! from (`BOOTIF`) is preferred. [`Network::wait`] returns when there is an address to work with; what comes later is taken up
//! in the background, and leases are renewed for as long as the machine runs. IPv6 addresses are the kernel's business as far as
//! router advertisements give them; the rest ([`ipv6`], [`dhcp6`]) happens at the same time on the same interfaces.

mod asking;
mod care;
mod configure;
mod dhcp;
mod dhcp6;
mod files;
mod given;
mod ipv6;
mod link;
mod mac;
mod making;
mod names;
mod plan;
mod state;
mod way;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use events::{EventKind, Events, Phase};
use sys::Host;

use crate::cmdline::Cmdline;
use care::Care;
use files::Baked;
use given::{Given, GivenLink, LinkKind};
use link::Link;
pub use mac::{Mac, NotAMac};
use plan::{Method, Plan, Request, StaticAddress};
use state::{Condition, Graces, Shared};

/// Reads anything that a network says in any of its languages (DHCP, DHCPv6, router advertisements) and forgets it. For whoever
/// tries to break the readers; says how many of them understood it.
pub fn understood(packet: &[u8]) -> usize {
    let advertised = ipv6::Advertisement::decode(packet).is_some();
    [dhcp::reads(packet), dhcp6::reads(packet), advertised].into_iter().filter(|read| *read).count()
}

/// What is not understood of the network that a kernel command line and a `network_data.json` ask for, one sentence each.
pub fn complaints(cmdline: &Cmdline, network_data: &[u8]) -> Vec<String> {
    let (_, mut complaints) = Given::parse(network_data);
    complaints.extend(Plan::new(cmdline).complaints);
    complaints
}

/// How often new interfaces are looked for while the machine starts, and after that.
const EARLY_LOOK: Duration = Duration::from_millis(50);
const LATE_LOOK: Duration = Duration::from_secs(2);
/// How long the machine counts as starting.
const EARLY: Duration = Duration::from_secs(60);
/// Interfaces that are looked after; each takes two or three threads, of some 50 KiB each.
const MOST_LINKS: usize = 1024;
/// How long after the start an interface that a parameter names may appear before its absence is reported.
const APPEARANCE: Duration = Duration::from_secs(3);
/// How long start-up waits for what may still come.
const GRACES: Graces = Graces {
    others: Duration::from_secs(2),
    boot: Duration::from_secs(30),
    ipv4: Duration::from_secs(10), // three questions of DHCP and a bit
};
/// An interface that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Its name, as the kernel gave it: `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its address, and the length of the network's prefix in bits.
    pub address: IpAddr,
    /// See `address`.
    pub prefix: u8,
    /// The router for everything else.
    pub gateway: Option<IpAddr>,
    /// Name servers that came with the address.
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Time servers that came with the address.
    pub ntp: Vec<IpAddr>,
    /// The host name that came with the address.
    pub hostname: Option<String>,
    /// Whether the machine was booted from it.
    pub is_boot_interface: bool,
}

/// The machine's network, as it is now and goes on changing. Clones show the same.
#[derive(Clone)]
pub struct Network {
    shared: Shared,
    events: Events,
    baked: Arc<Baked>,
}

impl Network {
    /// Starts to bring everything up, in the background.
    ///
    /// `given` is the static network that virtual media describes, where it does; `vlans` are interfaces (a name or a MAC
    /// address) and ids of VLANs that are wanted on them besides those of the kernel command line.
    pub(super) fn start(
        host: &Host,
        cmdline: &Cmdline,
        given: Option<&[u8]>,
        vlans: Vec<(String, u16)>,
        events: &Events,
    ) -> Self {
        let mut plan = Plan::new(cmdline);
        plan.extra_vlans = vlans;
        if let Some(bytes) = given {
            let (given, complaints) = Given::parse(bytes);
            plan.given = given;
            plan.complaints.extend(complaints);
        }
        for complaint in &plan.complaints {
            tracing::warn!(complaint, "what is said of the network");
            events.emit(EventKind::Notice { message: format!("network: {complaint}") });
        }
        let baked = Arc::new(Baked::read(host));
        let network = Self { shared: Shared::new(plan), events: events.clone(), baked };
        if let Err(error) = sys::net::route::interface_index("lo").and_then(sys::net::route::set_up) {
            tracing::warn!(%error, "no loopback interface");
        }
        network.baked.name_host(host, "localhost");
        let (watching, host) = (network.clone(), host.clone());
        super::spawn("network", move || watching.look_for_links(&host));
        network
    }

    /// The interfaces that have an address: the one booted from first, the others in their order.
    pub fn interfaces(&self) -> Vec<Up> {
        self.shared.ups()
    }

    /// The interface to show to others: the one booted from, or the first.
    pub fn primary(&self) -> Option<Up> {
        self.interfaces().into_iter().next()
    }

    /// One line an interface, with its address or why it has none.
    pub fn describe(&self) -> Vec<String> {
        self.shared.describe()
    }

    /// The machine is about to be moved to another network: asks every now and then for an address there, until there is one.
    pub fn expect_another_network(&self) {
        self.shared.moving().expect();
    }

    /// Waits for an address: on the interface booted from, or else on any, with a moment for the others.
    pub(super) fn wait(&self, limit: Duration) {
        let started = Instant::now();
        if self.shared.plan().is_off() {
            self.notice("the kernel command line asks for no network (ip=off)".into());
            return;
        }
        let mut said = String::new();
        let mut missing_is_told = false;
        while !self.shared.is_ready(GRACES) {
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                let lines = self.describe().join("; ");
                let lines = if lines.is_empty() { "no network interface found".into() } else { lines };
                let advice =
                    "check cables, the switch port and the DHCP server (or the IPv6 router); still trying";
                let message = format!("no address after {} s: {lines}: {advice}", limit.as_secs());
                self.events.emit(EventKind::Failed { phase: Phase::Network, message });
                return;
            }
            if started.elapsed() > APPEARANCE && !missing_is_told {
                missing_is_told = true;
                self.report_missing();
            }
            // Somebody in front of the console wants to know what it waits for.
            let now = self.describe().join("; ");
            if started.elapsed() > Duration::from_secs(5) && now != said && !now.is_empty() {
                self.notice(format!("waiting for the network: {now}"));
                said = now;
            }
            self.shared.wait_for_change(left.min(Duration::from_millis(100)));
        }
        if !missing_is_told {
            self.report_missing();
        }
        self.report_routes();
        if self.interfaces().iter().all(|up| up.address.is_ipv6()) {
            self.notice("this network has IPv6 alone".into());
        }
    }

    /// Names on the console each interface that a parameter asks for and that is not there.
    fn report_missing(&self) {
        let links = self.shared.links();
        let missing = self.shared.plan().missing(&links);
        if missing.is_empty() {
            return;
        }
        let there: Vec<_> = links
            .iter()
            .filter(|link| !link.is_made)
            .map(|link| format!("{} ({})", link.name, link.permanent))
            .collect();
        let there = if there.is_empty() { "no network interface".into() } else { there.join(", ") };
        for parameter in missing {
            let message = format!(
                "network: {parameter} names an interface that is not there; this machine has {there}; correct the name, or give \
                 the MAC address with dashes"
            );
            tracing::warn!("{message}");
            self.notice(message);
        }
    }

    /// Names on the console each route of the kernel command line that no interface leads to.
    fn report_routes(&self) {
        for place in self.shared.routes_left() {
            let Some(route) = self.shared.plan().routes.get(place) else { continue };
            let message = format!(
                "network: rd.route={}/{} is not set: no interface has a network that holds its gateway; check it, or name the \
                 interface",
                route.destination, route.prefix
            );
            tracing::warn!("{message}");
            self.notice(message);
        }
    }

    /// Names the machine: by the kernel command line, by DHCP, or after its hardware address.
    pub(super) fn set_hostname(&self, host: &Host) {
        let given = self.shared.plan().host_name().filter(|name| dhcp::is_name(name)).map(str::to_owned);
        let leased = || self.interfaces().into_iter().find_map(|up| up.hostname);
        let made_up = || {
            let mac =
                self.primary().map(|up| up.mac).or_else(|| link::list(host).first().map(|link| link.mac));
            mac.map_or_else(
                || "ferric".into(),
                |Mac([_, _, _, a, b, c])| format!("ferric-{a:02x}{b:02x}{c:02x}"),
            )
        };
        self.baked.name_host(host, &given.or_else(leased).unwrap_or_else(made_up));
    }

    /// Takes care of each interface as it appears, for as long as the machine runs.
    fn look_for_links(&self, host: &Host) {
        let started = Instant::now();
        let mut known = BTreeSet::new();
        let mut is_full = false;
        loop {
            for link in link::list_but(host, |name| known.contains(name)) {
                if known.len() >= MOST_LINKS {
                    if !std::mem::replace(&mut is_full, true) {
                        let message =
                            format!("network: more than {MOST_LINKS} interfaces: the others are left alone");
                        tracing::warn!(interface = link.name, "{message}");
                        self.notice(message);
                    }
                    continue;
                }
                if self.rename(&link) {
                    continue; // it appears again by its new name
                }
                known.insert(link.name.clone());
                self.take_up(host, link, known.len() == 1);
            }
            known.retain(|name| host.path(format!("/sys/class/net/{name}")).exists());
            thread::sleep(if started.elapsed() < EARLY { EARLY_LOOK } else { LATE_LOOK });
        }
    }

    /// Gives a card the name that the kernel command line wants for it. False when it keeps the one that it has.
    fn rename(&self, link: &Link) -> bool {
        let Some(name) = self.shared.plan().name_for(link) else { return false };
        let renamed = sys::net::route::interface_index(&link.name)
            .and_then(|index| sys::net::link::set_name(index, name));
        if let Err(error) = renamed {
            let message = format!(
                "network: ifname={name}:{}: {} cannot be renamed: {error}",
                link.permanent, link.name
            );
            tracing::warn!("{message}");
            self.notice(message);
            return false;
        }
        tracing::info!(from = link.name, to = name, "network interface renamed");
        true
    }

    /// Takes care of an interface that was made of others, unless that happens already. It asks by DHCP, unless the kernel
    /// command line says otherwise.
    pub fn adopt(&self, host: &Host, name: &str) {
        if self.shared.links().iter().any(|link| link.name == name) {
            return;
        }
        let mac = host.attribute(format!("/sys/class/net/{name}/address")).and_then(|text| text.parse().ok());
        match mac {
            Some(mac) => self.take_up(host, Link::made(name.to_owned(), mac), false),
            None => tracing::warn!(interface = name, "no such network interface"),
        }
    }

    fn take_up(&self, host: &Host, link: Link, first: bool) {
        if let Some(card) = self.shared.plan().given.card(link.mac).filter(|_| !link.is_made) {
            let (shown, condition) = (link.clone(), self.take_up_given(host, link, card));
            if let Err(error) = condition {
                tracing::warn!(interface = shown.name, %error, "the network data of virtual media cannot be applied");
                self.shared.set(&shown, Condition::Failed(format!("network data of virtual media: {error}")));
            }
            return;
        }
        let index = match sys::net::route::interface_index(&link.name) {
            Ok(index) => index,
            Err(error) => {
                tracing::warn!(interface = link.name, %error, "the interface is gone again");
                return;
            }
        };
        match self.shared.plan().group_of(&link) {
            Some(group) => self.join_or_report(host, &link, index, group),
            None => self.take_up_alone(host, link, index, first),
        }
    }

    /// Brings an interface up that belongs to no other, as the kernel command line says, or by DHCP.
    fn take_up_alone(&self, host: &Host, mut link: Link, index: u32, first: bool) {
        let plan = self.shared.plan();
        let requests = plan.requests_for(&link, first);
        let methods: Vec<Method> = match (requests.is_empty(), plan.requests.is_empty()) {
            (true, true) => vec![Method::Dhcp],
            // A VLAN that an option asks for is wanted whatever is said of the card below it.
            (true, false) if plan.is_extra_vlan(&link) => vec![Method::Dhcp],
            (true, false) => vec![Method::Off],
            (false, _) => requests.iter().map(|request| request.method).collect(),
        };
        tracing::info!(interface = link.name, mac = %link.mac, ?methods, "network interface");
        let mtu = requests.iter().find_map(|request| request.mtu);
        self.shape(&mut link, index, mtu, requests.iter().find_map(|request| request.mac));
        self.shared.set(&link, Condition::Starting);
        // Up even when it gets no address: the inventory reports its carrier and its neighbours.
        if let Err(error) = sys::net::route::set_up(index) {
            tracing::warn!(interface = link.name, %error, "setting the link up");
            self.shared.set(&link, Condition::Failed(format!("cannot be set up: {error}")));
            return;
        }
        self.make_vlans(host, &link, index);
        self.give_addresses(
            Care { network: self.clone(), host: host.clone(), index, link, mtu },
            &methods,
            &requests,
        );
    }

    /// Sets the packet size and the hardware address that the kernel command line gives.
    fn shape(&self, link: &mut Link, index: u32, mtu: Option<u32>, mac: Option<Mac>) {
        let failed = |what: String, error: io::Error| {
            let message = format!("network: {}: {what} cannot be set: {error}", link.name);
            tracing::warn!("{message}");
            self.notice(message);
        };
        if let Some(mtu) = mtu
            && let Err(error) = sys::net::route::set_mtu(index, mtu)
        {
            failed(format!("the packet size {mtu}"), error);
        }
        match mac.map(|mac| (mac, sys::net::link::set_mac(index, mac.0))) {
            Some((mac, Ok(()))) => link.mac = mac,
            Some((mac, Err(error))) => failed(format!("the MAC address {mac}"), error),
            None => {}
        }
    }

    /// Starts what gives an interface its addresses.
    fn give_addresses(&self, care: Care, methods: &[Method], requests: &[&Request]) {
        let statics: Vec<StaticAddress> = methods
            .iter()
            .filter_map(|method| match method {
                Method::Static(fixed) => Some(*fixed),
                Method::Dhcp | Method::Dhcp6 | Method::RouterAdvertisement | Method::Off => None,
            })
            .collect();
        let has = |wanted: Method| methods.contains(&wanted);
        // An IPv4 address that is given needs no other one.
        let dhcp = has(Method::Dhcp) && !statics.iter().any(|fixed| fixed.address.is_ipv4());
        let asks_ipv6 = has(Method::Dhcp) || has(Method::Dhcp6) || has(Method::RouterAdvertisement);
        if asks_ipv6 || !statics.is_empty() {
            let (care, first) = (care.clone(), has(Method::Dhcp6).then_some(dhcp6::Want::Addresses));
            super::spawn(&format!("ipv6-{}", care.link.name), move || care.run_ipv6(asks_ipv6, first));
        }
        if !statics.is_empty() {
            let time_servers: Vec<IpAddr> =
                requests.iter().flat_map(|request| request.time_servers.iter().copied()).collect();
            let care = care.clone();
            super::spawn("static", move || care.set_statics(&statics, &time_servers, dhcp));
        } else if !dhcp {
            care.condition(if asks_ipv6 { Condition::Ipv6Only } else { Condition::Unused });
        }
        if dhcp {
            super::spawn(&format!("dhcp-{}", care.link.name), move || care.run_dhcp());
        }
    }

    /// A card as virtual media describes it: by itself, or as a part of a bond, which the first of its members makes.
    fn take_up_given(&self, host: &Host, link: Link, card: &GivenLink) -> io::Result<()> {
        let index = sys::net::route::interface_index(&link.name)?;
        let Some(bond) = self.shared.plan().given.bond_of(&card.id) else {
            sys::net::route::set_up(index)?;
            return self.configure(host, link, index, card);
        };
        let name = bond.bond_name();
        let LinkKind::Bond { mode, .. } = bond.kind else { return Ok(()) };
        let is_new = self.shared.is_first_member(&name);
        if is_new {
            // The kernel's driver makes a `bond0` of its own when it is loaded.
            match sys::net::link::create_bond(&name, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    sys::net::link::delete(sys::net::route::interface_index(&name)?)?;
                    sys::net::link::create_bond(&name, mode)?;
                }
                created => created?,
            }
        }
        let bond_index = sys::net::route::interface_index(&name)?;
        let own = Link::made(name.clone(), bond.mac.unwrap_or(link.mac));
        if is_new {
            sys::net::link::set_mac(bond_index, own.mac.0)?;
        }
        sys::net::link::set_down(index)?;
        sys::net::link::set_master(index, bond_index)?;
        sys::net::route::set_up(index)?;
        self.shared.set(&link, Condition::Member(name));
        if is_new {
            sys::net::route::set_up(bond_index)?;
            self.configure(host, own, bond_index, bond)?;
        }
        Ok(())
    }

    /// Puts on an interface what virtual media says is on it, and makes the VLANs that stand on it.
    fn configure(&self, host: &Host, link: Link, index: u32, given: &GivenLink) -> io::Result<()> {
        if let Some(mtu) = given.mtu
            && let Err(error) = sys::net::route::set_mtu(index, mtu)
        {
            tracing::warn!(interface = link.name, mtu, %error, "the packet size can not be set");
        }
        let care =
            Care { network: self.clone(), host: host.clone(), index, link: link.clone(), mtu: given.mtu };
        let watching = care.clone();
        super::spawn(&format!("ipv6-{}", link.name), move || watching.run_ipv6(true, None));
        let gateway = |is_ipv4: bool| {
            let default =
                given.routes.iter().find(|route| route.prefix == 0 && route.gateway.is_ipv4() == is_ipv4);
            default.map(|route| route.gateway)
        };
        for fixed in &given.addresses {
            sys::net::route::add_address(index, fixed.address, fixed.prefix)?;
        }
        for route in &given.routes {
            care.add_route(route);
        }
        match given.addresses.first() {
            Some(fixed) => {
                care.up(care.fixed(&StaticAddress { gateway: gateway(fixed.address.is_ipv4()), ..*fixed }));
            }
            None if given.dhcp => {
                let asking = care.clone();
                super::spawn(&format!("dhcp-{}", link.name), move || asking.run_dhcp());
            }
            None => care.condition(Condition::Bare),
        }
        for (vlan, id) in self.shared.plan().given.vlans_on(&given.id) {
            let mut name = format!("{}.{id}", link.name);
            if name.len() > sys::net::link::LONGEST_NAME {
                name = format!("vlan{id}");
            }
            match sys::net::link::create_vlan(index, &name, id) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => created?,
            }
            let own = sys::net::route::interface_index(&name)?;
            let mac = vlan.mac.unwrap_or(link.mac);
            if mac != link.mac {
                sys::net::link::set_mac(own, mac.0)?;
            }
            sys::net::route::set_up(own)?;
            self.configure(host, Link::made(name, mac), own, vlan)?;
        }
        Ok(())
    }

    fn notice(&self, message: String) {
        self.events.emit(EventKind::Notice { message });
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("interfaces", &self.interfaces()).finish_non_exhaustive()
    }
}

/// One line an interface, as the kernel shows them at this moment: for a failure that has no [`Network`] at hand.
pub(super) fn describe_links(host: &Host) -> Vec<String> {
    let addresses = host.kernel().interface_addresses().unwrap_or_default();
    let line = |link: Link| {
        let own =
            addresses.iter().filter(|(name, _)| *name == link.name).map(|(_, address)| address.to_string());
        let own = own.collect::<Vec<_>>().join(" ");
        format!("{} {} {}", link.name, link.mac, if own.is_empty() { "has no address".into() } else { own })
    };
    link::list(host).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests;

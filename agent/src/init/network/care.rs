//! One interface from the moment it is up: addresses by DHCP, DHCPv6 and router advertisements or as they are given, routes, and
//! what is said of them. Which interfaces there are and what each is asked for is decided in [`super`].

use std::cell::Cell;
use std::net::IpAddr;

use sys::Host;

use super::configure::{apply_lease, apply_static, remove_lease};
use super::dhcp::{self, Lease, Progress};
use super::files::Servers;
use super::given::GivenRoute;
use super::link::Link;
use super::plan::{StaticAddress, is_within, means};
use super::state::{Condition, Names};
use super::{Network, Up, dhcp6, ipv6};

/// The prefix of an address that DHCPv6 gives: the server says nothing of the network around it.
const ALONE: u8 = 128;
/// Metric of the routes of the interface booted from; others follow after it.
const BOOT_METRIC: u32 = 100;
const OTHER_METRIC: u32 = 200;

/// One interface and all it takes to look after it.
#[derive(Clone)]
pub(super) struct Care {
    pub(super) network: Network,
    pub(super) host: Host,
    pub(super) index: u32,
    pub(super) link: Link,
    /// The packet size of the kernel command line, in bytes: goes before that of DHCP.
    pub(super) mtu: Option<u32>,
}

impl Care {
    pub(super) fn run_dhcp(&self) {
        let moving = self.network.shared.moving();
        dhcp::run(&self.host, &self.link, self.index, moving, |progress| match progress {
            Progress::NoCarrier => self.condition(Condition::NoCarrier),
            Progress::Asking => self.condition(Condition::Asking),
            Progress::NoAnswer => self.condition(Condition::NoAnswer),
            Progress::Leased(lease) => {
                match apply_lease(self.index, lease, self.metric(), self.mtu.is_none()) {
                    Ok(()) => self.up(self.leased(lease)),
                    Err(error) => {
                        tracing::warn!(interface = self.link.name, %error, "the address can not be set");
                        self.condition(Condition::Failed(format!(
                            "{} can not be set: {error}",
                            lease.address
                        )));
                    }
                }
            }
            Progress::Refused(lease) => {
                remove_lease(self.index, lease);
                self.condition(Condition::Asking);
            }
        });
        self.network.shared.remove(&self.link.name);
        self.write_names();
    }

    /// Watches what becomes of IPv6, and asks servers where `asks` lets it: at once for `first`, or when a router says so.
    pub(super) fn run_ipv6(&self, asks: bool, first: Option<dhcp6::Want>) {
        let asked = Cell::new(None);
        let ask = |want: dhcp6::Want| {
            // Who gives addresses tells the rest as well.
            if asks && asked.get() != Some(want) && asked.get() != Some(dhcp6::Want::Addresses) {
                asked.set(Some(want));
                let care = self.clone();
                super::super::spawn(&format!("dhcp6-{}", self.link.name), move || care.run_dhcp6(want));
            }
        };
        if let Some(want) = first {
            ask(want);
        }
        ipv6::run(&self.host, &self.link, self.index, |progress| match progress {
            ipv6::Progress::Addresses(addresses) => {
                let global: Vec<_> =
                    addresses.iter().copied().filter(|address| address.is_global()).collect();
                for address in &global {
                    self.set_routes(address.address.into(), address.prefix);
                }
                let before = self.network.interfaces();
                if self.network.shared.change_ipv6(&self.link, |ipv6| ipv6.addresses = global) {
                    self.write_names();
                    self.tell_new(&before);
                }
            }
            ipv6::Progress::Advertised(advertisement) => {
                let names = Names {
                    name_servers: advertisement.name_servers.clone(),
                    search: advertisement.search.clone(),
                    time_servers: Vec::new(),
                };
                if self.network.shared.change_ipv6(&self.link, |ipv6| ipv6.advertised = names) {
                    self.write_names();
                }
                match (advertisement.managed, advertisement.other) {
                    (true, _) => ask(dhcp6::Want::Addresses),
                    (false, true) => ask(dhcp6::Want::Information),
                    (false, false) => {}
                }
            }
        });
    }

    fn run_dhcp6(&self, want: dhcp6::Want) {
        dhcp6::run(&self.host, &self.link, self.index, want, |progress| match progress {
            dhcp6::Progress::NoAnswer => {
                tracing::warn!(interface = self.link.name, "no answer from a DHCPv6 server");
            }
            dhcp6::Progress::Told(lease) => {
                for granted in &lease.addresses {
                    let address = IpAddr::V6(granted.address);
                    if let Err(error) = sys::net::route::add_address(self.index, address, ALONE) {
                        tracing::warn!(interface = self.link.name, %address, %error, "the address can not be set");
                    }
                }
                let names = Names {
                    name_servers: lease.name_servers.clone(),
                    search: lease.search.clone(),
                    time_servers: lease.time_servers.clone(),
                };
                tracing::info!(interface = self.link.name, ?names, addresses = ?lease.addresses, "DHCPv6 answer");
                if self.network.shared.change_ipv6(&self.link, |ipv6| ipv6.leased = names) {
                    self.write_names();
                }
            }
            dhcp6::Progress::Lost(lease) => {
                for granted in &lease.addresses {
                    let _ = sys::net::route::remove_address(self.index, granted.address.into(), ALONE); // gone already
                }
            }
        });
    }

    /// Says which IPv6 addresses have come since.
    fn tell_new(&self, before: &[Up]) {
        for up in self.network.interfaces() {
            let is_new = before.iter().all(|old| old.name != up.name || old.address != up.address);
            if is_new && up.name == self.link.name {
                tracing::info!(interface = up.name, address = %up.address, prefix = up.prefix, "address");
                self.network.notice(format!("network: {} {}/{}", up.name, up.address, up.prefix));
            }
        }
    }

    /// Puts the addresses of the kernel command line on the interface. The first of IPv4, or else the first, stands for it in
    /// what is shown; IPv6 ones are seen where the kernel shows them. `asks_dhcp`: another address is to come, and stands for it.
    pub(super) fn set_statics(&self, statics: &[StaticAddress], time_servers: &[IpAddr], asks_dhcp: bool) {
        let mut failures = Vec::new();
        let mut set: Vec<&StaticAddress> = Vec::new();
        for fixed in statics {
            match apply_static(self.index, fixed, self.metric()) {
                Ok(()) => set.push(fixed),
                Err(error) => failures.push(format!("{} cannot be set: {error}", fixed.address)),
            }
        }
        for failure in &failures {
            tracing::warn!(interface = self.link.name, failure, "an address of the kernel command line");
            self.network.notice(format!("network: {}: {failure}", self.link.name));
        }
        for fixed in &set {
            self.set_routes(fixed.address, fixed.prefix);
        }
        let shown = set.iter().find(|fixed| fixed.address.is_ipv4()).or(set.first());
        match shown {
            Some(_) if asks_dhcp => {}
            Some(fixed) => self.up(Up { ntp: time_servers.to_vec(), ..self.fixed(fixed) }),
            None => self.condition(Condition::Failed(failures.join("; "))),
        }
    }

    /// Sets the routes of the kernel command line that lead through a network of this interface.
    fn set_routes(&self, address: IpAddr, prefix: u8) {
        for (place, route) in self.network.shared.plan().routes.iter().enumerate() {
            let leads_here = match (route.device.as_deref(), route.gateway) {
                (Some(device), _) => {
                    means(device, &self.link) && route.destination.is_ipv4() == address.is_ipv4()
                }
                (None, Some(gateway)) => is_within(gateway, address, prefix),
                (None, None) => false,
            };
            if !leads_here {
                continue;
            }
            let to_set = sys::net::route::Route {
                destination: route.destination,
                prefix: route.prefix,
                gateway: route.gateway,
                interface: self.index,
                metric: self.metric(),
            };
            match sys::net::route::add_route(&to_set) {
                Ok(()) => self.network.shared.note_route(place),
                Err(error) => {
                    tracing::warn!(interface = self.link.name, ?route, %error, "a route of the kernel command line cannot be set");
                }
            }
        }
    }

    pub(super) fn add_route(&self, given: &GivenRoute) {
        let route = sys::net::route::Route {
            destination: given.destination,
            prefix: given.prefix,
            gateway: Some(given.gateway),
            interface: self.index,
            metric: self.metric(),
        };
        if let Err(error) = sys::net::route::add_route(&route) {
            tracing::warn!(interface = self.link.name, ?route, %error, "a route of virtual media can not be set");
        }
    }

    fn is_boot_interface(&self) -> bool {
        self.network.shared.plan().is_boot_interface(&self.link)
    }

    fn metric(&self) -> u32 {
        if self.is_boot_interface() { BOOT_METRIC } else { OTHER_METRIC.saturating_add(self.index) }
    }

    pub(super) fn condition(&self, condition: Condition) {
        self.network.shared.set(&self.link, condition);
    }

    pub(super) fn up(&self, up: Up) {
        let news = format!("{} {}/{}", up.name, up.address, up.prefix);
        let is_new = self
            .network
            .shared
            .ups()
            .iter()
            .all(|known| known.name != up.name || known.address != up.address);
        self.condition(Condition::Up(Box::new(up.clone())));
        self.set_routes(up.address, up.prefix);
        self.write_names();
        if is_new {
            let gateway =
                up.gateway.map_or_else(|| "no gateway".to_owned(), |gateway| format!("via {gateway}"));
            tracing::info!(interface = up.name, address = %up.address, prefix = up.prefix, gateway, "address");
            self.network.notice(format!("network: {news} {gateway}"));
        }
    }

    fn write_names(&self) {
        let plan = self.network.shared.plan();
        let mut servers = Servers { given: plan.all_name_servers().collect(), ..Servers::default() };
        for up in self.network.shared.ups().into_iter().filter(|_| !plan.ignores_peer_dns) {
            servers.learned.extend(up.dns.iter().map(|server| match server {
                // Reached through its own link alone.
                IpAddr::V6(v6) if v6.is_unicast_link_local() => format!("{v6}%{}", up.name),
                other => other.to_string(),
            }));
            servers.search.extend(up.search);
        }
        self.network.baked.write_resolv_conf(&self.host, &servers);
    }

    fn leased(&self, lease: &Lease) -> Up {
        Up {
            name: self.link.name.clone(),
            mac: self.link.mac,
            address: lease.address.into(),
            prefix: lease.prefix,
            gateway: lease.gateway().map(Into::into),
            dns: lease.name_servers.iter().copied().map(Into::into).collect(),
            search: lease.search.clone(),
            ntp: lease.ntp.iter().copied().map(Into::into).collect(),
            hostname: lease.host_name.clone(),
            is_boot_interface: self.is_boot_interface(),
        }
    }

    pub(super) fn fixed(&self, fixed: &StaticAddress) -> Up {
        Up {
            name: self.link.name.clone(),
            mac: self.link.mac,
            address: fixed.address,
            prefix: fixed.prefix,
            gateway: fixed.gateway,
            dns: Vec::new(),
            search: Vec::new(),
            ntp: Vec::new(),
            hostname: None,
            is_boot_interface: self.is_boot_interface(),
        }
    }
}

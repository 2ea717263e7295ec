//! What is known of every interface, shared between the threads that look after them and those who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Up;
use super::dhcp::Moving;
use super::ipv6::Address;
use super::link::Link;
use super::plan::Plan;

/// How an interface fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Starting,
    NoCarrier,
    Asking,
    NoAnswer,
    Up(Box<Up>),
    /// IPv6 alone is wanted: the kernel makes an address when a router advertises the network.
    Ipv6Only,
    Unused,
    /// Virtual media gives it no address: others stand on it, or nobody does.
    Bare,
    /// A part of this bond.
    Member(String),
    Failed(String),
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    plan: Plan,
    moving: Moving,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By name; the length of the name first, so that `eth10` comes after `eth2`.
    links: BTreeMap<(usize, String), LinkState>,
    first_up: Option<Instant>,
    first_ipv6: Option<Instant>,
    /// Names of the bonds and bridges that were made.
    bonds: BTreeSet<String>,
    /// Routes of the kernel command line that were set, by their place there.
    routes: BTreeSet<usize>,
}

struct LinkState {
    link: Link,
    condition: Condition,
    ipv6: Ipv6,
}

/// What an interface has of IPv6, besides an address that was given to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ipv6 {
    /// Addresses that reach beyond the link.
    pub addresses: Vec<Address>,
    /// From router advertisements and from DHCPv6, the former first.
    pub advertised: Names,
    pub leased: Names,
}

/// What names mean, as somebody on the network tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub name_servers: Vec<Ipv6Addr>,
    pub search: Vec<String>,
    pub time_servers: Vec<Ipv6Addr>,
}

impl Shared {
    pub(super) fn new(plan: Plan) -> Self {
        Self(Arc::new(Inner {
            plan,
            moving: Moving::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    pub(super) fn moving(&self) -> &Moving {
        &self.0.moving
    }

    pub(super) fn set(&self, link: &Link, condition: Condition) {
        let mut state = self.state();
        if matches!(condition, Condition::Up(_)) {
            state.first_up.get_or_insert_with(Instant::now);
        }
        state.link(link).condition = condition;
        self.0.changed.notify_all();
    }

    /// Changes what is known of an interface's IPv6; tells whether that is anything new.
    pub(super) fn change_ipv6(&self, link: &Link, change: impl FnOnce(&mut Ipv6)) -> bool {
        let mut state = self.state();
        let ipv6 = &mut state.link(link).ipv6;
        let before = ipv6.clone();
        change(ipv6);
        let (is_new, has_address) = (*ipv6 != before, !ipv6.addresses.is_empty());
        if has_address {
            state.first_ipv6.get_or_insert_with(Instant::now);
        }
        self.0.changed.notify_all();
        is_new
    }

    /// The links that are being looked after.
    pub(super) fn links(&self) -> Vec<Link> {
        self.state().links.values().map(|state| state.link.clone()).collect()
    }

    /// Notes that a route of the kernel command line was set.
    pub(super) fn note_route(&self, place: usize) {
        self.state().routes.insert(place);
    }

    /// The places of the routes of the kernel command line that were not set yet.
    pub(super) fn routes_left(&self) -> Vec<usize> {
        let state = self.state();
        (0..self.0.plan.routes.len()).filter(|place| !state.routes.contains(place)).collect()
    }

    /// Whether a bond is still to be made; from now on it counts as made.
    pub(super) fn is_first_member(&self, bond: &str) -> bool {
        self.state().bonds.insert(bond.to_owned())
    }

    pub(super) fn remove(&self, name: &str) {
        self.state().links.remove(&key(name));
        self.0.changed.notify_all();
    }

    /// Waits until something changes, `patience` at most.
    pub(super) fn wait_for_change(&self, patience: Duration) {
        drop(self.0.changed.wait_timeout(self.state(), patience).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn ups(&self) -> Vec<Up> {
        let state = self.state();
        let plan = &self.0.plan;
        let mut ups: Vec<Up> =
            state.links.values().flat_map(|state| state.ups(plan.is_boot_interface(&state.link))).collect();
        ups.sort_by_key(|up| !up.is_boot_interface); // stable
        ups
    }

    /// Whether there is an address to go on with: that of the interface booted from, or any once the others are settled or
    /// have had their time. An IPv6 address alone counts when IPv4 is settled or has had its own.
    pub(super) fn is_ready(&self, graces: Graces) -> bool {
        let state = self.state();
        let ipv6_is_enough = state.first_ipv6.is_some_and(|first| first.elapsed() >= graces.ipv4);
        let is_up = |link: &LinkState| {
            link.condition.is_up()
                || (!link.ipv6.addresses.is_empty() && (ipv6_is_enough || link.condition.is_settled()))
        };
        if !state.links.values().any(is_up) {
            return false; // nothing yet, or it was taken back
        }
        let since =
            [state.first_up, state.first_ipv6].into_iter().flatten().map(|first| first.elapsed()).max();
        let elapsed = since.unwrap_or_default();
        let plan = &self.0.plan;
        let boot = state.links.values().find(|state| plan.is_boot_interface(&state.link));
        match boot {
            Some(boot)
                if is_up(boot) || state.links.values().any(|link| link.stands_on(boot) && is_up(link)) =>
            {
                return true;
            }
            // It will have no address of its own: the bond that it is a part of has one, or another one has to do.
            Some(boot) if boot.condition.is_without_address() => {}
            Some(_) => return elapsed >= graces.boot,
            None if plan.knows_boot_interface() => return elapsed >= graces.boot,
            None => {}
        }
        elapsed >= graces.others || state.links.values().all(LinkState::is_settled)
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let line = |state: &LinkState| {
            let booted = if self.0.plan.is_boot_interface(&state.link) { " (booted from)" } else { "" };
            format!("{} {} {}{booted}", state.link.name, state.link.mac, state.describe())
        };
        self.state().links.values().map(line).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long others may take once there is an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Graces {
    /// Other interfaces.
    pub others: Duration,
    /// The interface booted from.
    pub boot: Duration,
    /// IPv4, on a network that gives out IPv6 addresses.
    pub ipv4: Duration,
}

impl State {
    fn link(&mut self, link: &Link) -> &mut LinkState {
        let fresh = LinkState { link: link.clone(), condition: Condition::Starting, ipv6: Ipv6::default() };
        let known = self.links.entry(key(&link.name)).or_insert(fresh);
        known.link = link.clone();
        known
    }
}

impl LinkState {
    fn ups(&self, is_boot_interface: bool) -> Vec<Up> {
        let mut ups = Vec::new();
        if let Condition::Up(up) = &self.condition {
            ups.push(up.as_ref().clone());
        }
        for (number, address) in self.other_addresses().enumerate() {
            // Whoever told the names told them for the interface.
            let names = [&self.ipv6.advertised, &self.ipv6.leased].into_iter().filter(|_| number == 0);
            let all = |pick: fn(&Names) -> &Vec<Ipv6Addr>| {
                names.clone().flat_map(pick).copied().map(IpAddr::V6).collect::<Vec<_>>()
            };
            ups.push(Up {
                name: self.link.name.clone(),
                mac: self.link.mac,
                address: address.address.into(),
                prefix: address.prefix,
                gateway: None, // the kernel's own business
                dns: all(|names| &names.name_servers),
                search: names.clone().flat_map(|names| names.search.clone()).collect(),
                ntp: all(|names| &names.time_servers),
                hostname: None,
                is_boot_interface,
            });
        }
        ups
    }

    /// The IPv6 addresses but one that was given to the interface.
    fn other_addresses(&self) -> impl Iterator<Item = &Address> {
        let given = match &self.condition {
            Condition::Up(up) => Some(up.address),
            _ => None,
        };
        self.ipv6.addresses.iter().filter(move |address| given != Some(address.address.into()))
    }

    /// Whether this is a VLAN on that interface.
    fn stands_on(&self, other: &LinkState) -> bool {
        self.link.is_made && self.link.permanent == other.link.permanent
    }

    /// Whether waiting any longer promises nothing.
    fn is_settled(&self) -> bool {
        match self.condition {
            Condition::Ipv6Only => !self.ipv6.addresses.is_empty(),
            ref condition => condition.is_settled(),
        }
    }

    fn describe(&self) -> String {
        let others: Vec<_> =
            self.other_addresses().map(|address| format!("{}/{}", address.address, address.prefix)).collect();
        let others = others.join(", ");
        match &self.condition {
            condition if others.is_empty() => condition.to_string(),
            Condition::Up(up) => format!("{}/{}, {others}", up.address, up.prefix),
            Condition::Ipv6Only => others,
            Condition::NoAnswer => format!("{others} (IPv6 alone: no answer from a DHCP server for IPv4)"),
            condition => format!("{others}; {condition}"),
        }
    }
}

impl Condition {
    fn is_up(&self) -> bool {
        matches!(self, Condition::Up(_))
    }

    /// Whether nobody will ever give it an address.
    fn is_without_address(&self) -> bool {
        match self {
            Condition::Unused | Condition::Bare | Condition::Member(_) | Condition::Failed(_) => true,
            Condition::Starting
            | Condition::NoCarrier
            | Condition::Asking
            | Condition::NoAnswer
            | Condition::Up(_)
            | Condition::Ipv6Only => false,
        }
    }

    /// Whether waiting any longer for IPv4 promises nothing.
    fn is_settled(&self) -> bool {
        match self {
            Condition::Starting | Condition::Asking | Condition::NoCarrier => false,
            Condition::NoAnswer
            | Condition::Up(_)
            | Condition::Ipv6Only
            | Condition::Unused
            | Condition::Bare
            | Condition::Member(_)
            | Condition::Failed(_) => true,
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Starting => f.write_str("is starting"),
            Condition::NoCarrier => f.write_str("has no carrier (cable?)"),
            Condition::Asking => f.write_str("asks for an address (DHCP)"),
            Condition::NoAnswer => f.write_str("gets no answer from a DHCP server"),
            Condition::Up(up) => write!(f, "{}/{}", up.address, up.prefix),
            Condition::Ipv6Only => f.write_str("waits for a router advertisement (IPv6)"),
            Condition::Unused => f.write_str("is not used (kernel parameter ip=)"),
            Condition::Bare => f.write_str("has no address of its own (network data of virtual media)"),
            Condition::Member(bond) => write!(f, "is a part of {bond}"),
            Condition::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

fn key(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::mac::Mac;
    use super::*;
    use crate::cmdline::Cmdline;

    fn link(number: u8) -> Link {
        Link::new(format!("eth{number}"), Mac([0, 0, 0, 0, 0, number]))
    }

    fn up(number: u8, is_boot_interface: bool) -> Condition {
        let link = link(number);
        Condition::Up(Box::new(Up {
            name: link.name,
            mac: link.mac,
            address: [10, 0, 0, number].into(),
            prefix: 24,
            gateway: None,
            dns: vec![],
            search: vec![],
            ntp: vec![],
            hostname: None,
            is_boot_interface,
        }))
    }

    const LONG: Duration = Duration::from_secs(3600);
    const PATIENT: Graces = Graces { others: LONG, boot: LONG, ipv4: LONG };
    const HASTY: Graces = Graces { others: Duration::ZERO, ..PATIENT };
    const HASTY_BOOT: Graces = Graces { boot: Duration::ZERO, ..PATIENT };

    #[test]
    fn one_address_is_enough_once_the_others_are_settled_or_had_their_time() {
        let shared = Shared::new(Plan::default());
        assert!(!shared.is_ready(HASTY));
        shared.set(&link(0), Condition::Asking);
        shared.set(&link(1), up(1, false));
        assert!(!shared.is_ready(PATIENT));
        assert!(shared.is_ready(HASTY));
        shared.set(&link(0), Condition::NoAnswer);
        assert!(shared.is_ready(PATIENT));
        shared.set(&link(1), Condition::Asking);
        assert!(!shared.is_ready(HASTY), "the only address was taken back");
    }

    #[test]
    fn the_interface_booted_from_is_waited_for_and_comes_first() {
        let shared = Shared::new(Plan::new(&Cmdline::parse("BOOTIF=01-00-00-00-00-00-0a")));
        shared.set(&link(2), up(2, false));
        assert!(!shared.is_ready(HASTY));
        assert!(shared.is_ready(HASTY_BOOT));
        shared.set(&link(10), up(10, true));
        assert!(shared.is_ready(PATIENT));
        let names: Vec<_> = shared.ups().into_iter().map(|up| up.name).collect();
        assert_eq!(names, ["eth10", "eth2"]);
        assert!(shared.describe()[1].ends_with("(booted from)"), "{:?}", shared.describe());
    }

    #[test]
    fn a_bond_and_a_vlan_of_the_interface_booted_from_count_for_it() {
        let plan = || Plan::new(&Cmdline::parse("BOOTIF=01-00-00-00-00-00-02"));
        let bonded = Shared::new(plan());
        bonded.set(&link(2), Condition::Member("bond0".into()));
        bonded.set(&Link::made("bond0".into(), Mac([0, 0, 0, 0, 0, 1])), up(9, false));
        assert!(bonded.is_ready(PATIENT));
        let tagged = Shared::new(plan());
        tagged.set(&link(2), Condition::Asking);
        tagged.set(&link(3), up(3, false));
        assert!(!tagged.is_ready(HASTY), "the interface booted from still asks");
        tagged.set(&Link::made("eth2.5".into(), link(2).mac), up(9, false));
        assert!(tagged.is_ready(PATIENT));
    }

    #[test]
    fn an_interface_without_address_says_why() {
        let shared = Shared::new(Plan::default());
        shared.set(&link(0), Condition::NoCarrier);
        assert_eq!(shared.describe(), ["eth0 00:00:00:00:00:00 has no carrier (cable?)"]);
    }

    #[test]
    fn ipv6_alone_is_enough_once_ipv4_is_settled_or_had_its_time() {
        let address = Address { address: "2001:db8::7".parse().unwrap(), prefix: 64 };
        for (cmdline, condition, settled) in [
            ("", Condition::Asking, Condition::NoAnswer),
            ("BOOTIF=00:00:00:00:00:00", Condition::Asking, Condition::NoAnswer),
            ("ip=auto6", Condition::Ipv6Only, Condition::Ipv6Only),
        ] {
            let shared = Shared::new(Plan::new(&Cmdline::parse(cmdline)));
            shared.set(&link(0), condition.clone());
            assert!(!shared.is_ready(Graces { ipv4: Duration::ZERO, ..PATIENT }), "{cmdline}");
            let names = Names { name_servers: vec!["2001:db8::53".parse().unwrap()], ..Names::default() };
            assert!(shared.change_ipv6(&link(0), |ipv6| {
                ipv6.addresses.push(address);
                ipv6.advertised = names;
            }));
            assert!(!shared.change_ipv6(&link(0), |_| {}), "nothing new");
            let soon = Graces { ipv4: Duration::ZERO, others: Duration::ZERO, ..PATIENT };
            assert!(shared.is_ready(soon), "{cmdline}");
            if condition != settled {
                assert!(!shared.is_ready(PATIENT), "{cmdline}");
            }
            shared.set(&link(0), settled);
            assert!(shared.is_ready(PATIENT), "{cmdline}");
            let ups = shared.ups();
            assert_eq!((ups.len(), ups[0].prefix, ups[0].dns.len()), (1, 64, 1));
            assert!(shared.describe()[0].contains("2001:db8::7/64"), "{:?}", shared.describe());
        }
    }

    #[test]
    fn both_kinds_of_addresses_are_listed_the_given_one_first_and_once() {
        let shared = Shared::new(Plan::default());
        shared.set(&link(1), up(1, false));
        let six = |text: &str| Address { address: text.parse().unwrap(), prefix: 64 };
        shared.change_ipv6(&link(1), |ipv6| ipv6.addresses = vec![six("2001:db8::1"), six("2001:db8::2")]);
        let shown: Vec<_> = shared.ups().into_iter().map(|up| up.address.to_string()).collect();
        assert_eq!(shown, ["10.0.0.1", "2001:db8::1", "2001:db8::2"]);
        assert_eq!(shared.describe(), ["eth1 00:00:00:00:00:01 10.0.0.1/24, 2001:db8::1/64, 2001:db8::2/64"]);
        let Condition::Up(mut given) = up(1, false) else { unreachable!() };
        given.address = "2001:db8::1".parse().unwrap();
        shared.set(&link(1), Condition::Up(given));
        assert_eq!(shared.ups().len(), 2);
    }
}

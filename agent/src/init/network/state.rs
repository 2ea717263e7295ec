//! What is known of every interface, shared between the threads that look after them and those who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Up;
use super::link::Link;
use super::mac::Mac;
use super::plan::Plan;

/// How an interface fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Starting,
    NoCarrier,
    Asking,
    NoAnswer,
    Up(Box<Up>),
    /// The kernel gives it an IPv6 address.
    Kernel,
    Unused,
    Failed(String),
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Inner>);

struct Inner {
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By name; the length of the name first, so that `eth10` comes after `eth2`.
    links: BTreeMap<(usize, String), (Mac, Condition)>,
    first_up: Option<Instant>,
}

impl Shared {
    pub(super) fn new(plan: Plan) -> Self {
        Self(Arc::new(Inner { plan, state: Mutex::default(), changed: Condvar::new() }))
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.0.plan
    }

    pub(super) fn set(&self, link: &Link, condition: Condition) {
        let mut state = self.state();
        if matches!(condition, Condition::Up(_) | Condition::Kernel) {
            state.first_up.get_or_insert_with(Instant::now);
        }
        state.links.insert(key(&link.name), (link.mac, condition));
        self.0.changed.notify_all();
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
        let mut ups: Vec<Up> = state
            .links
            .values()
            .filter_map(
                |(_, condition)| {
                    if let Condition::Up(up) = condition { Some(up.as_ref().clone()) } else { None }
                },
            )
            .collect();
        ups.sort_by_key(|up| !up.is_boot_interface); // stable
        ups
    }

    /// Whether there is an address to go on with: that of the interface booted from, or any once the others are settled or
    /// have had their time.
    pub(super) fn is_ready(&self, grace: Duration, boot_grace: Duration) -> bool {
        let state = self.state();
        let Some(first_up) = state.first_up else { return false };
        if !state.links.values().any(|(_, condition)| condition.is_up()) {
            return false; // it was taken back
        }
        match self.0.plan.boot_interface {
            Some(boot) => match state.links.values().find(|(mac, _)| *mac == boot) {
                Some((_, condition)) if condition.is_up() => true,
                _ => first_up.elapsed() >= boot_grace,
            },
            None => {
                first_up.elapsed() >= grace
                    || state.links.values().all(|(_, condition)| condition.is_settled())
            }
        }
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let boot = self.0.plan.boot_interface;
        let line = |((_, name), (mac, condition)): (&(usize, String), &(Mac, Condition))| {
            let booted = if boot == Some(*mac) { " (booted from)" } else { "" };
            format!("{name} {mac} {condition}{booted}")
        };
        self.state().links.iter().map(line).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    fn is_up(&self) -> bool {
        matches!(self, Condition::Up(_) | Condition::Kernel)
    }

    /// Whether waiting any longer promises nothing.
    fn is_settled(&self) -> bool {
        match self {
            Condition::Starting | Condition::Asking | Condition::NoCarrier => false,
            Condition::NoAnswer
            | Condition::Up(_)
            | Condition::Kernel
            | Condition::Unused
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
            Condition::Kernel => f.write_str("IPv6 by router advertisement"),
            Condition::Unused => f.write_str("is not used (kernel parameter ip=)"),
            Condition::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

fn key(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Cmdline;

    fn link(number: u8) -> Link {
        Link { name: format!("eth{number}"), mac: Mac([0, 0, 0, 0, 0, number]) }
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

    #[test]
    fn one_address_is_enough_once_the_others_are_settled_or_had_their_time() {
        let shared = Shared::new(Plan::default());
        assert!(!shared.is_ready(Duration::ZERO, Duration::ZERO));
        shared.set(&link(0), Condition::Asking);
        shared.set(&link(1), up(1, false));
        assert!(!shared.is_ready(LONG, LONG));
        assert!(shared.is_ready(Duration::ZERO, LONG));
        shared.set(&link(0), Condition::NoAnswer);
        assert!(shared.is_ready(LONG, LONG));
        shared.set(&link(1), Condition::Asking);
        assert!(!shared.is_ready(Duration::ZERO, Duration::ZERO), "the only address was taken back");
    }

    #[test]
    fn the_interface_booted_from_is_waited_for_and_comes_first() {
        let shared = Shared::new(Plan::new(&Cmdline::parse("BOOTIF=01-00-00-00-00-00-0a")));
        shared.set(&link(2), up(2, false));
        assert!(!shared.is_ready(Duration::ZERO, LONG));
        assert!(shared.is_ready(LONG, Duration::ZERO));
        shared.set(&link(10), up(10, true));
        assert!(shared.is_ready(LONG, LONG));
        let names: Vec<_> = shared.ups().into_iter().map(|up| up.name).collect();
        assert_eq!(names, ["eth10", "eth2"]);
        assert!(shared.describe()[1].ends_with("(booted from)"), "{:?}", shared.describe());
    }

    #[test]
    fn an_interface_without_address_says_why() {
        let shared = Shared::new(Plan::default());
        shared.set(&link(0), Condition::NoCarrier);
        assert_eq!(shared.describe(), ["eth0 00:00:00:00:00:00 has no carrier (cable?)"]);
    }
}

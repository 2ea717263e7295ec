//! Makes the interfaces that the kernel command line asks for on top of others: VLANs, bonds, bridges.

use std::io;

use sys::Host;

use super::Network;
use super::link::Link;
use super::plan::{Group, GroupKind};
use super::state::Condition;

impl Network {
    /// Makes the VLANs that the kernel command line asks for on an interface, and takes care of them.
    pub(super) fn make_vlans(&self, host: &Host, link: &Link, index: u32) {
        for vlan in self.shared.plan().all_vlans_on(link) {
            let made = match sys::net::link::create_vlan(index, &vlan.name, vlan.id) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                made => made,
            };
            match made {
                Ok(()) => {
                    let made = Link::made(vlan.name.clone(), link.mac);
                    self.take_up(host, Link { permanent: link.permanent, ..made }, false);
                }
                Err(error) => {
                    let message = format!(
                        "network: VLAN {} on {} cannot be made: {}",
                        vlan.name,
                        link.name,
                        explained(&error, "8021q")
                    );
                    tracing::warn!("{message}");
                    self.notice(message);
                }
            }
        }
    }

    /// Makes an interface a part of a bond or a bridge, which the first of its members makes.
    fn join(&self, host: &Host, link: &Link, index: u32, group: &Group) -> io::Result<()> {
        let is_new = self.shared.is_first_member(&group.name);
        if is_new {
            let make = || match &group.kind {
                GroupKind::Bond { mode, .. } => sys::net::link::create_bond(&group.name, *mode),
                GroupKind::Bridge => sys::net::link::create_bridge(&group.name),
            };
            match make() {
                // The kernel's driver makes a `bond0` of its own when it is loaded.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    sys::net::link::delete(sys::net::route::interface_index(&group.name)?)?;
                    make()?;
                }
                made => made?,
            }
        }
        let whole = sys::net::route::interface_index(&group.name)?;
        if is_new {
            self.set_options(host, group);
            sys::net::link::set_mac(whole, link.mac.0)?;
        }
        sys::net::link::set_down(index)?;
        sys::net::link::set_master(index, whole)?;
        sys::net::route::set_up(index)?;
        self.shared.set(link, Condition::Member(group.name.clone()));
        if is_new {
            if let Some(mtu) = group.mtu
                && let Err(error) = sys::net::route::set_mtu(whole, mtu)
            {
                self.notice(format!("network: {}: the packet size {mtu} cannot be set: {error}", group.name));
            }
            self.take_up(host, Link::made(group.name.clone(), link.mac), false);
        }
        Ok(())
    }

    /// Writes the options of a bond where the kernel takes them: before it has members.
    fn set_options(&self, host: &Host, group: &Group) {
        let GroupKind::Bond { options, .. } = &group.kind else { return };
        for (key, value) in options {
            let path = host.path(format!("/sys/class/net/{}/bonding/{key}", group.name));
            if let Err(error) = std::fs::write(path, value) {
                let message =
                    format!("network: bond {}: option {key}={value} cannot be set: {error}", group.name);
                tracing::warn!("{message}");
                self.notice(message);
            }
        }
    }

    /// Makes an interface a part of a bond or a bridge; why that fails stands on the console.
    pub(super) fn join_or_report(&self, host: &Host, link: &Link, index: u32, group: &Group) {
        if let Err(error) = self.join(host, link, index, group) {
            let driver = match group.kind {
                GroupKind::Bond { .. } => "bonding",
                GroupKind::Bridge => "bridge",
            };
            let reason = format!("cannot become a part of {}: {}", group.name, explained(&error, driver));
            tracing::warn!(interface = link.name, reason, "network interface");
            self.notice(format!("network: {} {reason}", link.name));
            self.shared.set(link, Condition::Failed(reason));
        }
    }
}

/// Why the kernel does not make an interface: without its driver it says only that the operation is not supported.
fn explained(error: &io::Error, driver: &str) -> String {
    match error.kind() {
        io::ErrorKind::Unsupported => {
            format!("{error}; this ramdisk has no driver `{driver}`: build it with --module {driver}")
        }
        _ => error.to_string(),
    }
}

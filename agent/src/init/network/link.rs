//! The network interfaces of the machine, as sysfs shows them.

use sys::Host;

use super::mac::Mac;

/// `ARPHRD_ETHER`: the kind of link whose stations have MAC addresses.
const ETHERNET: u32 = 1;

/// One Ethernet interface with hardware (or a hypervisor) behind it, or one that was made of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    /// The address that it has now.
    pub mac: Mac,
    /// The address that it had when it was found: parameters name it by that one.
    pub permanent: Mac,
    /// Whether it was made of others. A VLAN has the address of the card below it, and is not that card.
    pub is_made: bool,
}

impl Link {
    /// A card.
    pub(super) fn new(name: String, mac: Mac) -> Self {
        Self { name, mac, permanent: mac, is_made: false }
    }

    /// An interface that was made of others.
    pub(super) fn made(name: String, mac: Mac) -> Self {
        Self { is_made: true, ..Self::new(name, mac) }
    }
}

/// All cards, by name as a person counts: `eth2` before `eth10`.
pub(super) fn list(host: &Host) -> Vec<Link> {
    list_but(host, |_| false)
}

/// All cards but those with names that are `known`: a machine may have a thousand of them, which are not all looked at again.
pub(super) fn list_but(host: &Host, known: impl Fn(&str) -> bool) -> Vec<Link> {
    let names = host.names("/sys/class/net").unwrap_or_else(|error| {
        tracing::warn!(%error, "network interfaces cannot be listed");
        Vec::new()
    });
    let fresh = names.into_iter().filter(|name| !known(name));
    let mut links: Vec<_> = fresh.filter_map(|name| link(host, name)).collect();
    links.sort_by_key(|link| {
        (
            link.name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(),
            link.name.len(),
            link.name.clone(),
        )
    });
    links
}

fn link(host: &Host, name: String) -> Option<Link> {
    let folder = format!("/sys/class/net/{name}");
    let is_ethernet = host.number(format!("{folder}/type")) == Some(ETHERNET);
    let is_hardware = host.path(format!("{folder}/device")).exists();
    let mac: Mac = host.attribute(format!("{folder}/address"))?.parse().ok()?;
    (is_ethernet && is_hardware && mac.0 != [0; 6]).then(|| Link::new(name, mac))
}

/// Whether a cable with something at its other end is in. False as well while the interface is down.
pub(super) fn has_carrier(host: &Host, name: &str) -> bool {
    host.number(format!("/sys/class/net/{name}/carrier")) == Some(1_u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ethernet_with_hardware_behind_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("sys/class/net");
        for (name, kind, mac, device) in [
            ("eth10", "1", "52:54:00:00:00:10", true),
            ("eth2", "1", "52:54:00:00:00:02", true),
            ("lo", "772", "00:00:00:00:00:00", false),
            ("bond0", "1", "52:54:00:00:00:03", false),
            ("ib0", "32", "80:00:00:00:fe:80", true),
        ] {
            let folder = net.join(name);
            std::fs::create_dir_all(if device { folder.join("device") } else { folder.clone() }).unwrap();
            std::fs::write(folder.join("type"), kind).unwrap();
            std::fs::write(folder.join("address"), mac).unwrap();
        }
        std::fs::write(net.join("bonding_masters"), "").unwrap();
        let host = sys::fake::host(root.path());
        let names: Vec<_> = list(&host).into_iter().map(|link| link.name).collect();
        assert_eq!(names, ["eth2", "eth10"]);
        assert!(!has_carrier(&host, "eth2"));
        std::fs::write(net.join("eth2/carrier"), "1\n").unwrap();
        assert!(has_carrier(&host, "eth2"));
    }
}

//! The IPv6 addresses that the kernel has put on an interface, as `/proc/net/if_inet6` shows them.

use std::net::Ipv6Addr;

use sys::Host;

/// `IFA_F_DADFAILED`, `IFA_F_DEPRECATED`, `IFA_F_TENTATIVE` of linux/if_addr.h.
const DAD_FAILED: u32 = 0x08;
const TENTATIVE: u32 = 0x40;

/// One address that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Address {
    pub address: Ipv6Addr,
    pub prefix: u8,
}

impl Address {
    /// Whether it reaches beyond the link.
    pub(in super::super) fn is_global(self) -> bool {
        !self.address.is_unicast_link_local() && !self.address.is_loopback()
    }
}

/// All of an interface that are not being checked for duplicates any more.
pub(in super::super) fn of(host: &Host, interface: &str) -> Vec<Address> {
    // The thread's own network, which is the process's everywhere but in a test.
    let text = std::fs::read_to_string(host.path("/proc/thread-self/net/if_inet6")).unwrap_or_default();
    text.lines().filter_map(|line| address(line, interface)).collect()
}

/// `20010db8000000000000000000000001 02 40 00 80 eth0`: address, index, prefix, scope, flags, name; numbers in hex.
fn address(line: &str, interface: &str) -> Option<Address> {
    let mut fields = line.split_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    let _index = fields.next()?;
    let prefix = u8::from_str_radix(fields.next()?, 16).ok()?;
    let _scope = fields.next()?;
    let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
    let usable = flags & (TENTATIVE | DAD_FAILED) == 0 && fields.next()? == interface;
    usable.then_some(Address { address: address.into(), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_addresses_of_the_interface_are_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("proc/thread-self/net");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            folder.join("if_inet6"),
            "00000000000000000000000000000001 01 80 10 80       lo\n\
             fe80000000000000505400fffe123456 02 40 20 80     eth0\n\
             20010db8000000000000000000000007 02 40 00 40     eth0\n\
             20010db8000000000000000000000008 02 40 00 88     eth0\n\
             20010db8000000000000000000000009 02 80 00 00     eth0\n\
             nonsense\n",
        )
        .unwrap();
        let found = of(&sys::fake::host(root.path()), "eth0");
        let shown: Vec<_> = found.iter().map(|found| format!("{}/{}", found.address, found.prefix)).collect();
        assert_eq!(
            shown,
            ["fe80::5054:ff:fe12:3456/64", "2001:db8::9/128"],
            "tentative and duplicate ones do not count"
        );
        assert_eq!(found.iter().filter(|found| found.is_global()).count(), 1);
    }
}

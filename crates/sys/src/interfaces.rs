//! The IP addresses of network interfaces, as the kernel knows them.
//!
//! Called through [`crate::Kernel`] by the inventory. Brings no interface up and changes none.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// Every IP address of every interface, in the kernel's order.
pub(crate) fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut found = Vec::new();
    for entry in nix::ifaddrs::getifaddrs()? {
        let Some(address) = entry.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.push((entry.interface_name, IpAddr::V4(v4.ip())));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.push((entry.interface_name, IpAddr::V6(Ipv6Addr::from(v6.ip().octets()))));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address() {
        let all = addresses().unwrap();
        assert!(all.iter().any(|(name, ip)| name == "lo" && ip.is_loopback()), "{all:?}");
    }
}

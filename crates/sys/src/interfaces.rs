//! What the kernel knows of network interfaces beyond sysfs: their addresses, and the MAC address their maker gave them.
//!
//! Called through [`crate::Kernel`] by the inventory. Brings no interface up and changes none.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::c_int = 0x8946;
/// `ETHTOOL_GPERMADDR` of `linux/ethtool.h`.
const ETHTOOL_GPERMADDR: u32 = 0x20;
/// `MAX_ADDR_LEN` of `linux/netdevice.h`.
const MAX_ADDRESS: usize = 32;

/// `struct ethtool_perm_addr` with room for the longest address.
#[repr(C)]
struct PermanentAddress {
    command: u32,
    size: u32,
    data: [u8; MAX_ADDRESS],
}

nix::ioctl_readwrite_bad!(siocethtool, SIOCETHTOOL, libc::ifreq);

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

/// The permanent hardware address of an interface, as many bytes as it has.
pub(crate) fn permanent_address(interface: &str) -> io::Result<Vec<u8>> {
    let name = CString::new(interface)?;
    // SAFETY: `socket` takes three numbers and no pointer.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened, is valid, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };

    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes();
    if bytes.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name is too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char; // c_char is signed on some architectures and not on others
    }
    let size = u32::try_from(MAX_ADDRESS).unwrap_or(u32::MAX);
    let mut answer = PermanentAddress { command: ETHTOOL_GPERMADDR, size, data: [0; MAX_ADDRESS] };
    request.ifr_ifru.ifru_data = (&raw mut answer).cast();
    // SAFETY: the request holds a terminated name and a pointer to `answer`, which outlives the call and has the
    // room that its `size` field promises.
    unsafe { siocethtool(socket.as_raw_fd(), &mut request) }?;
    let length = usize::try_from(answer.size).unwrap_or(MAX_ADDRESS).min(MAX_ADDRESS);
    Ok(answer.data.iter().take(length).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address_and_an_unknown_interface_is_an_error() {
        let all = addresses().unwrap();
        assert!(all.iter().any(|(name, ip)| name == "lo" && ip.is_loopback()), "{all:?}");
        assert!(permanent_address("no-such-if0").is_err());
        assert!(permanent_address("a-name-longer-than-any-interface").is_err());
    }
}

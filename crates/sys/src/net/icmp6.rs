//! Router advertisements on one interface: a raw ICMPv6 socket that sees nothing else, and the solicitation that asks for them.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// `ICMP6_FILTER` of netinet/icmp6.h.
const ICMP6_FILTER: libc::c_int = 1;
/// Neighbour discovery is never forwarded: the receiver checks that no router has counted down (RFC 4861, 6.1).
const HOPS: libc::c_int = 255;

/// A socket that hears the router advertisements of one interface.
#[derive(Debug)]
pub struct AdvertisementSocket {
    socket: OwnedFd,
    interface: u32,
}

impl AdvertisementSocket {
    /// Listens on the interface with this index. Needs root.
    pub fn open(interface: u32) -> io::Result<Self> {
        let socket = super::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
        // A set bit blocks a type.
        let mut filter = [u32::MAX; 8];
        if let Some(word) = filter.get_mut(usize::from(ROUTER_ADVERTISEMENT >> 5)) {
            *word &= !(1 << (ROUTER_ADVERTISEMENT & 31));
        }
        let index = libc::c_int::try_from(interface).map_err(io::Error::other)?;
        option(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)?;
        option(&socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &index)?;
        option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &HOPS)?;
        Ok(Self { socket, interface })
    }

    /// Asks the routers of the link to advertise themselves. Fails while the interface has no address of its own yet.
    pub fn solicit(&self) -> io::Result<()> {
        let message = [ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]; // the kernel fills in the checksum
        let to = address(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), self.interface);
        // SAFETY: the kernel reads `message.len()` bytes of `message` and one address structure; both outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const to).cast(),
                super::length_of::<libc::sockaddr_in6>(),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next advertisement: its length in `buffer` and the router that sent it; `None` when none came in time.
    pub fn receive(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<(usize, Ipv6Addr)>> {
        let mut from = address(Ipv6Addr::UNSPECIFIED, 0);
        let length = super::receive(&self.socket, buffer, &mut from, patience)?;
        Ok(length.map(|length| (length, Ipv6Addr::from(from.sin6_addr.s6_addr))))
    }
}

fn address(address: Ipv6Addr, interface: u32) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).unwrap_or_default(), // 10
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: address.octets() },
        sin6_scope_id: interface,
    }
}

fn option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`, plain numbers that outlive the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            super::length_of::<T>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

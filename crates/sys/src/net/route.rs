//! Links, addresses and routes, by `NETLINK_ROUTE`: the few requests that bringing up a network needs.
//!
//! A request is built by hand (rtnetlink(7)): a header, a fixed part, attributes, each padded to four bytes. Every request asks
//! for an acknowledgement and waits for it, two seconds at most.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the kernel may take to acknowledge. It answers at once; this only keeps a wait from being unbounded.
const PATIENCE: Duration = Duration::from_secs(2);

// Numbers of linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// A route to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network; the unspecified address with length 0 is the default route.
    pub destination: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u8,
    /// The router, or nothing for a network on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the interface.
    pub interface: u32,
    /// The lower the better.
    pub metric: u32,
}

/// The index of an interface by name.
pub fn interface_index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// Sets a link up.
pub fn set_up(interface: u32) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &link_message(interface, Some(IFF_UP), None)?)
}

/// Sets a link down.
pub fn set_down(interface: u32) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &link_message(interface, Some(0), None)?)
}

/// Sets the largest packet of a link, in bytes.
pub fn set_mtu(interface: u32, bytes: u32) -> io::Result<()> {
    request(RTM_NEWLINK, 0, &link_message(interface, None, Some(bytes))?)
}

/// Adds an address to a link, or refreshes it.
pub fn add_address(interface: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &address_message(interface, address, prefix))
}

/// Takes an address from a link.
pub fn remove_address(interface: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    request(RTM_DELADDR, 0, &address_message(interface, address, prefix))
}

/// Adds a route, or replaces the one with the same destination and metric.
pub fn add_route(route: &Route) -> io::Result<()> {
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route_message(route))
}

/// `ifinfomsg` and attributes.
fn link_message(interface: u32, up: Option<u32>, mtu: Option<u32>) -> io::Result<Vec<u8>> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let mut body = vec![0; 4]; // family, padding, type
    body.extend(index.to_ne_bytes());
    body.extend(up.unwrap_or(0).to_ne_bytes()); // flags
    body.extend(up.map_or(0, |_| IFF_UP).to_ne_bytes()); // which flags change
    if let Some(mtu) = mtu {
        attribute(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
    }
    Ok(body)
}

/// `ifaddrmsg` and attributes.
fn address_message(interface: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let mut body = vec![family(address), prefix, 0, RT_SCOPE_UNIVERSE];
    body.extend(interface.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, &octets(address));
    attribute(&mut body, IFA_ADDRESS, &octets(address));
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
        attribute(&mut body, IFA_BROADCAST, &(u32::from(v4) | hosts).to_be_bytes());
    }
    body
}

/// `rtmsg` and attributes.
fn route_message(route: &Route) -> Vec<u8> {
    let scope = if route.gateway.is_some() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let prefix = route.prefix;
    let mut body =
        vec![family(route.destination), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST];
    // A server may name a router outside the client's own network (cloud networks with /32 addresses do): it is on the link.
    let flags = if route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
    body.extend(flags.to_ne_bytes());
    if prefix > 0 {
        attribute(&mut body, RTA_DST, &octets(route.destination));
    }
    if let Some(gateway) = route.gateway {
        attribute(&mut body, RTA_GATEWAY, &octets(gateway));
    }
    attribute(&mut body, RTA_OIF, &route.interface.to_ne_bytes());
    attribute(&mut body, RTA_PRIORITY, &route.metric.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or_default() // 2 and 10
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX); // values here are a few dozen bytes at the most
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Sends one request and waits for the kernel's word on it.
pub(super) fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    const SEQUENCE: u32 = 1; // one request a socket
    let socket = super::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    super::bind(&socket, &netlink_address(0))?;
    send(&socket, &message(kind, flags, SEQUENCE, body)?)?;

    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 8192];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut sender = netlink_address(0);
        let got = super::receive(&socket, &mut buffer, &mut sender, left)?;
        if let Some(answer) = got.and_then(|length| acknowledgement(buffer.get(..length)?, SEQUENCE)) {
            return match answer {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            };
        }
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// `nlmsghdr` and body.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len() + 16).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(body.len() + 16);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes()); // the kernel fills in who we are
    message.extend(body);
    Ok(message)
}

/// The error number (negative, 0 for success) of the first acknowledgement, if it answers our request.
fn acknowledgement(bytes: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let answered = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let error = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR && answered == sequence).then_some(error)
}

fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    let to = netlink_address(0);
    // SAFETY: the kernel reads `message.len()` bytes of `message` and one address structure; both outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
            (&raw const to).cast(),
            super::length_of::<libc::sockaddr_nl>(),
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's own address, or that of a group of listeners.
pub(super) fn netlink_address(groups: u32) -> libc::sockaddr_nl {
    // SAFETY: `sockaddr_nl` is plain data for which all zeroes is a valid value; its padding is private.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = u16::try_from(libc::AF_NETLINK).unwrap_or_default(); // 16
    address.nl_groups = groups;
    address
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::packet::{BROADCAST, PacketSocket};

    #[test]
    fn an_address_message_has_the_layout_of_rtnetlink() {
        let bytes = address_message(2, "10.0.2.15".parse().unwrap(), 24);
        assert_eq!(bytes[..4], [2, 24, 0, 0]);
        assert_eq!(bytes[4..8], 2_u32.to_ne_bytes());
        assert_eq!(bytes[12..16], [10, 0, 2, 15]);
        assert_eq!(bytes[28..32], [10, 0, 2, 255]);
    }

    #[test]
    fn an_acknowledgement_is_taken_only_for_our_request() {
        let mut bytes = vec![0; 36];
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(acknowledgement(&bytes, 7), Some(-17));
        assert_eq!(acknowledgement(&bytes, 8), None);
        assert_eq!(acknowledgement(&bytes[..19], 7), None);
    }

    /// Runs `test` on a thread with a network of its own; false (with a word on stderr) where that needs more rights.
    pub(in crate::net) fn in_own_network(test: impl FnOnce() + Send + 'static) -> bool {
        std::thread::spawn(|| {
            if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                let _ = std::io::Write::write_fmt(
                    &mut std::io::stderr(),
                    format_args!("SKIPPED: a network namespace needs root: {error}\n"),
                ); // past cargo's capture: it counts
                return false;
            }
            test();
            true
        })
        .join()
        .unwrap()
    }

    #[test]
    fn netns_links_addresses_and_routes_come_up_and_packets_pass_the_filter() {
        in_own_network(|| {
            let lo = interface_index("lo").unwrap();
            set_up(lo).unwrap();
            set_mtu(lo, 9000).unwrap();
            let address: IpAddr = "192.0.2.1".parse().unwrap();
            add_address(lo, address, 24).unwrap();
            add_address(lo, address, 24).unwrap(); // a renewed lease adds it again
            add_address(lo, "2001:db8::1".parse().unwrap(), 64).unwrap();
            // Not from 192.0.2.0/24: on the loopback link that whole network is this machine's own, which no gateway may be.
            let gateway = Some("203.0.113.1".parse().unwrap());
            let default = Route {
                destination: "0.0.0.0".parse().unwrap(),
                prefix: 0,
                gateway,
                interface: lo,
                metric: 100,
            };
            add_route(&Route {
                gateway: None,
                destination: "198.51.100.0".parse().unwrap(),
                prefix: 24,
                ..default
            })
            .unwrap();
            add_route(&default).unwrap();
            let own = std::net::UdpSocket::bind((address, 0)).unwrap();
            own.connect("198.51.100.7:9").unwrap();
            remove_address(lo, address, 24).unwrap();
            assert_eq!(
                remove_address(lo, address, 24).unwrap_err().raw_os_error(),
                Some(libc::EADDRNOTAVAIL)
            );
            assert!(set_up(9999).is_err());

            let socket = PacketSocket::open(lo, 68).unwrap();
            let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 9, 255, 255, 255, 255];
            packet.extend([0, 67, 0, 69, 0, 8, 0, 0]); // to port 69: must be filtered out
            socket.send(BROADCAST, &packet).unwrap();
            packet[23] = 68;
            socket.send(BROADCAST, &packet).unwrap();
            let mut buffer = [0; 1500];
            let (length, _) = socket.receive(&mut buffer, Duration::from_secs(5)).unwrap().unwrap();
            assert_eq!(buffer[..length], packet[..]);
            assert!(crate::net::uevent::UeventSocket::open().is_ok());
        });
    }
}

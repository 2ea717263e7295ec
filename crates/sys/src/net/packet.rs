//! IPv4 packets sent and received on one interface before it has an address: the transport of a DHCP client.
//!
//! The kernel adds and takes off the Ethernet header; the IP and UDP headers are the caller's. A filter in the kernel lets
//! only UDP to one port through, so that an open socket costs a busy interface next to nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The address that every station on an Ethernet listens to.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// `ETH_P_IP`, in network byte order as the socket calls want it.
const IPV4: u16 = 0x0800_u16.to_be();

/// A raw IPv4 socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    interface: i32,
}

impl PacketSocket {
    /// Listens on the interface with this index for UDP packets to `port`. Needs root.
    pub fn open(interface: u32, port: u16) -> io::Result<Self> {
        let interface = i32::try_from(interface).map_err(io::Error::other)?;
        // Protocol 0 receives nothing: no packet slips in before the filter stands.
        let socket = super::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
        attach_filter(&socket, port)?;
        super::bind(&socket, &address(interface, None))?;
        Ok(Self { socket, interface })
    }

    /// Sends one IP packet to a station.
    pub fn send(&self, station: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let to = address(self.interface, Some(station));
        // SAFETY: the kernel reads `packet.len()` bytes of `packet` and one address structure; both outlive the call.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                super::length_of::<libc::sockaddr_ll>(),
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one IP packet: its length in `buffer` and the station it came from; `None` when none came in time.
    pub fn receive(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<(usize, [u8; 6])>> {
        let mut from = address(0, None);
        let Some(length) = super::receive(&self.socket, buffer, &mut from, patience)? else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, ..] = from.sll_addr;
        Ok(Some((length, [a, b, c, d, e, f])))
    }
}

fn address(interface: i32, station: Option<[u8; 6]>) -> libc::sockaddr_ll {
    let mut hardware = [0; 8];
    for (to, from) in hardware.iter_mut().zip(station.iter().flatten()) {
        *to = *from;
    }
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(), // 17
        sll_protocol: IPV4,
        sll_ifindex: interface,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: if station.is_some() { 6 } else { 0 },
        sll_addr: hardware,
    }
}

/// Lets only unfragmented UDP to `port` through. Offsets count from the IP header.
fn attach_filter(socket: &OwnedFd, port: u16) -> io::Result<()> {
    let op = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(0x30, 0, 0, 9),               // load the protocol byte
        op(0x15, 0, 6, 17),              // not UDP: refuse
        op(0x28, 0, 0, 6),               // load flags and fragment offset
        op(0x45, 4, 0, 0x1fff),          // a later fragment: refuse
        op(0xb1, 0, 0, 0),               // index = length of the IP header
        op(0x48, 0, 0, 2),               // load the destination port
        op(0x15, 0, 1, u32::from(port)), // another port: refuse
        op(0x06, 0, 0, 0xffff),          // take it
        op(0x06, 0, 0, 0),               // refuse it
    ];
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `len` instructions from `program`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            super::length_of::<libc::sock_fprog>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

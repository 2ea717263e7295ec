//! Asks the local network (RFC 6762, 5.1: from a port of its own, so that answers come to this socket alone).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use sys::Host;

use super::message::{self, Kind, Record};

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// How long one socket is listened to before the next one has its turn.
const TURN: Duration = Duration::from_millis(20);
/// The largest message.
const LARGEST: usize = 9000;

/// Sockets on every interface.
pub(super) struct Resolver {
    sockets: Vec<(UdpSocket, SocketAddr)>,
}

impl Resolver {
    /// On the interfaces with these addresses, or on all where none are named.
    pub(super) fn open(host: &Host, wanted: &[String]) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (name, address) in host.kernel().interface_addresses()? {
            if address.is_loopback() || !(wanted.is_empty() || wanted.contains(&address.to_string())) {
                continue;
            }
            match socket(&name, address) {
                Ok(Some(socket)) => sockets.push(socket),
                Ok(None) => {}
                Err(error) => tracing::debug!(interface = name, %address, %error, "no mDNS there"),
            }
        }
        Ok(Self { sockets })
    }

    /// Asks once on every interface and collects what is answered until `enough` says so, `patience` at most.
    pub(super) fn ask(
        &self,
        name: &str,
        kinds: &[Kind],
        patience: Duration,
        enough: impl Fn(&[Record]) -> bool,
    ) -> io::Result<Vec<Record>> {
        let [a, b, ..] = RandomState::new().build_hasher().finish().to_ne_bytes(); // seeded by the kernel
        let id = u16::from_ne_bytes([a, b]);
        let question = message::query(id, name, kinds).ok_or(io::ErrorKind::InvalidInput)?;
        for (socket, group) in &self.sockets {
            if let Err(error) = socket.send_to(&question, group) {
                tracing::debug!(%group, %error, "asking by mDNS");
            }
        }
        let deadline = Instant::now() + patience;
        let mut records = Vec::new();
        let mut buffer = vec![0; LARGEST];
        while Instant::now() < deadline && !enough(&records) {
            for (socket, _) in &self.sockets {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                records.extend(buffer.get(..length).and_then(message::answer).unwrap_or_default());
            }
            if self.sockets.is_empty() {
                std::thread::sleep(TURN);
            }
        }
        Ok(records)
    }
}

/// A socket whose packets leave through the interface with this address, and the group to send to.
fn socket(interface: &str, address: IpAddr) -> io::Result<Option<(UdpSocket, SocketAddr)>> {
    let (own, group): (SocketAddr, SocketAddr) = match address {
        // Linux sends multicast through the interface that the source address is of.
        IpAddr::V4(v4) => ((v4, 0).into(), (GROUP_V4, PORT).into()),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            let index = sys::net::route::interface_index(interface)?;
            (SocketAddrV6::new(v6, 0, 0, index).into(), SocketAddrV6::new(GROUP_V6, PORT, 0, index).into())
        }
        IpAddr::V6(_) => return Ok(None), // the interface has a link-local one as well
    };
    let socket = UdpSocket::bind(own)?;
    socket.set_read_timeout(Some(TURN))?;
    Ok(Some((socket, group)))
}
